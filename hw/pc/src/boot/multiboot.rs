//! Multiboot 1 kernels (Multiboot Specification 0.6.96): 32-bit ELF files, and flat files whose header says where to
//! load them.

use super::elf::{self, Elf};
use super::{BootError, Kernel, Kind, LOW, Part, Request, SETUP, Words, place_high, put};
use crate::layout::MemoryMap;

const MAGIC: u32 = 0x1bad_b002;
/// The header lies within the first bytes of the file.
const SEARCH: usize = 8192;
// Header flags.
const VIDEO_MODE: u32 = 1 << 2;
const ADDRESSES: u32 = 1 << 16;
/// Flags that a loader must understand: page-aligned modules, memory information, video mode.
const REQUIRED: u32 = 0xffff;
// Information flags: memory sizes, command line, modules, memory map, loader's name.
const INFO_MEMORY: u32 = 1 << 0;
const INFO_COMMAND_LINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MEMORY_MAP: u32 = 1 << 6;
const INFO_LOADER: u32 = 1 << 9;
/// Size of the information structure as far as the graphics table.
const INFO: usize = 88;

/// The header's offset and flags, if there is one with a right checksum.
pub fn header(image: &[u8]) -> Option<(usize, u32)> {
    let image = &image[..image.len().min(SEARCH)];
    (0..image.len()).step_by(4).find_map(|at| {
        let (magic, flags, sum) = (image.u32(at)?, image.u32(at + 4)?, image.u32(at + 8)?);
        let good = magic == MAGIC && magic.wrapping_add(flags).wrapping_add(sum) == 0;
        good.then_some((at, flags))
    })
}

/// A flat file: the header's load, load end, bss end and entry addresses.
fn flat(image: &[u8], header: usize, memory: &MemoryMap) -> Result<(Part, u32), BootError> {
    let damaged = BootError::Damaged("its Multiboot header's addresses are wrong");
    let read = || {
        let [header_addr, load, load_end, bss_end, entry] =
            [12, 16, 20, 24, 28].map(|at| image.u32(header + at));
        let start = header.checked_sub(header_addr?.checked_sub(load?)? as usize)?;
        let content = match load_end? {
            0 => image.get(start..)?,
            end => image.get(start..start.checked_add(end.checked_sub(load?)? as usize)?)?,
        };
        let end = (load? as u64 + content.len() as u64).max(bss_end? as u64);
        Some((load?, content, end, entry?))
    };
    let (address, content, end, entry) = read().ok_or(damaged)?;
    if end > memory.below_4g {
        return Err(BootError::TooLarge { what: "a kernel", bytes: end - address as u64 });
    }
    let mut data = content.to_vec();
    data.resize((end - address as u64) as usize, 0);
    Ok((Part { address, data }, entry))
}

pub fn load(request: &Request, memory: &MemoryMap) -> Result<Kernel, BootError> {
    let image = &request.kernel[..];
    let (at, flags) = header(image).ok_or(BootError::Unknown)?;
    if flags & REQUIRED & !0b111 != 0 {
        return Err(BootError::Unsupported("a Multiboot feature that has no name yet"));
    }
    if flags & VIDEO_MODE != 0 {
        // Asked for, not demanded by the kernels that do: they are told that there is text.
        tracing::debug!(target: "unimp", "a Multiboot kernel asks for a video mode");
    }
    let (kernel, entry) = if flags & ADDRESSES != 0 {
        flat(image, at, memory)?
    } else if elf::is(image) {
        let elf = Elf::new(image)?;
        if elf.is_64 {
            return Err(BootError::Multiboot64);
        }
        (elf.load(memory)?, elf.physical(elf.entry) as u32)
    } else {
        return Err(BootError::Damaged(
            "a Multiboot header without addresses in a file that is no ELF",
        ));
    };

    // Modules go behind the kernel, each on a page of its own; their list and strings behind the information.
    let end = (kernel.address as u64 + kernel.data.len() as u64).next_multiple_of(4096);
    let mut modules = Vec::new();
    let mut ranges = Vec::new();
    for (_, data) in &request.initrd {
        modules.resize(modules.len().next_multiple_of(4096), 0);
        let start = modules.len();
        modules.extend_from_slice(data);
        ranges.push((start as u32, modules.len() as u32));
    }
    let mut initrd = Part { address: end as u32, data: modules };
    if !initrd.data.is_empty() {
        let len = initrd.data.len();
        let room = place_high("its modules", end, memory.below_4g, memory, len)?;
        debug_assert!(room as u64 >= end);
    } else {
        initrd.address = 0;
    }

    let mut info = vec![0; INFO + 16 * ranges.len()];
    let string = |info: &mut Vec<u8>, text: &str| {
        let address = SETUP + info.len() as u32;
        info.extend(text.bytes().filter(|b| *b != 0));
        info.push(0);
        address.to_le_bytes()
    };
    for (n, (start, end)) in ranges.iter().enumerate() {
        let text = string(&mut info, &request.initrd[n].0);
        let entry = INFO + 16 * n;
        put(&mut info, entry, &(initrd.address + start).to_le_bytes());
        put(&mut info, entry + 4, &(initrd.address + end).to_le_bytes());
        put(&mut info, entry + 8, &text);
    }
    let command_line = string(&mut info, &request.command_line);
    let loader = string(&mut info, "tulk");
    let flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER;
    put(&mut info, 0, &flags.to_le_bytes());
    put(&mut info, 4, &640u32.to_le_bytes());
    put(
        &mut info,
        8,
        &(((memory.below_4g - (1 << 20).min(memory.below_4g)) >> 10) as u32).to_le_bytes(),
    );
    put(&mut info, 16, &command_line);
    put(&mut info, 20, &(ranges.len() as u32).to_le_bytes());
    put(&mut info, 24, &(SETUP + INFO as u32).to_le_bytes());
    put(&mut info, 48, &LOW.to_le_bytes());
    put(&mut info, 64, &loader);
    let max = (LOW - SETUP) as usize;
    if info.len() > max {
        return Err(BootError::LongCommandLine { len: info.len(), max });
    }
    let command_line = Vec::new();
    Ok(Kernel { kind: Kind::Multiboot, kernel, entry, setup: info, command_line, initrd })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn header_bytes(flags: u32) -> Vec<u8> {
        let sum = 0u32.wrapping_sub(MAGIC).wrapping_sub(flags);
        [MAGIC, flags, sum].iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    pub fn elf() -> Vec<u8> {
        let mut content = header_bytes(3);
        content.resize(512, 0xf4);
        elf::test_file(0x10_0000, &content, &[])
    }

    #[test]
    fn an_elf_kernel_with_modules() {
        let request = Request {
            kernel: elf(),
            initrd: vec![("one a".into(), vec![1; 10]), ("two".into(), vec![2; 5000])],
            command_line: "kernel -x".into(),
        };
        let kernel = load(&request, &MemoryMap::new(64 << 20)).unwrap();
        assert_eq!(kernel.entry, 0x10_0010);
        assert_eq!(kernel.initrd.address, 0x10_3000);
        let info = &kernel.setup[..];
        assert_eq!(info.u32(20), Some(2));
        let second = INFO + 16;
        assert_eq!(info.u32(second), Some(0x10_4000));
        assert_eq!(info.u32(second + 4), Some(0x10_4000 + 5000));
        let text = (info.u32(16).unwrap() - SETUP) as usize;
        assert_eq!(&info[text..text + 10], b"kernel -x\0");
    }

    #[test]
    fn a_flat_kernel() {
        let mut image = vec![0; 16];
        image.extend(header_bytes(ADDRESSES | 1));
        // The header's address, start, end of the data, of the bss, entry.
        for word in [0x20_0010u32, 0x20_0000, 0, 0x20_1000, 0x20_0040] {
            image.extend(word.to_le_bytes());
        }
        image.resize(256, 0xcc);
        let request = Request { kernel: image.clone(), ..Request::default() };
        let kernel = load(&request, &MemoryMap::new(64 << 20)).unwrap();
        assert_eq!((kernel.kernel.address, kernel.entry), (0x20_0000, 0x20_0040));
        assert_eq!(kernel.kernel.data.len(), 0x1000);
        assert_eq!(kernel.kernel.data[..256], image[..]);
    }
}
