#!/usr/bin/env python3
"""Benchmarks of the PC: Debian's newest QEMU with -accel tcg and tulk, in turn, in one run.

usage: benches/pc.py [--rounds N] [--only NAME[,NAME..]] [--json FILE] [--markdown] [--tulk FILE] [--keep-log DIR]

Both boot Debian's cloud kernel with an initial RAM disk of busybox and two static C programs. The guest prints a line
on its serial port before and after each piece of work; the emulator's processor time (all threads) between the two is
what counts, for disks and parallel work the wall time. A whole Debian disk is booted, too, for the time to its login, gcc and
python3. Medians over the rounds. Shared machines are noisy: trust
ratios, repeat what looks odd. Needs: a release build of tulk, gcc, and network access to the machine's Debian mirror
the first time (QEMU, the kernel, busybox and the disk are unpacked or made under TULK_CACHE, default /var/tmp/tulk).
"""
import argparse, json, math, os, pathlib, re, statistics, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("TULK_CACHE", "/var/tmp/tulk"))
LIMIT = 900  # seconds for one machine

# name: (group, shell command); scales chosen for about a second under QEMU
WORK = {
    "sha256": ("work", "sha256sum /tmp/data"),
    "gzip": ("work", "gzip -c /tmp/text /tmp/text /tmp/text /tmp/text >/dev/null"),
    "awk": ("work", "awk '{ n[$1 % 97] += length($0) } END { for (k in n) s += n[k]; print s }' /tmp/text"),
    "sort": ("work", "sort /tmp/text | tail -1"),
    "shell": ("work", "i=0; while [ $i -lt 60000 ]; do i=$((i + 1)); done; echo $i"),
    "bytecode": ("work", "kernels bytecode 6"),
    "calls": ("work", "kernels calls 40"),
    "matmul": ("float", "kernels matmul 4"),
    "nbody": ("float", "kernels nbody 4"),
    "mandelbrot": ("float", "kernels mandelbrot 8"),
    "saxpy": ("float", "kernels saxpy 2"),
    "dot16": ("float", "kernels dot16 10"),
    "fork": ("kernel", "system fork 1500"),
    "exec": ("kernel", "system exec 600"),
    "switch": ("kernel", "system switch 20000"),
    "pipe": ("kernel", "system pipe 2000"),
    "faults": ("kernel", "system faults 150"),
    "syscalls": ("kernel", "system syscalls 1000000"),
    "random": ("kernel", "system random 20000"),
}
# name: (bus, command)
DISK = {
    "virtio read": ("virtio", "dd if=/dev/vda of=/dev/null bs=1M count=192 2>&1"),
    "virtio write": ("virtio", "dd if=/dev/zero of=/dev/vda bs=1M count=96 conv=fsync 2>&1"),
    "virtio small": ("virtio", "dd if=/dev/vda of=/dev/null bs=4k count=4000 iflag=direct 2>&1"),
    "ide read": ("ide", "dd if=/dev/sda of=/dev/null bs=1M count=192 2>&1"),
    "ide write": ("ide", "dd if=/dev/zero of=/dev/sda bs=1M count=96 conv=fsync 2>&1"),
    "ide small": ("ide", "dd if=/dev/sda of=/dev/null bs=4k count=4000 iflag=direct 2>&1"),
}
MODULES = {"virtio": ["virtio_pci", "virtio_blk"], "ide": ["ata_piix", "sd_mod"]}
# The same work by one processor, and by two.
PARALLEL = {"one": "system compute 60; system compute 60", "two": "system compute 60 2"}
DATA = "dd if=/dev/urandom of=/tmp/data bs=1M count=40 2>/dev/null; " \
       "i=0; while [ $i -lt 4000 ]; do echo $((i * 7919 % 10007)) line $i of a text; i=$((i + 1)); done >/tmp/t; " \
       "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat /tmp/t; done >/tmp/text"
# On a whole Debian 12, prepared by the first line.
PREPARE = "stty -echo; PS1=; for i in $(seq 150); do echo \"double f$i(const double *a, int n) { double s = $i; " \
          "for (int i = 0; i < n; i++) s = s * a[i] + (i % $i ? a[n - i] : s); return s; }\"; done >t.c"
DEBIAN = {
    "gcc": "gcc -O2 -c t.c",
    "python3": "python3 -c 'import json, re; d = {str(n): [n % 7] * 5 for n in range(30000)}; t = json.dumps(d); "
               "print(len(json.loads(t)), len(re.findall(\"[1-9]+0\", t)), sum(sorted(len(w) for w in t.split())))'",
}
MARK = re.compile(rb"@@(\S+) (start|end)")


def archive(entries):
    """An archive in cpio's newc format of (name, mode, device, content)."""
    out = bytearray()
    for inode, (name, mode, device, content) in enumerate([*entries, ("TRAILER!!!", 0, (0, 0), b"")], 1):
        fields = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def processor_time(pid):
    """Of all threads of a process, also those that ended, in seconds."""
    return time.clock_gettime((~pid << 3) | 2)


class Bench:
    def __init__(self, args, tulk):
        self.rounds, self.log = args.rounds, args.keep_log
        self.rows = []
        self.work = CACHE / "bench" / "pc"
        self.work.mkdir(parents=True, exist_ok=True)
        qemu = CACHE / "qemu-system-new"
        unpack = str(ROOT / "tests/debian-unpack")
        if not (qemu / "usr/bin/qemu-system-x86_64").exists():
            subprocess.run([unpack, str(qemu), "bookworm-backports", "amd64", "qemu-system-x86", "qemu-system-data", "seabios"],
                           check=True)
        subprocess.run([str(ROOT / "tests/kernels")], check=True)
        self.root = CACHE / "kernels"
        self.kernel = str(next((self.root / "boot").glob("vmlinuz*cloud*")))
        version = subprocess.run([qemu / "usr/bin/qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
        self.version = version.stdout.split("\n")[0]
        self.machines = {
            "qemu": [str(qemu / "usr/bin/qemu-system-x86_64"), "-L", str(qemu / "usr/share/qemu"),
                     "-L", str(qemu / "usr/share/seabios"), "-accel", "tcg",
                     # It would look for sound modules of the QEMU that is installed.
                     "-audio", "none"],
            "tulk": [tulk, "system"],
        }
        self.programs = {name: self.compile(name) for name in ("kernels", "system")}

    def compile(self, name):
        out, source = self.work / name, ROOT / "benches/guest" / f"{name}.c"
        if not out.exists() or out.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["gcc", "-O3", "-static", "-ffp-contract=off", str(source), "-o", str(out), "-lm"], check=True)
        return out.read_bytes()

    def modules(self, names):
        """The modules and what they need, in the order to load them: (name, content)."""
        folder = next((self.root / "lib/modules").iterdir())
        files = {p.name.removesuffix(".ko").replace("-", "_"): p for p in folder.rglob("*.ko")}
        order = {}

        def add(name):
            if name not in order and name in files:
                content = files[name].read_bytes()
                for need in re.search(rb"\0depends=([^\0]*)\0", content)[1].decode().split(","):
                    add(need.replace("-", "_"))
                order[name] = content

        for name in names:
            add(name)
        return order

    def initrd(self, script, modules=()):
        load = self.modules(modules)
        busybox = next(p for p in (self.root / "bin/busybox", self.root / "usr/bin/busybox") if p.exists())
        init = "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmount -t proc proc /proc\n" \
               "mount -t devtmpfs dev /dev\n" + "".join(f"insmod /lib/{m}.ko\n" for m in load) + "sync\n" + script
        folder, program = 0o40755, 0o100755
        entries = [(d, folder, (0, 0), b"") for d in ("bin", "dev", "lib", "proc", "tmp")]
        entries += [("dev/console", 0o20600, (5, 1), b""), ("dev/null", 0o20666, (1, 3), b""),
                    ("bin/busybox", program, (0, 0), busybox.read_bytes()), ("init", program, (0, 0), init.encode())]
        entries += [(f"bin/{n}", program, (0, 0), c) for n, c in self.programs.items()]
        entries += [(f"lib/{n}.ko", 0o100644, (0, 0), c) for n, c in load.items()]
        return archive(entries)

    def run(self, who, script, options=(), modules=()):
        """Boots, runs the script and powers off: {name: (CPU seconds, wall seconds, output)} of its marks, and of `boot`
        (from power-on to the end, without what is between marks) with the peak memory in MiB as the third."""
        with tempfile.NamedTemporaryFile(dir=self.work) as initrd:
            initrd.write(self.initrd(script + "\npoweroff -f\n", modules))
            initrd.flush()
            command = [*self.machines[who], "-m", "256", "-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none",
                       "-no-reboot", "-kernel", self.kernel, "-initrd", initrd.name,
                       "-append", "console=ttyS0 quiet loglevel=1 panic=-1 no_timer_check " + self.words, *options]
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            started = time.monotonic()
            timer = threading.Timer(LIMIT, child.kill)
            timer.start()
            marks, text, log = {}, b"", b""
            begun = None
            for line in child.stdout:
                log += line
                if not (mark := MARK.search(line)):
                    text += line
                    continue
                now = (processor_time(child.pid), time.monotonic())
                if mark[2] == b"start":
                    begun, text = now, b""
                else:
                    marks[mark[1].decode().replace("_", " ")] = (now[0] - begun[0], now[1] - begun[1], text)
                    peak = re.search(r"VmHWM:\s*(\d+)", pathlib.Path(f"/proc/{child.pid}/status").read_text())
            errors = child.stderr.read()
            _, status, usage = os.wait4(child.pid, 0)
            timer.cancel()
            child.returncode = os.waitstatus_to_exitcode(status)
        if self.log:
            (pathlib.Path(self.log) / f"{who}.log").write_bytes(log + errors)
        if child.returncode != 0 or not marks:
            sys.exit(f"{' '.join(command)}: exit {child.returncode}\n{log[-2000:].decode(errors='replace')}\n{errors.decode()}")
        inside = [sum(m[n] for m in marks.values()) for n in (0, 1)]
        total = usage.ru_utime + usage.ru_stime
        marks["boot"] = (total - inside[0], time.monotonic() - started - inside[1], int(peak[1]) / 1024)
        return marks

    def debian(self, who):
        """Debian's disk (`tests/debian-disk`), from power-on to the prompt and through its work: {name: CPU seconds}."""
        disk = CACHE / "disk-amd64/disk.raw"
        command = [*self.machines[who], "-m", "512", "-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none",
                   "-no-reboot", "-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        timer = threading.Timer(LIMIT, child.kill)
        timer.start()
        text = b""

        def until(what):
            nonlocal text
            while what not in text:
                if not (more := child.stdout.read(1 << 16)):
                    sys.exit(f"{' '.join(command)}: no {what}\n{text[-2000:].decode(errors='replace')}")
                text += more
            text = text.split(what, 1)[1]
            return processor_time(child.pid)

        def send(line):
            child.stdin.write(line.encode() + b"\n")

        times = {"disk to login": until(b"tulk login: ")}
        for line, answer in [("root", b"Password: "), ("tulk", b"root@tulk:~# "), (PREPARE + "; echo REA''DY", b"READY")]:
            send(line)
            until(answer)
        for name, command_line in DEBIAN.items():
            before = processor_time(child.pid)
            send(f"{command_line} && echo DO''NE")
            times[name] = until(b"DONE") - before
        send("poweroff")
        until(b"Power down")
        child.wait()
        timer.cancel()
        return times

    def compare(self, script, options=(), modules=(), words=""):
        """The marks of both, medians over the rounds: {name: {who: (cpu, wall, output)}}."""
        self.words = words
        samples = {}
        for _ in range(self.rounds):
            for who in self.machines:
                for name, sample in self.run(who, script, options, modules).items():
                    samples.setdefault(name, {}).setdefault(who, []).append(sample)
        return {name: {who: (*(statistics.median(s[n] for s in ss) for n in (0, 1)), ss[0][2]) for who, ss in by.items()}
                for name, by in samples.items()}

    def row(self, group, name, qemu, tulk, unit="s"):
        self.rows.append({"group": group, "name": name, "qemu": qemu, "tulk": tulk, "unit": unit})
        print(f"{group:9} {name:18} qemu {qemu:9.3f}  tulk {tulk:9.3f} {unit:8} qemu/tulk {qemu / max(tulk, 1e-4):6.2f}", flush=True)


def marked(name, command):
    name = name.replace(" ", "_")
    return f"echo @@{name} start\n{command}\necho @@{name} end\n"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", default="", help="boot, idle, parallel, disk, work, float, kernel, debian, or names of rows")
    options.add_argument("--json")
    options.add_argument("--markdown", action="store_true")
    options.add_argument("--keep-log", help="folder for what the guests print")
    options.add_argument("--tulk", default=os.environ.get("TULK", ""))
    args = options.parse_args()
    tulk = args.tulk or next((str(p) for p in sorted(ROOT.glob("target/**/release/tulk"))), None)
    if not tulk:
        sys.exit("no release build of tulk: run `cargo build --release` or name one with --tulk")
    bench = Bench(args, tulk)
    only = set(filter(None, args.only.split(",")))
    wanted = lambda *names: not only or bool(only & set(names))
    print(bench.version)

    if wanted("boot"):
        got = bench.compare(marked("nothing", ":"))["boot"]
        bench.row("boot", "kernel to init", got["qemu"][0], got["tulk"][0])
        bench.row("memory", "peak, -m 256", got["qemu"][2], got["tulk"][2], "MiB")
    work = {name: w for name, w in WORK.items() if wanted(name, w[0])}
    if work:
        got = bench.compare(DATA + "\n" + "".join(marked(name, command) for name, (_, command) in work.items()))
        for name, (group, _) in work.items():
            bench.row(group, name, got[name]["qemu"][0], got[name]["tulk"][0])
    if wanted("debian", "work", *DEBIAN):
        subprocess.run([str(ROOT / "tests/debian-disk")], check=True)
        samples = {who: [] for who in bench.machines}
        for _ in range(args.rounds):
            for who in bench.machines:
                samples[who].append(bench.debian(who))
        for name in ["disk to login", *DEBIAN]:
            median = {who: statistics.median(s[name] for s in samples[who]) for who in samples}
            bench.row("work" if name in DEBIAN else "boot", name, median["qemu"], median["tulk"])
    if wanted("parallel"):
        got = bench.compare("".join(marked(n, c) for n, c in PARALLEL.items()), ["-smp", "2"])
        gain = {who: got["one"][who][1] / got["two"][who][1] for who in bench.machines}
        bench.rows.append({"group": "parallel", "name": "two processors", **gain, "unit": "x"})
        print(f"parallel  two processors     qemu {gain['qemu']:.2f}x  tulk {gain['tulk']:.2f}x as fast as one", flush=True)
    for bus, modules in MODULES.items():
        disk = {name: command for name, (on, command) in DISK.items() if on == bus and wanted(name, "disk", bus)}
        if not disk:
            continue
        image = bench.work / "disk.img"
        if not image.exists():
            image.write_bytes(os.urandom(1 << 20) * 256)
        script = "".join("sync; echo 3 >/proc/sys/vm/drop_caches\n" + marked(name, c) for name, c in disk.items())
        got = bench.compare("sleep 1\n" + script, ["-drive", f"file={image},format=raw,if={bus}"], modules)
        for name in disk:
            bench.row("disk", name, got[name]["qemu"][1], got[name]["tulk"][1])
    if wanted("idle"):
        got = bench.compare("sleep 2\n" + marked("idle", "sleep 10"))["idle"]
        share = {who: 100 * got[who][0] / got[who][1] for who in bench.machines}
        bench.row("idle", "idle guest", share["qemu"], share["tulk"], "% of a core")

    print()
    for group in ("work", "float", "kernel", "disk"):
        rows = [r for r in bench.rows if r["group"] == group]
        if rows:
            mean = math.exp(sum(math.log(r["qemu"] / r["tulk"]) for r in rows) / len(rows))
            print(f"{group}: {mean:.2f} times faster than QEMU (geometric mean)")
    if args.markdown:
        print("\n| row | unit | QEMU | tulk | times better than QEMU |\n|---|---|---|---|---|")
        for r in bench.rows:
            better = r["tulk"] / r["qemu"] if r["unit"] == "x" else r["qemu"] / r["tulk"]
            print(f"| {r['name']} | {r['unit']} | {r['qemu']:.3f} | {r['tulk']:.3f} | {better:.2f} |")
    out = pathlib.Path(args.json) if args.json else bench.work / "last.json"
    out.write_text(json.dumps({"qemu": bench.version, "rounds": args.rounds, "rows": bench.rows}, indent=1))
    print(f"kept: {out}")


if __name__ == "__main__":
    main()
