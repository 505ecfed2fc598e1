//! Helpers of SM3 and SM4 (Arm ARM C7.2: SM3*, SM4*). Pure functions; the arguments are d, n, m as far as the
//! instruction reads them.

use tulk_base::Trap;
use tulk_ir::HelperCx;

type Out = Result<u128, Trap>;

/// Multiplication in GF(2^8) modulo x^8 + x^7 + x^6 + x^5 + x^4 + x^2 + 1, SM4's field.
const fn field_mul(mut a: u8, mut b: u8) -> u8 {
    let mut r = 0;
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0xf5 } else { 0 };
        b >>= 1;
    }
    r
}

/// The affine map before and after the inversion.
const fn affine(x: u8) -> u8 {
    let mut y = 0u8;
    let mut i = 0;
    while i < 8 {
        y |= ((x & 0xa7u8.rotate_left(i)).count_ones() as u8 & 1) << i;
        i += 1;
    }
    y ^ 0xd3
}

/// S(x) = affine(affine(x)^-1), where the inverse is the 254th power.
const fn make_sbox() -> [u8; 256] {
    let mut sbox = [0u8; 256];
    let mut x = 0;
    while x < 256 {
        let (mut power, mut square) = (1u8, affine(x as u8));
        let mut bit = 1;
        while bit < 8 {
            square = field_mul(square, square);
            power = field_mul(power, square);
            bit += 1;
        }
        sbox[x] = affine(power);
        x += 1;
    }
    sbox
}

static SBOX: [u8; 256] = make_sbox();

fn words(v: u128) -> [u32; 4] {
    std::array::from_fn(|i| (v >> (32 * i)) as u32)
}
fn from_words(w: [u32; 4]) -> u128 {
    w.iter().rev().fold(0, |v, &x| v << 32 | x as u128)
}

/// Four SM4 rounds with the linear transformation `mix`.
fn sm4_rounds(state: u128, keys: u128, mix: fn(u32) -> u32) -> u128 {
    let [mut a, mut b, mut c, mut d] = words(state);
    for key in words(keys) {
        let bytes = (b ^ c ^ d ^ key).to_le_bytes().map(|x| SBOX[x as usize]);
        (a, b, c, d) = (b, c, d, a ^ mix(u32::from_le_bytes(bytes)));
    }
    from_words([a, b, c, d])
}

pub fn helper_sm4e(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let mix =
        |x: u32| x ^ x.rotate_left(2) ^ x.rotate_left(10) ^ x.rotate_left(18) ^ x.rotate_left(24);
    Ok(sm4_rounds(a[0], a[1], mix))
}
pub fn helper_sm4ekey(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    Ok(sm4_rounds(a[0], a[1], |x| x ^ x.rotate_left(13) ^ x.rotate_left(23)))
}

/// SM3's permutation P0 (shifts 9 and 17) or P1 (15 and 23).
fn permute(x: u32, first: u32) -> u32 {
    x ^ x.rotate_left(first) ^ x.rotate_left(first + 8)
}

pub fn helper_sm3partw1(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let (mut r, m) = (words(a[0] ^ a[1]), words(a[2]));
    for i in 0..4 {
        let rotated = if i < 3 { m[i + 1] } else { r[0] };
        r[i] = permute(r[i] ^ rotated.rotate_left(15), 15);
    }
    Ok(from_words(r))
}
pub fn helper_sm3partw2(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let (d, n, m) = (words(a[0]), words(a[1]), words(a[2]));
    let t: [u32; 4] = std::array::from_fn(|i| n[i] ^ m[i].rotate_left(7));
    let mut r: [u32; 4] = std::array::from_fn(|i| d[i] ^ t[i]);
    r[3] ^= permute(t[0].rotate_left(15), 15);
    Ok(from_words(r))
}
pub fn helper_sm3ss1(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let [n, m, a] = [a[0], a[1], a[2]].map(|v| words(v)[3]);
    let sum = n.rotate_left(12).wrapping_add(m).wrapping_add(a);
    Ok(from_words([0, 0, 0, sum.rotate_left(7)]))
}

/// The four SM3TT instructions. The immediate: lane of Vm in bits 1:0, `B` form in bit 2, `2` form in bit 3.
pub fn helper_sm3tt(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Out {
    let ([d, c, b, a3], n, w) = (words(a[0]), words(a[1])[3], words(a[2])[a[3] as usize & 3]);
    let (late, second) = (a[3] & 4 != 0, a[3] & 8 != 0);
    let mixed = match (late, second) {
        (false, _) => a3 ^ b ^ c,
        (true, false) => a3 & b | a3 & c | b & c,
        (true, true) => a3 & b | !a3 & c,
    };
    let sum = mixed.wrapping_add(d).wrapping_add(w);
    Ok(if second {
        let t = sum.wrapping_add(n);
        from_words([c, b.rotate_left(19), a3, permute(t, 9)])
    } else {
        let t = sum.wrapping_add(n ^ a3.rotate_left(12));
        from_words([c, b.rotate_left(9), a3, t])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sbox_is_that_of_gb_t_32907() {
        assert_eq!(SBOX[..8], [0xd6, 0x90, 0xe9, 0xfe, 0xcc, 0xe1, 0x3d, 0xb7]);
        let mut seen = SBOX;
        seen.sort_unstable();
        assert!((0..256).all(|i| seen[i] as usize == i));
    }
}
