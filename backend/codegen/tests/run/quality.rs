//! Canonical regions: how much host code they become. The numbers are printed (`--nocapture`); the bounds only
//! catch gross regressions.

use tulk_base::MemOp;
use tulk_codegen::baseline::{Baseline, Input, Profile};
use tulk_codegen::{Compiler, MemoryModel, Options, Region, RegionInput};
use tulk_ir::filetest::env::{HELPERS, layout};
use tulk_ir::interp::Program;
use tulk_ir::{Builder, FpRule, IntCc, RegLayout, Shape, Slot, Type, Unit};

pub fn slot(layout: &RegLayout, name: &str) -> Slot {
    layout.by_name(name).expect("a register of the test machine")
}

pub fn unit(pc: u64, write: impl FnOnce(&mut Builder<'_>, &dyn Fn(&str) -> Slot)) -> Unit {
    let layout = layout();
    let mut unit = Unit::new(pc, 0, FpRule::Arm);
    let mut b = Builder::new(&mut unit, &layout, HELPERS);
    write(&mut b, &|name| slot(&layout, name));
    b.finish();
    unit
}

/// `x1 -= 1; if x1 != 0 goto again else goto next`, the end of a unit.
pub fn repeat_x1(b: &mut Builder<'_>, r: &dyn Fn(&str) -> Slot, again: u64, next: u64) {
    let x1 = b.get(r("x1"));
    let less = b.add_imm(x1, -1);
    b.set(r("x1"), less);
    let more = b.icmp_imm(IntCc::Ne, less, 0);
    let (go_on, done) = (b.label(), b.label());
    b.brif(more, go_on, done);
    b.place(go_on);
    b.exit(again);
    b.place(done);
    b.exit(next);
}

/// `x2 += x1; x1 -= 1; if x1 != 0 goto pc else goto next`.
pub fn sum_unit(pc: u64, next: u64) -> Unit {
    unit(pc, |b, r| {
        b.insn(pc, 4);
        let (x1, x2) = (b.get(r("x1")), b.get(r("x2")));
        let sum = b.add(x2, x1);
        b.set(r("x2"), sum);
        b.insn(pc + 4, 4);
        repeat_x1(b, r, pc, next);
    })
}

/// A loop over arrays: `ldr w, [x1], #4; add w, w, w3; str w, [x2], #4; subs x0, x0, #1; b.ne`.
fn copy_loop() -> Unit {
    unit(0x1000, |b, r| {
        b.insn(0x1000, 4);
        let p = b.get(r("x1"));
        let v = b.load(Type::I32, p, 0, MemOp::U32);
        let next = b.add_imm(p, 4);
        b.set(r("x1"), next);
        b.insn(0x1004, 4);
        let w = b.get(r("x3"));
        let w = b.trunc(Type::I32, w);
        let sum = b.add(v, w);
        let wide = b.zext(Type::I64, sum);
        b.set(r("x4"), wide);
        b.insn(0x1008, 4);
        let q = b.get(r("x2"));
        b.store(q, 0, MemOp::U32, sum);
        let next = b.add_imm(q, 4);
        b.set(r("x2"), next);
        count_down(b, r, 0x100c, 0x1000);
    })
}

/// `subs x0, x0, #1; b.ne top`.
fn count_down(b: &mut Builder<'_>, r: &dyn Fn(&str) -> Slot, pc: u64, top: u64) {
    b.insn(pc, 4);
    let x = b.get(r("x0"));
    let one = b.iconst(Type::I64, 1);
    let d = b.sub(x, one);
    let flags = b.sub_nzcv(x, one);
    b.set(r("x0"), d);
    b.set(r("nzcv"), flags);
    b.insn(pc + 4, 4);
    let more = b.icmp(IntCc::Ne, x, one);
    let (again, done) = (b.label(), b.label());
    b.brif(more, again, done);
    b.place(again);
    b.exit(top);
    b.place(done);
    b.exit(pc + 8);
}

/// `ldr d1, [x1], #8; ldr d2, [x2], #8; fmadd d0, d1, d2, d0; subs; b.ne`, registers being vectors.
fn dot_product() -> Unit {
    unit(0x2000, |b, r| {
        for (i, (vector, pointer)) in [("q1", "x1"), ("q2", "x2")].into_iter().enumerate() {
            b.insn(0x2000 + 4 * i as u64, 4);
            let p = b.get(r(pointer));
            let v = b.load(Type::F64, p, 0, MemOp::U64);
            let v = b.vscalar(Shape::F64x2, v);
            b.set(r(vector), v);
            let next = b.add_imm(p, 8);
            b.set(r(pointer), next);
        }
        b.insn(0x2008, 4);
        let lane = |b: &mut Builder<'_>, name| {
            let v = b.get(r(name));
            b.vlane(Shape::F64x2, v, 0)
        };
        let (x, y, z) = (lane(b, "q1"), lane(b, "q2"), lane(b, "q0"));
        let product = b.fmul(x, y);
        let sum = b.fadd(product, z);
        let v = b.vscalar(Shape::F64x2, sum);
        b.set(r("q0"), v);
        count_down(b, r, 0x200c, 0x2000);
    })
}

fn counter() -> Unit {
    unit(0x3000, |b, r| count_down(b, r, 0x3000, 0x3000))
}

/// A hundred instructions as compilers write them: a load, two additions, a shift, a store.
fn straight() -> Unit {
    unit(0x4000, |b, r| {
        for i in 0..20u64 {
            let pc = 0x4000 + 20 * i;
            b.insn(pc, 4);
            let p = b.get(r("x1"));
            let v = b.load(Type::I64, p, 8 * i as i64, MemOp::U64);
            b.set(r("x3"), v);
            b.insn(pc + 4, 4);
            let (x4, x5) = (b.get(r("x4")), b.get(r("x5")));
            let sum = b.add(x4, v);
            b.set(r("x4"), sum);
            b.insn(pc + 8, 4);
            let sum = b.add(x5, sum);
            b.set(r("x5"), sum);
            b.insn(pc + 12, 4);
            let shifted = b.shl_imm(sum, 3);
            b.set(r("x6"), shifted);
            b.insn(pc + 16, 4);
            let q = b.get(r("x2"));
            b.store(q, 8 * i as i64, MemOp::U64, shifted);
        }
        b.exit(0x4000 + 400);
    })
}

fn compile(units: &[&Unit], precise: bool) -> (Region, f64) {
    let layout = layout();
    let options = Options { optimize: true, verify: false, listing: false };
    let mut compiler = Compiler::new(options).unwrap();
    let input = RegionInput {
        units,
        layout: &layout,
        helpers: HELPERS,
        mem: MemoryModel::Flat,
        precise,
        pages: &[],
        targets: &[],
    };
    let mut best = f64::MAX;
    let times = std::env::var("TULK_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    for _ in 0..times {
        let start = std::time::Instant::now();
        compiler.compile(&input).unwrap();
        best = best.min(start.elapsed().as_secs_f64() * 1e6);
    }
    let mut compiler = Compiler::new(Options { listing: true, ..options }).unwrap();
    (compiler.compile(&input).unwrap(), best)
}

/// Host instructions in a listing.
fn instructions(asm: &str) -> usize {
    asm.lines().filter(|l| l.starts_with("  ")).count()
}

#[test]
fn canonical_regions() {
    let units = [
        ("straight", straight(), 400),
        ("copy", copy_loop(), 160),
        ("count", counter(), 100),
        ("dot", dot_product(), 220),
    ];
    for (name, unit, bound) in &units {
        for precise in [false, true] {
            let (region, us) = compile(&[unit], precise);
            let listing = region.listing.as_ref().expect("asked for");
            let count = instructions(&listing.asm);
            println!(
                "{name} precise={precise}: {} guest, {count} host instructions, {} bytes ({:.1} per guest), \
                 {us:.0} us, fault map {}",
                region.guest_insns,
                region.code_len,
                region.code_len as f64 / region.guest_insns as f64,
                region.fault_map.size(),
            );
            if std::env::var_os("TULK_LISTING").is_some() {
                println!("{}\n{}", listing.clif, listing.asm);
            }
            assert!(count <= *bound, "{name} became {count} instructions");
        }
    }
}

/// Compile cost and size of the baseline compiler on the same blocks.
#[test]
fn canonical_baseline_blocks() {
    let layout = layout();
    let units = [
        ("straight", straight(), 24.0),
        ("copy", copy_loop(), 60.0),
        ("count", counter(), 120.0),
        ("dot", dot_product(), 100.0),
    ];
    let profile =
        Some(Profile { runs: 0x5a5a_5a5a_5a50, edges: [0x5a5a_5a5a_5a54, 0x5a5a_5a5a_5a58, 0, 0] });
    let mut baseline = Baseline::new().unwrap();
    for (name, unit, bound) in &units {
        let program = Program::new(unit, &layout, HELPERS);
        let (pc, flags, insns) = (unit.pc, unit.flags, unit.guest_insns);
        let input = Input {
            program: &program,
            pc,
            flags,
            insns,
            mem: MemoryModel::Flat,
            profile,
            page: None,
            second: None,
        };
        let mut best = f64::MAX;
        let mut region = baseline.compile(&input).unwrap();
        for _ in 0..50 {
            let start = std::time::Instant::now();
            region = std::hint::black_box(baseline.compile(&input).unwrap());
            best = best.min(start.elapsed().as_secs_f64() * 1e9);
        }
        let per_guest = region.code_len as f64 / insns as f64;
        println!(
            "{name}: {insns} guest, {} steps, {} bytes of code ({per_guest:.1} per guest), {} in all, \
             {best:.0} ns ({:.0} per step), fault map {}",
            program.len(),
            region.code_len,
            region.bytes.len(),
            best / program.len() as f64,
            region.fault_map.size(),
        );
        if let Some(folder) = std::env::var_os("TULK_CODE") {
            let file = std::path::Path::new(&folder).join(name);
            std::fs::write(file, &region.bytes[..region.code_len as usize]).unwrap();
            println!("{program:?}");
        }
        assert!(per_guest <= *bound, "{name} became {per_guest} bytes for each instruction");
    }
}

/// Where the slow way of an access goes on behind its thunk is laid out with it, not between fast ones.
#[test]
fn slow_ways_stay_out_of_the_way() {
    let unit = unit(0x1000, |b, r| {
        b.insn(0x1000, 4);
        let (p, q) = (b.get(r("x1")), b.get(r("x2")));
        for n in 0..4 {
            let v = b.load(Type::I64, p, 8 * n, MemOp::U64);
            b.store(q, 16 * n, MemOp::U64, v);
        }
        b.exit(0x1004);
    });
    let layout = layout();
    let options = Options { optimize: true, verify: true, listing: true };
    let input = RegionInput {
        units: &[&unit],
        layout: &layout,
        helpers: HELPERS,
        mem: MemoryModel::Paged,
        precise: true,
        pages: &[],
        targets: &[],
    };
    let region = Compiler::new(options).unwrap().compile(&input).unwrap();
    let clif = region.listing.expect("asked for").clif;
    // Blocks with what their branches name.
    let mut blocks: Vec<(&str, bool, Vec<&str>)> = Vec::new();
    for line in clif.lines() {
        let names =
            || line.split(|c: char| !c.is_alphanumeric()).filter(|w| w.starts_with("block"));
        if line.trim_start().starts_with("block") {
            let name = names().next().expect("its own");
            blocks.push((name, line.contains("cold"), Vec::new()));
        } else if let Some((_, _, to)) = blocks.last_mut() {
            to.extend(names());
        }
    }
    assert!(blocks.iter().filter(|block| block.1).count() > 8, "{clif}");
    for (name, cold, _) in blocks.iter().skip(1).filter(|(_, cold, _)| !cold) {
        let from_hot = |block: &(&str, bool, Vec<&str>)| !block.1 && block.2.contains(name);
        assert!(
            blocks.iter().any(from_hot),
            "{name} {cold} is reached from cold blocks only:\n{clif}"
        );
    }
}
