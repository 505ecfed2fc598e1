//! AES, carry-less multiplication, SHA and Galois field instructions: manual volume 1, 12.13, 14.3 (VEX forms), and
//! volume 2 for SHA and GFNI. In the AES state byte `r + 4 * c` is row `r` of column `c`.

use super::FIRST_CIPHER;
use super::family;
use super::operand::{Alignment, Vector, imm8};
use crate::cpu::Vendor;
use crate::decode::Row;
use crate::helpers::helpers;
use crate::{Lifter, regs};
use iced_x86::Instruction;
use tulk_base::Trap;
use tulk_ir::{Access, HelperCx, Value};

pub const ROWS: &[Row] = family! {
    quiet {
        [Aesenc_xmm_xmmm128 | Vaesenc] => |l, i| each2(l, i, AES_ENCRYPT, 0),
        [Aesenclast_xmm_xmmm128 | Vaesenclast] => |l, i| each2(l, i, AES_ENCRYPT, LAST),
        [Aesdec_xmm_xmmm128 | Vaesdec] => |l, i| each2(l, i, AES_DECRYPT, 0),
        [Aesdeclast_xmm_xmmm128 | Vaesdeclast] => |l, i| each2(l, i, AES_DECRYPT, LAST),
        [Aesimc_xmm_xmmm128 | Vaesimc] => |l, i| l.map1(i, |l, a| l.call(AES_INVERSE_MIX, &[a], 0)),
        [Aeskeygenassist_xmm_xmmm128_imm8 | Vaeskeygenassist] => |l, i| {
            let rcon = imm8(i) as i64;
            l.map1(i, |l, a| l.call(AES_KEY, &[a], rcon));
        },
        [Pclmulqdq_xmm_xmmm128_imm8 | Vpclmulqdq] => |l, i| each2(l, i, CARRYLESS, imm8(i) as i64),
        [Sha1rnds4_xmm_xmmm128_imm8 |] => |l, i| sha(l, i, SHA1_ROUNDS, imm8(i) as i64 & 3),
        [Sha1nexte_xmm_xmmm128 |] => |l, i| sha(l, i, SHA1_NEXT, 0),
        [Sha1msg1_xmm_xmmm128 |] => |l, i| sha(l, i, SHA1_MESSAGE, 1),
        [Sha1msg2_xmm_xmmm128 |] => |l, i| sha(l, i, SHA1_MESSAGE, 2),
        [Sha256rnds2_xmm_xmmm128 |] => sha256_rounds,
        [Sha256msg1_xmm_xmmm128 |] => |l, i| sha(l, i, SHA256_MESSAGE, 1),
        [Sha256msg2_xmm_xmmm128 |] => |l, i| sha(l, i, SHA256_MESSAGE, 2),
        [Gf2p8mulb_xmm_xmmm128 | Vgf2p8mulb] => |l, i| each2(l, i, FIELD_MULTIPLY, 0),
        [Gf2p8affineqb_xmm_xmmm128_imm8 | Vgf2p8affineqb] => |l, i| each2(l, i, FIELD_AFFINE, imm8(i) as i64),
        [Gf2p8affineinvqb_xmm_xmmm128_imm8 | Vgf2p8affineinvqb]
            => |l, i| each2(l, i, FIELD_AFFINE, imm8(i) as i64 | INVERSE),
    }
};

helpers! { FIRST_CIPHER;
    /// One round; the second operand is the round key, the immediate [`LAST`] or 0.
    AES_ENCRYPT = aes_encrypt(V128, V128) -> V128, Access::None, Access::None, pure;
    AES_DECRYPT = aes_decrypt(V128, V128) -> V128, Access::None, Access::None, pure;
    AES_INVERSE_MIX = aes_inverse_mix(V128) -> V128, Access::None, Access::None, pure;
    /// The immediate is the round constant.
    AES_KEY = aes_key(V128) -> V128, Access::None, Access::None, pure;
    /// Bits 0 and 4 of the immediate choose the halves.
    CARRYLESS = carryless(V128, V128) -> V128, Access::None, Access::None, pure;
    /// The immediate is the number of the function.
    SHA1_ROUNDS = sha1_rounds(V128, V128) -> V128, Access::None, Access::None, pure;
    SHA1_NEXT = sha1_next(V128, V128) -> V128, Access::None, Access::None, pure;
    /// The immediate is 1 or 2.
    SHA1_MESSAGE = sha1_message(V128, V128) -> V128, Access::None, Access::None, pure;
    SHA256_ROUNDS = sha256_two_rounds(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA256_MESSAGE = sha256_message(V128, V128) -> V128, Access::None, Access::None, pure;
    FIELD_MULTIPLY = field_multiply(V128, V128) -> V128, Access::None, Access::None, pure;
    /// The immediate is the addend, with [`INVERSE`] for that of the inverse.
    FIELD_AFFINE = field_affine(V128, V128) -> V128, Access::None, Access::None, pure;
}

const LAST: i64 = 1;
const INVERSE: i64 = 1 << 8;

/// A helper of both sources, half by half
fn each2(l: &mut Lifter<'_>, insn: &Instruction, helper: u32, imm: i64) {
    l.map2(insn, |l, a, b| l.call(helper, &[a, b], imm));
}

/// Both sources of an SHA instruction. AMD's processors do not ask for alignment.
fn sha_sources(l: &mut Lifter<'_>, insn: &Instruction) -> [Value; 2] {
    let alignment = match l.cpu.chip().vendor {
        Vendor::Amd => Alignment::Any,
        Vendor::Intel => Alignment::Usual,
    };
    let b = l.vector_aligned(insn, 1, alignment).lo;
    [l.xmm(insn.op0_register()), b]
}

/// SHA1NEXTE and kin
fn sha(l: &mut Lifter<'_>, insn: &Instruction, helper: u32, imm: i64) {
    let sources = sha_sources(l, insn);
    let v = l.call(helper, &sources, imm);
    l.put_vector(insn, Vector::of(v));
}

/// SHA256RNDS2 dst, src, XMM0
fn sha256_rounds(l: &mut Lifter<'_>, insn: &Instruction) {
    let [a, b] = sha_sources(l, insn);
    let words = l.get(regs::XMM[0]);
    let v = l.call(SHA256_ROUNDS, &[a, b, words], 0);
    l.put_vector(insn, Vector::of(v));
}

// The field of 256 elements with x^8 + x^4 + x^3 + x + 1.

const fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    product
}

/// Inverses, and 0 for 0.
const INVERSES: [u8; 256] = {
    let mut all = [0u8; 256];
    let mut a = 1;
    while a < 256 {
        // a^254, by squaring.
        let (mut power, mut result, mut n) = (a as u8, 1u8, 254);
        while n != 0 {
            if n & 1 != 0 {
                result = times(result, power);
            }
            power = times(power, power);
            n >>= 1;
        }
        all[a] = result;
        a += 1;
    }
    all
};

const SBOX: [u8; 256] = {
    let mut all = [0u8; 256];
    let mut a = 0;
    while a < 256 {
        let x = INVERSES[a];
        all[a] =
            x ^ x.rotate_left(1) ^ x.rotate_left(2) ^ x.rotate_left(3) ^ x.rotate_left(4) ^ 0x63;
        a += 1;
    }
    all
};

const INVERSE_SBOX: [u8; 256] = {
    let mut all = [0u8; 256];
    let mut a = 0;
    while a < 256 {
        all[SBOX[a] as usize] = a as u8;
        a += 1;
    }
    all
};

/// What a byte in row 0 adds to its column: `coefficients` times `table` of it.
const fn mixed(table: Option<&[u8; 256]>, coefficients: [u8; 4]) -> [u32; 256] {
    let mut all = [0u32; 256];
    let mut a = 0;
    while a < 256 {
        let x = match table {
            Some(table) => table[a],
            None => a as u8,
        };
        let mut row = 0;
        while row < 4 {
            all[a] |= (times(x, coefficients[row]) as u32) << (8 * row);
            row += 1;
        }
        a += 1;
    }
    all
}

static ENCRYPT: [u32; 256] = mixed(Some(&SBOX), [2, 1, 1, 3]);
static DECRYPT: [u32; 256] = mixed(Some(&INVERSE_SBOX), [14, 9, 13, 11]);
static UNMIX: [u32; 256] = mixed(None, [14, 9, 13, 11]);

/// Each column from the bytes that lie `step` apart, by a table of columns.
fn columns(state: u128, step: usize, table: &[u32; 256]) -> u128 {
    let s = state.to_le_bytes();
    (0..4).fold(0, |v, c| {
        let column = (0..4).fold(0, |column, r| {
            let byte = s[(4 * c + step * r) % 16];
            column ^ table[byte as usize].rotate_left(8 * r as u32)
        });
        v | (column as u128) << (32 * c)
    })
}

/// The same without mixing.
fn substituted(state: u128, step: usize, table: &[u8; 256]) -> u128 {
    let s = state.to_le_bytes();
    let at = |i: usize| table[s[(4 * (i / 4) + step * (i % 4)) % 16] as usize];
    u128::from_le_bytes(std::array::from_fn(at))
}

/// Distance of a column's bytes before ShiftRows and before its inverse.
const SHIFTED: usize = 5;
const UNSHIFTED: usize = 13;

fn aes_encrypt(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let s = match args[3] as i64 {
        LAST => substituted(args[0], SHIFTED, &SBOX),
        _ => columns(args[0], SHIFTED, &ENCRYPT),
    };
    Ok(s ^ args[1])
}

fn aes_decrypt(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let s = match args[3] as i64 {
        LAST => substituted(args[0], UNSHIFTED, &INVERSE_SBOX),
        _ => columns(args[0], UNSHIFTED, &DECRYPT),
    };
    Ok(s ^ args[1])
}

fn aes_inverse_mix(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(columns(args[0], 1, &UNMIX))
}

fn aes_key(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let rcon = args[3] as u32 & 0xff;
    let s = substituted(args[0], 1, &SBOX);
    let [_, one, _, three] = words(s);
    Ok(joined([one, one.rotate_right(8) ^ rcon, three, three.rotate_right(8) ^ rcon]))
}

fn carryless(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let imm = args[3] as u32;
    let a = (args[0] >> (64 * (imm & 1))) as u64;
    let b = (args[1] >> (64 * (imm >> 4 & 1))) as u64;
    // Multiples of `a` by all polynomials of four bits, then four bits of `b` at a time.
    let mut multiples = [0u128; 16];
    for n in 1..16 {
        multiples[n] = multiples[n / 2] << 1 ^ if n & 1 != 0 { a as u128 } else { 0 };
    }
    Ok((0..16).rev().fold(0, |v, n| v << 4 ^ multiples[(b >> (4 * n)) as usize & 15]))
}

/// Doublewords, lowest first.
fn words(v: u128) -> [u32; 4] {
    std::array::from_fn(|n| (v >> (32 * n)) as u32)
}
fn joined(w: [u32; 4]) -> u128 {
    w.into_iter().rev().fold(0, |v, w| v << 32 | w as u128)
}

fn sha1_rounds(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let function = args[3] as usize & 3;
    let k = [0x5a82_7999u32, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6][function];
    let [mut d, mut c, mut b, mut a] = words(args[0]);
    // The first word has E added already.
    let mut e = 0u32;
    for w in words(args[1]).into_iter().rev() {
        let f = match function {
            0 => b & c ^ !b & d,
            2 => b & c ^ b & d ^ c & d,
            _ => b ^ c ^ d,
        };
        let next = f.wrapping_add(a.rotate_left(5)).wrapping_add(w).wrapping_add(e).wrapping_add(k);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    Ok(joined([d, c, b, a]))
}

fn sha1_next(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let [_, _, _, a] = words(args[0]);
    let [w0, w1, w2, w3] = words(args[1]);
    Ok(joined([w0, w1, w2, w3.wrapping_add(a.rotate_left(30))]))
}

fn sha1_message(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let [w3, w2, w1, w0] = words(args[0]);
    let [b3, b2, b1, b0] = words(args[1]);
    if args[3] == 1 {
        return Ok(joined([b1 ^ w3, b0 ^ w2, w3 ^ w1, w2 ^ w0]));
    }
    let w16 = (w0 ^ b1).rotate_left(1);
    let w17 = (w1 ^ b2).rotate_left(1);
    let w18 = (w2 ^ b3).rotate_left(1);
    let w19 = (w3 ^ w16).rotate_left(1);
    let _ = b0;
    Ok(joined([w19, w18, w17, w16]))
}

fn sha256_two_rounds(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let [mut h, mut g, mut d, mut c] = words(args[0]);
    let [mut f, mut e, mut b, mut a] = words(args[1]);
    for wk in words(args[2]).into_iter().take(2) {
        let choice = e & f ^ !e & g;
        let majority = a & b ^ a & c ^ b & c;
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = choice.wrapping_add(sum1).wrapping_add(wk).wrapping_add(h);
        let next = t.wrapping_add(majority).wrapping_add(sum0);
        (h, g, f, e) = (g, f, e, t.wrapping_add(d));
        (d, c, b, a) = (c, b, a, next);
    }
    Ok(joined([f, e, b, a]))
}

fn sha256_message(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (a, b) = (words(args[0]), words(args[1]));
    if args[3] == 1 {
        let sigma = |x: u32| x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
        let next = [a[1], a[2], a[3], b[0]];
        return Ok(joined(std::array::from_fn(|n| a[n].wrapping_add(sigma(next[n])))));
    }
    let sigma = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let w16 = a[0].wrapping_add(sigma(b[2]));
    let w17 = a[1].wrapping_add(sigma(b[3]));
    let w18 = a[2].wrapping_add(sigma(w16));
    let w19 = a[3].wrapping_add(sigma(w17));
    Ok(joined([w16, w17, w18, w19]))
}

fn field_multiply(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (a, b) = (args[0].to_le_bytes(), args[1].to_le_bytes());
    Ok(u128::from_le_bytes(std::array::from_fn(|n| times(a[n], b[n]))))
}

fn field_affine(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (x, matrix, imm) = (args[0].to_le_bytes(), args[1], args[3] as i64);
    let one = |n: usize| {
        let rows = ((matrix >> (64 * (n / 8))) as u64).to_le_bytes();
        let x = if imm & INVERSE != 0 { INVERSES[x[n] as usize] } else { x[n] };
        // Row 7 is in the lowest byte's place of bit 0.
        let product =
            (0..8).fold(0, |v, bit| v | (((rows[7 - bit] & x).count_ones() & 1) as u8) << bit);
        product ^ imm as u8
    };
    Ok(u128::from_le_bytes(std::array::from_fn(one)))
}
