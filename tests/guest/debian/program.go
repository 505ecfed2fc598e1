// Goroutines preempted by signals, channels, garbage collection, a stack that grows, panics from SIGSEGV.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type node struct {
	left, right *node
	v           int
}

func tree(d int) *node {
	if d == 0 {
		return &node{v: 1}
	}
	return &node{tree(d - 1), tree(d - 1), d}
}
func (n *node) sum() int {
	if n == nil {
		return 0
	}
	return n.v + n.left.sum() + n.right.sum()
}
func deep(n int) int {
	var pad [64]byte
	pad[n%64] = 1
	if n == 0 {
		return 0
	}
	return deep(n-1) + int(pad[n%64])
}
func try(name string, f func()) {
	defer func() { fmt.Println(name, recover()) }()
	f()
}

func main() {
	fmt.Println(runtime.GOOS, runtime.Version(), math.Sqrt(2), math.Sin(1), math.FMA(2, 3, 4), math.Inf(1), 1/3.0, uint8(200+100-255))
	h := sha256.Sum256(bytes.Repeat([]byte("tulk"), 10000))
	fmt.Printf("%x\n", h)
	block, _ := aes.NewCipher(h[:])
	gcm, _ := cipher.NewGCM(block)
	fmt.Printf("%x\n", gcm.Seal(nil, h[:12], []byte("plain text"), nil))
	key := ed25519.NewKeyFromSeed(h[:])
	fmt.Printf("%x\n", ed25519.Sign(key, []byte("m"))[:16])
	fmt.Println(new(big.Int).Exp(big.NewInt(3), big.NewInt(1000), big.NewInt(1000000007)), new(big.Int).MulRange(1, 60))
	var wg sync.WaitGroup
	var total int64
	ch := make(chan int, 10)
	for g := 0; g < 50; g++ {
		wg.Add(1)
		go func(g int) {
			defer wg.Done()
			for i := 0; i < 200; i++ {
				atomic.AddInt64(&total, int64(i%(g+1)))
				ch <- i
			}
		}(g)
	}
	go func() { wg.Wait(); close(ch) }()
	n := 0
	for v := range ch {
		n += v
	}
	fmt.Println(total, n)
	sums := 0
	for i := 0; i < 20; i++ {
		sums += tree(12).sum()
	}
	runtime.GC()
	fmt.Println(sums, deep(200000))
	var spin int64
	go func() {
		for {
			spin++
		}
	}()
	time.Sleep(30 * time.Millisecond)
	runtime.GC()
	fmt.Println("preempted")
	try("nil", func() { var p *node; fmt.Println(p.v) })
	try("index", func() { a := []int{1}; i := 5; fmt.Println(a[i]) })
	try("divide", func() { z := 0; fmt.Println(1 / z) })
	j, _ := json.Marshal(map[string]any{"b": []int{1, 2}, "a": 1.5, "c": "é<"})
	fmt.Println(string(j), regexp.MustCompile(`(\w)(\d+)`).ReplaceAllString("a1 b22", "$2$1"))
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	io.WriteString(z, strings.Repeat("compress me ", 5000))
	z.Close()
	r, _ := gzip.NewReader(&buf)
	all, _ := io.ReadAll(r)
	fmt.Println(len(all))
	words := strings.Fields(strings.Repeat("the quick brown fox ", 500))
	sort.Strings(words)
	fmt.Println(words[0], words[len(words)-1])
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	go func() { c, _ := l.Accept(); io.Copy(c, c); c.Close() }()
	c, _ := net.Dial("tcp", l.Addr().String())
	c.Write([]byte("echo"))
	c.(*net.TCPConn).CloseWrite()
	all, _ = io.ReadAll(c)
	fmt.Println(string(all))
	out, err := exec.Command("echo", "child").Output()
	fmt.Println(string(out), err, exec.Command("sh", "-c", "exit 4").Run())
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-sig)
	select {
	case <-time.After(20 * time.Millisecond):
		fmt.Println("timer")
	case <-sig:
	}
	os.Exit(29)
}
