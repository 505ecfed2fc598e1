//! A client of the remote protocol that asks for what gdb does not, or more often than gdb is quick enough for.

use super::packets::packet;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection without acknowledgements.
pub struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    at: usize,
    /// The thread of the last stop.
    pub thread: String,
}

/// A register's name, number and bytes, by rising number.
pub type Layout = Vec<(String, u32, usize)>;

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let rest = &tag[tag.find(&format!(" {name}=\""))? + name.len() + 3..];
    rest.split('"').next()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16);
    (0..hex.len() / 2).map(|n| digit(2 * n).unwrap_or_else(|e| panic!("{hex}: {e}"))).collect()
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Client { stream, input: Vec::new(), at: 0, thread: String::new() };
        client.stream.write_all(&packet(b"QStartNoAckMode")).unwrap();
        assert_eq!(client.answer(), "OK");
        let features = client.ask("qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+");
        assert!(features.contains("qXfer:features:read+"), "{features}");
        client.ask("?");
        client
    }
    fn byte(&mut self) -> u8 {
        if self.at == self.input.len() {
            self.input.resize(1 << 16, 0);
            let n = self.stream.read(&mut self.input).unwrap();
            assert!(n > 0, "the connection is closed");
            self.input.truncate(n);
            self.at = 0;
        }
        self.at += 1;
        self.input[self.at - 1]
    }
    /// The next packet, plain.
    pub fn answer_bytes(&mut self) -> Vec<u8> {
        while self.byte() != b'$' {}
        let mut out = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'}' => {
                    let byte = self.byte() ^ 0x20;
                    out.push(byte);
                }
                b'*' => {
                    let times = self.byte() - 29;
                    let last = *out.last().unwrap();
                    out.resize(out.len() + times as usize, last);
                }
                byte => out.push(byte),
            }
        }
        // The checksum.
        self.byte();
        self.byte();
        out
    }
    pub fn answer(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.answer_bytes()).into_owned();
        let thread = text.split("thread:").nth(1).and_then(|rest| rest.split(';').next());
        if let Some(thread) = thread.filter(|_| text.starts_with('T')) {
            self.thread = thread.to_string();
        }
        text
    }
    pub fn send(&mut self, body: &str) {
        self.stream.write_all(&packet(body.as_bytes())).unwrap();
    }
    pub fn ask(&mut self, body: &str) -> String {
        self.send(body);
        self.answer()
    }
    pub fn interrupt(&mut self) {
        self.stream.write_all(&[3]).unwrap();
    }
    /// A whole object of `qXfer`; what is wrong, if it is refused.
    pub fn object(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        loop {
            self.send(&format!("qXfer:{name}:{:x},800", all.len()));
            let piece = self.answer_bytes();
            match piece.split_first() {
                Some((b'm', rest)) => all.extend(rest),
                Some((b'l', rest)) => {
                    all.extend(rest);
                    return Ok(all);
                }
                _ => return Err(String::from_utf8_lossy(&piece).into_owned()),
            }
        }
    }
    pub fn text(&mut self, name: &str) -> String {
        let object = self.object(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        String::from_utf8(object).unwrap()
    }

    pub fn layout(&mut self) -> Layout {
        let xml = self.text("features:read:target.xml");
        let number = |tag: &str, name| attribute(tag, name).unwrap().parse::<usize>().unwrap();
        let register = |tag: &str| {
            let name = attribute(tag, "name").unwrap().to_string();
            (name, number(tag, "regnum") as u32, number(tag, "bitsize") / 8)
        };
        let mut layout: Layout = xml.split("<reg").skip(1).map(register).collect();
        layout.sort_by_key(|register| register.1);
        layout
    }
    /// All registers of the thread that stopped, in hexadecimal digits without zeroes in front.
    pub fn registers(&mut self, layout: &Layout) -> BTreeMap<String, String> {
        let whole = bytes_of(&self.ask("g"));
        let mut at = 0;
        let mut all = BTreeMap::new();
        for (name, number, bytes) in layout {
            let value = match whole.get(at..at + bytes) {
                Some(value) => value.to_vec(),
                None => bytes_of(&self.ask(&format!("p{number:x}"))),
            };
            at += bytes;
            let digits: String = value.iter().rev().map(|b| format!("{b:02x}")).collect();
            let digits = digits.trim_start_matches('0');
            all.insert(name.clone(), if digits.is_empty() { "0" } else { digits }.to_string());
        }
        all
    }
    /// Steps the thread of the last stop, which that was; a signal is passed on.
    pub fn step(&mut self, last: &str) -> String {
        let action = match &last[1..3] {
            "05" => "s".to_string(),
            signal => format!("S{signal}"),
        };
        self.ask(&format!("vCont;{action}:{}", self.thread))
    }
}
