//! PVH: ELF kernels with a note that names a 32-bit entry point. Xen's `arch-x86/hvm/start_info.h`, version 1.

use super::elf::Elf;
use super::{BootError, Kernel, Kind, LOW, Request, SETUP, Words, place_high, put};
use crate::boot::Part;
use crate::layout::MemoryMap;

/// Note of owner "Xen": the physical 32-bit entry point.
const PHYS32_ENTRY: u32 = 18;
const MAGIC: u32 = 0x336e_c578;
/// Size of the start information, of an entry of the module list, and where both and the command line are in the block.
const START_INFO: usize = 56;
const MODULE: usize = 32;
const COMMAND_LINE: usize = 0x100;

pub fn load(request: &Request, memory: &MemoryMap) -> Result<Kernel, BootError> {
    let elf = Elf::new(&request.kernel)?;
    let entry = elf.note(b"Xen\0", PHYS32_ENTRY).ok_or(BootError::Unknown)?;
    let entry = entry.u32(0).ok_or(BootError::Damaged("its entry point's note is empty"))?;
    let kernel = elf.load(memory)?;
    let end = (kernel.address as u64 + kernel.data.len() as u64).next_multiple_of(4096);

    let max = (LOW - SETUP) as usize - COMMAND_LINE - 1;
    let text = request.command_line.as_bytes();
    if text.len() > max {
        return Err(BootError::LongCommandLine { len: text.len(), max });
    }
    let mut setup = vec![0; COMMAND_LINE];
    setup.extend(text);
    setup.push(0);
    let initrd = request.initrd.iter().flat_map(|(_, data)| data.iter().copied()).collect();
    let mut initrd = Part { address: 0, data: initrd };
    put(&mut setup, 0, &MAGIC.to_le_bytes());
    put(&mut setup, 4, &1u32.to_le_bytes());
    put(&mut setup, 24, &(SETUP as u64 + COMMAND_LINE as u64).to_le_bytes());
    put(&mut setup, 40, &(LOW as u64).to_le_bytes());
    if !initrd.data.is_empty() {
        let limit = memory.below_4g;
        initrd.address = place_high("an initrd", end, limit, memory, initrd.data.len())?;
        put(&mut setup, 12, &1u32.to_le_bytes());
        put(&mut setup, 16, &(SETUP as u64 + START_INFO as u64).to_le_bytes());
        put(&mut setup, START_INFO, &(initrd.address as u64).to_le_bytes());
        put(&mut setup, START_INFO + 8, &(initrd.data.len() as u64).to_le_bytes());
        const { assert!(START_INFO + MODULE <= COMMAND_LINE) };
    }
    Ok(Kernel { kind: Kind::Pvh, kernel, entry, setup, command_line: Vec::new(), initrd })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn elf() -> Vec<u8> {
        let mut note = Vec::new();
        for word in [4u32, 4, PHYS32_ENTRY] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Xen\0");
        note.extend(0x10_0040u32.to_le_bytes());
        crate::boot::elf::test_file(0x10_0000, &[0xf4; 256], &note)
    }

    #[test]
    fn start_information() {
        let request = Request {
            kernel: elf(),
            initrd: vec![(String::new(), vec![7; 100])],
            command_line: "a=b".into(),
        };
        let kernel = load(&request, &MemoryMap::new(64 << 20)).unwrap();
        assert_eq!(kernel.entry, 0x10_0040);
        assert_eq!((kernel.kernel.address, kernel.kernel.data.len()), (0x10_0000, 0x3000));
        let setup = &kernel.setup[..];
        assert_eq!(setup.u32(0), Some(MAGIC));
        assert_eq!(setup.u64(16), Some(SETUP as u64 + 56));
        assert_eq!(setup.u64(56), Some(kernel.initrd.address as u64));
        assert_eq!(setup.u64(64), Some(100));
        assert_eq!(&setup[COMMAND_LINE..], b"a=b\0");
    }
}
