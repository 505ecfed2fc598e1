//! Message-signalled interrupts: MSI and MSI-X (PCI 3.0, section 6.8).

use super::ConfigSpace;
use serde::{Deserialize, Serialize};

const CAP_MSI: u8 = 0x05;
const CAP_MSIX: u8 = 0x11;

/// The MSI capability: where it is. Always with 64-bit address and per-vector masks (figure 6-9, last form).
#[derive(Clone, Copy)]
pub(super) struct Msi {
    at: u16,
}

/// Offsets in the MSI capability.
mod msi {
    pub const CONTROL: u16 = 2;
    pub const ADDRESS: u16 = 4;
    pub const ADDRESS_HIGH: u16 = 8;
    pub const DATA: u16 = 12;
    pub const MASK: u16 = 16;
    pub const PENDING: u16 = 20;
    pub const ENABLE: u16 = 1;
}

impl Msi {
    pub(super) fn add(config: &mut ConfigSpace, vectors: u8) -> Msi {
        assert!(vectors.is_power_of_two() && vectors <= 32);
        let control = 1 << 8 | 1 << 7 | (vectors.ilog2() as u16) << 1;
        let mut body = [0; 22];
        body[..2].copy_from_slice(&u16::to_le_bytes(control));
        let mut writable = [0; 22];
        writable[0] = 0x71;
        writable[2..10].copy_from_slice(&(!3u64).to_le_bytes());
        writable[10..12].fill(0xff);
        let masks = (u64::MAX >> (64 - vectors)) as u32;
        writable[14..18].copy_from_slice(&masks.to_le_bytes());
        Msi { at: u16::from(config.capability(CAP_MSI, &body, &writable)) }
    }
}

/// Where the MSI-X structures of a function are.
#[derive(Clone, Copy, Debug)]
pub struct Msix {
    /// Entries of the table: 1 to 2048.
    pub vectors: u16,
    pub bar: u8,
    /// Of 16 bytes for each vector, a multiple of 8.
    pub table_offset: u32,
    /// Of a bit for each vector, a multiple of 8.
    pub pending_offset: u32,
    pub(super) at: u16,
}

/// The MSI-X table and pending bits.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(super) struct MsixState {
    /// Address, upper address, data, vector control for each vector.
    table: Vec<[u32; 4]>,
    pending: Vec<u64>,
}

impl MsixState {
    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.table.len(), self.pending.len())
    }
}

/// Bits of MSI-X message control.
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;

impl Msix {
    pub(super) fn add(mut self, config: &mut ConfigSpace) -> (Msix, MsixState) {
        assert!((1..=2048).contains(&self.vectors) && self.bar < 6);
        assert!((self.table_offset | self.pending_offset).is_multiple_of(8));
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(self.vectors - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(self.table_offset | u32::from(self.bar)).to_le_bytes());
        body[6..].copy_from_slice(&(self.pending_offset | u32::from(self.bar)).to_le_bytes());
        let mut writable = [0; 10];
        writable[1] = 0xc0;
        self.at = u16::from(config.capability(CAP_MSIX, &body, &writable));
        let state = MsixState {
            table: vec![[0, 0, 0, 1]; self.vectors.into()],
            pending: vec![0; usize::from(self.vectors).div_ceil(64)],
        };
        (self, state)
    }
}

impl ConfigSpace {
    fn msi_control(&self) -> u16 {
        self.msi.map_or(0, |m| self.word(m.at + msi::CONTROL))
    }

    /// Whether software switched MSI on.
    pub fn msi_enabled(&self) -> bool {
        self.msi_control() & msi::ENABLE != 0
    }

    /// Whether software switched MSI-X on.
    pub fn msix_enabled(&self) -> bool {
        self.msix.is_some_and(|m| self.word(m.at + 2) & MSIX_ENABLE != 0)
    }

    /// Whether interrupts leave as messages, and the pin stays silent.
    pub fn uses_messages(&self) -> bool {
        self.msi_enabled() || self.msix_enabled()
    }

    /// Sends the message of a vector, or keeps it pending while it is masked. False when software uses the pin.
    pub fn notify(&mut self, vector: u16) -> bool {
        if self.msix_enabled() {
            self.notify_msix(vector);
        } else if self.msi_enabled() {
            self.notify_msi(vector);
        } else {
            return false;
        }
        true
    }

    fn notify_msi(&mut self, vector: u16) {
        let Some(Msi { at }) = self.msi else { return };
        // Vectors that were not granted fall together with those that were.
        let granted = 1u32 << (self.msi_control() >> 4 & 7).min(5);
        let allowed = 1u32 << (self.msi_control() >> 1 & 7);
        let vector = u32::from(vector) & (granted.min(allowed) - 1);
        let pending = self.dword(at + msi::PENDING);
        if self.dword(at + msi::MASK) >> vector & 1 != 0 || !self.bus_master() {
            self.set(at + msi::PENDING, &(pending | 1 << vector).to_le_bytes());
            return;
        }
        self.set(at + msi::PENDING, &(pending & !(1 << vector)).to_le_bytes());
        let address = u64::from(self.dword(at + msi::ADDRESS_HIGH)) << 32
            | u64::from(self.dword(at + msi::ADDRESS));
        let data = u32::from(self.word(at + msi::DATA));
        self.line.message(address, data & !(granted - 1) | vector);
    }

    fn notify_msix(&mut self, vector: u16) {
        let (Some(m), master) = (self.msix, self.bus_master()) else { return };
        let function_mask = self.word(m.at + 2) & MSIX_FUNCTION_MASK != 0;
        let Some(state) = &mut self.state.msix else { return };
        let Some(&[low, high, data, control]) = state.table.get(usize::from(vector)) else {
            return;
        };
        let pending = &mut state.pending[usize::from(vector / 64)];
        if function_mask || control & 1 != 0 || !master {
            *pending |= 1 << (vector % 64);
            return;
        }
        *pending &= !(1 << (vector % 64));
        self.line.message(u64::from(high) << 32 | u64::from(low & !3), data);
    }

    /// Behind a change of masks or control bits: sends what was pending and may leave now.
    pub(super) fn message_control_changed(&mut self) {
        if self.msix_enabled() {
            let pending = self.state.msix.as_ref().map_or(vec![], |m| m.pending.clone());
            for (word, bits) in pending.into_iter().enumerate() {
                for_bits(bits, |bit| self.notify_msix((64 * word) as u16 + bit));
            }
        } else if let Some(Msi { at }) = self.msi.filter(|_| self.msi_enabled()) {
            for_bits(u64::from(self.dword(at + msi::PENDING)), |bit| self.notify_msi(bit));
        }
    }

    /// Reads the MSI-X table or pending bits, if they are at this place of a BAR. For [`tulk_hw::Device::read`].
    pub fn msix_read(&self, window: u8, offset: u64, bytes: u8) -> Option<u64> {
        let mut value = 0;
        for n in 0..u64::from(bytes.min(8)) {
            let at = offset.checked_add(n)?;
            let dword = self.msix_dword(window, at & !3)?;
            value |= u64::from(dword >> (8 * (at & 3)) & 0xff) << (8 * n);
        }
        Some(value)
    }

    fn msix_dword(&self, window: u8, offset: u64) -> Option<u32> {
        let (m, state) = (self.msix.filter(|m| m.bar == window)?, self.state.msix.as_ref()?);
        if let Some(at) = offset.checked_sub(m.table_offset.into())
            && let Some(entry) = state.table.get((at / 16) as usize)
        {
            return Some(entry[(at / 4 % 4) as usize]);
        }
        let at = offset.checked_sub(m.pending_offset.into())?;
        let word = state.pending.get((at / 8) as usize)?;
        Some((word >> (8 * (at & 4))) as u32)
    }

    /// Writes the MSI-X table, if it is at this place of a BAR; true if it is (or the pending bits are, which are
    /// read-only). Guests write it in dwords or quadwords; other sizes are swallowed.
    pub fn msix_write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) -> bool {
        if self.msix_dword(window, offset & !3).is_none() {
            return false;
        }
        if offset & 3 != 0 || bytes < 4 {
            return true;
        }
        for n in 0..u64::from(bytes.min(8)) / 4 {
            self.msix_write_dword(window, offset.saturating_add(4 * n), (value >> (32 * n)) as u32);
        }
        true
    }

    fn msix_write_dword(&mut self, window: u8, offset: u64, value: u32) {
        let Some(m) = self.msix.filter(|m| m.bar == window) else { return };
        let Some(at) = offset.checked_sub(m.table_offset.into()) else { return };
        let state = self.state.msix.as_mut();
        let Some(entry) = state.and_then(|s| s.table.get_mut((at / 16) as usize)) else { return };
        let field = (at / 4 % 4) as usize;
        entry[field] = if field == 3 { value & 1 } else { value };
        if field == 3 && self.msix_enabled() && self.msix_pending((at / 16) as u16) {
            self.notify_msix((at / 16) as u16);
        }
    }

    fn msix_pending(&self, vector: u16) -> bool {
        let word = self.state.msix.as_ref().and_then(|m| m.pending.get(usize::from(vector / 64)));
        word.is_some_and(|w| w >> (vector % 64) & 1 != 0)
    }
}

fn for_bits(mut bits: u64, mut f: impl FnMut(u16)) {
    while bits != 0 {
        f(bits.trailing_zeros() as u16);
        bits &= bits - 1;
    }
}
