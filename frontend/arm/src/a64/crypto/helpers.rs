//! Helpers of the cryptographic instructions (Arm ARM C7.2: AES*, SHA1*, SHA256*, SHA512*, PMULL).
//!
//! All are pure functions of up to three registers; the arguments come in the order d, n, m as far as the
//! instruction reads them. The vectors of FIPS 180-4 and FIPS 197 in the tests below hold them, and the
//! random sequences of `tests/`.

use tulk_base::Trap;
use tulk_ir::HelperCx;

type Out = Result<u128, Trap>;

/// Multiplication in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn gf_mul(mut a: u8, mut b: u8) -> u8 {
    let mut r = 0;
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    r
}

/// FIPS 197 5.1.1: the inverse (3 generates the field, 0xf6 is its inverse), then the affine map.
const fn make_sbox() -> [u8; 256] {
    let mut sbox = [0u8; 256];
    let (mut p, mut inverse) = (1u8, 1u8);
    loop {
        p = gf_mul(p, 3);
        inverse = gf_mul(inverse, 0xf6);
        let x = inverse;
        sbox[p as usize] =
            x ^ x.rotate_left(1) ^ x.rotate_left(2) ^ x.rotate_left(3) ^ x.rotate_left(4) ^ 0x63;
        if p == 1 {
            break;
        }
    }
    sbox[0] = 0x63;
    sbox
}

const fn invert(table: &[u8; 256]) -> [u8; 256] {
    let mut inverse = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        inverse[table[i] as usize] = i as u8;
        i += 1;
    }
    inverse
}

/// What one byte in row 0 contributes to its column; lower rows rotate it.
const fn make_columns(factors: [u8; 4]) -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = u32::from_le_bytes([
            gf_mul(b, factors[0]),
            gf_mul(b, factors[1]),
            gf_mul(b, factors[2]),
            gf_mul(b, factors[3]),
        ]);
        i += 1;
    }
    table
}

static SBOX: [u8; 256] = make_sbox();
static INV_SBOX: [u8; 256] = invert(&make_sbox());
static MIX: [u32; 256] = make_columns([2, 1, 1, 3]);
static INV_MIX: [u32; 256] = make_columns([14, 9, 13, 11]);

/// Bytes through `sbox`, row r rotated by r columns: left when `step` is 1, right when it is 3.
fn sub_shift(state: u128, sbox: &[u8; 256], step: usize) -> u128 {
    let s = state.to_le_bytes();
    let out: [u8; 16] = std::array::from_fn(|i| {
        let (row, column) = (i & 3, i >> 2);
        sbox[s[row + 4 * ((column + row * step) & 3)] as usize]
    });
    u128::from_le_bytes(out)
}

fn mix(state: u128, table: &[u32; 256]) -> u128 {
    let mut out = 0u128;
    for column in 0..4 {
        let word = (state >> (32 * column)) as u32;
        let mixed = word
            .to_le_bytes()
            .iter()
            .enumerate()
            .fold(0, |m, (row, &b)| m ^ table[b as usize].rotate_left(8 * row as u32));
        out |= (mixed as u128) << (32 * column);
    }
    out
}

pub fn helper_aese(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(sub_shift(a[0] ^ a[1], &SBOX, 1))
}
pub fn helper_aesd(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(sub_shift(a[0] ^ a[1], &INV_SBOX, 3))
}
pub fn helper_aesmc(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(mix(a[0], &MIX))
}
pub fn helper_aesimc(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(mix(a[0], &INV_MIX))
}

/// Carry-less product, four bits of `b` at a time.
pub fn clmul(a: u64, b: u64) -> u128 {
    let mut multiples = [0u128; 16];
    for i in 1..16usize {
        multiples[i] = multiples[i >> 1] << 1 ^ if i & 1 != 0 { a as u128 } else { 0 };
    }
    (0..16).rev().fold(0, |r, i| r << 4 ^ multiples[(b >> (4 * i)) as usize & 15])
}

/// PMULL, PMULL2 of doublewords: the immediate picks the half.
pub fn helper_pmull64(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let half = |v: u128| (v >> (64 * a[3] as u32)) as u64;
    Ok(clmul(half(a[0]), half(a[1])))
}

fn words(v: u128) -> [u32; 4] {
    std::array::from_fn(|i| (v >> (32 * i)) as u32)
}
fn from_words(w: [u32; 4]) -> u128 {
    w.iter().rev().fold(0, |v, &x| v << 32 | x as u128)
}
fn halves(v: u128) -> [u64; 2] {
    [v as u64, (v >> 64) as u64]
}
fn from_halves(h: [u64; 2]) -> u128 {
    h[0] as u128 | (h[1] as u128) << 64
}

macro_rules! choose {
    ($x:expr, $y:expr, $z:expr) => {
        ($y ^ $z) & $x ^ $z
    };
}
macro_rules! majority {
    ($x:expr, $y:expr, $z:expr) => {
        $x & $y | ($x | $y) & $z
    };
}

/// Four SHA-1 rounds on the state `x` (a to d) and `e`, with the round function `f`.
fn sha1_rounds(x: u128, e: u128, w: u128, f: fn(u32, u32, u32) -> u32) -> u128 {
    let [mut a, mut b, mut c, mut d] = words(x);
    let mut e = e as u32;
    for w in words(w) {
        let t = e.wrapping_add(a.rotate_left(5)).wrapping_add(f(b, c, d)).wrapping_add(w);
        (a, b, c, d, e) = (t, a, b.rotate_left(30), c, d);
    }
    from_words([a, b, c, d])
}

pub fn helper_sha1c(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(sha1_rounds(a[0], a[1], a[2], |x, y, z| choose!(x, y, z)))
}
pub fn helper_sha1p(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(sha1_rounds(a[0], a[1], a[2], |x, y, z| x ^ y ^ z))
}
pub fn helper_sha1m(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(sha1_rounds(a[0], a[1], a[2], |x, y, z| majority!(x, y, z)))
}
pub fn helper_sha1su0(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok((a[1] << 64 | a[0] >> 64) ^ a[0] ^ a[2])
}
pub fn helper_sha1su1(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let t = words(a[0] ^ a[1] >> 32);
    let mut r = t.map(|x| x.rotate_left(1));
    r[3] ^= t[0].rotate_left(2);
    Ok(from_words(r))
}

/// Four SHA-256 rounds on abcd = `x` and efgh = `y`.
fn sha256_rounds(x: u128, y: u128, w: u128) -> (u128, u128) {
    let [mut a, mut b, mut c, mut d] = words(x);
    let [mut e, mut f, mut g, mut h] = words(y);
    for w in words(w) {
        let sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sigma0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = h.wrapping_add(sigma1).wrapping_add(choose!(e, f, g)).wrapping_add(w);
        let u = t.wrapping_add(sigma0).wrapping_add(majority!(a, b, c));
        (a, b, c, d, e, f, g, h) = (u, a, b, c, d.wrapping_add(t), e, f, g);
    }
    (from_words([a, b, c, d]), from_words([e, f, g, h]))
}

pub fn helper_sha256h(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(sha256_rounds(a[0], a[1], a[2]).0)
}
pub fn helper_sha256h2(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(sha256_rounds(a[1], a[0], a[2]).1)
}
pub fn helper_sha256su0(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let (d, t) = (words(a[0]), words(a[0] >> 32 | a[1] << 96));
    Ok(from_words(std::array::from_fn(|i| {
        let s = t[i].rotate_right(7) ^ t[i].rotate_right(18) ^ t[i] >> 3;
        d[i].wrapping_add(s)
    })))
}
pub fn helper_sha256su1(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let (d, t0, m) = (words(a[0]), words(a[1] >> 32 | a[2] << 96), words(a[2]));
    let sigma = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let mut r = [0; 4];
    for i in 0..4 {
        let x = if i < 2 { m[i + 2] } else { r[i - 2] };
        r[i] = sigma(x).wrapping_add(d[i]).wrapping_add(t0[i]);
    }
    Ok(from_words(r))
}

pub fn helper_sha512h(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let [w, x, y] = [halves(a[0]), halves(a[1]), halves(a[2])];
    let sigma1 = |v: u64| v.rotate_right(14) ^ v.rotate_right(18) ^ v.rotate_right(41);
    let high = choose!(y[1], x[0], x[1]).wrapping_add(sigma1(y[1])).wrapping_add(w[1]);
    let e = high.wrapping_add(y[0]);
    let low = choose!(e, y[1], x[0]).wrapping_add(sigma1(e)).wrapping_add(w[0]);
    Ok(from_halves([low, high]))
}
pub fn helper_sha512h2(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let [w, x, y] = [halves(a[0]), halves(a[1]), halves(a[2])];
    let sigma0 = |v: u64| v.rotate_right(28) ^ v.rotate_right(34) ^ v.rotate_right(39);
    let high = majority!(x[0], y[1], y[0]).wrapping_add(sigma0(y[0])).wrapping_add(w[1]);
    let low = majority!(high, y[0], y[1]).wrapping_add(sigma0(high)).wrapping_add(w[0]);
    Ok(from_halves([low, high]))
}
pub fn helper_sha512su0(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let [w, x] = [halves(a[0]), halves(a[1])];
    let sigma = |v: u64| v.rotate_right(1) ^ v.rotate_right(8) ^ v >> 7;
    Ok(from_halves([w[0].wrapping_add(sigma(w[1])), w[1].wrapping_add(sigma(x[0]))]))
}
pub fn helper_sha512su1(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let [w, x, y] = [halves(a[0]), halves(a[1]), halves(a[2])];
    let sigma = |v: u64| v.rotate_right(19) ^ v.rotate_right(61) ^ v >> 6;
    Ok(from_halves(std::array::from_fn(|i| w[i].wrapping_add(sigma(x[i])).wrapping_add(y[i]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sbox_is_that_of_fips_197() {
        assert_eq!([SBOX[0], SBOX[1], SBOX[0x53], SBOX[0xff]], [0x63, 0x7c, 0xed, 0x16]);
        assert!((0..256).all(|i| INV_SBOX[SBOX[i] as usize] as usize == i));
    }

    /// FIPS 197 appendix B, round 1: the state at its start through SubBytes, ShiftRows and MixColumns.
    #[test]
    fn aes_round_of_fips_197() {
        let hex = |s: &str| u128::from_str_radix(s, 16).unwrap().swap_bytes();
        let start_of_round = hex("193de3bea0f4e22b9ac68d2ae9f84808");
        let shifted = sub_shift(start_of_round, &SBOX, 1);
        assert_eq!(shifted, hex("d4bf5d30e0b452aeb84111f11e2798e5"));
        assert_eq!(mix(shifted, &MIX), hex("046681e5e0cb199a48f8d37a2806264c"));
        assert_eq!(mix(mix(shifted, &MIX), &INV_MIX), shifted);
        assert_eq!(sub_shift(shifted, &INV_SBOX, 3), start_of_round);
    }

    #[test]
    fn carryless_products() {
        assert_eq!(clmul(3, 3), 5);
        assert_eq!(clmul(u64::MAX, 2), (u64::MAX as u128) << 1);
        assert_eq!(clmul(1 << 63, 1 << 63), 1 << 126);
    }
}
