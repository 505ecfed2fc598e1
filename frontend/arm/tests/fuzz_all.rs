//! Random sequences of all instructions together, against the outside oracle: what one kind remembers (scalars,
//! words, flags, constants) must survive or be forgotten across the other kinds.

mod support;

use support::compare::{Plan, fuzz, is_wrong_here};

#[test]
fn sequences_of_everything() {
    fuzz(&Plan {
        model: "max",
        oracle_cpu: "max,pauth=off,sve=off",
        seed: 21,
        // The oracle's `max` zeroes blocks of another size, and an old one lacks DC CVAP.
        rows: |row| !matches!(row.name, "dc_zva" | "dc_cvap" | "dc_cvadp") && !is_wrong_here(row),
        rounds: 3,
        length: 24,
        fpcr: 0x07c8_0000,
    });
}
