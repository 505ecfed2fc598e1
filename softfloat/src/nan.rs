//! NaN results: the default NaN, and which operand NaN an operation returns. See [`NanRule`].

use crate::env::{Env, Flags, NanRule};
use crate::format::Format;
use crate::round::round_with;
use crate::unpack::{Class, Unpacked};
use crate::word::Word;

/// The NaN that invalid operations return.
pub fn default_nan<F: Format>(rule: NanRule) -> F::Bits {
    let mut env = Env::new(rule);
    round_with::<F>(&mut env, default(rule), F::PREC, false)
}

fn default<W: Word>(rule: NanRule) -> Unpacked<W> {
    let (sign, sig) = match rule {
        NanRule::Arm | NanRule::Ppc => (false, W::TOP | (W::TOP >> 1)),
        NanRule::Sse | NanRule::X87 => (true, W::TOP | (W::TOP >> 1)),
        NanRule::Sparc => (false, !W::ZERO),
    };
    Unpacked { class: Class::QuietNan, sign, denormal: false, exp: 0, sig }
}

/// Raises invalid, of the given kind, and returns the default NaN.
#[cold]
pub(crate) fn invalid<W: Word>(env: &mut Env, kind: Flags) -> Unpacked<W> {
    env.raise(Flags::INVALID | kind);
    default(env.nan_rule)
}

fn quieted<W: Word>(env: &Env, nan: Unpacked<W>) -> Unpacked<W> {
    if env.default_nan {
        return default(env.nan_rule);
    }
    Unpacked { class: Class::QuietNan, sig: nan.sig | (W::TOP >> 1), ..nan }
}

/// Result of an operation whose only operand is a NaN.
#[cold]
pub(crate) fn propagate1<W: Word>(env: &mut Env, a: Unpacked<W>) -> Unpacked<W> {
    match a.class {
        Class::Unsupported => return invalid(env, Flags::NONE),
        Class::SignallingNan => env.raise(Flags::INVALID | Flags::VX_SNAN),
        _ => {}
    }
    quieted(env, a)
}

/// Result of an operation of which at least one operand is a NaN.
#[cold]
pub(crate) fn propagate2<W: Word>(env: &mut Env, a: Unpacked<W>, b: Unpacked<W>) -> Unpacked<W> {
    if a.class == Class::Unsupported || b.class == Class::Unsupported {
        return invalid(env, Flags::NONE);
    }
    if a.is_signalling() || b.is_signalling() {
        env.raise(Flags::INVALID | Flags::VX_SNAN);
    }
    let first = match env.nan_rule {
        NanRule::Arm => a.is_signalling() || !b.is_signalling() && a.is_nan(),
        NanRule::Sse | NanRule::Ppc => a.is_nan(),
        NanRule::Sparc => !(b.is_signalling() || !a.is_signalling() && b.is_nan()),
        NanRule::X87 => x87_prefers_first(a, b),
    };
    quieted(env, if first { a } else { b })
}

fn x87_prefers_first<W: Word>(a: Unpacked<W>, b: Unpacked<W>) -> bool {
    if !(a.is_nan() && b.is_nan()) {
        return a.is_nan();
    }
    if a.class != b.class {
        return a.class == Class::QuietNan;
    }
    (a.sig, !a.sign) >= (b.sig, !b.sign)
}

/// Result of `a * b + c` with at least one NaN operand; `product_invalid` if `a * b` is infinity times zero.
#[cold]
pub(crate) fn propagate3<W: Word>(
    env: &mut Env,
    a: Unpacked<W>,
    b: Unpacked<W>,
    c: Unpacked<W>,
    product_invalid: bool,
) -> Unpacked<W> {
    if a.is_signalling() || b.is_signalling() || c.is_signalling() {
        env.raise(Flags::INVALID | Flags::VX_SNAN);
    }
    let order = match env.nan_rule {
        NanRule::Arm => [c, a, b],
        NanRule::Sse | NanRule::X87 => [a, b, c],
        NanRule::Ppc => [a, c, b],
        NanRule::Sparc => [c, b, a],
    };
    if product_invalid {
        match env.nan_rule {
            NanRule::Arm if !c.is_signalling() => return invalid(env, Flags::NONE),
            // IEEE 754-2019 7.2 (c) leaves it open; these signal.
            NanRule::Ppc | NanRule::Sparc => env.raise(Flags::INVALID | Flags::VX_IMZ),
            _ => {}
        }
    }
    let signalling_first = matches!(env.nan_rule, NanRule::Arm | NanRule::Sparc);
    let chosen = order.iter().find(|x| signalling_first && x.is_signalling());
    let chosen = chosen.or_else(|| order.iter().find(|x| x.is_nan())).copied().unwrap_or(c);
    quieted(env, chosen)
}
