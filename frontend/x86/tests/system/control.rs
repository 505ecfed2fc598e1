//! Control registers, MSRs, ports and the key flags of system mode.

use crate::machine::{Asked, CODE, Pc, Start, TABLES};
use tulk_base::{AccessKind, FaultCause, TlbFlush, Trap};
use tulk_frontend::SystemIsa;
use tulk_ir::Slot;
use tulk_x86::key;
use tulk_x86::regs::{self, eflags};
use tulk_x86::system::{cr0, cr4, efer, mmu};

pub const GP: Trap = Trap::Guest { vector: 13, code: 0 };
const NM: Trap = Trap::Guest { vector: 7, code: 0 };

/// Runs one instruction; registers and slots are set first.
pub fn run(model: &str, start: Start, set: &[(Slot, u64)], code: &[u8]) -> (Pc, Result<(), Trap>) {
    let mut pc = Pc::with_code(model, start, code);
    for &(slot, v) in set {
        pc.set(slot, v);
    }
    let end = pc.step();
    (pc, end)
}

const PAGED: u64 = cr0::PE | cr0::PG | cr0::ET;

#[test]
fn values_of_cr0() {
    // mov cr0, rax; mov cr0, eax
    let code = [0x0f, 0x22, 0xc0];
    let long = |v| run("max", Start::Long(0), &[(regs::RAX, v)], &code);
    for (v, good) in [
        (PAGED | cr0::WP | cr0::NE, true),
        // Without paging in 64-bit code, without protection, NW without CD, the upper half.
        (cr0::PE, false),
        (cr0::PG, false),
        (PAGED | cr0::NW, false),
        (PAGED | cr0::NW | cr0::CD, true),
        (PAGED | 1 << 32, false),
    ] {
        let (pc, end) = long(v);
        assert_eq!(end, if good { Ok(()) } else { Err(GP) }, "{v:#x}");
        let kept = cr0::PE | cr0::PG | cr0::ET | cr0::NE;
        assert_eq!(pc.get(regs::CR0), if good { v } else { kept }, "{v:#x}");
    }
    // Bits that do not exist are ignored, ET is fixed.
    let (pc, end) = run("max", Start::Real, &[(regs::RAX, 0x1ff8_ffc0)], &code);
    assert_eq!((end, pc.get(regs::CR0)), (Ok(()), cr0::ET));
    // Translations go when rights change, and only then.
    let (pc, _) = long(PAGED | cr0::WP);
    assert_eq!(pc.asked(), [Asked::Flush(TlbFlush::All)]);
    let (pc, _) = long(PAGED | cr0::TS | cr0::NE);
    assert_eq!(pc.asked(), []);
}

#[test]
fn long_mode_begins_and_ends_with_paging() {
    let code = [0x0f, 0x22, 0xc0];
    let start = |extended, rights: u64| {
        let mut pc = Pc::with_code("max", Start::Flat(0), &code);
        pc.set(regs::EFER, efer::LME);
        pc.set(regs::CR4, extended);
        pc.set(regs::SEG_ATTR[regs::CS], pc.get(regs::SEG_ATTR[regs::CS]) | rights);
        pc.set(regs::RAX, PAGED);
        let end = pc.step();
        (pc.get(regs::EFER), end)
    };
    assert_eq!(start(cr4::PAE, 0), (efer::LME | efer::LMA, Ok(())));
    assert_eq!(start(0, 0), (efer::LME, Err(GP)));
    // From code that is marked as 64-bit.
    assert_eq!(start(cr4::PAE, 0x2000), (efer::LME, Err(GP)));
    // Out of compatibility mode.
    let mut pc = Pc::with_code("max", Start::Long(0), &code);
    pc.set(regs::SEG_ATTR[regs::CS], 0xc09b);
    pc.set(regs::RAX, cr0::PE);
    assert_eq!(pc.step(), Ok(()));
    assert_eq!(pc.get(regs::EFER), efer::LME);
    // But not with PCIDs.
    pc.start(Start::Long(0));
    pc.set(regs::SEG_ATTR[regs::CS], 0xc09b);
    pc.set(regs::CR4, cr4::PAE | cr4::PCIDE);
    assert_eq!(pc.step(), Err(GP));
}

#[test]
fn values_of_cr4() {
    // mov cr4, rax
    let code = [0x0f, 0x22, 0xe0];
    for (model, old, new, good) in [
        ("max", cr4::PAE, cr4::PAE | cr4::PGE | cr4::SMEP | cr4::SMAP | cr4::UMIP, true),
        ("max", cr4::PAE, cr4::PAE | cr4::PCIDE, true),
        // Needed by long mode, and fixed in it.
        ("max", cr4::PAE, cr4::PGE, false),
        ("max", cr4::PAE, cr4::PAE | cr4::LA57, false),
        // VMX, bits that do not exist, and what the model lacks.
        ("max", cr4::PAE, cr4::PAE | 1 << 13, false),
        ("max", cr4::PAE, cr4::PAE | 1 << 40, false),
        ("Nehalem", cr4::PAE, cr4::PAE | cr4::SMEP, false),
        ("Nehalem", cr4::PAE, cr4::PAE | cr4::OSXSAVE, false),
        ("Haswell", cr4::PAE, cr4::PAE | cr4::OSXSAVE | cr4::SMEP | cr4::FSGSBASE, true),
    ] {
        let set = [(regs::CR4, old), (regs::RAX, new)];
        let (pc, end) = run(model, Start::Long(0), &set, &code);
        assert_eq!(end, if good { Ok(()) } else { Err(GP) }, "{model} {new:#x}");
        assert_eq!(pc.get(regs::CR4), if good { new } else { old });
    }
    // PCIDs only from space 0, and in long mode.
    let set = [(regs::RAX, cr4::PAE | cr4::PCIDE), (regs::CR3, TABLES | 8)];
    assert_eq!(run("max", Start::Long(0), &set, &code).1, Err(GP));
    assert_eq!(run("max", Start::Flat(0), &set[..1], &code).1, Err(GP));
    // Only what decides about translations drops them.
    let flushes = |bit| {
        let set = [(regs::RAX, cr4::PAE | bit)];
        run("max", Start::Long(0), &set, &code).0.asked()
    };
    assert_eq!(flushes(cr4::PGE), [Asked::Flush(TlbFlush::All)]);
    assert_eq!(flushes(cr4::OSFXSR | cr4::TSD), []);
}

#[test]
fn cr3_names_the_space() {
    // mov cr3, rax
    let code = [0x0f, 0x22, 0xd8];
    let write = |extended, v| {
        let set = [(regs::CR4, cr4::PAE | extended), (regs::RAX, v)];
        let (pc, end) = run("max", Start::Long(0), &set, &code);
        (pc.get(regs::CR3), pc.asked(), end)
    };
    let flush = |n| Asked::Flush(TlbFlush::Space(n));
    assert_eq!(write(0, 0x5018), (0x5018, vec![Asked::Space(0), flush(0)], Ok(())));
    assert_eq!(write(cr4::PCIDE, 0x5018), (0x5018, vec![Asked::Space(0x18), flush(0x18)], Ok(())));
    let keep = 1 << 63 | 0x5018;
    assert_eq!(write(cr4::PCIDE, keep), (0x5018, vec![Asked::Space(0x18)], Ok(())));
    for bad in [keep, 1 << 40, 1 << 52 | 0x5000] {
        assert_eq!(write(0, bad), (TABLES, vec![], Err(GP)), "{bad:#x}");
    }
}

#[test]
fn pae_paging_reads_its_pointers_at_once() {
    let code = [0x0f, 0x22, 0xd8];
    let load = |entries: [u64; 4]| {
        let mut pc = Pc::with_code("max", Start::Flat(0), &code);
        for (n, e) in entries.into_iter().enumerate() {
            pc.outside.write(0x5020 + 8 * n as u64, 8, e as u128);
        }
        // Code stays where it is: a table of large pages, through the present registers.
        pc.outside.write(0x6000, 8, 0x83);
        pc.set(regs::PDPTE[0], 0x6001);
        pc.set(regs::CR0, PAGED);
        pc.set(regs::CR4, cr4::PAE);
        pc.set(regs::RAX, 0x5020);
        let end = pc.step();
        (regs::PDPTE.map(|slot| pc.get(slot)), end)
    };
    let good = [0x6001, 0, 0x7fff_f001, 6];
    assert_eq!(load(good), (good, Ok(())));
    for bad in [3, 5, 0x21, 1 << 40 | 1, 1 << 63 | 1] {
        assert_eq!(load([0x6001, 0, 0, bad]), ([0x6001, 0, 0, 0], Err(GP)), "{bad:#x}");
    }
}

#[test]
fn cr8_is_the_boards() {
    // mov cr8, rax; mov rbx, cr8
    let mut pc =
        Pc::with_code("max", Start::Long(0), &[0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc3]);
    pc.set(regs::RAX, 16);
    assert_eq!(pc.step(), Err(GP));
    pc.set(regs::RAX, 9);
    assert_eq!((pc.step(), pc.step()), (Ok(()), Ok(())));
    assert_eq!((*pc.outside.board.priority.lock().unwrap(), pc.get(regs::RBX)), (9, 9));
}

#[test]
fn privileged_instructions_are_so_in_each_mode() {
    let cases: &[(&str, &[u8])] = &[
        ("mov cr0", &[0x0f, 0x22, 0xc0]),
        ("mov from cr2", &[0x0f, 0x20, 0xd0]),
        ("mov dr7", &[0x0f, 0x23, 0xf8]),
        ("mov from dr7", &[0x0f, 0x21, 0xf8]),
        ("clts", &[0x0f, 0x06]),
        ("lmsw", &[0x0f, 0x01, 0xf0]),
        ("hlt", &[0xf4]),
        ("invlpg", &[0x0f, 0x01, 0x3f]),
        ("invd", &[0x0f, 0x08]),
        ("wbinvd", &[0x0f, 0x09]),
        ("rdmsr", &[0x0f, 0x32]),
        ("wrmsr", &[0x0f, 0x30]),
    ];
    for &(name, code) in cases {
        for start in [Start::Long(3), Start::Flat(3), Start::Flat(1), Start::Vm86(3)] {
            let (_, end) = run("max", start, &[], code);
            assert!(matches!(end, Err(Trap::Privileged)), "{name} in {start:?}: {end:?}");
        }
    }
    let (pc, end) = run("max", Start::Real, &[], &[0xf4]);
    assert_eq!((end, pc.state.pc()), (Err(Trap::Halt), CODE + 1));
    // Registers that do not exist.
    for code in [[0x0f, 0x22, 0xc8], [0x0f, 0x20, 0xe8], [0x0f, 0x20, 0xf8]] {
        assert_eq!(run("max", Start::Flat(0), &[], &code).1, Err(Trap::Illegal));
    }
}

#[test]
fn status_word() {
    // lmsw ax: PE can be set, not cleared.
    let code = [0x0f, 0x01, 0xf0];
    let (pc, _) = run("max", Start::Real, &[(regs::RAX, 0xffff)], &code);
    assert_eq!(pc.get(regs::CR0) & 0x1f, 0x1f);
    let (pc, _) = run("max", Start::Flat(0), &[(regs::RAX, 0)], &code);
    assert_eq!(pc.get(regs::CR0) & 0xf, cr0::PE);
    // smsw eax, which UMIP keeps from users.
    let code = [0x0f, 0x01, 0xe0];
    let (pc, _) = run("max", Start::Long(3), &[], &code);
    assert_eq!(pc.get(regs::RAX), pc.get(regs::CR0));
    let on = [(regs::CR4, cr4::PAE | cr4::UMIP)];
    assert_eq!(run("max", Start::Long(3), &on, &code).1, Err(GP));
    assert_eq!(run("max", Start::Long(0), &on, &code).1, Ok(()));
}

#[test]
fn invalidation() {
    // invlpg [rdi]
    let code = [0x0f, 0x01, 0x3f];
    let (pc, _) = run("max", Start::Long(0), &[(regs::RDI, 0x1234_5678)], &code);
    let va = tulk_base::GuestVa(0x1234_5678);
    assert_eq!(pc.asked(), [Asked::Flush(TlbFlush::Page { va, space: 0 })]);
    let (pc, end) = run("max", Start::Long(0), &[(regs::RDI, 1 << 60)], &code);
    assert_eq!((pc.asked(), end), (vec![], Ok(())));
    // invpcid rax, [rdi]
    let code = [0x66, 0x0f, 0x38, 0x82, 0x07];
    let ask = |kind, low: u64, address: u64, extended| {
        let mut pc = Pc::with_code("max", Start::Long(0), &code);
        pc.set(regs::CR4, cr4::PAE | extended);
        pc.set(regs::RAX, kind);
        pc.set(regs::RDI, 0x5000);
        pc.outside.write(0x5000, 8, low as u128);
        pc.outside.write(0x5008, 8, address as u128);
        let end = pc.step();
        (pc.asked(), end)
    };
    let one = TlbFlush::NonGlobalPage { va: tulk_base::GuestVa(0x7000), space: 5 };
    for (kind, want) in
        [(0, one), (1, TlbFlush::Space(5)), (2, TlbFlush::All), (3, TlbFlush::NonGlobal)]
    {
        assert_eq!(ask(kind, 5, 0x7000, cr4::PCIDE), (vec![Asked::Flush(want)], Ok(())));
    }
    for (kind, low, address, extended) in [
        (4, 0, 0, cr4::PCIDE),
        (0, 1 << 12, 0, cr4::PCIDE),
        (0, 0, 1 << 60, cr4::PCIDE),
        (0, 5, 0, 0),
        (1, 5, 0, 0),
    ] {
        assert_eq!(ask(kind, low, address, extended), (vec![], Err(GP)), "{kind} {low:#x}");
    }
}

#[test]
fn extended_control_register() {
    // xsetbv; xgetbv
    let set = |extended, n, v, code: &[u8]| {
        let mut set = vec![(regs::CR4, cr4::PAE | extended), (regs::RCX, n)];
        set.extend([(regs::RAX, v), (regs::RDX, 0)]);
        let (pc, end) = run("max", Start::Long(0), &set, code);
        (pc.get(regs::XCR0), end)
    };
    let code = [0x0f, 0x01, 0xd1];
    assert_eq!(set(cr4::OSXSAVE, 0, 7, &code), (7, Ok(())));
    assert_eq!(set(cr4::OSXSAVE, 0, 0x207, &code), (0x207, Ok(())));
    assert_eq!(set(cr4::OSXSAVE, 0, 0x201, &code), (0x201, Ok(())));
    assert_eq!(set(0, 0, 7, &code), (1, Err(Trap::Illegal)));
    for (n, v) in [(1, 7), (0, 6), (0, 5), (0, 15), (0, 0x200), (0, 0)] {
        assert_eq!(set(cr4::OSXSAVE, n, v, &code), (1, Err(GP)), "{n} {v}");
    }
    assert_eq!(set(0, 0, 0, &[0x0f, 0x01, 0xd0]).1, Err(Trap::Illegal));
    assert_eq!(set(cr4::OSXSAVE, 0, 0, &[0x0f, 0x01, 0xd0]).1, Ok(()));
}

#[test]
fn model_specific_registers() {
    let write = |model: &str, msr: u64, v: u64| {
        let set = [(regs::RCX, msr), (regs::RAX, v & 0xffff_ffff), (regs::RDX, v >> 32)];
        run(model, Start::Flat(0), &set, &[0x0f, 0x30])
    };
    let read = |pc: &mut Pc, msr: u64| {
        pc.load(&[0x0f, 0x32]);
        pc.state.set_pc(CODE);
        pc.set(regs::RCX, msr);
        let end = pc.step();
        end.map(|()| pc.get(regs::RAX) | pc.get(regs::RDX) << 32)
    };
    // What is kept as written.
    for (msr, v) in [
        (0xc000_0081, 0x0023_0010_1234_5678),
        (0xc000_0082, 0xffff_ffff_8100_0000),
        (0xc000_0083, 0x0000_7fff_ffff_ffff),
        (0xc000_0084, 0x4_7700),
        (0xc000_0100, 0x1234),
        (0xc000_0101, 0xffff_8000_0000_0000),
        (0xc000_0102, 0xffff_8880_0000_0000),
        (0xc000_0103, 7),
        (0x174, 0x10),
        (0x175, 0xffff_fe00_0000_0000),
        (0x176, 0xffff_ffff_8160_0000),
        (0x277, 0x0007_0106_0007_0106),
        (0x200, 0xc000_0006),
        (0x201, 0xff_c000_0800),
        (0x20f, 0xff_0000_0800),
        (0x250, 0x0606_0606_0606_0606),
        (0x26f, 0x0505_0505_0505_0505),
        (0x2ff, 0xc06),
        (0x48, 0x407),
        (0xc000_0080, 0x901),
    ] {
        let (mut pc, end) = write("max", msr, v);
        assert_eq!(end, Ok(()), "{msr:#x}");
        assert_eq!(read(&mut pc, msr), Ok(v), "{msr:#x}");
    }
    // What is refused.
    for (model, msr, v) in [
        // Not canonical, a memory type or a bit that does not exist, read-only.
        ("Haswell", 0xc000_0082, 1 << 50),
        ("Haswell", 0xc000_0101, 1 << 47),
        ("Haswell", 0x175, 1 << 62),
        ("max", 0x277, 2),
        ("max", 0x277, 3 << 56),
        ("max", 0x250, 7),
        ("max", 0x2ff, 2),
        ("max", 0x2ff, 1 << 12),
        ("max", 0x200, 2),
        ("max", 0x201, 1),
        ("max", 0xfe, 0),
        ("max", 0x10a, 0),
        ("max", 0xce, 0),
        ("max", 0x3a, 5),
        ("max", 0xc000_0080, 1 << 12),
        ("max", 0xc000_0103, 1 << 32),
        ("max", 0x49, 2),
        ("max", 0x48, 8),
        ("max,-bhi_ctrl", 0x48, 1 << 10),
        // Unknown, or of another model.
        ("max", 0x9999, 0),
        ("Nehalem", 0x48, 1),
        ("pentium", 0x277, 0),
        ("pentium3", 0xc000_0082, 0),
        ("Haswell", 0xc001_0015, 0),
    ] {
        assert_eq!(write(model, msr, v).1, Err(GP), "{model} {msr:#x} {v:#x}");
    }
    let mut pc = Pc::with_code("max", Start::Flat(0), &[]);
    assert_eq!(read(&mut pc, 0x9999), Err(GP));
    // No Meltdown here, so that no system isolates its page tables.
    assert_eq!(read(&mut pc, 0x10a).unwrap() & 1, 1);
    assert_eq!(read(&mut pc, 0xfe), Ok(0x508));
    assert_eq!(read(&mut pc, 0x1b), Ok(0xfee0_0900));
    assert_eq!(read(&mut pc, 0x8b), Ok(0x1_0000_0000));
    // EFER.LME is fixed while paging is on.
    let set = [(regs::RCX, 0xc000_0080), (regs::RAX, 0)];
    assert_eq!(run("max", Start::Long(0), &set, &[0x0f, 0x30]).1, Err(GP));
    // NXE decides about rights.
    let (pc, _) = write("max", 0xc000_0080, 0x800);
    assert_eq!(pc.asked(), [Asked::Flush(TlbFlush::All)]);
}

#[test]
fn the_time_stamp_counter_counts_guest_nanoseconds() {
    let mut pc = Pc::with_code("max", Start::Flat(0), &[0x0f, 0x31]);
    let counter = |pc: &mut Pc| {
        pc.load(&[0x0f, 0x31]);
        pc.state.set_pc(CODE);
        let end = pc.step();
        end.map(|()| pc.get(regs::RAX) | pc.get(regs::RDX) << 32)
    };
    let wrmsr = |pc: &mut Pc, msr: u64, v: u64| {
        pc.load(&[0x0f, 0x30]);
        pc.state.set_pc(CODE);
        for (slot, v) in [(regs::RCX, msr), (regs::RAX, v & 0xffff_ffff), (regs::RDX, v >> 32)] {
            pc.set(slot, v);
        }
        pc.step().unwrap();
    };
    assert_eq!(counter(&mut pc), Ok(0x1000_0000));
    wrmsr(&mut pc, 0x10, 5);
    assert_eq!(counter(&mut pc), Ok(5));
    assert_eq!(pc.get(regs::TSC_ADJUST), 5u64.wrapping_sub(0x1000_0000));
    *pc.outside.board.clock.lock().unwrap() += 100;
    assert_eq!(counter(&mut pc), Ok(105));
    wrmsr(&mut pc, 0x3b, 0);
    assert_eq!(counter(&mut pc), Ok(0x1000_0064));
    // The board's deadline is in clock units.
    wrmsr(&mut pc, 0x10, 0x1000_1064);
    pc.asked();
    wrmsr(&mut pc, 0x6e0, 0x1000_2000);
    wrmsr(&mut pc, 0x6e0, 0);
    assert_eq!(pc.asked(), [Asked::MsrWrite(0x6e0, 0x1000_1000), Asked::MsrWrite(0x6e0, 0)]);
    // Kept from users.
    let off = [(regs::CR4, cr4::PAE | cr4::TSD)];
    assert_eq!(run("max", Start::Long(3), &off, &[0x0f, 0x31]).1, Err(GP));
    assert_eq!(run("max", Start::Long(0), &off, &[0x0f, 0x31]).1, Ok(()));
    assert_eq!(run("max", Start::Long(3), &[], &[0x0f, 0x31]).1, Ok(()));
}

/// A task state segment at 0x5000 whose map, at offset 0x68, forbids the ports of `closed`.
fn with_map(pc: &mut Pc, limit: u64, closed: &[u16]) {
    pc.set(regs::TR_BASE, 0x5000);
    pc.set(regs::TR_LIMIT, limit);
    pc.set(regs::TR_ATTR, 0x8b);
    pc.outside.write(0x5066, 2, 0x68);
    for &port in closed {
        let at = 0x5068 + port as u64 / 8;
        let byte = pc.outside.read(at, 1) | 1 << (port & 7);
        pc.outside.write(at, 1, byte);
    }
}

#[test]
fn ports_are_allowed_by_iopl_or_map() {
    // in al, dx; in eax, dx
    let (byte, four) = ([0xec].as_slice(), [0xed].as_slice());
    let try_port = |start, iopl: u64, limit, closed: &[u16], port, code: &[u8]| {
        let mut pc = Pc::with_code("max", start, code);
        with_map(&mut pc, limit, closed);
        pc.set(regs::RDX, port);
        pc.set(regs::EFLAGS, pc.get(regs::EFLAGS) | iopl << 12);
        let end = pc.step();
        let asked = pc.asked();
        assert_eq!(asked.len(), end.is_ok() as usize, "a refused access asks nobody");
        end
    };
    let all = 0x68 + 0x2000;
    for (start, iopl, limit, closed, port, code, good) in [
        (Start::Real, 0, 0, vec![], 0x60, byte, true),
        (Start::Flat(0), 0, 0, vec![], 0x60, byte, true),
        (Start::Flat(3), 3, 0, vec![], 0x60, byte, true),
        (Start::Flat(3), 2, 0, vec![], 0x60, byte, false),
        (Start::Flat(3), 0, all, vec![], 0x60, byte, true),
        (Start::Flat(3), 0, all, vec![0x60], 0x60, byte, false),
        (Start::Flat(3), 0, all, vec![0x61], 0x60, byte, true),
        // Each of the four ports counts, over the end of a byte of the map.
        (Start::Flat(3), 0, all, vec![0x63], 0x60, four, false),
        (Start::Flat(3), 0, all, vec![0x69], 0x66, four, false),
        (Start::Flat(3), 0, all, vec![0x6a], 0x66, four, true),
        // Two bytes must lie within the limit.
        (Start::Flat(3), 0, 0x68 + 12, vec![], 0x60, byte, false),
        (Start::Flat(3), 0, 0x68 + 13, vec![], 0x60, byte, true),
        // IOPL does not count in virtual-8086 mode.
        (Start::Vm86(3), 3, 0, vec![], 0x60, byte, false),
        (Start::Vm86(3), 0, all, vec![], 0x60, byte, true),
    ] {
        let end = try_port(start, iopl, limit, &closed, port, code);
        let want = if good { Ok(()) } else { Err(GP) };
        assert_eq!(end, want, "{start:?} {iopl} {limit:#x} {closed:x?} {port:#x}");
    }
}

#[test]
fn port_instructions() {
    let (pc, _) = run("max", Start::Flat(0), &[(regs::RAX, u64::MAX >> 32)], &[0xe4, 0x71]);
    assert_eq!(pc.get(regs::RAX), 0xffff_ff44);
    let (pc, _) = run("max", Start::Flat(0), &[(regs::RAX, 7), (regs::RDX, 0x3f8)], &[0xed]);
    assert_eq!((pc.get(regs::RAX), pc.asked()), (0x1122_3344, vec![Asked::PortRead(0x3f8, 4)]));
    let set = [(regs::RAX, 0x1234_5678), (regs::RDX, 0x1f0)];
    let (pc, _) = run("max", Start::Flat(0), &set, &[0x66, 0xef]);
    assert_eq!(pc.asked(), [Asked::PortWrite(0x1f0, 2, 0x5678)]);
    // rep insw: downwards, until the count is used up.
    let set = [(regs::RDX, 0x1f0), (regs::RDI, 0x8004), (regs::RCX, 3), (regs::EFLAGS, 0x402)];
    let (pc, end) = run("max", Start::Flat(0), &set, &[0xf3, 0x66, 0x6d]);
    assert_eq!((end, pc.get(regs::RCX), pc.get(regs::RDI)), (Ok(()), 0, 0x7ffe));
    assert_eq!((pc.state.pc(), pc.outside.read(0x8000, 8)), (CODE + 3, 0x3344_3344_3344));
    // rep outsb in real mode: SI wraps, CX counts.
    let mut pc = Pc::with_code("max", Start::Real, &[0xf3, 0x6e]);
    pc.outside.write(0xffff, 1, 0xaa);
    pc.outside.write(0, 1, 0xbb);
    for (slot, v) in [(regs::RSI, 0x1_ffff), (regs::RCX, 0x5_0002), (regs::RDX, 0x80)] {
        pc.set(slot, v);
    }
    pc.step().unwrap();
    assert_eq!((pc.get(regs::RSI), pc.get(regs::RCX)), (0x1_0001, 0x5_0000));
    assert_eq!(pc.asked(), [Asked::PortWrite(0x80, 1, 0xaa), Asked::PortWrite(0x80, 1, 0xbb)]);
    // A page that cannot be written leaves the port alone.
    let mut pc = Pc::with_code("max", Start::Long(0), &[0xf3, 0x6c]);
    for (slot, v) in [(regs::RDI, 0x40_0000), (regs::RCX, 2), (regs::RDX, 0x60)] {
        pc.set(slot, v);
    }
    let end = pc.step();
    assert!(matches!(end, Err(Trap::Mem(f)) if f.cause == FaultCause::Page(2)), "{end:?}");
    assert_eq!((pc.asked(), pc.get(regs::RCX)), (vec![], 2));
}

/// PKRU is component 9: where the standard and the compacted format have it, and what restoring it does.
#[test]
fn protection_keys_are_a_component() {
    const AREA: u64 = 0x8000;
    const KEYS: u128 = 0x1234_5678;
    let xsave: &[u8] = &[0x0f, 0xae, 0x27, 0x0f, 0xae, 0x2f];
    let xsavec: &[u8] = &[0x0f, 0xc7, 0x27, 0x0f, 0xae, 0x2f];
    for (code, wanted, at) in
        [(xsave, 0x207, 832), (xsave, 0x200, 832), (xsavec, 0x207, 832), (xsavec, 0x200, 576)]
    {
        let mut pc = Pc::with_code("max", Start::Long(0), code);
        let all = cr4::PAE | cr4::OSFXSR | cr4::OSXSAVE | cr4::PKE;
        for (slot, v) in [
            (regs::CR4, all),
            (regs::XCR0, 0x207),
            (regs::RDI, AREA),
            (regs::RAX, wanted),
            (regs::PKRU, KEYS as u64),
        ] {
            pc.set(slot, v);
        }
        assert_eq!(pc.step(), Ok(()));
        assert_eq!(pc.outside.read(AREA + at, 8), KEYS, "{wanted:#x}");
        assert_eq!(pc.outside.read(AREA + 512, 8) & 0x200, 0x200, "{wanted:#x}");
        let layout = if code == xsavec { 1 << 63 | wanted as u128 } else { 0 };
        assert_eq!(pc.outside.read(AREA + 520, 8), layout);
        // Other keys come back, and what was translated under them goes.
        pc.set(regs::PKRU, 0);
        assert_eq!(pc.step(), Ok(()));
        assert_eq!(pc.get(regs::PKRU) as u128, KEYS);
        assert_eq!(pc.asked(), [Asked::Flush(TlbFlush::All)]);
        // A component that is not there is set to zero.
        pc.outside.write(AREA + 512, 8, 0);
        pc.state.set_pc(CODE + 3);
        assert_eq!(pc.step(), Ok(()));
        assert_eq!(pc.get(regs::PKRU), 0);
    }
}

#[test]
fn float_instructions_ask_the_control_registers() {
    let fadd: &[u8] = &[0xd8, 0xc1];
    let wait: &[u8] = &[0x9b];
    let emms: &[u8] = &[0x0f, 0x77];
    let addps: &[u8] = &[0x0f, 0x58, 0xc1];
    let vaddps: &[u8] = &[0xc5, 0xf8, 0x58, 0xc1];
    let andn: &[u8] = &[0xc4, 0xe2, 0x78, 0xf2, 0xc1];
    let fxsave: &[u8] = &[0x0f, 0xae, 0x07];
    let xsave: &[u8] = &[0x0f, 0xae, 0x27];
    let ud = Err(Trap::Illegal);
    let all = cr4::OSFXSR | cr4::OSXSAVE;
    for (name, code, control, extended, want) in [
        ("fadd", fadd, 0, all, Ok(())),
        ("fadd", fadd, cr0::TS, all, Err(NM)),
        ("fadd", fadd, cr0::EM, all, Err(NM)),
        ("fadd", fadd, 0, 0, Ok(())),
        ("wait", wait, cr0::TS, all, Ok(())),
        ("wait", wait, cr0::TS | cr0::MP, all, Err(NM)),
        ("wait", wait, cr0::EM, all, Ok(())),
        ("emms", emms, cr0::EM, all, ud),
        ("emms", emms, cr0::TS, all, Err(NM)),
        ("addps", addps, 0, all, Ok(())),
        ("addps", addps, cr0::EM | cr0::TS, all, ud),
        ("addps", addps, cr0::TS, all, Err(NM)),
        ("addps", addps, 0, cr4::OSXSAVE, ud),
        ("vaddps", vaddps, 0, all, Ok(())),
        ("vaddps", vaddps, 0, cr4::OSFXSR, ud),
        ("vaddps", vaddps, cr0::TS, all, Err(NM)),
        ("vaddps", vaddps, cr0::EM, cr4::OSXSAVE, Ok(())),
        ("andn", andn, cr0::TS | cr0::EM, 0, Ok(())),
        ("fxsave", fxsave, cr0::EM, all, ud),
        ("fxsave", fxsave, cr0::TS, all, Err(NM)),
        ("fxsave", fxsave, 0, 0, Ok(())),
        ("xsave", xsave, 0, cr4::OSFXSR, ud),
        ("xsave", xsave, cr0::TS, all, Err(NM)),
        ("xsave", xsave, 0, all, Ok(())),
    ] {
        let set = [
            (regs::CR0, PAGED | cr0::NE | control),
            (regs::CR4, cr4::PAE | extended),
            (regs::XCR0, 7),
            (regs::RDI, 0x8000),
            (regs::RAX, 7),
        ];
        let (_, end) = run("max", Start::Long(0), &set, code);
        assert_eq!(end, want, "{name} CR0 {control:#x} CR4 {extended:#x}");
    }
    // Components that are not enabled; modes without VEX.
    let set = [(regs::CR4, cr4::PAE | all), (regs::XCR0, 3)];
    assert_eq!(run("max", Start::Long(0), &set, vaddps).1, ud);
    assert_eq!(run("max", Start::Real, &[(regs::CR4, all), (regs::XCR0, 7)], vaddps).1, ud);
}

#[test]
fn keys() {
    let flags = |start, set: &[(Slot, u64)]| {
        let mut pc = Pc::with_code("max", start, &[0x90]);
        set.iter().for_each(|&(slot, v)| pc.set(slot, v));
        let key = pc.key().flags;
        let isa = &pc.isa;
        let mask = SystemIsa::key_mask(isa);
        assert_eq!((key & !mask, mask >> 44), (0, 0), "the engine's bits stay clear");
        (key, isa.code_mmu(key))
    };
    let ours = key::CPL | key::SMAP | key::PROTECTED | key::VM86 | key::IOPL_OK | key::SHADOW;
    let cpl = |n: u64| n << key::CPL_SHIFT;
    let smap = (regs::CR4, cr4::PAE | cr4::SMAP);
    for (start, set, want, index) in [
        (Start::Real, vec![], key::IOPL_OK, mmu::KERNEL),
        (Start::Flat(0), vec![], key::PROTECTED | key::IOPL_OK, mmu::KERNEL),
        (Start::Flat(3), vec![], key::PROTECTED | cpl(3), mmu::USER),
        (Start::Vm86(0), vec![], key::PROTECTED | key::VM86 | cpl(3), mmu::USER),
        (Start::Vm86(3), vec![], key::PROTECTED | key::VM86 | key::IOPL_OK | cpl(3), mmu::USER),
        (Start::Long(0), vec![smap], key::PROTECTED | key::IOPL_OK | key::SMAP, mmu::KERNEL_SMAP),
        (
            Start::Long(0),
            vec![smap, (regs::EFLAGS, eflags::AC as u64)],
            key::PROTECTED | key::IOPL_OK,
            mmu::KERNEL,
        ),
        (Start::Long(3), vec![smap], key::PROTECTED | cpl(3), mmu::USER),
        (
            Start::Long(0),
            vec![(regs::SHADOW, 1)],
            key::PROTECTED | key::IOPL_OK | key::SHADOW,
            mmu::KERNEL,
        ),
    ] {
        let (got, mmu) = flags(start, &set);
        assert_eq!((got & ours, mmu), (want, index), "{start:?} {set:?}");
    }
    let (real, _) = flags(Start::Real, &[]);
    let (long, _) = flags(Start::Long(0), &[]);
    assert_eq!((real & key::CODE_SIZE, real & key::LONG), (0, 0));
    assert_eq!((long & key::CODE_SIZE, long & key::LONG), (2, key::LONG));
    // Alignment checks need CR0.AM and CPL 3.
    let ac = (regs::EFLAGS, eflags::AC as u64);
    let am = (regs::CR0, PAGED | cr0::AM);
    for (start, set, on) in [
        (Start::Long(3), vec![ac, am], true),
        (Start::Long(3), vec![ac], false),
        (Start::Long(3), vec![am], false),
        (Start::Long(0), vec![ac, am], false),
    ] {
        assert_eq!(flags(start, &set).0 & key::ALIGN != 0, on, "{start:?} {set:?}");
    }
}

#[test]
fn accesses_name_the_index_of_the_mode() {
    // mov eax, [rdi] of a user page and of a kernel page
    let code = [0x8b, 0x07];
    let read = |start, extended, page: u64| {
        let mut pc = Pc::with_code("max", start, &code);
        pc.set(regs::CR4, cr4::PAE | extended);
        // The second table entry maps 2 MiB on; its rights are the test's.
        pc.outside.write(TABLES + 0x2008, 8, (0x20_0081 | page) as u128);
        // Code stays in a kernel page for kernels.
        let user = if matches!(start, Start::Long(3)) { 4 } else { 0 };
        pc.outside.write(TABLES + 0x2000, 8, (0x83 | user) as u128);
        pc.set(regs::RDI, 0x20_0000);
        match pc.step() {
            Ok(()) => None,
            Err(Trap::Mem(f)) => Some((f.kind, f.cause)),
            other => panic!("{other:?}"),
        }
    };
    let fault = |code| Some((AccessKind::Read, FaultCause::Page(code)));
    assert_eq!(read(Start::Long(0), 0, 4), None);
    assert_eq!(read(Start::Long(0), cr4::SMAP, 4), fault(1));
    assert_eq!(read(Start::Long(3), cr4::SMAP, 4), None);
    assert_eq!(read(Start::Long(3), 0, 0), fault(5));
    // rep lodsb, fxsave: helpers, too.
    for code in [[0xf3, 0xac, 0x90], [0x0f, 0xae, 0x06]] {
        let mut pc = Pc::with_code("max", Start::Long(0), &code);
        pc.set(regs::CR4, cr4::PAE | cr4::SMAP | cr4::OSFXSR);
        pc.outside.write(TABLES + 0x2000, 8, 0x83);
        pc.set(regs::RSI, 0x20_0000);
        pc.set(regs::RCX, 1);
        let end = pc.step();
        assert!(matches!(end, Err(Trap::Mem(_))), "{code:x?}: {end:?}");
    }
}

#[test]
fn stac_and_clac_name_the_next_key() {
    for smap in [0, cr4::SMAP] {
        let mut pc = Pc::with_code("max", Start::Long(0), &[0x0f, 0x01, 0xcb, 0x0f, 0x01, 0xca]);
        pc.outside.write(TABLES + 0x2000, 8, 0x83);
        pc.set(regs::CR4, cr4::PAE | smap);
        // The machine compares the key that the unit promises with the state's.
        for (ac, at) in [(true, 3), (false, 6)] {
            assert_eq!(pc.step(), Ok(()));
            assert_eq!(pc.get(regs::EFLAGS) as u32 & eflags::AC != 0, ac);
            assert_eq!(pc.state.pc(), CODE + at);
            assert_eq!(pc.key().flags & key::SMAP != 0, smap != 0 && !ac);
        }
    }
    assert_eq!(run("max", Start::Long(3), &[], &[0x0f, 0x01, 0xcb]).1, Err(Trap::Illegal));
}

#[test]
fn fetches_of_split_instructions_fault_in_the_second_page() {
    // mov eax, imm32, whose last bytes lie in a page that is not there.
    let mut pc = Pc::with_code("max", Start::Long(3), &[]);
    pc.outside.write(0x1f_fffe, 2, 0x01b8);
    pc.outside.write(TABLES + 0x2008, 8, 0);
    pc.state.set_pc(0x1f_fffe);
    let Err(Trap::Mem(fault)) = pc.step() else { panic!("no fault") };
    assert_eq!((fault.va.0, fault.kind), (0x20_0000, AccessKind::Exec));
    // Fetches have rights of their own neither with NXE nor with SMEP here.
    assert_eq!(fault.cause, FaultCause::Page(4));
    assert_eq!(pc.state.pc(), 0x1f_fffe);
}
