//! Random bytes as code, in every mode: whatever they are, one instruction at a time, whole units, improved units,
//! baseline code and compiled code do the same. Unlike the sequences of the other tests these jump, loop, fault and
//! end anywhere. See [`support`]; `fuzz/src/x86.rs` has the target for the lifter alone.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod support;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::support::case::{CODE_LEN, Case, DATA, PAGE};
    use super::support::compare::{Ignore, describe, differences};
    use super::support::engine::{Engine, memory};
    use super::support::rng::Rng;
    use super::support::vectors::{effort, isa};
    use super::support::world::{Way, interpret, interpret_within};
    use tulk_base::CpuState;
    use tulk_exec::Tier;

    /// Starts that lead to the larger part of the instructions: prefixes, maps, VEX.
    const STARTS: [&[u8]; 16] = [
        &[],
        &[0x66],
        &[0xf2],
        &[0xf3],
        &[0x0f],
        &[0x66, 0x0f],
        &[0xf2, 0x0f],
        &[0xf3, 0x0f],
        &[0x66, 0x0f, 0x38],
        &[0x66, 0x0f, 0x3a],
        &[0xc4, 0xe2],
        &[0xc4, 0xe1],
        &[0xc5],
        &[0x48],
        &[0x67],
        &[0xd9],
    ];

    /// Code of a few instructions, most of them valid, and registers that point into memory.
    fn random_case(bits: u32, rng: &mut Rng) -> Case {
        let mut case = Case::random(bits, rng);
        for n in [0, 1, 3, 5, 6, 7] {
            if !rng.chance(3) {
                case.regs.gpr[n] = (DATA + 64 + (rng.next() as u32) % (2 * PAGE - 128)) as u64;
            }
        }
        // Short repetitions.
        if rng.chance(2) {
            case.regs.gpr[1] = rng.next() & 63;
        }
        let count = 1 + rng.next() % 8;
        for _ in 0..count {
            let start = STARTS[rng.next() as usize % STARTS.len()];
            let mut bytes = start.to_vec();
            let more = 1 + rng.next() as usize % 6;
            bytes.extend((0..more).map(|_| rng.next() as u8));
            // Registers, or memory without a distant displacement.
            if more > 1 {
                let modrm = start.len() + 1;
                bytes[modrm] =
                    if rng.chance(2) { bytes[modrm] | 0xc0 } else { bytes[modrm] & 0x7f };
            }
            // Short jumps stay in the code.
            if start.is_empty() && bytes[0] & 0xf0 == 0x70 {
                bytes.resize(2, 0);
                bytes[1] = (bytes[1] as i8 % 24) as u8;
            }
            if case.code_len as usize + bytes.len() > CODE_LEN - 16 {
                break;
            }
            case.append(&bytes);
        }
        case
    }

    /// Units that a case may take: jumps may go round and round.
    const LIMIT: u32 = 3000;

    fn agree(bits: u32, count: usize) {
        let guest = isa(bits);
        let memory = memory();
        let mut engines = [Tier::Baseline, Tier::Jit]
            .map(|tier| (tier, Engine::of_tier(isa(bits), tier, memory.clone())));
        let mut state = CpuState::new();
        let mut rng = Rng::new(515 + bits as u64);
        let (mut ran, mut failures) = (0, Vec::new());
        for round in 0..count * effort() {
            let case = random_case(bits, &mut rng);
            let steps = interpret_within(&guest, &case, Way::Steps, &mut state, LIMIT);
            let Some((want, true)) = steps else { continue };
            ran += 1;
            let mut check = |how: String, got: &_| {
                let diff = differences(&case, &want, got, Ignore::default());
                if !diff.is_empty() {
                    let text = diff.join("\n  ");
                    failures.push(format!("round {round}, {how}: {}  {text}\n", describe(&case)));
                }
            };
            for way in [Way::Units, Way::Passes, Way::Known] {
                check(format!("{way:?}"), &interpret(&guest, &case, way, &mut state));
            }
            for (tier, engine) in &mut engines {
                check(format!("{tier:?}"), &engine.run(&case));
            }
        }
        println!("{ran} of {} cases", count * effort());
        assert!(ran > count * effort() / 2, "most cases loop");
        let shown = failures.len().min(5);
        assert!(
            failures.is_empty(),
            "{} failures\n{}",
            failures.len(),
            failures[..shown].join("\n")
        );
    }

    #[test]
    fn code_16() {
        agree(16, 4000);
    }
    #[test]
    fn code_32() {
        agree(32, 4000);
    }
    #[test]
    fn code_64() {
        agree(64, 6000);
    }
}
