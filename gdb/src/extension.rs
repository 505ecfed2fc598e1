//! Packets that `gdbstub` does not know.
//!
//! | packet | what is done |
//! |---|---|
//! | `qqemu.*`, `Qqemu.*` | [`crate::Debuggee::vendor`] has the answer, which takes the place of `gdbstub`'s empty one |
//! | `c` | [`Renamed`] makes it `vCont;c`: `gdbstub` lets only one thread go on, which at first is none that there is. (lldb sends it.) |
//! | `qXfer:siginfo:read` | [`Renamed`] makes it `qXfer:features:read` of a file of its own, which `gdbstub` transfers; [`Packets`] announces it |
//!
//! Everything else goes through as it is.

use gdbstub::conn::Connection;
use std::io::{self, Write};

/// A connection that writes whole packets.
pub struct Packets<S> {
    pub stream: S,
    out: Vec<u8>,
    /// What goes out instead of the next packet, if that is the empty one: `gdbstub` did not know the question.
    pub answer: Option<String>,
    /// Features that are supported beside `gdbstub`'s: `;NAME+`.
    pub features: &'static str,
}

/// The empty packet.
const UNKNOWN: &[u8] = b"$#00";
/// How the answer to `qSupported` begins.
const FEATURES: &[u8] = b"$PacketSize=";
/// Bytes of a packet's end: `#` and two digits.
const END: usize = 3;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
}

/// The number that two digits make.
fn checksum(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|b| (b as char).to_digit(16));
    Some((high? << 4 | low?) as u8)
}

impl<S: Write> Packets<S> {
    pub fn new(stream: S) -> Packets<S> {
        Packets { stream, out: Vec::new(), answer: None, features: "" }
    }
}

impl<S: Write> Connection for Packets<S> {
    type Error = io::Error;
    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.out.push(byte);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        if let Some(answer) = self.answer.take_if(|_| self.out.contains(&b'$'))
            && self.out.ends_with(UNKNOWN)
        {
            self.out.truncate(self.out.len() - UNKNOWN.len());
            self.out.extend(format!("${answer}#{:02x}", sum(answer.as_bytes())).bytes());
        }
        let len = self.out.len();
        if !self.features.is_empty()
            && self.out.strip_prefix(b"+").unwrap_or(&self.out).starts_with(FEATURES)
            && let [.., b'#', high, low] = self.out[..]
            && let Some(old) = checksum([high, low])
        {
            let new = old.wrapping_add(sum(self.features.as_bytes()));
            self.out.truncate(len - END);
            self.out.extend(format!("{}#{new:02x}", self.features).bytes());
        }
        let result = self.stream.write_all(&self.out);
        self.out.clear();
        result
    }
}

/// Looks at what comes in for packets of an emulator's own.
#[derive(Default)]
pub struct Vendor {
    /// From the `$` on.
    packet: Vec<u8>,
}

/// How such packets begin, and the longest one.
const VENDOR: [&[u8]; 2] = [b"$qqemu.", b"$Qqemu."];
const VENDOR_LEN: usize = 64;

impl Vendor {
    /// The packet that ends with this byte, without its frame.
    pub fn take(&mut self, byte: u8) -> Option<String> {
        if byte == b'$' {
            self.packet.clear();
        } else if self.packet.is_empty() {
            return None;
        }
        self.packet.push(byte);
        let len = self.packet.len();
        let begins = |name: &&[u8]| self.packet.iter().zip(*name).all(|(a, b)| a == b);
        if len > VENDOR_LEN || !VENDOR.iter().any(begins) {
            self.packet.clear();
            return None;
        }
        let body = self.packet.get(1..len.checked_sub(3)?)?;
        let (b'#', [high, low]) =
            (self.packet[len - 3], [self.packet[len - 2], self.packet[len - 1]])
        else {
            return None;
        };
        let good = checksum([high, low]) == Some(sum(body));
        let body = String::from_utf8(body.to_vec()).ok().filter(|_| good);
        self.packet.clear();
        body
    }
}

/// The name of the file of the target description that is no part of it: the signal that waits.
pub const SIGINFO: &[u8] = b"siginfo";
/// What a client is told of it.
pub const SIGINFO_FEATURE: &str = ";qXfer:siginfo:read+";
/// How the request for it begins, and what becomes of that.
const ASKED: &[u8] = b"$qXfer:siginfo:read:";
const ASKS: &[u8] = b"$qXfer:features:read:siginfo";

/// A whole packet, and what becomes of it.
const CONTINUE: &[u8] = b"$c#63";
const CONTINUE_ALL: &[u8] = b"$vCont;c#a8";

/// Renames requests as they come in.
#[derive(Default)]
pub struct Renamed {
    /// A part of a name, kept back until it is known what it is.
    kept: Vec<u8>,
    /// In a packet with a new name.
    changed: bool,
    /// Of its end.
    digits: Vec<u8>,
}

impl Renamed {
    /// What `bytes` become; the last ones may come with the next call.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + ASKS.len());
        for &byte in bytes {
            if self.changed {
                self.end(byte, &mut out);
                continue;
            }
            self.kept.push(byte);
            if self.kept == ASKED {
                self.kept.clear();
                self.changed = true;
                out.extend(ASKS);
            } else if self.kept == CONTINUE {
                self.kept.clear();
                out.extend(CONTINUE_ALL);
            } else if ![ASKED, CONTINUE].iter().any(|name| name.starts_with(&self.kept)) {
                self.kept.pop();
                out.append(&mut self.kept);
                match byte {
                    b'$' => self.kept.push(byte),
                    _ => out.push(byte),
                }
            }
        }
        out
    }

    /// The rest of a renamed packet: what was wrong in it still is.
    fn end(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.digits.is_empty() {
            match byte {
                b'#' => self.digits.push(byte),
                b'$' => (self.changed, self.kept) = (false, vec![byte]),
                _ => out.push(byte),
            }
            return;
        }
        self.digits.push(byte);
        if let [_, high, low] = self.digits[..] {
            match checksum([high, low]) {
                Some(old) => {
                    let more = sum(ASKS).wrapping_sub(sum(ASKED));
                    out.extend(format!("#{:02x}", old.wrapping_add(more)).bytes());
                }
                None => out.extend(&self.digits),
            }
            self.changed = false;
            self.digits.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(body: &str) -> String {
        format!("${body}#{:02x}", sum(body.as_bytes()))
    }

    #[test]
    fn features_are_announced() {
        let mut out = Packets::new(Vec::new());
        out.features = SIGINFO_FEATURE;
        let mut say = |text: &str| {
            text.bytes().for_each(|b| out.write(b).unwrap());
            out.flush().unwrap();
            String::from_utf8(std::mem::take(&mut out.stream)).unwrap()
        };
        assert_eq!(say("+"), "+");
        let known = "PacketSize=1000;swbreak+";
        let all = packet(&format!("{known}{SIGINFO_FEATURE}"));
        assert_eq!(say(&packet(known)), all);
        // Behind an acknowledgement.
        assert_eq!(say(&format!("+{}", packet(known))), format!("+{all}"));
        assert_eq!(say(&packet("OK")), packet("OK"));
    }

    #[test]
    fn requests_are_renamed() {
        let asked = packet("qXfer:siginfo:read::0,1000");
        let asks = packet("qXfer:features:read:siginfo:0,1000");
        let other = packet("qXfer:siginfo:write::0:");
        let (one, all) = (packet("c"), packet("vCont;c"));
        let input = format!("{one}${one}$c1#94+{}{asked}{other}\x03$qX{asked}", packet("g"));
        let output = format!("{all}${all}$c1#94+{}{asks}{other}\x03$qX{asks}", packet("g"));
        let whole = Renamed::default().pass(input.as_bytes());
        assert_eq!(String::from_utf8(whole).unwrap(), output);
        // In whatever pieces it comes.
        for len in 1..30 {
            let mut renamed = Renamed::default();
            let pieces = input.as_bytes().chunks(len).map(|piece| renamed.pass(piece));
            let all: Vec<u8> = pieces.collect::<Vec<_>>().concat();
            assert_eq!(String::from_utf8(all).unwrap(), output, "{len}");
        }
        // A wrong checksum stays wrong, in a packet that another one interrupts, too.
        let wrong = asked.replace("1000#", "1001#");
        let passed = String::from_utf8(Renamed::default().pass(wrong.as_bytes())).unwrap();
        let (body, digits) = passed[1..].rsplit_once('#').unwrap();
        assert_ne!(u8::from_str_radix(digits, 16).unwrap(), sum(body.as_bytes()));
        let cut = format!("$qXfer:siginfo:read::0{asked}");
        let passed = Renamed::default().pass(cut.as_bytes());
        assert!(passed.ends_with(asks.as_bytes()));
        assert_eq!(Renamed::default().pass(b"$qXfer:siginfo:read::0,1#zz").last(), Some(&b'z'));
    }

    #[test]
    fn packets_of_an_emulator() {
        let taken = |input: &[u8]| {
            let mut vendor = Vendor::default();
            input.iter().filter_map(|&b| vendor.take(b)).collect::<Vec<_>>()
        };
        assert_eq!(taken(b"$g#67+$qqemu.sstep#2a$qqemu.sstep#2b"), [0; 0].map(|_: i32| ""));
        let both = ["qqemu.sstep", "Qqemu.PhyMemMode:1"];
        let input = format!("+{}${}{}", packet(both[0]), packet("m0,4"), packet(both[1]));
        assert_eq!(taken(input.as_bytes()), both);
        let mut out = Packets::new(Vec::new());
        out.answer = Some("1".into());
        for text in [&b"+"[..], b"$#00", b"$#00"] {
            text.iter().for_each(|&b| out.write(b).unwrap());
            out.flush().unwrap();
        }
        assert_eq!(out.stream, b"+$1#31$#00");
        out.answer = Some("1".into());
        b"$OK#9a".iter().for_each(|&b| out.write(b).unwrap());
        out.flush().unwrap();
        assert!(out.stream.ends_with(b"$OK#9a") && out.answer.is_none());
    }
}
