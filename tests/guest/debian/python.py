import json, hashlib, re, decimal, fractions, threading, subprocess, asyncio, ctypes, struct, sqlite3, math, zlib, bz2, lzma
import os, sys, signal, socket, time, random, collections, itertools, functools, pickle, datetime, select, mmap, tempfile, array, cmath

print(sys.version_info[:3], sys.byteorder, sys.maxsize)
print(json.dumps({"a": [1, 2.5, None, True], "é": "\u263a"}, sort_keys=True), json.loads('{"x": [1e10, -0.0, 1E-5]}'))
for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s", "shake_128"):
    h = hashlib.new(name, b"x" * 1000)
    print(name, h.hexdigest(16) if name.startswith("shake") else h.hexdigest())
print(hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1000).hex())
print(re.findall(r"(?P<k>\w+)\s*=\s*(?P<v>'[^']*'|\d+)", "a = 1, b='two', c =33"), re.sub(r"(?<=a)b+", lambda m: str(len(m[0])), "abbb ab b"))
decimal.getcontext().prec = 50
print(decimal.Decimal(2).sqrt(), decimal.Decimal(1) / 7, fractions.Fraction(1, 3) + fractions.Fraction(2, 7))
for x in (0.1, 1 / 3, 1e22, 1e23, 5e-324, 1.7976931348623157e308, 2.5, -0.0, 123456789.123456789, 1e16, float("inf"), float("nan")):
    print(repr(x), "%.3f" % x, x.hex() if x == x else "nan", end=" ")
print()
print([round(f(0.7), 14) for f in (math.sin, math.cos, math.tan, math.exp, math.log, math.gamma, math.erf, math.asinh, math.cbrt)], cmath.sqrt(-2), math.fsum([.1] * 10), math.comb(50, 20))
print(int(2.9), int(-2.9), round(2.5), round(-3.5), 7 // -2, 7 % -2, divmod(-7.5, 2), math.fmod(-7, 3), 2 ** 200 % 1000007, pow(3, 10 ** 18, 10 ** 9 + 7), int("9" * 60) * int("8" * 60))
print(struct.pack("<hIqfd5s?", -2, 3, -4, 1.5, 2.25, b"abc", True).hex(), struct.unpack(">eIf", bytes.fromhex("3c00deadbeef40490fdb")))
random.seed(42); print([random.randint(0, 10 ** 9) for _ in range(5)], random.random(), random.gauss(0, 1))

data = bytes(random.randrange(256) if i % 7 == 0 else i % 256 for i in range(60000))
print(zlib.crc32(data), zlib.adler32(data), hashlib.md5(zlib.compress(data, 6)).hexdigest(), bz2.decompress(bz2.compress(data)) == data, lzma.decompress(lzma.compress(data, preset=1)) == data)
print(hashlib.md5(pickle.dumps({"k": [1, (2, 3), {4}], "d": datetime.date(2020, 2, 29)}, 4)).hexdigest(), datetime.datetime(2024, 2, 29) + datetime.timedelta(days=366))

total, lock, q = 0, threading.Lock(), collections.deque()
def work(n):
    global total
    for i in range(2000):
        with lock:
            total += i % n
threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
[t.start() for t in threads]; [t.join() for t in threads]
print("threads", total, threading.active_count())
barrier, event = threading.Barrier(4), threading.Event()
def meet(n):
    barrier.wait(); event.wait(); q.append(n)
threads = [threading.Thread(target=meet, args=(n,)) for n in range(3)]
[t.start() for t in threads]; barrier.wait(); event.set(); [t.join() for t in threads]; print(sorted(q))
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool: print(sum(pool.map(lambda n: len(str(2 ** n)), range(300))))

print(subprocess.run(["sort", "-r"], input=b"a\nb\nc\n", capture_output=True).stdout, subprocess.run("exit 9", shell=True).returncode, subprocess.call(["sh", "-c", "kill -SEGV $$"]))
child = subprocess.Popen([sys.executable, "-S", "-c", "import sys; [print(int(l) ** 2, flush=True) for l in sys.stdin]"], stdin=-1, stdout=-1, text=True)
print(child.communicate("3\n4\n5\n")[0].split(), child.returncode)

async def echo(reader, writer):
    writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
async def talk():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async def one(n):
        r, w = await asyncio.open_connection("127.0.0.1", port)
        w.write(f"message {n}\n".encode()); line = await r.readline(); w.close(); return line
    print(await asyncio.gather(*(one(n) for n in range(5))))
    p = await asyncio.create_subprocess_exec("echo", "async child", stdout=-1); print((await p.communicate())[0])
    try: await asyncio.wait_for(asyncio.sleep(5), 0.05)
    except asyncio.TimeoutError: print("async timeout")
asyncio.run(talk())

class S(ctypes.Structure): _fields_ = [("a", ctypes.c_byte), ("b", ctypes.c_double), ("c", ctypes.c_int * 3), ("bits", ctypes.c_uint, 5)]
s = S(-1, 2.5, (1, 2, 3), 33); print(ctypes.sizeof(S), bytes(s).hex()[-16:], s.bits)
libc = ctypes.CDLL(None); libm = ctypes.CDLL("libm.so.6")
libm.pow.restype = ctypes.c_double; libm.pow.argtypes = [ctypes.c_double] * 2
print(libm.pow(2, 0.5), libc.abs(-5), ctypes.string_at(ctypes.create_string_buffer(b"abc")))
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 8)(5, 3, 8, 1, 9, 2, 7, 4); libc.qsort(numbers, 8, 4, compare(lambda a, b: a[0] - b[0])); print(list(numbers))
class Pair(ctypes.Structure): _fields_ = [("quot", ctypes.c_long), ("rem", ctypes.c_long)]
libc.ldiv.restype = Pair; libc.ldiv.argtypes = [ctypes.c_long] * 2; p = libc.ldiv(-17, 5); print(p.quot, p.rem)

db = sqlite3.connect(":memory:"); db.execute("create table t (id integer primary key, name text, v real)")
db.executemany("insert into t (name, v) values (?, ?)", ((f"n{i % 97}", math.sqrt(i)) for i in range(3000))); db.create_function("half", 1, lambda x: x / 2)
print(db.execute("select name, count(*), round(sum(half(v)), 6) from t group by name order by 3 desc limit 3").fetchall(), db.execute("select count(*) from t a join t b on a.id = b.id * 2 where b.name like 'n1%'").fetchone())

got = []
signal.signal(signal.SIGUSR1, lambda n, f: got.append(n)); os.kill(os.getpid(), signal.SIGUSR1)
signal.signal(signal.SIGALRM, lambda n, f: got.append(n)); signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(0.2); print("signals", got)
pid = os.fork()
if pid == 0: os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
a, b = socket.socketpair(); a.sendmsg([b"with fd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))])
m, anc, flags, _ = b.recvmsg(100, 100); print(m, len(anc), os.fstat(array.array("i", anc[0][2])[0]).st_ino == os.fstat(1).st_ino)
poll = select.epoll(); poll.register(b, select.EPOLLIN); print(poll.poll(0.01), end=" "); a.send(b"x"); print(len(poll.poll(1)))
with tempfile.TemporaryFile() as f:
    f.write(b"0" * 8192); f.flush(); mm = mmap.mmap(f.fileno(), 8192); mm[4096:4100] = b"mmap"; mm.flush(); print(os.pread(f.fileno(), 6, 4095))
print(functools.reduce(lambda a, b: a * b, itertools.accumulate(range(1, 12))), sorted({"b": 1, "a": 2}.items()), "%s" % (sys.exc_info(),))
def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
print(deep(900))
try: deep(10 ** 6)
except RecursionError: print("recursion error")
sys.stdout.flush(); os.abort() if len(sys.argv) > 1 else sys.exit(17)
