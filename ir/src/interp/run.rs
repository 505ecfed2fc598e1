//! The interpreter's loop.
//!
//! Cells are indexed by `u16` in an array of 65536, so nothing is checked; a step is one dispatch through a jump table.
//! The codes are explained in [`super::code`].

use super::Program;
use super::code::{self, Branch, Load, Of, SelectIcmp, Step, Store, kind};
use super::eval::{EvalOp, eval, truncate};
use super::float::{self, Float};
use super::int::{self, Int, Word};
use super::program::constant;
use super::vector;
use crate::helper::{HelperCx, HelperDef, HelperEnv};
use crate::op::Op;
use crate::types::{FenceKind, Type};
use crate::unit::ExitKind;
use std::sync::atomic::{Ordering, fence};
use tulk_base::state::{CELL_RET, CELL_ZERO};
use tulk_base::{CpuState, GuestMem, GuestVa, MemFault, MemOp, RmwOp, Trap};

/// How a program ended. After `Direct` and `Indirect` the pc cell is stale: the next pc is in the outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Through the direct exit of this number, see [`Program::exits`].
    Direct(u32),
    /// To a computed pc.
    Indirect {
        kind: ExitKind,
        pc: u64,
        /// Return address, for calls.
        ret: Option<u64>,
        /// New key flags, if they change.
        flags: Option<u64>,
        /// Number of the `ExitIndirect` among the unit's, in instruction order.
        site: u32,
    },
    /// A guest event; the pc cell says where, and all slots are exact.
    Trap(Trap),
}

/// Shorthand for the codes of an operation.
macro_rules! of {
    ($op:ident) => {
        Of<{ Op::$op as u8 }>
    };
}

/// The big match. Lists of operations that exist in every width are expanded into arms before the other arms; the macros
/// in those arms are the ones in [`run`].
macro_rules! dispatch {
    (
        $code:expr;
        words { $($word:ident $word_fn:ident)* }
        unary { $($unary:ident $unary_fn:ident)* }
        carry { $($carry:ident $carry_part:tt)* }
        nzcv { $($nzcv:ident $nzcv_fn:ident)* }
        branches { $($cc:literal $holds:ident)* }
        loads { $($load:ident $load_op:ident $extend:ident)* }
        stores { $($store:ident)* }
        floats { $($float:ident $float_fn:ident $vector:ident $vector_fn:ident)* }
        others { $($pattern:pat => $arm:expr,)* }
    ) => {
        match $code {
            $(
                <of!($word)>::R8 => word!($word_fn u8 R),
                <of!($word)>::R16 => word!($word_fn u16 R),
                <of!($word)>::R32 => word!($word_fn u32 R),
                <of!($word)>::R64 => word!($word_fn u64 R),
                <of!($word)>::K8 => word!($word_fn u8 K),
                <of!($word)>::K16 => word!($word_fn u16 K),
                <of!($word)>::K32 => word!($word_fn u32 K),
                <of!($word)>::K64 => word!($word_fn u64 K),
            )*
            $(
                <of!($unary)>::R8 => unary!($unary_fn u8),
                <of!($unary)>::R16 => unary!($unary_fn u16),
                <of!($unary)>::R32 => unary!($unary_fn u32),
                <of!($unary)>::R64 => unary!($unary_fn u64),
            )*
            $(
                <of!($carry)>::R8 => carry!($carry_part u8),
                <of!($carry)>::R16 => carry!($carry_part u16),
                <of!($carry)>::R32 => carry!($carry_part u32),
                <of!($carry)>::R64 => carry!($carry_part u64),
            )*
            $(
                <of!($nzcv)>::R32 => nzcv!($nzcv_fn u32 R),
                <of!($nzcv)>::R64 => nzcv!($nzcv_fn u64 R),
                <of!($nzcv)>::K32 => nzcv!($nzcv_fn u32 K),
                <of!($nzcv)>::K64 => nzcv!($nzcv_fn u64 K),
            )*
            $(
                Branch::<$cc>::R8 => branch!($holds u8 i8 R),
                Branch::<$cc>::R16 => branch!($holds u16 i16 R),
                Branch::<$cc>::R32 => branch!($holds u32 i32 R),
                Branch::<$cc>::R64 => branch!($holds u64 i64 R),
                Branch::<$cc>::K8 => branch!($holds u8 i8 K),
                Branch::<$cc>::K16 => branch!($holds u16 i16 K),
                Branch::<$cc>::K32 => branch!($holds u32 i32 K),
                Branch::<$cc>::K64 => branch!($holds u64 i64 K),
                Branch::<$cc>::XR8 => leave!($holds u8 i8 R),
                Branch::<$cc>::XR16 => leave!($holds u16 i16 R),
                Branch::<$cc>::XR32 => leave!($holds u32 i32 R),
                Branch::<$cc>::XR64 => leave!($holds u64 i64 R),
                Branch::<$cc>::XK8 => leave!($holds u8 i8 K),
                Branch::<$cc>::XK16 => leave!($holds u16 i16 K),
                Branch::<$cc>::XK32 => leave!($holds u32 i32 K),
                Branch::<$cc>::XK64 => leave!($holds u64 i64 K),
            )*
            $(
                Load::<{ kind::$load }>::BASE => load!($load_op BASE $extend),
                Load::<{ kind::$load }>::BASE32 => load!($load_op BASE32 $extend),
                Load::<{ kind::$load }>::INDEX => load!($load_op INDEX $extend),
                Load::<{ kind::$load }>::INDEX32 => load!($load_op INDEX32 $extend),
            )*
            $(
                Store::<{ kind::$store }>::BASE => store!($store BASE),
                Store::<{ kind::$store }>::BASE32 => store!($store BASE32),
                Store::<{ kind::$store }>::INDEX => store!($store INDEX),
                Store::<{ kind::$store }>::INDEX32 => store!($store INDEX32),
            )*
            $(
                <of!($float)>::R8 => float!($float_fn f32),
                <of!($float)>::R16 => float!($float_fn f64),
                <of!($vector)>::R8 => float_lanes!($vector_fn f32),
                <of!($vector)>::R16 => float_lanes!($vector_fn f64),
            )*
            $($pattern => $arm,)*
        }
    };
}

/// The relations of [`code::branch_cc`].
macro_rules! holds {
    (Eq $S:ident $x:ident $y:ident) => {
        $x == $y
    };
    (LtS $S:ident $x:ident $y:ident) => {
        ($x as $S) < $y as $S
    };
    (LeS $S:ident $x:ident $y:ident) => {
        $x as $S <= $y as $S
    };
    (LtU $S:ident $x:ident $y:ident) => {
        $x < $y
    };
    (LeU $S:ident $x:ident $y:ident) => {
        $x <= $y
    };
}

/// Runs `p` from its start until it leaves. `helpers` is the table that it was translated with.
pub fn run<E: HelperEnv>(
    p: &Program,
    state: &mut CpuState,
    helpers: &[HelperDef],
    env: &mut E,
) -> Outcome {
    run_chained(p, state, helpers, env, &mut ())
}

/// Who knows which program comes next, so that the interpreter goes on without returning.
pub trait Chain<'p> {
    /// The program behind direct exit number `exit` of the one that runs, if it can run at once; it counts as
    /// running then. `None` has no effect.
    fn direct(&mut self, exit: u32, state: &CpuState) -> Option<&'p Program>;
    /// The same for a computed pc under the same key flags (never for [`ExitKind::Resync`]), to which the program returns or
    /// jumps.
    fn indirect(&mut self, pc: u64, returns: bool, state: &CpuState) -> Option<&'p Program>;
}

/// Nothing follows.
impl<'p> Chain<'p> for () {
    #[inline(always)]
    fn direct(&mut self, _exit: u32, _state: &CpuState) -> Option<&'p Program> {
        None
    }
    #[inline(always)]
    fn indirect(&mut self, _pc: u64, _returns: bool, _state: &CpuState) -> Option<&'p Program> {
        None
    }
}

/// As [`run`], and goes on with the programs that `chain` names. The outcome is that of the last one.
pub fn run_chained<'p, E: HelperEnv, C: Chain<'p>>(
    p: &'p Program,
    state: &mut CpuState,
    helpers: &[HelperDef],
    env: &mut E,
    chain: &mut C,
) -> Outcome {
    execute::<E, C, false>(p, 0, state, helpers, env, chain)
}

/// Runs step number `index` of `p` alone. On a trap the pc cell says where.
///
/// The step must not be one that ends the block or goes elsewhere: what those do is the caller's business.
pub fn step<E: HelperEnv>(
    p: &Program,
    index: u32,
    state: &mut CpuState,
    helpers: &[HelperDef],
    env: &mut E,
) -> Result<(), Trap> {
    match execute::<E, (), true>(p, index as usize, state, helpers, env, &mut ()) {
        Outcome::Trap(trap) => Err(trap),
        _ => Ok(()),
    }
}

/// The loop, from step number `start` on; with `ONE` it ends behind that step with an outcome of no meaning.
#[inline(always)]
fn execute<'p, E: HelperEnv, C: Chain<'p>, const ONE: bool>(
    mut p: &'p Program,
    start: usize,
    state: &mut CpuState,
    helpers: &[HelperDef],
    env: &mut E,
    chain: &mut C,
) -> Outcome {
    debug_assert_eq!(state.get128(CELL_ZERO), 0);
    'programs: loop {
        let steps = &*p.steps;
        let rule = p.fp;
        let mut ip = if ONE { start } else { 0 };
        let exit: u32 = loop {
            if ONE && ip != start {
                return Outcome::Direct(0);
            }
            let Step { code, d, a, b, imm } = steps[ip];
            ip += 1;

            macro_rules! get {
                ($cell:expr) => {
                    state.cells[$cell as usize]
                };
            }
            macro_rules! set {
                ($cell:expr, $value:expr) => {
                    state.cells[$cell as usize] = $value
                };
            }
            // Pairs start at even cells.
            macro_rules! get2 {
                ($cell:expr) => {
                    get!($cell) as u128 | (get!($cell | 1) as u128) << 64
                };
            }
            macro_rules! set2 {
                ($cell:expr, $value:expr) => {{
                    let value: u128 = $value;
                    set!($cell, value as u64);
                    set!($cell | 1, (value >> 64) as u64);
                }};
            }
            macro_rules! pair {
                ($cell:expr) => {
                    state.cells.as_chunks::<2>().0[$cell as usize >> 1]
                };
            }
            macro_rules! pair_mut {
                ($cell:expr) => {
                    &mut state.cells.as_chunks_mut::<2>().0[$cell as usize >> 1]
                };
            }
            // The second operand: `b`, or the constant.
            macro_rules! rhs {
                ($T:ident R) => {
                    get!(b) as $T
                };
                ($T:ident K) => {
                    imm as $T
                };
            }
            macro_rules! word {
            ($f:ident $T:ident $form:ident) => {
                set!(d, (get!(a) as $T).$f(rhs!($T $form)) as u64)
            };
        }
            macro_rules! unary {
                ($f:ident $T:ident) => {
                    set!(d, Int::$f(get!(a) as $T) as u64)
                };
            }
            // Part 0 is the sum, part 1 the carry out.
            macro_rules! carry {
                ($part:tt $T:ident) => {{
                    let carry = get!(imm as u16) & 1 != 0;
                    set!(d, (get!(a) as $T).adc(get!(b) as $T, carry).$part as u64)
                }};
            }
            macro_rules! nzcv {
            ($f:ident $T:ident $form:ident) => {
                set!(d, int::$f(get!(a) as $T, rhs!($T $form)) as u64)
            };
        }
            // Where the second target of a branch is.
            macro_rules! other {
                (R) => {
                    imm
                };
                (K) => {
                    b
                };
            }
            macro_rules! branch {
            ($holds:ident $T:ident $S:ident $form:ident) => {{
                let (x, y) = (get!(a) as $T, rhs!($T $form));
                ip = if holds!($holds $S x y) { d as usize } else { other!($form) as usize };
            }};
        }
            macro_rules! leave {
            ($holds:ident $T:ident $S:ident $form:ident) => {{
                let (x, y) = (get!(a) as $T, rhs!($T $form));
                let exit = if holds!($holds $S x y) { d as u32 } else { other!($form) as u32 };
                break exit;
            }};
        }
            macro_rules! address {
                (BASE) => {
                    get!(a).wrapping_add(imm)
                };
                (BASE32) => {
                    (get!(a) as u32).wrapping_add(imm as u32) as u64
                };
                (INDEX) => {
                    get!(a)
                        .wrapping_add(get!(b).wrapping_shl(imm as u32))
                        .wrapping_add((imm as i64 >> 32) as u64)
                };
                (INDEX32) => {
                    (get!(a) as u32)
                        .wrapping_add((get!(b) as u32).wrapping_shl(imm as u32))
                        .wrapping_add((imm >> 32) as u32) as u64
                };
            }
            macro_rules! load {
                (U128 $mode:ident $extend:ident) => {
                    match env.load128(GuestVa(address!($mode)), MemOp::U128.with_mmu(p.mmu)) {
                        Ok(value) => set2!(d, value),
                        Err(fault) => return faulted(p, state, ip, fault),
                    }
                };
                // Memory extends to 64 bits; a narrower result is cut.
                ($op:ident $mode:ident $extend:ident) => {
                    match env.load(GuestVa(address!($mode)), MemOp::$op.with_mmu(p.mmu)) {
                        Ok(value) => set!(d, value as $extend as u64),
                        Err(fault) => return faulted(p, state, ip, fault),
                    }
                };
            }
            macro_rules! store {
                (U128 $mode:ident) => {
                    fallible!(env.store128(
                        GuestVa(address!($mode)),
                        MemOp::U128.with_mmu(p.mmu),
                        get2!(d)
                    ))
                };
                ($op:ident $mode:ident) => {
                    fallible!(env.store(
                        GuestVa(address!($mode)),
                        MemOp::$op.with_mmu(p.mmu),
                        get!(d)
                    ))
                };
            }
            macro_rules! float {
                ($f:ident $F:ident) => {
                    set!(d, float::$f::<$F>(get!(a), get!(b), rule, env))
                };
            }
            macro_rules! float_lanes {
                ($f:ident $F:ident) => {{
                    let (x, y) = (pair!(a), pair!(b));
                    float::$f::<$F>(&x, &y, pair_mut!(d), rule, env)
                }};
            }
            macro_rules! fallible {
                ($result:expr) => {
                    if let Err(fault) = $result {
                        return faulted(p, state, ip, fault);
                    }
                };
            }
            macro_rules! select_icmp {
                ($T:ident R) => {{
                    let holds = imm >> 32 >> int::compare(get!(a) as $T, get!(b) as $T) & 1 != 0;
                    let (then, otherwise) = (imm as u16, (imm >> 16) as u16);
                    set!(d, get!(if holds { then } else { otherwise }))
                }};
                ($T:ident K) => {{
                    let k = (imm as i64 >> 32) as $T;
                    let holds = imm >> 16 >> int::compare(get!(a) as $T, k) & 1 != 0;
                    set!(d, get!(if holds { b } else { imm as u16 }))
                }};
            }
            macro_rules! flag {
                ($table:expr, $cell:expr) => {
                    $table >> (get!($cell) as u32 >> 28) & 1 != 0
                };
            }
            macro_rules! with_flags {
                ($T:ident, $f:ident, $nzcv:ident, $b:expr, $flags:expr) => {{
                    let (x, y) = (get!(a) as $T, $b as $T);
                    set!(d, x.$f(y) as u64);
                    set!($flags, int::$nzcv(x, y) as u64)
                }};
            }

            dispatch! {
                code;
                words {
                    Add wrapping_add Sub wrapping_sub Mul wrapping_mul MulhU mulh_u MulhS mulh_s
                    DivU div_u DivS div_s RemU rem_u RemS rem_s
                    MinU min_u MinS min_s MaxU max_u MaxS max_s
                    And and Or or Xor xor AndNot and_not OrNot or_not XorNot xor_not
                    Shl shl ShrU shr_u ShrS shr_s Rotl rotl Rotr rotr
                }
                unary {
                    Neg neg Abs abs Not not Clz clz Ctz ctz Popcnt popcnt Bswap bswap Bitrev bitrev
                }
                carry { AddCarry 0 CarryOut 1 }
                nzcv { AddNzcv add_nzcv SubNzcv sub_nzcv }
                branches { 0 Eq 1 LtS 2 LeS 3 LtU 4 LeU }
                loads {
                    U8 U8 u64 U16 U16 u64 U32 U32 u64 U64 U64 u64 U128 U128 u128
                    S8_32 S8 u32 S8_64 S8 u64 S16_32 S16 u32 S16_64 S16 u64 S32_64 S32 u64
                }
                stores { U8 U16 U32 U64 U128 }
                floats {
                    Fadd add Vfadd vadd Fsub sub Vfsub vsub Fmul mul Vfmul vmul Fdiv div Vfdiv vdiv
                }
                others {
                code::MOV => set!(d, get!(a)),
                code::MOV2 => *pair_mut!(d) = pair!(a),
                code::CONST => set!(d, imm),
                code::CONST2 => set2!(d, imm as u128 | (imm as u128) << 64),
                code::POOL => set2!(d, constant(&steps[imm as usize])),
                code::ZEXT128 => set2!(d, (get!(a) & imm) as u128),
                code::SEXT => set!(d, ((get!(a) << (b & 63)) as i64 >> (b & 63)) as u64 & imm),
                code::SEXT128 => {
                    set2!(d, ((get!(a) << (b & 63)) as i64 >> (b & 63)) as i128 as u128)
                },
                code::BEXTRACT_U => set!(d, get!(a) >> (b & 63) & imm),
                code::BEXTRACT_S => {
                    let x = (get!(a) << (b & 63)) as i64 >> (imm & 63);
                    set!(d, x as u64 & int::mask((imm >> 8) as u32))
                },
                code::BINSERT => {
                    let (lsb, width) = (imm as u32 & 0xff, (imm >> 8) as u32);
                    set!(d, int::binsert(get!(a), get!(b), lsb, width))
                },
                code::CONCAT => set2!(d, get!(a) as u128 | (get!(b) as u128) << 64),
                code::PARITY_EVEN => set!(d, (get!(a) as u8).count_ones() as u64 & 1 ^ 1),
                code::NZCV_TEST => set!(d, flag!(imm, a) as u64),
                code::SPLAT => {
                    let x = (get!(a) & int::mask(b as u32)).wrapping_mul(imm);
                    set!(d, x);
                    set!(d | 1, x)
                },
                code::SET_LANE => {
                    let (bit, width) = (imm as u32 & 0xff, (imm >> 8) as u32);
                    let scalar = get!(b);
                    let mut pair = [get!(a), get!(a | 1)];
                    let half = &mut pair[bit as usize >> 6 & 1];
                    *half = int::binsert(*half, scalar, bit & 63, width);
                    set!(d, pair[0]);
                    set!(d | 1, pair[1])
                },
                code::SHUFFLE => {
                    set2!(d, vector::vshuffle(get2!(a), get2!(b), constant(&steps[imm as usize])))
                },
                code::VAND => set2!(d, get2!(a) & get2!(b)),
                code::VOR => set2!(d, get2!(a) | get2!(b)),
                code::VXOR => set2!(d, get2!(a) ^ get2!(b)),
                code::VAND_NOT => set2!(d, get2!(a) & !get2!(b)),
                code::VNOT => set2!(d, !get2!(a)),
                code::VBITSEL => set2!(d, get2!(a) & get2!(b) | !get2!(a) & get2!(imm as u16)),

                code::EVAL => {
                    let args = [get2!(a), get2!(b), get2!((imm >> EvalOp::HEAD_BITS) as u16)];
                    set!(d, eval(&EvalOp::from_head(imm), args, env) as u64)
                },
                code::EVAL2 => {
                    let args = [get2!(a), get2!(b), get2!((imm >> EvalOp::HEAD_BITS) as u16)];
                    set2!(d, eval(&EvalOp::from_head(imm), args, env))
                },

                <of!(AdcNzcv)>::R32 => {
                    let carry = get!(imm as u16) & 1 != 0;
                    set!(d, int::adc_nzcv(get!(a) as u32, get!(b) as u32, carry) as u64)
                },
                <of!(AdcNzcv)>::R64 => {
                    let carry = get!(imm as u16) & 1 != 0;
                    set!(d, int::adc_nzcv(get!(a), get!(b), carry) as u64)
                },
                <of!(LogicNzcv)>::R32 => set!(d, int::logic_nzcv(get!(a) as u32) as u64),
                <of!(LogicNzcv)>::R64 => set!(d, int::logic_nzcv(get!(a)) as u64),
                code::ADDS_R32 => with_flags!(u32, wrapping_add, add_nzcv, get!(b), imm as u16),
                code::ADDS_R64 => with_flags!(u64, wrapping_add, add_nzcv, get!(b), imm as u16),
                code::ADDS_K32 => with_flags!(u32, wrapping_add, add_nzcv, imm, b),
                code::ADDS_K64 => with_flags!(u64, wrapping_add, add_nzcv, imm, b),
                code::SUBS_R32 => with_flags!(u32, wrapping_sub, sub_nzcv, get!(b), imm as u16),
                code::SUBS_R64 => with_flags!(u64, wrapping_sub, sub_nzcv, get!(b), imm as u16),
                code::SUBS_K32 => with_flags!(u32, wrapping_sub, sub_nzcv, imm, b),
                code::SUBS_K64 => with_flags!(u64, wrapping_sub, sub_nzcv, imm, b),

                <of!(Icmp)>::R8 => set!(d, imm >> int::compare(get!(a) as u8, get!(b) as u8) & 1),
                <of!(Icmp)>::R16 => set!(d, imm >> int::compare(get!(a) as u16, get!(b) as u16) & 1),
                <of!(Icmp)>::R32 => set!(d, imm >> int::compare(get!(a) as u32, get!(b) as u32) & 1),
                <of!(Icmp)>::R64 => set!(d, imm >> int::compare(get!(a), get!(b)) & 1),
                <of!(Icmp)>::K8 => set!(d, b as u64 >> int::compare(get!(a) as u8, imm as u8) & 1),
                <of!(Icmp)>::K16 => set!(d, b as u64 >> int::compare(get!(a) as u16, imm as u16) & 1),
                <of!(Icmp)>::K32 => set!(d, b as u64 >> int::compare(get!(a) as u32, imm as u32) & 1),
                <of!(Icmp)>::K64 => set!(d, b as u64 >> int::compare(get!(a), imm) & 1),
                code::SELECT => set!(d, get!(if get!(a) as u8 != 0 { b } else { imm as u16 })),
                code::SELECT_K => set!(d, if get!(a) as u8 != 0 { get!(b) } else { imm }),
                code::SELECT_KR => set!(d, if get!(a) as u8 != 0 { imm } else { get!(b) }),
                code::SELECT2 => {
                    let from = if get!(a) as u8 != 0 { b } else { imm as u16 };
                    set2!(d, get2!(from))
                },
                code::SELECT_NZCV => {
                    set!(d, get!(if flag!(imm >> 16, a) { b } else { imm as u16 }))
                },
                code::SELECT_NZCV_K => {
                    set!(d, if flag!(imm >> 16, a) { get!(b) } else { (imm as i64 >> 32) as u64 })
                },
                code::SELECT_NZCV_KR => {
                    set!(d, if flag!(imm >> 16, a) { (imm as i64 >> 32) as u64 } else { get!(b) })
                },
                SelectIcmp::R8 => select_icmp!(u8 R),
                SelectIcmp::R16 => select_icmp!(u16 R),
                SelectIcmp::R32 => select_icmp!(u32 R),
                SelectIcmp::R64 => select_icmp!(u64 R),
                SelectIcmp::K8 => select_icmp!(u8 K),
                SelectIcmp::K16 => select_icmp!(u16 K),
                SelectIcmp::K32 => select_icmp!(u32 K),
                SelectIcmp::K64 => select_icmp!(u64 K),

                <of!(Fsqrt)>::R8 => set!(d, float::sqrt::<f32>(get!(a), rule, env)),
                <of!(Fsqrt)>::R16 => set!(d, float::sqrt::<f64>(get!(a), rule, env)),
                <of!(Fneg)>::R8 => set!(d, float::neg::<f32>(get!(a))),
                <of!(Fneg)>::R16 => set!(d, float::neg::<f64>(get!(a))),
                <of!(Fabs)>::R8 => set!(d, float::abs::<f32>(get!(a))),
                <of!(Fabs)>::R16 => set!(d, float::abs::<f64>(get!(a))),
                <of!(FcmpNzcv)>::R8 => {
                    set!(d, float::cmp_nzcv::<f32>(imm != 0, get!(a), get!(b), env) as u64)
                },
                <of!(FcmpNzcv)>::R16 => {
                    set!(d, float::cmp_nzcv::<f64>(imm != 0, get!(a), get!(b), env) as u64)
                },
                <of!(StoF)>::R8 => set!(d, f32::from_i64(get!(a) as i32 as i64).bits()),
                <of!(StoF)>::R16 => set!(d, f64::from_i64(get!(a) as i32 as i64).bits()),
                <of!(StoF)>::R32 => set!(d, f32::from_i64(get!(a) as i64).bits()),
                <of!(StoF)>::R64 => set!(d, f64::from_i64(get!(a) as i64).bits()),
                <of!(UtoF)>::R8 => {
                    set!(d, float::from_unsigned::<f32>(get!(a) as u32 as u64, rule, env))
                },
                <of!(UtoF)>::R16 => {
                    set!(d, float::from_unsigned::<f64>(get!(a) as u32 as u64, rule, env))
                },
                <of!(UtoF)>::R32 => set!(d, float::from_unsigned::<f32>(get!(a), rule, env)),
                <of!(UtoF)>::R64 => set!(d, float::from_unsigned::<f64>(get!(a), rule, env)),
                <of!(Fpromote)>::R8 => set!(d, float::promote(get!(a), rule, env)),
                <of!(Fdemote)>::R8 => set!(d, float::demote(get!(a), rule, env)),

                code::VBINARY => {
                    let f = vector::BINARY[imm as usize >> 2][imm as usize & 3];
                    let (x, y) = (pair!(a), pair!(b));
                    f(&x, &y, pair_mut!(d))
                },
                code::VCOMPARE => {
                    let f = vector::COMPARE[imm as usize >> 2][imm as usize & 3];
                    let (x, y) = (pair!(a), pair!(b));
                    f(&x, &y, pair_mut!(d))
                },
                code::VUNARY => {
                    let f = vector::UNARY[imm as usize >> 2][imm as usize & 3];
                    let x = pair!(a);
                    f(&x, pair_mut!(d))
                },
                code::VSHIFT => {
                    let f = vector::SHIFT[imm as usize >> 2][imm as usize & 3];
                    let x = pair!(a);
                    f(&x, b as u32, pair_mut!(d))
                },

                code::LOAD => fallible!(general_load(state, env, d, get!(a).wrapping_add(imm), b)),
                code::LOAD_A32 => {
                    let va = (get!(a) as u32).wrapping_add(imm as u32) as u64;
                    fallible!(general_load(state, env, d, va, b))
                },
                code::STORE => fallible!(general_store(state, env, d, get!(a).wrapping_add(imm), b)),
                code::STORE_A32 => {
                    let va = (get!(a) as u32).wrapping_add(imm as u32) as u64;
                    fallible!(general_store(state, env, d, va, b))
                },
                code::RMW => {
                    let va = if imm >> 24 & 1 != 0 { get!(a) as u32 as u64 } else { get!(a) };
                    let kind = RmwOp::ALL[(imm >> 16 & 0xff) as usize];
                    match env.rmw(GuestVa(va), MemOp(imm as u16), kind, get!(b)) {
                        Ok(old) => set!(d, old),
                        Err(fault) => return faulted(p, state, ip, fault),
                    }
                },
                code::CAS => fallible!(compare_and_swap(state, env, &steps[ip - 1])),
                code::FENCE => fence(match FenceKind::from_u8(a as u8) {
                    FenceKind::Full => Ordering::SeqCst,
                    FenceKind::Acquire => Ordering::Acquire,
                    FenceKind::Release => Ordering::Release,
                }),

                code::CALL => {
                    let imm = (imm as i64 >> 32) as u64;
                    if let Err(trap) = call(p, state, helpers, env, &steps[ip - 1], imm) {
                        return Outcome::Trap(trap);
                    }
                },
                code::CALL_WIDE => {
                    let imm = steps[(imm >> 32) as usize].imm;
                    if let Err(trap) = call(p, state, helpers, env, &steps[ip - 1], imm) {
                        return Outcome::Trap(trap);
                    }
                },

                code::JUMP => ip = imm as usize,
                code::BRANCH => ip = if get!(a) as u8 != 0 { d } else { b } as usize,
                code::BRANCH_EXIT => break if get!(a) as u8 != 0 { d } else { b } as u32,
                code::BRANCH_NZCV => ip = if flag!(imm, a) { d } else { b } as usize,
                code::BRANCH_NZCV_EXIT => break if flag!(imm, a) { d } else { b } as u32,
                code::EXIT => break imm as u32,
                code::INDIRECT => {
                    let pc = get!(a);
                    let returns = d == ExitKind::Return as u16;
                    if d != ExitKind::Resync as u16
                        && let Some(next) = chain.indirect(pc, returns, state)
                    {
                        p = next;
                        continue 'programs;
                    }
                    return indirect(d, pc, None, None, b);
                },
                code::INDIRECT_RET => {
                    let pc = get!(a);
                    if let Some(next) = chain.indirect(pc, false, state) {
                        p = next;
                        continue 'programs;
                    }
                    return indirect(d, pc, Some(imm), None, b);
                },
                code::INDIRECT_FULL => {
                    let ret = (imm >> 32 & 1 != 0).then_some(get!(imm as u16));
                    let flags = (imm >> 33 & 1 != 0).then_some(get!((imm >> 16) as u16));
                    return indirect(d, get!(a), ret, flags, b);
                },
                code::TRAP => {
                    state.set_pc(imm);
                    let number = a as u32 | (b as u32) << 16;
                    let trap = ExitKind::from_u8(d as u8).trap(number);
                    return Outcome::Trap(trap.expect("checked by the translation"));
                },
                _ => unknown(p, ip - 1),
                }
            }
        };
        match chain.direct(exit, state) {
            Some(next) => p = next,
            None => return Outcome::Direct(exit),
        }
    }
}

#[inline(always)]
fn indirect(kind: u16, pc: u64, ret: Option<u64>, flags: Option<u64>, site: u16) -> Outcome {
    let kind = ExitKind::from_u8(kind as u8);
    Outcome::Indirect { kind, pc, ret, flags, site: site as u32 }
}

/// The step before `ip` faulted.
#[cold]
#[inline(never)]
fn faulted(p: &Program, state: &mut CpuState, ip: usize, fault: MemFault) -> Outcome {
    state.set_pc(p.guest_pc(ip - 1));
    Outcome::Trap(Trap::Mem(fault))
}

#[cold]
#[inline(never)]
fn unknown(p: &Program, step: usize) -> ! {
    unreachable!("code of step {step} of\n{p:?}")
}

fn general_load<E: GuestMem>(
    state: &mut CpuState,
    env: &mut E,
    d: u16,
    va: u64,
    how: u16,
) -> Result<(), MemFault> {
    let (op, ty) = (MemOp(how & 0x1fff), Type::from_u8((how >> 13) as u8));
    if op.bytes() == 16 {
        let value = env.load128(GuestVa(va), op)?;
        state.set128(d, value);
    } else {
        let value = env.load(GuestVa(va), op)?;
        state.set(d, truncate(value as u128, ty) as u64);
    }
    Ok(())
}

fn general_store<E: GuestMem>(
    state: &mut CpuState,
    env: &mut E,
    d: u16,
    va: u64,
    how: u16,
) -> Result<(), MemFault> {
    let op = MemOp(how);
    if op.bytes() == 16 {
        env.store128(GuestVa(va), op, state.get128(d))
    } else {
        env.store(GuestVa(va), op, state.get(d))
    }
}

fn compare_and_swap<E: GuestMem>(
    state: &mut CpuState,
    env: &mut E,
    step: &Step,
) -> Result<(), MemFault> {
    let Step { d, a, b, imm, .. } = *step;
    let (c, op) = (imm as u16, MemOp((imm >> 16) as u16));
    let va = if imm >> 32 & 1 != 0 { state.get(a) as u32 as u64 } else { state.get(a) };
    if op.bytes() == 16 {
        let old = env.cas(GuestVa(va), op, state.get128(b), state.get128(c))?;
        state.set128(d, old);
    } else {
        let low = |cell| (state.get(cell) & int::mask(op.bytes() * 8)) as u128;
        let old = env.cas(GuestVa(va), op, low(b), low(c))?;
        state.set(d, old as u64);
    }
    Ok(())
}

#[inline(never)]
fn call<E: HelperEnv>(
    p: &Program,
    state: &mut CpuState,
    helpers: &[HelperDef],
    env: &mut E,
    step: &Step,
    immediate: u64,
) -> Result<(), Trap> {
    let helper = &helpers[(step.imm >> 16 & 0xffff) as usize];
    let mut args = [0, 0, 0, immediate as u128];
    let cells = [step.a, step.b, step.imm as u16];
    for ((arg, cell), &ty) in args.iter_mut().zip(cells).zip(helper.args) {
        *arg = truncate(state.get128(cell), ty);
    }
    #[cfg(debug_assertions)]
    let before = p.slot_values(state);
    let result = (helper.func)(&mut HelperCx { state, env }, &args);
    #[cfg(debug_assertions)]
    p.check_writes(helper, before, state);
    let _ = p;
    let result = result?;
    match helper.ret {
        None => {}
        Some(ty) if ty.cells() == 2 => state.set128(step.d, result),
        Some(_) => state.set(step.d, result as u64),
    }
    Ok(())
}

// The helper result cells belong to generated code.
const _: () = assert!(CELL_RET + 2 <= CELL_ZERO);
