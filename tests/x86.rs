//! C programs about what only x86 has (`tests/guest/x86`): run natively, which the host does best, and as guests in
//! every tier.

mod support;

use support::{Guest, Tier, compile_in, run_native, run_tulk};

fn check(program: &str) {
    for guest in [Guest::X86_64, Guest::I386] {
        if !guest.is_native() {
            support::missing("an x86 host, the judge of these programs,");
            continue;
        }
        if !guest.has_compiler() {
            support::missing(guest.compiler());
            continue;
        }
        let binary = compile_in("x86", Some(guest), program);
        let expected = run_native(&binary);
        for &tier in Tier::ALL {
            let got = run_tulk(tier, &[], &[binary.as_os_str()]);
            assert!(
                (got.status, got.text()) == (expected.status, expected.text()),
                "{program} on {} in tier {tier:?} ended with {}, native {}: {}; errors:\n{}",
                guest.name(),
                got.status,
                expected.status,
                support::first_difference(&got.text(), &expected.text()),
                got.errors()
            );
        }
    }
}

#[test]
fn exceptions() {
    check("exceptions");
}

#[test]
fn fetch() {
    check("fetch");
}

#[test]
fn frames() {
    check("frames");
}

#[test]
fn kernel() {
    check("kernel");
}

/// Memory ordering between threads. `LITMUS_MS` is how long each part looks for an outcome that must not be.
#[test]
fn litmus() {
    check("litmus");
}

#[test]
fn segments() {
    check("segments");
}

#[test]
fn storm() {
    check("storm");
}

#[test]
fn registers() {
    check("registers");
}
