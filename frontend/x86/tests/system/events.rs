//! Debug registers, events, CPUID, and what reset and INIT leave.

use crate::control::{GP, run};
use crate::machine::{CODE, Pc, Start};
use tulk_base::{CpuEvent, Trap};
use tulk_frontend::{GuestIsa, Stop, SystemIsa};
use tulk_ir::Slot;
use tulk_x86::cpuid;
use tulk_x86::regs::{self, eflags};
use tulk_x86::system::{cr0, cr4};

#[test]
fn debug_registers_and_breakpoints() {
    // mov dr7, rax; mov rax, dr4 with and without DE; general detect
    let write7 = [0x0f, 0x23, 0xf8];
    let (pc, _) = run("max", Start::Long(0), &[(regs::RAX, 0xffff_ffff)], &write7);
    assert_eq!(pc.get(regs::DR[7]), 0xffff_27ff);
    assert_eq!(run("max", Start::Long(0), &[(regs::RAX, 1 << 32)], &write7).1, Err(GP));
    let read4 = [0x0f, 0x21, 0xe0];
    let (pc, _) = run("max", Start::Long(0), &[], &read4);
    assert_eq!(pc.get(regs::RAX), 0xffff_0ff0);
    let de = [(regs::CR4, cr4::PAE | cr4::DE)];
    assert_eq!(run("max", Start::Long(0), &de, &read4).1, Err(Trap::Illegal));
    let gd = [(regs::DR[7], 0x2400)];
    let bd = Err(Trap::Guest { vector: 1, code: 1 << 13 });
    assert_eq!(run("max", Start::Long(0), &gd, &read4).1, bd);

    // An instruction breakpoint on the second NOP, and RF.
    let mut pc = Pc::with_code("max", Start::Long(0), &[0x90, 0x90, 0x90]);
    pc.set(regs::DR[1], CODE + 1);
    pc.set(regs::DR[7], 0x404);
    assert_eq!(pc.block(8), Ok(()));
    assert_eq!(pc.state.pc(), CODE + 1);
    assert_eq!(pc.block(8), Err(Trap::Guest { vector: 1, code: 2 }));
    assert_eq!(pc.state.pc(), CODE + 1);
    pc.set(regs::EFLAGS, pc.get(regs::EFLAGS) | eflags::RF as u64);
    assert_eq!(pc.block(8), Ok(()));
    assert_eq!(pc.get(regs::EFLAGS) as u32 & eflags::RF, 0);

    // A write breakpoint of four bytes is taken behind the instruction.
    for (address, code, hit) in [
        (0x8003, [0x88, 0x07], true),
        (0x8004, [0x88, 0x07], false),
        (0x7ffe, [0x89, 0x07], true),
        (0x7ffc, [0x89, 0x07], false),
        // Reads do not count.
        (0x8000, [0x8b, 0x07], false),
    ] {
        let set = [(regs::DR[0], 0x8000), (regs::DR[7], 0xd_0401), (regs::RDI, address)];
        let (pc, end) = run("max", Start::Long(0), &set, &code);
        let want = if hit { Err(Trap::Guest { vector: 1, code: 1 }) } else { Ok(()) };
        assert_eq!((end, pc.state.pc()), (want, CODE + 2), "{address:#x} {code:x?}");
    }
    // Repeated strings stop behind the element.
    let set = [(regs::DR[0], 0x8002), (regs::DR[7], 0x1_0401), (regs::RDI, 0x8000), (regs::RCX, 9)];
    let mut pc = Pc::with_code("max", Start::Long(0), &[0xf3, 0xaa]);
    set.iter().for_each(|&(slot, v)| pc.set(slot, v));
    assert_eq!((pc.step(), pc.step()), (Ok(()), Ok(())));
    assert_eq!(pc.step(), Err(Trap::Guest { vector: 1, code: 1 }));
    assert_eq!((pc.get(regs::RCX), pc.state.pc()), (6, CODE));
    // Ports, with DE.
    let set = [
        (regs::DR[3], 0x60),
        (regs::DR[7], 0x2000_0440),
        (regs::CR4, cr4::PAE | cr4::DE),
        (regs::RDX, 0x60),
    ];
    let (_, end) = run("max", Start::Long(0), &set, &[0xec]);
    assert_eq!(end, Err(Trap::Guest { vector: 1, code: 8 }));
    // The trap flag, alone and in a shadow that begins.
    let tf = (regs::EFLAGS, eflags::TF as u64);
    let (pc, end) = run("max", Start::Long(0), &[tf], &[0x90]);
    assert_eq!((end, pc.state.pc()), (Err(Trap::Guest { vector: 1, code: 1 << 14 }), CODE + 1));
}

#[test]
fn a_shadow_lasts_one_instruction() {
    let mut pc = Pc::with_code("max", Start::Long(0), &[0x90, 0x90]);
    pc.set(regs::EFLAGS, eflags::IF as u64 | 2);
    pc.set(regs::SHADOW, 1);
    assert!(!pc.isa.interrupts_enabled(&pc.state));
    pc.outside.board.events.lock().unwrap().push(CpuEvent::Nmi);
    assert_eq!(pc.with_cx(|isa, cx| isa.take_event(cx)), Ok(false));
    assert_eq!(pc.block(8), Ok(()));
    assert_eq!((pc.state.pc(), pc.get(regs::SHADOW)), (CODE + 1, 0));
    assert!(pc.isa.interrupts_enabled(&pc.state));
}

#[test]
fn an_nmi_waits_for_the_end_of_another() {
    // iretq, in real mode iret, on a stack whose words are zero.
    let mut pc = Pc::with_code("max", Start::Real, &[0xcf]);
    pc.set(regs::RSP, 0x8000);
    pc.outside.write(0x8000, 2, 0x5000);
    pc.outside.write(8, 4, 0x1234_0056);
    pc.set(regs::NMI_BLOCKED, 1);
    pc.outside.board.events.lock().unwrap().push(CpuEvent::Nmi);
    assert_eq!(pc.with_cx(|isa, cx| isa.take_event(cx)), Ok(false));
    assert_eq!(pc.get(regs::NMI_PENDING), 1);
    let Err(trap) = pc.step() else { panic!("the NMI was forgotten") };
    assert_eq!(pc.state.pc(), 0x5000);
    assert_eq!(pc.with_cx(|isa, cx| isa.deliver(cx, trap)), Ok(()));
    assert_eq!(pc.state.pc(), 0x1_2396);
    assert_eq!((pc.get(regs::NMI_PENDING), pc.get(regs::NMI_BLOCKED)), (0, 1));
    assert_eq!(pc.outside.read(0x8000, 2), 0x5000);
}

#[test]
fn cpuid_shows_the_state() {
    let ask = |model: &str, set: &[(Slot, u64)], leaf: u64| {
        // The subleaf above the leaf.
        let mut all = vec![(regs::RAX, leaf & 0xffff_ffff), (regs::RCX, leaf >> 32)];
        all.extend_from_slice(set);
        let (pc, _) = run(model, Start::Long(0), &all, &[0x0f, 0xa2]);
        [regs::RAX, regs::RBX, regs::RCX, regs::RDX].map(|slot| pc.get(slot) as u32)
    };
    let osxsave = 1 << 27;
    assert_eq!(ask("Haswell", &[], 1)[2] & osxsave, 0);
    let on = [(regs::CR4, cr4::PAE | cr4::OSXSAVE)];
    assert_eq!(ask("Haswell", &on, 1)[2] & osxsave, osxsave);
    let wanted = [(1, 2, 17), (1, 2, 21), (1, 2, 24), (1, 3, 9), (7, 1, 7), (7, 3, 29)];
    for (leaf, register, bit) in wanted {
        let words = ask("Haswell", &[], leaf);
        assert_eq!(words[register] >> bit & 1, 1, "leaf {leaf}, register {register}, bit {bit}");
    }
    assert_eq!(ask("max", &[], 0x4000_0000), [0x4000_0010, 0x6b6c_7554, 0x6b6c_7554, 0x6b6c_7554]);
    assert_eq!(ask("max", &[], 0x4000_0010)[..2], [1_000_000, 1_000_000]);
    assert_eq!(
        (ask("Haswell", &[], 7)[0], ask("Haswell", &[], 2 << 32 | 7)),
        (2, [0, 0, 0, 1 << 4])
    );
    assert_eq!((ask("EPYC", &[], 7)[0], ask("EPYC", &[], 2 << 32 | 7)), (0, [0; 4]));
    assert_eq!(ask("max", &[], 0x15), [1, 1, 1_000_000_000, 0]);
    assert_eq!(ask("max", &[], 0x8000_0008)[0], 57 << 8 | 40);
    assert_eq!(ask("Haswell", &[], 0x8000_0008)[0], 48 << 8 | 40);
    assert_eq!(cpuid::TSC_HZ % cpuid::APIC_HZ, 0);
    // Nothing of that in user mode.
    let user =
        tulk_x86::X86::new(tulk_x86::Mode::X86_64, tulk_x86::CpuModel::parse("Haswell").unwrap());
    assert!(!user.is_system() && user.system().is_none());
    assert!(!user.model().has(tulk_x86::Feature::Pcid));
}

#[test]
fn behind_reset() {
    let pc = Pc::new("max");
    let get = |slot| pc.get(slot);
    assert_eq!((pc.state.pc(), get(regs::SEG[regs::CS])), (0xffff_fff0, 0xf000));
    assert_eq!(get(regs::SEG_BASE[regs::CS]), 0xffff_0000);
    assert_eq!((get(regs::CR0), get(regs::RDX)), (0x6000_0010, 0x506e3));
    assert_eq!((get(regs::DR[6]), get(regs::DR[7])), (0xffff_0ff0, 0x400));
    assert_eq!((get(regs::FCW), get(regs::MXCSR), get(regs::XCR0)), (0x40, 0x1f80, 1));
    assert_eq!((regs::eflags(&pc.state), get(regs::IDTR_LIMIT)), (2, 0xffff));
    let attr = get(regs::SEG_ATTR[regs::DS]);
    assert_eq!((get(regs::SEG_LIMIT[regs::DS]), attr), (0xffff, 0x93));
}

#[test]
fn init_and_startup() {
    let mut pc = Pc::new("max");
    pc.isa.reset_processor(&mut pc.state, 1);
    let take = |pc: &mut Pc| pc.with_cx(|isa, cx| isa.take_event(cx));
    let waits = Err(Stop::Halt { interrupts: false });
    assert_eq!(take(&mut pc), waits);
    // Should it run all the same, it comes to nothing.
    let Err(trap) = pc.step() else { panic!("code was fetched") };
    assert_eq!(pc.with_cx(|isa, cx| isa.deliver(cx, trap)), waits.map(|_| ()));
    pc.outside.board.events.lock().unwrap().push(CpuEvent::Startup(0x9a));
    assert_eq!(take(&mut pc), Ok(true));
    assert_eq!((pc.state.pc(), pc.get(regs::SEG[regs::CS])), (0x9_a000, 0x9a00));
    assert_eq!((pc.get(regs::SEG_BASE[regs::CS]), pc.get(regs::WAIT_FOR_STARTUP)), (0x9_a000, 0));
    // A second startup is ignored.
    pc.outside.board.events.lock().unwrap().push(CpuEvent::Startup(1));
    assert_eq!((take(&mut pc), pc.state.pc()), (Ok(false), 0x9_a000));
    // INIT keeps the float unit and the cache mode; the boot processor goes on at once.
    pc.set(regs::FCW, 0x37f);
    pc.set(regs::CR0, cr0::PE | cr0::CD | cr0::ET);
    pc.set(regs::RBX, 5);
    pc.outside.board.events.lock().unwrap().push(CpuEvent::Init);
    assert_eq!(take(&mut pc), Ok(true));
    assert_eq!((pc.get(regs::FCW), pc.get(regs::CR0)), (0x37f, cr0::CD | cr0::ET));
    assert_eq!((pc.get(regs::RBX), pc.state.pc()), (0, 0xffff_fff0));
}
