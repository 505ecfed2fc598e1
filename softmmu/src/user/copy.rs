//! Copies between guest memory and tulk's own.

use super::*;

impl UserSpace {
    /// Copies guest memory into `out`; returns how many bytes could be read.
    pub fn copy_in_partial(&self, va: GuestVa, out: &mut [u8]) -> usize {
        let done = raw::copy_from(out, self.host_ptr(self.untag(va)));
        if done < out.len() && self.has_traps() {
            return self.untrapped(|| raw::copy_from(out, self.host_ptr(self.untag(va))));
        }
        done
    }
    /// Copies guest memory into `out`.
    pub fn copy_in(&self, va: GuestVa, out: &mut [u8]) -> Result<(), MemFault> {
        let done = self.copy_in_partial(va, out);
        if done == out.len() {
            return Ok(());
        }
        Err(self.fault_cause(va.wrapping_add(done as u64), 1, AccessKind::Read))
    }
    /// Copies `data` into guest memory. Bytes in front of a fault are written.
    pub fn copy_out(&self, va: GuestVa, data: &[u8]) -> Result<(), MemFault> {
        let mut done = raw::copy_to(self.host_ptr(self.untag(va)), data);
        if done < data.len() && self.has_traps() {
            done = self.untrapped(|| raw::copy_to(self.host_ptr(self.untag(va)), data));
        }
        if done == data.len() {
            return Ok(());
        }
        Err(self.fault_cause(va.wrapping_add(done as u64), 1, AccessKind::Write))
    }
    /// Reads a NUL-terminated string of at most `max` bytes (without the NUL, which is not returned);
    /// `Ok(None)` when there is no NUL in that range.
    pub fn read_cstr(&self, va: GuestVa, max: usize) -> Result<Option<Vec<u8>>, MemFault> {
        let mut out = Vec::new();
        let mut buf = [0u8; 256];
        while out.len() <= max {
            let at = va.wrapping_add(out.len() as u64);
            // Stop at page ends, so that a string at the end of a page is read without a fault.
            let to_page_end = (PAGE - at.0 % PAGE) as usize;
            let want = buf.len().min(to_page_end);
            self.copy_in(at, &mut buf[..want])?;
            match buf[..want].iter().position(|&b| b == 0) {
                Some(n) => {
                    out.extend_from_slice(&buf[..n]);
                    return Ok((out.len() <= max).then_some(out));
                }
                None => out.extend_from_slice(&buf[..want]),
            }
        }
        Ok(None)
    }

    /// Copies up to `out.len()` bytes of *executable* guest memory; returns how many could be read.
    pub fn fetch_code(&self, va: GuestVa, out: &mut [u8]) -> usize {
        let end = va.0.saturating_add(out.len() as u64);
        let mut at = va.0;
        {
            let maps = self.maps.read();
            while at < end {
                match maps.regions.find(at) {
                    Some((_, region_end, r)) if r.prot & EXEC != 0 => at = region_end,
                    _ => break,
                }
            }
        }
        let allowed = (at.min(end) - va.0) as usize;
        let done = raw::copy_from(&mut out[..allowed], self.host_ptr(va));
        if done < allowed && self.has_traps() {
            return self.untrapped(|| raw::copy_from(&mut out[..allowed], self.host_ptr(va)));
        }
        done
    }
}
