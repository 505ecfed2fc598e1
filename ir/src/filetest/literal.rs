//! Values as tests write them.
//!
//! - integers: `12`, `-1`, `0xff`
//! - floats: `1.5`, `-0.0`, `1e-40`, `inf`, `-inf`, `nan`, `snan`, `-nan:0x12` (payload), `0x3f800000` (bits);
//!   `nan` is the quiet one with payload 0, `snan` the signalling one with payload 1
//! - vectors: `0x...` (128 bits), `i32x4[1, 2, 3, 4]`; lane 0 first; fewer lanes are repeated (`i8x16[7]` is
//!   sixteen sevens), `..` at the end makes the rest zero; the shape may be left out where one is expected

use crate::types::{Shape, Type};

/// Bits of type `ty`, zero-extended. `shape` is the one that a plain `[...]` means.
pub fn parse(text: &str, ty: Type, shape: Shape) -> Result<u128, String> {
    let bad = || format!("`{text}` is no value of type {ty}");
    match ty {
        Type::V128 => match text.find('[') {
            Some(open) => {
                let shape = match &text[..open] {
                    "" => shape,
                    name => Shape::parse(name).ok_or_else(bad)?,
                };
                let list = text[open + 1..].strip_suffix(']').ok_or_else(bad)?;
                vector(list, shape)
            }
            None => integer(text).ok_or_else(bad),
        },
        Type::F32 | Type::F64 => float(text, ty).ok_or_else(bad),
        _ => {
            let n = integer(text).ok_or_else(bad)?;
            let mask = u128::MAX >> (128 - ty.bits());
            // A negative number sign-extends; anything else must fit.
            if n & !mask == 0 || (text.starts_with('-') && n | mask >> 1 == !0) {
                Ok(n & mask)
            } else {
                Err(bad())
            }
        }
    }
}

fn integer(text: &str) -> Option<u128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = digits.replace('_', "");
    let n = match digits.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(if negative { n.wrapping_neg() } else { n })
}

fn float(text: &str, ty: Type) -> Option<u128> {
    let (fraction_bits, all) = if ty == Type::F32 { (23, 32) } else { (52, 64) };
    if text.starts_with("0x") {
        return integer(text).filter(|n| n >> all == 0);
    }
    let (sign, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (1u128 << (all - 1), rest),
        None => (0, text),
    };
    let (name, payload) = match magnitude.split_once(':') {
        Some((name, payload)) => (name, Some(integer(payload)?)),
        None => (magnitude, None),
    };
    let infinity = (1u128 << (all - 1)) - (1u128 << fraction_bits);
    let quiet = 1u128 << (fraction_bits - 1);
    let bits = match (name, payload) {
        ("nan", payload) => infinity | quiet | payload.unwrap_or(0),
        ("snan", payload) => infinity | payload.unwrap_or(1),
        ("inf", None) => infinity,
        (number, None) => match ty {
            Type::F32 => number.parse::<f32>().ok()?.to_bits() as u128,
            _ => number.parse::<f64>().ok()?.to_bits() as u128,
        },
        _ => return None,
    };
    Some(sign | bits)
}

fn vector(list: &str, shape: Shape) -> Result<u128, String> {
    let mut items: Vec<&str> = list.split(',').map(str::trim).collect();
    let zero_rest = items.last() == Some(&"..");
    if zero_rest {
        items.pop();
    }
    let lanes = shape.lanes() as usize;
    if items.is_empty() || items.len() > lanes || (!zero_rest && !lanes.is_multiple_of(items.len()))
    {
        return Err(format!("`[{list}]` has {} lanes, {shape} has {lanes}", items.len()));
    }
    let mut vector = 0;
    for lane in 0..if zero_rest { items.len() } else { lanes } {
        let bits = parse(items[lane % items.len()], shape.lane_type(), shape)?;
        vector |= bits << (lane as u32 * shape.lane_bits());
    }
    Ok(vector)
}

/// `text` cut at each `separator` outside brackets, trimmed, without empty parts.
pub fn split(text: &str, separator: impl Fn(char) -> bool) -> Vec<&str> {
    let mut depth = 0;
    let mut parts = text.split(|c: char| {
        depth += (c == '[' || c == '(') as i32 - (c == ']' || c == ')') as i32;
        depth == 0 && separator(c)
    });
    parts.by_ref().map(str::trim).filter(|p| !p.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let int = |text, ty| parse(text, ty, Shape::I8x16);
        assert_eq!(int("-1", Type::I8), Ok(0xff));
        assert_eq!(int("0xff", Type::I8), Ok(0xff));
        assert_eq!(int("-128", Type::I8), Ok(0x80));
        assert!(int("-129", Type::I8).is_err());
        assert!(int("256", Type::I8).is_err());
        assert_eq!(int("-1", Type::I128), Ok(u128::MAX));
        assert_eq!(int("1.5", Type::F32), Ok(0x3fc0_0000));
        assert_eq!(int("-nan:0x12", Type::F64), Ok(0xfff8_0000_0000_0012));
        assert_eq!(int("snan", Type::F32), Ok(0x7f80_0001));
        assert_eq!(int("-inf", Type::F32), Ok(0xff80_0000));
        assert_eq!(
            int("[1, -1]", Type::V128),
            Ok(u128::from_le_bytes([1, 255].repeat(8).try_into().unwrap()))
        );
        assert_eq!(int("i32x4[1, 2, ..]", Type::V128), Ok(0x2_0000_0001));
        assert!(int("i32x4[1, 2, 3]", Type::V128).is_err());
        assert_eq!(split("a [b, c], d", |c| c == ','), ["a [b, c]", "d"]);
    }
}
