//! Page walks against a second description of the manual's tables (volume 3, 4.3 to 4.7): random tables in all modes,
//! and single cases by hand.

use crate::machine::Pc;
use crate::rng::Rng;
use tulk_base::{AccessKind, FaultCause, MemFault};
use tulk_x86::regs;
use tulk_x86::system::{cr0, cr4, efer, mmu};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Paging {
    Off,
    Bits32,
    Pae,
    Four,
    Five,
}

/// What an access should do: the physical address, or the error code, or `None` for an address that is not canonical.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    At { pa: u64, log2: u8, global: bool },
    Fault(u32),
    NotCanonical,
}

struct Case {
    paging: Paging,
    control: u64,
    extended: u64,
    efer: u64,
    pkru: u32,
    cr3: u64,
    va: u64,
    kind: AccessKind,
    mmu: u8,
}

/// A format of entries: which bits are an address, and which must be zero, as figures 4-4 to 4-11 draw them.
struct Level {
    shift: u32,
    /// Name of the format of an entry that maps a page, if this level has them.
    page: bool,
}

fn range(high: u32, low: u32) -> u64 {
    (low..=high).fold(0, |all, bit| all | 1 << bit)
}

/// The reference, written level by level.
fn expect(ram: &dyn Fn(u64, u32) -> u64, pdptes: [u64; 4], c: &Case) -> Expected {
    const M: u32 = 40;
    let user_access = c.mmu == mmu::USER;
    let nxe = c.efer & efer::NXE != 0 && c.extended & cr4::PAE != 0;
    let smep = c.extended & cr4::SMEP != 0;
    let mut base_code = 0;
    if c.kind == AccessKind::Write {
        base_code |= 2;
    }
    if user_access {
        base_code |= 4;
    }
    if c.kind == AccessKind::Exec && (nxe || smep) {
        base_code |= 16;
    }
    let width = match c.paging {
        Paging::Five => Some(57),
        Paging::Four => Some(48),
        _ => None,
    };
    if let Some(width) = width {
        let top = (c.va as i64) >> (width - 1);
        if top != 0 && top != -1 {
            return Expected::NotCanonical;
        }
    }
    let va = if width.is_some() { c.va } else { c.va & 0xffff_ffff };
    let levels: Vec<Level> = match c.paging {
        Paging::Off => return Expected::At { pa: va, log2: 0, global: false },
        Paging::Bits32 => vec![
            Level { shift: 22, page: c.extended & cr4::PSE != 0 },
            Level { shift: 12, page: true },
        ],
        Paging::Pae => vec![Level { shift: 21, page: true }, Level { shift: 12, page: true }],
        Paging::Four | Paging::Five => {
            let mut all = vec![
                Level { shift: 39, page: false },
                Level { shift: 30, page: true },
                Level { shift: 21, page: true },
                Level { shift: 12, page: true },
            ];
            if c.paging == Paging::Five {
                all.insert(0, Level { shift: 48, page: false });
            }
            all
        }
    };
    let small = c.paging == Paging::Bits32;
    let (size, mask) = if small { (4, 0x3ff) } else { (8, 0x1ff) };
    let mut table = match c.paging {
        Paging::Bits32 => c.cr3 & range(31, 12),
        Paging::Pae => {
            let e = pdptes[(va >> 30) as usize & 3];
            if e & 1 == 0 {
                return Expected::Fault(base_code);
            }
            e & range(M - 1, 12)
        }
        _ => c.cr3 & range(M - 1, 12),
    };
    let (mut u, mut w, mut x) = (true, true, true);
    for level in &levels {
        let e = ram(table + (va >> level.shift & mask) * size, size as u32);
        if e & 1 == 0 {
            return Expected::Fault(base_code);
        }
        let is_last = level.shift == 12;
        let is_page = is_last || level.page && e & 0x80 != 0;
        let mut must_be_zero = 0;
        if small {
            if level.shift == 22 && is_page {
                must_be_zero |= range(21, 21);
            }
        } else {
            must_be_zero |= match c.paging {
                Paging::Pae => range(62, M),
                _ => range(51, M),
            };
            if !nxe {
                must_be_zero |= 1 << 63;
            }
            must_be_zero |= match (level.shift, is_page) {
                (39 | 48, _) => 0x80,
                (30, true) => range(29, 13),
                (21, true) => range(20, 13),
                _ => 0,
            };
        }
        if e & must_be_zero != 0 {
            return Expected::Fault(base_code | 1 | 8);
        }
        u &= e & 4 != 0;
        w &= e & 2 != 0;
        x &= !(nxe && e >> 63 != 0);
        if !is_page {
            table = e & if small { range(31, 12) } else { range(M - 1, 12) };
            continue;
        }
        // 4.6: access rights.
        let smap_hides = match c.mmu {
            mmu::KERNEL_SMAP => true,
            mmu::SYSTEM => c.extended & cr4::SMAP != 0,
            _ => false,
        };
        let wp = c.control & cr0::WP != 0;
        let mut allowed = match (user_access, u, c.kind) {
            (true, false, _) => false,
            (true, true, AccessKind::Read) => true,
            (true, true, AccessKind::Write) => w,
            (_, false, AccessKind::Exec) => x,
            (true, true, AccessKind::Exec) => x,
            (false, true, AccessKind::Exec) => x && !smep,
            (false, true, AccessKind::Read) => !smap_hides,
            (false, true, AccessKind::Write) => !smap_hides && (w || !wp),
            (false, false, AccessKind::Read) => true,
            (false, false, AccessKind::Write) => w || !wp,
        };
        // 4.6.2: protection keys.
        let mut by_key = false;
        let has_keys = c.extended & cr4::PKE != 0 && width.is_some();
        if has_keys && u && c.kind != AccessKind::Exec {
            let key = e >> 59 & 15;
            let disable = c.pkru >> (2 * key) & 1 != 0;
            let read_only = c.pkru >> (2 * key + 1) & 1 != 0;
            by_key = disable || c.kind == AccessKind::Write && read_only && (user_access || wp);
            allowed &= !by_key;
        }
        if !allowed {
            return Expected::Fault(base_code | 1 | if by_key { 32 } else { 0 });
        }
        let offset = range(level.shift - 1, 0);
        let frame = match (small, level.shift) {
            (true, 22) => (e & range(31, 22)) | (e >> 13 & 0xff) << 32,
            (true, _) => e & range(31, 12),
            _ => e & range(M - 1, 12) & !offset,
        };
        let global = e & 0x100 != 0 && c.extended & cr4::PGE != 0;
        return Expected::At { pa: frame | va & offset, log2: level.shift as u8, global };
    }
    unreachable!("the last level maps a page")
}

/// The tables lie in these pages; entries point at one another at random.
const PAGES: u64 = 8;

/// An entry whose bits are likely to be legal, in one of the pages or far off.
fn entry(r: &mut Rng, small: bool) -> u64 {
    let mut e = (1 + r.below(PAGES)) << 12;
    if r.chance(20) {
        e = r.next() & if small { 0xffff_f000 } else { 0xff_ffff_f000 };
    }
    // P, R/W, U/S mostly set; PWT, PCD, A, D, PS, G and ignored bits sometimes.
    for (bit, odds) in [(0, 40), (1, 6), (2, 4)] {
        e |= (!r.chance(odds) as u64) << bit;
    }
    for (bit, odds) in [(3, 4), (4, 4), (5, 2), (6, 2), (7, 5), (8, 3), (9, 3), (11, 3)] {
        e |= (r.chance(odds) as u64) << bit;
    }
    if e & 0x80 != 0 && !r.chance(5) {
        // A large page needs low address bits of zero.
        e &= !0x3fff_e000;
    }
    if !small {
        for (bit, odds) in [(63, 6), (40, 60), (51, 60), (52, 8), (58, 8), (62, 20)] {
            e |= (r.chance(odds) as u64) << bit;
        }
        e |= if r.chance(3) { r.below(16) << 59 } else { 0 };
    }
    e
}

fn set_up(pc: &mut Pc, c: &Case) {
    pc.set(regs::CR0, c.control);
    pc.set(regs::CR4, c.extended);
    pc.set(regs::EFER, c.efer);
    pc.set(regs::PKRU, c.pkru as u64);
    pc.set(regs::CR3, c.cr3);
}

#[test]
fn random_tables_give_what_the_manual_says() {
    let mut r = Rng::new(0x1234_5678_9abc_def1);
    let mut pc = Pc::new("max");
    let (mut mapped, mut faults) = (0, [0u32; 64]);
    for round in 0..30_000 {
        let paging = [Paging::Off, Paging::Bits32, Paging::Pae, Paging::Four, Paging::Five]
            [if round % 50 == 0 { 0 } else { 1 + r.below(4) as usize }];
        let small = paging == Paging::Bits32;
        let mut extended = 0;
        for bit in [cr4::PSE, cr4::PGE, cr4::SMEP, cr4::SMAP, cr4::PKE] {
            extended |= if r.chance(2) { bit } else { 0 };
        }
        let mut efer = if r.chance(2) { efer::NXE } else { 0 };
        let mut control = cr0::PE | if r.chance(2) { cr0::WP } else { 0 };
        if paging != Paging::Off {
            control |= cr0::PG;
        }
        if !matches!(paging, Paging::Off | Paging::Bits32) {
            extended |= cr4::PAE;
        }
        if matches!(paging, Paging::Four | Paging::Five) {
            efer |= efer::LME | efer::LMA;
        }
        if paging == Paging::Five {
            extended |= cr4::LA57;
        }
        for at in (0x1000..0x1000 * (PAGES + 1)).step_by(if small { 4 } else { 8 }) {
            // Only these indexes are used.
            if round < 8 || at & 0xfff < 0x80 {
                let e = entry(&mut r, small);
                pc.outside.write(at, if small { 4 } else { 8 }, e as u128);
            }
        }
        // Few indexes, so that tables are used as several levels.
        let mut va = r.next() & 0xfff;
        let (first, step, count) = if small { (12, 10, 2) } else { (12, 9, 5) };
        for level in 0..count {
            va |= r.below(16) << (first + step * level);
        }
        if r.chance(20) {
            va = r.next();
        }
        let mut pdptes = [0; 4];
        for (slot, e) in regs::PDPTE.into_iter().zip(&mut pdptes) {
            *e = (1 + r.below(PAGES)) << 12 | !r.chance(10) as u64;
            pc.set(slot, *e);
        }
        let c = Case {
            paging,
            control,
            extended,
            efer,
            pkru: r.next() as u32,
            cr3: (1 + r.below(PAGES)) << 12 | r.below(4) << 3,
            va,
            kind: [AccessKind::Read, AccessKind::Write, AccessKind::Exec][r.below(3) as usize],
            mmu: r.below(mmu::COUNT as u64) as u8,
        };
        set_up(&mut pc, &c);
        let before = pc.outside.ram[..0x1000 * (PAGES as usize + 1)].to_vec();
        let want = {
            let ram = |at, bytes| pc.outside.read(at, bytes) as u64;
            expect(&ram, pdptes, &c)
        };
        let got = pc.outside.walk(&pc.state, c.va, c.kind, c.mmu);
        let context = || format!("round {round}, {paging:?}, {va:#x}, {:?}, {}", c.kind, c.mmu);
        match (want, got) {
            (Expected::At { pa, log2, global }, Ok(m)) => {
                mapped += 1;
                let inside = (1u64 << m.size_log2) - 1;
                let linear = if c.efer & efer::LMA == 0 { va & 0xffff_ffff } else { va };
                assert_eq!(m.pa.0 | linear & inside, pa, "{}", context());
                assert!(paging == Paging::Off || m.size_log2 == log2, "{}", context());
                assert_eq!(m.global, global, "{}", context());
                let (read, write, exec) = (m.read, m.write, m.exec);
                let this = match c.kind {
                    AccessKind::Read => read,
                    AccessKind::Write => write,
                    AccessKind::Exec => exec,
                };
                assert!(this, "{}", context());
                // The rights of the mapping are those of a walk for each kind of access.
                for (kind, right) in
                    [(AccessKind::Read, read), (AccessKind::Exec, exec), (AccessKind::Write, write)]
                {
                    let again = pc.outside.walk(&pc.state, c.va, kind, c.mmu);
                    let allowed = again.is_ok();
                    let dirty_first = kind == AccessKind::Write && allowed && !right;
                    assert!(allowed == right || dirty_first, "{} {kind:?}", context());
                }
            }
            (Expected::Fault(code), Err(MemFault { cause: FaultCause::Page(got), .. })) => {
                faults[code as usize] += 1;
                assert_eq!(code, got, "{}", context());
                let after = &pc.outside.ram[..before.len()];
                assert!(after == before, "a fault writes nothing: {}", context());
            }
            (Expected::NotCanonical, Err(MemFault { cause: FaultCause::Unmapped, .. })) => {}
            (want, got) => panic!("{want:x?} but {got:x?}: {}", context()),
        }
    }
    // The test means something only if it met all kinds.
    assert!(mapped > 5_000, "{mapped}");
    for code in [0, 1, 2, 3, 4, 5, 6, 7, 8 + 1, 8 + 7, 16, 17, 20, 21, 32 + 5, 32 + 7, 32 + 1] {
        assert!(faults[code] > 5, "error code {code}: {}", faults[code]);
    }
}

/// Four levels that map `va` with one 4 KiB page: the entries' addresses.
fn four_levels(pc: &mut Pc, va: u64, flags: u64) -> [u64; 4] {
    let mut at = [0; 4];
    for (level, at) in at.iter_mut().enumerate() {
        let table = 0x1000 * (level as u64 + 1);
        *at = table + (va >> (39 - 9 * level) & 0x1ff) * 8;
        let next = if level == 3 { 0x9000 } else { table + 0x1000 };
        pc.outside.write(*at, 8, (next | flags) as u128);
    }
    pc.set(regs::CR0, cr0::PE | cr0::PG | cr0::WP);
    pc.set(regs::CR3, 0x1000);
    pc.set(regs::CR4, cr4::PAE);
    pc.set(regs::EFER, efer::LMA | efer::LME | efer::NXE);
    at
}

#[test]
fn accessed_and_dirty_bits_are_set_once() {
    let mut pc = Pc::new("max");
    let va = 0x7f12_3456_7000;
    let at = four_levels(&mut pc, va, 7);
    let flags = |pc: &Pc| at.map(|at| pc.outside.read(at, 8) as u64 & 0x60);
    let m = pc.outside.walk(&pc.state, va, AccessKind::Read, mmu::USER).unwrap();
    assert_eq!((flags(&pc), m.write), ([0x20; 4], false));
    let m = pc.outside.walk(&pc.state, va, AccessKind::Write, mmu::USER).unwrap();
    assert_eq!((flags(&pc), m.write), ([0x20, 0x20, 0x20, 0x60], true));
}

#[test]
fn an_entry_that_changes_meanwhile_is_read_again() {
    let mut pc = Pc::new("max");
    let va = 0x1234_5000;
    let at = four_levels(&mut pc, va, 7);
    // Another processor moves the page while its flags are written.
    pc.outside.race = Some((at[3], 0xa007));
    let m = pc.outside.walk(&pc.state, va, AccessKind::Write, mmu::USER).unwrap();
    assert_eq!((m.pa.0, pc.outside.read(at[3], 8)), (0xa000, 0xa067));
    // Or takes it away.
    pc.outside.write(at[3], 8, 0x9007);
    pc.outside.race = Some((at[3], 0));
    let fault = pc.outside.walk(&pc.state, va, AccessKind::Write, mmu::USER).unwrap_err();
    assert_eq!(fault.cause, FaultCause::Page(6));
}

#[test]
fn disconnected_lines_show_in_tables_and_pages() {
    let mut pc = Pc::new("max");
    let off = !(1 << 20);
    pc.set(regs::CR0, cr0::PE);
    *pc.outside.board.lines.lock().unwrap() = off;
    // Without paging the second mebibyte is the first.
    let m = pc.outside.walk(&pc.state, 0x10_3456, AccessKind::Read, mmu::KERNEL).unwrap();
    assert_eq!((m.pa.0, m.size_log2), (0x3000, 12));
    let m = pc.outside.walk(&pc.state, 0x20_3456, AccessKind::Read, mmu::KERNEL).unwrap();
    assert_eq!((m.pa.0, m.size_log2), (0x20_3000, 12));
    // Tables at 1 MiB are read at 0.
    let va = 0x40_0000;
    four_levels(&mut pc, va, 7);
    pc.set(regs::CR3, 0x10_1000);
    let m = pc.outside.walk(&pc.state, va, AccessKind::Read, mmu::KERNEL).unwrap();
    assert_eq!(m.pa.0, 0x9000);
}

#[test]
fn models_without_large_pages_reserve_their_bit() {
    // A page of 1 GiB.
    for (model, code) in [("Haswell", Some(9)), ("EPYC", None)] {
        let mut pc = Pc::new(model);
        let va = 0x4000_0000;
        let at = four_levels(&mut pc, va, 7);
        pc.outside.write(at[1], 8, 0x87);
        let got = pc.outside.walk(&pc.state, va, AccessKind::Read, mmu::KERNEL);
        match (code, got) {
            (Some(code), Err(f)) => assert_eq!(f.cause, FaultCause::Page(code)),
            (None, Ok(m)) => assert_eq!((m.pa.0, m.size_log2), (0, 30)),
            (want, got) => panic!("{model}: {want:?} {got:?}"),
        }
    }
    // Bits 20:13 of a 4 MiB page are reserved without PSE-36.
    for (model, fails) in [("pentium", true), ("pentium3", false)] {
        let mut pc = Pc::new(model);
        pc.set(regs::CR0, cr0::PE | cr0::PG);
        pc.set(regs::CR3, 0x1000);
        pc.set(regs::CR4, cr4::PSE);
        pc.outside.write(0x1000, 4, 0x2083);
        let got = pc.outside.walk(&pc.state, 0, AccessKind::Read, mmu::KERNEL);
        assert_eq!(got.is_err(), fails, "{model}");
        if let Ok(m) = got {
            assert_eq!(m.pa.0, 1 << 32);
        }
    }
}
