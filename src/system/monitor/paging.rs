//! Page tables as they stand (`info mem`, `info tlb`, addresses of `x`): read without marking anything as accessed.

use super::super::machine::Machine;
use super::registers::Registers;
use std::fmt::Write;
use tulk_base::GuestPa;
use tulk_x86::regs;
use tulk_x86::system::{cr0, cr4, efer};

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const PS: u64 = 1 << 7;
const G: u64 = 1 << 8;
const XD: u64 = 1 << 63;
/// Bits 51:12 of an entry.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// A page that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    pub va: u64,
    pub pa: u64,
    pub len: u64,
    /// Its own entry.
    entry: u64,
    /// Rights that all levels give.
    user: bool,
    write: bool,
    no_exec: bool,
}

/// Reads physical memory; false: nothing is there.
type Read<'a> = Box<dyn Fn(u64, &mut [u8]) -> bool + 'a>;

/// A paging mode with its root.
pub struct Tables<'a> {
    read: Read<'a>,
    /// Log2 of what an entry maps, for each level from the root.
    levels: &'static [u32],
    entry_bytes: u64,
    root: u64,
    /// PAE: the entries of the root, which processors keep.
    pdpte: Option<[u64; 4]>,
    large_4m: bool,
    no_exec: bool,
    lines: u64,
}

/// What a table is entered with.
#[derive(Clone, Copy)]
struct Above {
    va: u64,
    user: bool,
    write: bool,
    no_exec: bool,
}

impl<'a> Tables<'a> {
    /// `None`: paging is off.
    pub fn new(machine: &'a Machine, r: &Registers) -> Option<Tables<'a>> {
        let read = |pa: u64, out: &mut [u8]| machine.pc.memory.phys.read(GuestPa(pa), out);
        Tables::with(Box::new(read), r.get(regs::CR0), r.get(regs::CR3), r.get(regs::CR4), {
            (r.get(regs::EFER), regs::PDPTE.map(|slot| r.get(slot)), machine.pc.address_lines())
        })
    }

    fn with(
        read: Read<'a>,
        cr0: u64,
        cr3: u64,
        cr4: u64,
        (efer, pdpte, lines): (u64, [u64; 4], u64),
    ) -> Option<Tables<'a>> {
        if cr0 & cr0::PG == 0 {
            return None;
        }
        let pae = cr4 & cr4::PAE != 0;
        let long = efer & efer::LMA != 0;
        let levels: &[u32] = match (pae, long, cr4 & cr4::LA57 != 0) {
            (false, ..) => &[22, 12],
            (true, false, _) => &[30, 21, 12],
            (true, true, false) => &[39, 30, 21, 12],
            (true, true, true) => &[48, 39, 30, 21, 12],
        };
        Some(Tables {
            read,
            levels,
            entry_bytes: if pae { 8 } else { 4 },
            root: cr3 & if pae { FRAME } else { 0xffff_f000 },
            pdpte: (pae && !long).then_some(pdpte),
            large_4m: cr4 & cr4::PSE != 0,
            no_exec: pae && efer & efer::NXE != 0,
            lines,
        })
    }

    fn entry(&self, level: usize, table: u64, index: u64) -> u64 {
        if level == 0
            && let Some(pdpte) = &self.pdpte
        {
            return pdpte[index as usize & 3];
        }
        let mut bytes = [0; 8];
        let n = self.entry_bytes as usize;
        let there = (self.read)((table + index * self.entry_bytes) & self.lines, &mut bytes[..n]);
        if there { u64::from_le_bytes(bytes) } else { 0 }
    }

    fn entries(&self, level: usize) -> u64 {
        match (level, self.entry_bytes, &self.pdpte) {
            (0, _, Some(_)) => 4,
            (_, 4, _) => 1024,
            _ => 512,
        }
    }

    /// The page or the table that an entry has, with the rights so far.
    fn step(&self, level: usize, e: u64, above: Above) -> Result<Page, (u64, Above)> {
        let log2 = self.levels[level];
        // The registers of PAE paging have no rights.
        let rights = !(level == 0 && self.pdpte.is_some());
        let here = Above {
            va: above.va,
            user: above.user && (!rights || e & US != 0),
            write: above.write && (!rights || e & RW != 0),
            no_exec: above.no_exec || rights && self.no_exec && e & XD != 0,
        };
        let may_be_large = match self.entry_bytes {
            4 => self.large_4m,
            _ => rights && log2 <= 30,
        };
        let frame = if self.entry_bytes == 4 { e & 0xffff_f000 } else { e & FRAME };
        if log2 > 12 && !(e & PS != 0 && may_be_large) {
            return Err((frame, here));
        }
        let pa = match (self.entry_bytes, log2) {
            (4, 22) => e & 0xffc0_0000 | (e >> 13 & 0xff) << 32,
            _ => frame & !((1 << log2) - 1),
        };
        let Above { va, user, write, no_exec } = here;
        Ok(Page { va, pa, len: 1 << log2, entry: e, user, write, no_exec })
    }

    fn top() -> Above {
        Above { va: 0, user: true, write: true, no_exec: false }
    }

    /// The page of an address.
    pub fn translate(&self, va: u64) -> Option<Page> {
        let (mut table, mut above) = (self.root, Tables::top());
        for (level, log2) in self.levels.iter().enumerate() {
            let index = va >> log2 & (self.entries(level) - 1);
            let e = self.entry(level, table, index);
            if e & P == 0 {
                return None;
            }
            above.va = va >> log2 << log2;
            match self.step(level, e, above) {
                Ok(page) => return Some(page),
                Err((next, here)) => (table, above) = (next, here),
            }
        }
        None
    }

    /// Gives pages in order of their addresses until `each` says false. Tables may lie: at most `budget` entries are
    /// read.
    pub fn pages(&self, budget: &mut u64, each: &mut dyn FnMut(Page) -> bool) -> bool {
        self.walk(0, self.root, Tables::top(), budget, each)
    }

    fn walk(
        &self,
        level: usize,
        table: u64,
        above: Above,
        budget: &mut u64,
        each: &mut dyn FnMut(Page) -> bool,
    ) -> bool {
        let log2 = self.levels[level];
        for index in 0..self.entries(level) {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let e = self.entry(level, table, index);
            if e & P == 0 {
                continue;
            }
            let mut va = above.va + (index << log2);
            // Canonical addresses of long mode.
            if level == 0 && self.levels.len() >= 4 && index >= 256 {
                va |= u64::MAX << (log2 + 9);
            }
            let go_on = match self.step(level, e, Above { va, ..above }) {
                Ok(page) => each(page),
                Err((next, here)) => self.walk(level + 1, next, here, budget, each),
            };
            if !go_on {
                return false;
            }
        }
        true
    }
}

/// Entries that one command reads at most, and lines that it shows.
const BUDGET: u64 = 1 << 22;
const MOST_LINES: usize = 1 << 14;
const CUT: &str = "... there is more\n";
const OFF: &str = "PG disabled\n";

/// `info tlb`: every page with its own entry's flags.
pub fn tlb(machine: &Machine, r: &Registers) -> String {
    let Some(tables) = Tables::new(machine, r) else { return OFF.into() };
    let (mut out, mut lines, mut budget) = (String::new(), 0, BUDGET);
    let all = tables.pages(&mut budget, &mut |page| {
        let flag = |bit: u64, c: char| if page.entry & bit != 0 { c } else { '-' };
        let letters: String = [
            (XD, 'X'),
            (G, 'G'),
            (PS, 'P'),
            (1 << 6, 'D'),
            (1 << 5, 'A'),
            (1 << 4, 'C'),
            (1 << 3, 'T'),
            (US, 'U'),
            (RW, 'W'),
        ]
        .map(|(bit, c)| flag(bit, c))
        .iter()
        .collect();
        let _ = writeln!(out, "{:016x}: {:016x} {letters}", page.va, page.pa);
        lines += 1;
        lines < MOST_LINES
    });
    if all { out } else { out + CUT }
}

/// `info mem`: runs of pages with the same rights.
pub fn mem(machine: &Machine, r: &Registers) -> String {
    let Some(tables) = Tables::new(machine, r) else { return OFF.into() };
    runs(&tables)
}

fn runs(tables: &Tables<'_>) -> String {
    let (mut out, mut lines, mut budget) = (String::new(), 0, BUDGET);
    let mut run: Option<(u64, u64, [char; 3])> = None;
    let mut show = |(start, len, letters): (u64, u64, [char; 3])| {
        let letters: String = letters.iter().collect();
        let end = start.wrapping_add(len);
        let _ = writeln!(out, "{start:016x}-{end:016x} {len:016x} {letters}");
    };
    let all = tables.pages(&mut budget, &mut |page| {
        let letter = |on, c| if on { c } else { '-' };
        let letters = [letter(page.user, 'u'), 'r', letter(page.write, 'w')];
        match &mut run {
            Some((start, len, old)) if *old == letters && start.wrapping_add(*len) == page.va => {
                *len += page.len;
            }
            other => {
                if let Some(done) = other.replace((page.va, page.len, letters)) {
                    show(done);
                    lines += 1;
                }
            }
        }
        lines < MOST_LINES
    });
    run.into_iter().for_each(&mut show);
    if all { out } else { out + CUT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(words: &[(u64, u64)]) -> Read<'static> {
        let mut bytes = vec![0; 0x10000];
        for (at, word) in words {
            bytes[*at as usize..*at as usize + 8].copy_from_slice(&word.to_le_bytes());
        }
        Box::new(move |pa, out| {
            let Some(from) = bytes.get(pa as usize..pa as usize + out.len()) else { return false };
            out.copy_from_slice(from);
            true
        })
    }

    #[test]
    fn four_levels() {
        let words = [
            (0x1000, 0x2007),
            (0x1000 + 511 * 8, 0x2003),
            (0x2000, 0x3007),
            (0x3000, 0x4007),
            (0x3008, 0x20_0000 | 0x83),
            (0x4000, 0x9007),
            (0x4008, 0xa000 | 5),
            (0x4010, 0xb000 | 5),
        ];
        let long = (efer::LMA, [0; 4], u64::MAX);
        let t = Tables::with(memory(&words), cr0::PG, 0x1000, cr4::PAE, long).unwrap();
        let page = t.translate(0x1234).unwrap();
        assert_eq!((page.pa, page.len, page.user, page.write), (0xa000, 4096, true, false));
        let page = t.translate(0x2f_1234).unwrap();
        assert_eq!((page.va, page.pa, page.len), (0x20_0000, 0x20_0000, 2 << 20));
        assert!(!page.user && page.write);
        assert_eq!(t.translate(0x40_0000), None);
        let high = "ffffff8000000000-ffffff8000001000 0000000000001000 -rw\n\
                    ffffff8000001000-ffffff8000003000 0000000000002000 -r-\n\
                    ffffff8000200000-ffffff8000400000 0000000000200000 -rw\n";
        let low = "0000000000000000-0000000000001000 0000000000001000 urw\n\
                   0000000000001000-0000000000003000 0000000000002000 ur-\n\
                   0000000000200000-0000000000400000 0000000000200000 -rw\n";
        assert_eq!(runs(&t), format!("{low}{high}"));
    }

    #[test]
    fn other_modes() {
        let words = [(0x1000, 0x0040_0083 | 0x2007 << 32), (0x2000, 0x5003)];
        let t = Tables::with(memory(&words), cr0::PG, 0x1000, cr4::PSE, (0, [0; 4], u64::MAX));
        let t = t.unwrap();
        assert_eq!(t.translate(0x1234).unwrap().pa, 0x40_0000);
        assert_eq!(t.translate(0x40_0abc).unwrap().pa, 0x5000);
        let pdpte = [0x3001, 0, 0, 0];
        let words = [(0x3000, 0x4007), (0x4000, 0x7007)];
        let t = Tables::with(memory(&words), cr0::PG, 0, cr4::PAE, (0, pdpte, u64::MAX)).unwrap();
        let page = t.translate(0x10).unwrap();
        assert_eq!((page.pa, page.user, page.write), (0x7000, true, true));
        assert_eq!(t.translate(1 << 30), None);
        assert!(Tables::with(memory(&[]), 0, 0, 0, (0, pdpte, 0)).is_none());
    }

    #[test]
    fn tables_that_point_at_themselves_end() {
        let words: Vec<_> = (0..512).map(|n| (0x1000 + 8 * n, 0x1007)).collect();
        let long = (efer::LMA, [0; 4], u64::MAX);
        let t = Tables::with(memory(&words), cr0::PG, 0x1000, cr4::PAE, long).unwrap();
        // The tables are their own pages: all is mapped, and more than anybody wants to see.
        let text = runs(&t);
        assert!(text.ends_with(CUT));
        assert!(text.starts_with("0000000000000000-"));
    }
}
