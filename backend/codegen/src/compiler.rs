//! Driving Cranelift: settings, compilation, placing of edge records, the fault map.

use crate::fault_map::{FaultMap, FaultMapBuilder};
use crate::float_order;
use crate::flow::{Flow, Peeled};
use crate::lower::{EDGES_SYMBOL, Host, Lowered, TRAP_CODES, lower};
use crate::region::Listing;
use crate::{CompileError, Region, RegionInput};
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{ExternalName, Function, SourceLoc};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{
    CodegenError, CodegenResult, CompiledCode, Context, FinalizedMachReloc, FinalizedRelocTarget,
};
use cranelift_frontend::FunctionBuilderContext;

/// How a [`Compiler`] compiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Cranelift's optimisation (`opt_level=speed`); without it compiling is quicker and code slower.
    pub optimize: bool,
    /// Cranelift's verifier.
    pub verify: bool,
    /// Fill [`Region::listing`].
    pub listing: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { optimize: true, verify: cfg!(debug_assertions), listing: false }
    }
}

/// Compiles regions; one per thread, reusing its allocations.
pub struct Compiler {
    options: Options,
    isa: OwnedTargetIsa,
    host: Host,
    context: Context,
    registers: regalloc2::Ctx,
    builder: FunctionBuilderContext,
}

/// More IR instructions than this are refused before Cranelift sees them.
const MAX_INSTS: usize = 40_000;

impl Compiler {
    /// For the processor that this runs on.
    pub fn new(options: Options) -> Result<Compiler, CompileError> {
        let mut flags = settings::builder();
        for (name, value) in [
            ("opt_level", if options.optimize { "speed" } else { "none" }),
            ("enable_verifier", if options.verify { "true" } else { "false" }),
            ("unwind_info", "false"),
            ("preserve_frame_pointers", "true"),
            ("is_pic", "false"),
            ("enable_probestack", "false"),
        ] {
            flags.set(name, value).map_err(|e| CompileError::Cranelift(e.to_string()))?;
        }
        let isa = cranelift_native::builder()
            .map_err(|e| CompileError::Host(e.to_string()))?
            .finish(settings::Flags::new(flags))
            .map_err(|e| CompileError::Host(e.to_string()))?;
        let mut context = Context::new();
        context.set_disasm(options.listing);
        let host = Host::of(&*isa);
        let (registers, builder) = (regalloc2::Ctx::default(), FunctionBuilderContext::new());
        Ok(Compiler { options, isa, host, context, registers, builder })
    }

    pub fn compile(&mut self, input: &RegionInput<'_>) -> Result<Region, CompileError> {
        let insts: usize = input.units.iter().map(|u| u.insts.len()).sum();
        if insts > MAX_INSTS {
            return Err(CompileError::TooLarge(format!("{insts} IR instructions")));
        }
        self.context.clear();
        self.context.set_disasm(self.options.listing);
        let func = &mut self.context.func;
        let flow = Flow::new(input)?;
        let lowered = match flow.peeled(input) {
            Some(Peeled { units, flow }) => {
                let input = RegionInput { units: &units, ..*input };
                lower(&input, flow, &*self.isa, self.host, func, &mut self.builder)?
            }
            None => lower(input, flow, &*self.isa, self.host, func, &mut self.builder)?,
        };
        if self.options.optimize {
            float_order::keep_in_loops(&mut self.context, &*self.isa);
        }
        let clif = self.options.listing.then(|| self.context.func.display().to_string());
        let names = self.context.func.params.user_named_funcs().clone();
        let compiled = &self.compile_lowered().map_err(|e| match e {
            CodegenError::CodeTooLarge | CodegenError::ImplLimitExceeded => {
                CompileError::TooLarge(e.to_string())
            }
            e => CompileError::Cranelift(format!("{e:?}")),
        })?;

        let mut bytes = compiled.code_buffer().to_vec();
        let code_len = bytes.len() as u32;
        let records = code_len.next_multiple_of(Region::ALIGN as u32);
        for reloc in compiled.buffer.relocs() {
            let FinalizedRelocTarget::ExternalName(ExternalName::User(name)) = &reloc.target else {
                return Err(CompileError::Cranelift(format!("unexpected relocation {reloc:?}")));
            };
            let name = &names[*name];
            debug_assert_eq!(name.namespace, EDGES_SYMBOL);
            patch(&mut bytes, reloc, records + lowered.edges[name.index as usize].offset)?;
        }
        let edges: Vec<_> = lowered
            .edges
            .iter()
            .map(|e| crate::Edge { offset: records + e.offset, ..*e })
            .collect();
        if let Some(last) = edges.last() {
            bytes.resize((last.offset + crate::abi::EDGE_BYTES) as usize, 0);
        }
        let listing = clif.map(|clif| {
            Box::new(Listing { clif, asm: compiled.vcode.clone().unwrap_or_default() })
        });
        Ok(Region {
            fault_map: fault_map(compiled, &lowered),
            bytes,
            code_len,
            edges,
            guest_insns: input.units.iter().map(|u| u.guest_insns).sum(),
            listing,
            derived: None,
        })
    }
}

impl Compiler {
    /// What `Context::compile` does, with [`locate`] in the middle.
    fn compile_lowered(&mut self) -> CodegenResult<CompiledCode> {
        let (context, mut plane) = (&mut self.context, ControlPlane::default());
        context.verify_if(&*self.isa)?;
        context.optimize(&*self.isa, &mut plane)?;
        locate(&mut context.func);
        let (func, listing) = (&context.func, self.options.listing);
        let registers = &mut self.registers;
        let stencil =
            self.isa.compile_function(func, &context.domtree, registers, listing, &mut plane)?;
        Ok(stencil.apply_params(&func.params))
    }
}

/// Instructions that Cranelift's rewriting made have no source location. A load that is merged into one would have none
/// either: each gets that of the last load or store before it, at most a few guest instructions behind the load's.
fn locate(func: &mut Function) {
    let mut next = func.layout.entry_block();
    while let Some(block) = next {
        next = func.layout.next_block(block);
        let (mut inst, mut last) = (func.layout.first_inst(block), None);
        while let Some(at) = inst {
            inst = func.layout.next_inst(at);
            let opcode = func.dfg.insts[at].opcode();
            match (func.srcloc(at), last) {
                (loc, Some(last)) if loc.is_default() => func.set_srcloc(at, last),
                (loc, _) if opcode.can_load() || opcode.can_store() => last = Some(loc),
                _ => {}
            }
        }
    }
}

/// Resolves a pc-relative relocation to the region's offset `target`.
fn patch(bytes: &mut [u8], reloc: &FinalizedMachReloc, target: u32) -> Result<(), CompileError> {
    let at = reloc.offset as usize;
    let value = target as i64 + reloc.addend;
    match reloc.kind {
        Reloc::X86PCRel4 | Reloc::X86CallPCRel4 => {
            let relative = i32::try_from(value - at as i64).expect("regions are far below 2 GiB");
            bytes[at..at + 4].copy_from_slice(&relative.to_le_bytes());
            Ok(())
        }
        kind => Err(CompileError::Host(format!("relocation {kind:?}"))),
    }
}

/// The guest instruction of each range of code. A load may have been merged into a later instruction's host
/// instruction, whose source location is the later one; the trap code says to which guest instruction (modulo
/// [`TRAP_CODES`]) it belongs.
fn fault_map(compiled: &CompiledCode, lowered: &Lowered) -> FaultMap {
    let mut map = FaultMapBuilder::default();
    let resume = |number: u32| lowered.resumes.get(number as usize).copied();
    let traps = compiled.buffer.traps();
    let mut next_trap = 0;
    let mut end = 0;
    for range in compiled.buffer.get_srclocs_sorted() {
        if range.loc == SourceLoc::default() || range.start < end {
            continue;
        }
        if range.start > end {
            map.push(end, None);
        }
        let number = range.loc.bits();
        map.push(range.start, resume(number));
        while let Some(trap) = traps.get(next_trap).filter(|t| t.offset < range.end) {
            next_trap += 1;
            let code = trap.code.as_raw().get() as u32 - 1;
            if trap.offset < range.start || code >= TRAP_CODES {
                continue;
            }
            let back = (number + TRAP_CODES - code % TRAP_CODES) % TRAP_CODES;
            if back != 0 && back <= number {
                map.push(trap.offset, resume(number - back));
                map.push(trap.offset + 1, resume(number));
            }
        }
        end = range.end;
    }
    map.push(end, None);
    map.finish()
}
