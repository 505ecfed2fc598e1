//! Paging (the manual, volume 3, chapter 4): 32-bit with PSE-36, PAE, 4-level and 5-level.
//!
//! - Accessed and dirty flags are written when the access is allowed, at all levels at once; an entry that changed in
//!   the meantime makes the walk start anew. A walk that ends in a fault writes nothing.
//! - PAE paging uses the registers [`regs::PDPTE`], which [`load_pdptes`] fills when the manual says so.
//! - An address that is not canonical is `FaultCause::Unmapped` (#GP or #SS), all else `FaultCause::Page`.
//! - Memory types (PAT, PCD, PWT, MTRRs) have no effect.

use super::{cr0, cr4, efer, mmu};
use crate::cpuid;
use crate::regs::{self, cell};
use crate::{CpuModel, Feature};
use tulk_base::{AccessKind, CpuState, FaultCause, GuestPa, GuestVa, Mapping, MemFault};
use tulk_ir::Machine;

/// Bits of the error code of #PF.
pub mod error {
    /// The fault is not for an entry that is not present.
    pub const P: u32 = 1 << 0;
    pub const W: u32 = 1 << 1;
    pub const U: u32 = 1 << 2;
    /// A reserved bit is set in an entry.
    pub const RSVD: u32 = 1 << 3;
    /// An instruction fetch; tells only with NX or SMEP.
    pub const I: u32 = 1 << 4;
    /// A protection key forbids it.
    pub const PK: u32 = 1 << 5;
}

/// Bits of the entries of all formats.
mod entry {
    pub const P: u64 = 1 << 0;
    pub const RW: u64 = 1 << 1;
    pub const US: u64 = 1 << 2;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    /// Page size; in the last level the PAT bit.
    pub const PS: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    pub const XD: u64 = 1 << 63;
}

/// The paging modes of table 4-1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    None,
    Bits32,
    Pae,
    Level4,
    Level5,
}

impl Mode {
    pub fn of(state: &CpuState) -> Mode {
        let get = |slot| state.get(cell(slot));
        if get(regs::CR0) & cr0::PG == 0 {
            Mode::None
        } else if get(regs::CR4) & cr4::PAE == 0 {
            Mode::Bits32
        } else if get(regs::EFER) & efer::LMA == 0 {
            Mode::Pae
        } else if get(regs::CR4) & cr4::LA57 == 0 {
            Mode::Level4
        } else {
            Mode::Level5
        }
    }
}

/// Whether a linear address is canonical in this state (always in 32-bit modes).
pub fn is_canonical(state: &CpuState, va: u64) -> bool {
    if state.get(cell(regs::EFER)) & efer::LMA == 0 {
        return true;
    }
    let unused = if state.get(cell(regs::CR4)) & cr4::LA57 != 0 { 7 } else { 16 };
    ((va << unused) as i64 >> unused) as u64 == va
}

/// One entry that a walk went through.
#[derive(Clone, Copy)]
struct Step {
    pa: u64,
    bytes: u8,
    value: u64,
}

/// What a walk found, before rights are looked at.
struct Found {
    steps: [Step; 5],
    used: usize,
    /// Physical address and log2 of the size of the page.
    pa: u64,
    log2: u8,
    user: bool,
    write: bool,
    no_exec: bool,
}

/// The tables cannot be walked to the end: bits of the error code.
struct Broken(u32);

/// Everything that decides about translations, taken from the state once.
struct Walker<'a> {
    state: &'a CpuState,
    control: u64,
    extended: u64,
    efer: u64,
    mode: Mode,
    features: crate::Features,
    /// MAXPHYADDR.
    physical: u32,
    /// Connected address lines.
    lines: u64,
}

/// Bits `low..high` (exclusive).
const fn bits(low: u32, high: u32) -> u64 {
    if low >= high { 0 } else { (u64::MAX >> (64 - (high - low))) << low }
}

impl Walker<'_> {
    fn new<'a>(model: &CpuModel, state: &'a CpuState, lines: u64) -> Walker<'a> {
        let get = |slot| state.get(cell(slot));
        Walker {
            state,
            control: get(regs::CR0),
            extended: get(regs::CR4),
            efer: get(regs::EFER),
            mode: Mode::of(state),
            features: model.features,
            physical: cpuid::address_bits(model.features).0,
            lines,
        }
    }

    fn nx(&self) -> bool {
        self.extended & cr4::PAE != 0 && self.efer & efer::NXE != 0
    }

    /// Bits that must be zero in an entry of a table whose entries map `1 << log2` bytes; `large`: it maps a page.
    fn reserved(&self, log2: u32, large: bool) -> u64 {
        if self.mode == Mode::Bits32 {
            // Bits 20:13 are address bits 39:32 with PSE-36.
            return match large && log2 == 22 {
                true if !self.features.has(Feature::Pse36) => bits(13, 22),
                true => bits(self.physical.min(40) - 19, 22),
                false => 0,
            };
        }
        let mut all = bits(self.physical, if self.mode == Mode::Pae { 63 } else { 52 });
        if !self.nx() {
            all |= entry::XD;
        }
        if large && log2 > 12 {
            all |= bits(13, log2);
        }
        // No page of 512 GiB or more, and of 1 GiB only where there is the feature.
        if log2 >= 39 || log2 == 30 && !self.features.has(Feature::Pdpe1gb) {
            all |= entry::PS;
        }
        all
    }

    fn read(&self, machine: &mut dyn Machine, at: u64, bytes: u8) -> Step {
        let pa = at & self.lines;
        Step { pa, bytes, value: machine.phys_load(GuestPa(pa), bytes) }
    }

    fn find(&self, machine: &mut dyn Machine, va: u64) -> Result<Found, Broken> {
        let cr3 = self.state.get(cell(regs::CR3));
        let frame = bits(12, self.physical);
        // Log2 of what an entry of the first table maps, index bits of each level, bytes of an entry.
        let (mut log2, index_bits, bytes, mut table) = match self.mode {
            Mode::None => (12, 0, 0, 0),
            Mode::Bits32 => (22, 10, 4, cr3 & 0xffff_f000),
            Mode::Pae => {
                let pdpte = self.state.get(cell(regs::PDPTE[(va >> 30) as usize & 3]));
                if pdpte & entry::P == 0 {
                    return Err(Broken(0));
                }
                (21, 9, 8, pdpte & frame)
            }
            Mode::Level4 => (39, 9, 8, cr3 & frame),
            Mode::Level5 => (48, 9, 8, cr3 & frame),
        };
        let none = Step { pa: 0, bytes: 0, value: 0 };
        let mut found = Found {
            steps: [none; 5],
            used: 0,
            pa: 0,
            log2: 0,
            user: true,
            write: true,
            no_exec: false,
        };
        loop {
            let index = va >> log2 & bits(0, index_bits);
            let step = self.read(machine, table + index * bytes as u64, bytes);
            let e = step.value;
            if e & entry::P == 0 {
                return Err(Broken(0));
            }
            let may_be_large = match self.mode {
                Mode::Bits32 => self.extended & cr4::PSE != 0,
                _ => log2 <= 30,
            };
            let last = log2 == 12 || e & entry::PS != 0 && may_be_large;
            if e & self.reserved(log2, last) != 0 {
                return Err(Broken(error::P | error::RSVD));
            }
            found.steps[found.used] = step;
            found.used += 1;
            found.user &= e & entry::US != 0;
            found.write &= e & entry::RW != 0;
            found.no_exec |= self.nx() && e & entry::XD != 0;
            if last {
                found.log2 = log2 as u8;
                found.pa = match self.mode {
                    Mode::Bits32 if log2 == 22 => e & 0xffc0_0000 | (e >> 13 & 0xff) << 32,
                    Mode::Bits32 => e & 0xffff_f000,
                    _ => e & frame & !bits(0, log2),
                };
                return Ok(found);
            }
            table = if self.mode == Mode::Bits32 { e & 0xffff_f000 } else { e & frame };
            log2 -= index_bits;
        }
    }

    /// Rights of an MMU index: read, write, execute.
    fn rights(&self, found: &Found, index: u8) -> (bool, bool, bool) {
        let on = |bit| self.extended & bit != 0;
        let (mut read, mut write, exec) = if index == mmu::USER {
            (found.user, found.user && found.write, found.user && !found.no_exec)
        } else {
            let hidden = match index {
                mmu::KERNEL_SMAP => found.user,
                mmu::SYSTEM => found.user && on(cr4::SMAP),
                _ => false,
            };
            let write = found.write || self.control & cr0::WP == 0;
            let exec = !(found.no_exec || found.user && on(cr4::SMEP));
            (!hidden, !hidden && write, exec)
        };
        let (no_access, no_write) = self.key_forbids(found, index);
        read &= !no_access;
        write &= !no_access && !no_write;
        (read, write, exec)
    }

    /// Whether the protection key of the page forbids data accesses, and writes.
    fn key_forbids(&self, found: &Found, index: u8) -> (bool, bool) {
        let long = matches!(self.mode, Mode::Level4 | Mode::Level5);
        if !long || self.extended & cr4::PKE == 0 || !found.user {
            return (false, false);
        }
        let key = found.steps[found.used - 1].value >> 59 & 15;
        let rights = self.state.get(cell(regs::PKRU)) as u32 >> (2 * key);
        let writes_count = index == mmu::USER || self.control & cr0::WP != 0;
        (rights & 1 != 0, rights & 2 != 0 && writes_count)
    }

    /// Sets accessed and dirty flags; false when an entry changed since it was read.
    fn mark(&self, machine: &mut dyn Machine, found: &mut Found, dirty: bool) -> bool {
        for n in 0..found.used {
            let last = n + 1 == found.used;
            let step = &mut found.steps[n];
            let new = step.value | entry::A | if dirty && last { entry::D } else { 0 };
            if new != step.value {
                if !machine.phys_replace(GuestPa(step.pa), step.bytes, step.value, new) {
                    return false;
                }
                step.value = new;
            }
        }
        true
    }
}

/// Walks the page tables: see [`tulk_frontend::SystemIsa::walk`].
///
/// # Errors
/// The page fault, or `FaultCause::Unmapped` for an address that is not canonical.
pub fn walk(
    model: &CpuModel,
    state: &CpuState,
    machine: &mut dyn Machine,
    va: GuestVa,
    kind: AccessKind,
    index: u8,
) -> Result<Mapping, MemFault> {
    // A processor that waits for its startup runs nothing.
    let waits = state.get(cell(regs::WAIT_FOR_STARTUP)) as u32 != 0;
    if waits || !is_canonical(state, va.0) {
        return Err(MemFault { va, kind, cause: FaultCause::Unmapped });
    }
    let lines = machine.board().address_mask();
    let w = Walker::new(model, state, lines);
    let linear = if w.efer & efer::LMA == 0 { va.0 & 0xffff_ffff } else { va.0 };
    if w.mode == Mode::None {
        let all = Mapping {
            pa: GuestPa(linear & !bits(0, LARGE)),
            size_log2: LARGE as u8,
            read: true,
            write: true,
            exec: true,
            global: false,
        };
        return Ok(connected(all, linear, lines));
    }
    let mut code = match kind {
        AccessKind::Read => 0,
        AccessKind::Write => error::W,
        // Only where fetches have rights of their own.
        AccessKind::Exec if w.nx() || w.extended & cr4::SMEP != 0 => error::I,
        AccessKind::Exec => 0,
    };
    if index == mmu::USER {
        code |= error::U;
    }
    let fault = |more| Err(MemFault { va, kind, cause: FaultCause::Page(code | more) });
    loop {
        let mut found = match w.find(machine, linear) {
            Ok(found) => found,
            Err(Broken(bits)) => return fault(bits),
        };
        let (read, write, exec) = w.rights(&found, index);
        let allowed = match kind {
            AccessKind::Read => read,
            AccessKind::Write => write,
            AccessKind::Exec => exec,
        };
        if !allowed {
            let (no_access, no_write) = w.key_forbids(&found, index);
            let by_key =
                kind != AccessKind::Exec && (no_access || no_write && kind == AccessKind::Write);
            return fault(error::P | if by_key { error::PK } else { 0 });
        }
        if !w.mark(machine, &mut found, kind == AccessKind::Write) {
            continue;
        }
        let leaf = found.steps[found.used - 1].value;
        let page = Mapping {
            pa: GuestPa(found.pa),
            size_log2: found.log2,
            read,
            write: write && leaf & entry::D != 0,
            exec,
            global: leaf & entry::G != 0 && w.extended & cr4::PGE != 0,
        };
        return Ok(connected(page, linear, lines));
    }
}

/// Without paging addresses are mapped in pieces of this size (log2).
const LARGE: u32 = 21;

/// The mapping where some address lines may be disconnected: a page that such a line divides is cut.
fn connected(m: Mapping, linear: u64, lines: u64) -> Mapping {
    let inside = bits(0, m.size_log2 as u32);
    if lines & inside & !0xfff == inside & !0xfff {
        return Mapping { pa: GuestPa(m.pa.0 & lines), ..m };
    }
    let pa = (m.pa.0 | linear & inside & !0xfff) & lines;
    Mapping { pa: GuestPa(pa), size_log2: 12, ..m }
}

/// The page-directory-pointer table entries that PAE paging would use with this CR3, or `None` (#GP) when one has a
/// reserved bit set (4.4.1).
pub fn read_pdptes(model: &CpuModel, machine: &mut dyn Machine, cr3: u64) -> Option<[u64; 4]> {
    let lines = machine.board().address_mask();
    let physical = cpuid::address_bits(model.features).0;
    let reserved = bits(1, 3) | bits(5, 9) | bits(physical, 64);
    let mut all = [0; 4];
    for (n, e) in all.iter_mut().enumerate() {
        let at = (cr3 & 0xffff_ffe0) + 8 * n as u64;
        *e = machine.phys_load(GuestPa(at & lines), 8);
        if *e & entry::P != 0 && *e & reserved != 0 {
            return None;
        }
    }
    Some(all)
}
