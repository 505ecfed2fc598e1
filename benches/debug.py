#!/usr/bin/env python3
"""What a debugger costs that waits elsewhere: the same work without one and with gdb attached and a breakpoint on code that is never reached.

usage: benches/debug.py [--rounds N] [--only user,system] [--tulk PATH]

User mode runs a kernel of benches/guest/kernels.c, system mode the small kernel of tests/guest/gdb with a longer loop. The two
competitors run in turn; the medians of tulk's CPU times are compared. Needs gdb-multiarch, gcc, and a release build of tulk.
"""
import argparse, os, pathlib, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("TULK_CACHE", "/var/tmp/tulk"))
KERNEL_FLAGS = ["-O1", "-ffreestanding", "-fno-pie", "-no-pie", "-nostdlib", "-static", "-mno-red-zone", "-fno-stack-protector", "-w",
                "-fcf-protection=none", "-Wl,-Ttext=0x100000,-N,--build-id=none,-e,start32", "-DROUNDS=60000000"]


def run(command, socket, symbols, script, good):
    """Runs tulk, with gdb if there is a script; returns its CPU seconds."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    gdb = None
    if script:
        while not os.path.exists(socket):
            time.sleep(0.01)
        # gdb has the program's file already: else it would have tulk read it.
        words = ["gdb-multiarch", "-nx", "-batch", "-ex", f"file {symbols}", "-ex", f"target remote {socket}"]
        for line in script:
            words += ["-ex", line]
        gdb = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if gdb:
        text = gdb.communicate()[0].decode(errors="replace")
        if "exited" not in text or "Breakpoint 1 at" not in text:
            sys.exit(f"gdb: {text}")
    if child.returncode != good:
        sys.exit(f"{' '.join(command)}: exit {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def compare(name, command, gdb_options, symbols, place, rounds, good):
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/gdb"
        samples = {"without": [], "with": []}
        for _ in range(rounds):
            samples["without"].append(run(command([]), None, None, None, good))
            script = [f"break *{place}", "continue"]
            samples["with"].append(run(command([*gdb_options, f"unix:{socket}"]), socket, symbols, script, good))
            if os.path.exists(socket):
                os.unlink(socket)
        plain, debugged = (statistics.median(samples[k]) for k in ("without", "with"))
        print(f"{name:8} without {plain:8.3f}  with {debugged:8.3f}   with/without {debugged / plain:6.3f}", flush=True)
        return debugged / plain


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", default="user,system")
    options.add_argument("--tulk", default=os.environ.get("TULK", ""))
    args = options.parse_args()
    tulk = args.tulk or next((str(p) for p in sorted(ROOT.glob("target/**/release/tulk"))), None)
    if not tulk:
        sys.exit("no release build of tulk: run `cargo build --release` or name one with --tulk")
    work = CACHE / "bench" / "debug"
    work.mkdir(parents=True, exist_ok=True)
    ratios = []
    if "user" in args.only:
        program = str(work / "kernels")
        subprocess.run(["gcc", "-O3", "-static", "-ffp-contract=off", str(ROOT / "benches/guest/kernels.c"), "-o", program, "-lm"], check=True)
        for kernel, scale in (("sort", 126), ("bytecode", 96), ("hash_table", 3600)):
            command = lambda gdb: [tulk, "run", *gdb, program, kernel, str(scale)]
            ratios.append(compare(kernel, command, ["-g"], program, "abort", args.rounds, 0))
    if "system" in args.only:
        kernel = str(work / "kernel")
        subprocess.run(["gcc", *KERNEL_FLAGS, "-o", kernel, str(ROOT / "tests/guest/gdb/kernel.c")], check=True)
        fixed = [tulk, "system", "-nodefaults", "-display", "none", "-m", "64", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", kernel]
        command = lambda gdb: [*fixed, *(["-S", *gdb] if gdb else [])]
        ratios.append(compare("system", command, ["-gdb"], kernel, "second", args.rounds, 7))
    worst = max(ratios)
    print(f"worst ratio {worst:.3f}")
    sys.exit(worst > 1.05)


main()
