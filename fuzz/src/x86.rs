//! Machine code of x86 in every mode, of programs and of a whole processor: decoded, lifted, printed, parsed back,
//! improved. Whether the code then does the same everywhere is checked by `frontend/x86/tests/random_code.rs`.
//!
//! The first eight bytes choose mode, CPU model and key flags; the rest is code.

use crate::lifted::{PC, check};
use std::sync::LazyLock;
use tulk_base::GuestVa;
use tulk_frontend::{GuestIsa, TbKey};
use tulk_x86::{CpuModel, Mode, X86, key};

const MODELS: [&str; 4] = ["max", "pentium", "core2duo", "Haswell"];
const HEADER: usize = 8;

/// A kind of code: of which guest, and its key flags.
struct Kind {
    guest: usize,
    flags: u64,
}

/// Places in [`GUESTS`].
const I386: usize = 0;
const X86_64: usize = 1;
const SYSTEM: usize = 2;

const KINDS: [Kind; 11] = [
    Kind { guest: I386, flags: 0 },
    Kind { guest: I386, flags: 1 | key::STACK32 },
    Kind { guest: X86_64, flags: 2 | key::LONG },
    Kind { guest: X86_64, flags: 1 | key::STACK32 | key::LONG },
    Kind { guest: X86_64, flags: key::LONG },
    // Real mode, virtual-8086 mode, protected mode, long mode.
    Kind { guest: SYSTEM, flags: key::IOPL_OK },
    Kind { guest: SYSTEM, flags: key::PROTECTED | key::VM86 | key::CPL },
    Kind { guest: SYSTEM, flags: key::PROTECTED },
    Kind { guest: SYSTEM, flags: 1 | key::STACK32 | key::PROTECTED },
    Kind { guest: SYSTEM, flags: 2 | key::LONG | key::PROTECTED },
    Kind { guest: SYSTEM, flags: 1 | key::STACK32 | key::LONG | key::PROTECTED | key::CPL },
];

/// Flags that the input may add to each kind, and to those of system mode.
const FREE: u64 = key::DF
    | key::TF
    | key::ALIGN
    | key::SSE_TRAPS
    | key::SSE_FLUSH
    | key::X87_TRAPS
    | key::X87_TOP
    | key::X87_TAG
    | key::BLIND_FAULTS;
const FREE_SEGMENTS: u64 = key::SEG_BASE | key::SEG_CHECK | key::CODE_CHECK;
const FREE_SYSTEM: u64 =
    key::BREAKPOINTS | key::SSE_CHECK | key::AVX_CHECK | key::X87_CHECK | key::SMAP | key::SHADOW;

static GUESTS: LazyLock<[Vec<X86>; 3]> = LazyLock::new(|| {
    let of = |make: fn(CpuModel) -> X86| -> Vec<X86> {
        MODELS.iter().map(|name| make(CpuModel::by_name(name).expect("a known model"))).collect()
    };
    [
        of(|model| X86::new(Mode::I386, model)),
        of(|model| X86::new(Mode::X86_64, model)),
        of(X86::new_system),
    ]
});

/// Every opcode of every map behind each prefix that selects another instruction, some per seed, in each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    const OPERANDS: [&[u8]; 4] =
        [&[0xc1, 1, 2, 3, 4], &[0x04, 0x91, 3, 0, 0, 0], &[0x45, 8, 1, 0], &[0xf8, 0x80]];
    let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    let prefixes: [&[u8]; 8] =
        [&[], &[0x66], &[0xf2], &[0xf3], &[0xf0], &[0x48], &[0x66, 0x41], &[0x67, 0x65]];
    let mut heads: Vec<Vec<u8>> = Vec::new();
    for map in maps {
        heads.extend(prefixes.iter().map(|prefix| [prefix, map].concat()));
    }
    for map in 1..4u8 {
        for choice in 0..16 {
            heads.push(vec![0xc4, 0xe0 | map, (choice & 8) << 4 | 0x70 | choice & 7]);
        }
    }
    let mut seeds = Vec::new();
    for (n, head) in heads.iter().enumerate() {
        for first in (0..256).step_by(8) {
            let kind = (n + first / 8) % KINDS.len();
            let mut seed = vec![kind as u8, 0, 0, 0, 0, 0, 0, 0];
            for op in first..first + 8 {
                seed.extend([head.as_slice(), &[op as u8], OPERANDS[(op + n) % 4]].concat());
            }
            seeds.push(seed);
        }
    }
    seeds
}

pub fn run(data: &[u8]) {
    let Some((header, code)) = data.split_at_checked(HEADER) else { return };
    let kind = &KINDS[header[0] as usize % KINDS.len()];
    let isa = &GUESTS[kind.guest][header[1] as usize % MODELS.len()];
    let wish = header[2..].iter().fold(0, |v, &b| v << 8 | b as u64);
    let mut free = FREE;
    if kind.flags & key::CODE_SIZE != 2 {
        free |= FREE_SEGMENTS;
    }
    if kind.guest == SYSTEM {
        free |= FREE_SYSTEM;
    }
    let key = TbKey { pc: GuestVa(PC), flags: kind.flags | wish & free };
    check(isa, key, code);
    let _ = isa.disassemble(key, code);
}
