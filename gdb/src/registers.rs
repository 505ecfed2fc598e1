//! A guest's registers for `gdbstub`: the target description and the register packets, from
//! [`tulk_frontend::debug::Registers`].

use gdbstub::arch::{Arch, RegId};
use std::fmt::Write;
use std::num::NonZeroUsize;
use tulk_frontend::debug::Registers;

/// All guests: what differs is data. Addresses of 32-bit guests are zero-extended.
pub struct AnyGuest;

impl Arch for AnyGuest {
    type Usize = u64;
    type Registers = Image;
    type BreakpointKind = usize;
    type RegId = Number;
}

/// All registers in one piece, by rising number, as the `g` packet has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub pc: u64,
    /// `None` for bytes of registers without a value.
    pub bytes: Vec<Option<u8>>,
}

impl gdbstub::arch::Registers for Image {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }
    fn gdb_serialize(&self, write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().copied().for_each(write_byte);
    }
    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.iter().copied().map(Some).collect();
        Ok(())
    }
}

/// A register's number. How large it is depends on the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Number(pub u16);

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Number, Option<NonZeroUsize>)> {
        Some((Number(id.try_into().ok()?), None))
    }
    fn to_raw_id(&self) -> Option<usize> {
        Some(self.0 as usize)
    }
}

/// `target.xml` (the GDB manual, appendix G).
pub fn description(registers: &Registers, osabi: Option<&str>) -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target>\n",
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = xml.write_fmt(text);
        xml.push('\n');
    };
    if !registers.architecture.is_empty() {
        line(format_args!("<architecture>{}</architecture>", registers.architecture));
    }
    if let Some(osabi) = osabi {
        line(format_args!("<osabi>{osabi}</osabi>"));
    }
    for feature in &registers.features {
        line(format_args!("<feature name=\"{}\">\n{}", feature.name, feature.types.trim_end()));
        for r in &feature.registers {
            let group = r.group.map_or(String::new(), |g| format!(" group=\"{g}\""));
            line(format_args!(
                "<reg name=\"{}\" bitsize=\"{}\" type=\"{}\" regnum=\"{}\"{group}/>",
                r.name, r.bits, r.ty, r.number
            ));
        }
        line(format_args!("</feature>"));
    }
    xml.push_str("</target>\n");
    xml
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulk_frontend::debug::Registers;
    use tulk_ir::{RegLayout, Type};

    #[test]
    fn descriptions() {
        let mut layout = RegLayout::new();
        layout.add("r0", Type::I64, Some(0));
        layout.add("hidden", Type::I64, None);
        layout.add("v0", Type::V128, Some(1));
        let xml = description(&Registers::plain(&layout), Some("GNU/Linux"));
        assert!(xml.contains("<osabi>GNU/Linux</osabi>"), "{xml}");
        assert!(
            xml.contains("<reg name=\"r0\" bitsize=\"64\" type=\"int\" regnum=\"0\"/>"),
            "{xml}"
        );
        assert!(
            xml.contains("<reg name=\"pc\" bitsize=\"64\" type=\"code_ptr\" regnum=\"2\"/>"),
            "{xml}"
        );
        assert!(!xml.contains("hidden"), "{xml}");
    }
}
