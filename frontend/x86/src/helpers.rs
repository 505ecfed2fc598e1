//! The helper table: the chapters' tables one after another, and the macro that declares one.

use crate::{flags, fpstate, integer, mmx, segment, sse, system, x87};
use tulk_ir::HelperDef;

/// Declares the helpers of a chapter: a constant with the helper's number each, and `HELPERS`, their rows.
///
/// `helpers! { first_number; NAME = function(argument types) -> result type or (), reads, writes, attributes }`
/// where attributes are any of `traps` and `pure`; behind them may stand `=> function` with the direct form
/// ([`HelperDef::direct`]). The text name is the function's.
macro_rules! helpers {
    (@direct) => { None };
    (@direct $direct:expr) => { Some($direct) };
    (@ret ()) => { None };
    (@ret $ret:ident) => { Some(tulk_ir::Type::$ret) };
    (@has $want:ident) => { false };
    (@has traps traps $($rest:ident)*) => { true };
    (@has pure pure $($rest:ident)*) => { true };
    (@has $want:ident $other:ident $($rest:ident)*) => { $crate::helpers::helpers!(@has $want $($rest)*) };
    ($first:expr; $($(#[$doc:meta])* $id:ident = $func:ident($($arg:ident),*) -> $ret:tt, $reads:expr, $writes:expr
        $(, $attribute:ident)* $(=> $direct:expr)?;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
        enum HelperIndex { $($id),* }
        $($(#[$doc])* pub const $id: u32 = $first + HelperIndex::$id as u32;)*
        pub const HELPERS: &[tulk_ir::HelperDef] = &[$(tulk_ir::HelperDef {
            name: stringify!($func),
            func: $func,
            args: &[$(tulk_ir::Type::$arg),*],
            ret: $crate::helpers::helpers!(@ret $ret),
            reads: $reads,
            writes: $writes,
            may_trap: $crate::helpers::helpers!(@has traps $($attribute)*),
            pure: $crate::helpers::helpers!(@has pure $($attribute)*),
            direct: $crate::helpers::helpers!(@direct $($direct)?),
        }),*];
    };
}
pub(crate) use helpers;

pub const FIRST_FLAGS: u32 = 0;
pub const FIRST_SEGMENT: u32 = FIRST_FLAGS + flags::HELPERS.len() as u32;
pub const FIRST_ARITHMETIC: u32 = FIRST_SEGMENT + segment::HELPERS.len() as u32;
pub const FIRST_DECIMAL: u32 = FIRST_ARITHMETIC + integer::arithmetic::HELPERS.len() as u32;
pub const FIRST_SHIFT: u32 = FIRST_DECIMAL + integer::decimal::HELPERS.len() as u32;
pub const FIRST_BIT: u32 = FIRST_SHIFT + integer::shift::HELPERS.len() as u32;
pub const FIRST_STRING: u32 = FIRST_BIT + integer::bit::HELPERS.len() as u32;
pub const FIRST_SYSTEM: u32 = FIRST_STRING + integer::string::HELPERS.len() as u32;
pub const FIRST_X87: u32 = FIRST_SYSTEM + integer::system::HELPERS.len() as u32;
pub const FIRST_NUMBER: u32 = FIRST_X87 + x87::HELPERS.len() as u32;
pub const FIRST_MMX: u32 = FIRST_NUMBER + x87::number::HELPERS.len() as u32;
pub const FIRST_SSE: u32 = FIRST_MMX + mmx::HELPERS.len() as u32;
pub const FIRST_FPSTATE: u32 = FIRST_SSE + sse::HELPERS.len() as u32;
pub const FIRST_PRIVILEGED: u32 = FIRST_FPSTATE + fpstate::HELPERS.len() as u32;
const COUNT: usize = FIRST_PRIVILEGED as usize + system::HELPERS.len();

pub(crate) const fn joined<const N: usize>(tables: &[&[HelperDef]]) -> [HelperDef; N] {
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
pub static ALL: [HelperDef; COUNT] = joined(&[
    flags::HELPERS,
    segment::HELPERS,
    integer::arithmetic::HELPERS,
    integer::decimal::HELPERS,
    integer::shift::HELPERS,
    integer::bit::HELPERS,
    integer::string::HELPERS,
    integer::system::HELPERS,
    x87::HELPERS,
    x87::number::HELPERS,
    mmx::HELPERS,
    sse::HELPERS,
    fpstate::HELPERS,
    system::HELPERS,
]);
