//! The helper table: the chapters' tables one after another, and the macro that declares one.

use super::{crypto, fp, integer, simd, system};
use tulk_ir::HelperDef;

/// Declares the helpers of a chapter: a constant with the helper's number each, and `HELPERS`, their rows.
///
/// `helpers! { first_number; NAME = function(argument types) -> result type or (), reads, writes, attributes }`
/// where attributes are any of `traps` and `pure`. The text name is the function's.
macro_rules! helpers {
    (@ret ()) => { None };
    (@ret $ret:ident) => { Some(tulk_ir::Type::$ret) };
    (@has $want:ident) => { false };
    (@has traps traps $($rest:ident)*) => { true };
    (@has pure pure $($rest:ident)*) => { true };
    (@has $want:ident $other:ident $($rest:ident)*) => { $crate::a64::helpers::helpers!(@has $want $($rest)*) };
    ($first:expr; $($(#[$doc:meta])* $id:ident = $func:ident($($arg:ident),*) -> $ret:tt, $reads:expr, $writes:expr
        $(, $attribute:ident)*;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
        enum HelperIndex { $($id),* }
        $($(#[$doc])* pub const $id: u32 = $first + HelperIndex::$id as u32;)*
        pub const HELPERS: &[tulk_ir::HelperDef] = &[$(tulk_ir::HelperDef {
            name: stringify!($func),
            func: $func,
            args: &[$(tulk_ir::Type::$arg),*],
            ret: $crate::a64::helpers::helpers!(@ret $ret),
            reads: $reads,
            writes: $writes,
            may_trap: $crate::a64::helpers::helpers!(@has traps $($attribute)*),
            pure: $crate::a64::helpers::helpers!(@has pure $($attribute)*),
            direct: None,
        }),*];
    };
}
pub(crate) use helpers;

pub const FIRST_SYSTEM: u32 = 0;
pub const FIRST_INTEGER: u32 = FIRST_SYSTEM + system::HELPERS.len() as u32;
pub const FIRST_FP: u32 = FIRST_INTEGER + integer::HELPERS.len() as u32;
pub const FIRST_SIMD: u32 = FIRST_FP + fp::HELPERS.len() as u32;
pub const FIRST_CRYPTO: u32 = FIRST_SIMD + simd::HELPERS.len() as u32;
const COUNT: usize = FIRST_CRYPTO as usize + crypto::HELPERS.len();

pub use system::{CHECK_SP_ALIGNMENT, PC_ALIGNMENT_FAULT};

const fn joined<const N: usize>(tables: &[&[HelperDef]]) -> [HelperDef; N] {
    let mut all = [tables[0][0]; N];
    let (mut n, mut t) = (0, 0);
    while t < tables.len() {
        let mut i = 0;
        while i < tables[t].len() {
            all[n] = tables[t][i];
            n += 1;
            i += 1;
        }
        t += 1;
    }
    assert!(n == N);
    all
}

/// Every helper of the guest, by number.
pub static ALL: [HelperDef; COUNT] =
    joined(&[system::HELPERS, integer::HELPERS, fp::HELPERS, simd::HELPERS, crypto::HELPERS]);
