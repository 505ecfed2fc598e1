//! The instruction tables against capstone: over random words made from every row and over random 32-bit
//! words, what one accepts and the other rejects is a finding, unless a row of `EXCEPTIONS` gives the reason.

use capstone::arch::{BuildsCapstone, arm64::ArchMode};
use std::collections::BTreeMap;
use tulk_arm::a64::Features;
use tulk_arm::a64::decode::{Decoder, Insn, Row, rows};

/// Words on which capstone and the tables differ with a reason: `word & mask == value`, a mnemonic (capstone's
/// or ours), or what a function says.
enum Where {
    Bits(u32, u32),
    Mnemonics(&'static [&'static str]),
    When(fn(Insn, &str) -> bool),
}
use Where::*;

/// Capstone accepts, we do not.
const ONLY_CAPSTONE: &[(Where, &str)] = &[
    (Bits(0x1e00_0000, 0x0400_0000), "SVE is not implemented"),
    (Bits(0x9e00_0000, 0x8000_0000), "SME is not implemented"),
    (Bits(0xffff_0000, 0), "UDF has no row"),
    (
        Mnemonics(&[
            "hlt", "hvc", "smc", "dcps1", "dcps2", "dcps3", "eret", "drps", "eretaa", "eretab",
        ]),
        "undefined at EL0",
    ),
    (
        Mnemonics(&[
            "braa", "braaz", "brab", "brabz", "blraa", "blraaz", "blrab", "blrabz", "retaa",
            "retab", "pacia", "pacib", "pacda", "pacdb", "paciza", "pacizb", "pacdza", "pacdzb",
            "autia", "autib", "autda", "autdb", "autiza", "autizb", "autdza", "autdzb", "xpaci",
            "xpacd", "pacga", "ldraa", "ldrab",
        ]),
        "PAuth is not shown",
    ),
    (
        Mnemonics(&[
            "addg", "subg", "subp", "subps", "cmpp", "irg", "gmi", "stg", "stzg", "st2g", "stz2g",
            "ldg", "ldgm", "stgm", "stzgm", "stgp",
        ]),
        "MTE is not shown",
    ),
    (Mnemonics(&["ld64b", "st64b", "st64bv", "st64bv0"]), "LS64 is not shown"),
    (Mnemonics(&["wfet", "wfit"]), "WFXT is not shown"),
    (Mnemonics(&["tstart", "tcommit", "tcancel", "ttest"]), "TME is not shown"),
    (
        Mnemonics(&[
            "bc.eq", "bc.ne", "bc.hs", "bc.lo", "bc.mi", "bc.pl", "bc.vs", "bc.vc", "bc.hi",
            "bc.ls", "bc.ge", "bc.lt", "bc.gt", "bc.le", "bc.al", "bc.nv",
        ]),
        "HBC is not shown",
    ),
    (
        Mnemonics(&[
            "sys", "sysl", "at", "tlbi", "dc", "ic", "cfp", "cpp", "dvp", "brb", "cosp", "trcit",
            "gcspushm", "gcsss1",
        ]),
        "undefined at EL0, except the rows in `system`",
    ),
    (Mnemonics(&["msr", "smstart", "smstop"]), "PSTATE fields that EL0 cannot write, SME"),
    (Mnemonics(&["fmlal", "fmlal2", "fmlsl", "fmlsl2"]), "FHM is not implemented"),
    (
        Mnemonics(&[
            "sm3partw1",
            "sm3partw2",
            "sm3ss1",
            "sm3tt1a",
            "sm3tt1b",
            "sm3tt2a",
            "sm3tt2b",
            "sm4e",
            "sm4ekey",
        ]),
        "SM3 and SM4 are not implemented",
    ),
    (Bits(0xffff_f0ff, 0xd503_303f), "DSB nXS: XS is not shown"),
    (Bits(0x3b20_0c00, 0x1900_0400), "MOPS is not shown"),
    (Bits(0xfff0_0000, 0xd520_0000), "op0 is 0 or 1: reserved, or SYSL, which is undefined at EL0"),
];

/// We accept, capstone does not.
const ONLY_TULK: &[(Where, &str)] = &[
    (
        When(|i, name| {
            (name.starts_with("ldp") || name.starts_with("ldnp") || name == "ldxp")
                && i.rt() == i.rt2()
        }),
        "one register loaded twice: CONSTRAINED UNPREDICTABLE, the second load wins",
    ),
    (
        When(|i, name| {
            (name.ends_with("_post") || name.ends_with("_pre"))
                && i.rn() != 31
                && (i.rn() == i.rt() || i.rn() == i.rt2())
        }),
        "base written back and transferred: CONSTRAINED UNPREDICTABLE, see `a64`",
    ),
    (
        When(|i, name| name.starts_with("ldtr") && i.rn() == i.rt()),
        "capstone takes LDTR for a form with writeback",
    ),
];

fn random(state: &mut u64) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as u32
}

struct Oracle {
    capstone: capstone::Capstone,
    decoder: Decoder,
    simd: bool,
    findings: BTreeMap<String, (u32, u32)>,
}

impl Oracle {
    fn new() -> Oracle {
        Oracle {
            capstone: capstone::Capstone::new().arm64().mode(ArchMode::Arm).build().unwrap(),
            decoder: Decoder::new(Features::ALL),
            simd: rows().any(|r| r.name.starts_with("fadd")),
            findings: BTreeMap::new(),
        }
    }

    fn check(&mut self, word: u32) {
        let vector = word >> 25 & 7 == 7 || word >> 25 & 0x1f == 0b00110;
        if vector && !self.simd {
            return;
        }
        let insns = self.capstone.disasm_count(&word.to_le_bytes(), 0, 1).unwrap();
        let mnemonic = insns.first().and_then(|i| i.mnemonic()).map(str::to_owned);
        let row: Option<&Row> = self.decoder.decode(word);
        // Capstone insists on the bits that the manual calls "should be".
        if row.is_some_and(|r| word & r.pattern.should != r.pattern.should_value) {
            return;
        }
        let name = mnemonic.as_deref().or(row.map(|r| r.name)).unwrap_or("");
        let excused = |list: &[(Where, &str)]| {
            list.iter().any(|(w, _)| match w {
                Bits(mask, value) => word & mask == *value,
                Mnemonics(names) => names.contains(&name),
                When(holds) => holds(Insn(word), name),
            })
        };
        let key = match (&mnemonic, row) {
            (Some(m), None) if !excused(ONLY_CAPSTONE) => format!("only capstone: {m}"),
            (None, Some(r)) if !excused(ONLY_TULK) => format!("only tulk: {}", r.name),
            _ => return,
        };
        let entry = self.findings.entry(key).or_insert((word, 0));
        entry.1 += 1;
    }

    fn report(self) {
        let list: Vec<String> = self
            .findings
            .iter()
            .map(|(what, (word, count))| format!("{what}: {word:08x} and {count} in all"))
            .collect();
        assert!(list.is_empty(), "{}", list.join("\n"));
    }
}

#[test]
fn words_made_from_the_rows() {
    let mut oracle = Oracle::new();
    let mut state = 0x1234_5678_9abc_def1;
    for row in rows() {
        for _ in 0..400 {
            let p = row.pattern;
            let word = random(&mut state) & !(p.mask | p.should) | p.value | p.should_value;
            oracle.check(word);
        }
    }
    oracle.report();
}

#[test]
fn random_words() {
    let mut oracle = Oracle::new();
    let mut state = 0xfeed_5678_9abc_def1;
    for _ in 0..2_000_000 {
        oracle.check(random(&mut state));
    }
    oracle.report();
}
