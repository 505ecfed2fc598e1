//! The files of `ir/filetests`: text, verifier, passes, and everything that runs on the interpreter.

mod support;

use tulk_ir::Op;
use tulk_ir::filetest::{Interpreter, Runner, check_all, run_all};
use tulk_ir::passes::PassConfig;

#[test]
fn text_verifier_and_passes() {
    let failures = check_all();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
}

/// Each pass alone, then all.
#[test]
fn interpreter() {
    everything_passes_on(&mut Interpreter::default());
}

/// The same with the plainest reading of the IR, which also tells a wrong file from a wrong interpreter.
#[test]
fn reference() {
    everything_passes_on(&mut support::Reference::default());
}

fn everything_passes_on(runner: &mut dyn Runner) {
    let mut configs = vec![PassConfig::hot()];
    for name in PassConfig::SWITCHES {
        let mut config = PassConfig::none();
        *config.switch(name).expect("a switch of this name") = true;
        configs.push(config);
    }
    let report = run_all(runner, &configs);
    report.assert_passed();
    assert!(report.runs > 10_000, "only {} runs", report.runs);

    let missing: Vec<Op> = Op::ALL.iter().copied().filter(|op| !report.ops.contains(op)).collect();
    assert!(missing.is_empty(), "no file runs these operations: {missing:?}");
}
