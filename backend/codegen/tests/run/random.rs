//! Random units: generated code against a plain walk over the IR, from random states, faults included.

use super::machine::Machine;
use super::reference::Reference;
use tulk_codegen::baseline::Baseline;
use tulk_codegen::{MemoryModel, Options};
use tulk_ir::Round;
use tulk_ir::filetest::env::layout;
use tulk_ir::filetest::random::{self, Rng, compare};
use tulk_ir::passes::PassConfig;

fn seeds() -> u64 {
    std::env::var("TULK_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(300)
}

fn compare_units(first: u64, options: random::Options, model: MemoryModel, optimize: bool) {
    let options_c =
        Options { optimize, verify: true, listing: std::env::var_os("TULK_LISTING").is_some() };
    compare_on(first, options, Machine::new(options_c, model, true));
}

fn compare_on(first: u64, options: random::Options, mut machine: Machine) {
    let mut reference = Reference::new();
    let mut failures = Vec::new();
    let one = std::env::var("TULK_SEED").ok().and_then(|s| s.parse().ok());
    for seed in one.map_or(first..first + seeds(), |s| s..s + 1) {
        let mut rng = Rng(seed);
        let unit = random::unit(&mut rng, &options);
        for round in [Round::Nearest, Round::Down, Round::Up, Round::Zero] {
            (machine.round, reference.round) = (Some(round), Some(round));
            let result = compare(&mut rng, (&unit, &mut reference), (&unit, &mut machine));
            if machine.unknown_fault {
                continue;
            }
            if let Err(message) = result {
                failures
                    .push(format!("seed {seed} {round}: {message}\n{}", unit.display(&layout())));
                break;
            }
        }
    }
    let shown = failures.iter().take(12).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures:\n{shown}", failures.len());
}

const ALL: random::Options = random::Options { size: 40, floats: true, memory: true, calls: true };

#[test]
fn integers_and_vectors() {
    let options = random::Options { size: 30, floats: false, memory: false, calls: false };
    compare_units(1, options, MemoryModel::Flat, true);
}

#[test]
fn floats() {
    let options = random::Options { size: 20, floats: true, memory: false, calls: false };
    compare_units(100_000, options, MemoryModel::Flat, true);
}

#[test]
fn memory_flat() {
    let options = random::Options { size: 30, floats: false, memory: true, calls: true };
    compare_units(200_000, options, MemoryModel::Flat, true);
}

#[test]
fn memory_based() {
    let options = random::Options { size: 30, floats: false, memory: true, calls: true };
    compare_units(300_000, options, MemoryModel::Based, true);
}

#[test]
fn everything() {
    compare_units(400_000, ALL, MemoryModel::Flat, true);
}

#[test]
fn everything_unoptimized() {
    compare_units(500_000, ALL, MemoryModel::Based, false);
}

const MEMORY: random::Options =
    random::Options { size: 30, floats: false, memory: true, calls: true };

#[test]
fn memory_paged() {
    compare_units(1_500_000, MEMORY, MemoryModel::Paged, true);
    compare_units(1_600_000, MEMORY, MemoryModel::Paged, false);
}

#[test]
fn everything_paged() {
    compare_units(1_700_000, ALL, MemoryModel::Paged, true);
}

#[test]
fn baseline_paged() {
    compare_on(1_800_000, MEMORY, Machine::baseline(MemoryModel::Paged));
    compare_on(1_900_000, ALL, Machine::baseline(MemoryModel::Paged));
    let baseline = Machine::baseline(MemoryModel::Paged);
    compare_on(2_000_000, ALL, Machine { passes: Some(PassConfig::cold()), ..baseline });
}

#[test]
fn baseline_integers_and_vectors() {
    let options = random::Options { size: 30, floats: false, memory: false, calls: false };
    compare_on(600_000, options, Machine::baseline(MemoryModel::Flat));
}

#[test]
fn baseline_floats() {
    let options = random::Options { size: 20, floats: true, memory: false, calls: false };
    compare_on(700_000, options, Machine::baseline(MemoryModel::Flat));
}

#[test]
fn baseline_memory() {
    let options = random::Options { size: 30, floats: false, memory: true, calls: true };
    compare_on(800_000, options, Machine::baseline(MemoryModel::Flat));
    compare_on(900_000, options, Machine::baseline(MemoryModel::Based));
}

#[test]
fn baseline_everything() {
    compare_on(1_000_000, ALL, Machine::baseline(MemoryModel::Flat));
    compare_on(1_100_000, ALL, Machine::baseline(MemoryModel::Based));
}

/// As blocks come from the lifter: after the passes for cold code.
#[test]
fn baseline_after_passes() {
    let machine = |model| Machine { passes: Some(PassConfig::cold()), ..Machine::baseline(model) };
    compare_on(1_200_000, ALL, machine(MemoryModel::Flat));
    compare_on(1_300_000, ALL, machine(MemoryModel::Based));
}

#[test]
fn baseline_without_extensions() {
    let machine = || {
        let baseline = Baseline::new().unwrap().without_extensions();
        Machine { baseline, ..Machine::baseline(MemoryModel::Flat) }
    };
    let options = random::Options { size: 30, floats: true, memory: false, calls: false };
    compare_on(1_400_000, options, machine());
}
