//! Random sequences of floating-point, AdvSIMD and crypto instructions, against the outside oracle.

mod support;

use support::compare::{Plan, fuzz, is_wrong_here};
use support::host_float;
use tulk_arm::a64::decode::Row;

fn is_fp(row: &Row) -> bool {
    ["Floating-point", "Conversion between"].iter().any(|c| row.class.starts_with(c))
        && !is_wrong_here(row)
}
fn is_simd(row: &Row) -> bool {
    row.class.starts_with("Advanced SIMD") && !is_wrong_here(row)
}

fn is_crypto(row: &Row) -> bool {
    row.class.starts_with("Cryptographic")
}
fn is_vector(row: &Row) -> bool {
    is_fp(row) || is_simd(row) || is_crypto(row)
}

/// With FPCR and FPSR (NZCV, TPIDR_EL0) read and written in between.
fn is_vector_or_control(row: &Row) -> bool {
    is_vector(row) || matches!(row.name, "mrs" | "msr")
}

/// Rounding modes alone: the mode in which float instructions are IR operations.
const ROUNDING: u32 = 0x00c0_0000;
/// AHP, DN, FZ, rounding modes, FZ16.
const EVERYTHING: u32 = 0x07c8_0000;

const MAX: Plan = Plan {
    model: "max",
    oracle_cpu: "max,pauth=off,sve=off",
    seed: 11,
    rows: is_vector,
    rounds: 8,
    length: 1,
    fpcr: 0,
};

/// Fuzzes by plan where the host's float control is known.
fn fuzz_floats(plan: &Plan) {
    if host_float::KNOWN {
        fuzz(plan);
    } else {
        eprintln!("SKIPPED: no access to this host's floating-point control");
    }
}

#[test]
fn single_fp() {
    fuzz_floats(&Plan { rows: is_fp, rounds: 12, fpcr: ROUNDING, ..MAX });
}

#[test]
fn single_fp_in_every_mode() {
    fuzz_floats(&Plan { seed: 12, rows: is_fp, rounds: 12, fpcr: EVERYTHING, ..MAX });
}

#[test]
fn single_simd() {
    fuzz_floats(&Plan { seed: 13, rows: is_simd, fpcr: ROUNDING, ..MAX });
}

#[test]
fn single_simd_in_every_mode() {
    fuzz_floats(&Plan { seed: 14, rows: is_simd, fpcr: EVERYTHING, ..MAX });
}

#[test]
fn single_crypto() {
    fuzz(&Plan { seed: 15, rows: is_crypto, ..MAX });
}

#[test]
fn sequences() {
    fuzz_floats(&Plan {
        seed: 16,
        rows: is_vector_or_control,
        rounds: 5,
        length: 12,
        fpcr: EVERYTHING,
        ..MAX
    });
}

#[test]
fn sequences_on_neoverse_n1() {
    fuzz_floats(&Plan {
        model: "neoverse-n1",
        oracle_cpu: "neoverse-n1",
        seed: 17,
        rounds: 3,
        length: 12,
        fpcr: EVERYTHING,
        ..MAX
    });
}
