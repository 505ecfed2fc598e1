//! Conversions between formats (IEEE 754-2019 section 5.4.2).

use crate::env::Env;
use crate::format::Format;
use crate::nan::propagate1;
use crate::round::round_with;
use crate::unpack::unpack_flushing;

/// `a` in another format. A NaN keeps sign and leading payload bits and becomes quiet.
///
/// - Half-precision sides are never flushed and their denormals raise nothing (Arm ARM, FPUnpackCV and FPRoundCV; x86
///   VCVTPH2PS, VCVTPS2PH).
/// - To alternative half precision every NaN is a zero of its sign, with invalid (Arm ARM, FPConvert).
/// - x87 precision control does not apply: loads are exact, stores round to the memory format.
/// - Reading an x87 register (FST) does not count its denormal as an operand (Intel SDM, FST: no #D).
#[inline]
pub fn convert<F: Format, R: Format>(env: &mut Env, a: F::Bits) -> R::Bits {
    let flush = !F::HALF && env.flush_inputs;
    let a = unpack_flushing::<F>(env, a, flush);
    let value = if a.is_nan() && R::SPECIALS {
        propagate1(env, a)
    } else {
        env.used_denormal(a.denormal && !F::EXPLICIT && !F::HALF);
        a
    };
    let flush = !R::HALF && env.flush_outputs;
    round_with::<R>(env, value.resized(), R::PREC, flush)
}
