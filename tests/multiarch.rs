//! The same C programs on every guest: built with Debian's cross compilers, run by tulk in each tier, compared with
//! what the native build prints and how it exits.
//!
//! A program stands in `tests/guest/multiarch/NAME.c`. Where a guest's compiler is not installed its tests say so
//! and pass, unless `TULK_REQUIRE_TOOLS` is set (as `./test` does).

mod support;

use support::{Guest, Tier, compile, run_native, run_tulk};

fn check(program: &str) {
    let native = compile(None, program);
    let expected = run_native(&native);
    for guest in Guest::ALL {
        if !guest.has_compiler() {
            support::missing(guest.compiler());
            continue;
        }
        let binary = compile(Some(guest), program);
        for tier in Tier::ALL {
            let got = run_tulk(tier, &[], &[binary.as_os_str()]);
            assert_eq!(
                (got.status, got.text()),
                (expected.status, expected.text()),
                "{program} on {} in tier {tier:?}; errors:\n{}",
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

programs! { memory signals threads processes floats files jit }
