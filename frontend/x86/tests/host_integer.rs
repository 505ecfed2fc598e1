//! General-purpose instructions against the host processor. See [`support`].

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod support;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::support::case::Case;
    use super::support::compare::{Ignore, describe, differences};
    use super::support::generate::Plan;
    use super::support::rng::Rng;
    use super::support::world::Way;
    use super::support::{native, world};
    use iced_x86::{Code, FlowControl, Mnemonic};
    use std::collections::{BTreeMap, BTreeSet};
    use tulk_base::CpuState;
    use tulk_x86::decode::{CHAPTERS, Which};
    use tulk_x86::{CpuModel, Mode, X86, integer};

    fn isa(bits: u32) -> X86 {
        let mode = if bits == 64 { Mode::X86_64 } else { Mode::I386 };
        X86::new(mode, native::model())
    }

    /// Codes of the general-purpose chapters that this width has.
    fn codes(isa: &X86, bits: u32) -> Vec<Code> {
        let rows: Vec<_> = CHAPTERS[..integer::CHAPTERS].iter().flat_map(|c| c.iter()).collect();
        Code::values()
            .filter(|&c| {
                isa.accepts(c)
                    && c.op_code().is_available_in_mode(bits)
                    // iced decodes as Intel processors do.
                    && match bits {
                        64 => c.op_code().intel_decoder64(),
                        32 => c.op_code().intel_decoder32(),
                        _ => c.op_code().intel_decoder16(),
                    }
                    && rows.iter().any(|r| match r.which {
                        Which::Code(code) => code == c,
                        Which::Mnemonic(m) => m == c.mnemonic(),
                    })
            })
            .collect()
    }

    /// Why an instruction is not run natively, if so; `lift.rs` has a test for each of these, and for what the
    /// machine that this was written on lacks.
    fn skipped(code: Code) -> Option<&'static str> {
        use Mnemonic::*;
        Some(match code.mnemonic() {
            Syscall | Sysenter => "a system call of the host",
            Int1 => "hypervisors report another pc",
            Cpuid | Xgetbv => "depends on the model",
            Rdtsc | Rdtscp | Rdpid | Rdrand | Rdseed => "not the same twice",
            Sgdt | Sidt | Sldt | Str | Smsw => "depends on the host's kernel",
            _ => return None,
        })
    }

    struct Failure {
        text: String,
        code: String,
    }

    fn run(
        isa: &X86,
        plans: Vec<(Case, Ignore, Ignore, Vec<Code>)>,
        seen: &mut BTreeSet<Code>,
    ) -> Vec<Failure> {
        let cases: Vec<Case> = plans.iter().map(|p| p.0).collect();
        let host = native::run(&cases);
        let mut state = CpuState::new();
        let mut failures = Vec::new();
        for (n, (case, at_end, on_fault, codes)) in plans.iter().enumerate() {
            let ours = world::interpret(isa, case, Way::ALL[n % 4], &mut state);
            seen.extend(codes.iter().copied());
            let ignore = if host[n].regs.trap == 3 { *at_end } else { *on_fault };
            let diff = differences(case, &host[n], &ours, ignore);
            if !diff.is_empty() {
                failures.push(Failure {
                    text: format!("{}  {}\n", describe(case), diff.join("\n  ")),
                    code: format!("{:?}", codes.last().unwrap()),
                });
            }
        }
        failures
    }

    /// Shows a few failures of each kind and fails if there are any.
    fn judge(failures: Vec<Failure>) {
        let mut by_code: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for f in failures {
            by_code.entry(f.code).or_default().push(f.text);
        }
        for (code, texts) in by_code.iter() {
            println!("== {code}: {} failures\n{}", texts.len(), texts[0]);
        }
        assert!(by_code.is_empty(), "{} codes differ: {:?}", by_code.len(), by_code.keys());
    }

    fn finish(plan: Plan<'_>) -> (Case, Ignore, Ignore, Vec<Code>) {
        let codes = plan.insns.iter().map(|i| i.code()).collect();
        let ignore = |flags| Ignore { flags, x87: false };
        (plan.case, ignore(plan.undefined_at_end()), ignore(plan.undefined_anywhere()), codes)
    }

    /// Each code alone, many times.
    fn singles(bits: u32, rounds: usize) {
        let isa = isa(bits);
        let (more, seed) = soak();
        let rounds = rounds * more;
        let mut rng = Rng::new(seed + bits as u64);
        let mut seen = BTreeSet::new();
        let mut failures = Vec::new();
        let all = codes(&isa, bits);
        let mut plans = Vec::new();
        for &code in all.iter().filter(|&&c| skipped(c).is_none()) {
            for _ in 0..rounds {
                let mut plan = Plan::new(bits, &mut rng);
                if plan
                    .push(code)
                    .is_some_and(|i| !(i.mnemonic() == Mnemonic::Int && i.immediate8() == 0x80))
                {
                    plans.push(finish(plan));
                }
                if plans.len() == 1000 {
                    failures.extend(run(&isa, std::mem::take(&mut plans), &mut seen));
                }
            }
        }
        failures.extend(run(&isa, plans, &mut seen));
        let max = X86::new(isa.mode(), CpuModel::by_name("max").unwrap());
        let missing: Vec<_> = codes(&max, bits).into_iter().filter(|&c| !isa.accepts(c)).collect();
        println!("{bits} bits: the host lacks {missing:?}");
        let untested: Vec<_> = all
            .iter()
            .filter(|c| !seen.contains(c))
            .map(|&c| (c, skipped(c).unwrap_or("?")))
            .collect();
        println!("{bits} bits: {} codes, not run natively: {untested:?}", all.len());
        judge(failures);
        assert!(untested.iter().all(|u| u.1 != "?"), "accepted codes that nothing tests");
    }

    /// How many times more the soak does, from another seed each time.
    fn soak() -> (usize, u64) {
        match std::env::var_os("TULK_SOAK").is_some_and(|v| v == "yes") {
            true => {
                let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
                println!("seed {now}");
                (30, now)
            }
            false => (1, 0),
        }
    }

    /// Sequences, so that flags and registers flow from one instruction to the next.
    fn sequences(bits: u32, count: usize) {
        let isa = isa(bits);
        let (more, seed) = soak();
        let count = count * more;
        let mut rng = Rng::new(seed + 1000 + bits as u64);
        let all: Vec<_> = codes(&isa, bits)
            .into_iter()
            .filter(|&c| {
                skipped(c).is_none() && !c.is_privileged() && c.mnemonic() != Mnemonic::Int
            })
            .collect();
        let (straight, ends): (Vec<_>, Vec<_>) =
            all.iter().copied().partition(|c| c.flow_control() == FlowControl::Next);
        let mut plans = Vec::new();
        let mut failures = Vec::new();
        let mut seen = BTreeSet::new();
        for n in 0..count {
            let registers_only = n % 2 == 0;
            let length = 2 + rng.below(7) as usize;
            let mut plan = Plan::new(bits, &mut rng);
            plan.registers_only = registers_only;
            for _ in 0..4 * length {
                let code = *plan.rng.pick(&straight);
                plan.push(code);
                if plan.insns.len() == length {
                    break;
                }
            }
            if n % 3 == 0 {
                let code = *plan.rng.pick(&ends);
                plan.push(code);
            }
            if !plan.insns.is_empty() {
                plans.push(finish(plan));
            }
            if plans.len() == 1000 {
                failures.extend(run(&isa, std::mem::take(&mut plans), &mut seen));
            }
        }
        failures.extend(run(&isa, plans, &mut seen));
        judge(failures);
    }

    #[test]
    fn singles_64() {
        singles(64, 60);
    }
    #[test]
    fn singles_32() {
        singles(32, 60);
    }
    #[test]
    fn singles_16() {
        singles(16, 60);
    }
    #[test]
    fn sequences_64() {
        sequences(64, 20_000);
    }
    #[test]
    fn sequences_32() {
        sequences(32, 20_000);
    }
    #[test]
    fn sequences_16() {
        sequences(16, 20_000);
    }
}
