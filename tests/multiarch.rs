//! The same C programs on every guest: built with Debian's cross compilers, run by tulk in each tier, compared with
//! what the native build prints and how it exits. A guest whose programs the host runs itself is compared with its own.
//!
//! A program stands in `tests/guest/multiarch/NAME.c`. Where a guest's compiler is not installed its tests say so
//! and pass, unless `TULK_REQUIRE_TOOLS` is set (as `./test` does).

mod support;

use support::{Guest, Tier, compile, run_native, run_tulk};

fn check(program: &str) {
    let native = compile(None, program);
    let portable = run_native(&native);
    for guest in Guest::ALL {
        if !guest.has_compiler() {
            support::missing(guest.compiler());
            continue;
        }
        let binary = compile(Some(guest), program);
        let own = guest.is_native().then(|| run_native(&binary));
        let expected = own.as_ref().unwrap_or(&portable);
        let run = |tier: Tier| (tier, run_tulk(tier, &[], &[binary.as_os_str()]));
        // Most programs wait more than they compute.
        let runs = std::thread::scope(|s| {
            let runs: Vec<_> = Tier::ALL.iter().map(|&tier| s.spawn(move || run(tier))).collect();
            runs.into_iter().map(|r| r.join().unwrap()).collect::<Vec<_>>()
        });
        for (tier, got) in runs {
            assert_eq!(
                (got.status, got.text()),
                (expected.status, expected.text()),
                "{program} on {} in {tier:?}; errors:\n{}",
                guest.name(),
                got.errors()
            );
        }
    }
}

macro_rules! programs {
    ($($name:ident)+) => { $(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )+ };
}

programs! { memory rows mappings alignment tagged signals actions interrupts threads processes sharing ends floats sticky files jit hostile }
