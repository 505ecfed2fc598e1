//! Whether float and vector instructions may run (the manual, volume 3, chapters 2.5, 12.1, 13.1, 14.3 and table 2-3).

use super::FIRST_UNIT;
use super::{cr0, cr4, protected, vm86};
use crate::helpers::helpers;
use crate::key::{self, Key};
use crate::lifter::Lifter;
use crate::regs::{self, cell};
use iced_x86::{Code, CpuidFeature as C, EncodingKind, Mnemonic, OpCodeOperandKind};
use tulk_base::Trap;
use tulk_ir::{Access, HelperCx, Slot};

/// Groups of instructions that CR0, CR4 and XCR0 enable together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Class {
    /// None of these.
    Other,
    X87,
    /// WAIT, which CR0.MP lets run.
    Wait,
    Mmx,
    Sse,
    /// FXSAVE and FXRSTOR.
    Legacy,
    /// XSAVE and kin.
    Extended,
    Avx,
    /// VEX instructions on general registers.
    Vex,
}

/// Vector of the exception that no float unit is there, or none for this task.
const NOT_AVAILABLE: Trap = Trap::Guest { vector: 7, code: 0 };

impl Class {
    const ALL: [Class; 9] = [
        Class::Other,
        Class::X87,
        Class::Wait,
        Class::Mmx,
        Class::Sse,
        Class::Legacy,
        Class::Extended,
        Class::Avx,
        Class::Vex,
    ];

    /// The class of an instruction.
    pub fn of(code: Code) -> Class {
        use Mnemonic::*;
        let vector = |k: OpCodeOperandKind| {
            use OpCodeOperandKind::*;
            matches!(
                k,
                xmm_or_mem
                    | xmm_reg
                    | xmm_rm
                    | xmm_vvvv
                    | xmm_is4
                    | xmm_is5
                    | ymm_or_mem
                    | ymm_reg
                    | ymm_rm
                    | ymm_vvvv
                    | ymm_is4
                    | ymm_is5
                    | mem_vsib32x
                    | mem_vsib64x
                    | mem_vsib32y
                    | mem_vsib64y
            )
        };
        let mmx = |k: OpCodeOperandKind| {
            use OpCodeOperandKind::*;
            matches!(k, mm_or_mem | mm_reg | mm_rm)
        };
        let info = code.op_code();
        let operands = info.op_kinds();
        match code.mnemonic() {
            Fxsave | Fxsave64 | Fxrstor | Fxrstor64 => return Class::Legacy,
            Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64 | Xrstor | Xrstor64
            | Xsaves | Xsaves64 | Xrstors | Xrstors64 => return Class::Extended,
            Wait => return Class::Wait,
            Ldmxcsr | Stmxcsr => return Class::Sse,
            Emms | Femms => return Class::Mmx,
            Vldmxcsr | Vstmxcsr | Vzeroall | Vzeroupper => return Class::Avx,
            _ => {}
        }
        if code.encoding() == EncodingKind::VEX {
            return if operands.iter().any(|&k| vector(k)) { Class::Avx } else { Class::Vex };
        }
        if operands.iter().any(|&k| vector(k)) || matches!(code.mnemonic(), Maskmovdqu) {
            return Class::Sse;
        }
        if operands.iter().any(|&k| mmx(k)) {
            return Class::Mmx;
        }
        let x87 = |f: &C| matches!(f, C::FPU | C::FPU287 | C::FPU387);
        if code.cpuid_features().iter().any(x87)
            || (Code::Fadd_m32fp as u16..=Code::Fcomip_st0_sti as u16).contains(&(code as u16))
        {
            return Class::X87;
        }
        Class::Other
    }

    /// Whether an instruction of this class must ask under this key.
    fn asks(self, key: &Key) -> bool {
        match self {
            Class::Other => false,
            Class::X87 | Class::Wait | Class::Mmx | Class::Legacy => key.has(key::X87_CHECK),
            Class::Sse => key.has(key::SSE_CHECK),
            Class::Avx => key.has(key::AVX_CHECK),
            Class::Vex => key.real() || key.has(key::VM86),
            // Rare enough to ask always.
            Class::Extended => true,
        }
    }
}

/// Asks before an instruction of this class whether it may run.
pub fn check(l: &mut Lifter<'_>, class: Class) {
    if class.asks(&l.key) {
        l.call(CHECK, &[], class as i64);
    }
}

fn unit_check(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let get = |slot| cx.state.get(cell(slot));
    let (control, extended) = (get(regs::CR0), get(regs::CR4));
    let has = |bit| control & bit != 0;
    let plain = !protected(cx.state) || vm86(cx.state);
    let undefined = match Class::ALL[args[3] as usize % Class::ALL.len()] {
        Class::Other => return Ok(0),
        Class::X87 if has(cr0::EM) => return Err(NOT_AVAILABLE),
        Class::X87 => false,
        Class::Wait if !has(cr0::MP) => return Ok(0),
        Class::Wait => false,
        Class::Mmx | Class::Legacy => has(cr0::EM),
        Class::Sse => has(cr0::EM) || extended & cr4::OSFXSR == 0,
        Class::Extended => extended & cr4::OSXSAVE == 0,
        Class::Avx => plain || extended & cr4::OSXSAVE == 0 || get(regs::XCR0) & 6 != 6,
        Class::Vex if plain => true,
        Class::Vex => return Ok(0),
    };
    if undefined {
        return Err(Trap::Illegal);
    }
    if has(cr0::TS) { Err(NOT_AVAILABLE) } else { Ok(0) }
}

const READS: &[Slot] = &[regs::CR0, regs::CR4, regs::XCR0, regs::EFLAGS];

helpers! { FIRST_UNIT;
    /// Whether an instruction of the class in the immediate may run: #UD or #NM.
    CHECK = unit_check() -> (), Access::These(READS), Access::None, traps;
}
