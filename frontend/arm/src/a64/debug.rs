//! The registers as GDB knows them: its features `org.gnu.gdb.aarch64.core`, `.fpu` and `.tls`.

use super::regs::{self, cell};
use tulk_frontend::debug::{Feature, Register, Registers, Source, numbered};
use tulk_ir::RegLayout;

const CORE_TYPES: &str = r#"<flags id="cpsr_flags" size="4">
<field name="SP" start="0" end="0"/><field name="EL" start="2" end="3"/><field name="nRW" start="4" end="4"/>
<field name="F" start="6" end="6"/><field name="I" start="7" end="7"/><field name="A" start="8" end="8"/>
<field name="D" start="9" end="9"/><field name="BTYPE" start="10" end="11"/><field name="SSBS" start="12" end="12"/>
<field name="IL" start="20" end="20"/><field name="SS" start="21" end="21"/><field name="PAN" start="22" end="22"/>
<field name="UAO" start="23" end="23"/><field name="DIT" start="24" end="24"/><field name="TCO" start="25" end="25"/>
<field name="V" start="28" end="28"/><field name="C" start="29" end="29"/><field name="Z" start="30" end="30"/>
<field name="N" start="31" end="31"/></flags>
"#;

const FPU_TYPES: &str = r#"<vector id="v2d" type="ieee_double" count="2"/><vector id="v2u" type="uint64" count="2"/>
<vector id="v2i" type="int64" count="2"/><vector id="v4f" type="ieee_single" count="4"/>
<vector id="v4u" type="uint32" count="4"/><vector id="v4i" type="int32" count="4"/>
<vector id="v8f" type="ieee_half" count="8"/><vector id="v8u" type="uint16" count="8"/>
<vector id="v8i" type="int16" count="8"/><vector id="v8bf16" type="bfloat16" count="8"/>
<vector id="v16u" type="uint8" count="16"/><vector id="v16i" type="int8" count="16"/>
<vector id="v1u" type="uint128" count="1"/><vector id="v1i" type="int128" count="1"/>
<union id="vnd"><field name="f" type="v2d"/><field name="u" type="v2u"/><field name="s" type="v2i"/></union>
<union id="vns"><field name="f" type="v4f"/><field name="u" type="v4u"/><field name="s" type="v4i"/></union>
<union id="vnh"><field name="bf" type="v8bf16"/><field name="f" type="v8f"/><field name="u" type="v8u"/><field name="s" type="v8i"/></union>
<union id="vnb"><field name="u" type="v16u"/><field name="s" type="v16i"/></union>
<union id="vnq"><field name="u" type="v1u"/><field name="s" type="v1i"/></union>
<union id="aarch64v"><field name="d" type="vnd"/><field name="s" type="vns"/><field name="h" type="vnh"/><field name="b" type="vnb"/><field name="q" type="vnq"/></union>
<flags id="fpsr_flags" size="4"><field name="IOC" start="0" end="0"/><field name="DZC" start="1" end="1"/>
<field name="OFC" start="2" end="2"/><field name="UFC" start="3" end="3"/><field name="IXC" start="4" end="4"/>
<field name="IDC" start="7" end="7"/><field name="QC" start="27" end="27"/><field name="V" start="28" end="28"/>
<field name="C" start="29" end="29"/><field name="Z" start="30" end="30"/><field name="N" start="31" end="31"/></flags>
<flags id="fpcr_flags" size="4"><field name="FIZ" start="0" end="0"/><field name="AH" start="1" end="1"/>
<field name="NEP" start="2" end="2"/><field name="IOE" start="8" end="8"/><field name="DZE" start="9" end="9"/>
<field name="OFE" start="10" end="10"/><field name="UFE" start="11" end="11"/><field name="IXE" start="12" end="12"/>
<field name="EBF" start="13" end="13"/><field name="IDE" start="15" end="15"/><field name="Len" start="16" end="18"/>
<field name="FZ16" start="19" end="19"/><field name="Stride" start="20" end="21"/><field name="RMode" start="22" end="23"/>
<field name="FZ" start="24" end="24"/><field name="DN" start="25" end="25"/><field name="AHP" start="26" end="26"/></flags>
"#;

const NZCV: u64 = 0xf000_0000;
const SSBS: u64 = 1 << 12;
const DIT: u64 = 1 << 24;

/// The bits of PSTATE that a program can see.
const CPSR: Source = Source::Composed {
    read: |state| {
        let part = |slot, mask| state.get(cell(slot)) & mask;
        (part(regs::NZCV, NZCV) | part(regs::SSBS, SSBS) | part(regs::DIT, DIT)) as u128
    },
    write: |state, value| {
        for (slot, mask) in [(regs::NZCV, NZCV), (regs::SSBS, SSBS), (regs::DIT, DIT)] {
            state.set(cell(slot), value as u64 & mask);
        }
    },
};

/// See the module.
pub fn registers(layout: &RegLayout) -> Registers {
    let mut core = numbered(layout, |slot| {
        Some(match slot.name.as_str() {
            "sp" => "data_ptr",
            "cpsr" => "cpsr_flags",
            "fpsr" => "fpsr_flags",
            "fpcr" => "fpcr_flags",
            _ if slot.ty.bytes() == 16 => "aarch64v",
            _ => "int",
        })
    });
    let fpu = core.split_off(core.iter().position(|r| r.number > 33).unwrap_or(core.len()));
    for r in core.iter_mut().filter(|r| r.name == "cpsr") {
        r.source = CPSR;
    }
    let register = |name: &str, number, ty, source| Register {
        name: name.into(),
        number,
        bits: 64,
        ty,
        group: None,
        source,
    };
    core.push(register("pc", 32, "code_ptr", Source::Pc));
    core.sort_by_key(|r| r.number);
    let thread = Source::Cell(cell(regs::TPIDR_EL0));
    let feature = |name, types, registers| Feature { name, types, registers };
    let features = vec![
        feature("org.gnu.gdb.aarch64.core", CORE_TYPES, core),
        feature("org.gnu.gdb.aarch64.fpu", FPU_TYPES, fpu),
        feature("org.gnu.gdb.aarch64.tls", "", vec![register("tpidr", 68, "data_ptr", thread)]),
    ];
    Registers { architecture: "aarch64", features, whole: u16::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gaps() {
        let all = registers(&regs::layout());
        let numbers: Vec<u16> = all.by_number().iter().map(|r| r.number).collect();
        assert_eq!(numbers, (0..69).collect::<Vec<_>>());
        assert_eq!(all.features[0].registers.len(), 34);
    }
}
