//! The translation logs: formatted only when somebody asked for them.

use crate::config::{Config, LogItems, LogSink};
use crate::engine::Engine;
use crate::host::HostFp;
use crate::system::PhysCode;
use crate::tb::Tb;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};
use tulk_base::CpuState;
use tulk_base::state::CELL_TEMPS;
use tulk_codegen::Region;
use tulk_frontend::debug::{Register, Registers, Source};
use tulk_frontend::{CodeReader, TbKey};
use tulk_ir::Unit;

/// What goes where.
pub struct Log {
    sink: Option<Arc<dyn LogSink>>,
    pub items: LogItems,
    registers: OnceLock<Registers>,
}

impl Log {
    pub fn new(config: &Config) -> Log {
        let items = if config.log.is_some() { config.log_items } else { LogItems::default() };
        Log { sink: config.log.clone(), items, registers: OnceLock::new() }
    }

    fn write(&self, text: &str) {
        if let Some(sink) = &self.sink {
            sink.log(text);
        }
    }

    /// A block was lifted for tier 0.
    #[inline]
    pub fn lifted(&self, engine: &Engine, key: TbKey, unit: &Unit) {
        if self.items.in_asm {
            self.write(&assembly(engine, key, unit.len));
        }
        if self.items.ir {
            self.write(&format!("IR of {}, lifted:\n{}", key.pc, show(engine, unit)));
        }
    }

    /// A unit was optimised.
    #[inline]
    pub fn optimized(&self, engine: &Engine, unit: &Unit) {
        if self.items.ir_opt {
            self.write(&format!("IR of {:#x}, optimised:\n{}", unit.pc, show(engine, unit)));
        }
    }

    /// A region was compiled.
    #[inline]
    pub fn compiled(&self, _engine: &Engine, blocks: &[&Tb], region: &Region) {
        if !self.items.out_asm {
            return;
        }
        let mut text = format!(
            "OUT: region at {}, {} blocks, {} guest instructions, {} bytes\n",
            blocks[0].key.pc,
            blocks.len(),
            region.guest_insns,
            region.code_len
        );
        if let Some(listing) = &region.listing {
            text.push_str(&listing.asm);
        }
        self.write(&text);
    }

    /// A block is about to run.
    #[cold]
    pub fn exec(&self, engine: &Engine, key: TbKey, state: &CpuState) {
        let mut text = format!("exec {} flags {:#x}\n", key.pc, key.flags);
        if self.items.registers {
            let mut copy = CpuState::new();
            copy.cells.copy_from_slice(&state.cells);
            engine.isa.save_fp(&mut copy, &mut HostFp);
            // Blocks that others continue at are not told by the pc.
            copy.set_pc(key.pc.0);
            let all = self.registers.get_or_init(|| engine.isa.debug_registers());
            // What only a debugger puts into temporaries is the board's.
            let own = |r: &&Register| !matches!(r.source, Source::Cell(cell) if cell >= CELL_TEMPS);
            for (n, register) in all.by_number().into_iter().filter(own).enumerate() {
                let Some(value) = register.read(&mut copy) else { continue };
                let between = if n % 8 == 0 { "\n  " } else { " " };
                let _ = write!(
                    text,
                    "{}{}={value:x}",
                    if n == 0 { "  " } else { between },
                    register.name
                );
            }
            text.push('\n');
        }
        self.write(&text);
    }
}

/// Guest assembly with addresses and bytes.
fn assembly(engine: &Engine, key: TbKey, len: u32) -> String {
    let mut bytes = vec![0; len as usize];
    let n = match &engine.system {
        None => engine.mem.fetch_code(key.pc, &mut bytes),
        Some(system) => {
            let mut code = PhysCode::new(&system.phys, key.pc, system.frame_of(key), None);
            code.fetch(key.pc, &mut bytes)
        }
    };
    let (mut rest, mut at) = (&bytes[..n], engine.bare(key));
    let mut text = format!("IN: {}\n", key.pc);
    while !rest.is_empty() {
        let (line, len) = match engine.isa.disassemble(at, rest) {
            Some((line, len)) if len > 0 => (line, len.min(rest.len())),
            _ => ("undefined".to_string(), rest.len()),
        };
        let hex: String = rest[..len.min(16)].iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(text, "{}: {hex:16} {line}", at.pc);
        rest = &rest[len..];
        at.pc = at.pc.wrapping_add(len as u64);
    }
    text
}

fn show(engine: &Engine, unit: &Unit) -> String {
    unit.display(engine.isa.layout()).helpers(engine.isa.helpers()).to_string()
}
