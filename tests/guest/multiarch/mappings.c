// Memory as the kernel deals it out: brk, mmap with all its flags, mremap, mprotect, madvise, mlock, memfd, shared
// mappings over fork, file ends, growing stacks. Prints what it can tell without addresses.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define PAGE 4096l
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static sigjmp_buf back;
static volatile int fault_signal, fault_code;
static char *volatile fault_at;
static void on_fault(int s, siginfo_t *i, void *c) {
    fault_signal = s, fault_code = i->si_code, fault_at = i->si_addr;
    siglongjmp(back, 1);
}
// What an access gives: 0, or signal * 10 + code.
static int reads(char *p) {
    if (sigsetjmp(back, 1)) return fault_signal * 10 + fault_code + (fault_at == p ? 0 : 1000);
    *(volatile char *)p;
    return 0;
}
static int writes(char *p) {
    if (sigsetjmp(back, 1)) return fault_signal * 10 + fault_code + (fault_at == p ? 0 : 1000);
    *(volatile char *)p = 1;
    return 0;
}
static const char *error(int failed) {
    static char text[4][60];
    static int n;
    n = (n + 1) % 4;
    snprintf(text[n], 60, "%s", failed ? strerror(errno) : "ok");
    return text[n];
}
#define CALL(call) printf("%s: %s\n", #call, error((long)(call) == -1))
#define SHOW(value) printf("%s: %ld\n", #value, (long)(value))
static char *map(size_t pages, int prot) { return mmap(0, pages * PAGE, prot, ANON, -1, 0); }

static void breaks(void) {
    char *start = sbrk(0);
    SHOW(sbrk(3 * PAGE + 5) == start);
    SHOW((char *)sbrk(0) - start);
    SHOW(writes(start + 3 * PAGE + 4));
    SHOW(brk(start + PAGE) == 0);
    SHOW(reads((char *)(((uintptr_t)start + PAGE + 2 * PAGE - 1) & -PAGE)));
    SHOW(brk(start) == 0);
    sbrk(2 * PAGE);
    SHOW(reads(start + PAGE)); // fresh
    SHOW(start[PAGE]);
    // The kernel's call returns the break that holds, also when it refuses.
    SHOW((char *)syscall(SYS_brk, 1) == (char *)sbrk(0));
    SHOW((char *)syscall(SYS_brk, -1l) == (char *)sbrk(0));
    char *above = (char *)((uintptr_t)sbrk(0) + 64 * PAGE & -PAGE);
    SHOW(mmap(above, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == above);
    SHOW((char *)syscall(SYS_brk, above + 8 * PAGE) == (char *)sbrk(0)); // in the way
    munmap(above, PAGE);
    brk(start);
}

static void placing(void) {
    char *p = map(4, RW);
    memset(p, 7, 4 * PAGE);
    CALL(mmap(p, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    munmap(p + PAGE, PAGE);
    SHOW(mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == p + PAGE);
    CALL(mmap(p, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    SHOW(p[0]), SHOW(p[PAGE]), SHOW(p[2 * PAGE]);
    SHOW(mmap(p, 2 * PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0) == p);
    SHOW(p[0]), SHOW(p[2 * PAGE]), SHOW(writes(p)), SHOW(writes(p + 2 * PAGE));
    munmap(p, 4 * PAGE);
    SHOW(mmap(p, PAGE, RW, ANON, -1, 0) == p); // a free hint is taken
    SHOW(mmap(p + 1, PAGE, RW, ANON, -1, 0) != p); // one that is not is not
    CALL(mmap(p + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    CALL(mmap(0, 0, RW, ANON, -1, 0));
    CALL(mmap(0, -1ul, RW, ANON, -1, 0));
    CALL(mmap(0, PAGE, RW, MAP_ANONYMOUS, -1, 0));
    CALL(mmap(0, PAGE, RW, MAP_PRIVATE, -1, 0));
    CALL(mmap(0, PAGE, RW, MAP_PRIVATE, 1000, 0));
    CALL(munmap(p + 1, PAGE)), CALL(munmap(p, 0)), CALL(munmap(p, PAGE)), CALL(munmap(p, PAGE));
    SHOW(reads(p));
    CALL(mmap((void *)(uintptr_t)PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == MAP_FAILED && errno != EPERM ? -1 : 0);
}

static void protecting(void) {
    char *p = map(6, RW);
    p[0] = p[PAGE] = 1;
    CALL(mprotect(p + PAGE, PAGE, PROT_READ)), SHOW(writes(p + PAGE)), SHOW(reads(p + PAGE));
    CALL(mprotect(p + PAGE, PAGE, PROT_NONE)), SHOW(reads(p + PAGE));
    CALL(mprotect(p, 6 * PAGE, RW)), SHOW(writes(p + PAGE)), SHOW(p[PAGE]);
    CALL(mprotect(p + 1, PAGE, RW)), CALL(mprotect(p, 0, RW)), CALL(mprotect(p, PAGE, 0x100));
    munmap(p + 2 * PAGE, PAGE);
    CALL(mprotect(p, 6 * PAGE, PROT_READ));
    SHOW(writes(p)), SHOW(writes(p + 3 * PAGE)); // up to the hole
    munmap(p, 6 * PAGE);
}

static void moving(void) {
    char *p = map(8, RW), *q;
    memset(p, 1, 8 * PAGE);
    SHOW(mremap(p, 8 * PAGE, 4 * PAGE, 0) == p), SHOW(reads(p + 4 * PAGE));
    SHOW(mremap(p, 4 * PAGE, 8 * PAGE, 0) == p), SHOW(p[3 * PAGE]), SHOW(p[5 * PAGE]);
    mmap(p + 8 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0);
    CALL(mremap(p, 8 * PAGE, 16 * PAGE, 0));
    q = mremap(p, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    SHOW(q != p), SHOW(q[0]), SHOW(q[15 * PAGE]), SHOW(reads(p));
    p = map(20, PROT_NONE);
    SHOW(mremap(q, 16 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE) == p + PAGE);
    SHOW(reads(p)), SHOW(p[PAGE]), SHOW(writes(p + PAGE)), SHOW(reads(p + 3 * PAGE)), SHOW(reads(q));
    CALL(mremap(p + PAGE, 2 * PAGE, PAGE, MREMAP_FIXED, q));
    CALL(mremap(p + PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 2 * PAGE)); // overlaps
    CALL(mremap(p + PAGE, PAGE, 0, MREMAP_MAYMOVE)), CALL(mremap(p + 1, PAGE, PAGE, 0));
    CALL(mremap(p + PAGE, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE)); // over two mappings
    munmap(p, 20 * PAGE);
    CALL(mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    // Shared memory is doubled by an old length of zero.
    p = mmap(0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    q = mremap(p, 0, PAGE, MREMAP_MAYMOVE);
    SHOW(q != MAP_FAILED && q != p);
    if (q != MAP_FAILED) p[5] = 9, SHOW(q[5]), munmap(q, PAGE);
    munmap(p, PAGE);
#ifdef MREMAP_DONTUNMAP
    p = map(2, RW), p[0] = 3;
    q = mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    SHOW(q != MAP_FAILED && q[0] == 3), SHOW(reads(p)), SHOW(p[0]);
    munmap(p, 2 * PAGE), munmap(q, 2 * PAGE);
#endif
}

static void files(void) {
    char name[] = "/tmp/mappings-XXXXXX";
    int fd = mkstemp(name);
    char text[PAGE] = "";
    memset(text, 'a', sizeof text);
    if (write(fd, text, 100) != 100) abort();
    char *s = mmap(0, 2 * PAGE, RW, MAP_SHARED, fd, 0), *p = mmap(0, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);
    SHOW(s[99]), SHOW(s[100]), SHOW(reads(s + PAGE)), SHOW(reads(p + PAGE)); // beyond the end: SIGBUS
    s[0] = 'S', p[1] = 'P';
    SHOW(p[0]), SHOW(s[1]);
    SHOW(pread(fd, text, 2, 0)), SHOW(text[0]), SHOW(text[1]);
    if (pwrite(fd, "W", 1, 50) != 1) abort();
    SHOW(s[50]), SHOW(p[50]);
    CALL(ftruncate(fd, 2 * PAGE)), SHOW(reads(s + PAGE)), SHOW(writes(s + PAGE));
    CALL(ftruncate(fd, 10)), SHOW(reads(s + PAGE)), SHOW(s[11]);
    CALL(msync(s, PAGE, MS_SYNC)), CALL(msync(s, PAGE, MS_SYNC | MS_ASYNC)), CALL(msync(s + 1, PAGE, MS_SYNC));
    munmap(s, 2 * PAGE), munmap(p, 2 * PAGE);
    CALL(msync(s, PAGE, MS_SYNC));
    CALL(mmap(0, PAGE, RW, MAP_PRIVATE, fd, 1));
    close(fd), fd = open(name, O_RDONLY);
    CALL(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    p = mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CALL(mprotect(p, PAGE, RW));
    munmap(p, PAGE);
    close(fd), fd = open(name, O_WRONLY);
    CALL(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    close(fd), unlink(name);
    fd = memfd_create("it", MFD_ALLOW_SEALING);
    CALL(ftruncate(fd, 3 * PAGE));
    s = mmap(0, 3 * PAGE, RW, MAP_SHARED, fd, 0), p = mmap(0, PAGE, RW, MAP_SHARED, fd, PAGE);
    s[PAGE] = 42, SHOW(p[0]);
    SHOW(fcntl(fd, F_GET_SEALS));
    CALL(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)); // busy
    munmap(s, 3 * PAGE), munmap(p, PAGE);
    CALL(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
    CALL(mmap(0, PAGE, RW, MAP_SHARED, fd, 0)), CALL(ftruncate(fd, 0));
    close(fd);
}

static void over_fork(void) {
    char *shared = mmap(0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0), *own = map(4, RW);
    shared[0] = own[0] = 1;
    CALL(madvise(own + PAGE, PAGE, MADV_DONTFORK)), CALL(madvise(own + 2 * PAGE, PAGE, MADV_WIPEONFORK));
    own[PAGE] = own[2 * PAGE] = own[3 * PAGE] = 5;
    pid_t pid = fork();
    if (!pid) {
        shared[0] = 2, own[0] = 2;
        SHOW(reads(own + PAGE)), SHOW(own[2 * PAGE]), SHOW(own[3 * PAGE]);
        mprotect(shared, PAGE, PROT_READ);
        munmap(own, 4 * PAGE);
        _exit(0);
    }
    waitpid(pid, 0, 0);
    SHOW(shared[0]), SHOW(own[0]), SHOW(own[PAGE]), SHOW(writes(shared));
    munmap(shared, 2 * PAGE), munmap(own, 4 * PAGE);
    int id = shmget(IPC_PRIVATE, 3 * PAGE, 0600);
    shared = shmat(id, 0, 0), own = shmat(id, 0, SHM_RDONLY);
    shared[7] = 7, SHOW(own[7]), SHOW(writes(own));
    if (!(pid = fork())) shared[8] = 8, shmdt(shared), _exit(0);
    waitpid(pid, 0, 0), SHOW(own[8]);
    struct shmid_ds ds;
    CALL(shmctl(id, IPC_STAT, &ds)), SHOW(ds.shm_nattch), SHOW(ds.shm_segsz);
    CALL(shmdt(own)), CALL(shmdt(own)), SHOW(reads(own)), CALL(shmdt(shared));
    CALL(shmctl(id, IPC_RMID, 0));
}

static void advising(void) {
    char *p = map(8, RW);
    memset(p, 6, 8 * PAGE);
    CALL(madvise(p, 2 * PAGE, MADV_DONTNEED)), SHOW(p[0]), SHOW(p[2 * PAGE]);
    CALL(madvise(p, PAGE, MADV_WILLNEED)), CALL(madvise(p, PAGE, 12345)), CALL(madvise(p + 1, PAGE, MADV_DONTNEED));
    munmap(p + 4 * PAGE, PAGE);
    CALL(madvise(p + 3 * PAGE, 3 * PAGE, MADV_DONTNEED)), SHOW(p[3 * PAGE]), SHOW(p[5 * PAGE]);
    CALL(madvise(p, 0, MADV_DONTNEED));
    unsigned char in[8] = {0};
    p[6 * PAGE] = 1;
    CALL(mincore(p + 5 * PAGE, 3 * PAGE, in)), SHOW(in[0] & 1), SHOW(in[1] & 1);
    CALL(mincore(p, 8 * PAGE, in)), CALL(mincore(p + 1, PAGE, in)), CALL(mincore(p, PAGE, (void *)8));
    struct rlimit limit;
    getrlimit(RLIMIT_MEMLOCK, &limit);
    CALL(mlock(p + 10, 2 * PAGE)), CALL(madvise(p, PAGE, MADV_DONTNEED)), CALL(munlock(p, 4 * PAGE));
    CALL(mlock(p, 8 * PAGE)), CALL(munlock(p, 8 * PAGE));
    munmap(p, 8 * PAGE);
    int fd = memfd_create("hole", 0);
    if (ftruncate(fd, 2 * PAGE)) abort();
    p = mmap(0, 2 * PAGE, RW, MAP_SHARED, fd, 0);
    memset(p, 3, 2 * PAGE);
    CALL(madvise(p, PAGE, MADV_REMOVE)), SHOW(p[0]), SHOW(p[PAGE]);
    CALL(madvise(p, PAGE, MADV_DONTNEED)), SHOW(p[PAGE]);
    munmap(p, 2 * PAGE), close(fd);
}

// A mapping that grows downwards does so on a fault just below it.
static void growing(void) {
    char *room = map(1024, PROT_NONE);
    munmap(room, 1024 * PAGE);
    char *p = mmap(room + 1000 * PAGE, 2 * PAGE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
    SHOW(p == room + 1000 * PAGE), SHOW(writes(p));
    SHOW(writes(p - PAGE)), SHOW(writes(p - 10 * PAGE));
    munmap(room, 1024 * PAGE);
    // The stack itself.
    volatile char far[2 << 20];
    far[0] = 1, SHOW(far[0]);
}

static void errors_of_the_kernel(void) {
    char *p = map(2, PROT_READ), *q = map(2, RW);
    munmap(q + PAGE, PAGE);
    int fds[2];
    if (pipe(fds)) abort();
    if (write(fds[1], "0123456789", 10) != 10) abort();
    CALL(read(fds[0], p, 4));
    SHOW(read(fds[0], q + PAGE - 4, 10) >= -1);
    CALL(write(fds[1], q + PAGE, 1)), CALL(write(fds[1], (void *)-1l, 1)), CALL(write(fds[1], (void *)(uintptr_t)1, 1));
    CALL(readlink("/proc/self/cwd", p, 100)), CALL(open((char *)(uintptr_t)8, O_RDONLY)), CALL(open(q + PAGE - 1, O_RDONLY));
    struct iovec v[2] = {{q, 4}, {p, 4}};
    if (write(fds[1], "0123456789", 10) != 10) abort();
    SHOW(readv(fds[0], v, 1) > 0);
    CALL(readv(fds[0], (void *)(uintptr_t)16, 1));
    munmap(p, 2 * PAGE), munmap(q, PAGE);
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &act, 0), sigaction(SIGBUS, &act, 0);
    breaks(), placing(), protecting(), moving(), files(), over_fork(), advising(), growing(), errors_of_the_kernel();
}
