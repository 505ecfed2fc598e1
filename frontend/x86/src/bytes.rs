//! What an instruction's bytes tell without being lifted: that they are too many, that a fault of their memory operand is
//! one of a write. `tests/guest/x86/fetch.c` holds both against the processor.

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, OpAccess};

/// The longest instruction (Intel SDM 3B, 24.15: a longer one is #GP).
pub const LONGEST: usize = 15;

/// True for bytes that are no instruction only because it would be longer than [`LONGEST`]: all of that are prefixes, or
/// those without the prefixes that are there twice are one. `bits` is the mode of the code.
pub fn is_too_long(bits: u32, bytes: &[u8]) -> bool {
    let legacy = |b: u8| {
        matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3)
    };
    let rex = |b: u8| bits == 64 && b & 0xf0 == 0x40;
    if bytes.len() < LONGEST {
        return false;
    }
    if bytes[..LONGEST].iter().all(|&b| legacy(b) || rex(b)) {
        return true;
    }
    let count = bytes.iter().take_while(|&&b| legacy(b)).count();
    let (prefixes, rest) = bytes.split_at(count);
    let last = |i: usize| !prefixes[i + 1..].contains(&prefixes[i]);
    let mut short: Vec<u8> = (0..count).filter(|&i| last(i)).map(|i| prefixes[i]).collect();
    let dropped = count - short.len();
    short.extend_from_slice(rest);
    let insn = Decoder::new(bits, &short, DecoderOptions::NONE).decode();
    dropped != 0 && !insn.is_invalid() && insn.len() + dropped > LONGEST
}

/// True for an instruction that reads and writes the same memory operand. The processor asks for both rights at once: its page
/// fault is one of a write, whichever part would fail.
pub fn modifies_memory(bits: u32, bytes: &[u8]) -> bool {
    let insn = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    let mut factory = InstructionInfoFactory::new();
    let both = |access| matches!(access, OpAccess::ReadWrite | OpAccess::ReadCondWrite);
    !insn.is_invalid() && factory.info(&insn).used_memory().iter().any(|m| both(m.access()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_bytes() {
        let with = |prefixes: usize, rest: &[u8]| [&vec![0x66; prefixes], rest].concat();
        let nops = [0x90; 8];
        assert!(is_too_long(32, &with(15, &nops)) && !is_too_long(32, &with(15, &nops)[1..15]));
        // The length of `mov word [eax+disp32], imm16` is 8 with one prefix.
        let mov = [0xc7, 0x80, 1, 2, 3, 4, 5, 6];
        assert!(is_too_long(32, &with(8, &mov)) && !is_too_long(32, &with(7, &mov)));
        assert!(is_too_long(64, &[0x48; 16]) && !is_too_long(32, &[0x48; 16]));
        assert!(!is_too_long(64, &[[0x0f, 0x0b].as_slice(), &[0; 14]].concat()));
    }

    #[test]
    fn what_is_modified() {
        for (bytes, both) in [
            (&[0x01, 0x00][..], true),
            (&[0x03, 0x00], false),
            (&[0x89, 0x00], false),
            (&[0x39, 0x00], false),
            (&[0x0f, 0xb1, 0x08], true),
            (&[0xff, 0x30], false),
            (&[0xff, 0x00], true),
            (&[0xa5], false),
        ] {
            assert_eq!(modifies_memory(32, bytes), both, "{bytes:02x?}");
        }
    }
}
