//! A processor's registers, taken at a moment, in the layout that users of emulators know (`info registers`).

use super::super::machine::Machine;
use std::fmt::Write;
use tulk_base::state::CELL_GUEST;
use tulk_frontend::{GuestIsa, TbKey};
use tulk_ir::Slot;
use tulk_x86::regs::{self, cell};
use tulk_x86::segment::attr;
use tulk_x86::system::{cr0, efer, gate};

/// All registers.
pub struct Registers {
    cells: Vec<u64>,
    /// The linear address of the next instruction, and its offset in the code segment.
    pub pc: u64,
    ip: u64,
    pub eflags: u32,
    /// For the disassembler.
    pub key: TbKey,
}

/// See the module. `None`: there is no such processor, or it does not answer.
pub fn take(machine: &Machine, cpu: u32) -> Option<Registers> {
    let isa = machine.isa.clone();
    machine.processors.with(cpu, move |vcpu| {
        let state = &vcpu.state;
        let last = cell(Slot(regs::COUNT - 1));
        Registers {
            cells: (CELL_GUEST..=last).map(|n| state.get(n)).collect(),
            pc: state.pc(),
            ip: gate::instruction_pointer(state, state.pc()),
            eflags: regs::eflags(state),
            key: isa.tb_key(state),
        }
    })
}

const GENERAL: [&str; 8] = ["AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI"];
/// The order of rows.
const ROWS: [usize; 8] = [0, 3, 1, 2, 6, 7, 5, 4];
const SEGMENTS: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];
/// Types of system segments.
const SYSTEM_TYPES: [&str; 16] = [
    "Reserved",
    "TSS16-avl",
    "LDT",
    "TSS16-busy",
    "CallGate16",
    "TaskGate",
    "IntGate16",
    "TrapGate16",
    "Reserved",
    "TSS32-avl",
    "Reserved",
    "TSS32-busy",
    "CallGate32",
    "Reserved",
    "IntGate32",
    "TrapGate32",
];

impl Registers {
    pub fn get(&self, slot: Slot) -> u64 {
        self.cells[usize::from(cell(slot) - CELL_GUEST)]
    }

    fn vector(&self, slot: Slot) -> u128 {
        let at = usize::from(cell(slot) - CELL_GUEST);
        u128::from(self.cells[at + 1]) << 64 | u128::from(self.cells[at])
    }

    pub fn long_mode(&self) -> bool {
        self.get(regs::EFER) & efer::LMA != 0
    }

    /// By name in any width: `rax`, `eax`, `ax`, `al`, `eip`, `cr3`, `cs`.
    pub fn by_name(&self, name: &str) -> Option<u64> {
        let name = name.to_ascii_lowercase();
        let segment = SEGMENTS.iter().position(|s| s.eq_ignore_ascii_case(&name));
        if let Some(n) = segment {
            return Some(self.get(regs::SEG[n]));
        }
        let general = |n: &str| GENERAL.iter().position(|g| g.eq_ignore_ascii_case(n));
        let (value, mask) = match name.as_str() {
            "pc" => (self.pc, u64::MAX),
            "rip" | "eip" => (self.ip, u64::MAX),
            "rflags" | "eflags" => (self.eflags.into(), u64::MAX),
            "efer" => (self.get(regs::EFER), u64::MAX),
            "cr0" => (self.get(regs::CR0), u64::MAX),
            "cr2" => (self.get(regs::CR2), u64::MAX),
            "cr3" => (self.get(regs::CR3), u64::MAX),
            "cr4" => (self.get(regs::CR4), u64::MAX),
            other => {
                let byte = |letter: char| general(&format!("{}x", other.strip_suffix(letter)?));
                if let Some(n) = other.strip_prefix('r').and_then(|n| n.parse::<usize>().ok()) {
                    (self.get(*regs::GPR.get(n).filter(|_| n >= 8)?), u64::MAX)
                } else if let Some(n) = other.strip_prefix('r').and_then(general) {
                    (self.get(regs::GPR[n]), u64::MAX)
                } else if let Some(n) = other.strip_prefix('e').and_then(general) {
                    (self.get(regs::GPR[n]), u64::from(u32::MAX))
                } else if let Some(n) = general(other) {
                    (self.get(regs::GPR[n]), 0xffff)
                } else if let Some(n) = byte('l') {
                    (self.get(regs::GPR[n]), 0xff)
                } else {
                    (self.get(regs::GPR[byte('h')?]) >> 8, 0xff)
                }
            }
        };
        Some(value & mask)
    }

    /// A segment's line: selector, base, limit, the upper half of the descriptor without base and limit, what that means.
    fn segment(&self, name: &str, [selector, base, limit, rights]: [Slot; 4]) -> String {
        let rights = self.get(rights) as u32;
        let flags = rights << 8 & 0x00f0_ff00;
        let base = match self.long_mode() {
            true => format!("{:016x}", self.get(base)),
            false => format!("{:08x}", self.get(base) as u32),
        };
        let (selector, limit) = (self.get(selector) as u16, self.get(limit) as u32);
        let mut line = format!("{name:<3}={selector:04x} {base} {limit:08x} {flags:08x}");
        if self.get(regs::CR0) & cr0::PE == 0 || rights & attr::P == 0 {
            return line + "\n";
        }
        let letter = |bit, c| if rights & bit != 0 { c } else { '-' };
        let accessed = letter(attr::ACCESSED, 'A');
        let meaning = if rights & attr::S == 0 {
            match (rights & 15, self.long_mode()) {
                (9, true) => "TSS64-avl".to_string(),
                (11, true) => "TSS64-busy".to_string(),
                (kind, _) => SYSTEM_TYPES[kind as usize].to_string(),
            }
        } else if rights & attr::CODE != 0 {
            let bits = match (rights & attr::L != 0, rights & attr::DB != 0) {
                (true, _) => 64,
                (_, true) => 32,
                _ => 16,
            };
            format!("CS{bits} [{}{}{accessed}]", letter(attr::DOWN, 'C'), letter(attr::RW, 'R'))
        } else {
            let bits = if rights & attr::DB != 0 || self.long_mode() { "DS  " } else { "DS16" };
            format!("{bits} [{}{}{accessed}]", letter(attr::DOWN, 'E'), letter(attr::RW, 'W'))
        };
        let _ = write!(line, " DPL={} {meaning}", rights >> 5 & 3);
        line + "\n"
    }

    /// The text of `info registers`.
    pub fn describe(&self, a20: bool, halted: bool) -> String {
        let mut out = String::new();
        let long = self.long_mode();
        if long {
            for (n, at) in ROWS.into_iter().enumerate() {
                let end = if n % 4 == 3 { '\n' } else { ' ' };
                let _ = write!(out, "R{}={:016x}{end}", GENERAL[at], self.get(regs::GPR[at]));
            }
            for n in 8..16 {
                let end = if n % 4 == 3 { '\n' } else { ' ' };
                let name = format!("R{n}");
                let _ = write!(out, "{name:<3}={:016x}{end}", self.get(regs::GPR[n]));
            }
        } else {
            for (n, at) in ROWS.into_iter().enumerate() {
                let end = if n % 4 == 3 { '\n' } else { ' ' };
                let _ = write!(out, "E{}={:08x}{end}", GENERAL[at], self.get(regs::GPR[at]) as u32);
            }
        }
        let flag = |bit: u32, c: char| if self.eflags >> bit & 1 != 0 { c } else { '-' };
        let letters: String =
            [(10, 'D'), (11, 'O'), (7, 'S'), (6, 'Z'), (4, 'A'), (2, 'P'), (0, 'C')]
                .map(|(bit, c)| flag(bit, c))
                .iter()
                .collect();
        let ip = match long {
            true => format!("RIP={:016x} RFL", self.ip),
            false => format!("EIP={:08x} EFL", self.ip as u32),
        };
        let _ = writeln!(
            out,
            "{ip}={:08x} [{letters}] CPL={} II={} A20={} SMM=0 HLT={}",
            self.eflags,
            self.get(regs::CPL),
            self.get(regs::SHADOW) & 1,
            u8::from(a20),
            u8::from(halted)
        );
        for (n, name) in SEGMENTS.iter().enumerate() {
            let [base, limit, rights] = [regs::SEG_BASE[n], regs::SEG_LIMIT[n], regs::SEG_ATTR[n]];
            out += &self.segment(name, [regs::SEG[n], base, limit, rights]);
        }
        let ldt = [regs::LDTR, regs::LDTR_BASE, regs::LDTR_LIMIT, regs::LDTR_ATTR];
        out += &self.segment("LDT", ldt);
        out += &self.segment("TR", [regs::TR, regs::TR_BASE, regs::TR_LIMIT, regs::TR_ATTR]);
        let wide = |slot| match long {
            true => format!("{:016x}", self.get(slot)),
            false => format!("{:08x}", self.get(slot) as u32),
        };
        for (name, base, limit) in
            [("GDT", regs::GDTR_BASE, regs::GDTR_LIMIT), ("IDT", regs::IDTR_BASE, regs::IDTR_LIMIT)]
        {
            let _ = writeln!(out, "{name}=     {} {:08x}", wide(base), self.get(limit));
        }
        let _ = writeln!(
            out,
            "CR0={:08x} CR2={} CR3={} CR4={:08x}",
            self.get(regs::CR0),
            wide(regs::CR2),
            wide(regs::CR3),
            self.get(regs::CR4)
        );
        let debug = |n: usize| format!("DR{n}={:016x}", self.get(regs::DR[n]));
        let _ = writeln!(out, "{} {} {} {}", debug(0), debug(1), debug(2), debug(3));
        let _ = writeln!(out, "{} {}", debug(6), debug(7));
        let _ = writeln!(out, "EFER={:016x}", self.get(regs::EFER));
        let top = self.get(regs::FTOP) & 7;
        let _ = writeln!(
            out,
            "FCW={:04x} FSW={:04x} [ST={top}] FTW={:02x} MXCSR={:08x}",
            self.get(regs::FCW),
            self.get(regs::FSW) | top << 11,
            self.get(regs::FTAG) & 0xff,
            self.get(regs::MXCSR)
        );
        for n in 0..8 {
            let end = if n % 2 == 1 { '\n' } else { ' ' };
            let (bits, exponent) = (self.get(regs::FPR_SIG[n]), self.get(regs::FPR_EXP[n]));
            let _ = write!(out, "FPR{n}={bits:016x} {:04x}{end}", exponent & 0xffff);
        }
        for n in 0..if long { 16 } else { 8 } {
            let end = if n % 2 == 1 { '\n' } else { ' ' };
            let _ = write!(out, "XMM{n:02}={:032x}{end}", self.vector(regs::XMM[n]));
        }
        out
    }
}
