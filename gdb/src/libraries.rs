//! The libraries that a program's dynamic linker has loaded, from the list that it keeps for debuggers (`link.h`: `struct
//! r_debug`, `struct link_map`), as GDB wants to hear of them (the GDB manual, "Library List Format for SVR4 Targets").
//!
//! Whatever is in the guest's memory, this ends and takes little: the list is cut at [`MOST`] libraries and [`LONGEST`] bytes of
//! a name.

use crate::{Debuggee, Tid};
use std::fmt::Write;

/// Libraries.
const MOST: usize = 4096;
/// Bytes of a path.
const LONGEST: usize = 4096;
/// Entries of the auxiliary vector (System V ABI), of program headers, of the dynamic section.
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const PT_DYNAMIC: u64 = 2;
const PT_PHDR: u64 = 6;
const DT_DEBUG: u64 = 21;
/// Entries of a dynamic section that are looked at.
const MOST_DYNAMIC: u64 = 1024;

/// A little-endian guest's memory, in words of its size.
struct Memory<'a> {
    guest: &'a mut dyn Debuggee,
    tid: Tid,
    /// Bytes of a word.
    word: u64,
}

impl Memory<'_> {
    fn number(&mut self, va: u64, bytes: usize) -> Option<u64> {
        let mut out = [0; 8];
        let read = self.guest.read_memory(self.tid, va, &mut out[..bytes]);
        (read == bytes).then(|| u64::from_le_bytes(out))
    }
    /// The `n`th word from `va` on.
    fn word(&mut self, va: u64, n: u64) -> Option<u64> {
        self.number(va.checked_add(n * self.word)?, self.word as usize)
    }
    fn text(&mut self, va: u64) -> Option<Vec<u8>> {
        let mut text = vec![0; LONGEST];
        let read = self.guest.read_memory(self.tid, va, &mut text);
        text.truncate(read);
        text.truncate(text.iter().position(|b| *b == 0)?);
        Some(text)
    }

    /// Where the program's dynamic section is; none in a static program.
    fn dynamic(&mut self, auxv: &[u8]) -> Option<u64> {
        let size = self.word as usize;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | *b as u64);
        let entry = |kind: u64| {
            let mut pairs = auxv.chunks_exact(2 * size).map(|pair| pair.split_at(size));
            pairs.find(|(k, _)| number(k) == kind).map(|(_, value)| number(value))
        };
        let (headers, size, count) = (entry(AT_PHDR)?, entry(AT_PHENT)?, entry(AT_PHNUM)?);
        // Elf32_Phdr has its flags behind.
        let at_address = if self.word == 8 { 16 } else { 8 };
        let (mut base, mut dynamic) = (0, None);
        for n in 0..count.min(1 << 16) {
            let header = headers.checked_add(n.checked_mul(size)?)?;
            let kind = self.number(header, 4)?;
            if kind == PT_PHDR || kind == PT_DYNAMIC {
                let address = self.number(header.checked_add(at_address)?, self.word as usize)?;
                match kind {
                    PT_PHDR => base = headers.wrapping_sub(address),
                    _ => dynamic = Some(address),
                }
            }
        }
        dynamic.map(|address| base.wrapping_add(address))
    }

    fn debug(&mut self, auxv: &[u8]) -> Option<u64> {
        let dynamic = self.dynamic(auxv)?;
        for n in 0..MOST_DYNAMIC {
            match self.word(dynamic, 2 * n)? {
                0 => break,
                DT_DEBUG => return self.word(dynamic, 2 * n + 1).filter(|at| *at != 0),
                _ => {}
            }
        }
        None
    }
}

fn escaped(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The list in XML, empty before the linker has run. `auxv`: the program's auxiliary vector; `word`: bytes of a pointer.
pub fn svr4(guest: &mut dyn Debuggee, auxv: &[u8], word: u64) -> String {
    let tid = guest.threads().first().copied().unwrap_or(0);
    let mut memory = Memory { guest, tid, word };
    // r_version is an int in a word.
    let first = memory.debug(auxv).and_then(|debug| memory.word(debug, 1));
    let mut map = first.filter(|at| *at != 0);
    let mut xml = String::from("<library-list-svr4 version=\"1.0\"");
    if let Some(main) = map {
        let _ = write!(xml, " main-lm=\"{main:#x}\"");
    }
    xml.push_str(">\n");
    for n in 0..MOST {
        let Some(at) = map else { break };
        let fields = [0, 1, 2, 3].map(|n| memory.word(at, n));
        let [Some(address), Some(name), Some(dynamic), Some(next)] = fields else { break };
        // The first is the program.
        if n > 0
            && let Some(name) = memory.text(name).filter(|name| !name.is_empty())
        {
            let _ = writeln!(
                xml,
                "<library name=\"{}\" lm=\"{at:#x}\" l_addr=\"{address:#x}\" l_ld=\"{dynamic:#x}\" lmid=\"0x0\"/>",
                escaped(&name)
            );
        }
        map = Some(next).filter(|at| *at != 0);
    }
    xml.push_str("</library-list-svr4>\n");
    xml
}
