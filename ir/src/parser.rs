//! Reads the text that [`crate::printer`] writes; the exact inverse for every unit whose values and pool are
//! numbered in order of first use, as [`crate::Builder`] and [`crate::passes`] leave them.
//!
//! Text written by hand may number values and blocks as it likes: they are renumbered in the order in which
//! they are defined. `;` starts a comment. The parser checks the text, not the sense: run the verifier next.

use crate::helper::HelperDef;
use crate::layout::{RegLayout, Slot};
use crate::op::{Arg, Aux, Class, Op, Res};
use crate::printer::{Piece, Suffix, aux_flag_name, aux_names, pieces, suffix};
use crate::types::*;
use crate::unit::{Inst, Unit, Value};
use std::collections::HashMap;
use tulk_base::{MemAlign, MemOp, MemOrder};

/// What is wrong, and in which line (from 1).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    pub line: u32,
    pub message: String,
}

type Parsed<T> = Result<T, ParseError>;

/// The unit that `text` describes.
pub fn parse(text: &str, layout: &RegLayout, helpers: &[HelperDef]) -> Parsed<Unit> {
    let mut parser = Parser {
        layout,
        helpers,
        unit: Unit::new(0, 0, FpRule::Arm),
        values: HashMap::new(),
        blocks: HashMap::new(),
    };
    parser.declare(text)?;
    let mut lines = lines(text);
    match lines.next() {
        Some(mut first) => parser.header(&mut first)?,
        None => return Err(ParseError { line: 1, message: "expected `unit`".into() }),
    }
    for mut line in lines {
        parser.line(&mut line)?;
    }
    Ok(parser.unit)
}

/// Lines with content, comments removed.
fn lines(text: &str) -> impl Iterator<Item = Cursor<'_>> {
    text.lines().enumerate().filter_map(|(i, line)| {
        let rest = line.split(';').next().unwrap_or_default().trim();
        (!rest.is_empty()).then_some(Cursor { rest, line: i as u32 + 1 })
    })
}

/// The unread rest of one line.
#[derive(Clone)]
struct Cursor<'a> {
    rest: &'a str,
    line: u32,
}

impl<'a> Cursor<'a> {
    fn error<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError { line: self.line, message: message.into() })
    }
    /// The error that `what` should stand here.
    fn expected<T>(&self, what: &str) -> Parsed<T> {
        let found = match self.rest.split_whitespace().next() {
            Some(word) => format!("`{word}`"),
            None => "the end of the line".into(),
        };
        self.error(format!("expected {what}, found {found}"))
    }
    fn at_end(&self) -> bool {
        self.rest.is_empty()
    }
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest[bytes..].trim_start();
    }
    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.skip(text.len());
        }
        found
    }
    fn expect(&mut self, text: &str) -> Parsed<()> {
        if self.eat(text) { Ok(()) } else { self.expected(&format!("`{text}`")) }
    }
    /// A run of letters, digits and `_`, and of `also`; empty if there is none.
    fn word_with(&mut self, also: &str) -> &'a str {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || also.contains(c);
        let end = self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        self.skip(end);
        word
    }
    fn word(&mut self) -> &'a str {
        self.word_with("")
    }
    /// `prefix` followed by a decimal number, as in `block3`.
    fn numbered(&mut self, prefix: &str, what: &str) -> Parsed<u32> {
        let before = self.clone();
        match self.word().strip_prefix(prefix).and_then(|n| n.parse().ok()) {
            Some(n) => Ok(n),
            None => before.expected(what),
        }
    }
    fn unsigned(&mut self, what: &str) -> Parsed<u128> {
        let before = self.clone();
        let word = self.word();
        let number = match word.strip_prefix("0x") {
            Some(hex) => u128::from_str_radix(&hex.replace('_', ""), 16).ok(),
            None => word.parse().ok(),
        };
        number.map_or_else(|| before.expected(what), Ok)
    }
    fn u64(&mut self, what: &str) -> Parsed<u64> {
        let before = self.clone();
        u64::try_from(self.unsigned(what)?).or_else(|_| before.expected(what))
    }
    fn u32(&mut self, what: &str) -> Parsed<u32> {
        let before = self.clone();
        u32::try_from(self.unsigned(what)?).or_else(|_| before.expected(what))
    }
    /// A number of 64 bits, signed or unsigned.
    fn i64(&mut self) -> Parsed<i64> {
        let negative = self.eat("-");
        let n = self.u64("a number of 64 bits")? as i64;
        Ok(if negative { n.wrapping_neg() } else { n })
    }
    fn name<T>(&mut self, what: &str, parse: impl Fn(&str) -> Option<T>) -> Parsed<T> {
        let before = self.clone();
        parse(self.word()).map_or_else(|| before.expected(what), Ok)
    }
}

/// Inverse of the memop's `Display`.
pub(crate) fn parse_memop(text: &str) -> Option<MemOp> {
    let mut parts = text.split('.');
    let size = parts.next()?;
    let bits = size.get(1..)?;
    let log2 = ["8", "16", "32", "64", "128"].iter().position(|&b| b == bits)?;
    let mut op = MemOp::of_log2(log2 as u8);
    match &size[..1] {
        "u" => {}
        "s" => op = op.with_sign(),
        _ => return None,
    }
    for part in parts {
        op = match part {
            "be" => op.with_big_endian(),
            "nat" => op.with_align(MemAlign::Natural),
            "a16" => op.with_align(MemAlign::Sixteen),
            "acq" => op.with_order(MemOrder::Acquire),
            "rel" => op.with_order(MemOrder::Release),
            "sc" => op.with_order(MemOrder::SeqCst),
            _ => {
                let index = part.strip_prefix("mmu")?.parse().ok()?;
                (index < 16).then(|| op.with_mmu(index))?
            }
        };
    }
    Some(op)
}

struct Parser<'a> {
    layout: &'a RegLayout,
    helpers: &'a [HelperDef],
    unit: Unit,
    /// Number in the text to value.
    values: HashMap<u32, Value>,
    blocks: HashMap<u32, u32>,
}

impl Parser<'_> {
    /// Finds what the text defines, so that a use may stand before the definition (for the verifier to judge).
    fn declare(&mut self, text: &str) -> Parsed<()> {
        for line in lines(text) {
            let mut c = line.clone();
            if let Ok(n) = c.numbered("v", "a value")
                && c.eat("=")
            {
                let value = Value(self.values.len() as u16);
                if value.is_none() {
                    return line.error("unit has too many values");
                }
                if self.values.insert(n, value).is_some() {
                    return line.error(format!("v{n} is defined twice"));
                }
            }
            let mut c = line.clone();
            if let Ok(n) = c.numbered("block", "a block")
                && c.eat(":")
                && self.blocks.insert(n, self.blocks.len() as u32).is_some()
            {
                return line.error(format!("block{n} is defined twice"));
            }
        }
        self.unit.values = vec![Type::I64; self.values.len()];
        Ok(())
    }

    /// `unit 0x1000 len 8 insns 2 flags 0x0 fp arm`; all but the pc may be left out.
    fn header(&mut self, c: &mut Cursor) -> Parsed<()> {
        c.expect("unit")?;
        self.unit.pc = c.u64("the unit's pc")?;
        while !c.at_end() {
            let before = c.clone();
            match c.word() {
                "len" => self.unit.len = c.u32("a length in bytes")?,
                "insns" => self.unit.guest_insns = c.u32("a number of instructions")?,
                "flags" => self.unit.flags = c.u64("key flags")?,
                "fp" => self.unit.fp = c.name("a float rule", FpRule::parse)?,
                _ => return before.expected("`len`, `insns`, `flags` or `fp`"),
            }
        }
        Ok(())
    }

    fn line(&mut self, c: &mut Cursor) -> Parsed<()> {
        let mut label = c.clone();
        if label.numbered("block", "a block").is_ok() && label.eat(":") {
            self.unit.blocks.push(self.unit.insts.len() as u32);
            return if label.at_end() { Ok(()) } else { label.expected("the end of the line") };
        }
        if self.unit.blocks.is_empty() {
            if !c.rest.starts_with("local") {
                return c.expected("`localN: type` or `block0:`");
            }
            let n = c.numbered("local", "a local")?;
            if n as usize != self.unit.locals.len() {
                return c.error(format!("expected local{} next", self.unit.locals.len()));
            }
            c.expect(":")?;
            let ty = c.name("a type", Type::parse)?;
            self.unit.locals.push(ty);
        } else {
            let inst = self.inst(c)?;
            self.unit.insts.push(inst);
        }
        if c.at_end() { Ok(()) } else { c.expected("the end of the line") }
    }

    fn inst(&mut self, c: &mut Cursor) -> Parsed<Inst> {
        let mut start = c.clone();
        let dst = match start.numbered("v", "a value") {
            Ok(n) if start.eat("=") => {
                *c = start;
                self.values[&n]
            }
            _ => Value::NONE,
        };
        let op = c.name("an operation", Op::parse)?;
        let info = op.info();
        let mut inst = Inst { dst, ..Inst::new(op, Type::I64) };
        match suffix(info) {
            Suffix::Nothing if info.class == Class::V128 => inst.ty = Type::V128,
            Suffix::Nothing => {}
            Suffix::Type => {
                c.expect(".")?;
                inst.ty = c.name("a type", Type::parse)?;
            }
            Suffix::Shape => {
                c.expect(".")?;
                inst.shape = c.name("a lane shape", Shape::parse)?;
                inst.ty = match info.class {
                    Class::V128 => Type::V128,
                    Class::Unused => Type::I64,
                    _ => inst.shape.lane_type(),
                };
            }
        }
        match op {
            Op::Fpromote => inst.ty = Type::F64,
            Op::Fdemote => inst.ty = Type::F32,
            _ => {}
        }
        inst.aux = self.aux(c, info.aux)?;
        let (mut next, mut first) = (0, true);
        for &piece in pieces(info.imm) {
            if piece == Piece::Operands {
                self.operands(c, &mut inst, next, &mut first)?;
                continue;
            }
            if !std::mem::take(&mut first) {
                c.expect(",")?;
            }
            self.piece(c, piece, &mut inst, &mut next)?;
        }
        if !dst.is_none() {
            let ty = match info.result {
                Res::None => return c.error(format!("`{}` has no result", info.name)),
                Res::Own => inst.ty,
                Res::Bool => Type::I8,
                Res::I32 => Type::I32,
                Res::I64 => Type::I64,
                Res::I128 => Type::I128,
                Res::V128 => Type::V128,
                Res::Helper => inst.ty,
            };
            self.unit.values[dst.0 as usize] = ty;
        } else if !matches!(info.result, Res::None | Res::Helper) {
            return c.error(format!("`{}` has a result: write `vN = {}...`", info.name, info.name));
        }
        Ok(inst)
    }

    fn aux(&self, c: &mut Cursor, kind: Aux) -> Parsed<u8> {
        if kind == Aux::None {
            return Ok(0);
        }
        let before = c.clone();
        let word = c.word_with(".");
        if kind == Aux::Signalling && word == "sig" {
            return Ok(0x80);
        }
        if kind == Aux::Overwriting {
            let marked = word == "overwriting";
            if !marked {
                *c = before;
            }
            return Ok((marked as u8) << 7);
        }
        let (name, flag) = match word.split_once('.') {
            Some((name, flag)) => (name, Some(flag)),
            None => (word, None),
        };
        let names = aux_names(kind);
        let number = names.iter().position(|&n| n == name);
        let flagged = flag.is_none() || flag == aux_flag_name(kind);
        match number {
            Some(n) if flagged => Ok(n as u8 | (flag.is_some() as u8) << 7),
            _ => before.expected(&format!("one of {}", names.join(", "))),
        }
    }

    /// The operands from number `next` on, a comma before each unless it comes first in the line.
    fn operands(
        &self,
        c: &mut Cursor,
        inst: &mut Inst,
        next: usize,
        first: &mut bool,
    ) -> Parsed<()> {
        let kinds = inst.op.info().args;
        for (i, &kind) in kinds.iter().enumerate().skip(next) {
            let optional = kind == Arg::OptI64;
            if optional && c.at_end() {
                return Ok(());
            }
            if !std::mem::take(first) {
                c.expect(",")?;
            }
            if !(optional && c.eat("-")) {
                inst.args[i] = self.value(c)?;
            }
        }
        Ok(())
    }

    fn value(&self, c: &mut Cursor) -> Parsed<Value> {
        let before = c.clone();
        let n = c.numbered("v", "a value")?;
        match self.values.get(&n) {
            Some(&value) => Ok(value),
            None => before.error(format!("v{n} is not defined")),
        }
    }

    fn block(&self, c: &mut Cursor) -> Parsed<u32> {
        let before = c.clone();
        let n = c.numbered("block", "a block")?;
        match self.blocks.get(&n) {
            Some(&block) => Ok(block),
            None => before.error(format!("block{n} is not defined")),
        }
    }

    fn slot(&self, c: &mut Cursor) -> Parsed<(Slot, Type)> {
        let before = c.clone();
        let name = c.word_with(".$");
        if let Some(slot) = self.layout.by_name(name) {
            return Ok((slot, self.layout.def(slot).ty));
        }
        let number = |prefix| name.strip_prefix(prefix).and_then(|n| n.parse::<u16>().ok());
        if let Some(n) = number("local").filter(|&n| n < Slot::FIRST_LOCAL) {
            let ty = self.unit.locals.get(n as usize).copied();
            return Ok((Slot::local(n), ty.unwrap_or(Type::I64)));
        }
        if let Some(n) = number("slot").filter(|&n| n < Slot::FIRST_LOCAL) {
            let ty = self.layout.slots().get(n as usize).map(|s| s.ty);
            return Ok((Slot(n), ty.unwrap_or(Type::I64)));
        }
        before.expected("a register or local")
    }

    fn piece(
        &mut self,
        c: &mut Cursor,
        piece: Piece,
        inst: &mut Inst,
        next: &mut usize,
    ) -> Parsed<()> {
        match piece {
            Piece::Operands => unreachable!("read by `operands`"),
            Piece::Address | Piece::PlainAddress => {
                inst.args[0] = self.value(c)?;
                *next = 1;
                if piece == Piece::Address && (c.rest.starts_with('+') || c.rest.starts_with('-')) {
                    c.eat("+");
                    inst.imm = c.i64()?;
                }
                let before = c.clone();
                match parse_memop(c.word_with(".")) {
                    Some(op) => inst.imm2 = op.0 as u32,
                    None => return before.expected("a memory operation such as `u32.acq`"),
                }
            }
            Piece::Indexed => {
                inst.args[0] = self.value(c)?;
                *next = 1;
                c.expect("[")?;
                inst.imm2 = c.u32("a lane number")?;
                c.expect("]")?;
            }
            Piece::Callee => {
                let before = c.clone();
                let name = c.word_with(".");
                let by_number = || name.strip_prefix("helper").and_then(|n| n.parse().ok());
                let by_name = self.helpers.iter().position(|h| h.name == name);
                match by_name.map(|n| n as u32).or_else(by_number) {
                    Some(n) => inst.imm2 = n,
                    None => return before.expected("a helper"),
                }
                let helper = self.helpers.get(inst.imm2 as usize);
                inst.ty = helper.and_then(|h| h.ret).unwrap_or(Type::I64);
                c.expect("(")?;
                while !c.eat(")") {
                    if *next == 3 {
                        return c.expected("at most three operands and `)`");
                    }
                    if *next > 0 {
                        c.expect(",")?;
                    }
                    inst.args[*next] = self.value(c)?;
                    *next += 1;
                }
            }
            Piece::Number => inst.imm = c.i64()?,
            Piece::Pc => inst.imm = c.u64("a pc")? as i64,
            Piece::Constant => {
                let constant = c.unsigned("a constant of 128 bits")?;
                let pool = &mut self.unit.pool;
                let found = pool.iter().position(|&known| known == constant);
                inst.imm = found.unwrap_or_else(|| {
                    pool.push(constant);
                    pool.len() - 1
                }) as i64;
            }
            Piece::Small => inst.imm2 = c.u32("a number")?,
            Piece::Slot => {
                let (slot, ty) = self.slot(c)?;
                inst.imm2 = slot.0 as u32;
                inst.ty = ty;
            }
            Piece::Field => {
                let before = c.clone();
                let lsb = c.u32("a field such as 4..12")?;
                c.expect("..")?;
                let end = c.u32("the end of the field")?;
                let width = end.wrapping_sub(lsb);
                if lsb > 0xff || width > 0xff {
                    return before.expected("a field such as 4..12");
                }
                inst.imm2 = lsb | width << 8;
            }
            Piece::Block => inst.imm2 = self.block(c)?,
            Piece::ElseBlock => inst.imm = self.block(c)? as i64,
        }
        Ok(())
    }
}
