//! Every pure integer and vector operation against expectations computed another way: integers as mathematical
//! numbers in `i128`, vectors lane by lane in byte arrays.

use crate::support::*;
use tulk_ir::interp::eval::{EvalOp, eval};
use tulk_ir::*;

fn op(op: Op, ty: Type) -> EvalOp {
    EvalOp {
        op,
        ty,
        src_ty: ty,
        aux: 0,
        shape: Shape::I8x16,
        imm2: 0,
        imm: 0,
        fp: FpRule::Arm,
        pool: 0,
    }
}

fn run(op: &EvalOp, args: [u128; 3]) -> u128 {
    let mut env = Env::new(false);
    let result = eval(op, args, &mut env);
    // The packed form means the same.
    assert_eq!(eval(&EvalOp::from_words(op.to_words()), args, &mut env), result, "{op:?}");
    assert_eq!(env.flags, FpFlags(0));
    result
}

/// As a signed number.
fn s(x: u128, bits: u32) -> i128 {
    (x << (128 - bits)) as i128 >> (128 - bits)
}
/// As an unsigned number.
fn u(x: u128, bits: u32) -> i128 {
    (x & (u128::MAX >> (128 - bits))) as i128
}
fn cut(x: i128, bits: u32) -> u128 {
    u(x as u128, bits) as u128
}

const WORDS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];

/// What a binary operation gives, for operands as mathematical numbers.
fn binary(op: Op, a: u128, b: u128, n: u32) -> Option<i128> {
    let (ua, ub, sa, sb) = (u(a, n), u(b, n), s(a, n), s(b, n));
    let amount = (ub % n as i128) as u32;
    Some(match op {
        Op::Add => ua + ub,
        Op::Sub => ua - ub,
        // Products of 64-bit numbers may not fit, but their low halves do not mind.
        Op::Mul => sa.wrapping_mul(sb),
        Op::MulhU => ((ua as u128 * ub as u128) >> n) as i128,
        Op::MulhS => (sa * sb) >> n,
        Op::DivU => ua.checked_div(ub).unwrap_or(0),
        Op::DivS => sa.checked_div(sb).unwrap_or(0),
        Op::RemU => ua.checked_rem(ub).unwrap_or(ua),
        Op::RemS => sa.checked_rem(sb).unwrap_or(sa),
        Op::MinU => ua.min(ub),
        Op::MinS => sa.min(sb),
        Op::MaxU => ua.max(ub),
        Op::MaxS => sa.max(sb),
        Op::And => ua & ub,
        Op::Or => ua | ub,
        Op::Xor => ua ^ ub,
        Op::AndNot => ua & !ub,
        Op::OrNot => ua | !ub,
        Op::XorNot => ua ^ !ub,
        Op::Shl => ua << amount,
        Op::ShrU => ua >> amount,
        Op::ShrS => sa >> amount,
        Op::Rotl => ((ua as u128) << amount | ua as u128 >> ((n - amount) % 128)) as i128,
        Op::Rotr => ((ua as u128) >> amount | (ua as u128) << ((n - amount) % 128)) as i128,
        _ => return None,
    })
}

fn unary(op: Op, a: u128, n: u32) -> Option<i128> {
    let (ua, sa) = (u(a, n), s(a, n));
    let bit = |i: u32| ua >> i & 1;
    Some(match op {
        Op::Neg => -sa,
        Op::Abs => sa.abs(),
        Op::Not => !ua,
        Op::Clz => (0..n).rev().take_while(|&i| bit(i) == 0).count() as i128,
        Op::Ctz => (0..n).take_while(|&i| bit(i) == 0).count() as i128,
        Op::Popcnt => (0..n).map(bit).sum(),
        Op::Bswap => (0..n / 8).fold(0, |acc, i| acc << 8 | (ua >> (8 * i) & 0xff)),
        Op::Bitrev => (0..n).fold(0, |acc, i| acc << 1 | bit(i)),
        _ => return None,
    })
}

fn compares(cc: IntCc, a: u128, b: u128, n: u32) -> bool {
    let (ua, ub, sa, sb) = (u(a, n), u(b, n), s(a, n), s(b, n));
    match cc {
        IntCc::Eq => ua == ub,
        IntCc::Ne => ua != ub,
        IntCc::LtS => sa < sb,
        IntCc::LeS => sa <= sb,
        IntCc::GtS => sa > sb,
        IntCc::GeS => sa >= sb,
        IntCc::LtU => ua < ub,
        IntCc::LeU => ua <= ub,
        IntCc::GtU => ua > ub,
        IntCc::GeU => ua >= ub,
    }
}

#[test]
fn words_are_numbers() {
    let mut rng = Rng::new(1);
    for _ in 0..3000 {
        let args = [rng.wide(), rng.wide(), rng.wide()];
        let [a, b, c] = args;
        for ty in WORDS {
            let n = ty.bits();
            for &o in Op::ALL {
                let expected = match (binary(o, a, b, n), unary(o, a, n)) {
                    (Some(x), _) | (None, Some(x)) => x,
                    _ => continue,
                };
                assert_eq!(run(&op(o, ty), args), cut(expected, n), "{o:?}.{ty} {a:#x} {b:#x}");
            }
            for &cc in IntCc::ALL {
                let o = EvalOp { aux: cc as u8, ..op(Op::Icmp, ty) };
                assert_eq!(run(&o, args), compares(cc, a, b, n) as u128, "{cc} {a:#x} {b:#x}");
            }
            let carry = (c & 1) as i128;
            let sum = u(a, n) + u(b, n) + carry;
            assert_eq!(run(&op(Op::AddCarry, ty), args), cut(sum, n));
            assert_eq!(run(&op(Op::CarryOut, ty), args), (sum >> n != 0) as u128);

            let width = 1 + rng.below(n as u64) as u32;
            let lsb = rng.below((n - width + 1) as u64) as u32;
            let field = |o| EvalOp { imm2: (lsb | width << 8) as u16, ..op(o, ty) };
            assert_eq!(run(&field(Op::BextractU), args), cut(u(a, n) >> lsb, width));
            assert_eq!(run(&field(Op::BextractS), args), cut(s(a >> lsb, width), n));
            let inserted = run(&field(Op::Binsert), args);
            for i in 0..n {
                let from = if (lsb..lsb + width).contains(&i) { b >> (i - lsb) } else { a >> i };
                assert_eq!(inserted >> i & 1, from & 1, "bit {i} of binsert {lsb} {width}");
            }
        }
        let ones = (a & 0xff).count_ones();
        assert_eq!(run(&op(Op::ParityEven, Type::I32), args), (ones % 2 == 0) as u128);
    }
}

#[test]
fn flags_are_arm_flags() {
    let mut rng = Rng::new(2);
    for _ in 0..5000 {
        let args = [rng.wide(), rng.wide(), rng.wide()];
        let [a, b, c] = args;
        for ty in [Type::I32, Type::I64] {
            let n = ty.bits();
            let carry = (c & 1) as i128;
            let flags = |unsigned: i128, signed: i128, carry: bool| {
                let r = cut(unsigned, n);
                let (negative, overflow) = (r >> (n - 1) & 1, signed != s(r, n));
                negative << 31
                    | ((r == 0) as u128) << 30
                    | (carry as u128) << 29
                    | (overflow as u128) << 28
            };
            let (ua, ub, sa, sb) = (u(a, n), u(b, n), s(a, n), s(b, n));
            let sum =
                |carry: i128| flags(ua + ub + carry, sa + sb + carry, ua + ub + carry >= 1 << n);
            assert_eq!(run(&op(Op::AddNzcv, ty), args), sum(0));
            assert_eq!(run(&op(Op::AdcNzcv, ty), args), sum(carry));
            let difference = flags(ua - ub, sa - sb, ua >= ub);
            assert_eq!(run(&op(Op::SubNzcv, ty), args), difference, "{a:#x} - {b:#x}");
            assert_eq!(run(&op(Op::LogicNzcv, ty), args), flags(ua, sa, false));
            // Arm's conditions after a comparison are the relations that they are named for.
            let pairs = [
                (NzcvCond::Eq, IntCc::Eq),
                (NzcvCond::Ne, IntCc::Ne),
                (NzcvCond::Cs, IntCc::GeU),
                (NzcvCond::Cc, IntCc::LtU),
                (NzcvCond::Hi, IntCc::GtU),
                (NzcvCond::Ls, IntCc::LeU),
                (NzcvCond::Ge, IntCc::GeS),
                (NzcvCond::Lt, IntCc::LtS),
                (NzcvCond::Gt, IntCc::GtS),
                (NzcvCond::Le, IntCc::LeS),
            ];
            for (cond, cc) in pairs {
                let test = EvalOp { aux: cond as u8, ..op(Op::NzcvTest, Type::I64) };
                let holds = run(&test, [difference, 0, 0]) != 0;
                assert_eq!(holds, compares(cc, a, b, n), "{cond} after {a:#x} - {b:#x}");
            }
        }
        for (cond, bit) in
            [(NzcvCond::Mi, 31), (NzcvCond::Eq, 30), (NzcvCond::Cs, 29), (NzcvCond::Vs, 28)]
        {
            let test = |cond| EvalOp { aux: cond as u8, ..op(Op::NzcvTest, Type::I64) };
            assert_eq!(run(&test(cond), args), a >> bit & 1);
            let opposite = NzcvCond::from_u8(cond as u8 ^ 1);
            assert_eq!(run(&test(opposite), args), a >> bit & 1 ^ 1);
        }
    }
}

#[test]
fn wide_numbers_and_widths() {
    let mut rng = Rng::new(3);
    for _ in 0..5000 {
        let args = [rng.wide(), rng.wide(), rng.wide()];
        let [a, b, c] = args;
        let wide = |o| run(&op(o, Type::I128), args);
        assert_eq!(wide(Op::Add), a.wrapping_add(b));
        assert_eq!(wide(Op::Sub), a.wrapping_sub(b));
        assert_eq!(wide(Op::Mul), a.wrapping_mul(b));
        assert_eq!(wide(Op::Neg), 0u128.wrapping_sub(a));
        assert_eq!(wide(Op::Not), a ^ u128::MAX);
        assert_eq!(wide(Op::And), a & b);
        assert_eq!(wide(Op::Or), a | b);
        assert_eq!(wide(Op::Xor), a ^ b);
        assert_eq!(wide(Op::AndNot), a & !b);
        assert_eq!(wide(Op::OrNot), a | !b);
        assert_eq!(wide(Op::XorNot), !(a ^ b));
        assert_eq!(wide(Op::Shl), a << (b % 128));
        assert_eq!(wide(Op::ShrU), a >> (b % 128));
        assert_eq!(wide(Op::ShrS), (a as i128 >> (b % 128)) as u128);
        assert_eq!(wide(Op::Bswap).to_be_bytes(), a.to_le_bytes());
        assert_eq!(run(&op(Op::Concat, Type::I64), args), a & u64::MAX as u128 | b << 64);
        assert_eq!(run(&op(Op::Lo64, Type::I64), args), a & u64::MAX as u128);
        assert_eq!(run(&op(Op::Hi64, Type::I64), args), a >> 64);
        for &ty in Type::ALL {
            let chosen = if a & 0xff != 0 { b } else { c };
            assert_eq!(run(&op(Op::Select, ty), args), chosen & mask(ty));
            assert_eq!(run(&op(Op::Bitcast, ty), args), a & mask(ty));
        }
        let ints = [Type::I8, Type::I16, Type::I32, Type::I64, Type::I128];
        for from in ints {
            let constant = EvalOp { imm: a as i64, ..op(Op::Iconst, from) };
            assert_eq!(run(&constant, args), a as i64 as i128 as u128 & mask(from));
            for to in ints {
                let convert = |o| EvalOp { src_ty: from, ..op(o, to) };
                if to.bits() > from.bits() {
                    assert_eq!(run(&convert(Op::Zext), args), a & mask(from));
                    let extended = s(a, from.bits()) as u128 & mask(to);
                    assert_eq!(run(&convert(Op::Sext), args), extended);
                } else if to.bits() < from.bits() && from != Type::I128 {
                    assert_eq!(run(&convert(Op::Trunc), args), a & mask(to));
                }
            }
        }
    }
}

/// The lanes of a vector as mathematical numbers.
fn lanes(x: u128, n: u32, signed: bool) -> Vec<i128> {
    (0..128 / n).map(|i| if signed { s(x >> (i * n), n) } else { u(x >> (i * n), n) }).collect()
}
fn vector(lanes: impl IntoIterator<Item = i128>, n: u32) -> u128 {
    lanes.into_iter().enumerate().fold(0, |acc, (i, x)| acc | cut(x, n) << (i as u32 * n))
}

#[test]
fn lanes_are_numbers() {
    let mut rng = Rng::new(4);
    for round in 0..2000 {
        let args = [rng.wide(), rng.wide(), rng.wide()];
        let [a, b, c] = args;
        for shape in [Shape::I8x16, Shape::I16x8, Shape::I32x4, Shape::I64x2] {
            let n = shape.lane_bits();
            let amount = rng.below(n as u64 + 1) as u16;
            let lane = rng.below(shape.lanes() as u64) as u16;
            let eval = |o: Op, imm2: u16| run(&EvalOp { shape, imm2, ..op(o, Type::V128) }, args);
            let (ua, ub) = (lanes(a, n, false), lanes(b, n, false));
            let (sa, sb) = (lanes(a, n, true), lanes(b, n, true));
            let umap = |f: &dyn Fn(i128, i128) -> i128| {
                vector(ua.iter().zip(&ub).map(|(&x, &y)| f(x, y)), n)
            };
            let smap = |f: &dyn Fn(i128, i128) -> i128| {
                vector(sa.iter().zip(&sb).map(|(&x, &y)| f(x, y)), n)
            };
            let (least, most, all) =
                (-(1i128 << (n - 1)), (1i128 << (n - 1)) - 1, (1i128 << n) - 1);
            let expectations: &[(Op, u128)] = &[
                (Op::Vadd, umap(&|x, y| x + y)),
                (Op::Vsub, umap(&|x, y| x - y)),
                (Op::Vmul, smap(&|x, y| x.wrapping_mul(y))),
                (Op::Vneg, smap(&|x, _| -x)),
                (Op::Vabs, smap(&|x, _| x.abs())),
                (Op::VaddSatS, smap(&|x, y| (x + y).clamp(least, most))),
                (Op::VaddSatU, umap(&|x, y| (x + y).min(all))),
                (Op::VsubSatS, smap(&|x, y| (x - y).clamp(least, most))),
                (Op::VsubSatU, umap(&|x, y| (x - y).max(0))),
                (Op::VminS, smap(&|x, y| x.min(y))),
                (Op::VminU, umap(&|x, y| x.min(y))),
                (Op::VmaxS, smap(&|x, y| x.max(y))),
                (Op::VmaxU, umap(&|x, y| x.max(y))),
                (Op::VavgU, umap(&|x, y| (x + y + 1) >> 1)),
                (Op::VshrUI, umap(&|x, _| if amount as u32 == n { 0 } else { x >> amount })),
                (Op::VshrSI, smap(&|x, _| x >> amount)),
                (Op::VshlV, umap(&|x, y| if y < n as i128 { x << y } else { 0 })),
                (Op::VshrUV, umap(&|x, y| if y < n as i128 { x >> y } else { 0 })),
                (
                    Op::VshrSV,
                    vector(sa.iter().zip(&ub).map(|(&x, &y)| x >> y.min(n as i128 - 1)), n),
                ),
                (Op::Vclz, umap(&|x, _| n as i128 - (128 - x.leading_zeros() as i128))),
                (Op::Vsplat, vector(ua.iter().map(|_| ua[0]), n)),
                (Op::Vscalar, ua[0] as u128),
            ];
            for (o, expected) in expectations {
                assert_eq!(eval(*o, amount), *expected, "{o:?}.{shape} {a:#x} {b:#x} {amount}");
            }
            if (amount as u32) < n {
                assert_eq!(eval(Op::VshlI, amount), umap(&|x, _| x << amount));
            }
            for &cc in IntCc::ALL {
                let truth = |x: i128, y: i128| {
                    if compares(cc, x as u128, y as u128, n) { -1 } else { 0 }
                };
                let o = EvalOp { shape, aux: cc as u8, ..op(Op::Vicmp, Type::V128) };
                assert_eq!(run(&o, args), umap(&truth), "{cc} {shape}");
            }
            let pairs = ua.chunks(2).chain(ub.chunks(2)).map(|p| p[0] + p[1]);
            assert_eq!(eval(Op::VaddPairs, 0), vector(pairs, n));
            let signs = sa.iter().rev().fold(0, |acc, &x| acc << 1 | (x < 0) as u128);
            assert_eq!(eval(Op::VsignBits, 0), signs);
            assert_eq!(eval(Op::Vlane, lane), ua[lane as usize] as u128);
            let mut replaced = ua.clone();
            replaced[lane as usize] = u(b, n);
            assert_eq!(eval(Op::VsetLane, lane), vector(replaced, n));

            if n < 64 {
                let half = ua.len() / 2;
                let products =
                    |x: &[i128], y: &[i128]| vector(x.iter().zip(y).map(|(&x, &y)| x * y), 2 * n);
                let wide = |x: &[i128]| vector(x.iter().copied(), 2 * n);
                assert_eq!(eval(Op::VwidenLoS, 0), wide(&sa[..half]));
                assert_eq!(eval(Op::VwidenLoU, 0), wide(&ua[..half]));
                assert_eq!(eval(Op::VwidenHiS, 0), wide(&sa[half..]));
                assert_eq!(eval(Op::VwidenHiU, 0), wide(&ua[half..]));
                assert_eq!(eval(Op::VmulWidenLoS, 0), products(&sa[..half], &sb[..half]));
                assert_eq!(eval(Op::VmulWidenLoU, 0), products(&ua[..half], &ub[..half]));
                assert_eq!(eval(Op::VmulWidenHiS, 0), products(&sa[half..], &sb[half..]));
                assert_eq!(eval(Op::VmulWidenHiU, 0), products(&ua[half..], &ub[half..]));
            }
            if n > 8 {
                let h = n / 2;
                let (smin, smax) = (-(1i128 << (h - 1)), (1i128 << (h - 1)) - 1);
                let umax = (1i128 << h) - 1;
                let signed = || sa.iter().chain(&sb).copied();
                let unsigned = || ua.iter().chain(&ub).copied();
                assert_eq!(eval(Op::Vnarrow, 0), vector(unsigned(), h));
                let saturated = vector(signed().map(|x| x.clamp(smin, smax)), h);
                assert_eq!(eval(Op::VnarrowSatS, 0), saturated);
                let saturated = vector(signed().map(|x| x.clamp(0, umax)), h);
                assert_eq!(eval(Op::VnarrowSatSU, 0), saturated);
                let saturated = vector(unsigned().map(|x| x.min(umax)), h);
                assert_eq!(eval(Op::VnarrowSatU, 0), saturated);
            }
        }
        let plain = |o| run(&op(o, Type::V128), args);
        assert_eq!(plain(Op::Vand), a & b);
        assert_eq!(plain(Op::Vor), a | b);
        assert_eq!(plain(Op::Vxor), a ^ b);
        assert_eq!(plain(Op::VandNot), a & !b);
        assert_eq!(plain(Op::Vnot), !a);
        assert_eq!(plain(Op::Vbitsel), a & b | !a & c);
        assert_eq!(plain(Op::VanyTrue), (a != 0) as u128);
        let ones = |x: i128| x.count_ones() as i128;
        assert_eq!(plain(Op::Vpopcnt), vector(lanes(a, 8, false).into_iter().map(ones), 8));
        let (x, y) = (lanes(a, 16, true), lanes(b, 16, true));
        let sums = (0..4).map(|i| x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1]);
        assert_eq!(plain(Op::VmaddPairsS), vector(sums, 32));

        let bytes: Vec<i128> = [lanes(a, 8, false), lanes(b, 8, false)].concat();
        let picks = if round % 2 == 0 { c } else { c & (0x1f * (u128::MAX / 255)) };
        let shuffle = EvalOp { pool: picks, ..op(Op::Vshuffle, Type::V128) };
        let shuffled = lanes(picks, 8, false).into_iter().map(|p| bytes[p as usize & 31]);
        assert_eq!(run(&shuffle, args), vector(shuffled, 8));
        let swizzled = lanes(b, 8, false).into_iter();
        let swizzled = swizzled.map(|p| if p < 16 { bytes[p as usize] } else { 0 });
        assert_eq!(plain(Op::Vswizzle), vector(swizzled, 8));
    }
}

#[test]
fn words_round_trip() {
    for &o in Op::ALL {
        let full = EvalOp {
            op: o,
            ty: Type::V128,
            src_ty: Type::F64,
            aux: 0xa5,
            shape: Shape::F64x2,
            imm2: 0xbeef,
            imm: if o == Op::Vshuffle { 0 } else { -5 },
            fp: FpRule::Sparc,
            pool: if o == Op::Vshuffle { 0x1f1e_1d1c_1b1a_1918_0706_0504_0302_0100 } else { 0 },
        };
        assert_eq!(EvalOp::from_words(full.to_words()), full);
    }
}
