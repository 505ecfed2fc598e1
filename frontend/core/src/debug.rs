//! The registers of a guest as debuggers know them: GDB's target description (the GDB manual, appendix G), filled from
//! the [`RegLayout`]'s numbers and from what no slot holds as it is shown (x86's eflags, st(i)).

use tulk_base::CpuState;
use tulk_ir::{RegLayout, SlotDef};

/// Where a register's value is.
#[derive(Clone, Copy)]
pub enum Source {
    Pc,
    /// The low bits of the state's cells from this one on.
    Cell(u16),
    /// Put together; the state is not changed by reading.
    Composed {
        read: fn(&mut CpuState) -> u128,
        write: fn(&mut CpuState, u128),
    },
    /// The number of the system call at which the thread stands, all ones elsewhere (Linux, x86).
    SystemCall,
}

/// One register.
#[derive(Clone)]
pub struct Register {
    pub name: String,
    /// GDB's number.
    pub number: u16,
    /// A multiple of 8, up to 128.
    pub bits: u16,
    /// GDB's type: predefined, or of [`Feature::types`].
    pub ty: &'static str,
    /// GDB's register group, where the type does not tell.
    pub group: Option<&'static str>,
    pub source: Source,
}

impl Register {
    pub fn bytes(&self) -> usize {
        self.bits as usize / 8
    }
    /// The value, zero-extended. `None` for [`Source::SystemCall`].
    pub fn read(&self, state: &mut CpuState) -> Option<u128> {
        let value = match self.source {
            Source::Pc => state.pc() as u128,
            Source::Cell(cell) if self.bits > 64 => state.get128(cell),
            Source::Cell(cell) => state.get(cell) as u128,
            Source::Composed { read, .. } => read(state),
            Source::SystemCall => return None,
        };
        Some(value & u128::MAX >> (128 - self.bits))
    }
    /// Sets the value; higher bits of the slot become zero.
    pub fn write(&self, state: &mut CpuState, value: u128) {
        let value = value & u128::MAX >> (128 - self.bits);
        match self.source {
            Source::Pc => state.set_pc(value as u64),
            Source::Cell(cell) if self.bits > 64 => state.set128(cell, value),
            Source::Cell(cell) => state.set(cell, value as u64),
            Source::Composed { write, .. } => write(state, value),
            Source::SystemCall => {}
        }
    }
}

/// Registers that belong together.
#[derive(Clone)]
pub struct Feature {
    /// GDB's name: `org.gnu.gdb.i386.core`.
    pub name: &'static str,
    /// XML of the types that the registers need.
    pub types: &'static str,
    pub registers: Vec<Register>,
}

/// All registers of a guest.
#[derive(Clone)]
pub struct Registers {
    /// GDB's architecture: `i386:x86-64`.
    pub architecture: &'static str,
    pub features: Vec<Feature>,
    /// Registers from this number on are not in the packet with all registers.
    pub whole: u16,
}

impl Registers {
    /// The numbered registers of a layout and the pc behind them, in one feature.
    pub fn plain(layout: &RegLayout) -> Registers {
        let mut registers = numbered(layout, |_| Some("int"));
        let number = registers.iter().map(|r| r.number + 1).max().unwrap_or(0);
        registers.push(Register {
            name: "pc".into(),
            number,
            bits: 64,
            ty: "code_ptr",
            group: None,
            source: Source::Pc,
        });
        let feature = Feature { name: "org.tulk.core", types: "", registers };
        Registers { architecture: "", features: vec![feature], whole: u16::MAX }
    }
    /// All registers, by rising number.
    pub fn by_number(&self) -> Vec<&Register> {
        let mut all: Vec<_> = self.features.iter().flat_map(|f| &f.registers).collect();
        all.sort_by_key(|r| r.number);
        all
    }
}

/// The registers of `layout` that have a number and to which `ty` gives a type.
pub fn numbered(
    layout: &RegLayout,
    ty: impl Fn(&SlotDef) -> Option<&'static str>,
) -> Vec<Register> {
    let register = |slot: &SlotDef| {
        Some(Register {
            name: slot.name.clone(),
            number: slot.gdb?,
            bits: 8 * slot.ty.bytes() as u16,
            ty: ty(slot)?,
            group: None,
            source: Source::Cell(slot.cell),
        })
    };
    layout.slots().iter().filter_map(register).collect()
}
