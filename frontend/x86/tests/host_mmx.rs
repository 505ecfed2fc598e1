//! MMX instructions against the host processor. See [`support`].

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod support;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::support::case::Case;
    use super::support::compare::{Ignore, describe, differences};
    use super::support::fpu::{self, Mood};
    use super::support::generate::Plan;
    use super::support::rng::Rng;
    use super::support::world::Way;
    use super::support::{native, world};
    use iced_x86::{Code, Instruction};
    use std::collections::{BTreeMap, BTreeSet};
    use tulk_base::CpuState;
    use tulk_x86::decode::{Row, Which};
    use tulk_x86::{Mode, X86, mmx};

    fn isa(bits: u32) -> X86 {
        let mode = if bits == 64 { Mode::X86_64 } else { Mode::I386 };
        X86::new(mode, native::model())
    }

    fn codes(isa: &X86, bits: u32, rows: &[Row]) -> Vec<Code> {
        Code::values()
            .filter(|&c| {
                isa.accepts(c)
                    && c.op_code().is_available_in_mode(bits)
                    && rows.iter().any(|r| match r.which {
                        Which::Code(code) => code == c,
                        Which::Mnemonic(m) => m == c.mnemonic(),
                    })
            })
            .collect()
    }

    struct Test {
        case: Case,
        insns: Vec<Instruction>,
        ignore: Ignore,
    }

    fn finish(plan: Plan<'_>) -> Test {
        let ignore = Ignore { flags: plan.undefined_anywhere(), x87: false };
        Test { case: plan.case, insns: plan.insns, ignore }
    }

    fn run(isa: &X86, tests: &[Test], failures: &mut BTreeMap<String, Vec<String>>) {
        let cases: Vec<Case> = tests.iter().map(|t| t.case).collect();
        let host = native::run(&cases);
        let mut state = CpuState::new();
        for (n, test) in tests.iter().enumerate() {
            let way = Way::ALL[n % 3];
            let ours = world::interpret(isa, &test.case, way, &mut state);
            let diff = differences(&test.case, &host[n], &ours, test.ignore);
            if !diff.is_empty() {
                let name = format!("{:?}", test.insns.last().unwrap().code());
                let r = &test.case.regs;
                let st: Vec<_> =
                    (0..8).map(|i| r.st(i)).map(|(s, e)| format!("{e:04x}:{s:016x}")).collect();
                failures.entry(name).or_default().push(format!(
                    "{}  fcw {:#x} fsw {:#x} tags {:#x} st {st:?} {way:?}\n  {}\n",
                    describe(&test.case),
                    r.fcw(),
                    r.fsw(),
                    r.ftw(),
                    diff.join("\n  ")
                ));
            }
        }
    }

    fn judge(failures: BTreeMap<String, Vec<String>>) {
        for (code, texts) in failures.iter() {
            println!("== {code}: {} failures\n{}", texts.len(), texts[0]);
        }
        assert!(failures.is_empty(), "{} codes differ: {:?}", failures.len(), failures.keys());
    }

    /// Rounds of the long tests.
    fn soak() -> usize {
        if std::env::var("TULK_SOAK").is_ok_and(|v| v == "yes") { 20 } else { 1 }
    }

    /// Codes that the host lacks: 3DNow!, for which the crate has examples.
    fn skipped(code: Code) -> bool {
        let name = format!("{code:?}");
        name.starts_with("D3NOW") || code == Code::Femms
    }

    /// Each code alone, many times, from states of every kind.
    fn singles(bits: u32, rounds: usize) {
        let isa = isa(bits);
        let mut rng = Rng::new(bits as u64);
        let all = codes(&isa, bits, mmx::ROWS);
        let mut seen = BTreeSet::new();
        let mut failures = BTreeMap::new();
        let mut tests = Vec::new();
        for &code in all.iter().filter(|&&c| !skipped(c)) {
            for n in 0..rounds * soak() {
                let mut plan = Plan::with_stack(bits, &mut rng, false);
                let mood = if n % 3 == 0 { Mood::Calm } else { Mood::Wild };
                fpu::randomize(&mut plan.case.regs, plan.rng, mood);
                fpu::randomize_mmx(&mut plan.case.regs, plan.rng);
                if plan.rng.chance(3) {
                    // SSE's modes, for the conversions.
                    let masks =
                        if plan.rng.chance(2) { 0x1f80 } else { plan.rng.next() as u32 & 0x1f80 };
                    let mxcsr = plan.rng.next() as u32 & 0xe040 | masks;
                    plan.case.regs.set_mxcsr(mxcsr);
                }
                if plan.push(code).is_some() {
                    seen.insert(code);
                    tests.push(finish(plan));
                }
                if tests.len() == 1000 {
                    run(&isa, &std::mem::take(&mut tests), &mut failures);
                }
            }
        }
        run(&isa, &tests, &mut failures);
        let untested: Vec<_> = all.iter().filter(|c| !seen.contains(c)).collect();
        println!("{bits} bits: {} codes, without a test: {untested:?}", all.len());
        judge(failures);
        assert!(untested.iter().all(|c| skipped(**c)), "accepted codes that nothing tests");
    }

    /// Sequences, with x87 instructions between.
    fn sequences(bits: u32, count: usize) {
        let isa = isa(bits);
        let mut rng = Rng::new(3000 + bits as u64);
        let all: Vec<_> =
            codes(&isa, bits, mmx::ROWS).into_iter().filter(|&c| !skipped(c)).collect();
        let x87 = [Code::Fld1, Code::Fadd_st0_sti, Code::Fstp_sti, Code::Fnstsw_AX, Code::Fld_sti];
        let mut failures = BTreeMap::new();
        let mut tests = Vec::new();
        for n in 0..count * soak() {
            let mut plan = Plan::with_stack(bits, &mut rng, false);
            plan.registers_only = n % 3 == 0;
            fpu::randomize(&mut plan.case.regs, plan.rng, Mood::Calm);
            fpu::randomize_mmx(&mut plan.case.regs, plan.rng);
            let length = 2 + plan.rng.below(10) as usize;
            for _ in 0..4 * length {
                let code =
                    if plan.rng.chance(6) { *plan.rng.pick(&x87) } else { *plan.rng.pick(&all) };
                plan.push(code);
                if plan.insns.len() > length {
                    break;
                }
            }
            if plan.insns.is_empty() {
                continue;
            }
            tests.push(finish(plan));
            if tests.len() == 1000 {
                run(&isa, &std::mem::take(&mut tests), &mut failures);
            }
        }
        run(&isa, &tests, &mut failures);
        judge(failures);
    }

    #[test]
    fn singles_64() {
        singles(64, 150);
    }
    #[test]
    fn singles_32() {
        singles(32, 60);
    }
    #[test]
    fn singles_16() {
        singles(16, 30);
    }
    #[test]
    fn sequences_64() {
        sequences(64, 8_000);
    }
    #[test]
    fn sequences_32() {
        sequences(32, 8_000);
    }
}
