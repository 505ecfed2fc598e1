//! Random sequences of everything but floating point and vectors, against the outside oracle.

mod support;

use support::compare::{Plan, fuzz};
use tulk_arm::a64::decode::Row;

/// Not an instruction of the FP and AdvSIMD data-processing space nor an AdvSIMD structure access.
fn is_integer(row: &Row) -> bool {
    let p = row.pattern;
    let vector = p.mask >> 25 & 7 == 7 && p.value >> 25 & 7 == 7;
    let structure = p.mask >> 25 & 0x1f == 0x1f && p.value >> 25 & 0x1f == 0b00110;
    !vector && !structure
}

/// What the oracle's `max` does like ours: it zeroes blocks of another size, and an old one lacks DC CVAP.
fn is_common(row: &Row) -> bool {
    is_integer(row) && !matches!(row.name, "dc_zva" | "dc_cvap" | "dc_cvadp")
}

const MAX: Plan = Plan {
    model: "max",
    oracle_cpu: "max,pauth=off,sve=off",
    seed: 1,
    rows: is_common,
    rounds: 20,
    length: 1,
    fpcr: 0,
};

#[test]
fn single_instructions() {
    fuzz(&MAX);
}

#[test]
fn sequences() {
    fuzz(&Plan { seed: 2, rounds: 10, length: 12, fpcr: 0x07c8_0000, ..MAX });
}

#[test]
fn sequences_on_neoverse_n1() {
    fuzz(&Plan {
        model: "neoverse-n1",
        oracle_cpu: "neoverse-n1",
        seed: 3,
        rows: |row| is_common(row) || row.name == "dc_zva",
        rounds: 3,
        length: 12,
        fpcr: 0,
    });
}
