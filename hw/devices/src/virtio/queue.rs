//! Split virtqueues over [`Dma`] (Virtual I/O Device 1.2, section 2.7), with indirect descriptors (2.7.5.3) and
//! suppression of notifications by flag or event index (2.7.7, 2.7.10). Packed rings (2.8) are not offered.
//!
//! Rings are the guest's and may say anything. Each walk is bounded by [`MAX_CHAIN`]; what the specification forbids a
//! driver to do is [`Broken`], never a panic; memory outside RAM is never assumed to hold what was written to it.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{Ordering, fence};
use tulk_base::GuestPa;
use tulk_hw::Dma;

/// Most descriptors in a chain, and the largest queue.
pub const MAX_CHAIN: usize = 1024;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;
const AVAIL_NO_INTERRUPT: u16 = 1;

/// The driver broke a rule of the ring; says which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken(pub &'static str);

/// A piece of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Segment {
    pub pa: u64,
    pub len: u32,
}

/// A request as the driver laid it out: what the device reads, then what it may write. Neither part is longer than
/// 4 GiB - 1, and no segment wraps around the address space.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Chain {
    pub head: u16,
    pub readable: Vec<Segment>,
    pub writable: Vec<Segment>,
}

fn length(segments: &[Segment]) -> usize {
    segments.iter().map(|s| s.len as usize).sum()
}

/// Calls `each` for the pieces of `segments` that hold bytes `[offset, offset + len)`, with the place within that range.
/// Returns whether all of the range exists and `each` was content.
fn pieces(
    segments: &[Segment],
    mut offset: usize,
    len: usize,
    mut each: impl FnMut(GuestPa, std::ops::Range<usize>) -> bool,
) -> bool {
    let mut done = 0;
    for s in segments {
        if done == len {
            break;
        }
        let size = s.len as usize;
        if offset >= size {
            offset -= size;
            continue;
        }
        let n = (size - offset).min(len - done);
        if !each(GuestPa(s.pa + offset as u64), done..done + n) {
            return false;
        }
        done += n;
        offset = 0;
    }
    done == len
}

impl Chain {
    pub fn readable_len(&self) -> usize {
        length(&self.readable)
    }
    pub fn writable_len(&self) -> usize {
        length(&self.writable)
    }
    /// Reads from the readable part. False: it is too short, or lies outside RAM.
    pub fn read(&self, dma: &dyn Dma, offset: usize, out: &mut [u8]) -> bool {
        let len = out.len();
        pieces(&self.readable, offset, len, |pa, range| dma.read(pa, &mut out[range]))
    }
    /// Writes into the writable part. False: it is too short, or lies outside RAM.
    pub fn write(&self, dma: &dyn Dma, offset: usize, data: &[u8]) -> bool {
        pieces(&self.writable, offset, data.len(), |pa, range| dma.write(pa, &data[range]))
    }
}

struct Descriptor {
    pa: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// One virtqueue: its place in guest memory and how far the device has come in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// Largest size that the device offers.
    max: u16,
    pub size: u16,
    pub ready: bool,
    /// Addresses of the descriptor table, the driver's ring and the device's ring.
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    /// MSI-X vector, or 0xffff.
    pub vector: u16,
    /// Negotiated: descriptors may point to tables of descriptors; event indices.
    pub indirect: bool,
    pub event_idx: bool,
    /// The driver broke a rule; nothing is taken from the queue until it is reset.
    pub broken: bool,
    next_avail: u16,
    next_used: u16,
    /// `next_used` when the driver was notified last, if it was.
    signalled: Option<u16>,
}

impl Queue {
    /// A queue that is not ready, of at most `max` descriptors (a power of two up to [`MAX_CHAIN`]).
    pub fn new(max: u16) -> Queue {
        Queue {
            max,
            size: max,
            ready: false,
            desc: 0,
            avail: 0,
            used: 0,
            vector: 0xffff,
            indirect: false,
            event_idx: false,
            broken: false,
            next_avail: 0,
            next_used: 0,
            signalled: None,
        }
    }

    pub fn max(&self) -> u16 {
        self.max
    }

    pub fn reset(&mut self) {
        *self = Queue::new(self.max);
    }

    /// Places the rings as legacy drivers do (2.7.2): one area, the device's ring at the next multiple of 4096.
    pub fn place_legacy(&mut self, page: u32) {
        let size = u64::from(self.size);
        self.desc = u64::from(page) << 12;
        self.avail = self.desc + 16 * size;
        self.used = (self.avail + 6 + 2 * size).next_multiple_of(4096);
        self.ready = page != 0;
        if !self.ready {
            self.reset_progress();
        }
    }

    fn reset_progress(&mut self) {
        (self.next_avail, self.next_used, self.signalled, self.broken) = (0, 0, None, false);
    }

    /// Whether a saved queue may stand for this one.
    pub fn fits(&self, saved: &Queue) -> bool {
        saved.max == self.max && saved.size <= self.max
    }

    /// # Errors
    /// The size is none, or the rings wrap around the address space. Checked when the driver starts the queue.
    pub fn check(&self) -> Result<(), Broken> {
        if !self.size.is_power_of_two() || self.size > self.max {
            return Err(Broken("queue size is not a power of two within the limit"));
        }
        let size = u64::from(self.size);
        let ends = [
            self.desc.checked_add(16 * size),
            self.avail.checked_add(6 + 2 * size),
            self.used.checked_add(6 + 8 * size),
        ];
        if ends.contains(&None) {
            return Err(Broken("ring wraps around the address space"));
        }
        Ok(())
    }

    fn read_u16(&self, dma: &dyn Dma, pa: u64) -> Result<u16, Broken> {
        let mut bytes = [0; 2];
        match dma.read(GuestPa(pa), &mut bytes) {
            true => Ok(u16::from_le_bytes(bytes)),
            false => Err(Broken("ring outside RAM")),
        }
    }

    fn write(&self, dma: &dyn Dma, pa: u64, bytes: &[u8]) -> Result<(), Broken> {
        match dma.write(GuestPa(pa), bytes) {
            true => Ok(()),
            false => Err(Broken("ring outside RAM")),
        }
    }

    /// How many requests wait, without taking one.
    ///
    /// # Errors
    /// More than the ring can hold.
    fn waiting(&self, dma: &dyn Dma) -> Result<u16, Broken> {
        let waiting = self.read_u16(dma, self.avail + 2)?.wrapping_sub(self.next_avail);
        if waiting > self.size {
            return Err(Broken("available index ran away"));
        }
        Ok(waiting)
    }

    /// Takes the next request. Behind `None` the driver notifies again when there is one.
    ///
    /// # Errors
    /// The driver broke a rule; the queue stays where it is.
    pub fn pop(&mut self, dma: &dyn Dma) -> Result<Option<Chain>, Broken> {
        if !self.ready || self.broken {
            return Ok(None);
        }
        self.check()?;
        if self.waiting(dma)? == 0 {
            if !self.event_idx {
                return Ok(None);
            }
            // Ask for a notification, then look again: the driver may have added one in between.
            self.write(
                dma,
                self.used + 4 + 8 * u64::from(self.size),
                &self.next_avail.to_le_bytes(),
            )?;
            fence(Ordering::SeqCst);
            if self.waiting(dma)? == 0 {
                return Ok(None);
            }
        }
        fence(Ordering::Acquire);
        let slot = u64::from(self.next_avail & (self.size - 1));
        let head = self.read_u16(dma, self.avail + 4 + 2 * slot)?;
        let chain = self.walk(dma, head)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Gives back the request that was popped last, as if it had not been.
    pub fn unpop(&mut self) {
        self.next_avail = self.next_avail.wrapping_sub(1);
    }

    fn descriptor(&self, dma: &dyn Dma, table: u64, index: u16) -> Result<Descriptor, Broken> {
        let mut raw = [0; 16];
        let pa = GuestPa(table).checked_add(16 * u64::from(index));
        if !pa.is_some_and(|pa| dma.read(pa, &mut raw)) {
            return Err(Broken("descriptor outside RAM"));
        }
        let [p0, p1, p2, p3, p4, p5, p6, p7, l0, l1, l2, l3, f0, f1, n0, n1] = raw;
        Ok(Descriptor {
            pa: u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }

    fn walk(&self, dma: &dyn Dma, head: u16) -> Result<Chain, Broken> {
        let mut chain = Chain { head, ..Chain::default() };
        let (mut table, mut limit, mut index) = (self.desc, u32::from(self.size), head);
        let mut in_table = false;
        for _ in 0..=MAX_CHAIN {
            if u32::from(index) >= limit {
                return Err(Broken("descriptor index out of range"));
            }
            let d = self.descriptor(dma, table, index)?;
            if d.flags & DESC_INDIRECT != 0 {
                if in_table || !self.indirect || d.flags & DESC_NEXT != 0 {
                    return Err(Broken("indirect descriptor where none may be"));
                }
                if d.len == 0 || !d.len.is_multiple_of(16) {
                    return Err(Broken("indirect table of no whole descriptors"));
                }
                (table, limit, index, in_table) = (d.pa, d.len / 16, 0, true);
                continue;
            }
            if d.pa.checked_add(u64::from(d.len)).is_none() {
                return Err(Broken("buffer wraps around the address space"));
            }
            let part = if d.flags & DESC_WRITE != 0 {
                &mut chain.writable
            } else if chain.writable.is_empty() {
                &mut chain.readable
            } else {
                return Err(Broken("readable buffer behind a writable one"));
            };
            part.push(Segment { pa: d.pa, len: d.len });
            if d.flags & DESC_NEXT == 0 {
                if chain.readable_len().max(chain.writable_len()) > u32::MAX as usize {
                    return Err(Broken("request of 4 GiB or more"));
                }
                return Ok(chain);
            }
            index = d.next;
        }
        Err(Broken("descriptor chain too long or looping"))
    }

    /// Returns requests to the driver, all at once: head and bytes written.
    ///
    /// # Errors
    /// The ring is not in RAM.
    pub fn push(&mut self, dma: &dyn Dma, done: &[(u16, u32)]) -> Result<(), Broken> {
        if !self.ready || self.broken {
            return Ok(());
        }
        self.check()?;
        for &(head, len) in done {
            let slot = u64::from(self.next_used & (self.size - 1));
            let mut element = [0; 8];
            element[..4].copy_from_slice(&u32::from(head).to_le_bytes());
            element[4..].copy_from_slice(&len.to_le_bytes());
            self.write(dma, self.used + 4 + 8 * slot, &element)?;
            self.next_used = self.next_used.wrapping_add(1);
        }
        fence(Ordering::Release);
        self.write(dma, self.used + 2, &self.next_used.to_le_bytes())
    }

    /// Whether the driver wants to hear of what was returned since it was notified last.
    ///
    /// # Errors
    /// The ring is not in RAM.
    pub fn wants_notification(&mut self, dma: &dyn Dma) -> Result<bool, Broken> {
        if !self.ready || self.broken {
            return Ok(false);
        }
        self.check()?;
        fence(Ordering::SeqCst);
        if !self.event_idx {
            return Ok(self.read_u16(dma, self.avail)? & AVAIL_NO_INTERRUPT == 0);
        }
        let event = self.read_u16(dma, self.avail + 4 + 2 * u64::from(self.size))?;
        let new = self.next_used;
        let Some(old) = self.signalled.replace(new) else { return Ok(true) };
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }
}
