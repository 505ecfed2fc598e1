//! Linux bzImages: the 16-bit boot protocol, Documentation/arch/x86/boot.rst in the kernel.

use super::{BootError, Kernel, Kind, LOW, Part, Request, SETUP, Words, place_high, put};
use crate::layout::MemoryMap;

// Fields of the setup header.
const SETUP_SECTS: usize = 0x1f1;
const VID_MODE: usize = 0x1fa;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const HEAP_END_PTR: usize = 0x224;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: usize = 0x22c;
const CMDLINE_SIZE: usize = 0x238;
/// End of the header as of protocol 2.15, which we read and write at most.
const HEADER_END: usize = 0x268;

const LOADED_HIGH: u8 = 1;
const CAN_USE_HEAP: u8 = 0x80;
/// A boot loader without a number of its own.
const UNDEFINED_LOADER: u8 = 0xff;
const KERNEL: u32 = 0x10_0000;

pub fn is(image: &[u8]) -> bool {
    image.get(HEADER..HEADER + 4) == Some(b"HdrS")
}

/// `vga=` on the command line asks the setup code for a video mode.
fn video_mode(command_line: &str) -> Result<Option<u16>, BootError> {
    let Some(word) = command_line.split_whitespace().find_map(|w| w.strip_prefix("vga=")) else {
        return Ok(None);
    };
    let mode = match word {
        "normal" => Some(0xffff),
        "ext" => Some(0xfffe),
        "ask" => Some(0xfffd),
        _ => match word.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16).ok(),
            None => word.parse().ok(),
        },
    };
    mode.map(Some)
        .ok_or(BootError::Unsupported("a video mode that vga= on the command line does not name"))
}

pub fn load(request: &Request, memory: &MemoryMap) -> Result<Kernel, BootError> {
    let image = &request.kernel[..];
    let version = image.u16(VERSION).ok_or(BootError::Damaged("its header is cut off"))?;
    if version < 0x202 {
        let [minor, major] = version.to_le_bytes();
        return Err(BootError::OldProtocol { major, minor });
    }
    let sectors = match image[SETUP_SECTS] {
        0 => 4,
        n => n as usize,
    };
    let split = 512 * (sectors + 1);
    if image.len() <= split || split < HEADER_END {
        return Err(BootError::Damaged("the file ends before the kernel does"));
    }
    let (setup, kernel) = image.split_at(split);
    if setup.len() > (LOW - SETUP) as usize / 2 {
        return Err(BootError::Damaged("its setup code is too large"));
    }
    let mut setup = setup.to_vec();
    if setup[LOADFLAGS] & LOADED_HIGH == 0 {
        return Err(BootError::Unsupported("loading below 1 MiB (a zImage)"));
    }
    // A page behind the largest kernel that could be there; it moves itself out of the way of the initrd.
    let end = KERNEL as u64 + kernel.len() as u64;
    if end > memory.below_4g {
        return Err(BootError::TooLarge { what: "a kernel", bytes: kernel.len() as u64 });
    }
    let max = if version >= 0x206 { setup[..].u32(CMDLINE_SIZE).unwrap_or(255) } else { 255 };
    let max = (max as usize).min(0xf000);
    let text = request.command_line.as_bytes();
    if text.len() > max {
        return Err(BootError::LongCommandLine { len: text.len(), max });
    }
    let mut command_line = text.to_vec();
    command_line.push(0);

    // Several images are one: the kernel unpacks archives that follow each other, on four-byte boundaries.
    let mut initrd = Vec::new();
    for (_, data) in &request.initrd {
        initrd.resize(initrd.len().next_multiple_of(4), 0);
        initrd.extend_from_slice(data);
    }
    let mut initrd = Part { address: 0, data: initrd };
    if !initrd.data.is_empty() {
        let max = match setup[..].u32(INITRD_ADDR_MAX) {
            Some(max) if version >= 0x203 => max,
            _ => 0x37ff_ffff,
        };
        initrd.address = place_high("an initrd", end, max as u64 + 1, memory, initrd.data.len())?;
        put(&mut setup, RAMDISK_IMAGE, &initrd.address.to_le_bytes());
        put(&mut setup, RAMDISK_SIZE, &(initrd.data.len() as u32).to_le_bytes());
    }
    if let Some(mode) = video_mode(&request.command_line)? {
        put(&mut setup, VID_MODE, &mode.to_le_bytes());
    }
    setup[TYPE_OF_LOADER] = UNDEFINED_LOADER;
    setup[LOADFLAGS] |= CAN_USE_HEAP;
    // The heap ends where the command line begins, less the boot sector that the offset does not count.
    put(&mut setup, HEAP_END_PTR, &((LOW - SETUP - 0x200 - 0x100) as u16).to_le_bytes());
    put(&mut setup, CMD_LINE_PTR, &LOW.to_le_bytes());
    let kernel = Part { address: KERNEL, data: kernel.to_vec() };
    Ok(Kernel { kind: Kind::Linux, kernel, entry: 0, setup, command_line, initrd })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The smallest image that looks like a kernel.
    pub fn image() -> Vec<u8> {
        let mut image = vec![0x90; 512 * 5 + 1000];
        image[SETUP_SECTS] = 4;
        put(&mut image, HEADER, b"HdrS");
        put(&mut image, VERSION, &0x20fu16.to_le_bytes());
        image[LOADFLAGS] = LOADED_HIGH;
        put(&mut image, INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
        put(&mut image, CMDLINE_SIZE, &2047u32.to_le_bytes());
        image
    }

    #[test]
    fn parts_go_where_the_protocol_says() {
        let request = Request {
            kernel: image(),
            initrd: vec![(String::new(), vec![1; 5000]), (String::new(), vec![2; 10])],
            command_line: "console=ttyS0 vga=0x317".into(),
        };
        let kernel = load(&request, &MemoryMap::new(128 << 20)).unwrap();
        assert_eq!(kernel.kernel.data.len(), 1000);
        assert_eq!(kernel.command_line, b"console=ttyS0 vga=0x317\0");
        assert_eq!(kernel.setup[..].u16(VID_MODE), Some(0x317));
        assert_eq!(kernel.initrd.data.len(), 5010);
        assert_eq!(kernel.initrd.address, (127 << 20) - 0x2000);
        assert_eq!(kernel.setup[..].u32(RAMDISK_IMAGE), Some(kernel.initrd.address));
        assert_eq!(kernel.setup[..].u32(RAMDISK_SIZE), Some(5010));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let memory = MemoryMap::new(4 << 20);
        let request = |initrd: usize, words: usize| Request {
            kernel: image(),
            initrd: vec![(String::new(), vec![0; initrd])],
            command_line: "x".repeat(words),
        };
        let error = |r: Request| load(&r, &memory).unwrap_err();
        assert!(matches!(error(request(3 << 20, 0)), BootError::TooLarge { .. }));
        let long = BootError::LongCommandLine { len: 3000, max: 2047 };
        assert_eq!(error(request(0, 3000)), long);
        let mut old = image();
        put(&mut old, VERSION, &0x201u16.to_le_bytes());
        let old = Request { kernel: old, ..Request::default() };
        assert_eq!(error(old), BootError::OldProtocol { major: 2, minor: 1 });
    }
}
