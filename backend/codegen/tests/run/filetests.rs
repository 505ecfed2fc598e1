//! The IR filetests on generated code.

use super::machine::Machine;
use tulk_codegen::{MemoryModel, Options};
use tulk_ir::filetest::run_all;
use tulk_ir::passes::PassConfig;

fn run(model: MemoryModel, optimize: bool) {
    let options = Options { optimize, verify: true, listing: false };
    run_on(Machine::new(options, model, true));
}

fn run_on(mut machine: Machine) {
    let report = run_all(&mut machine, &[PassConfig::hot()]);
    report.assert_passed();
    assert!(report.runs > 100, "only {} runs", report.runs);
}

#[test]
fn filetests_flat() {
    run(MemoryModel::Flat, true);
}

#[test]
fn filetests_based_unoptimized() {
    run(MemoryModel::Based, false);
}

#[test]
fn filetests_baseline_flat() {
    run_on(Machine::baseline(MemoryModel::Flat));
}

#[test]
fn filetests_baseline_based() {
    run_on(Machine::baseline(MemoryModel::Based));
}

#[test]
fn filetests_paged() {
    run(MemoryModel::Paged, true);
}

#[test]
fn filetests_baseline_paged() {
    run_on(Machine::baseline(MemoryModel::Paged));
}
