//! x87 instructions, and saving and restoring the float state, against the host processor. See [`support`].

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod support;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::support::case::{Case, DATA, DATA_LEN, Outcome};
    use super::support::compare::{Ignore, describe, differences};
    use super::support::fpu::{self, Mood, effective, forgive, is_approximate, patch_operand};
    use super::support::generate::Plan;
    use super::support::rng::Rng;
    use super::support::world::Way;
    use super::support::{native, world};
    use iced_x86::{Code, Instruction, Mnemonic};
    use std::collections::{BTreeMap, BTreeSet};
    use tulk_base::CpuState;
    use tulk_x86::decode::{Row, Which};
    use tulk_x86::{Mode, X86, fpstate, x87};

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

    /// Instructions that show the pointers; before the first x87 instruction of a case these are the host's own.
    fn shows_pointers(code: Code) -> bool {
        use Mnemonic::*;
        matches!(
            code.mnemonic(),
            Fnstenv
                | Fnsave
                | Fxsave
                | Fxsave64
                | Xsave
                | Xsave64
                | Xsavec
                | Xsavec64
                | Xsaveopt
                | Xsaveopt64
        )
    }

    fn is_state(code: Code) -> bool {
        fpstate::ROWS.iter().any(|r| matches!(r.which, Which::Mnemonic(m) if m == code.mnemonic()))
    }

    struct Test {
        case: Case,
        insns: Vec<Instruction>,
        ignore: Ignore,
    }

    /// The initial state says what the registers are that an instruction needs in a certain way.
    fn push(plan: &mut Plan<'_>, code: Code) -> bool {
        use Mnemonic::*;
        if matches!(
            code.mnemonic(),
            Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64 | Xrstor | Xrstor64
        ) {
            // The host has more components.
            let low = plan.rng.below(8);
            plan.pin(0, low);
            plan.pin(2, 0);
        }
        let Some(insn) = plan.push(code) else { return false };
        patch_operand(plan, &insn);
        true
    }

    fn finish(plan: Plan<'_>) -> Test {
        let ignore = Ignore { flags: plan.undefined_anywhere(), x87: false };
        Test { case: plan.case, insns: plan.insns, ignore }
    }

    /// MXCSR_MASK of AMD's processors has bit 17, which our models have not.
    fn forgive_mxcsr_mask(test: &Test, host: &Outcome, ours: &mut Outcome) {
        for insn in test.insns.iter().filter(|i| shows_pointers(i.code())) {
            let Some(at) = effective(&test.case, insn) else { continue };
            let at = at.wrapping_add(30);
            if (DATA..DATA + DATA_LEN as u32).contains(&at) {
                let n = (at - DATA) as usize;
                if host.data[n] == 2 && ours.data[n] == 0 {
                    ours.data[n] = 2;
                }
            }
        }
    }

    /// What differs and may not.
    fn compare(test: &Test, host: &Outcome, mut ours: Outcome) -> Vec<String> {
        if test.insns.iter().any(|i| is_approximate(i.mnemonic())) {
            forgive(host, &mut ours);
        }
        forgive_mxcsr_mask(test, host, &mut ours);
        let mut diff = differences(&test.case, host, &ours, test.ignore);
        // A store over the end of memory may write its first part (the manual, volume 3, 9.1.1).
        if host.regs.trap == 14 {
            diff.retain(|d| !d.starts_with("[0x"));
        }
        // In which order the ends of an area are tried is the processor's affair.
        if test.insns.last().is_some_and(|i| is_state(i.code())) {
            diff.retain(|d| !d.starts_with("fault address"));
        }
        diff
    }

    fn run(isa: &X86, tests: &[Test], failures: &mut BTreeMap<String, Vec<String>>) {
        let cases: Vec<Case> = tests.iter().map(|t| t.case).collect();
        let host = native::run(&cases);
        let mut state = CpuState::new();
        for (n, test) in tests.iter().enumerate() {
            let way = Way::ALL[n % 3];
            let ours = world::interpret(isa, &test.case, way, &mut state);
            let mut diff = compare(test, &host[n], ours);
            // AMD's processors lose the pointers when the system switches to another process and back.
            for _ in 0..3 {
                if diff.is_empty() || !test.insns.iter().any(|i| shows_pointers(i.code())) {
                    break;
                }
                diff = compare(test, &native::run(&[test.case])[0], ours);
            }
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

    /// Each code alone, many times, from states of every kind.
    fn singles(bits: u32, rows: &[Row], rounds: usize) {
        let isa = isa(bits);
        let mut rng = Rng::new(bits as u64 + rows.len() as u64);
        let all = codes(&isa, bits, rows);
        let mut seen = BTreeSet::new();
        let mut failures = BTreeMap::new();
        let mut tests = Vec::new();
        for &code in &all {
            for n in 0..rounds * soak() {
                let mut plan = Plan::with_stack(bits, &mut rng, false);
                let mood = if n % 3 == 0 { Mood::Calm } else { Mood::Wild };
                fpu::randomize(&mut plan.case.regs, plan.rng, mood);
                if shows_pointers(code) {
                    // FXCH st(0), so that the pointers are known.
                    plan.push_bytes(&[0xd9, 0xc8]);
                }
                if push(&mut plan, code) {
                    if plan.rng.chance(4) {
                        // WAIT
                        plan.push_bytes(&[0x9b]);
                        plan.insns.pop();
                    }
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
        assert!(untested.is_empty(), "accepted codes that nothing tests");
    }

    /// Sequences, so that values, the stack and pending exceptions flow from one instruction to the next.
    fn sequences(bits: u32, count: usize) {
        let isa = isa(bits);
        let mut rng = Rng::new(2000 + bits as u64);
        let all: Vec<_> = codes(&isa, bits, x87::ROWS)
            .into_iter()
            .filter(|c| !is_approximate(c.mnemonic()) && !shows_pointers(*c))
            .collect();
        let last: Vec<_> =
            codes(&isa, bits, x87::ROWS).into_iter().filter(|&c| shows_pointers(c)).collect();
        let mut failures = BTreeMap::new();
        let mut tests = Vec::new();
        for n in 0..count * soak() {
            let mut plan = Plan::with_stack(bits, &mut rng, false);
            plan.registers_only = n % 3 == 0;
            let mood = if n % 2 == 0 { Mood::Calm } else { Mood::Wild };
            fpu::randomize(&mut plan.case.regs, plan.rng, mood);
            let length = 2 + plan.rng.below(10) as usize;
            // FXCH st(0), so that the pointers are known.
            plan.push_bytes(&[0xd9, 0xc8]);
            for _ in 0..4 * length {
                let code = *plan.rng.pick(&all);
                push(&mut plan, code);
                if plan.insns.len() > length {
                    break;
                }
            }
            plan.registers_only = false;
            if plan.rng.chance(3) {
                let code = *plan.rng.pick(&last);
                push(&mut plan, code);
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
        singles(64, x87::ROWS, 300);
    }
    #[test]
    fn singles_32() {
        singles(32, x87::ROWS, 100);
    }
    #[test]
    fn singles_16() {
        singles(16, x87::ROWS, 60);
    }
    #[test]
    fn saved_state_64() {
        singles(64, fpstate::ROWS, 400);
    }
    #[test]
    fn saved_state_32() {
        singles(32, fpstate::ROWS, 200);
    }
    #[test]
    fn sequences_64() {
        sequences(64, 15_000);
    }
    #[test]
    fn sequences_32() {
        sequences(32, 15_000);
    }
}
