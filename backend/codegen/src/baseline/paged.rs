//! Accesses to paged memory: the data TLB's entry is probed inline; what does not hit goes out of line to the memory thunk,
//! which keeps all registers, and comes back as if nothing had happened.
//!
//! Of [`crate::neighbours`] the first one tests the entry for all of them at once, and leaves the host address in
//! a register, or 0: when they lie on two pages, when one of them would not hit, and when a memory thunk ran since, which may
//! have changed mappings. The others go by it, and where it is 0 they probe for themselves, out of line. No such
//! register lives longer than its block, so whoever takes rights away from the TLB waits for it as for a probe.

use super::asm::*;
use super::neighbours::displacement;
use super::regs::{cell_mem, host_cell};
use super::{Emitter, engine};
use crate::abi::{MemAccess, Reason, word};
use crate::neighbours::Member;
use tulk_base::state::{CELL_ARGS, CELL_RET, CELL_ZERO};
use tulk_base::{MemOp, tlb};
use tulk_ir::interp::code::{Step, address, kind};

/// What goes into an access or comes out of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    None,
    Zero,
    Constant(i32),
    /// A result is cut to this width, and zero-extended.
    Gpr(W, Gpr),
    /// The low 64 bits.
    Low(Xmm),
    Pair(Xmm),
}

/// What a plain access moves.
#[derive(Clone, Copy)]
enum Transfer {
    /// Of this kind.
    Load(u16, Operand),
    Store(W, Operand),
}

/// Where a cell is.
#[derive(Clone, Copy)]
enum Place {
    Gpr(Gpr),
    Cell(u16),
}

/// How an access that has neighbours goes on out of line.
#[derive(Clone, Copy)]
enum Far {
    /// Its guest address is in the register of the host address.
    First(Gpr),
    /// The address, a base and a shifted index, is still to be computed.
    Other(Place, Option<(Place, u8)>, i32),
    /// It has no neighbours after all, and has probed already. The address likewise.
    Alone(Gpr, i32),
}

/// An access that is out of line.
#[derive(Clone, Copy)]
pub struct Missed {
    patches: [Option<Patch>; 2],
    back: u32,
    access: MemAccess,
    pc: u64,
    values: [Operand; 2],
    result: Operand,
    far: Option<(Far, Transfer)>,
    /// Registers with host addresses, which do not hold any more behind the memory thunk.
    hosts: u16,
    /// Up to which of the slots that are not in memory are this one's: they are stored, because the thunk may fault.
    unsaved: u32,
}

/// The memory operation of a plain access.
fn plain_op(kind: u16, mmu: u8) -> MemOp {
    let op = match kind {
        kind::U8 => MemOp::U8,
        kind::U16 => MemOp::U16,
        kind::U32 => MemOp::U32,
        kind::U64 => MemOp::U64,
        kind::U128 => MemOp::U128,
        kind::S8_32 | kind::S8_64 => MemOp::S8,
        kind::S16_32 | kind::S16_64 => MemOp::S16,
        _ => MemOp::S32,
    };
    op.with_mmu(mmu)
}

impl Emitter<'_> {
    /// With the guest address in `rax`: the operand for the host's access. [`Emitter::missed`] must follow behind it.
    /// Changes `rcx` and `rdx`.
    pub fn probe_tlb(&mut self, op: MemOp, write: bool) -> Mem {
        self.entry_at(Mem::base(RAX, 0), op.mmu());
        match op.bytes() {
            1 => self.asm.mov_rr(W::B64, RDX, RAX),
            n => self.asm.lea(W::B64, RDX, Mem::base(RAX, n as i32 - 1)),
        }
        self.asm.alu_ri(Alu::And, W::B64, RDX, -(1 << tlb::TLB_PAGE_LOG2));
        let tag = if write { tlb::TLB_WRITE } else { tlb::TLB_READ };
        self.asm.alu_rm(Alu::Cmp, W::B64, RDX, Mem::base(RCX, tag));
        self.miss = Some(self.asm.jcc(Cc::Ne));
        self.asm.alu_rm(Alu::Add, W::B64, RAX, Mem::base(RCX, tlb::TLB_ADDEND));
        Mem::base(RAX, 0)
    }

    /// Behind the access of the last [`Emitter::probe`], if there was one: what it would have needed, and where its result
    /// is. Registers hold the same cells as where it was probed.
    pub fn missed(&mut self, access: MemAccess, a: Operand, b: Operand, result: Operand) {
        let Some(patch) = self.miss.take() else { return };
        let (back, pc, hosts) = (self.asm.here(), self.pc, self.hosts());
        let (patches, values) = ([Some(patch), None], [a, b]);
        let far = None;
        let unsaved = self.keep_unsaved();
        self.misses.push(Missed { patches, back, access, pc, values, result, far, hosts, unsaved });
    }

    fn paged_address(&mut self, w: W, address: Mem, op: MemOp, write: bool) -> Mem {
        match address {
            Mem::Base { base, disp: 0 } => self.asm.mov_rr(w, RAX, base),
            _ => self.asm.lea(w, RAX, address),
        }
        self.probe_tlb(op, write)
    }

    /// As [`Emitter::probe_tlb`] for the address `base + disp`, which is computed by the access itself.
    fn probe_folded(&mut self, base: Gpr, disp: i32, op: MemOp, write: bool) -> (Mem, Patch) {
        self.entry_at(Mem::base(base, disp), op.mmu());
        match disp.checked_add(op.bytes() as i32 - 1) {
            Some(0) => self.asm.mov_rr(W::B64, RDX, base),
            Some(last) => self.asm.lea(W::B64, RDX, Mem::base(base, last)),
            None => {
                self.asm.lea(W::B64, RDX, Mem::base(base, disp));
                self.asm.alu_ri(Alu::Add, W::B64, RDX, op.bytes() as i32 - 1);
            }
        }
        self.asm.alu_ri(Alu::And, W::B64, RDX, -(1 << tlb::TLB_PAGE_LOG2));
        let tag = if write { tlb::TLB_WRITE } else { tlb::TLB_READ };
        self.asm.alu_rm(Alu::Cmp, W::B64, RDX, Mem::base(RCX, tag));
        let miss = self.asm.jcc(Cc::Ne);
        self.asm.mov_rm(W::B64, RAX, Mem::base(RCX, tlb::TLB_ADDEND));
        (Mem::index(base, RAX, 0, disp), miss)
    }

    pub fn paged_plain_load(&mut self, kind: u16, mode: u16, step: &Step) {
        let op = plain_op(kind, self.input.program.mmu());
        let result = if kind == kind::U128 {
            Operand::Pair(self.alloc_x())
        } else if self.wanted_in_vector(kind, step.d) {
            Operand::Low(self.alloc_x())
        } else {
            let narrow = matches!(kind, kind::S8_32 | kind::S16_32);
            Operand::Gpr(if narrow { W::B32 } else { W::B64 }, self.alloc())
        };
        self.paged_plain(op, mode, step, Transfer::Load(kind, result));
        match result {
            Operand::Pair(x) => self.def_pair(step.d, x),
            Operand::Low(x) => self.def_x(step.d, x),
            Operand::Gpr(_, r) => self.def(step.d, r),
            Operand::Zero | Operand::Constant(_) | Operand::None => {
                unreachable!("a load has a result")
            }
        }
    }

    pub fn paged_plain_store(&mut self, kind: u16, mode: u16, step: &Step) {
        let op = plain_op(kind, self.input.program.mmu());
        let value = step.d;
        let w = if kind == kind::U128 { W::B64 } else { W::of_log2(kind) };
        let operand = if kind == kind::U128 {
            Operand::Pair(self.read_pair(value))
        } else if value & !1 == CELL_ZERO {
            Operand::Zero
        } else if let Some(constant) = self.known_constant(value) {
            Operand::Constant(constant)
        } else if w >= W::B32
            && self.cached(value).is_none()
            && let Some(x) = self.cached_x(value)
        {
            Operand::Low(x)
        } else {
            Operand::Gpr(w, self.read(value))
        };
        self.paged_plain(op, mode, step, Transfer::Store(w, operand));
    }

    fn paged_plain(&mut self, op: MemOp, mode: u16, step: &Step, transfer: Transfer) {
        let write = matches!(transfer, Transfer::Store(..));
        let member = self.neighbours.member(self.now as u32);
        let host = member.and_then(|member| self.cached(host_cell(member.group)));
        let (far, mem, patches) = match (member, host) {
            (Some(member), Some(host)) => {
                let far = self.far_address(mode, step);
                self.asm.test_rr(W::B64, host, host);
                let none = self.asm.jcc(Cc::E);
                let mem = Mem::base(host, self.neighbours.distance(member));
                (Some((far, transfer)), mem, [Some(none), None])
            }
            (Some(member), None) if member.more => {
                let (host, patches) = self.probe_for_all(member, mode, step);
                self.neighbours.found_by(member);
                self.hold(host, host_cell(member.group));
                (Some((Far::First(host), transfer)), Mem::base(host, 0), patches)
            }
            _ => {
                let (w, address) = self.guest_address(mode, step);
                match address {
                    Mem::Base { base, disp } if w == W::B64 && base != RAX => {
                        let (mem, miss) = self.probe_folded(base, disp, op, write);
                        (Some((Far::Alone(base, disp), transfer)), mem, [Some(miss), None])
                    }
                    _ => {
                        let mem = self.paged_address(w, address, op, write);
                        (None, mem, [self.miss.take(), None])
                    }
                }
            }
        };
        self.transfer(transfer, mem);
        let (access, values, result) = match transfer {
            Transfer::Load(_, to) => (MemAccess::Load(op), [Operand::None; 2], to),
            Transfer::Store(_, of) => (MemAccess::Store(op), [of, Operand::None], Operand::None),
        };
        let (back, pc, hosts) = (self.asm.here(), self.pc, self.hosts());
        let unsaved = self.keep_unsaved();
        self.misses.push(Missed { patches, back, access, pc, values, result, far, hosts, unsaved });
    }
    /// Notes which slots are not in memory here.
    fn keep_unsaved(&mut self) -> u32 {
        let mut unsaved = std::mem::take(&mut self.unsaved);
        self.unsaved(&mut unsaved);
        self.unsaved = unsaved;
        self.unsaved.len() as u32
    }

    /// Finds the entry of the page that all of a group are on; the host address of this one. Changes `rcx` and `rdx`.
    fn probe_for_all(
        &mut self,
        member: Member,
        mode: u16,
        step: &Step,
    ) -> (Gpr, [Option<Patch>; 2]) {
        let (w, mem) = self.guest_address(mode, step);
        let host = self.alloc();
        self.asm.lea(w, host, mem);
        let group = *self.neighbours.group(member);
        // The entry belongs to the page of the first byte, its tag is compared with the page of the last one.
        let [first, last] = group.ends(member.offset);
        self.entry_at(Mem::base(host, first), self.input.program.mmu());
        self.asm.lea(W::B64, RDX, Mem::base(host, last));
        self.asm.alu_ri(Alu::And, W::B64, RDX, -(1 << tlb::TLB_PAGE_LOG2));
        let tags = [(group.reads, tlb::TLB_READ), (group.writes, tlb::TLB_WRITE)];
        let patches = tags.map(|(wanted, tag)| {
            wanted.then(|| {
                self.asm.alu_rm(Alu::Cmp, W::B64, RDX, Mem::base(RCX, tag));
                self.asm.jcc(Cc::Ne)
            })
        });
        self.asm.alu_rm(Alu::Add, W::B64, host, Mem::base(RCX, tlb::TLB_ADDEND));
        (host, patches)
    }

    /// To `rcx`: the TLB entry that belongs to a guest address.
    fn entry_at(&mut self, address: Mem, mmu: u8) {
        let words = word::TLB + 2 * mmu as usize;
        match address {
            Mem::Base { base, disp: 0 } => self.asm.mov_rr(W::B64, RCX, base),
            _ => self.asm.lea(W::B64, RCX, address),
        }
        let shift = (tlb::TLB_PAGE_LOG2 - tlb::TLB_ENTRY_LOG2) as u8;
        self.asm.shift_ri(Shift::Shr, W::B64, RCX, shift);
        self.asm.alu_rm(Alu::And, W::B64, RCX, engine(words));
        self.asm.alu_rm(Alu::Add, W::B64, RCX, engine(words + 1));
    }

    /// What it takes to compute the address of a plain access later.
    fn far_address(&mut self, mode: u16, step: &Step) -> Far {
        let disp = displacement(mode, step).expect("neighbours have one");
        let base = self.whereabouts(step.a);
        let index =
            (mode == address::INDEX).then(|| (self.whereabouts(step.b), step.imm as u8 & 63));
        Far::Other(base, index, disp)
    }
    /// A register, or memory if that is exact.
    fn whereabouts(&mut self, cell: u16) -> Place {
        match self.cached(cell) {
            Some(r) => Place::Gpr(r),
            None if self.is_in_memory(cell) => Place::Cell(cell),
            None => Place::Gpr(self.read(cell)),
        }
    }
    fn fetch_place(&mut self, to: Gpr, place: Place) -> Gpr {
        match place {
            Place::Gpr(r) => r,
            Place::Cell(cell) => {
                self.asm.mov_rm(W::B64, to, cell_mem(cell));
                to
            }
        }
    }

    fn transfer(&mut self, transfer: Transfer, mem: Mem) {
        match transfer {
            Transfer::Load(_, Operand::Pair(x)) => self.asm.sse_rm(sse::MOVUPS, x, mem),
            Transfer::Load(kind, Operand::Low(x)) => {
                self.asm.sse_rm(if kind == kind::U64 { sse::MOVQ } else { sse::MOVSS }, x, mem);
            }
            Transfer::Load(kind, Operand::Gpr(_, r)) => match kind {
                kind::U8 => self.asm.movzx_m(W::B8, r, mem),
                kind::U16 => self.asm.movzx_m(W::B16, r, mem),
                kind::U32 => self.asm.mov_rm(W::B32, r, mem),
                kind::U64 => self.asm.mov_rm(W::B64, r, mem),
                kind::S8_32 => self.asm.movsx_m(W::B8, W::B32, r, mem),
                kind::S16_32 => self.asm.movsx_m(W::B16, W::B32, r, mem),
                kind::S8_64 => self.asm.movsx_m(W::B8, W::B64, r, mem),
                kind::S16_64 => self.asm.movsx_m(W::B16, W::B64, r, mem),
                _ => self.asm.movsx_m(W::B32, W::B64, r, mem),
            },
            Transfer::Store(_, Operand::Pair(x)) => self.asm.sse_mr(sse::MOVUPS_STORE, mem, x),
            Transfer::Store(w, Operand::Low(x)) => {
                let store = if w == W::B64 { sse::MOVQ_STORE } else { sse::MOVSS_STORE };
                self.asm.sse_mr(store, mem, x);
            }
            Transfer::Store(_, Operand::Gpr(w, r)) => self.asm.mov_mr(w, mem, r),
            Transfer::Store(w, Operand::Constant(k)) => self.asm.mov_mi(w, mem, k),
            Transfer::Store(w, _) => self.asm.mov_mi(w, mem, 0),
            Transfer::Load(..) => unreachable!("a load has a result"),
        }
    }

    /// The ways out of line.
    pub fn finish_misses(&mut self) {
        if self.misses.is_empty() {
            return;
        }
        let misses = std::mem::take(&mut self.misses);
        // In the stub, with a return address below, the stack is aligned as for any call.
        let stub = self.asm.here();
        self.asm.mov_mr(W::B64, engine(word::VA), RAX);
        self.asm.call_m(engine(word::THUNK_MEM));
        self.asm.alu_mi(Alu::Cmp, W::B32, engine(word::STATUS), 0);
        let failed = self.asm.jcc(Cc::Ne);
        self.asm.ret();
        self.asm.bind(failed);
        self.asm.pop(RCX);
        self.asm.mov_mi(W::B64, engine(word::REASON), Reason::HelperTrap as i32);
        self.asm.ret();
        let mut probes = [None; 2];
        let (all_unsaved, mut stored) = (std::mem::take(&mut self.unsaved), 0);
        for missed in &misses {
            missed.patches.into_iter().flatten().for_each(|patch| self.asm.bind(patch));
            if let Some((far, transfer)) = missed.far {
                self.finish_far(missed, far, transfer, &mut probes);
            }
            for &unsaved in &all_unsaved[stored..missed.unsaved as usize] {
                self.save(unsaved);
            }
            stored = missed.unsaved as usize;
            for (operand, cell) in missed.values.into_iter().zip([CELL_ARGS, CELL_ARGS + 2]) {
                match operand {
                    Operand::None => {}
                    Operand::Zero => self.asm.mov_mi(W::B64, cell_mem(cell), 0),
                    Operand::Constant(k) => self.asm.mov_mi(W::B64, cell_mem(cell), k),
                    Operand::Gpr(_, r) => self.asm.mov_mr(W::B64, cell_mem(cell), r),
                    Operand::Low(x) => self.asm.sse_mr(sse::MOVQ_STORE, cell_mem(cell), x),
                    Operand::Pair(x) => self.asm.sse_mr(sse::MOVUPS_STORE, cell_mem(cell), x),
                }
            }
            self.asm.mov_ri(RSI, missed.access.to_word());
            self.asm.mov_ri(RDX, missed.pc);
            let call = self.asm.call();
            self.asm.patch(call, stub);
            for r in (0..16).filter(|r| missed.hosts >> r & 1 != 0) {
                self.asm.zero(Gpr(r));
            }
            match missed.result {
                Operand::None | Operand::Zero | Operand::Constant(_) => {}
                Operand::Gpr(w, r) if w < W::B32 => self.asm.movzx_m(w, r, cell_mem(CELL_RET)),
                Operand::Gpr(w, r) => self.asm.mov_rm(w, r, cell_mem(CELL_RET)),
                Operand::Low(x) => self.asm.sse_rm(sse::MOVQ, x, cell_mem(CELL_RET)),
                Operand::Pair(x) => self.asm.sse_rm(sse::MOVUPS, x, cell_mem(CELL_RET)),
            }
            self.asm.jmp_to(missed.back);
        }
        self.misses = misses;
        self.misses.clear();
        self.unsaved = all_unsaved;
        self.unsaved.clear();
    }

    /// An access that does not go by its neighbours probes for itself. What does not hit goes on behind, with its guest
    /// address in `rax`. `probes` are the places of the code that probes, for loads and for stores.
    fn finish_far(
        &mut self,
        missed: &Missed,
        far: Far,
        transfer: Transfer,
        probes: &mut [Option<u32>; 2],
    ) {
        match far {
            Far::Alone(base, 0) => return self.asm.mov_rr(W::B64, RAX, base),
            Far::Alone(base, disp) => return self.asm.lea(W::B64, RAX, Mem::base(base, disp)),
            Far::First(host) => {
                self.asm.mov_rr(W::B64, RAX, host);
                self.asm.zero(host);
            }
            Far::Other(base, index, disp) => {
                let base = self.fetch_place(RAX, base);
                let mem = match index {
                    None => Mem::base(base, disp),
                    Some((index, scale)) => {
                        let index = self.fetch_place(RCX, index);
                        Mem::index(base, index, scale, disp)
                    }
                };
                self.asm.lea(W::B64, RAX, mem);
            }
        }
        let (op, write) = match missed.access {
            MemAccess::Store(op) => (op, true),
            MemAccess::Load(op) => (op, false),
            _ => unreachable!("no plain access"),
        };
        self.asm.lea(W::B64, RDX, Mem::base(RAX, op.bytes() as i32 - 1));
        let probe = &mut probes[write as usize];
        match *probe {
            Some(probe) => {
                let call = self.asm.call();
                self.asm.patch(call, probe);
            }
            None => {
                let (call, over) = (self.asm.call(), self.asm.jmp_short());
                *probe = Some(self.asm.here());
                self.asm.bind(call);
                self.probe_stub(op.mmu(), write);
                self.asm.bind_short(over);
            }
        }
        let miss = self.asm.jcc_short(Cc::Ne);
        self.transfer(transfer, Mem::base(RAX, 0));
        self.asm.jmp_to(missed.back);
        self.asm.bind_short(miss);
    }

    /// Makes the guest address in `rax` the host's, if that of the last byte, in `rdx`, hits: then the host's Z is set.
    fn probe_stub(&mut self, mmu: u8, write: bool) {
        self.entry_at(Mem::base(RAX, 0), mmu);
        self.asm.alu_ri(Alu::And, W::B64, RDX, -(1 << tlb::TLB_PAGE_LOG2));
        let tag = if write { tlb::TLB_WRITE } else { tlb::TLB_READ };
        self.asm.alu_rm(Alu::Cmp, W::B64, RDX, Mem::base(RCX, tag));
        let miss = self.asm.jcc_short(Cc::Ne);
        self.asm.alu_rm(Alu::Add, W::B64, RAX, Mem::base(RCX, tlb::TLB_ADDEND));
        self.asm.alu_rr(Alu::Cmp, W::B32, RCX, RCX);
        self.asm.bind_short(miss);
        self.asm.ret();
    }
}
