//! SSE to SSE4.2, SSE4a, AES, PCLMULQDQ, SHA, GFNI, F16C, AVX, AVX2 and FMA: manual volume 1, chapters 10 to 14.
//!
//! A legacy instruction and its VEX forms are one row ([`family`]) with one lift function. Differences between the
//! encodings are in [`operand`]: where the first source is, that legacy memory operands must be aligned, that legacy
//! forms leave bits 255:128 of the destination and VEX forms clear them. A 256-bit vector is two 128-bit ones.
//!
//! Floating point: while guest code runs the host's unit has the guest's modes and collects its flags
//! ([`crate::fpstate`]), so most instructions are IR operations. Where an exception is unmasked, or denormals are
//! flushed and an IR operation would not know, the same instruction is a call of [`precise`], which computes in
//! software and knows all exceptions before anything changes.
//!
//! Instructions with MMX registers are in [`crate::mmx`], CRC32 and the fences in [`crate::integer`].

mod cipher;
mod convert;
mod estimate;
mod float;
mod fused;
mod gather;
mod lanes;
mod operand;
mod packed;
mod precise;
mod shuffle;
mod state;
mod string;
mod transfer;

use crate::decode::Row;
use crate::helpers::FIRST_SSE;
use tulk_ir::HelperDef;

/// Rows of a group of instructions: `[Codes | Mnemonics] => lift function`. Legacy forms are named by code, because
/// many share their mnemonic with an MMX instruction, VEX forms by mnemonic. `loud` groups may leave the unit
/// otherwise than by a fault of their memory operand.
macro_rules! family {
    ($(quiet { $([$($code:ident)* | $($vex:ident)*] => $lift:expr,)* })?
     $(loud { $([$($lcode:ident)* | $($lvex:ident)*] => $llift:expr,)* })?) => {
        &[
            $($(
                $($crate::decode::Row {
                    which: $crate::decode::Which::Code(iced_x86::Code::$code), lift: $lift, quiet: true,
                },)*
                $($crate::decode::Row {
                    which: $crate::decode::Which::Mnemonic(iced_x86::Mnemonic::$vex), lift: $lift, quiet: true,
                },)*
            )*)?
            $($(
                $($crate::decode::Row {
                    which: $crate::decode::Which::Code(iced_x86::Code::$lcode), lift: $llift, quiet: false,
                },)*
                $($crate::decode::Row {
                    which: $crate::decode::Which::Mnemonic(iced_x86::Mnemonic::$lvex), lift: $llift, quiet: false,
                },)*
            )*)?
        ]
    };
}
use family;

const TABLES: &[&[Row]] = &[
    transfer::ROWS,
    packed::ROWS,
    lanes::ROWS,
    shuffle::ROWS,
    float::ROWS,
    convert::ROWS,
    fused::ROWS,
    gather::ROWS,
    string::ROWS,
    cipher::ROWS,
    state::ROWS,
];

const COUNT: usize = {
    let (mut n, mut t) = (0, 0);
    while t < TABLES.len() {
        n += TABLES[t].len();
        t += 1;
    }
    n
};

const JOINED: [Row; COUNT] = {
    let mut all = [TABLES[0][0]; COUNT];
    let (mut n, mut t) = (0, 0);
    while t < TABLES.len() {
        let mut i = 0;
        while i < TABLES[t].len() {
            all[n] = TABLES[t][i];
            n += 1;
            i += 1;
        }
        t += 1;
    }
    all
};

/// The instructions of this chapter.
pub const ROWS: &[Row] = &JOINED;

const FIRST_PRECISE: u32 = FIRST_SSE;
const FIRST_STATE: u32 = FIRST_PRECISE + precise::HELPERS.len() as u32;
const FIRST_TRANSFER: u32 = FIRST_STATE + state::HELPERS.len() as u32;
const FIRST_STRING: u32 = FIRST_TRANSFER + transfer::HELPERS.len() as u32;
const FIRST_CIPHER: u32 = FIRST_STRING + string::HELPERS.len() as u32;
const FIRST_GATHER: u32 = FIRST_CIPHER + cipher::HELPERS.len() as u32;

const HELPER_TABLES: [&[HelperDef]; 6] = [
    precise::HELPERS,
    state::HELPERS,
    transfer::HELPERS,
    string::HELPERS,
    cipher::HELPERS,
    gather::HELPERS,
];
const HELPER_COUNT: usize = (FIRST_GATHER - FIRST_SSE) as usize + gather::HELPERS.len();

pub const HELPERS: &[HelperDef] = &crate::helpers::joined::<HELPER_COUNT>(&HELPER_TABLES);
