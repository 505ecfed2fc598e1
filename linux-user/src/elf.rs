//! ELF headers of guest programs, read by hand because any byte of them may lie.
//!
//! Nothing here indexes, unwraps or allocates by a number from the file; every length is checked against what the
//! file has. The tests mutate and truncate valid headers. System V gABI chapters 4 (header) and 5 (program header).

use crate::abi::GUESTS;
use std::fmt;
use thiserror::Error;

/// `e_machine`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine(pub u16);

impl Machine {
    pub const I386: Machine = Machine(3);
    pub const X86_64: Machine = Machine(62);
    pub const AARCH64: Machine = Machine(183);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElfClass {
    Elf32,
    Elf64,
}

/// Names of the machines that people have programs for.
const MACHINES: &[(u16, &str)] = &[
    (2, "SPARC"),
    (3, "Intel 80386"),
    (4, "Motorola 68000"),
    (8, "MIPS"),
    (15, "PA-RISC"),
    (18, "SPARC v8plus"),
    (20, "PowerPC"),
    (21, "PowerPC64"),
    (22, "IBM S/390"),
    (40, "Arm (32-bit)"),
    (42, "SuperH"),
    (43, "SPARC V9"),
    (50, "Itanium"),
    (62, "x86-64"),
    (94, "Xtensa"),
    (183, "AArch64"),
    (189, "MicroBlaze"),
    (195, "ARC"),
    (243, "RISC-V"),
    (252, "C-SKY"),
    (258, "LoongArch"),
];

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MACHINES.iter().find(|m| m.0 == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "machine {}", self.0),
        }
    }
}

/// What is wrong with a program file.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
pub enum ElfError {
    #[error("not an ELF program (it starts with {0})")]
    NotElf(String),
    #[error("the file is empty")]
    Empty,
    #[error("the ELF file is truncated: {0}")]
    Truncated(&'static str),
    #[error("the ELF header is invalid: {0}")]
    Invalid(&'static str),
    #[error(
        "a program for {machine} ({bits}-bit, {order}-endian), which tulk does not run; it runs {known}"
    )]
    Machine { machine: Machine, bits: u32, order: &'static str, known: String },
    #[error(
        "a program for {machine}, but this command runs {wanted} programs; start it with `tulk run`"
    )]
    OtherGuest { machine: Machine, wanted: String },
    #[error("not a program but {0}")]
    NotExecutable(&'static str),
}

impl ElfError {
    /// A good program that only is for no guest: perhaps for the host.
    pub fn is_foreign(&self) -> bool {
        matches!(self, ElfError::Machine { .. })
    }
}

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub vaddr: u64,
    pub offset: u64,
    pub file_size: u64,
    pub mem_size: u64,
    /// [`tulk_softmmu::intervals`] protection bits.
    pub prot: u32,
}

/// A checked program header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    pub machine: Machine,
    pub class: ElfClass,
    pub big_endian: bool,
    /// `ET_DYN`: can be placed anywhere.
    pub relocatable: bool,
    pub entry: u64,
    /// Offset, entry size and number of program headers in the file.
    pub phoff: u64,
    pub phentsize: u16,
    pub phnum: u16,
    /// Address of the program headers when a segment maps them.
    pub phdr: Option<u64>,
    pub segments: Vec<Segment>,
    /// Offset and length of the interpreter's path.
    pub interp: Option<(u64, u64)>,
    /// `PT_GNU_STACK` asks for an executable stack; without the header the ABI's default holds.
    pub exec_stack: Option<bool>,
    /// Largest alignment of a segment.
    pub align: u64,
}

/// Bytes of a file with checked reads in its byte order.
struct Reader<'a> {
    bytes: &'a [u8],
    big: bool,
    wide: bool,
}

impl Reader<'_> {
    fn uint(&self, at: usize, len: usize) -> Option<u64> {
        let field = self.bytes.get(at..at.checked_add(len)?)?;
        let fold = |v: u64, b: &u8| v << 8 | *b as u64;
        Some(if self.big { field.iter().fold(0, fold) } else { field.iter().rev().fold(0, fold) })
    }
    /// A field at its offset in the 32-bit and in the 64-bit form; 4 or 8 bytes wide there.
    fn word(&self, at32: usize, at64: usize) -> Option<u64> {
        if self.wide { self.uint(at64, 8) } else { self.uint(at32, 4) }
    }
    fn half(&self, at32: usize, at64: usize) -> Option<u16> {
        self.uint(if self.wide { at64 } else { at32 }, 2).map(|v| v as u16)
    }
}

const TRUNCATED_HEADER: ElfError = ElfError::Truncated("it ends inside the file header");

/// The first step: the file header from the first bytes of a file. `segments` and what depends on them are empty.
pub fn parse_header(start: &[u8]) -> Result<Image, ElfError> {
    if start.is_empty() {
        return Err(ElfError::Empty);
    }
    if !start.starts_with(b"\x7fELF") {
        if b"\x7fELF".starts_with(start) {
            return Err(TRUNCATED_HEADER);
        }
        let head = &start[..start.len().min(4)];
        let text = head.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        return Err(ElfError::NotElf(text));
    }
    let ident = |i: usize| start.get(i).copied().ok_or(TRUNCATED_HEADER);
    let class = match ident(4)? {
        1 => ElfClass::Elf32,
        2 => ElfClass::Elf64,
        _ => return Err(ElfError::Invalid("unknown class")),
    };
    let big_endian = match ident(5)? {
        1 => false,
        2 => true,
        _ => return Err(ElfError::Invalid("unknown byte order")),
    };
    let wide = class == ElfClass::Elf64;
    let r = Reader { bytes: start, big: big_endian, wide };
    (|| {
        Some(Image {
            machine: Machine(r.half(18, 18)?),
            class,
            big_endian,
            relocatable: r.half(16, 16)? == 3,
            entry: r.word(24, 24)?,
            phoff: r.word(28, 32)?,
            phentsize: r.half(42, 54)?,
            phnum: r.half(44, 56)?,
            phdr: None,
            segments: Vec::new(),
            interp: None,
            exec_stack: None,
            align: 4096,
        })
        .zip(r.half(16, 16))
    })()
    .ok_or(TRUNCATED_HEADER)
    .and_then(|(image, kind)| match kind {
        2 | 3 => Ok(image),
        1 => Err(ElfError::NotExecutable("an object file; link it first")),
        4 => Err(ElfError::NotExecutable("a core dump")),
        _ => Err(ElfError::Invalid("unknown file type")),
    })
}

impl Image {
    /// Bytes that the program headers take in the file.
    pub fn phdr_bytes(&self) -> usize {
        self.phentsize as usize * self.phnum as usize
    }

    /// Checks that a guest of ours runs this program.
    pub fn guest(&self) -> Result<&'static dyn crate::abi::GuestAbi, ElfError> {
        crate::abi::for_machine(self.machine, self.class, self.big_endian).ok_or_else(|| {
            ElfError::Machine {
                machine: self.machine,
                bits: if self.class == ElfClass::Elf64 { 64 } else { 32 },
                order: if self.big_endian { "big" } else { "little" },
                known: GUESTS.iter().map(|g| g.name()).collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// The second step: the program headers from the bytes at `phoff`. `limit` bounds guest addresses.
    pub fn parse_segments(
        mut self,
        phdrs: &[u8],
        file_len: u64,
        limit: u64,
    ) -> Result<Image, ElfError> {
        let wide = self.class == ElfClass::Elf64;
        let size = if wide { 56 } else { 32 };
        if self.phnum == 0 {
            return Err(ElfError::NotExecutable("a file without program headers"));
        }
        if (self.phentsize as usize) != size {
            return Err(ElfError::Invalid("program headers have the wrong size"));
        }
        if phdrs.len() < self.phdr_bytes() {
            return Err(ElfError::Truncated("it ends inside the program headers"));
        }
        let mut last_end = 0;
        for header in phdrs.chunks_exact(size).take(self.phnum as usize) {
            let r = Reader { bytes: header, big: self.big_endian, wide };
            // The size was checked, so every field is there.
            let word = |a, b| r.word(a, b).ok_or(TRUNCATED_HEADER);
            let kind = r.uint(0, 4).ok_or(TRUNCATED_HEADER)? as u32;
            let flags = r.uint(if wide { 4 } else { 24 }, 4).ok_or(TRUNCATED_HEADER)?;
            let (offset, vaddr) = (word(4, 8)?, word(8, 16)?);
            let (file_size, mem_size, align) = (word(16, 32)?, word(20, 40)?, word(28, 48)?);
            match kind {
                1 => {
                    if mem_size == 0 {
                        continue;
                    }
                    let end = vaddr.checked_add(mem_size).filter(|&e| e <= limit);
                    let end =
                        end.ok_or(ElfError::Invalid("a segment is outside the address space"))?;
                    if file_size > mem_size {
                        return Err(ElfError::Invalid(
                            "a segment is larger in the file than in memory",
                        ));
                    }
                    if offset.checked_add(file_size).is_none_or(|e| e > file_len) {
                        return Err(ElfError::Truncated("it ends inside a segment"));
                    }
                    if (offset ^ vaddr) & 4095 != 0 && file_size != 0 {
                        return Err(ElfError::Invalid(
                            "a segment's offset does not fit its address",
                        ));
                    }
                    if vaddr < last_end {
                        return Err(ElfError::Invalid("segments overlap or are out of order"));
                    }
                    last_end = end;
                    if align.is_power_of_two() && align <= 1 << 30 {
                        self.align = self.align.max(align);
                    }
                    // PF_X, PF_W, PF_R are 1, 2, 4; protection bits are the other way round.
                    let prot = (flags >> 2 & 1 | flags & 2 | (flags & 1) << 2) as u32;
                    self.segments.push(Segment { vaddr, offset, file_size, mem_size, prot });
                }
                3 => {
                    if !(2..=4096).contains(&file_size) {
                        return Err(ElfError::Invalid("the interpreter's path has a wild length"));
                    }
                    if offset.checked_add(file_size).is_none_or(|e| e > file_len) {
                        return Err(ElfError::Truncated("it ends inside the interpreter's path"));
                    }
                    self.interp = Some((offset, file_size));
                }
                0x6474_e551 => self.exec_stack = Some(flags & 1 != 0),
                _ => {}
            }
        }
        if self.segments.is_empty() {
            return Err(ElfError::NotExecutable("a file without loadable segments"));
        }
        let table_end = self.phoff.saturating_add(self.phdr_bytes() as u64);
        self.phdr = self
            .segments
            .iter()
            .find(|s| self.phoff >= s.offset && table_end <= s.offset.saturating_add(s.file_size))
            .map(|s| s.vaddr + (self.phoff - s.offset));
        Ok(self)
    }

    /// First page and end of the memory that the segments cover.
    pub fn span(&self) -> (u64, u64) {
        let start = self.segments.first().map_or(0, |s| s.vaddr & !4095);
        let end = self.segments.last().map_or(0, |s| s.vaddr + s.mem_size);
        (start, end)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small AArch64 program: header, PT_LOAD (text), PT_LOAD (data with bss), PT_INTERP, PT_GNU_STACK.
    pub(crate) fn sample() -> Vec<u8> {
        let mut b = vec![0u8; 0x2000];
        b[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        let mut put = |at: usize, len: usize, v: u64| {
            b[at..at + len].copy_from_slice(&v.to_le_bytes()[..len]);
        };
        put(16, 2, 3);
        put(18, 2, 183);
        put(20, 4, 1);
        put(24, 8, 0x200);
        put(32, 8, 64);
        put(52, 2, 64);
        put(54, 2, 56);
        put(56, 2, 4);
        let rows = [
            (1u64, 5u64, 0u64, 0u64, 0x1000u64, 0x1000u64, 0x1000u64),
            (1, 6, 0x1000, 0x11000, 0x800, 0x3000, 0x1_0000),
            (3, 4, 0x300, 0x300, 0x1c, 0x1c, 1),
            (0x6474_e551, 6, 0, 0, 0, 0, 16),
        ];
        for (i, (kind, flags, offset, vaddr, filesz, memsz, align)) in rows.into_iter().enumerate()
        {
            let at = 64 + 56 * i;
            put(at, 4, kind);
            put(at + 4, 4, flags);
            for (k, v) in [offset, vaddr, vaddr, filesz, memsz, align].into_iter().enumerate() {
                put(at + 8 + 8 * k, 8, v);
            }
        }
        b[0x300..0x31c].copy_from_slice(b"/lib/ld-linux-aarch64.so.1\0\0");
        b
    }

    fn parse(b: &[u8]) -> Result<Image, ElfError> {
        let image = parse_header(&b[..b.len().min(64)])?;
        let at = (image.phoff as usize).min(b.len());
        let end = at.saturating_add(image.phdr_bytes()).min(b.len());
        image.parse_segments(&b[at..end], b.len() as u64, 1 << 47)
    }

    #[test]
    fn a_valid_program() {
        let image = parse(&sample()).unwrap();
        assert!(image.relocatable);
        assert_eq!((image.machine, image.entry, image.phdr), (Machine::AARCH64, 0x200, Some(64)));
        assert_eq!(image.segments.iter().map(|s| s.prot).collect::<Vec<_>>(), [5, 3]);
        assert_eq!(image.span(), (0, 0x14000));
        assert_eq!(image.interp, Some((0x300, 0x1c)));
        assert_eq!((image.exec_stack, image.align), (Some(false), 0x1_0000));
        assert_eq!(image.guest().unwrap().name(), "aarch64");
    }

    #[test]
    fn every_truncation_is_an_error_and_no_panic() {
        let b = sample();
        for len in 0..0x1800 {
            assert!(parse(&b[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn mutations_never_panic() {
        let good = sample();
        for at in 0..64 + 4 * 56 {
            for value in [0, 1, 2, 3, 0x20, 0x38, 0x7f, 0x80, 0xfe, 0xff] {
                let mut b = good.clone();
                b[at] = value;
                if let Ok(image) = parse(&b) {
                    let (start, end) = image.span();
                    assert!(start < end && end <= 1 << 47);
                    let _ = image.guest();
                }
            }
        }
        let mut rng = 1u64;
        for _ in 0..20_000 {
            let mut b = good.clone();
            for _ in 0..4 {
                rng = rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                b[4 + (rng >> 33) as usize % 284] = (rng >> 20) as u8;
            }
            let _ = parse(&b);
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = |r: Result<Image, ElfError>| {
            r.and_then(|i| i.guest().map(drop)).unwrap_err().to_string()
        };
        assert_eq!(
            text(parse_header(b"#!/bin/sh")),
            "not an ELF program (it starts with 23 21 2f 62)"
        );
        let mut b = sample();
        b[18] = 243;
        let e = text(parse(&b));
        assert!(
            e.starts_with("a program for RISC-V (64-bit, little-endian), which tulk does not run"),
            "{e}"
        );
        let mut b = sample();
        b[16] = 1;
        assert!(text(parse(&b)).contains("object file"));
    }
}
