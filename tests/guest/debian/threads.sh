# Programs that work with several threads.
seq 60000 >numbers
xz -T4 --block-size=32768 -6 -c numbers >numbers.xz; echo "xz $?"
xz -t -T4 numbers.xz && xz -dc numbers.xz | cmp - numbers; echo "unpacked $?"
xz --robot --list numbers.xz | cut -f1-6
sort --parallel=4 -S 1M -R --random-source=/bin/sh numbers | sort --parallel=4 -n | sha256sum
python3 - <<'P'
import queue, threading, hashlib
work, done, lock, total = queue.Queue(), queue.Queue(), threading.Lock(), 0
def run():
    global total
    while (n := work.get()) is not None:
        h = hashlib.sha256(str(n).encode() * 2000).hexdigest()
        with lock: total += n
        done.put((n, h))
threads = [threading.Thread(target=run) for _ in range(6)]
for t in threads: t.start()
for n in range(200): work.put(n)
for t in threads: work.put(None)
for t in threads: t.join()
print(total, hashlib.md5(repr(sorted(done.queue)).encode()).hexdigest())
event, seen = threading.Event(), []
waiters = [threading.Thread(target=lambda: (event.wait(), seen.append(1))) for _ in range(8)]
for t in waiters: t.start()
event.set()
for t in waiters: t.join(60)
print(len(seen), threading.active_count())
P
