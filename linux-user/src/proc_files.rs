//! Files of `/proc` that must show the guest: their content is made when they are opened.

use crate::paths::absolute;
use crate::process::Process;
use std::ffi::CStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use tulk_base::GuestVa;
use tulk_softmmu::intervals::{EXEC, READ, WRITE};

/// Which file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcFile {
    /// A link to the program.
    Exe,
    Maps,
    Auxv,
    Cmdline,
    Environ,
    Stat,
    Cpuinfo,
}

/// Names below `/proc/<own pid>/`.
const OWN: &[(&[u8], ProcFile)] = &[
    (b"exe", ProcFile::Exe),
    (b"maps", ProcFile::Maps),
    (b"auxv", ProcFile::Auxv),
    (b"cmdline", ProcFile::Cmdline),
    (b"environ", ProcFile::Environ),
    (b"stat", ProcFile::Stat),
];

impl ProcFile {
    /// The special file that this path names, if it does.
    pub fn named(dirfd: i32, path: &CStr) -> Option<ProcFile> {
        // Most paths are decided by their last component.
        let bytes = path.to_bytes();
        let last = bytes.rsplit(|&b| b == b'/').next()?;
        if last != b"cpuinfo" && !OWN.iter().any(|(name, _)| *name == last) {
            return None;
        }
        if bytes.starts_with(b"/") && !bytes.starts_with(b"/proc/") {
            return None;
        }
        let all = absolute(dirfd, path)?;
        let mut parts = all.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".");
        if parts.next()? != b"proc" {
            return None;
        }
        let first = parts.next()?;
        if first == b"cpuinfo" {
            return parts.next().is_none().then_some(ProcFile::Cpuinfo);
        }
        if first != b"self" && first != b"thread-self" && !is_own_pid(first) {
            return None;
        }
        let mut name = parts.next()?;
        if name == b"task" {
            if !parts.next()?.iter().all(u8::is_ascii_digit) {
                return None;
            }
            name = parts.next()?;
        }
        if parts.next().is_some() {
            return None;
        }
        OWN.iter().find(|(n, _)| *n == name).map(|&(_, f)| f)
    }

    /// What the guest reads.
    pub fn content(self, process: &Process) -> Vec<u8> {
        match self {
            ProcFile::Exe => Vec::new(),
            ProcFile::Maps => maps(process),
            ProcFile::Auxv => process.image().stack.auxv,
            ProcFile::Cmdline => guest_bytes(process, process.image().stack.args),
            ProcFile::Environ => guest_bytes(process, process.image().stack.env),
            ProcFile::Stat => stat(process),
            ProcFile::Cpuinfo => cpuinfo(process),
        }
    }
}

fn is_own_pid(name: &[u8]) -> bool {
    let pid: Option<u32> = std::str::from_utf8(name).ok().and_then(|s| s.parse().ok());
    pid == Some(std::process::id())
}

/// Guest memory from one address up to another; what cannot be read is left out.
fn guest_bytes(process: &Process, (start, end): (u64, u64)) -> Vec<u8> {
    let mut bytes = vec![0; end.saturating_sub(start).min(64 << 20) as usize];
    let n = process.space.copy_in_partial(GuestVa(start), &mut bytes);
    bytes.truncate(n);
    bytes
}

/// One line of the host's own table.
struct HostMap {
    start: u64,
    end: u64,
    offset: u64,
    /// Device, inode and path as they are written.
    rest: String,
}

/// What the host says of its mappings: the names of files behind guest memory.
fn host_maps() -> Vec<HostMap> {
    let text = std::fs::read("/proc/self/maps").unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.splitn(4, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let (_perms, offset) = (fields.next()?, fields.next()?);
        let hex = |s: &str| u64::from_str_radix(s, 16).ok();
        let rest = fields.next()?.to_string();
        Some(HostMap { start: hex(start)?, end: hex(end)?, offset: hex(offset)?, rest })
    };
    String::from_utf8_lossy(&text).lines().filter_map(parse).collect()
}

/// The guest's mappings. Files are named by the host's table, so that mapping one costs no look-up of its name.
pub fn maps(process: &Process) -> Vec<u8> {
    let host = host_maps();
    let base = process.space.base() as u64;
    let mut out = Vec::new();
    let mut line = |start: u64, end: u64, prot: u32, shared: bool, offset: u64, rest: &str| {
        let flag = |bit: u32, c: char| if prot & bit != 0 { c } else { '-' };
        let (r, w, x) = (flag(READ, 'r'), flag(WRITE, 'w'), flag(EXEC, 'x'));
        let s = if shared { 's' } else { 'p' };
        let _ = writeln!(Utf8(&mut out), "{start:08x}-{end:08x} {r}{w}{x}{s} {offset:08x} {rest}");
    };
    for m in process.space.regions() {
        let r = &m.region;
        if !r.file {
            let name = r.name.as_ref().map_or(String::new(), |n| {
                format!("{:26}{}", "", String::from_utf8_lossy(&n.path))
            });
            line(m.start, m.end, r.prot, r.shared, 0, &format!("00:00 0 {name}"));
            continue;
        }
        // The host has one line more wherever its protection differs (translated code): joined again.
        let mut open: Option<(u64, u64, u64, &str)> = None;
        let first = host.partition_point(|h| h.end <= m.start + base);
        for h in host[first..].iter().take_while(|h| h.start < m.end + base) {
            let (start, end) = (h.start.max(m.start + base) - base, h.end.min(m.end + base) - base);
            let offset = h.offset + (start + base - h.start);
            match &mut open {
                Some((s, e, o, rest))
                    if *e == start && *rest == h.rest && *o + (start - *s) == offset =>
                {
                    *e = end;
                }
                _ => {
                    if let Some((s, e, o, rest)) = open.replace((start, end, offset, &h.rest)) {
                        line(s, e, r.prot, r.shared, o, rest);
                    }
                }
            }
        }
        if let Some((s, e, o, rest)) = open {
            line(s, e, r.prot, r.shared, o, rest);
        }
    }
    out.extend_from_slice(process.abi.kernel_maps().as_bytes());
    out
}

/// The host's line with the guest's name and addresses.
fn stat(process: &Process) -> Vec<u8> {
    let host = std::fs::read("/proc/self/stat").unwrap_or_default();
    let Some(close) = host.iter().rposition(|&b| b == b')') else { return host };
    let image = process.image();
    let mut fields: Vec<String> = String::from_utf8_lossy(&host[close + 1..])
        .split_whitespace()
        .map(str::to_string)
        .collect();
    // Field numbers of proc(5); the first one behind the name is 3.
    let (code_start, code_end) = image.loaded.code;
    let size: u64 = process.space.regions().iter().map(|m| m.end - m.start).sum();
    for (number, value) in [
        (23, size),
        (26, code_start),
        (27, code_end),
        (28, image.stack.sp),
        (47, process.space.brk_range().0.0),
        (48, image.stack.args.0),
        (49, image.stack.args.1),
        (50, image.stack.env.0),
        (51, image.stack.env.1),
    ] {
        if let Some(f) = fields.get_mut(number - 3) {
            *f = value.to_string();
        }
    }
    let mut out = format!("{} (", std::process::id()).into_bytes();
    out.extend(comm(&image.exe));
    let _ = writeln!(Utf8(&mut out), ") {}", fields.join(" "));
    out
}

/// The first 15 bytes of the program's file name: the kernel's `comm`.
pub fn comm(exe: &std::path::Path) -> Vec<u8> {
    let name = exe.file_name().unwrap_or(exe.as_os_str()).as_bytes();
    name[..name.len().min(15)].to_vec()
}

struct Utf8<'a>(&'a mut Vec<u8>);
impl Write for Utf8<'_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

fn cpuinfo(process: &Process) -> Vec<u8> {
    let count = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut out = String::new();
    for n in 0..count {
        let one = process.cpu.cpuinfo.replace("{n}", &n.to_string());
        let one = one.replace("{count}", &count.to_string());
        let _ = writeln!(out, "processor\t: {n}\n{one}");
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let named = |p: &CStr| ProcFile::named(libc::AT_FDCWD, p);
        assert_eq!(named(c"/proc/self/exe"), Some(ProcFile::Exe));
        assert_eq!(named(c"/proc//self/./maps"), Some(ProcFile::Maps));
        assert_eq!(named(c"/proc/thread-self/auxv"), Some(ProcFile::Auxv));
        assert_eq!(named(c"/proc/self/task/17/stat"), Some(ProcFile::Stat));
        assert_eq!(named(c"/proc/cpuinfo"), Some(ProcFile::Cpuinfo));
        let own = std::ffi::CString::new(format!("/proc/{}/cmdline", std::process::id())).unwrap();
        assert_eq!(named(&own), Some(ProcFile::Cmdline));
        for other in
            [c"/proc/1/exe", c"/proc/self/fd/exe", c"/etc/maps", c"/proc/self/exe/x", c"stat"]
        {
            assert_eq!(named(other), None, "{other:?}");
        }
    }
}
