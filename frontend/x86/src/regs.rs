//! The register layout: which slot is which register. The slots are constants; [`layout`] builds the table that
//! they index, and a test holds the two together. 32-bit and 16-bit code uses the low bits of the same slots; in
//! 32-bit guests the high halves of the general registers are zero.
//!
//! EFLAGS lives in two places: the six arithmetic flags are lazy in `cc_op`, `cc_dst` and `cc_src` (see
//! [`crate::flags`]), everything else is in `eflags`. [`eflags`] and [`set_eflags`] join and split them.

use crate::Mode;
use crate::flags;
use tulk_base::CpuState;
use tulk_base::state::CELL_GUEST;
use tulk_ir::{RegLayout, Slot, Type};

/// `N` consecutive slots.
const fn run<const N: usize>(first: u16) -> [Slot; N] {
    let mut slots = [Slot(0); N];
    let mut i = 0;
    while i < N {
        slots[i] = Slot(first + i as u16);
        i += 1;
    }
    slots
}

/// rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15: the encoding's order.
pub const GPR: [Slot; 16] = run(0);
pub const RAX: Slot = GPR[0];
pub const RCX: Slot = GPR[1];
pub const RDX: Slot = GPR[2];
pub const RBX: Slot = GPR[3];
pub const RSP: Slot = GPR[4];
pub const RBP: Slot = GPR[5];
pub const RSI: Slot = GPR[6];
pub const RDI: Slot = GPR[7];
/// Which operation set the arithmetic flags: [`flags::CcOp`].
pub const CC_OP: Slot = Slot(16);
pub const CC_DST: Slot = Slot(17);
pub const CC_SRC: Slot = Slot(18);
/// EFLAGS without the arithmetic flags.
pub const EFLAGS: Slot = Slot(19);

/// Segment registers in the encoding's order.
pub const ES: usize = 0;
pub const CS: usize = 1;
pub const SS: usize = 2;
pub const DS: usize = 3;
pub const FS: usize = 4;
pub const GS: usize = 5;
/// Selectors.
pub const SEG: [Slot; 6] = run(20);
pub const SEG_BASE: [Slot; 6] = run(26);
/// Limits in bytes, inclusive.
pub const SEG_LIMIT: [Slot; 6] = run(32);
/// Access rights: see [`crate::segment`].
pub const SEG_ATTR: [Slot; 6] = run(38);

/// Significands of the physical x87 registers R0 to R7; these are also mm0 to mm7.
pub const FPR_SIG: [Slot; 8] = run(44);
/// Sign and exponent of the physical x87 registers, 16 bits; the others are zero.
pub const FPR_EXP: [Slot; 8] = run(52);
/// TOP: which physical register is st(0).
pub const FTOP: Slot = Slot(60);
/// The x87 control word.
pub const FCW: Slot = Slot(61);
/// The x87 status word; its TOP field is zero here.
pub const FSW: Slot = Slot(62);
/// The abridged tag word of FXSAVE: bit i is set when physical register i is in use.
pub const FTAG: Slot = Slot(63);
/// Address of the last x87 instruction and of its memory operand, their selectors, its opcode (11 bits).
pub const FIP: Slot = Slot(64);
pub const FDP: Slot = Slot(65);
pub const FCS: Slot = Slot(66);
pub const FDS: Slot = Slot(67);
pub const FOP: Slot = Slot(68);
/// Sticky exception bits of SSE accumulate in the host's float unit while guest code runs: see
/// [`crate::fpstate`].
pub const MXCSR: Slot = Slot(69);
pub const XCR0: Slot = Slot(70);
pub const PKRU: Slot = Slot(71);
/// xmm0 to xmm15.
pub const XMM: [Slot; 16] = run(72);
/// High halves of ymm0 to ymm15.
pub const YMMH: [Slot; 16] = run(88);
/// IA32_TSC_AUX, what RDPID and RDTSCP show beside the processor's number: see [`crate::integer::system`].
pub const TSC_AUX: Slot = Slot(104);
/// User mode: the thread's three GDT descriptors (set_thread_area), from [`GDT_TLS_FIRST`] on.
pub const GDT_TLS: [Slot; 3] = run(105);
/// User mode: the selector (plus [`DESC_VALID`]) and descriptor that the kernel's side delivered for a segment
/// load: see [`crate::segment`].
pub const DESC_SELECTOR: Slot = Slot(108);
pub const DESC: Slot = Slot(109);
/// Non-zero while nobody looks at the flags of a faulting memory access, since the guest has no handler for
/// SIGSEGV and SIGBUS and no debugger is attached: see [`crate::key::BLIND_FAULTS`].
pub const BLIND_FAULTS: Slot = Slot(110);
/// User mode: a descriptor that waits for a second one, and the instruction and selector that it is for.
pub const DESC_WAITS: Slot = Slot(111);
pub const DESC_FIRST: Slot = Slot(112);

// System mode only from here on. The manual's volume 3, chapter 2 has the registers.

/// 1 in system mode: the slots from here on are in use.
pub const SYSTEM: Slot = Slot(113);
/// The CPU model, so that helpers know it: index in [`crate::cpu::CHIPS`], features (low half, high half).
pub const CHIP: Slot = Slot(114);
pub const FEATURES: [Slot; 2] = run(115);
/// Number of processors in the machine.
pub const PROCESSORS: Slot = Slot(117);
/// The current privilege level: 0 in real mode, 3 in virtual-8086 mode.
pub const CPL: Slot = Slot(118);
/// 1 for one instruction behind STI (that set IF) and loads of SS: no interrupt or debug trap is taken before it.
pub const SHADOW: Slot = Slot(119);
/// Bits of DR6 of a debug trap that is taken at the next boundary outside of a shadow.
pub const PENDING_DB: Slot = Slot(120);
/// 1 from the delivery of an NMI to the next IRET.
pub const NMI_BLOCKED: Slot = Slot(121);
/// 1 between INIT and the startup event.
pub const WAIT_FOR_STARTUP: Slot = Slot(122);
pub const CR0: Slot = Slot(123);
pub const CR2: Slot = Slot(124);
pub const CR3: Slot = Slot(125);
pub const CR4: Slot = Slot(126);
pub const EFER: Slot = Slot(127);
/// The page-directory-pointer registers of PAE paging, as the last load of CR3 found them.
pub const PDPTE: [Slot; 4] = run(128);
pub const GDTR_BASE: Slot = Slot(132);
pub const GDTR_LIMIT: Slot = Slot(133);
pub const IDTR_BASE: Slot = Slot(134);
pub const IDTR_LIMIT: Slot = Slot(135);
/// Selector, base, limit in bytes (inclusive) and access rights as in [`SEG_ATTR`].
pub const LDTR: Slot = Slot(136);
pub const LDTR_BASE: Slot = Slot(137);
pub const LDTR_LIMIT: Slot = Slot(138);
pub const LDTR_ATTR: Slot = Slot(139);
pub const TR: Slot = Slot(140);
pub const TR_BASE: Slot = Slot(141);
pub const TR_LIMIT: Slot = Slot(142);
pub const TR_ATTR: Slot = Slot(143);
/// DR0 to DR7; 4 and 5 are not used.
pub const DR: [Slot; 8] = run(144);
pub const STAR: Slot = Slot(152);
pub const LSTAR: Slot = Slot(153);
pub const CSTAR: Slot = Slot(154);
pub const SFMASK: Slot = Slot(155);
pub const KERNEL_GS_BASE: Slot = Slot(156);
pub const SYSENTER_CS: Slot = Slot(157);
pub const SYSENTER_ESP: Slot = Slot(158);
pub const SYSENTER_EIP: Slot = Slot(159);
pub const PAT: Slot = Slot(160);
/// IA32_MTRR_PHYSBASE0, IA32_MTRR_PHYSMASK0, and so on.
pub const MTRR_PHYS: [Slot; 16] = run(161);
/// The fixed-range registers in order of their numbers.
pub const MTRR_FIX: [Slot; 11] = run(177);
pub const MTRR_DEF_TYPE: Slot = Slot(188);
pub const MISC_ENABLE: Slot = Slot(189);
/// What is added to the clock for the time-stamp counter, and IA32_TSC_ADJUST.
pub const TSC_OFFSET: Slot = Slot(190);
pub const TSC_ADJUST: Slot = Slot(191);
/// What is added to the clock for IA32_MPERF and IA32_APERF.
pub const MPERF_OFFSET: Slot = Slot(192);
pub const APERF_OFFSET: Slot = Slot(193);
pub const MCG_STATUS: Slot = Slot(194);
pub const MCG_CTL: Slot = Slot(195);
pub const SPEC_CTRL: Slot = Slot(196);
pub const FEATURE_CONTROL: Slot = Slot(197);
/// IA32_BIOS_SIGN_ID.
pub const BIOS_SIGN: Slot = Slot(198);
/// IA32_DEBUGCTL.
pub const DEBUG_CTL: Slot = Slot(199);
pub const XSS: Slot = Slot(200);
/// 1 while an NMI waits for the end of the one in progress.
pub const NMI_PENDING: Slot = Slot(201);
/// 1 if an interrupt of the board waits for IF, as far as the engine knew when it looked last. Whoever sets IF has it look again.
pub const EVENT_WAITS: Slot = Slot(202);
/// The key flags behind a transfer that its helper made.
pub const NEXT_KEY: Slot = Slot(203);
/// Number of slots.
pub const COUNT: u16 = 204;

/// Index in the GDT of the first TLS descriptor (64-bit Linux, for both kinds of programs).
pub const GDT_TLS_FIRST: usize = 12;
/// Bit in [`DESC_SELECTOR`]: the pair is filled.
pub const DESC_VALID: u64 = 1 << 16;

/// The first state cell of a slot.
pub const fn cell(slot: Slot) -> u16 {
    match slot.0 {
        n @ 0..=71 => CELL_GUEST + n,
        // Pairs of cells.
        n @ 72..=103 => CELL_GUEST + 72 + 2 * (n - 72),
        n => CELL_GUEST + 136 + (n - 104),
    }
}

/// The layout. gdb's numbers are those of its `i386` and `i386:x86-64` core, sse, avx, linux and segments
/// features; eflags and st(i), which are no slots of their own, are composed.
pub fn layout(mode: Mode) -> RegLayout {
    const NAMES: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
    const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
    let long = mode == Mode::X86_64;
    // gdb's order: rax rbx rcx rdx rsi rdi rbp rsp; eax to edi as encoded; cs ss ds es fs gs.
    const GDB64: [u16; 8] = [0, 2, 3, 1, 7, 6, 4, 5];
    const GDB_SEGMENTS: [u16; 6] = [3, 0, 1, 2, 4, 5];
    let after_core: u16 = if long { 18 } else { 10 };
    let after_segments = after_core + 6;
    let xmm = after_segments + 16;
    let mut l = RegLayout::new();
    for n in 0..16 {
        let (name, gdb) = match n {
            0..8 if long => (format!("r{}", NAMES[n]), Some(GDB64[n])),
            0..8 => (format!("e{}", NAMES[n]), Some(n as u16)),
            _ => (format!("r{n}"), long.then_some(n as u16)),
        };
        l.add(name, Type::I64, gdb);
    }
    l.add("cc_op", Type::I32, None);
    l.add("cc_dst", Type::I64, None);
    l.add("cc_src", Type::I64, None);
    l.add("eflags_rest", Type::I32, None);
    for (name, n) in SEGMENTS.iter().zip(GDB_SEGMENTS) {
        l.add(*name, Type::I32, Some(after_core + n));
    }
    for (n, name) in SEGMENTS.iter().enumerate() {
        let gdb = if long && n >= FS { Some(58 + (n - FS) as u16) } else { None };
        l.add(format!("{name}_base"), Type::I64, gdb);
    }
    for name in SEGMENTS {
        l.add(format!("{name}_limit"), Type::I32, None);
    }
    for name in SEGMENTS {
        l.add(format!("{name}_attr"), Type::I32, None);
    }
    for n in 0..8 {
        l.add(format!("mm{n}"), Type::I64, None);
    }
    for n in 0..8 {
        l.add(format!("fpr{n}_exp"), Type::I64, None);
    }
    l.add("ftop", Type::I32, None);
    l.add("fctrl", Type::I32, Some(after_segments + 8));
    l.add("fstat", Type::I32, Some(after_segments + 9));
    l.add("ftag", Type::I32, None);
    l.add("fioff", Type::I64, Some(after_segments + 12));
    l.add("fooff", Type::I64, Some(after_segments + 14));
    l.add("fiseg", Type::I32, Some(after_segments + 11));
    l.add("foseg", Type::I32, Some(after_segments + 13));
    l.add("fop", Type::I32, Some(after_segments + 15));
    let vectors = if long { 16 } else { 8 };
    l.add("mxcsr", Type::I32, Some(xmm + vectors));
    l.add("xcr0", Type::I64, None);
    l.add("pkru", Type::I32, None);
    for n in 0..16 {
        l.add(format!("xmm{n}"), Type::V128, (n < vectors).then_some(xmm + n));
    }
    let ymmh = if long { 60 } else { 42 };
    for n in 0..16 {
        l.add(format!("ymm{n}h"), Type::V128, (n < vectors).then_some(ymmh + n));
    }
    l.add("tsc_aux", Type::I32, None);
    for n in 0..3 {
        l.add(format!("gdt_tls{n}"), Type::I64, None);
    }
    l.add("desc_selector", Type::I64, None);
    l.add("desc", Type::I64, None);
    l.add("blind_faults", Type::I32, None);
    l.add("desc_waits", Type::I64, None);
    l.add("desc_first", Type::I64, None);
    for (name, ty) in SYSTEM_SLOTS {
        l.add(*name, *ty, None);
    }
    // Which operation set the flags, and what `key::of_state` looks at.
    l.imply([CC_OP, EFLAGS, FTOP, FTAG, FCW, FSW, MXCSR, BLIND_FAULTS]);
    l.overwrite([CC_OP, CC_DST, CC_SRC]);
    l.general(GPR);
    l.imply(SEG_BASE.into_iter().chain(SEG_LIMIT).chain(SEG_ATTR));
    l.imply([CR0, CR4, EFER, XCR0, CPL, SHADOW, DR[7]]);
    l
}

/// Names and types of the slots from [`SYSTEM`] on.
const SYSTEM_SLOTS: &[(&str, Type)] = &[
    ("system", Type::I32),
    ("chip", Type::I32),
    ("features0", Type::I64),
    ("features1", Type::I64),
    ("processors", Type::I32),
    ("cpl", Type::I32),
    ("shadow", Type::I32),
    ("pending_db", Type::I32),
    ("nmi_blocked", Type::I32),
    ("wait_for_startup", Type::I32),
    ("cr0", Type::I64),
    ("cr2", Type::I64),
    ("cr3", Type::I64),
    ("cr4", Type::I64),
    ("efer", Type::I64),
    ("pdpte0", Type::I64),
    ("pdpte1", Type::I64),
    ("pdpte2", Type::I64),
    ("pdpte3", Type::I64),
    ("gdtr_base", Type::I64),
    ("gdtr_limit", Type::I32),
    ("idtr_base", Type::I64),
    ("idtr_limit", Type::I32),
    ("ldtr", Type::I32),
    ("ldtr_base", Type::I64),
    ("ldtr_limit", Type::I32),
    ("ldtr_attr", Type::I32),
    ("tr", Type::I32),
    ("tr_base", Type::I64),
    ("tr_limit", Type::I32),
    ("tr_attr", Type::I32),
    ("dr0", Type::I64),
    ("dr1", Type::I64),
    ("dr2", Type::I64),
    ("dr3", Type::I64),
    ("dr4", Type::I64),
    ("dr5", Type::I64),
    ("dr6", Type::I64),
    ("dr7", Type::I64),
    ("star", Type::I64),
    ("lstar", Type::I64),
    ("cstar", Type::I64),
    ("sfmask", Type::I64),
    ("kernel_gs_base", Type::I64),
    ("sysenter_cs", Type::I64),
    ("sysenter_esp", Type::I64),
    ("sysenter_eip", Type::I64),
    ("pat", Type::I64),
    ("mtrr_phys0", Type::I64),
    ("mtrr_phys1", Type::I64),
    ("mtrr_phys2", Type::I64),
    ("mtrr_phys3", Type::I64),
    ("mtrr_phys4", Type::I64),
    ("mtrr_phys5", Type::I64),
    ("mtrr_phys6", Type::I64),
    ("mtrr_phys7", Type::I64),
    ("mtrr_phys8", Type::I64),
    ("mtrr_phys9", Type::I64),
    ("mtrr_phys10", Type::I64),
    ("mtrr_phys11", Type::I64),
    ("mtrr_phys12", Type::I64),
    ("mtrr_phys13", Type::I64),
    ("mtrr_phys14", Type::I64),
    ("mtrr_phys15", Type::I64),
    ("mtrr_fix0", Type::I64),
    ("mtrr_fix1", Type::I64),
    ("mtrr_fix2", Type::I64),
    ("mtrr_fix3", Type::I64),
    ("mtrr_fix4", Type::I64),
    ("mtrr_fix5", Type::I64),
    ("mtrr_fix6", Type::I64),
    ("mtrr_fix7", Type::I64),
    ("mtrr_fix8", Type::I64),
    ("mtrr_fix9", Type::I64),
    ("mtrr_fix10", Type::I64),
    ("mtrr_def_type", Type::I64),
    ("misc_enable", Type::I64),
    ("tsc_offset", Type::I64),
    ("tsc_adjust", Type::I64),
    ("mperf_offset", Type::I64),
    ("aperf_offset", Type::I64),
    ("mcg_status", Type::I64),
    ("mcg_ctl", Type::I64),
    ("spec_ctrl", Type::I64),
    ("feature_control", Type::I64),
    ("bios_sign", Type::I64),
    ("debug_ctl", Type::I64),
    ("xss", Type::I64),
    ("nmi_pending", Type::I32),
    ("event_waits", Type::I32),
    ("next_key", Type::I64),
];

/// EFLAGS bits outside the arithmetic flags.
pub mod eflags {
    pub const TF: u32 = 1 << 8;
    pub const IF: u32 = 1 << 9;
    pub const DF: u32 = 1 << 10;
    pub const IOPL: u32 = 3 << 12;
    pub const NT: u32 = 1 << 14;
    pub const RF: u32 = 1 << 16;
    pub const VM: u32 = 1 << 17;
    pub const AC: u32 = 1 << 18;
    pub const VIF: u32 = 1 << 19;
    pub const VIP: u32 = 1 << 20;
    pub const ID: u32 = 1 << 21;
    /// Bit 1 is always set.
    pub const FIXED: u32 = 2;
}

/// EFLAGS as PUSHF shows it.
pub fn eflags(state: &CpuState) -> u32 {
    let arithmetic = flags::packed(
        state.get(cell(CC_OP)) as u32,
        state.get(cell(CC_DST)),
        state.get(cell(CC_SRC)),
    );
    state.get(cell(EFLAGS)) as u32 & !flags::ALL | eflags::FIXED | arithmetic
}

/// Sets all of EFLAGS.
pub fn set_eflags(state: &mut CpuState, value: u32) {
    state.set(cell(CC_OP), 0);
    state.set(cell(CC_DST), 0);
    state.set(cell(CC_SRC), (value & flags::ALL) as u64);
    state.set(cell(EFLAGS), (value & !flags::ALL | eflags::FIXED) as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_the_layout() {
        for (mode, sp) in [(Mode::X86_64, "rsp"), (Mode::I386, "esp")] {
            let layout = layout(mode);
            for (slot, name) in [
                (RSP, sp),
                (GPR[15], "r15"),
                (CC_OP, "cc_op"),
                (EFLAGS, "eflags_rest"),
                (SEG[ES], "es"),
                (SEG_BASE[FS], "fs_base"),
                (SEG_LIMIT[SS], "ss_limit"),
                (SEG_ATTR[GS], "gs_attr"),
                (FPR_SIG[0], "mm0"),
                (FPR_EXP[7], "fpr7_exp"),
                (FTOP, "ftop"),
                (FTAG, "ftag"),
                (FOP, "fop"),
                (MXCSR, "mxcsr"),
                (PKRU, "pkru"),
                (XMM[15], "xmm15"),
                (YMMH[0], "ymm0h"),
                (TSC_AUX, "tsc_aux"),
                (GDT_TLS[2], "gdt_tls2"),
                (DESC, "desc"),
                (BLIND_FAULTS, "blind_faults"),
                (DESC_FIRST, "desc_first"),
                (SYSTEM, "system"),
                (CPL, "cpl"),
                (PDPTE[3], "pdpte3"),
                (TR_ATTR, "tr_attr"),
                (DR[7], "dr7"),
                (MTRR_FIX[10], "mtrr_fix10"),
                (NMI_PENDING, "nmi_pending"),
                (NEXT_KEY, "next_key"),
            ] {
                assert_eq!(layout.def(slot).name, name);
            }
            assert_eq!(layout.slots().len(), COUNT as usize);
            for n in 0..COUNT {
                assert_eq!(layout.cell(Slot(n)), cell(Slot(n)), "{}", layout.def(Slot(n)).name);
            }
        }
    }

    #[test]
    fn gdb_numbers() {
        let numbers = |mode| {
            let l = layout(mode);
            move |name: &str| l.def(l.by_name(name).unwrap()).gdb.unwrap()
        };
        let n = numbers(Mode::X86_64);
        assert_eq!([n("rbx"), n("rsp"), n("r8"), n("cs"), n("gs")], [1, 7, 8, 18, 23]);
        assert_eq!([n("fctrl"), n("fop"), n("xmm0"), n("mxcsr")], [32, 39, 40, 56]);
        assert_eq!([n("fs_base"), n("gs_base"), n("ymm0h")], [58, 59, 60]);
        let n = numbers(Mode::I386);
        assert_eq!([n("ebx"), n("esp"), n("cs"), n("gs"), n("fctrl")], [3, 4, 10, 15, 24]);
        assert_eq!([n("xmm0"), n("mxcsr"), n("ymm0h")], [32, 40, 42]);
    }

    #[test]
    fn eflags_split_and_join() {
        let mut state = CpuState::new();
        for value in [0x202, 0x8d5 | 2, 0x24_0ed7] {
            set_eflags(&mut state, value);
            assert_eq!(eflags(&state), value);
        }
    }
}
