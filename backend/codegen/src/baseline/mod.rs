//! The baseline compiler: from the interpreter's bytecode to machine code in a single pass, a template for each step.
//!
//! It stands between the interpreter and Cranelift: a block is compiled when it has run a handful of times, within a few
//! microseconds, and a region replaces it when it has become really hot. The bytecode names guest registers and
//! temporaries alike by cells of the CPU state; `regs` keeps them in registers within a block and writes guest
//! registers through, so that memory is exact at every fault.
//!
//! What has no template runs in the interpreter: the code calls [`word::THUNK_STEP`] with the number of the step. Float
//! results that the host may have got wrong (see `lower/float.rs`) are computed again by [`word::THUNK_EVAL`].
//!
//! Measured (on a busy server core): 40 to 90 ns for each step on blocks of five to a hundred instructions, of which
//! about 350 ns are the block's own; 10 to 20 bytes of code for an instruction and about 110 for the entry and two exits, a
//! third of which is run.
//! Of 282,000 instructions of a C library and 815,000 of a C compiler fewer than 50 steps stay with the interpreter.
//!
//! Judges: the filetests and random units of `tests/run`, which run on this compiler as on Cranelift;
//! `tests/run/baseline.rs` for exits and counters; the tests of `asm.rs` for the encodings.

mod asm;
mod exits;
mod flags;
mod float;
mod int;
mod labels;
mod memory;
mod neighbours;
mod paged;
mod regs;
mod steps;
mod vector;
mod wide;

use crate::abi::{EDGE_BYTES, JUMP_EDGE_BYTES, jump_record, word};
use crate::fault_map::FaultMapBuilder;
use crate::neighbours::Neighbours;
use crate::{CompileError, Edge, MemoryModel, PageCheck, Region};
use asm::{Alu, Asm, Cc, Data, Mem, Patch, RDI, RDX, RSI, W};
use exits::Exits;
use float::Doubt;
use labels::Labels;
use regs::{Registers, Unsaved};
use tulk_base::state::OFFSET_ENGINE;
use tulk_ir::interp::Program;
use tulk_ir::interp::code::Step;

/// One compilation.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Must stay where it is as long as the code is used: the code hands its address to [`word::THUNK_STEP`].
    pub program: &'a Program,
    /// Guest pc of the block.
    pub pc: u64,
    /// Its key flags.
    pub flags: u64,
    /// Its guest instructions.
    pub insns: u32,
    pub mem: MemoryModel,
    /// Nothing is counted without.
    pub profile: Option<Profile>,
    /// What must hold where it is entered.
    pub page: Option<PageCheck>,
    /// The same of the next page, if its instruction reaches into that.
    pub second: Option<PageCheck>,
}

/// Where the code counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Host address of the `u32` that counts executions; the code leaves with [`crate::abi::Reason::Hot`] when it becomes
    /// [`Profile::LIMIT`] or more (threads that count at the same time may miss a number).
    pub runs: u64,
    /// Host addresses of the `u32`s that count how often the first direct exits are taken, if the block has more than one: of
    /// the two that a branch at its end leads to only one is counted, see [`Region::derived`]. 0 where there is no such exit.
    pub edges: [u64; 4],
}

impl Profile {
    /// Whoever wants to know after `n` executions starts the counter at this minus `n`.
    pub const LIMIT: u32 = 1 << 31;
}

/// The compiler; one per thread, reusing its allocations.
pub struct Baseline {
    host: Host,
    scratch: Scratch,
    search: neighbours::Search,
}

/// What the host's processor has beyond the first x86-64.
#[derive(Clone, Copy, Debug)]
struct Host {
    lzcnt: bool,
    /// `tzcnt`.
    bmi1: bool,
    /// Shifts without flags.
    bmi2: bool,
    popcnt: bool,
    fma: bool,
}

/// Working memory.
#[derive(Default)]
struct Scratch {
    asm: Asm,
    exits: Exits,
    targets: Vec<(u32, Patch)>,
    doubts: Vec<Doubt>,
    calls: Vec<Patch>,
    traps: Vec<Patch>,
    literals: Vec<u8>,
    misses: Vec<paged::Missed>,
    unsaved: Vec<Unsaved>,
    neighbours: Neighbours,
    labels: Labels,
    states: Vec<(u32, Registers)>,
}

/// One block on its way.
struct Emitter<'a> {
    input: &'a Input<'a>,
    host: Host,
    steps: &'a [Step],
    asm: Asm,
    regs: Registers,
    exits: Exits,
    map: FaultMapBuilder,
    /// Jumps to steps that are still to come.
    targets: Vec<(u32, Patch)>,
    /// Float results to be examined out of line.
    doubts: Vec<Doubt>,
    /// Calls of the stub that runs a step.
    calls: Vec<Patch>,
    /// Jumps to the way out after a trap that a thunk kept.
    traps: Vec<Patch>,
    literals: Vec<u8>,
    /// Accesses to paged memory that are out of line, and the jump of the one that is being emitted.
    misses: Vec<paged::Missed>,
    miss: Option<Patch>,
    /// Slots that they store.
    unsaved: Vec<Unsaved>,
    neighbours: Neighbours,
    labels: Labels,
    /// Registers at jumps to labels that only they lead to.
    states: Vec<(u32, Registers)>,
    /// The step's number.
    now: u16,
    /// Its guest instruction, if it may fault.
    pc: u64,
}

fn engine(word: usize) -> Mem {
    Mem::base(RDI, OFFSET_ENGINE + 8 * word as i32)
}

impl Baseline {
    /// For the processor that this runs on.
    #[cfg(target_arch = "x86_64")]
    pub fn new() -> Result<Baseline, CompileError> {
        if !is_x86_feature_detected!("sse4.2") {
            return Err(CompileError::Host("the baseline compiler needs SSE4.2".into()));
        }
        let host = Host {
            lzcnt: is_x86_feature_detected!("lzcnt"),
            bmi1: is_x86_feature_detected!("bmi1"),
            bmi2: is_x86_feature_detected!("bmi2"),
            popcnt: is_x86_feature_detected!("popcnt"),
            fma: is_x86_feature_detected!("fma"),
        };
        Ok(Baseline { host, scratch: Scratch::default(), search: neighbours::Search::default() })
    }
    #[cfg(not(target_arch = "x86_64"))]
    pub fn new() -> Result<Baseline, CompileError> {
        Err(CompileError::Host("the baseline compiler is for x86-64".into()))
    }

    /// Uses no instruction that a host with SSE4.2 may lack: other code than this host would get, for tests.
    pub fn without_extensions(self) -> Baseline {
        let host = Host { lzcnt: false, bmi1: false, bmi2: false, popcnt: false, fma: false };
        Baseline { host, ..self }
    }

    pub fn compile(&mut self, input: &Input<'_>) -> Result<Region, CompileError> {
        let Scratch {
            mut asm,
            mut exits,
            targets,
            mut doubts,
            mut calls,
            mut traps,
            mut literals,
            mut misses,
            mut unsaved,
            mut neighbours,
            mut labels,
            states,
        } = std::mem::take(&mut self.scratch);
        misses.clear();
        unsaved.clear();
        labels.find(input.program.steps());
        match input.mem {
            MemoryModel::Paged => self.search.run(input.program.steps(), &labels, &mut neighbours),
            MemoryModel::Flat | MemoryModel::Based => neighbours.clear(),
        }
        asm.clear();
        exits.clear();
        doubts.clear();
        calls.clear();
        traps.clear();
        literals.clear();
        let mut emitter = Emitter {
            input,
            host: self.host,
            steps: input.program.steps(),
            asm,
            regs: Registers::EMPTY,
            exits,
            map: FaultMapBuilder::default(),
            targets,
            doubts,
            calls,
            traps,
            literals,
            misses,
            miss: None,
            unsaved,
            neighbours,
            labels,
            states,
            now: 0,
            pc: input.pc,
        };
        emitter.block();
        let (region, scratch) = emitter.finish();
        self.scratch = scratch;
        Ok(region)
    }
}

impl<'a> Emitter<'a> {
    fn block(&mut self) {
        self.enter();
        let mut marks = self.input.program.marks();
        let mut next = marks.next();
        for (i, step) in self.steps.iter().enumerate() {
            while let Some((first, pc)) = next
                && first as usize <= i
            {
                self.pc = pc;
                next = marks.next();
            }
            self.now = i as u16;
            if !self.targets.is_empty() {
                self.arrive(i as u32);
            }
            self.unpin();
            self.step(step);
        }
        self.map.push(self.asm.here(), None);
        self.finish_misses();
        self.finish_doubts();
        self.finish_calls();
        self.finish_exits();
    }

    /// Lets the jumps to this step arrive: with all cells in memory, or a single one with what is in registers.
    fn arrive(&mut self, step: u32) {
        if !self.targets.iter().any(|&(to, _)| to == step) {
            return;
        }
        if self.labels.is_fallen_into(step) {
            self.spill();
        }
        self.regs = match self.states.iter().position(|state| state.0 == step) {
            Some(n) => self.states.swap_remove(n).1,
            None => Registers::EMPTY,
        };
        // Who finds addresses for others does it for one way only.
        self.forget_hosts();
        let mut i = 0;
        while let Some(&(to, _)) = self.targets.get(i) {
            if to == step {
                let (_, patch) = self.targets.swap_remove(i);
                self.asm.bind(patch);
            } else {
                i += 1;
            }
        }
    }

    /// The step, in the interpreter. It may write cell `d` and the next, or with `helper` any slot.
    fn in_interpreter(&mut self, fallible: bool, helper: bool) {
        self.spill();
        self.forget_hosts();
        let d = self.steps[self.now as usize].d;
        self.kill(d);
        self.kill(d | 1);
        self.asm.mov_ri(RDX, self.now as u64);
        let call = self.asm.call();
        self.calls.push(call);
        self.forget_unkept();
        if helper {
            self.forget_slots();
        }
        if fallible {
            self.asm.alu_mi(Alu::Cmp, W::B32, engine(word::STATUS), 0);
            let trap = self.asm.jcc(Cc::Ne);
            self.traps.push(trap);
        }
    }

    /// The stub that calls the step thunk, keeping `rdi` and aligning the stack.
    fn finish_calls(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let stub = self.asm.here();
        for i in 0..self.calls.len() {
            self.asm.patch(self.calls[i], stub);
        }
        self.asm.mov_ri(RSI, std::ptr::from_ref(self.input.program) as u64);
        self.asm.push(RDI);
        self.asm.push(RDI);
        self.asm.call_m(engine(word::THUNK_STEP));
        self.asm.pop(RDI);
        self.asm.pop(RDI);
        self.asm.ret();
    }

    /// A constant of 16 bytes behind the code.
    fn literal(&mut self, value: u128) -> Mem {
        let bytes = value.to_le_bytes();
        let known = self.literals.chunks_exact(16).position(|chunk| chunk == bytes);
        let at = match known {
            Some(i) => 16 * i,
            None => {
                self.literals.extend_from_slice(&bytes);
                self.literals.len() - 16
            }
        };
        Mem::Data(Data::Literal(at as u32))
    }

    /// Puts code, literals and edge records together.
    fn finish(self) -> (Region, Scratch) {
        let Emitter {
            input,
            asm,
            exits,
            map,
            targets,
            doubts,
            calls,
            traps,
            literals,
            misses,
            unsaved,
            neighbours,
            labels,
            states,
            ..
        } = self;
        debug_assert!(targets.is_empty() && states.is_empty());
        let code_len = asm.here();
        // Of no width when there are no literals.
        let words = if literals.is_empty() { code_len } else { code_len.next_multiple_of(16) };
        let records = (words + literals.len() as u32).next_multiple_of(8);
        let mut end = records;
        let place = |(edge, jump): (&Edge, &Option<Patch>)| {
            let offset = end;
            end += if jump.is_some() { JUMP_EDGE_BYTES } else { EDGE_BYTES };
            Edge { offset, ..*edge }
        };
        let edges: Vec<Edge> = exits.edges.iter().zip(&exits.jumps).map(place).collect();
        let mut bytes = Vec::with_capacity(end as usize);
        bytes.extend_from_slice(asm.code());
        bytes.resize(words as usize, 0);
        bytes.extend_from_slice(&literals);
        bytes.resize(end as usize, 0);
        for (edge, jump) in edges.iter().zip(&exits.jumps) {
            let Some(Patch(at)) = *jump else { continue };
            let record = &mut bytes[edge.offset as usize..];
            record[..8].copy_from_slice(&jump_record(edge.offset - at).to_le_bytes());
            record[16..24].copy_from_slice(&edge.pc.to_le_bytes());
            let distance = edge.offset - (at + 4);
            bytes[at as usize..at as usize + 4].copy_from_slice(&distance.to_le_bytes());
        }
        for fixup in &asm.fixups {
            let to = match fixup.to {
                Data::Edge(n) => edges[n as usize].offset,
                Data::Literal(at) => words + at,
            };
            let at = fixup.at as usize;
            let distance = to - (fixup.at + 4 + fixup.behind as u32);
            bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        let region = Region {
            bytes,
            code_len,
            edges,
            derived: exits.derived,
            fault_map: map.finish(),
            guest_insns: input.insns,
            listing: None,
        };
        let scratch = Scratch {
            asm,
            exits,
            targets,
            doubts,
            calls,
            traps,
            literals,
            misses,
            unsaved,
            neighbours,
            labels,
            states,
        };
        (region, scratch)
    }
}
