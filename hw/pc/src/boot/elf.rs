//! ELF kernels: program headers and notes, of 32- and 64-bit files alike.

use super::{BootError, Part, Words};
use crate::layout::MemoryMap;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// A program header's fields that matter for loading.
struct Segment {
    kind: u32,
    offset: u64,
    file_size: u64,
    paddr: u64,
    vaddr: u64,
    mem_size: u64,
}

pub struct Elf<'a> {
    image: &'a [u8],
    pub is_64: bool,
    pub entry: u64,
    segments: Vec<Segment>,
}

pub fn is(image: &[u8]) -> bool {
    image.starts_with(b"\x7fELF")
}

impl<'a> Elf<'a> {
    /// # Errors
    /// Not a little-endian ELF file, or one whose headers lie outside of it.
    pub fn new(image: &'a [u8]) -> Result<Elf<'a>, BootError> {
        let damaged = BootError::Damaged("its ELF headers are cut off");
        if !is(image) || image.get(5) != Some(&1) {
            return Err(BootError::Unknown);
        }
        let is_64 = image.get(4) == Some(&2);
        let read = || -> Option<(u64, Vec<Segment>)> {
            let (entry, offset, size, count) = if is_64 {
                (image.u64(24)?, image.u64(32)?, image.u16(54)?, image.u16(56)?)
            } else {
                let word = |at| image.u32(at).map(u64::from);
                (word(24)?, word(28)?, image.u16(42)?, image.u16(44)?)
            };
            let mut segments = Vec::new();
            for n in 0..count as u64 {
                let at = usize::try_from(offset.checked_add(n * size as u64)?).ok()?;
                let header = image.get(at..)?;
                let long = |at| header.u64(at);
                let word = |at| header.u32(at).map(u64::from);
                segments.push(if is_64 {
                    Segment {
                        kind: header.u32(0)?,
                        offset: long(8)?,
                        vaddr: long(16)?,
                        paddr: long(24)?,
                        file_size: long(32)?,
                        mem_size: long(40)?,
                    }
                } else {
                    Segment {
                        kind: header.u32(0)?,
                        offset: word(4)?,
                        vaddr: word(8)?,
                        paddr: word(12)?,
                        file_size: word(16)?,
                        mem_size: word(20)?,
                    }
                });
            }
            Some((entry, segments))
        };
        let (entry, segments) = read().ok_or(damaged)?;
        Ok(Elf { image, is_64, entry, segments })
    }

    fn content(&self, segment: &Segment) -> Result<&'a [u8], BootError> {
        let range = || {
            let start = usize::try_from(segment.offset).ok()?;
            let len = usize::try_from(segment.file_size).ok()?;
            self.image.get(start..start.checked_add(len)?)
        };
        range().ok_or(BootError::Damaged("a segment lies outside the file"))
    }

    /// All loadable segments as one piece at their physical addresses, gaps and uninitialised data zeroed.
    ///
    /// # Errors
    /// Nothing to load, or it does not fit the memory below 4 GiB.
    pub fn load(&self, memory: &MemoryMap) -> Result<Part, BootError> {
        let loads = || self.segments.iter().filter(|s| s.kind == PT_LOAD && s.mem_size > 0);
        let start = loads().map(|s| s.paddr).min().ok_or(BootError::Damaged("nothing to load"))?;
        let mut data = Vec::new();
        for segment in loads() {
            let size = segment.mem_size.max(segment.file_size);
            let end = segment.paddr.checked_add(size).filter(|end| *end <= memory.below_4g);
            let end = end.ok_or(BootError::TooLarge { what: "a segment", bytes: size })?;
            data.resize(data.len().max((end - start) as usize), 0);
            let content = self.content(segment)?;
            let at = (segment.paddr - start) as usize;
            data[at..at + content.len()].copy_from_slice(content);
        }
        Ok(Part { address: start as u32, data })
    }

    /// The physical address of a virtual one, by the segment that holds it; the address itself if none does.
    pub fn physical(&self, vaddr: u64) -> u64 {
        let holds = |s: &&Segment| s.kind == PT_LOAD && vaddr.wrapping_sub(s.vaddr) < s.mem_size;
        match self.segments.iter().find(holds) {
            Some(s) => s.paddr.wrapping_add(vaddr - s.vaddr),
            None => vaddr,
        }
    }

    /// The content of the first note of this owner and type.
    pub fn note(&self, owner: &[u8], kind: u32) -> Option<&'a [u8]> {
        for segment in self.segments.iter().filter(|s| s.kind == PT_NOTE) {
            let mut notes = self.content(segment).ok()?;
            while let (Some(owner_len), Some(len), Some(this)) =
                (notes.u32(0), notes.u32(4), notes.u32(8))
            {
                let name = notes.get(12..12usize.checked_add(owner_len as usize)?)?;
                let start = 12 + (owner_len as usize).next_multiple_of(4);
                let content = notes.get(start..start.checked_add(len as usize)?)?;
                if this == kind && name == owner {
                    return Some(content);
                }
                notes = notes.get(start + (len as usize).next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
        None
    }
}

/// A 32-bit ELF file with one segment of this content at this address, and one note.
#[cfg(test)]
pub fn test_file(address: u32, content: &[u8], note: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    file.extend((address + 16).to_le_bytes());
    file.extend(52u32.to_le_bytes());
    file.resize(42, 0);
    file.extend([32, 0, 2, 0]);
    file.resize(52, 0);
    let data = 52 + 64;
    let segments = [
        [PT_LOAD, data, 0xc000_0000 + address, address, content.len() as u32, 0x3000, 7, 4096],
        [PT_NOTE, data + content.len() as u32, 0, 0, note.len() as u32, note.len() as u32, 4, 4],
    ];
    for word in segments.concat() {
        file.extend(word.to_le_bytes());
    }
    file.extend(content);
    file.extend(note);
    file
}
