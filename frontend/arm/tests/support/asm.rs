//! The few instructions that test programs are written with. Registers are numbers; 31 is SP or XZR as the
//! instruction has it.

/// MOV Xd, #value, in as few instructions as MOVZ and MOVK need.
pub fn load_const(code: &mut Vec<u32>, rd: u32, value: u64) {
    let mut first = true;
    for hw in 0..4 {
        let part = (value >> (16 * hw)) as u32 & 0xffff;
        if part != 0 || (first && hw == 3) {
            let base = if first { 0xd280_0000 } else { 0xf280_0000 };
            code.push(base | hw << 21 | part << 5 | rd);
            first = false;
        }
    }
}

/// LDR Xt, [Xn, #offset]
pub fn ldr(rt: u32, rn: u32, offset: u32) -> u32 {
    0xf940_0000 | (offset / 8) << 10 | rn << 5 | rt
}

/// STR Xt, [Xn, #offset]
pub fn str(rt: u32, rn: u32, offset: u32) -> u32 {
    0xf900_0000 | (offset / 8) << 10 | rn << 5 | rt
}

/// LDP Xt, Xt2, [Xn, #offset]
pub fn ldp(rt: u32, rt2: u32, rn: u32, offset: u32) -> u32 {
    0xa940_0000 | (offset / 8) << 15 | rt2 << 10 | rn << 5 | rt
}

/// STP Xt, Xt2, [Xn, #offset]
pub fn stp(rt: u32, rt2: u32, rn: u32, offset: u32) -> u32 {
    0xa900_0000 | (offset / 8) << 15 | rt2 << 10 | rn << 5 | rt
}

/// LDP Qt, Qt2, [Xn, #offset]
pub fn ldp_q(rt: u32, rt2: u32, rn: u32, offset: u32) -> u32 {
    0xad40_0000 | (offset / 16) << 15 | rt2 << 10 | rn << 5 | rt
}

/// STP Qt, Qt2, [Xn, #offset]
pub fn stp_q(rt: u32, rt2: u32, rn: u32, offset: u32) -> u32 {
    0xad00_0000 | (offset / 16) << 15 | rt2 << 10 | rn << 5 | rt
}

/// ADD Xd|SP, Xn|SP, #0
pub fn mov_sp(rd: u32, rn: u32) -> u32 {
    0x9100_0000 | rn << 5 | rd
}

pub const NZCV: u32 = 0x5a10;
pub const FPCR: u32 = 0x5a20;
pub const FPSR: u32 = 0x5a21;

/// MRS Xt, register (one of the constants above)
pub fn mrs(rt: u32, register: u32) -> u32 {
    0xd530_0000 | register << 5 | rt
}

/// MSR register, Xt
pub fn msr(register: u32, rt: u32) -> u32 {
    0xd510_0000 | register << 5 | rt
}

pub const NOP: u32 = 0xd503_201f;
pub const CLREX: u32 = 0xd503_3f5f;
pub const SVC: u32 = 0xd400_0001;
/// RET X30
pub const RET: u32 = 0xd65f_03c0;

/// `number` into x8, then SVC; arguments are in place.
pub fn syscall(code: &mut Vec<u32>, number: u64) {
    load_const(code, 8, number);
    code.push(SVC);
}
