//! Runs cases on the oracle and on our side and reports where they differ.

use super::generate::Generator;
use super::machine::{Machine, Tier};
use super::program::{
    BLOCK_FPCR, BLOCK_FPSR, BLOCK_NZCV, BLOCK_PC, BLOCK_SIGNAL, BLOCK_SP, BLOCK_V, Case, Outcome,
    build, outcomes,
};
use super::{asm, elf};
use std::fmt::Write;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::OnceLock;
use tulk_arm::a64::Feature;
use tulk_arm::a64::decode::Row;
use tulk_arm::a64::{Aarch64, CpuModel};
use tulk_base::GuestVa;
use tulk_frontend::{GuestIsa, TbKey};

/// What to fuzz.
pub struct Plan {
    /// Our CPU model.
    pub model: &'static str,
    /// The oracle's `-cpu`.
    pub oracle_cpu: &'static str,
    pub seed: u64,
    /// Which rows sequences are made of.
    pub rows: fn(&Row) -> bool,
    /// Cases that begin with each row once; then as many again of random sequences.
    pub rounds: usize,
    /// Instructions in a case.
    pub length: usize,
    /// FPCR bits to try; 0 for the default mode only.
    pub fpcr: u32,
}

/// Instructions that QEMU before 10 (seen in 7.2) gets wrong:
/// - FCVTZS Hd, Hn, #fbits leaves the sign extended above bit 15; the rest of the register is zero
///   (Arm ARM C1.2.5).
/// - FJCVTZS of a denormal in flush-to-zero mode sets Z; only an exact conversion does (FPToFixedJS).
#[allow(dead_code)] // not every test fuzzes these rows
pub fn is_wrong_here(row: &Row) -> bool {
    let half_fixed = row.class == "Advanced SIMD scalar shift by immediate"
        && row.name == "fcvtzs_fixed"
        && row.feature == Feature::Fp16;
    (half_fixed || row.name == "fjcvtzs") && oracle_is_old()
}

#[allow(dead_code)]
fn oracle_is_old() -> bool {
    static OLD: OnceLock<bool> = OnceLock::new();
    *OLD.get_or_init(|| {
        let version = oracle().and_then(|name| Command::new(name).arg("-version").output().ok());
        let text = version.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        let number = text.as_deref().and_then(|t| t.split("version ").nth(1)?.split('.').next());
        number.and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n < 10)
    })
}

/// The outside oracle, if there is one.
pub fn oracle() -> Option<String> {
    let name = std::env::var("TULK_QEMU_AARCH64").unwrap_or_else(|_| "qemu-aarch64".into());
    let runs = Command::new(&name).arg("-version").output().is_ok_and(|o| o.status.success());
    if !runs {
        eprintln!("SKIPPED: no {name}; install Debian's qemu-user to run this test");
    }
    runs.then_some(name)
}

/// The oracle's outcomes.
fn run_oracle(oracle: &str, cpu: &str, cases: &[Case]) -> Result<Vec<Outcome>, String> {
    let (entry, segments) = build(cases);
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("cases");
    let mut file = std::fs::File::create(&path).map_err(|e| e.to_string())?;
    file.write_all(&elf::image(entry, &segments)).map_err(|e| e.to_string())?;
    file.set_permissions(PermissionsExt::from_mode(0o755)).map_err(|e| e.to_string())?;
    drop(file);
    let done =
        Command::new(oracle).args(["-cpu", cpu]).arg(&path).output().map_err(|e| e.to_string())?;
    outcomes(cases.len(), &done.stdout).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&done.stderr);
        format!("oracle: {}, {} bytes, {errors}", done.status, done.stdout.len())
    })
}

/// Our outcomes.
pub fn run_ours(isa: &Aarch64, tier: Tier, cases: &[Case]) -> Result<Vec<Outcome>, String> {
    let (entry, segments) = build(cases);
    let output = Machine::new(isa, tier, entry, segments).run()?;
    outcomes(cases.len(), &output).ok_or_else(|| format!("only {} bytes of output", output.len()))
}

/// Cases in one program.
const BATCH: usize = 200;
/// Differences that are worth reading.
const ENOUGH: usize = 8;

/// Fuzzes by plan.
///
/// # Panics
/// When the sides differ, with the shortest sequences found.
pub fn fuzz(plan: &Plan) {
    let Some(oracle) = oracle() else { return };
    let isa = Aarch64::new(CpuModel::by_name(plan.model).expect("a CPU model"));
    // More or other cases than the plan says, for a long run.
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seed = plan.seed.wrapping_add(number("TULK_FUZZ_SEED").unwrap_or(0) << 16);
    let rounds = plan.rounds * number("TULK_FUZZ_FACTOR").unwrap_or(1) as usize;
    let mut generator = Generator::new(seed, isa.decoder(), |row| {
        isa.model().features.has(row.feature) && (plan.rows)(row)
    });
    generator.fpcr = plan.fpcr;
    let firsts: Vec<_> = generator.rows().to_vec();
    let mut queue: Vec<_> = (0..rounds).flat_map(|_| firsts.iter().map(|r| Some(*r))).collect();
    queue.extend(std::iter::repeat_n(None, rounds * firsts.len()));
    let mut report = Vec::new();
    let (mut run, mut faulted) = (0, 0);
    for batch in queue.chunks(BATCH) {
        let cases: Vec<Case> = batch
            .iter()
            .enumerate()
            .map(|(n, first)| generator.case(n, plan.length, *first))
            .collect();
        report.extend(differences(&oracle, plan.oracle_cpu, &isa, &cases));
        let ours = run_ours(&isa, Tier::Interpreter, &cases).unwrap_or_default();
        run += ours.len();
        faulted += ours.iter().filter(|o| o.u64(BLOCK_SIGNAL) != 0).count();
        if report.len() >= ENOUGH {
            break;
        }
    }
    assert!(report.is_empty(), "seed {seed}:\n{}", report.join("\n"));
    println!("{run} cases, {faulted} ended by a signal");
    assert!(faulted < run / 2, "most cases do not reach their end");
}

/// A description of each case on which the sides differ.
pub fn differences(oracle: &str, cpu: &str, isa: &Aarch64, cases: &[Case]) -> Vec<String> {
    let theirs = run_oracle(oracle, cpu, cases);
    [Tier::Interpreter, Tier::Reference]
        .into_iter()
        .flat_map(|tier| {
            let ours = run_ours(isa, tier, cases);
            let (theirs, ours) = match (&theirs, &ours) {
                (Ok(theirs), Ok(ours)) => (theirs, ours),
                (Err(error), _) | (_, Err(error)) if cases.len() == 1 => {
                    return vec![format!("{tier:?}: {error}\n{}", listing(isa, &cases[0], 0))];
                }
                // One of the cases ended the program: find it.
                (theirs, ours) => {
                    let found = one_by_one(oracle, cpu, isa, cases);
                    let errors = [theirs.as_ref().err(), ours.as_ref().err()];
                    return if found.is_empty() {
                        vec![format!("{tier:?}: only together the cases fail: {errors:?}")]
                    } else {
                        found
                    };
                }
            };
            (0..cases.len())
                .filter(|n| theirs[*n] != ours[*n])
                .take(ENOUGH)
                .map(|n| {
                    let alone = shrink(oracle, cpu, isa, tier, &cases[n], n);
                    let text =
                        alone.unwrap_or_else(|| explain(isa, &cases[n], n, &theirs[n], &ours[n]));
                    format!("{tier:?}: {text}")
                })
                .collect()
        })
        .collect()
}

fn one_by_one(oracle: &str, cpu: &str, isa: &Aarch64, cases: &[Case]) -> Vec<String> {
    let found = cases.iter().enumerate().flat_map(|(n, case)| {
        let alone = moved(case, n);
        differences(oracle, cpu, isa, &[alone])
    });
    found.take(ENOUGH).collect()
}

/// The case as number 0 of a program: its pointers follow its memory.
fn moved(case: &Case, n: usize) -> Case {
    let shift = super::program::scratch_of(n) - super::program::scratch_of(0);
    let inside = |x: u64| {
        x.wrapping_sub(super::program::scratch_of(n)) < super::program::SCRATCH_SIZE as u64
    };
    let mut case = case.clone();
    for x in case.x.iter_mut().chain([&mut case.sp]) {
        if inside(*x) {
            *x -= shift;
        }
    }
    case
}

/// Replaces instructions by NOP as long as the sides differ; `None` when the case alone does not differ.
fn shrink(
    oracle: &str,
    cpu: &str,
    isa: &Aarch64,
    tier: Tier,
    case: &Case,
    n: usize,
) -> Option<String> {
    let outcome = |case: &Case| {
        let cases = std::slice::from_ref(case);
        let (theirs, ours) =
            (run_oracle(oracle, cpu, cases).ok()?, run_ours(isa, tier, cases).ok()?);
        (theirs[0] != ours[0]).then(|| explain(isa, case, 0, &theirs[0], &ours[0]))
    };
    let mut case = moved(case, n);
    let mut text = outcome(&case)?;
    for i in 0..case.words.len() {
        let mut shorter = case.clone();
        shorter.words[i] = asm::NOP;
        if let Some(t) = outcome(&shorter) {
            (case, text) = (shorter, t);
        }
    }
    Some(text)
}

fn listing(isa: &Aarch64, case: &Case, n: usize) -> String {
    let mut text = format!("case {n}:\n");
    for word in case.words.iter().filter(|w| **w != asm::NOP) {
        let key = TbKey { pc: GuestVa(0), flags: 0 };
        let assembly = isa.disassemble(key, &word.to_le_bytes()).map_or("?".into(), |d| d.0);
        let row = isa.decoder().decode(*word).map_or("undefined", |r| r.name);
        writeln!(text, "  {word:08x}  {assembly:40} {row}").unwrap();
    }
    text
}

/// The case, its registers before, and each difference.
fn explain(isa: &Aarch64, case: &Case, n: usize, theirs: &Outcome, ours: &Outcome) -> String {
    let mut text = listing(isa, case, n);
    let mut line = |name: String, before: u128, offset: u32, wide: bool| {
        let value = |o: &Outcome| {
            o.u64(offset) as u128 | if wide { (o.u64(offset + 8) as u128) << 64 } else { 0 }
        };
        if value(theirs) != value(ours) {
            writeln!(
                text,
                "  {name}: before {before:#x}, oracle {:#x}, ours {:#x}",
                value(theirs),
                value(ours)
            )
            .unwrap();
        }
    };
    for (r, x) in case.x.iter().enumerate() {
        line(format!("x{r}"), *x as u128, 8 * r as u32, false);
    }
    line("sp".into(), case.sp as u128, BLOCK_SP, false);
    line("nzcv".into(), case.nzcv as u128, BLOCK_NZCV, false);
    line("fpcr".into(), case.fpcr as u128, BLOCK_FPCR, false);
    line("fpsr".into(), case.fpsr as u128, BLOCK_FPSR, false);
    line("signal".into(), 0, BLOCK_SIGNAL, false);
    line("fault pc".into(), 0, BLOCK_PC, false);
    for (r, v) in case.v.iter().enumerate() {
        line(format!("v{r}"), *v, BLOCK_V + 16 * r as u32, true);
    }
    let memory = theirs.scratch.iter().zip(&ours.scratch).position(|(a, b)| a != b);
    if let Some(at) = memory {
        writeln!(
            text,
            "  scratch+{at:#x}: before {:02x}, oracle {:02x}, ours {:02x}",
            case.scratch[at], theirs.scratch[at], ours.scratch[at]
        )
        .unwrap();
    }
    write!(text, "  inputs:").unwrap();
    let sequence = case.words.iter().filter(|w| **w != asm::NOP);
    let used: Vec<u32> =
        sequence.flat_map(|w| [w & 31, w >> 5 & 31, w >> 10 & 31, w >> 16 & 31]).collect();
    for (r, x) in case.x.iter().enumerate().filter(|(r, _)| used.contains(&(*r as u32))) {
        write!(text, " x{r}={x:#x}").unwrap();
    }
    for (r, v) in case.v.iter().enumerate().filter(|(r, _)| used.contains(&(*r as u32))) {
        write!(text, " v{r}={v:#034x}").unwrap();
    }
    writeln!(text, " sp={:#x} nzcv={:#x} fpcr={:#x}", case.sp, case.nzcv, case.fpcr).unwrap();
    text
}
