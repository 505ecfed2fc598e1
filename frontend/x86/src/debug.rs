//! The registers as GDB knows them: its features `org.gnu.gdb.i386.core`, `.sse`, `.avx`, `.linux` and `.segments`.

use crate::regs::{self, cell};
use crate::x87;
use tulk_base::CpuState;
use tulk_frontend::debug::{Feature, Register, Registers, Source, numbered};
use tulk_ir::{RegLayout, SlotDef};

const CORE_TYPES: &str = r#"<flags id="i386_eflags" size="4">
<field name="" start="22" end="31"/>
<field name="CF" start="0" end="0"/><field name="" start="1" end="1"/><field name="PF" start="2" end="2"/>
<field name="AF" start="4" end="4"/><field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/>
<field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/><field name="DF" start="10" end="10"/>
<field name="OF" start="11" end="11"/><field name="NT" start="14" end="14"/><field name="RF" start="16" end="16"/>
<field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/><field name="VIF" start="19" end="19"/>
<field name="VIP" start="20" end="20"/><field name="ID" start="21" end="21"/></flags>
"#;

const SSE_TYPES: &str = r#"<vector id="v8bf16" type="bfloat16" count="8"/><vector id="v4f" type="ieee_single" count="4"/>
<vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>
<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128"><field name="v8_bfloat16" type="v8bf16"/><field name="v4_float" type="v4f"/>
<field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>
<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>
<flags id="i386_mxcsr" size="4"><field name="IE" start="0" end="0"/><field name="DE" start="1" end="1"/>
<field name="ZE" start="2" end="2"/><field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/>
<field name="PE" start="5" end="5"/><field name="DAZ" start="6" end="6"/><field name="IM" start="7" end="7"/>
<field name="DM" start="8" end="8"/><field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/>
<field name="UM" start="11" end="11"/><field name="PM" start="12" end="12"/><field name="FZ" start="15" end="15"/></flags>
"#;

/// st(i) of the stack as it stands.
fn st<const I: usize>() -> Source {
    fn physical(state: &CpuState, i: usize) -> usize {
        (state.get(cell(regs::FTOP)) as usize + i) & 7
    }
    Source::Composed {
        read: |state| {
            let r = physical(state, I);
            let exp = state.get(cell(regs::FPR_EXP[r])) as u16;
            state.get(cell(regs::FPR_SIG[r])) as u128 | (exp as u128) << 64
        },
        write: |state, value| {
            let r = physical(state, I);
            state.set(cell(regs::FPR_SIG[r]), value as u64);
            state.set(cell(regs::FPR_EXP[r]), (value >> 64) as u64);
        },
    }
}

const EFLAGS: Source = Source::Composed {
    read: |state| regs::eflags(state) as u128,
    write: |state, value| regs::set_eflags(state, value as u32),
};

/// The status word with TOP in it.
const STATUS: Source = Source::Composed {
    read: |state| {
        let top = state.get(cell(regs::FTOP)) & 7;
        (state.get(cell(regs::FSW)) & 0xc7ff | top << 11) as u128
    },
    write: |state, value| {
        state.set(cell(regs::FSW), value as u64 & 0xc7ff);
        state.set(cell(regs::FTOP), value as u64 >> 11 & 7);
    },
};

/// The full tag word, of which the state keeps what FXSAVE does: empty or not.
const TAGS: Source = Source::Composed {
    read: |state| x87::environment::tag_word(&x87::unit::Unit(state)) as u128,
    write: |state, value| {
        let used = (0..8).fold(0, |tag, n| tag | ((value >> (2 * n) & 3 != 3) as u64) << n);
        state.set(cell(regs::FTAG), used);
    },
};

/// See the module. `long`: x86-64.
pub fn registers(layout: &RegLayout, long: bool) -> Registers {
    // The general registers' width; the slots of both modes have 64 bits.
    let word = if long { 64 } else { 32 };
    let after_core: u16 = if long { 18 } else { 10 };
    let kind = |slot: &SlotDef| {
        Some(match slot.name.as_str() {
            "rsp" | "rbp" | "esp" | "ebp" => "data_ptr",
            _ if long && slot.gdb? < after_core => "int64",
            _ => "int32",
        })
    };
    let mut core = numbered(layout, kind);
    let mut take = |wanted: &dyn Fn(&Register) -> bool| -> Vec<Register> {
        let (taken, rest) = std::mem::take(&mut core).into_iter().partition(wanted);
        core = rest;
        taken
    };
    let mut sse = take(&|r| r.name.starts_with("xmm") || r.name == "mxcsr");
    let mut avx = take(&|r| r.name.starts_with("ymm"));
    let mut bases = take(&|r| r.name.ends_with("_base"));
    for r in &mut sse {
        (r.ty, r.group) = match r.name == "mxcsr" {
            true => ("i386_mxcsr", Some("vector")),
            false => ("vec128", None),
        };
    }
    avx.iter_mut().for_each(|r| r.ty = "uint128");
    bases.iter_mut().for_each(|r| r.ty = if long { "int64" } else { "int32" });
    for r in &mut core {
        if r.number < after_core {
            r.bits = word;
        } else if r.number >= after_core + 6 {
            (r.bits, r.ty, r.group) = (32, "int", Some("float"));
        }
        if r.name == "fstat" {
            r.source = STATUS;
        }
    }
    let mut add = |name: &str, number, bits, ty, group, source| {
        core.push(Register { name: name.into(), number, bits, ty, group, source });
    };
    add(if long { "rip" } else { "eip" }, after_core - 2, word, "code_ptr", None, Source::Pc);
    add("eflags", after_core - 1, 32, "i386_eflags", None, EFLAGS);
    let sts =
        [st::<0>(), st::<1>(), st::<2>(), st::<3>(), st::<4>(), st::<5>(), st::<6>(), st::<7>()];
    for (i, source) in (0..).zip(sts) {
        add(&format!("st{i}"), after_core + 6 + i, 80, "i387_ext", None, source);
    }
    add("ftag", after_core + 6 + 10, 32, "int", Some("float"), TAGS);
    core.sort_by_key(|r| r.number);
    sse.sort_by_key(|r| r.number);
    let orig = if long { "orig_rax" } else { "orig_eax" };
    let linux = Register {
        name: orig.into(),
        number: if long { 57 } else { 41 },
        bits: word,
        ty: "int",
        group: Some("system"),
        source: Source::SystemCall,
    };
    let feature = |name, types, registers| Feature { name, types, registers };
    let mut features = vec![
        feature("org.gnu.gdb.i386.core", CORE_TYPES, core),
        feature("org.gnu.gdb.i386.sse", SSE_TYPES, sse),
        feature("org.gnu.gdb.i386.linux", "", vec![linux]),
        feature("org.gnu.gdb.i386.segments", "", bases),
        feature("org.gnu.gdb.i386.avx", "", avx),
    ];
    features.retain(|f| !f.registers.is_empty());
    let architecture = if long { "i386:x86-64" } else { "i386" };
    Registers { architecture, features, whole: u16::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    #[test]
    fn numbers_have_no_gaps() {
        for (mode, count) in [(Mode::X86_64, 76), (Mode::I386, 50)] {
            let all = registers(&regs::layout(mode), mode == Mode::X86_64);
            let numbers: Vec<u16> = all.by_number().iter().map(|r| r.number).collect();
            assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{mode:?}");
        }
    }

    #[test]
    fn composed_registers() {
        let all = registers(&regs::layout(Mode::X86_64), true);
        let by_name =
            |name: &str| all.by_number().into_iter().find(|r| r.name == name).unwrap().clone();
        let state = &mut *CpuState::new();
        by_name("eflags").write(state, 0x246);
        assert_eq!(by_name("eflags").read(state), Some(0x246));
        by_name("fstat").write(state, 7 << 11);
        let one = 0x3fff_8000_0000_0000_0000u128;
        by_name("st0").write(state, one);
        by_name("ftag").write(state, 0x3fff);
        assert_eq!(by_name("st0").read(state), Some(one));
        assert_eq!(state.get(cell(regs::FPR_EXP[7])), 0x3fff);
        assert_eq!(by_name("ftag").read(state), Some(0x3fff));
        assert_eq!(by_name("fstat").read(state), Some(7 << 11));
    }
}
