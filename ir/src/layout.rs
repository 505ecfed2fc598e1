//! The guest's registers as data: what the IR calls slots.

use crate::types::Type;
use tulk_base::state::{CELL_GUEST, CELL_TEMPS};

/// A guest register (index into [`RegLayout::slots`]) or, from [`Slot::FIRST_LOCAL`] on, a local of one unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u16);

impl Slot {
    pub const FIRST_LOCAL: u16 = 0x8000;

    /// The unit-local variable number `n`.
    #[inline]
    pub const fn local(n: u16) -> Slot {
        Slot(Self::FIRST_LOCAL + n)
    }
    /// The local's number, if this is a local.
    #[inline]
    pub const fn as_local(self) -> Option<u16> {
        self.0.checked_sub(Self::FIRST_LOCAL)
    }
}

/// One guest register.
#[derive(Clone, Debug)]
pub struct SlotDef {
    /// Lower-case name as the guest's assembler and gdb spell it; unique in the layout.
    pub name: String,
    pub ty: Type,
    /// First cell in the CPU state.
    pub cell: u16,
    /// gdb's register number, if gdb shows it.
    pub gdb: Option<u16>,
    /// Lifted code may depend on its value without a `get`, see [`RegLayout::imply`].
    pub implied: bool,
    /// See [`RegLayout::overwrite`].
    pub overwritten: bool,
    /// See [`RegLayout::general`].
    pub general: bool,
}

/// All registers of a guest. Slots never overlap. The pc is not a slot: it is cell 0.
#[derive(Clone, Debug, Default)]
pub struct RegLayout {
    slots: Vec<SlotDef>,
    next_cell: u16,
}

impl RegLayout {
    pub fn new() -> Self {
        RegLayout { slots: Vec::new(), next_cell: CELL_GUEST }
    }

    /// Appends a register in the next free cells and returns its slot.
    ///
    /// # Panics
    /// When the cells for guest registers are used up.
    pub fn add(&mut self, name: impl Into<String>, ty: Type, gdb: Option<u16>) -> Slot {
        let cell = self.next_cell.next_multiple_of(ty.cells());
        self.next_cell = cell + ty.cells();
        assert!(self.next_cell <= CELL_TEMPS, "guest register layout is full");
        self.slots.push(SlotDef {
            name: name.into(),
            ty,
            cell,
            gdb,
            implied: false,
            overwritten: false,
            general: false,
        });
        Slot(self.slots.len() as u16 - 1)
    }

    /// Marks slots on whose values lifted code may depend without a `get`: what makes up the translation key, and what
    /// the lifter remembers from one instruction to a later one as a constant. Wherever execution may be taken up again they
    /// are stored.
    pub fn imply(&mut self, slots: impl IntoIterator<Item = Slot>) {
        slots.into_iter().for_each(|slot| self.slots[slot.0 as usize].implied = true);
    }

    /// Marks slots that most instructions replace as a whole, such as those of the arithmetic flags.
    /// [`crate::Builder::overwriting`] says which instructions do, also where nobody reads what they write and no `set` says so.
    pub fn overwrite(&mut self, slots: impl IntoIterator<Item = Slot>) {
        slots.into_iter().for_each(|slot| self.slots[slot.0 as usize].overwritten = true);
    }

    /// Marks I64 slots of which a guest in a 32-bit window only ever sees the low half.
    pub fn general(&mut self, slots: impl IntoIterator<Item = Slot>) {
        slots.into_iter().for_each(|slot| self.slots[slot.0 as usize].general = true);
    }

    pub fn slots(&self) -> &[SlotDef] {
        &self.slots
    }
    /// # Panics
    /// When `slot` is a local or not of this layout.
    #[inline]
    pub fn def(&self, slot: Slot) -> &SlotDef {
        &self.slots[slot.0 as usize]
    }
    #[inline]
    pub fn cell(&self, slot: Slot) -> u16 {
        self.def(slot).cell
    }
    pub fn by_name(&self, name: &str) -> Option<Slot> {
        self.slots.iter().position(|s| s.name == name).map(|i| Slot(i as u16))
    }
}
