//! Filetests: IR text with expectations, run alike on the interpreter and on every code generator.
//!
//! A file of `ir/filetests` holds cases separated by lines of `===`. A case is a list of directives, then at
//! most one unit, then, for `optimize`, a line `---` and the blocks that the passes should leave.
//!
//! ```text
//! ; run: x0=1 x1=2 -> x2=3 exit 0x1004
//! ; run: x0=0 [0x10000]:u64=5 -> [0x10000]:u64=6 fault read 0x5000 unmapped at 0x1000
//! ; test: optimize                 with `; passes: hot` or `; passes: fold, dead_code`
//! ; test: verify-error "needs i64" one directive for each error
//! ; test: parse-error "expected a value"
//! ; eval: add.i32 -1, 2 -> 1
//! ; eval: fadd.f32 snan, 1.0 -> nan:1 fp=invalid rule=arm,x86
//! ```
//!
//! - `run` states inputs (registers, memory, `round=`, `fp=`), outputs, and how the unit is left: `exit [kind]
//!   PC [ret PC] [flags N]`, `trap NAME [NUMBER] at PC`, or `fault read|write VA CAUSE at PC`. Registers and
//!   memory that are not named keep their value (at the start, junk and each address's low byte): what a
//!   run does not mention must not change. The case runs as it stands and after each set of passes.
//! - `eval` is a run of one operation: operands are literals, written with their type where the table leaves
//!   it open (`zext.i64 i8:0xff`). It runs with operands from registers, and again with constants.
//! - `fp=` names the sticky flags raised (none if absent), joined by `+`; `round=` the mode of the float
//!   environment; `rule=` the float rules of the unit (`arm` if absent). Denormal operands are not reported.
//! - the test machine is in [`env`], literals in [`literal`].

pub mod env;
pub mod literal;
pub mod random;

use crate::layout::{RegLayout, Slot};
use crate::op::{Arg, Op, Res, effect};
use crate::passes::{PassConfig, optimize};
use crate::printer::{Piece, Suffix, pieces, suffix};
use crate::types::*;
use crate::unit::{ExitKind, Unit};
use crate::verifier::{shapes, verify};
use crate::{interp, parser};
use env::{HELPERS, TestEnv, layout, prefix};
use std::collections::HashSet;
use std::path::PathBuf;
use tulk_base::{AccessKind, CpuState, FaultCause, GuestVa, MemFault, MemOp, Trap};

/// How a unit was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Exit {
        pc: u64,
        /// New key flags, if they change.
        flags: Option<u64>,
        /// Kind and return pc, from a runner that knows them.
        hint: Option<(ExitKind, Option<u64>)>,
    },
    /// The pc cell says where.
    Trap(Trap),
}

/// What executes units.
pub trait Runner {
    fn run(&mut self, unit: &Unit, state: &mut CpuState, env: &mut TestEnv) -> Outcome;

    /// True when float operations round as [`TestEnv::round`] says and leave their flags in
    /// [`TestEnv::flags`]; otherwise flags are not compared, and runs in other rounding modes are left out.
    fn has_float_environment(&self) -> bool;
}

/// The interpreter without access to the host's float control: for tests of this crate.
pub struct Interpreter {
    layout: RegLayout,
}

impl Default for Interpreter {
    fn default() -> Self {
        Interpreter { layout: layout() }
    }
}

impl Runner for Interpreter {
    fn run(&mut self, unit: &Unit, state: &mut CpuState, env: &mut TestEnv) -> Outcome {
        let program = interp::Program::new(unit, &self.layout, HELPERS);
        match interp::run(&program, state, HELPERS, env) {
            interp::Outcome::Direct(n) => {
                let exit = program.exit(n as usize);
                let flags = (exit.flags != unit.flags).then_some(exit.flags);
                Outcome::Exit { pc: exit.pc, flags, hint: Some((exit.kind, exit.return_pc())) }
            }
            interp::Outcome::Indirect { kind, pc, ret, flags, .. } => {
                Outcome::Exit { pc, flags, hint: Some((kind, ret)) }
            }
            interp::Outcome::Trap(trap) => Outcome::Trap(trap),
        }
    }
    fn has_float_environment(&self) -> bool {
        false
    }
}

/// What happened over all files.
#[derive(Default, Debug)]
pub struct Report {
    pub failures: Vec<String>,
    /// Operations that some run contains.
    pub ops: HashSet<Op>,
    pub runs: u32,
}

impl Report {
    /// # Panics
    /// With the failures, if there are any.
    #[track_caller]
    pub fn assert_passed(&self) {
        if self.failures.is_empty() {
            return;
        }
        let shown = self.failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n\n");
        panic!("{} failures in {} runs:\n{shown}", self.failures.len(), self.runs);
    }
}

/// The folder of the files.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("filetests")
}

/// Names (relative, sorted) and texts of all files.
///
/// # Panics
/// When the folder cannot be read.
pub fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![directory()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder of filetests") {
            let path = entry.expect("a file of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "ir") {
                let name = path.strip_prefix(directory()).expect("inside").display().to_string();
                files.push((name, std::fs::read_to_string(&path).expect("a readable file")));
            }
        }
    }
    files.sort();
    files
}

/// Runs every `run` and `eval` of all files, plain and after each of `configs`.
pub fn run_all(runner: &mut dyn Runner, configs: &[PassConfig]) -> Report {
    let mut bench = Bench {
        layout: layout(),
        runner,
        configs,
        state: CpuState::new(),
        report: Report::default(),
    };
    for (name, text) in files() {
        for case in cases(&text) {
            bench.case(&name, &case);
        }
    }
    bench.report
}

/// Checks all files without running them: syntax, round trip through the printer, verifier, expected errors,
/// expected results of passes. Returns the failures.
pub fn check_all() -> Vec<String> {
    let mut failures = Vec::new();
    for (name, text) in files() {
        for case in cases(&text) {
            if let Err(message) = check_case(&case) {
                failures.push(format!("{name}:{}: {message}", case.line));
            }
        }
    }
    failures
}

struct Directive<'a> {
    line: u32,
    name: &'a str,
    text: &'a str,
}

struct Case<'a> {
    /// Of the unit, or of the first directive.
    line: u32,
    directives: Vec<Directive<'a>>,
    unit: String,
    optimized: Option<String>,
}

const DIRECTIVES: [&str; 4] = ["run", "eval", "test", "passes"];

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    let empty = |line| Case { line, directives: Vec::new(), unit: String::new(), optimized: None };
    let mut case = empty(1);
    for (i, text) in text.lines().enumerate() {
        let line = i as u32 + 1;
        let directive = text.strip_prefix("; ").and_then(|t| t.split_once(": "));
        match directive {
            _ if text == "===" => cases.push(std::mem::replace(&mut case, empty(line + 1))),
            _ if text == "---" => case.optimized = Some(String::new()),
            Some((name, text)) if DIRECTIVES.contains(&name) => {
                case.directives.push(Directive { line, name, text: text.trim() });
            }
            _ => {
                let section = case.optimized.as_mut().unwrap_or(&mut case.unit);
                if text.starts_with("unit") {
                    case.line = line;
                }
                *section += text;
                *section += "\n";
            }
        }
    }
    cases.push(case);
    cases.iter_mut().for_each(|case| {
        let blank = |l: &str| l.split(';').next().is_none_or(|l| l.trim().is_empty());
        if case.unit.lines().all(blank) {
            case.unit.clear();
        }
    });
    cases
}

/// The quoted part of `verify-error "..."`.
fn quoted<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.strip_prefix(key)?.trim().strip_prefix('"')?.strip_suffix('"')
}

fn check_case(case: &Case) -> Result<(), String> {
    let layout = layout();
    let text = |unit: &Unit| unit.display(&layout).helpers(HELPERS).to_string();
    let tests: Vec<&str> =
        case.directives.iter().filter(|d| d.name == "test").map(|d| d.text).collect();
    if case.unit.is_empty() {
        let needs = case.directives.iter().any(|d| d.name != "eval");
        return if needs { Err("the case has no unit".into()) } else { Ok(()) };
    }
    let parsed = parser::parse(&case.unit, &layout, HELPERS);
    if let Some(expected) = tests.iter().find_map(|t| quoted(t, "parse-error")) {
        return match parsed {
            Err(e) if e.to_string().contains(expected) => Ok(()),
            Err(e) => Err(format!("expected parse error \"{expected}\", got \"{e}\"")),
            Ok(_) => Err(format!("expected parse error \"{expected}\", it parses")),
        };
    }
    let unit = parsed.map_err(|e| e.to_string())?;
    let printed = text(&unit);
    match parser::parse(&printed, &layout, HELPERS) {
        Ok(again) if again == unit => {}
        Ok(again) => return Err(format!("printed\n{printed}reads back as\n{}", text(&again))),
        Err(e) => return Err(format!("{e} in the printed text\n{printed}")),
    }
    let wanted: Vec<&str> = tests.iter().filter_map(|t| quoted(t, "verify-error")).collect();
    let errors = verify(&unit, &layout, HELPERS).err().unwrap_or_default();
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let missing = wanted.iter().filter(|w| !found.iter().any(|f| f.contains(**w)));
    let surplus = found.iter().filter(|f| !wanted.iter().any(|w| f.contains(w)));
    let mut wrong: Vec<String> = missing.map(|m| format!("missing error \"{m}\"")).collect();
    wrong.extend(surplus.map(|s| format!("error: {s}")));
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    if !wanted.is_empty() || !tests.contains(&"optimize") {
        return Ok(());
    }
    let mut config = PassConfig::hot();
    for directive in case.directives.iter().filter(|d| d.name == "passes") {
        config = parse_config(directive.text)?;
    }
    let mut optimized = unit.clone();
    optimize(&mut optimized, &layout, HELPERS, &config);
    let head: String =
        printed.lines().take_while(|l| *l != "block0:").map(|l| l.to_string() + "\n").collect();
    let expected = head + case.optimized.as_deref().ok_or("there is no `---`")?;
    let expected =
        parser::parse(&expected, &layout, HELPERS).map_err(|e| format!("{e} behind `---`"))?;
    if text(&expected) != text(&optimized) {
        return Err(format!("expected\n{}passes leave\n{}", text(&expected), text(&optimized)));
    }
    Ok(())
}

fn parse_config(text: &str) -> Result<PassConfig, String> {
    match text {
        "hot" => return Ok(PassConfig::hot()),
        "cold" => return Ok(PassConfig::cold()),
        _ => {}
    }
    let mut config = PassConfig::none();
    for name in text.split(',') {
        let switch = config.switch(name.trim());
        *switch.ok_or_else(|| format!("there is no pass `{name}`"))? = true;
    }
    Ok(config)
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Slot(Slot),
    Memory(u64, MemOp),
}

/// One execution with its expectations.
struct Run {
    inputs: Vec<(Place, u128)>,
    round: Round,
    flags_before: FpFlags,
    outputs: Vec<(Place, u128)>,
    flags_after: FpFlags,
    outcome: Outcome,
    /// The pc cell after a trap.
    at: Option<u64>,
}

fn number(text: &str) -> Result<u64, String> {
    let n = literal::parse(text, Type::I64, Shape::I8x16)?;
    Ok(n as u64)
}

fn parse_flags(text: &str) -> Result<FpFlags, String> {
    let names = [
        ("none", 0),
        ("invalid", FpFlags::INVALID),
        ("div_zero", FpFlags::DIV_ZERO),
        ("overflow", FpFlags::OVERFLOW),
        ("underflow", FpFlags::UNDERFLOW),
        ("inexact", FpFlags::INEXACT),
    ];
    let mut flags = 0;
    for name in text.split('+') {
        let known = names.iter().find(|n| n.0 == name);
        flags |= known.ok_or_else(|| format!("there is no float flag `{name}`"))?.1;
    }
    Ok(FpFlags(flags))
}

fn parse_round(text: &str) -> Result<Round, String> {
    let mode = Round::parse(text).filter(|r| !matches!(r, Round::Away | Round::Current));
    mode.ok_or_else(|| format!("`{text}` is no rounding mode of the environment"))
}

impl Run {
    fn leaving(outcome: Outcome) -> Run {
        Run {
            inputs: Vec::new(),
            round: Round::Nearest,
            flags_before: FpFlags(0),
            outputs: Vec::new(),
            flags_after: FpFlags(0),
            outcome,
            at: None,
        }
    }

    fn parse(text: &str, layout: &RegLayout) -> Result<Run, String> {
        let (left, right) = text.split_once("->").ok_or("expected `->`")?;
        let mut run = Run::leaving(Outcome::Exit { pc: 0, flags: None, hint: None });
        for token in literal::split(left, char::is_whitespace) {
            match token.split_once('=').ok_or_else(|| format!("`{token}` is no input"))? {
                ("round", mode) => run.round = parse_round(mode)?,
                ("fp", flags) => run.flags_before = parse_flags(flags)?,
                (place, value) => run.inputs.push(assignment(place, value, layout)?),
            }
        }
        run.flags_after = run.flags_before;
        let right = literal::split(right, char::is_whitespace);
        let outputs = right.iter().take_while(|t| t.contains('=')).count();
        for token in &right[..outputs] {
            match token.split_once('=').expect("counted above") {
                ("fp", flags) => run.flags_after = parse_flags(flags)?,
                (place, value) => run.outputs.push(assignment(place, value, layout)?),
            }
        }
        run.parse_outcome(&right[outputs..])?;
        Ok(run)
    }

    fn parse_outcome(&mut self, words: &[&str]) -> Result<(), String> {
        let bad = || format!("`{}` is no way to leave a unit", words.join(" "));
        let (words, at) = match words {
            [front @ .., "at", pc] => (front, Some(number(pc)?)),
            _ => (words, None),
        };
        self.at = at;
        match words {
            ["exit", rest @ ..] => {
                let (kind, rest) = match rest {
                    [kind, rest @ ..] if ExitKind::parse(kind).is_some() => {
                        (ExitKind::parse(kind).expect("just parsed"), rest)
                    }
                    _ => (ExitKind::Jump, rest),
                };
                let (pc, mut rest) = rest.split_first().ok_or_else(bad)?;
                let (mut ret, mut flags) = (None, None);
                while let [key, value, more @ ..] = rest {
                    match *key {
                        "ret" => ret = Some(number(value)?),
                        "flags" => flags = Some(number(value)?),
                        _ => return Err(bad()),
                    }
                    rest = more;
                }
                let hint = Some((kind, ret));
                self.outcome = Outcome::Exit { pc: number(pc)?, flags, hint };
            }
            ["trap", kind, rest @ ..] if rest.len() < 2 && at.is_some() => {
                let n = rest.first().map_or(Ok(0), |n| number(n))?;
                let trap = ExitKind::parse(kind).and_then(|k| k.trap(n as u32));
                self.outcome = Outcome::Trap(trap.ok_or_else(bad)?);
            }
            ["fault", kind, va, cause] if at.is_some() => {
                let kind = match *kind {
                    "read" => AccessKind::Read,
                    "write" => AccessKind::Write,
                    _ => return Err(bad()),
                };
                let cause = match *cause {
                    "unmapped" => FaultCause::Unmapped,
                    "protection" => FaultCause::Protection,
                    "align" => FaultCause::Align,
                    _ => return Err(bad()),
                };
                let va = GuestVa(number(va)?);
                self.outcome = Outcome::Trap(Trap::Mem(MemFault { va, kind, cause }));
            }
            _ => return Err(bad()),
        }
        Ok(())
    }
}

/// `x0=5` or `[0x10000]:u32=5`.
fn assignment(place: &str, value: &str, layout: &RegLayout) -> Result<(Place, u128), String> {
    if let Some((va, op)) = place.strip_prefix('[').and_then(|p| p.split_once("]:")) {
        let op = parser::parse_memop(op).ok_or_else(|| format!("`{op}` is no memory operation"))?;
        let ty = Type::int_of_log2(op.log2());
        return Ok((Place::Memory(number(va)?, op), literal::parse(value, ty, Shape::I8x16)?));
    }
    let slot = layout.by_name(place).ok_or_else(|| format!("there is no register `{place}`"))?;
    Ok((Place::Slot(slot), literal::parse(value, layout.def(slot).ty, Shape::I8x16)?))
}

fn low_bits(value: u128, ty: Type) -> u128 {
    value & (u128::MAX >> (128 - ty.bits()))
}

pub(crate) fn read_slot(state: &CpuState, layout: &RegLayout, slot: Slot) -> u128 {
    let def = layout.def(slot);
    let value = match def.ty.cells() {
        2 => state.get128(def.cell),
        _ => state.get(def.cell) as u128,
    };
    low_bits(value, def.ty)
}

/// Writes the slot, with junk in the unused bits of its cell.
pub(crate) fn write_slot(state: &mut CpuState, layout: &RegLayout, slot: Slot, value: u128) {
    let def = layout.def(slot);
    match def.ty.cells() {
        2 => state.set128(def.cell, value),
        _ => {
            let junk = 0xa5a5_5a5a_c3c3_3c3cu64 as u128;
            let used = low_bits(u128::MAX, def.ty);
            state.set(def.cell, (value & used | junk & !used) as u64);
        }
    }
}

struct Bench<'a> {
    layout: RegLayout,
    runner: &'a mut dyn Runner,
    configs: &'a [PassConfig],
    state: Box<CpuState>,
    report: Report,
}

impl Bench<'_> {
    fn case(&mut self, file: &str, case: &Case) {
        for directive in &case.directives {
            let result = match directive.name {
                "eval" => self.eval(directive.text),
                "run" => self.run_case(&case.unit, directive.text),
                _ => Ok(()),
            };
            if let Err(message) = result {
                let Directive { line, text, .. } = directive;
                self.report.failures.push(format!("{file}:{line}: {text}\n{message}"));
            }
        }
    }

    fn run_case(&mut self, unit: &str, run: &str) -> Result<(), String> {
        let unit = parser::parse(unit, &self.layout, HELPERS).map_err(|e| e.to_string())?;
        self.run(&unit, &Run::parse(run, &self.layout)?)
    }

    /// Runs a unit as it stands and after the passes.
    fn run(&mut self, unit: &Unit, run: &Run) -> Result<(), String> {
        if run.round != Round::Nearest && !self.runner.has_float_environment() {
            return Ok(());
        }
        self.report.ops.extend(unit.insts.iter().map(|inst| inst.op));
        let plain = [PassConfig::none()];
        for config in plain.iter().chain(self.configs) {
            let mut unit = unit.clone();
            optimize(&mut unit, &self.layout, HELPERS, config);
            let text = unit.display(&self.layout).helpers(HELPERS).to_string();
            if let Err(errors) = verify(&unit, &self.layout, HELPERS) {
                return Err(format!("{} after {config:?}\n{}", errors[0], text));
            }
            self.report.runs += 1;
            let wrong = self.execute(&unit, run);
            if !wrong.is_empty() {
                return Err(format!("{}\n{config:?}\n{}", wrong.join("\n"), text));
            }
        }
        Ok(())
    }

    /// Differences between expectation and outcome.
    fn execute(&mut self, unit: &Unit, run: &Run) -> Vec<String> {
        let Bench { layout, state, .. } = self;
        let mut env = TestEnv { round: run.round, flags: run.flags_before, ..TestEnv::new() };
        let mut expected_env = env.clone();
        let junk = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835u128;
        let mut expected: Vec<u128> = (layout.slots().iter().zip(0..))
            .map(|(slot, n)| low_bits(junk.wrapping_mul(2 * n + 1), slot.ty))
            .collect();
        let apply = |places: &[(Place, u128)], slots: &mut [u128], env: &mut TestEnv| {
            for &(place, value) in places {
                match place {
                    Place::Slot(slot) => slots[slot.0 as usize] = value,
                    Place::Memory(va, op) => env.prepare(va, op, value),
                }
            }
        };
        apply(&run.inputs, &mut expected, &mut env);
        for (n, &value) in expected.iter().enumerate() {
            write_slot(state, layout, Slot(n as u16), value);
        }
        state.set_pc(unit.pc);
        apply(&run.inputs, &mut expected, &mut expected_env);
        apply(&run.outputs, &mut expected, &mut expected_env);

        let outcome = self.runner.run(unit, state, &mut env);

        let mut wrong = Vec::new();
        for (n, &expected) in expected.iter().enumerate() {
            let found = read_slot(state, layout, Slot(n as u16));
            if found != expected {
                let name = &layout.slots()[n].name;
                wrong.push(format!("{name} is {found:#x}, expected {expected:#x}"));
            }
        }
        for (found, expected) in env.regions.iter().zip(&expected_env.regions) {
            if found == expected {
                continue;
            }
            let differs = found.data.iter().zip(&expected.data).position(|(f, e)| f != e);
            if let Some(at) = differs {
                wrong.push(format!(
                    "the byte at {:#x} is {:#x}, expected {:#x}",
                    found.start + at as u64,
                    found.data[at],
                    expected.data[at]
                ));
            }
        }
        let same = match (outcome, run.outcome) {
            (
                Outcome::Exit { pc, flags, hint: None },
                Outcome::Exit { pc: expected_pc, flags: expected_flags, .. },
            ) => pc == expected_pc && flags == expected_flags,
            (found, expected) => found == expected,
        };
        if !same {
            wrong.push(format!("left by {outcome:x?}, expected {:x?}", run.outcome));
        }
        if let Some(pc) = run.at
            && state.pc() != pc
        {
            wrong.push(format!("pc is {:#x}, expected {pc:#x}", state.pc()));
        }
        let seen = |flags: FpFlags| flags.0 & !FpFlags::DENORMAL;
        if self.runner.has_float_environment() && seen(env.flags) != seen(run.flags_after) {
            wrong.push(format!("float flags {:?}, expected {:?}", env.flags, run.flags_after));
        }
        wrong
    }

    /// `op operands -> result [fp=...] [round=...] [rule=...]`.
    fn eval(&mut self, text: &str) -> Result<(), String> {
        let (call, tail) = text.split_once("->").ok_or("expected `->`")?;
        let tail = literal::split(tail, char::is_whitespace);
        let (&result, options) = tail.split_first().ok_or("expected a result")?;
        let exit = Outcome::Exit { pc: 0x1004, flags: None, hint: Some((ExitKind::Jump, None)) };
        let mut run = Run::leaving(exit);
        let mut rules = vec![FpRule::Arm];
        for option in options {
            match option.split_once('=') {
                Some(("fp", flags)) => run.flags_after = parse_flags(flags)?,
                Some(("round", mode)) => run.round = parse_round(mode)?,
                Some(("rule", "all")) => rules = FpRule::ALL.to_vec(),
                Some(("rule", names)) => {
                    let parsed = names.split(',').map(FpRule::parse).collect::<Option<_>>();
                    rules = parsed.ok_or_else(|| format!("`{names}` are no float rules"))?;
                }
                _ => return Err(format!("`{option}` is no option")),
            }
        }
        let eval = Eval::parse(call)?;
        let result_bits = literal::parse(result, eval.result, eval.shape)?;
        let result_slot = self.register(eval.result, 3);
        run.outputs = vec![(Place::Slot(result_slot), result_bits)];
        run.inputs = eval
            .operands
            .iter()
            .enumerate()
            .map(|(n, &(ty, bits))| (Place::Slot(self.register(ty, n)), bits))
            .collect();
        for rule in rules {
            for constants in [false, true] {
                let text = eval.unit(rule, constants);
                let unit = parser::parse(&text, &self.layout, HELPERS)
                    .map_err(|e| format!("{e} in\n{text}"))?;
                self.run(&unit, &run)?;
            }
        }
        Ok(())
    }

    fn register(&self, ty: Type, n: usize) -> Slot {
        self.layout.by_name(&format!("{}{n}", prefix(ty))).expect("a register of each type")
    }
}

/// One operation with literal operands.
struct Eval {
    /// `add.i32`, with aux.
    head: String,
    /// The pieces of the operation, operands as `v0`, `v1`, `v2`.
    tail: String,
    operands: Vec<(Type, u128)>,
    result: Type,
    shape: Shape,
}

impl Eval {
    fn parse(text: &str) -> Result<Eval, String> {
        let (op_text, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let (name, form) = match op_text.split_once('.') {
            Some((name, form)) => (name, Some(form)),
            None => (op_text, None),
        };
        let op = Op::parse(name).ok_or_else(|| format!("there is no operation `{name}`"))?;
        let info = op.info();
        if info.effects & !effect::FLAGS != 0 {
            return Err(format!("`{name}` needs a unit and `run`"));
        }
        let mut shape = Shape::I8x16;
        let mut ty = Type::V128;
        match suffix(info) {
            Suffix::Nothing => {}
            Suffix::Type => {
                ty = form.and_then(Type::parse).ok_or("expected a type behind the operation")?;
            }
            Suffix::Shape => {
                shape =
                    form.and_then(Shape::parse).ok_or("expected a shape behind the operation")?;
                if !shapes(op).contains(&shape) {
                    return Err(format!("`{name}` has no shape {shape}"));
                }
                if op == Op::Vlane {
                    ty = shape.lane_type();
                }
            }
        }
        match op {
            Op::Fpromote => ty = Type::F64,
            Op::Fdemote => ty = Type::F32,
            _ => {}
        }
        let mut head = op_text.to_string();
        if info.aux != crate::op::Aux::None {
            let (aux, behind) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
            head += &format!(" {aux}");
            rest = behind;
        }
        let mut parts = literal::split(rest, |c| c == ',').into_iter();
        let mut operands = Vec::new();
        let mut tail = Vec::new();
        for &piece in pieces(info.imm) {
            let taken = operands.len();
            match piece {
                Piece::Operands => {
                    for &arg in &info.args[taken..] {
                        let part = parts.next().ok_or("operands are missing")?;
                        operands.push(operand(op, arg, part, ty, shape)?);
                        tail.push(format!("v{}", operands.len() - 1));
                    }
                }
                Piece::Indexed => {
                    let part = parts.next().ok_or("operands are missing")?;
                    let at = part.rfind('[').ok_or("expected a lane number")?;
                    operands.push(operand(op, info.args[0], &part[..at], ty, shape)?);
                    tail.push(format!("v0{}", &part[at..]));
                }
                _ => tail.push(parts.next().ok_or("an immediate is missing")?.to_string()),
            }
        }
        if let Some(surplus) = parts.next() {
            return Err(format!("`{surplus}` is one operand too many"));
        }
        let result = match info.result {
            Res::Own => ty,
            Res::Bool => Type::I8,
            Res::I32 => Type::I32,
            Res::I64 => Type::I64,
            Res::I128 => Type::I128,
            Res::V128 => Type::V128,
            Res::None | Res::Helper => return Err(format!("`{name}` has no result")),
        };
        Ok(Eval { head, tail: tail.join(", "), operands, result, shape })
    }

    /// A unit that computes it from registers, or from constants, into register 3 of the result's type.
    fn unit(&self, rule: FpRule, constants: bool) -> String {
        let mut text = format!("unit 0x1000 len 4 insns 1 fp {rule}\nblock0:\ninsn 0x1000, 4\n");
        for (n, &(ty, bits)) in self.operands.iter().enumerate() {
            let name = format!("v{n}");
            // Numbers from 10 on are free for the parts of constants.
            let part = format!("v{}", 10 + 2 * n);
            let high = format!("v{}", 11 + 2 * n);
            text += &match ty {
                _ if !constants => format!("{name} = get {}{n}\n", prefix(ty)),
                Type::V128 => format!("{name} = vconst {bits:#x}\n"),
                Type::F32 | Type::F64 => {
                    let int = if ty == Type::F32 { "i32" } else { "i64" };
                    format!("{part} = iconst.{int} {bits:#x}\n{name} = bitcast.{ty} {part}\n")
                }
                Type::I128 => format!(
                    "{part} = iconst.i64 {:#x}\n{high} = iconst.i64 {:#x}\n{name} = concat {part}, {high}\n",
                    bits as u64,
                    (bits >> 64) as u64
                ),
                _ => format!("{name} = iconst.{ty} {bits:#x}\n"),
            };
        }
        let Eval { head, tail, result, .. } = self;
        text + &format!("v9 = {head} {tail}\nset {}3, v9\nexit jump 0x1004\n", prefix(*result))
    }
}

/// Type and bits of an operand, whose type the table or the text states.
fn operand(op: Op, arg: Arg, text: &str, own: Type, shape: Shape) -> Result<(Type, u128), String> {
    let ty = match arg {
        Arg::Own => own,
        Arg::Bool => Type::I8,
        Arg::I32 => Type::I32,
        Arg::I64 => Type::I64,
        Arg::I128 => Type::I128,
        Arg::V128 => Type::V128,
        Arg::Lane => shape.lane_type(),
        Arg::Float if op == Op::Fpromote => Type::F32,
        Arg::Float if op == Op::Fdemote => Type::F64,
        _ => {
            let (ty, text) = text
                .split_once(':')
                .ok_or_else(|| format!("`{text}` needs its type: `i32:{text}`"))?;
            let ty = Type::parse(ty).ok_or_else(|| format!("there is no type `{ty}`"))?;
            return Ok((ty, literal::parse(text, ty, shape)?));
        }
    };
    Ok((ty, literal::parse(text, ty, shape)?))
}
