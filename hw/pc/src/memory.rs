//! Guest memory as the chipset shows it: RAM, the BIOS at both its places, and the segments below 1 MiB that switch
//! between them.

use crate::layout::{FOUR_GIB, LOW_BIOS, MemoryMap, PCI_END, SHADOW, VGA};
use crate::timers::SharedDevice;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;
use tulk_base::GuestPa;
use tulk_devices::pci::i440fx::{MemoryAttributes, SEGMENTS, Smram};
use tulk_devices::pci::{BarMapper, BusMapper, Space};
use tulk_devices::vga::{StdVga, VideoMemory};
use tulk_hw::{Device, Dma};
use tulk_softmmu::phys::{PhysError, PhysKind, PhysMem};

/// Largest firmware image.
const LARGEST_BIOS: u64 = 16 << 20;
const PAGE: u64 = 4096;

#[derive(Error, Debug)]
pub enum MemoryError {
    #[error(transparent)]
    Host(#[from] PhysError),
    #[error(
        "a firmware image of {0} bytes: it must be a multiple of 64 KiB, and no more than 16 MiB"
    )]
    Firmware(usize),
}

/// How a segment of [`SHADOW`] answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Segment {
    read_ram: bool,
    write_ram: bool,
}

/// The memory of a machine. The backing is RAM, then the BIOS, then video memory.
pub struct Memory {
    pub phys: Arc<PhysMem>,
    pub map: MemoryMap,
    bios: u64,
    bios_len: u64,
    video: u64,
    video_len: u64,
    segments: Mutex<[Segment; SEGMENTS.len()]>,
}

impl Memory {
    /// # Errors
    /// The host has no memory, or the BIOS is no BIOS.
    pub fn new(map: MemoryMap, bios: &[u8], video_len: u64) -> Result<Arc<Memory>, MemoryError> {
        let bios_len = bios.len() as u64;
        if bios_len == 0 || bios_len > LARGEST_BIOS || !bios_len.is_multiple_of(64 << 10) {
            return Err(MemoryError::Firmware(bios.len()));
        }
        let ram = map.total();
        let video = ram + bios_len;
        let phys = PhysMem::new(video + video_len, FOUR_GIB + map.above_4g)?;
        let memory =
            Memory { phys, map, bios: ram, bios_len, video, video_len, segments: Mutex::default() };
        memory.phys.write_backing(memory.bios, bios);
        let phys = &memory.phys;
        phys.map(GuestPa(0), VGA.start.min(map.below_4g), 0, PhysKind::Ram);
        if map.below_4g > SHADOW.end {
            let len = map.below_4g - SHADOW.end;
            phys.map(GuestPa(SHADOW.end), len, SHADOW.end, PhysKind::Ram);
        }
        if map.above_4g > 0 {
            phys.map(GuestPa(FOUR_GIB), map.above_4g, map.below_4g, PhysKind::Ram);
        }
        phys.map(GuestPa(FOUR_GIB - bios_len), bios_len, memory.bios, PhysKind::Rom);
        for (range, ..) in SEGMENTS {
            memory.show(&range, Segment::default());
        }
        Ok(Arc::new(memory))
    }

    /// Video memory, for the display adapter.
    pub fn video(&self) -> Arc<Video> {
        let phys = self.phys.clone();
        Arc::new(Video { phys, offset: self.video, len: self.video_len })
    }

    /// Shows a segment as its attributes say.
    fn show(&self, range: &Range<u64>, segment: Segment) {
        let (pa, len) = (GuestPa(range.start), range.end - range.start);
        match segment {
            Segment { read_ram: true, write_ram: true } => {
                self.phys.map(pa, len, range.start, PhysKind::Ram);
            }
            Segment { read_ram: true, write_ram: false } => {
                self.phys.map(pa, len, range.start, PhysKind::Rom);
            }
            // The BIOS's end; writes are the board's, which passes them on to RAM where they belong.
            Segment { read_ram: false, .. } => {
                let from_end = LOW_BIOS.end - range.start;
                if range.start >= LOW_BIOS.start && from_end <= self.bios_len {
                    let offset = self.bios + self.bios_len - from_end;
                    self.phys.map(pa, len, offset, PhysKind::Rom);
                } else {
                    self.phys.unmap(pa, len);
                }
            }
        }
    }

    /// A write to [`SHADOW`] that is not plain RAM: it may go to RAM that reads do not see.
    pub fn write_shadow(&self, pa: u64, data: &[u8]) {
        let hidden = SEGMENTS.iter().zip(self.segments.lock().iter()).any(|((range, ..), s)| {
            range.contains(&pa) && *s == Segment { read_ram: false, write_ram: true }
        });
        if hidden && pa + data.len() as u64 <= self.map.below_4g {
            self.phys.write_backing(pa, data);
        }
    }
}

impl MemoryAttributes for Memory {
    fn set_segment(&self, range: Range<u64>, read_ram: bool, write_ram: bool) {
        let new = Segment { read_ram, write_ram };
        let mut segments = self.segments.lock();
        if let Some(n) = SEGMENTS.iter().position(|(r, ..)| *r == range)
            && std::mem::replace(&mut segments[n], new) != new
        {
            self.show(&range, new);
        }
    }
    fn set_smram(&self, _smram: Smram) {
        // There is no system management mode: what is at 0xA0000 is always the display.
    }
}

/// Video memory in the backing.
pub struct Video {
    phys: Arc<PhysMem>,
    offset: u64,
    len: u64,
}

impl Video {
    /// The bytes of `[at, at + len)` that there are.
    fn inside(&self, at: u64, len: usize) -> usize {
        (self.len.saturating_sub(at)).min(len as u64) as usize
    }
}

impl VideoMemory for Video {
    fn size(&self) -> u64 {
        self.len
    }
    fn read(&self, offset: u64, out: &mut [u8]) {
        let n = self.inside(offset, out.len());
        if n > 0 {
            self.phys.read_backing(self.offset + offset, &mut out[..n]);
        }
        out[n..].fill(0);
    }
    fn write(&self, offset: u64, data: &[u8]) {
        let n = self.inside(offset, data.len());
        if n > 0 {
            self.phys.write_backing(self.offset + offset, &data[..n]);
        }
    }
}

/// Maps PCI windows: video memory as memory, all others as windows of the buses.
pub struct Windows {
    pub buses: BusMapper,
    pub memory: Arc<Memory>,
    /// The display adapter, and where its video memory is now.
    pub vga: Mutex<(Option<SharedDevice>, Option<Range<u64>>)>,
}

impl Windows {
    fn is_video(&self, device: &Arc<Mutex<dyn Device>>, space: Space, window: u8) -> bool {
        let vga = self.vga.lock();
        let same =
            |v: &Arc<Mutex<dyn Device>>| std::ptr::addr_eq(Arc::as_ptr(v), Arc::as_ptr(device));
        space == Space::Memory && window == StdVga::FRAMEBUFFER && vga.0.as_ref().is_some_and(same)
    }
}

impl BarMapper for Windows {
    fn map(&self, space: Space, range: Range<u64>, device: &Arc<Mutex<dyn Device>>, window: u8) {
        // Where a guest puts it over RAM or ROM, these win.
        let free = range.start >= self.memory.map.below_4g
            && range.end <= PCI_END
            && range.start.is_multiple_of(PAGE)
            && range.end - range.start == self.memory.video_len;
        if free && self.is_video(device, space, window) {
            let (pa, len) = (GuestPa(range.start), range.end - range.start);
            self.memory.phys.map(pa, len, self.memory.video, PhysKind::Ram);
            self.vga.lock().1 = Some(range);
            return;
        }
        self.buses.map(space, range, device, window);
    }
    fn unmap(&self, space: Space, device: &Arc<Mutex<dyn Device>>, window: u8) {
        if self.is_video(device, space, window)
            && let Some(range) = self.vga.lock().1.take()
        {
            self.memory.phys.unmap(GuestPa(range.start), range.end - range.start);
            return;
        }
        self.buses.unmap(space, device, window);
    }
}

/// Guest memory for bus masters.
pub struct BusMaster(pub Arc<PhysMem>);

impl Dma for BusMaster {
    fn read(&self, pa: GuestPa, out: &mut [u8]) -> bool {
        self.0.read(pa, out)
    }
    fn write(&self, pa: GuestPa, data: &[u8]) -> bool {
        self.0.write(pa, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<Memory> {
        let bios: Vec<u8> = (0..256 << 10).map(|n| (n >> 12) as u8 | 0x80).collect();
        Memory::new(MemoryMap::new(16 << 20), &bios, 1 << 20).unwrap()
    }

    fn byte(memory: &Memory, pa: u64) -> u8 {
        let mut byte = [0];
        memory.phys.read(GuestPa(pa), &mut byte);
        byte[0]
    }

    #[test]
    fn the_bios_is_at_both_places() {
        let m = memory();
        assert_eq!(byte(&m, 0xffff_ffff), 0xbf);
        assert_eq!(byte(&m, 0xf_ffff), 0xbf);
        assert_eq!(byte(&m, 0xe_0000), 0xa0);
        assert_eq!(byte(&m, 0xfffc_0000), 0x80);
        assert_eq!(byte(&m, 0xc_0000), 0xff, "nobody there");
    }

    #[test]
    fn segments_switch() {
        let m = memory();
        // Copying the BIOS in place: reads from ROM, writes to RAM.
        m.set_segment(0xf_0000..0x10_0000, false, true);
        assert_eq!(byte(&m, 0xf_0000), 0xb0);
        m.write_shadow(0xf_0000, &[1, 2, 3]);
        assert_eq!(byte(&m, 0xf_0000), 0xb0);
        m.set_segment(0xf_0000..0x10_0000, true, true);
        assert_eq!(byte(&m, 0xf_0001), 2);
        assert!(m.phys.write(GuestPa(0xf_0001), &[9]));
        m.set_segment(0xf_0000..0x10_0000, true, false);
        assert_eq!(byte(&m, 0xf_0001), 9);
        m.write_shadow(0xf_0001, &[7]);
        assert_eq!(byte(&m, 0xf_0001), 9, "read-only");
        assert_eq!(byte(&m, 0xe_0000), 0xa0, "the other segments stay");
    }

    #[test]
    fn no_firmware_is_an_error() {
        for len in [0, 1000, 17 << 20] {
            assert!(Memory::new(MemoryMap::new(1 << 20), &vec![0; len], 0).is_err());
        }
    }
}
