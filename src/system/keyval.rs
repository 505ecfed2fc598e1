//! Lists of sub-options as QEMU writes them: `key=value,key,...`, where `,,` is a comma within a value.

use anyhow::{Context, anyhow, bail};
use std::cell::Cell;

/// The sub-options of one option. What is not taken is an error at the end: nothing is ignored.
#[derive(Debug)]
pub struct KeyValues {
    /// For messages: `-drive`.
    option: String,
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    key: String,
    /// `None`: the key alone, which means `on`.
    value: Option<String>,
    taken: Cell<bool>,
}

/// The text up to the next single comma, commas undoubled, and what follows it.
fn split(text: &str) -> (String, Option<&str>) {
    let mut part = String::new();
    let mut rest = text;
    loop {
        match rest.find(',') {
            None => return (part + rest, None),
            Some(at) if rest[at + 1..].starts_with(',') => {
                part.push_str(&rest[..=at]);
                rest = &rest[at + 2..];
            }
            Some(at) => return (part + &rest[..at], Some(&rest[at + 1..])),
        }
    }
}

impl KeyValues {
    /// Reads the list. A first item without a key is the value of `implied`.
    ///
    /// # Errors
    /// An item that is empty.
    pub fn parse(option: &str, text: &str, implied: Option<&str>) -> anyhow::Result<KeyValues> {
        let mut items = Vec::new();
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (part, next) = split(text);
            rest = next;
            let first = items.is_empty();
            let (key, value) = match (part.split_once('='), implied) {
                (Some((key, value)), _) if !key.is_empty() => {
                    (key.to_string(), Some(value.to_string()))
                }
                (None, Some(implied)) if first => (implied.to_string(), Some(part)),
                (None, _) if !part.is_empty() => (part, None),
                // A comma at the end.
                (None, _) if next.is_none() && !first => break,
                _ => bail!("{option} {text}: a sub-option without a name"),
            };
            items.push(Item { key, value, taken: Cell::new(false) });
        }
        Ok(KeyValues { option: option.to_string(), items })
    }

    /// The last value of a key; `on` and `off` for `key` and `nokey`.
    pub fn text(&self, key: &str) -> Option<String> {
        let mut found = None;
        for item in &self.items {
            let off = item.value.is_none() && item.key.strip_prefix("no") == Some(key);
            if item.key == key || off {
                item.taken.set(true);
                let plain = if off { "off" } else { "on" };
                found = Some(item.value.clone().unwrap_or_else(|| plain.to_string()));
            }
        }
        found
    }

    /// # Errors
    /// Not there.
    pub fn required(&self, key: &str) -> anyhow::Result<String> {
        self.text(key).ok_or_else(|| anyhow!("{}: {key}= is missing", self.option))
    }

    fn parsed<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        match self.text(key) {
            None => Ok(None),
            Some(text) => {
                Ok(Some(parse(&text).with_context(|| format!("{} {key}={text}", self.option))?))
            }
        }
    }

    /// # Errors
    /// Neither on nor off.
    pub fn flag(&self, key: &str) -> anyhow::Result<Option<bool>> {
        self.parsed(key, parse_flag)
    }

    /// # Errors
    /// Not a number.
    pub fn number(&self, key: &str) -> anyhow::Result<Option<u64>> {
        self.parsed(key, parse_number)
    }

    /// A size in bytes; a number without a suffix counts `unit` bytes.
    ///
    /// # Errors
    /// Not a size.
    pub fn size(&self, key: &str, unit: u64) -> anyhow::Result<Option<u64>> {
        self.parsed(key, |text| parse_size(text, unit))
    }

    /// One of the words in a table.
    ///
    /// # Errors
    /// None of them; they are listed.
    pub fn choice<T: Copy>(&self, key: &str, table: &[(&str, T)]) -> anyhow::Result<Option<T>> {
        self.parsed(key, |text| choose(text, table))
    }

    /// Takes keys that may only have the values that are given with them, because that is what we do anyway.
    ///
    /// # Errors
    /// Another value.
    pub fn only(&self, table: &[(&str, &[&str])]) -> anyhow::Result<()> {
        for (key, values) in table {
            if let Some(value) = self.text(key)
                && !values.contains(&&*value)
            {
                bail!(
                    "{} {key}={value} is not supported (only {})",
                    self.option,
                    values.join(", ")
                );
            }
        }
        Ok(())
    }

    /// # Errors
    /// Names the first sub-option that nobody took.
    pub fn finish(&self) -> anyhow::Result<()> {
        match self.items.iter().find(|item| !item.taken.get()) {
            None => Ok(()),
            Some(item) => bail!("{}: the sub-option {} is not supported", self.option, item.key),
        }
    }

    /// What nobody took, with `on` for keys alone.
    pub fn rest(&self) -> Vec<(String, String)> {
        let left = self.items.iter().filter(|item| !item.taken.replace(true));
        left.map(|i| (i.key.clone(), i.value.clone().unwrap_or_else(|| "on".into()))).collect()
    }
}

pub fn choose<T: Copy>(text: &str, table: &[(&str, T)]) -> anyhow::Result<T> {
    match table.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<_> = table.iter().map(|(word, _)| *word).collect();
            bail!("{text} is not supported (there are: {})", words.join(", "))
        }
    }
}

pub fn parse_flag(text: &str) -> anyhow::Result<bool> {
    choose(
        text,
        &[
            ("on", true),
            ("off", false),
            ("yes", true),
            ("no", false),
            ("true", true),
            ("false", false),
        ],
    )
}

pub fn parse_number(text: &str) -> anyhow::Result<u64> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| anyhow!("{text} is not a number"))
}

/// Sizes with the suffixes b, k, M, G, T (any case), and fractions: `1.5G`.
pub fn parse_size(text: &str, unit: u64) -> anyhow::Result<u64> {
    let wrong = || anyhow!("{text} is not a size: a number and K, M, G or T");
    let last = text.chars().last().ok_or_else(wrong)?.to_ascii_lowercase();
    let hex = text.starts_with("0x");
    let suffix = ['b', 'k', 'm', 'g', 't'].iter().position(|s| *s == last).filter(|_| !hex);
    let (digits, unit) = match suffix {
        Some(n) => (&text[..text.len() - 1], 1u64 << (10 * n)),
        None => (text, unit),
    };
    if let Ok(n) = parse_number(digits) {
        return n.checked_mul(unit).ok_or_else(wrong);
    }
    let (whole, fraction) = digits.split_once('.').ok_or_else(wrong)?;
    let whole = parse_number(whole)?.checked_mul(unit).ok_or_else(wrong)?;
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let part = parse_number(fraction)? as u128 * unit as u128 / 10u128.pow(fraction.len() as u32);
    whole.checked_add(part as u64).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_are_doubled_within_values() {
        let kv = KeyValues::parse("-drive", "file=a,,b=c,if=virtio", None).unwrap();
        assert_eq!(kv.text("file").unwrap(), "a,b=c");
        assert_eq!(kv.text("if").unwrap(), "virtio");
        kv.finish().unwrap();
    }

    #[test]
    fn the_first_key_may_be_implied() {
        let kv = KeyValues::parse("-device", "e1000,netdev=n0,romfile=", Some("driver")).unwrap();
        assert_eq!(kv.text("driver").unwrap(), "e1000");
        assert_eq!(kv.rest(), [("netdev".into(), "n0".into()), ("romfile".into(), "".into())]);
        kv.finish().unwrap();
    }

    #[test]
    fn keys_alone_are_flags() {
        let kv = KeyValues::parse("-chardev", "socket,server,nowait", Some("backend")).unwrap();
        assert_eq!(kv.flag("server").unwrap(), Some(true));
        assert_eq!(kv.flag("wait").unwrap(), Some(false));
        assert_eq!(kv.flag("telnet").unwrap(), None);
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let kv = KeyValues::parse("-drive", "file=x,throttling.bps-total=5", None).unwrap();
        kv.text("file");
        let error = kv.finish().unwrap_err().to_string();
        assert_eq!(error, "-drive: the sub-option throttling.bps-total is not supported");
        assert!(KeyValues::parse("-drive", "=x", None).is_err());
        assert!(KeyValues::parse("-drive", "file=x,,,,=,=", None).is_err());
    }

    #[test]
    fn sizes() {
        let mib = |text| parse_size(text, 1 << 20).unwrap();
        assert_eq!(mib("256"), 256 << 20);
        assert_eq!(mib("2G"), 2 << 30);
        assert_eq!(mib("1.5g"), 3 << 29);
        assert_eq!(mib("64k"), 64 << 10);
        assert_eq!(mib("0x10"), 16 << 20);
        for wrong in ["", "G", "1.G", "1.5.5G", "12Q", "99999999999999G", "-5"] {
            assert!(parse_size(wrong, 1).is_err(), "{wrong}");
        }
    }
}
