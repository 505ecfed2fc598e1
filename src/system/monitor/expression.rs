//! Numbers in commands: `0x7c00`, `$rsp + 8 * 2`, `($cs << 4) + $eip`.
//!
//! C's operators with C's precedence: `~ -`, `* / %`, `+ -`, `<< >>`, `&`, `^`, `|`. Arithmetic is modulo 2^64.

/// Nesting that is followed; users write less.
const DEPTH: u32 = 64;

struct Parser<'a> {
    rest: &'a str,
    register: &'a dyn Fn(&str) -> Option<u64>,
    depth: u32,
}

/// The value of an expression. Names behind `$` are asked for.
///
/// # Errors
/// A line for the user.
pub fn evaluate(text: &str, register: &dyn Fn(&str) -> Option<u64>) -> Result<u64, String> {
    let mut parser = Parser { rest: text, register, depth: 0 };
    let value = parser.binary(0)?;
    match parser.skip() {
        "" => Ok(value),
        rest => Err(format!("cannot understand '{rest}'")),
    }
}

/// Operators by precedence, the weakest first.
const LEVELS: [&[&str]; 6] = [&["|"], &["^"], &["&"], &["<<", ">>"], &["+", "-"], &["*", "/", "%"]];

impl<'a> Parser<'a> {
    fn skip(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.skip().starts_with(word);
        if found {
            self.rest = &self.rest[word.len()..];
        }
        found
    }

    fn binary(&mut self, level: usize) -> Result<u64, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.eat(operator)) {
            let right = self.binary(level + 1)?;
            let shift = |f: fn(u64, u32) -> Option<u64>| {
                u32::try_from(right).ok().and_then(|n| f(left, n)).unwrap_or(0)
            };
            left = match *operator {
                "|" => left | right,
                "^" => left ^ right,
                "&" => left & right,
                "<<" => shift(u64::checked_shl),
                ">>" => shift(u64::checked_shr),
                "+" => left.wrapping_add(right),
                "-" => left.wrapping_sub(right),
                "*" => left.wrapping_mul(right),
                "/" => left.checked_div(right).ok_or("division by zero")?,
                _ => left.checked_rem(right).ok_or("division by zero")?,
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<u64, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("too long an expression".into());
        }
        let value = if self.eat("-") {
            self.unary()?.wrapping_neg()
        } else if self.eat("~") {
            !self.unary()?
        } else if self.eat("+") {
            self.unary()?
        } else if self.eat("(") {
            let value = self.binary(0)?;
            if !self.eat(")") {
                return Err("')' is missing".into());
            }
            value
        } else {
            self.term()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn term(&mut self) -> Result<u64, String> {
        let text = self.skip();
        let name = text.starts_with('$');
        let body = if name { &text[1..] } else { text };
        let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let word = &body[..end.unwrap_or(body.len())];
        let value = if word.is_empty() {
            Err("a number is missing".to_string())
        } else if name {
            (self.register)(word).ok_or(format!("there is no register ${word}"))
        } else {
            number(word).ok_or(format!("'{word}' is not a number"))
        };
        self.rest = &body[word.len()..];
        value
    }
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let register = |name: &str| (name == "rsp").then_some(0x1000);
        for (text, value) in [
            ("0x7c00", Ok(0x7c00)),
            (" 1 + 2*3 ", Ok(7)),
            ("$rsp-8", Ok(0xff8)),
            ("($rsp << 4) + 0x10", Ok(0x1_0010)),
            ("-1", Ok(u64::MAX)),
            ("~0 & 0xff", Ok(0xff)),
            ("7 % 4 ^ 1 | 8", Ok(10)),
            ("1 << 64", Ok(0)),
            ("0xffffffffffffffff + 1", Ok(0)),
            ("$zz", Err("there is no register $zz")),
            ("1 / 0", Err("division by zero")),
            ("(1", Err("')' is missing")),
            ("1 2", Err("cannot understand '2'")),
            ("", Err("a number is missing")),
            ("ä", Err("a number is missing")),
            ("12q", Err("'12q' is not a number")),
        ] {
            assert_eq!(evaluate(text, &register), value.map_err(str::to_string), "{text}");
        }
        assert!(evaluate(&"(".repeat(100_000), &register).is_err());
        assert!(evaluate(&"-".repeat(100_000), &register).is_err());
    }
}
