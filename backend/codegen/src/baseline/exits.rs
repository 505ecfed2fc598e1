//! Entry and exits: the poll, the counters, chained exits, the return ring, the jump cache, traps. What `lower/exits.rs`
//! is to regions.

use super::asm::*;
use super::{Emitter, engine};
use crate::abi::{JUMP_HASH_PARTS, RING_ENTRIES, Reason, word};
use crate::{Edge, EdgeKind};
use tulk_base::state::{CELL_PC, OFFSET_CELLS, OFFSET_ENGINE, OFFSET_EXIT_REQUEST};
use tulk_ir::ExitKind;
use tulk_ir::interp::ExitInfo;
use tulk_ir::interp::code::{self, Step};

const RING: i32 = OFFSET_ENGINE + 8 * word::RING as i32;
const RING_STEP: i32 = 32;
const RING_MASK: i32 = RING_ENTRIES as i32 * RING_STEP - 1;
// Fields of `abi::JumpEntry`.
const ENTRY_PC: i32 = 0;
const ENTRY_FLAGS: i32 = 8;
const ENTRY_CODE: i32 = 16;

/// What is still to be emitted, and the edges.
#[derive(Default)]
pub struct Exits {
    pub edges: Vec<Edge>,
    /// For each edge its jump's displacement, if it has one.
    pub jumps: Vec<Option<Patch>>,
    /// See [`crate::Region::derived`].
    pub derived: Option<u8>,
    /// To the way out of a block that is not entered.
    entry: Vec<Patch>,
    page: Vec<Patch>,
    /// Computed pcs (in `rax`) that are not known; the key flags, if not the unit's, in `rsi`.
    unknown: Vec<(bool, Patch)>,
    /// Misaligned accesses, the guest address in `rax`: pc and whether it is a write.
    pub misaligned: Vec<(u64, bool, Patch)>,
}

impl Exits {
    pub fn clear(&mut self) {
        self.edges.clear();
        self.jumps.clear();
        self.derived = None;
        self.entry.clear();
        self.page.clear();
        self.unknown.clear();
        self.misaligned.clear();
    }
}

/// Key flags with which an indirect exit leaves.
#[derive(Clone, Copy)]
enum Key {
    Own,
    /// In `rsi`.
    Rsi,
}

/// Leaves to a computed pc.
fn is_computed(step: &Step) -> bool {
    matches!(step.code, code::INDIRECT | code::INDIRECT_RET | code::INDIRECT_FULL)
}

/// Leaves either way.
fn is_fork(step: &Step) -> bool {
    let plain = code::branch_icmp(0, 0, false);
    let fused = (plain..code::plain_load(0, 0)).contains(&step.code);
    matches!(step.code, code::BRANCH_EXIT | code::BRANCH_NZCV_EXIT)
        || fused && (step.code - plain) & 8 != 0
}

impl Emitter<'_> {
    /// Every loop of blocks has one that goes back or to a computed pc: only those look for requests, but in system mode all
    /// do, because a guest may let interrupts in for a few instructions only.
    fn polls(&self) -> bool {
        if self.input.page.is_some() {
            return true;
        }
        let back = |exit: ExitInfo| exit.pc <= self.input.pc;
        self.input.program.exits().any(back) || self.steps.iter().any(is_computed)
    }

    /// The block's entry.
    pub fn enter(&mut self) {
        if self.polls() {
            self.asm.alu_mi(Alu::Cmp, W::B32, Mem::base(RDI, OFFSET_EXIT_REQUEST), 0);
            let poll = self.asm.jcc(Cc::Ne);
            self.exits.entry.push(poll);
        }
        for check in self.input.page.into_iter().chain(self.input.second) {
            self.asm.mov_rm(W::B64, RAX, engine(check.word()));
            self.asm.alu_mi(Alu::Cmp, W::B32, Mem::base(RAX, check.offset()), check.id as i32);
            let other = self.asm.jcc(Cc::Ne);
            self.exits.page.push(other);
        }
        if let Some(profile) = self.input.profile {
            self.asm.mov_ri(RAX, profile.runs);
            self.asm.inc_m(Mem::base(RAX, 0));
            // The counter's top bit: [`super::Profile::LIMIT`].
            let hot = self.asm.jcc(Cc::S);
            self.exits.entry.push(hot);
        }
    }

    fn return_site(&mut self, pc: u64) -> u32 {
        let edges = &mut self.exits.edges;
        let edge = Edge { pc, flags: self.input.flags, kind: EdgeKind::ReturnSite, offset: 0 };
        if let Some(n) = edges.iter().position(|e| *e == edge) {
            return n as u32;
        }
        edges.push(edge);
        self.exits.jumps.push(None);
        edges.len() as u32 - 1
    }

    fn exit_info(&self, n: u32) -> ExitInfo {
        self.input.program.exit(n as usize)
    }

    /// A jump leaves through direct exit number `n`.
    fn jump_edge(&mut self, n: u32, jump: Patch) {
        let ExitInfo { kind, pc, flags, .. } = self.exit_info(n);
        self.exits.edges.push(Edge { pc, flags, kind: EdgeKind::Exit(kind), offset: 0 });
        self.exits.jumps.push(Some(jump));
    }

    /// Through direct exit number `n`.
    pub fn exit(&mut self, n: u32) {
        self.spill_slots();
        if let Some(profile) = self.input.profile
            && let Some(&counter) = profile.edges.get(n as usize).filter(|&&counter| counter != 0)
            && self.input.program.exit_count() > 1
            && self.exits.derived != Some(n as u8)
        {
            self.asm.mov_ri(RAX, counter);
            self.asm.inc_m(Mem::base(RAX, 0));
        }
        if let Some(ret) = self.exit_info(n).return_pc() {
            self.push_return(ret);
        }
        let jump = self.asm.jmp_linkable();
        self.jump_edge(n, jump);
    }

    /// Every way out is a counted direct exit or one of the two of a single branch.
    fn ends_in_one_branch(&self) -> bool {
        let counted = self.input.profile.map_or(0, |profile| profile.edges.len());
        match self.input.program.exit_count() {
            2 => true,
            n => {
                let branches = self.steps.iter().filter(|step| is_fork(step)).count();
                n <= counted && branches == 1 && !self.steps.iter().any(is_computed)
            }
        }
    }

    /// Through `yes` if the condition holds, else through `no`.
    pub fn exit_either(&mut self, cc: Cc, yes: u32, no: u32) {
        let program = self.input.program;
        let is_call = |n: u32| program.exit(n as usize).return_pc().is_some();
        let (cc, yes, no) = if is_call(yes) { (cc.negated(), no, yes) } else { (cc, yes, no) };
        if self.ends_in_one_branch() {
            self.exits.derived = Some(yes as u8);
        }
        if is_call(yes) {
            let taken = self.asm.jcc(cc);
            self.exit(no);
            self.asm.bind(taken);
            return self.exit(yes);
        }
        let jump = self.asm.jcc_linkable(cc);
        self.jump_edge(yes, jump);
        self.exit(no);
    }

    /// A constant to a word of memory at which nobody looks yet, by way of `rdx` when it is long.
    fn store_constant(&mut self, to: Mem, value: u64) {
        if value as i32 as u64 == value {
            self.asm.mov_mi(W::B64, to, value as i32);
        } else {
            self.asm.mov_ri(RDX, value);
            self.asm.mov_mr(W::B64, to, RDX);
        }
    }

    /// Changes `rcx` and `rdx`.
    fn push_return(&mut self, ret: u64) {
        let site = self.return_site(ret);
        self.asm.mov_rm(W::B32, RCX, engine(word::RING_TOP));
        self.asm.alu_ri(Alu::Add, W::B32, RCX, RING_STEP);
        self.asm.alu_ri(Alu::And, W::B32, RCX, RING_MASK);
        self.asm.mov_mr(W::B64, engine(word::RING_TOP), RCX);
        let entry = |field| Mem::index(RDI, RCX, 0, RING + field);
        self.store_constant(entry(ENTRY_PC), ret);
        self.store_constant(entry(ENTRY_FLAGS), self.input.flags);
        self.asm.mov_rm(W::B64, RDX, Mem::Data(Data::Edge(site)));
        self.asm.mov_mr(W::B64, entry(ENTRY_CODE), RDX);
    }

    pub fn indirect(&mut self, step: &Step) {
        self.spill_slots();
        let kind = ExitKind::from_u8(step.d as u8);
        let (mut ret, mut key) = (None, Key::Own);
        match step.code {
            code::INDIRECT_RET => ret = Some(step.imm),
            code::INDIRECT_FULL if step.imm >> 33 & 1 != 0 => {
                self.copy_to(W::B64, RSI, (step.imm >> 16) as u16);
                key = Key::Rsi;
            }
            _ => {}
        }
        self.copy_to(W::B64, RAX, step.a);
        if kind == ExitKind::Resync {
            self.asm.mov_mr(W::B64, pc_cell(), RAX);
            return self.leave(Reason::Resync);
        }
        if kind == ExitKind::Call
            && let Some(ret) = ret
        {
            self.push_return(ret);
        }
        if kind == ExitKind::Return {
            self.pop_return(key);
        }
        self.probe(key);
    }

    /// Jumps away unless the entry at `entry` is for the pc in `rax`.
    fn compare_pc(&mut self, entry: impl Fn(i32) -> Mem) -> Patch {
        self.asm.alu_rm(Alu::Cmp, W::B64, RAX, entry(ENTRY_PC));
        self.asm.jcc(Cc::Ne)
    }

    /// Jumps away unless the entry at `entry` is for these key flags.
    fn compare_flags(&mut self, entry: impl Fn(i32) -> Mem, key: Key) -> Patch {
        let own = self.input.flags;
        match key {
            Key::Own if own as i32 as u64 == own => {
                self.asm.alu_mi(Alu::Cmp, W::B64, entry(ENTRY_FLAGS), own as i32);
            }
            Key::Own => {
                self.asm.mov_ri(RDX, own);
                self.asm.alu_rm(Alu::Cmp, W::B64, RDX, entry(ENTRY_FLAGS));
            }
            Key::Rsi => self.asm.alu_rm(Alu::Cmp, W::B64, RSI, entry(ENTRY_FLAGS)),
        }
        self.asm.jcc(Cc::Ne)
    }

    /// To the newest ring entry if it is for the pc in `rax` and has code.
    fn pop_return(&mut self, key: Key) {
        self.asm.mov_rm(W::B64, RCX, engine(word::RING_TOP));
        let entry = |field| Mem::index(RDI, RCX, 0, RING + field);
        let other_pc = self.compare_pc(entry);
        self.asm.lea(W::B32, RDX, Mem::base(RCX, -RING_STEP));
        self.asm.alu_ri(Alu::And, W::B32, RDX, RING_MASK);
        self.asm.mov_mr(W::B64, engine(word::RING_TOP), RDX);
        // A callee that changed the key flags has returned all the same.
        let other_flags = self.compare_flags(entry, key);
        self.asm.mov_rm(W::B64, RDX, entry(ENTRY_CODE));
        self.asm.test_rr(W::B64, RDX, RDX);
        let no_code = self.asm.jcc_short(Cc::E);
        self.asm.jmp_r(RDX);
        self.asm.bind_short(no_code);
        for patch in [other_pc, other_flags] {
            self.asm.bind(patch);
        }
    }

    /// By the jump cache to the pc in `rax`.
    fn probe(&mut self, key: Key) {
        let (multiplier, shift, mask) = JUMP_HASH_PARTS;
        self.asm.imul_rri(W::B32, RCX, RAX, multiplier as i32);
        self.asm.shift_ri(Shift::Shr, W::B32, RCX, shift as u8);
        self.asm.alu_ri(Alu::And, W::B32, RCX, mask as i32);
        self.asm.alu_rm(Alu::Add, W::B64, RCX, engine(word::JUMP_CACHE));
        let entry = |field| Mem::base(RCX, field);
        let a = self.compare_pc(entry);
        let b = self.compare_flags(entry, key);
        self.asm.mov_rm(W::B64, RDX, entry(ENTRY_CODE));
        self.asm.test_rr(W::B64, RDX, RDX);
        let c = self.asm.jcc(Cc::E);
        self.asm.jmp_r(RDX);
        let own = matches!(key, Key::Own);
        self.exits.unknown.extend([a, b, c].map(|patch| (own, patch)));
    }

    pub fn trap(&mut self, step: &Step) {
        self.spill_slots();
        self.store_constant(pc_cell(), step.imm);
        self.asm.mov_mi(W::B64, engine(word::A), step.d as i32);
        let number = step.a as u64 | (step.b as u64) << 16;
        self.store_constant(engine(word::B), number);
        self.leave(Reason::Trap);
    }

    /// Back to the dispatcher; everything else is stored.
    fn leave(&mut self, reason: Reason) {
        self.asm.mov_mi(W::B64, engine(word::REASON), reason as i32);
        self.asm.ret();
    }

    /// The ways out of line.
    pub fn finish_exits(&mut self) {
        let mut exits = std::mem::take(&mut self.exits);
        if !exits.entry.is_empty() {
            exits.entry.drain(..).for_each(|patch| self.asm.bind(patch));
            self.asm.call_m(engine(word::THUNK_ENTRY));
            self.asm.data(self.input.pc);
        }
        if !exits.page.is_empty() {
            exits.page.drain(..).for_each(|patch| self.asm.bind(patch));
            self.store_constant(pc_cell(), self.input.pc);
            self.leave(Reason::Page);
        }
        // Pc in `rax`; with the unit's own key flags, or those in `rsi`.
        if exits.unknown.iter().any(|&(own, _)| own) {
            for &(_, patch) in exits.unknown.iter().filter(|&&(own, _)| own) {
                self.asm.bind(patch);
            }
            self.asm.mov_ri(RSI, self.input.flags);
        }
        if !exits.unknown.is_empty() {
            for &(_, patch) in exits.unknown.iter().filter(|&&(own, _)| !own) {
                self.asm.bind(patch);
            }
            self.asm.mov_mr(W::B64, pc_cell(), RAX);
            self.asm.mov_mr(W::B64, engine(word::A), RSI);
            self.leave(Reason::Indirect);
        }
        let mut common = None;
        for (pc, write, patch) in exits.misaligned.drain(..) {
            self.asm.bind(patch);
            self.asm.mov_ri(RCX, pc);
            self.asm.mov_ri(RDX, write as u64);
            match common {
                None => {
                    common = Some(self.asm.here());
                    self.asm.mov_mr(W::B64, pc_cell(), RCX);
                    self.asm.mov_mr(W::B64, engine(word::A), RAX);
                    self.asm.mov_mr(W::B64, engine(word::B), RDX);
                    self.leave(Reason::Misaligned);
                }
                Some(common) => self.asm.jmp_to(common),
            }
        }
        self.exits = exits;
        if !self.traps.is_empty() {
            for i in 0..self.traps.len() {
                self.asm.bind(self.traps[i]);
            }
            self.leave(Reason::HelperTrap);
        }
    }
}

/// The guest's pc.
pub fn pc_cell() -> Mem {
    Mem::base(RDI, OFFSET_CELLS + 8 * CELL_PC as i32)
}
