#!/usr/bin/env python3
"""Benchmarks of the engine in user mode: native, Debian's newest qemu-user and tulk, in turn, in one run.

usage: benches/engine.py [--guest aarch64] [--rounds N] [--only NAME[,NAME..]] [--json FILE] [--markdown]

Every row runs the three competitors alternately; the medians of their CPU times (user + system, children
included) are compared. Shared machines are noisy: trust ratios, repeat what looks odd.
Needs: a release build of tulk, the cross compiler of the guest, and network access to the machine's Debian mirror the
first time (the newest qemu-user and the guest's programs are unpacked under TULK_CACHE, default /var/tmp/tulk).
"""
import argparse, json, math, os, pathlib, statistics, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("TULK_CACHE", "/var/tmp/tulk"))

# name: scale that makes the native run last some 0.3 s: long enough that compiling does not decide
INTEGER = {"collatz": 48, "calls": 120, "sieve": 56, "sort": 42, "bytecode": 24, "chase": 9, "strings": 80, "muldiv": 24,
           "sha256": 48, "hash_table": 300, "indirect": 15}
FLOAT = {"matmul": 16, "nbody": 40, "mandelbrot": 36, "saxpy": 28, "float_reduce": 40, "blur": 30, "dot16": 80, "minmax32": 24}
GUESTS = {
    "aarch64": {"cc": "aarch64-linux-gnu-gcc", "debian": "arm64", "qemu": "qemu-aarch64", "native_cc": "gcc",
                "triple": "aarch64-linux-gnu"},
    "x86_64": {"cc": "gcc", "debian": "amd64", "qemu": "qemu-x86_64", "native_cc": "gcc", "triple": "x86_64-linux-gnu"},
    "i386": {"cc": "i686-linux-gnu-gcc", "debian": "i386", "qemu": "qemu-i386", "native_cc": "i686-linux-gnu-gcc",
             "triple": "i686-linux-gnu"},
}
PACKAGES = ["busybox-static", "bash", "coreutils", "python3", "cpp-12"]


def measure(command, env=None):
    """Runs the command; returns (CPU seconds, wall seconds, peak KiB, output). Any failure ends the benchmark."""
    import time
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if child.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {child.returncode}\n{text.decode(errors='replace')[-2000:]}")
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss, text


class Bench:
    def __init__(self, guest, rounds, tulk):
        self.guest, self.rounds, self.tulk = GUESTS[guest], rounds, tulk
        self.rows = []
        self.work = CACHE / "bench" / guest
        self.work.mkdir(parents=True, exist_ok=True)
        self.sysroot = CACHE / f"sysroot-{self.guest['debian']}"
        self.native_root = CACHE / "sysroot-amd64"
        unpack = str(ROOT / "tests/debian-unpack")
        for root, debian in ((self.sysroot, self.guest["debian"]), (self.native_root, "amd64")):
            # A root with more packages, as other tests unpack it, does as well.
            if not (root / "usr/bin/python3").exists() or not list(root.glob("usr/lib/gcc/*/12/cc1")):
                subprocess.run([unpack, str(root), "bookworm", debian, *PACKAGES], check=True)
        subprocess.run([unpack, "--no-deps", str(CACHE / "qemu-user-new"), "trixie", "amd64", "qemu-user"], check=True)
        self.qemu = CACHE / "qemu-user-new/usr/bin" / self.guest["qemu"]

    def under_qemu(self):
        return [str(self.qemu), "-L", str(self.sysroot)]

    def compile(self, source, cc, name):
        out = self.work / name
        src = ROOT / "benches/guest" / source
        if not out.exists() or out.stat().st_mtime < src.stat().st_mtime:
            subprocess.run([cc, "-O3", "-static", "-ffp-contract=off", str(src), "-o", str(out), "-lm"], check=True)
        return str(out)

    def row(self, group, name, native, foreign, same_output=True, wall=False, qemu=None):
        """Runs one comparison. `native` and `foreign` are command lines; the foreign one runs under QEMU (unless `qemu`
        names another for it) and tulk."""
        runs = {"native": native, "qemu": [*self.under_qemu(), *(qemu or foreign)],
                "tulk": [self.tulk, "run", "-L", str(self.sysroot), *foreign]}
        samples = {k: [] for k in runs}
        outputs = {}
        for _ in range(self.rounds):
            for who, command in runs.items():
                cpu, seconds, peak, text = measure(command)
                samples[who].append((cpu, seconds, peak))
                outputs[who] = text
        if same_output and len(set(outputs.values())) != 1:
            sys.exit(f"{name}: outputs differ: {({k: v[-200:] for k, v in outputs.items()})}")
        med = {k: [statistics.median(s[i] for s in v) for i in range(3)] for k, v in samples.items()}
        use = 1 if wall else 0
        n, q, t = (max(med[k][use], 1e-4) for k in ("native", "qemu", "tulk"))
        self.rows.append({"group": group, "name": name, "native": n, "qemu": q, "tulk": t, "wall_tulk": med["tulk"][1],
                          "wall_qemu": med["qemu"][1], "peak_native": med["native"][2],
                          "peak_qemu": med["qemu"][2], "peak_tulk": med["tulk"][2]})
        print(f"{group:8} {name:14} native {n:8.3f}  qemu {q:8.3f}  tulk {t:8.3f}   qemu/tulk {q / t:6.2f}  tulk/native {t / n:6.2f}"
              f"   peak MiB {med['qemu'][2] / 1024:.0f}/{med['tulk'][2] / 1024:.0f}", flush=True)


def geometric(rows, top, bottom):
    return math.exp(sum(math.log(r[top] / r[bottom]) for r in rows) / len(rows)) if rows else float("nan")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--guest", default="aarch64", choices=GUESTS)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", default="")
    options.add_argument("--json")
    options.add_argument("--markdown", action="store_true")
    options.add_argument("--tulk", default=os.environ.get("TULK", ""))
    args = options.parse_args()
    tulk = args.tulk or next((str(p) for p in sorted(ROOT.glob("target/**/release/tulk"))), None)
    if not tulk:
        sys.exit("no release build of tulk: run `cargo build --release` or name one with --tulk")
    bench = Bench(args.guest, args.rounds, tulk)
    only = set(filter(None, args.only.split(",")))
    wanted = lambda name: not only or name in only

    g = bench.guest
    native = bench.compile("kernels.c", g["native_cc"], "kernels.native")
    foreign = bench.compile("kernels.c", g["cc"], "kernels.guest")
    for group, kernels in (("integer", INTEGER), ("float", FLOAT)):
        for name, scale in kernels.items():
            if wanted(name):
                bench.row(group, name, [native, name, str(scale)], [foreign, name, str(scale)])
    if wanted("hello"):
        bench.row("startup", "hello", [bench.compile("hello.c", g["native_cc"], "hello.native")],
                  [bench.compile("hello.c", g["cc"], "hello.guest")], wall=True)
    cc1_input = bench.work / "kernels.i"
    subprocess.run([g["native_cc"], "-E", "-P", str(ROOT / "benches/guest/kernels.c"), "-o", str(cc1_input)], check=True)
    text = cc1_input.read_text()
    root_n, root_g = bench.native_root, bench.sysroot
    cc1 = ["-quiet", "-O2", str(cc1_input), "-o", "-"]
    if wanted("cc1"):
        if args.guest == "i386":
            # The host runs the same compiler.
            root, triple, libraries, loader = root_g, g["triple"], "i386-linux-gnu", root_g / "lib/ld-linux.so.2"
        else:
            root, triple, libraries = root_n, "x86_64-linux-gnu", "x86_64-linux-gnu"
            loader = next(iter(sorted((root_n / "lib64").glob("ld-linux*"))), None) or root_n / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
        path = f"{root}/usr/lib/{libraries}:{root}/lib/{libraries}"
        bench.row("compile", "cc1", [str(loader), "--library-path", path, str(root / f"usr/lib/gcc/{triple}/12/cc1"), *cc1],
                  [str(root_g / f"usr/lib/gcc/{g['triple']}/12/cc1"), *cc1], same_output=False)
    if wanted("python3"):
        bench.row("startup", "python3", [str(root_n / "usr/bin/python3"), "-c", "import json; print(json.dumps([1]))"],
                  [str(root_g / "usr/bin/python3"), "-c", "import json; print(json.dumps([1]))"])
    if wanted("shell"):
        # QEMU's children would be the host's own programs without a registration with the kernel, so it is named for each.
        script = "i=0; while [ $i -lt 100 ]; do (:); \"$@\" >/dev/null; i=$((i+1)); done; echo done"
        program = str(root_g / "bin/true")
        shell = [str(root_g / "bin/dash"), "-c", script, "shell"]
        bench.row("startup", "shell", ["/bin/sh", "-c", script, "shell", "/bin/true"], [*shell, program],
                  qemu=[*shell, *bench.under_qemu(), program])

    print()
    for group in ("integer", "float"):
        rows = [r for r in bench.rows if r["group"] == group]
        if rows:
            print(f"{group}: {geometric(rows, 'qemu', 'tulk'):.2f}x faster than QEMU, {geometric(rows, 'tulk', 'native'):.2f}x native (geometric means)")
    if args.markdown:
        print("\n| kernel | native s | QEMU s | tulk s | times faster than QEMU | times native | peak MiB above native, QEMU / tulk |\n|---|---|---|---|---|---|---|")
        for r in bench.rows:
            print(f"| {r['name']} | {r['native']:.3f} | {r['qemu']:.3f} | {r['tulk']:.3f} | {r['qemu'] / r['tulk']:.2f} | {r['tulk'] / r['native']:.2f} "
                  f"| {(r['peak_qemu'] - r['peak_native']) / 1024:.0f} / {(r['peak_tulk'] - r['peak_native']) / 1024:.0f} |")
    out = pathlib.Path(args.json) if args.json else bench.work / "last.json"
    out.write_text(json.dumps({"guest": args.guest, "rounds": args.rounds, "rows": bench.rows}, indent=1))
    print(f"kept: {out}")


if __name__ == "__main__":
    main()
