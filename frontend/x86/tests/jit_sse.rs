//! SSE and AVX instructions compiled, against the interpreter, which `host_sse` holds against the host. See
//! [`support`].

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod support;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::support::case::Case;
    use super::support::compare::{Ignore, describe, differences};
    use super::support::engine::Engine;
    use super::support::rng::Rng;
    use super::support::vectors::{codes, effort, isa, judge, sequence, show, single};
    use super::support::world::{self, Way};
    use iced_x86::Code;
    use tulk_base::CpuState;

    struct Bench {
        isa: tulk_x86::X86,
        engine: Engine,
        state: Box<CpuState>,
        failures: Vec<(Code, String)>,
        cases: u64,
    }

    impl Bench {
        fn new(bits: u32) -> Bench {
            let (isa, state) = (isa(bits), CpuState::new());
            Bench {
                engine: Engine::new(self::isa(bits)),
                isa,
                state,
                failures: Vec::new(),
                cases: 0,
            }
        }
        fn finish(self) {
            println!("{} regions for {} cases", self.engine.compiled(), self.cases);
            judge(self.failures);
            assert!(self.engine.compiled() > self.cases / 2, "not compiled");
        }
        fn compare(&mut self, case: &Case, code: Code) {
            self.cases += 1;
            let want = world::interpret(&self.isa, case, Way::Units, &mut self.state);
            let ours = self.engine.run(case);
            let diff = differences(case, &want, &ours, Ignore::default());
            if !diff.is_empty() {
                let text = format!("{}{}  {}\n", describe(case), show(case), diff.join("\n  "));
                self.failures.push((code, text));
            }
        }
    }

    fn singles(bits: u32, rounds: usize) {
        let mut bench = Bench::new(bits);
        let mut rng = Rng::new(99 + bits as u64);
        for code in codes(&bench.isa, bits) {
            for _ in 0..rounds * effort() {
                if let Some(case) = single(code, bits, &mut rng) {
                    bench.compare(&case, code);
                }
            }
        }
        bench.finish();
    }

    fn sequences(bits: u32, count: usize) {
        let mut bench = Bench::new(bits);
        let all = codes(&bench.isa, bits);
        let mut rng = Rng::new(3000 + bits as u64);
        for n in 0..count * effort() {
            if let Some((case, codes)) = sequence(&all, bits, n % 2 == 0, &mut rng) {
                bench.compare(&case, codes[codes.len() - 1]);
            }
        }
        bench.finish();
    }

    #[test]
    fn singles_64() {
        singles(64, 40);
    }
    #[test]
    fn singles_32() {
        singles(32, 10);
    }
    #[test]
    fn sequences_64() {
        sequences(64, 8000);
    }
    #[test]
    fn sequences_32() {
        sequences(32, 2000);
    }
}
