//! Commands about memory, ports and numbers: `x`, `xp`, `print`, `memsave`, `pmemsave`, `gva2gpa`, `i`, `o`.

use super::super::machine::Machine;
use super::expression::evaluate;
use super::paging::Tables;
use super::registers::{self, Registers};
use std::fmt::Write;
use std::io::Write as _;
use tulk_base::{Board, GuestPa, GuestVa};
use tulk_frontend::{GuestIsa, TbKey};

/// Bytes that one command shows at most.
const MOST: usize = 64 << 10;
const PAGE: u64 = 4096;

/// What stands behind the slash: `16xb`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Format {
    count: usize,
    /// x, d, u, o, c or i.
    letter: char,
    bytes: usize,
}

impl Format {
    /// # Errors
    /// A letter that is none of a format's.
    fn parse(text: &str) -> Result<Format, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count = if digits == 0 { 1 } else { text[..digits].parse().unwrap_or(MOST) };
        let mut format = Format { count: count.min(MOST), letter: 'x', bytes: 4 };
        for letter in text[digits..].chars() {
            match letter {
                'x' | 'd' | 'u' | 'o' | 'c' | 'i' => format.letter = letter,
                'b' => format.bytes = 1,
                'h' => format.bytes = 2,
                'w' => format.bytes = 4,
                'g' => format.bytes = 8,
                other => return Err(format!("/{text}: there is no format '{other}'")),
            }
        }
        Ok(format)
    }

    fn number(&self, value: u64) -> String {
        let shift = 64 - 8 * self.bytes as u32;
        let value = value << shift >> shift;
        match self.letter {
            'd' => format!("{}", (value << shift) as i64 >> shift),
            'u' => format!("{value}"),
            'o' => format!("{value:#o}"),
            'c' => format!("'{}'", (value as u8 as char).escape_default()),
            _ => format!("0x{value:0width$x}", width = 2 * self.bytes),
        }
    }
}

/// `/FORMAT EXPRESSION`: the format, if one is there, and the value.
fn arguments(machine: &Machine, words: &[&str], bytes: usize) -> Result<(Format, u64), String> {
    let (format, rest) = match words.split_first() {
        Some((first, rest)) if first.starts_with('/') => (Format::parse(&first[1..])?, rest),
        _ => (Format { count: 1, letter: 'x', bytes }, words),
    };
    Ok((format, value(machine, rest)?))
}

/// The value of an expression with the registers of the monitor's processor.
pub fn value(machine: &Machine, words: &[&str]) -> Result<u64, String> {
    let text = words.join(" ");
    let registers = std::cell::OnceCell::new();
    evaluate(&text, &|name: &str| {
        let all = registers.get_or_init(|| registers::take(machine, machine.monitor_cpu()));
        all.as_ref()?.by_name(name)
    })
}

/// Memory as a command sees it.
enum Space<'a> {
    Physical(&'a Machine),
    Virtual(&'a Machine, Option<Tables<'a>>),
}

impl<'a> Space<'a> {
    fn of(machine: &'a Machine, registers: &Registers) -> Space<'a> {
        Space::Virtual(machine, Tables::new(machine, registers))
    }

    /// The bytes that are there, from the start on.
    fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < len {
            let at = address.wrapping_add(out.len() as u64);
            let n = (PAGE - at % PAGE).min((len - out.len()) as u64) as usize;
            let (machine, pa) = match self {
                Space::Physical(machine) => (machine, at),
                Space::Virtual(machine, None) => (machine, at & 0xffff_ffff),
                Space::Virtual(machine, Some(tables)) => match tables.translate(at) {
                    Some(page) => (machine, page.pa + (at - page.va)),
                    None => break,
                },
            };
            let mut part = vec![0; n];
            if !machine.pc.memory.phys.read(GuestPa(pa & machine.pc.address_lines()), &mut part) {
                break;
            }
            out.extend(part);
        }
        out
    }
}

fn dump(space: &Space<'_>, format: Format, address: u64) -> String {
    let wanted = (format.count * format.bytes).min(MOST);
    let bytes = space.read(address, wanted);
    let mut out = String::new();
    for (n, chunk) in bytes.chunks_exact(format.bytes).enumerate() {
        if n % (16 / format.bytes) == 0 {
            let end = if n > 0 { "\n" } else { "" };
            let _ = write!(out, "{end}{:016x}:", address.wrapping_add((n * format.bytes) as u64));
        }
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let _ = write!(out, " {}", format.number(u64::from_le_bytes(word)));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    if bytes.len() < wanted {
        let at = address.wrapping_add(bytes.len() as u64);
        let _ = writeln!(out, "Cannot access memory at {at:#x}");
    }
    out
}

/// Longest instruction.
const LONGEST: usize = 15;

fn disassemble(
    machine: &Machine,
    space: &Space<'_>,
    key: TbKey,
    count: usize,
    mut address: u64,
) -> String {
    let mut out = String::new();
    for _ in 0..count.min(4096) {
        let bytes = space.read(address, LONGEST);
        if bytes.is_empty() {
            let _ = writeln!(out, "Cannot access memory at {address:#x}");
            break;
        }
        let here = TbKey { pc: GuestVa(address), ..key };
        let (text, len) = machine.isa.disassemble(here, &bytes).unwrap_or(("(bad)".into(), 1));
        let raw: String = bytes[..len].iter().map(|b| format!("{b:02x} ")).collect();
        let _ = writeln!(out, "{address:#010x}:  {raw:<24} {text}");
        address = address.wrapping_add(len as u64);
    }
    out
}

fn examine(machine: &Machine, words: &[&str], physical: bool) -> Result<String, String> {
    let (format, address) = arguments(machine, words, 4)?;
    if physical && format.letter != 'i' {
        return Ok(dump(&Space::Physical(machine), format, address));
    }
    let cpu = machine.monitor_cpu();
    let registers = registers::take(machine, cpu).ok_or(format!("no answer of processor {cpu}"))?;
    let space = match physical {
        true => Space::Physical(machine),
        false => Space::of(machine, &registers),
    };
    if format.letter == 'i' {
        return Ok(disassemble(machine, &space, registers.key, format.count, address));
    }
    Ok(dump(&space, format, address))
}

pub fn x(machine: &Machine, words: &[&str]) -> Result<String, String> {
    examine(machine, words, false)
}

pub fn xp(machine: &Machine, words: &[&str]) -> Result<String, String> {
    examine(machine, words, true)
}

pub fn print(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let (format, value) = arguments(machine, words, 8)?;
    Ok(match format.letter {
        'x' => format!("{value:#x}\n"),
        _ => Format { bytes: 8, ..format }.number(value) + "\n",
    })
}

pub fn gva2gpa(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let va = value(machine, words)?;
    let cpu = machine.monitor_cpu();
    let registers = registers::take(machine, cpu).ok_or(format!("no answer of processor {cpu}"))?;
    let pa = match Tables::new(machine, &registers) {
        None => Some(va),
        Some(tables) => tables.translate(va).map(|page| page.pa + (va - page.va)),
    };
    Ok(pa.map_or("Unmapped\n".into(), |pa| format!("gpa: {pa:#x}\n")))
}

/// `memsave ADDRESS SIZE FILE` and `pmemsave`.
fn save(machine: &Machine, words: &[&str], physical: bool) -> Result<String, String> {
    let [address, size, file] = words else { return Err("ADDRESS SIZE FILE".into()) };
    let (mut address, size) = (value(machine, &[*address])?, value(machine, &[*size])?);
    let registers = registers::take(machine, machine.monitor_cpu());
    let space = match (physical, &registers) {
        (true, _) => Space::Physical(machine),
        (false, Some(registers)) => Space::of(machine, registers),
        (false, None) => return Err("the processor does not answer".into()),
    };
    let failed = |error| format!("{file}: {error}");
    let out = std::fs::File::create(file.trim_matches('"')).map_err(failed)?;
    let mut out = std::io::BufWriter::new(out);
    let mut left = size;
    while left > 0 {
        let bytes = space.read(address, left.min(MOST as u64) as usize);
        if bytes.is_empty() {
            return Err(format!("Cannot access memory at {address:#x}"));
        }
        out.write_all(&bytes).map_err(failed)?;
        address = address.wrapping_add(bytes.len() as u64);
        left -= bytes.len() as u64;
    }
    out.flush().map_err(failed)?;
    Ok(String::new())
}

pub fn memsave(machine: &Machine, words: &[&str]) -> Result<String, String> {
    save(machine, words, false)
}

pub fn pmemsave(machine: &Machine, words: &[&str]) -> Result<String, String> {
    save(machine, words, true)
}

fn port(value: u64) -> Result<u16, String> {
    u16::try_from(value).map_err(|_| format!("{value:#x}: ports end at 0xffff"))
}

fn port_bytes(format: Format) -> u8 {
    format.bytes.min(4) as u8
}

/// `i/b 0x60`.
pub fn port_in(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let (format, value) = arguments(machine, words, 1)?;
    let (port, bytes) = (port(value)?, port_bytes(format));
    let value = u64::from(machine.pc.port_read(machine.monitor_cpu(), port, bytes));
    let letter = match bytes {
        1 => 'b',
        2 => 'w',
        _ => 'l',
    };
    let format = Format { bytes: bytes.into(), ..format };
    Ok(format!("port{letter}[{port:#06x}] = {}\n", format.number(value)))
}

/// `o/b 0x80 1`.
pub fn port_out(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let (format, words) = match words.split_first() {
        Some((first, rest)) if first.starts_with('/') => (Format::parse(&first[1..])?, rest),
        _ => (Format { count: 1, letter: 'x', bytes: 1 }, words),
    };
    let [at, new] = words else { return Err("o /FORMAT PORT VALUE".into()) };
    let (at, new) = (port(value(machine, &[*at])?)?, value(machine, &[*new])?);
    let bytes = port_bytes(format);
    let mask = u32::MAX >> (32 - 8 * u32::from(bytes));
    machine.pc.port_write(machine.monitor_cpu(), at, bytes, new as u32 & mask);
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let format = |text: &str| Format::parse(text).unwrap();
        assert_eq!(format("16xb"), Format { count: 16, letter: 'x', bytes: 1 });
        assert_eq!(format(""), Format { count: 1, letter: 'x', bytes: 4 });
        assert_eq!(format("999999999999999999999999g").count, MOST);
        assert!(Format::parse("3q").is_err());
        assert_eq!(format("xb").number(0x1234), "0x34");
        assert_eq!(format("dh").number(0xfffe), "-2");
        assert_eq!(format("uh").number(0xfffe), "65534");
        assert_eq!(format("ob").number(8), "0o10");
        assert_eq!(format("cb").number(0x141), "'A'");
    }
}
