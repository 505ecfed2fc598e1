//! Random units do the same before and after each pass; and every pass finds something in them.

mod support;

use support::Reference;
use tulk_ir::filetest::env::{HELPERS, layout};
use tulk_ir::filetest::random::{Options, Rng, compare, unit};
use tulk_ir::filetest::{Interpreter, Runner};
use tulk_ir::passes::{PassConfig, Passes};
use tulk_ir::{Unit, verifier};

const ALL: Options = Options { size: 60, floats: true, memory: true, calls: true };

#[test]
fn random_units_do_the_same() {
    let (layout, mut rng, mut passes) = (layout(), Rng(7), Passes::new());
    let (mut before_runner, mut after_runner) = (Reference::default(), Reference::default());
    let mut configs = vec![("hot", PassConfig::hot())];
    for name in PassConfig::SWITCHES {
        let mut config = PassConfig::none();
        *config.switch(name).expect("a switch of this name") = true;
        configs.push((name, config));
    }
    let mut improved = vec![0; configs.len()];
    for _ in 0..1500 {
        let before = unit(&mut rng, &ALL);
        for ((name, config), improved) in configs.iter().zip(&mut improved) {
            let mut after = before.clone();
            passes.run(&mut after, &layout, HELPERS, config);
            verifier::assert_valid(&after, &layout, HELPERS);
            *improved += (after != before) as u32;
            let seed = rng.word();
            for n in 0..2 {
                let mut rng = Rng(seed + n);
                let a: (_, &mut dyn Runner) = (&before, &mut before_runner);
                if let Err(difference) = compare(&mut rng, a, (&after, &mut after_runner)) {
                    let text = |u: &Unit| u.display(&layout).helpers(HELPERS).to_string();
                    panic!("{name}: {difference}\n{}\n{}", text(&before), text(&after));
                }
            }
        }
    }
    for ((name, _), improved) in configs.iter().zip(&improved) {
        assert!(*improved > 100, "`{name}` changed only {improved} units");
    }
}

/// The interpreter does with random units, plain and optimised, what their plainest reading does.
#[test]
fn interpreter_reads_them_alike() {
    let (layout, mut rng, mut passes) = (layout(), Rng(8), Passes::new());
    let (mut reference, mut interpreter) = (Reference::default(), Interpreter::default());
    for _ in 0..3000 {
        let mut unit = unit(&mut rng, &ALL);
        if rng.one_in(2) {
            passes.run(&mut unit, &layout, HELPERS, &PassConfig::hot());
        }
        let a: (_, &mut dyn Runner) = (&unit, &mut reference);
        if let Err(difference) = compare(&mut rng, a, (&unit, &mut interpreter)) {
            panic!("{difference}\n{}", unit.display(&layout).helpers(HELPERS));
        }
    }
}
