//! SSE and AVX instructions against the host processor: registers, MXCSR, memory, and faults, in all rounding and
//! flush modes and with unmasked exceptions. See [`support`].

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod support;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::support::case::Case;
    use super::support::compare::{Ignore, describe, differences};
    use super::support::rng::Rng;
    use super::support::vectors::{codes, effort, isa, judge, sequence, show, single};
    use super::support::world::Way;
    use super::support::{native, world};
    use iced_x86::Code;
    use std::collections::BTreeSet;
    use tulk_base::CpuState;
    use tulk_x86::{CpuModel, X86};

    /// Cases on their way to the host, and what became of them.
    struct Bench<'a> {
        isa: &'a X86,
        waiting: Vec<(Case, Vec<Code>)>,
        seen: BTreeSet<Code>,
        failures: Vec<(Code, String)>,
    }

    impl Bench<'_> {
        fn new(isa: &X86) -> Bench<'_> {
            Bench { isa, waiting: Vec::new(), seen: BTreeSet::new(), failures: Vec::new() }
        }
        fn push(&mut self, case: Case, codes: Vec<Code>) {
            self.waiting.push((case, codes));
            if self.waiting.len() == 1000 {
                self.run();
            }
        }
        fn run(&mut self) {
            let waiting = std::mem::take(&mut self.waiting);
            let cases: Vec<Case> = waiting.iter().map(|p| p.0).collect();
            let host = native::run(&cases);
            let mut state = CpuState::new();
            for (n, (case, codes)) in waiting.iter().enumerate() {
                let way = Way::ALL[n % 3];
                let ours = world::interpret(self.isa, case, way, &mut state);
                self.seen.extend(codes.iter().copied());
                let diff = differences(case, &host[n], &ours, Ignore::default());
                if !diff.is_empty() {
                    let text = format!("{}{}  {}\n", describe(case), show(case), diff.join("\n  "));
                    self.failures.push((codes[codes.len() - 1], text));
                }
            }
        }
    }

    /// Each code alone, many times.
    fn singles(bits: u32, rounds: usize) {
        let isa = isa(bits);
        let mut rng = Rng::new(77 + bits as u64);
        let all = codes(&isa, bits);
        let mut bench = Bench::new(&isa);
        for &code in &all {
            for _ in 0..rounds * effort() {
                if let Some(case) = single(code, bits, &mut rng) {
                    bench.push(case, vec![code]);
                }
            }
        }
        bench.run();
        let max = X86::new(isa.mode(), CpuModel::by_name("max").unwrap());
        let missing: Vec<_> = codes(&max, bits).into_iter().filter(|&c| !isa.accepts(c)).collect();
        println!("{bits} bits: the host lacks {missing:?}");
        let untested: Vec<_> = all.iter().filter(|c| !bench.seen.contains(c)).collect();
        println!("{bits} bits: {} codes, without a test: {untested:?}", all.len());
        judge(bench.failures);
        assert!(untested.is_empty(), "accepted codes that nothing tests");
    }

    /// Sequences, so that registers, flags and modes flow from one instruction to the next.
    fn sequences(bits: u32, count: usize) {
        let isa = isa(bits);
        let mut rng = Rng::new(2000 + bits as u64);
        let all = codes(&isa, bits);
        let mut bench = Bench::new(&isa);
        for n in 0..count * effort() {
            if let Some((case, codes)) = sequence(&all, bits, n % 2 == 0, &mut rng) {
                bench.push(case, codes);
            }
        }
        bench.run();
        judge(bench.failures);
    }

    #[test]
    fn singles_64() {
        singles(64, 120);
    }
    #[test]
    fn singles_32() {
        singles(32, 60);
    }
    #[test]
    fn sequences_64() {
        sequences(64, 10_000);
    }
    #[test]
    fn sequences_32() {
        sequences(32, 5_000);
    }
}
