//! From a path to a mapped program: scripts, sysroot, interpreter, segments.

use crate::abi::GuestAbi;
use crate::elf::{self, ElfError, Image, Segment};
use crate::paths::Paths;
use crate::random::Random;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tulk_base::GuestVa;
use tulk_softmmu::intervals::{MapName, READ, WRITE};
use tulk_softmmu::user::PAGE;
use tulk_softmmu::{Errno, MapRequest, UserSpace};

/// Most scripts that may interpret each other.
const MAX_SCRIPTS: usize = 4;

/// Why a program cannot be started: one line for the user, an exit code, an errno for `execve`.
#[derive(Error, Debug)]
pub enum LaunchError {
    #[error("{}: {}", path.display(), reason)]
    Open { path: PathBuf, reason: Errno },
    #[error("{}: {reason}", path.display())]
    Elf { path: PathBuf, reason: ElfError },
    #[error("{}: is a directory", path.display())]
    Directory { path: PathBuf },
    #[error("{}: not a regular file", path.display())]
    NotRegular { path: PathBuf },
    #[error("{}: scripts interpret each other without end", path.display())]
    ScriptLoop { path: PathBuf },
    #[error("{}: its interpreter {} is missing: {hint}", path.display(), interp.display())]
    NoInterpreter { path: PathBuf, interp: PathBuf, hint: String },
    #[error("{}: cannot map it at {at:#x}: {reason}", path.display())]
    Map { path: PathBuf, at: u64, reason: Errno },
    #[error("cannot make room for the stack: {0}")]
    Stack(Errno),
    #[error("cannot reserve the guest's address space: {0}")]
    Space(Errno),
    #[error("arguments and environment are too long")]
    TooLong,
    #[error("cannot listen for a debugger: {0}")]
    Debugger(std::io::Error),
    #[error("{0}")]
    Cpu(String),
}

impl LaunchError {
    /// The exit code of a shell that could not start the program.
    pub fn exit_code(&self) -> i32 {
        match self {
            LaunchError::Open { reason: Errno(libc::ENOENT | libc::ENOTDIR), .. } => 127,
            LaunchError::Cpu(_) | LaunchError::Debugger(_) => 2,
            _ => 126,
        }
    }
    /// What `execve` of it returns.
    pub fn errno(&self) -> Errno {
        Errno(match self {
            LaunchError::Open { reason, .. } | LaunchError::Map { reason, .. } => return *reason,
            LaunchError::Stack(e) | LaunchError::Space(e) => return *e,
            LaunchError::Elf { .. } => libc::ENOEXEC,
            LaunchError::Directory { .. } | LaunchError::NotRegular { .. } => libc::EACCES,
            LaunchError::ScriptLoop { .. } => libc::ELOOP,
            LaunchError::NoInterpreter { .. } => libc::ENOENT,
            LaunchError::TooLong => libc::E2BIG,
            LaunchError::Cpu(_) | LaunchError::Debugger(_) => libc::EINVAL,
        })
    }
}

/// An opened ELF file.
pub struct ElfFile {
    pub file: File,
    /// As the guest names it.
    pub path: PathBuf,
    /// Where it is on the host.
    pub host_path: PathBuf,
    pub image: Image,
}

/// A program ready to be mapped.
pub struct Program {
    pub main: ElfFile,
    pub interp: Option<ElfFile>,
    pub abi: &'static dyn GuestAbi,
    /// Arguments with those that scripts put in front.
    pub argv: Vec<CString>,
}

fn errno_of(e: &std::io::Error) -> Errno {
    Errno(e.raw_os_error().unwrap_or(libc::EIO))
}

/// Reads until `buf` is full or the file ends.
fn read_at(file: &File, mut buf: &mut [u8], mut at: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while !buf.is_empty() {
        match file.read_at(buf, at) {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                at += n as u64;
                buf = &mut buf[n..];
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// What a file starts as.
enum Start {
    Elf(Box<ElfFile>),
    /// Interpreter and its optional single argument.
    Script(Vec<u8>, Option<Vec<u8>>),
}

fn open_file(paths: &Paths, path: &Path, limit: u64) -> Result<Start, LaunchError> {
    let host_path = paths.host_path(path);
    let open_error =
        |e: std::io::Error| LaunchError::Open { path: path.into(), reason: errno_of(&e) };
    let meta = std::fs::metadata(&host_path).map_err(open_error)?;
    if meta.is_dir() {
        return Err(LaunchError::Directory { path: path.into() });
    }
    if !meta.is_file() {
        return Err(LaunchError::NotRegular { path: path.into() });
    }
    let file = File::open(&host_path).map_err(open_error)?;
    let mut start = [0u8; 256];
    let n = read_at(&file, &mut start, 0).map_err(open_error)?;
    if let Some(line) = start[..n].strip_prefix(b"#!") {
        let line = line.split(|&b| b == b'\n').next().unwrap_or(line);
        let line = line.trim_ascii();
        let cut = line.iter().position(|b| b" \t".contains(b)).unwrap_or(line.len());
        let (interp, arg) = line.split_at(cut);
        if !interp.is_empty() {
            let arg = arg.trim_ascii();
            let arg = (!arg.is_empty()).then(|| arg.to_vec());
            return Ok(Start::Script(interp.to_vec(), arg));
        }
    }
    let elf_error = |reason| LaunchError::Elf { path: path.into(), reason };
    let image = elf::parse_header(&start[..n]).map_err(elf_error)?;
    // A foreign machine is the clearest thing to say; other flaws come after it.
    image.guest().map_err(elf_error)?;
    let mut phdrs = vec![0; image.phdr_bytes()];
    let got = read_at(&file, &mut phdrs, image.phoff).map_err(open_error)?;
    phdrs.truncate(got);
    let image = image.parse_segments(&phdrs, meta.len(), limit).map_err(elf_error)?;
    Ok(Start::Elf(Box::new(ElfFile { file, path: path.into(), host_path, image })))
}

fn c_string(bytes: Vec<u8>) -> Result<CString, LaunchError> {
    CString::new(bytes).map_err(|_| LaunchError::TooLong)
}

/// Opens `path` and what it needs. `argv` is the guest's argument list with its name in front.
pub fn open(paths: &Paths, path: &Path, argv: Vec<CString>) -> Result<Program, LaunchError> {
    const LIMIT: u64 = 1 << 47;
    let mut path = path.to_path_buf();
    let mut argv = argv;
    for _ in 0..=MAX_SCRIPTS {
        match open_file(paths, &path, LIMIT)? {
            Start::Script(interp, arg) => {
                let mut front = vec![c_string(interp.clone())?];
                if let Some(arg) = arg {
                    front.push(c_string(arg)?);
                }
                front.push(c_string(path.into_os_string().into_vec())?);
                front.extend(argv.into_iter().skip(1));
                argv = front;
                path = PathBuf::from(OsStr::from_bytes(&interp));
            }
            Start::Elf(main) => {
                let reason = |reason| LaunchError::Elf { path: path.clone(), reason };
                let abi = main.image.guest().map_err(reason)?;
                let interp = open_interp(paths, &main, LIMIT)?;
                return Ok(Program { main: *main, interp, abi, argv });
            }
        }
    }
    Err(LaunchError::ScriptLoop { path })
}

fn open_interp(paths: &Paths, main: &ElfFile, limit: u64) -> Result<Option<ElfFile>, LaunchError> {
    let Some((offset, len)) = main.image.interp else { return Ok(None) };
    let mut name = vec![0; len as usize];
    let got = read_at(&main.file, &mut name, offset)
        .map_err(|e| LaunchError::Open { path: main.path.clone(), reason: errno_of(&e) })?;
    name.truncate(got);
    name.truncate(name.iter().position(|&b| b == 0).unwrap_or(name.len()));
    let interp = PathBuf::from(OsStr::from_bytes(&name));
    match open_file(paths, &interp, limit) {
        Ok(Start::Elf(file)) if file.image.machine == main.image.machine => Ok(Some(*file)),
        Ok(Start::Elf(file)) => Err(LaunchError::Elf {
            path: interp,
            reason: ElfError::OtherGuest { machine: file.image.machine, wanted: "other".into() },
        }),
        Ok(Start::Script(..)) => {
            let reason = ElfError::NotElf("23 21".into());
            Err(LaunchError::Elf { path: interp, reason })
        }
        Err(LaunchError::Open { .. }) => {
            let hint = match paths.sysroot() {
                Some(root) => format!("it is not below the sysroot {} either", root.display()),
                None => "name a sysroot that has it with -L or QEMU_LD_PREFIX".into(),
            };
            Err(LaunchError::NoInterpreter { path: main.path.clone(), interp, hint })
        }
        Err(e) => Err(e),
    }
}

/// Where a program was mapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// First instruction: the interpreter's, if there is one.
    pub start: u64,
    /// The program's own entry (`AT_ENTRY`).
    pub entry: u64,
    pub phdr: u64,
    pub phentsize: u64,
    pub phnum: u64,
    /// The interpreter's load address (`AT_BASE`), or 0.
    pub base: u64,
    pub brk: u64,
    pub code: (u64, u64),
    pub exec_stack: bool,
}

/// Maps program and interpreter into `space`.
pub fn load(
    space: &UserSpace,
    program: &Program,
    random: Option<&mut Random>,
) -> Result<Loaded, LaunchError> {
    let image = &program.main.image;
    // As far as the address space has room for it.
    let pages = if space.is_window() { 1 << 8 } else { 1 << 20 };
    let slide = random.map_or(0, |r| r.below(pages) * PAGE);
    let bias = map_image(space, &program.main, program.abi.pie_base() + slide)?;
    let mut loaded = Loaded {
        entry: bias.wrapping_add(image.entry),
        phdr: bias.wrapping_add(image.phdr.unwrap_or(0)),
        phentsize: image.phentsize as u64,
        phnum: image.phnum as u64,
        brk: bias.wrapping_add(image.span().1).next_multiple_of(PAGE),
        exec_stack: image.exec_stack == Some(true),
        ..Loaded::default()
    };
    if let Some(text) = image.segments.iter().find(|s| s.prot & 4 != 0) {
        let start = bias.wrapping_add(text.vaddr);
        loaded.code = (start, start.wrapping_add(text.mem_size));
    }
    loaded.start = loaded.entry;
    if let Some(interp) = &program.interp {
        let bias = map_image(space, interp, 0)?;
        loaded.base = bias.wrapping_add(interp.image.span().0);
        loaded.start = bias.wrapping_add(interp.image.entry);
    }
    Ok(loaded)
}

/// Maps one ELF file; returns what is added to its addresses. `hint` 0 lets the space choose.
fn map_image(space: &UserSpace, elf: &ElfFile, hint: u64) -> Result<u64, LaunchError> {
    let image = &elf.image;
    let (first, end) = image.span();
    let span = end.next_multiple_of(PAGE) - first;
    let failed = |at: u64| move |reason| LaunchError::Map { path: elf.path.clone(), at, reason };
    // Claim the whole span, so that segments keep their distances; then map over it.
    let start = if image.relocatable {
        let align = image.align.max(PAGE);
        let mut req = MapRequest::anonymous(span + align, 0);
        req.hint = GuestVa(hint & !(PAGE - 1));
        let room = space.map(&req).map_err(failed(first))?;
        // The bias is a multiple of the alignment.
        let start = room.0 + (first.wrapping_sub(room.0) & (align - 1));
        space.unmap(room, span + align).map_err(failed(room.0))?;
        start
    } else {
        first
    };
    let mut claim = MapRequest::anonymous(span, 0);
    claim.hint = GuestVa(start);
    claim.flags |= libc::MAP_FIXED_NOREPLACE;
    space.map(&claim).map_err(failed(start))?;
    let bias = start.wrapping_sub(first);
    let meta = elf.file.metadata();
    let name = Arc::new(MapName {
        path: elf.host_path.as_os_str().as_bytes().to_vec(),
        dev: meta.as_ref().map_or(0, |m| m.dev()),
        ino: meta.as_ref().map_or(0, |m| m.ino()),
    });
    let mut at = start;
    for segment in &image.segments {
        let page = segment.vaddr.wrapping_add(bias) & !(PAGE - 1);
        if page > at {
            space.unmap(GuestVa(at), page - at).map_err(failed(at))?;
        }
        at = map_segment(space, &elf.file, segment, bias, &name).map_err(failed(page))?;
    }
    Ok(bias)
}

/// Maps one segment; returns its page-aligned end.
fn map_segment(
    space: &UserSpace,
    file: &File,
    segment: &Segment,
    bias: u64,
    name: &Arc<MapName>,
) -> Result<u64, Errno> {
    let start = segment.vaddr.wrapping_add(bias);
    let page = start & !(PAGE - 1);
    let file_end = start + segment.file_size;
    let end = (start + segment.mem_size).next_multiple_of(PAGE);
    let mut zero_from = page;
    if segment.file_size != 0 {
        let has_tail = !file_end.is_multiple_of(PAGE) && segment.mem_size > segment.file_size;
        let prot = if has_tail { segment.prot | WRITE } else { segment.prot };
        let req = MapRequest {
            hint: GuestVa(page),
            len: file_end - page,
            prot,
            flags: libc::MAP_PRIVATE | libc::MAP_FIXED,
            fd: file.as_raw_fd(),
            offset: segment.offset & !(PAGE - 1),
            name: Some(name.clone()),
        };
        space.map(&req)?;
        zero_from = file_end.next_multiple_of(PAGE);
        if has_tail {
            // The rest of the last page belongs to the zeroed part.
            let zeroes = vec![0; (zero_from - file_end) as usize];
            space.copy_out(GuestVa(file_end), &zeroes).map_err(|_| Errno(libc::EFAULT))?;
            if prot != segment.prot {
                space.protect(GuestVa(page), zero_from - page, segment.prot)?;
            }
        }
    }
    if end > zero_from {
        let req = MapRequest::anonymous(end - zero_from, segment.prot).fixed(GuestVa(zero_from));
        space.map(&req)?;
    }
    Ok(end)
}

/// Maps a stack of `size` bytes with a guard below it; returns its lowest address and its end.
pub fn map_stack(space: &UserSpace, size: u64, exec: bool) -> Result<(u64, u64), LaunchError> {
    const GUARD: u64 = 16 * PAGE;
    let size = size.next_multiple_of(PAGE);
    let prot = READ | WRITE | if exec { 4 } else { 0 };
    let low = space.map(&MapRequest::anonymous(size + GUARD, 0)).map_err(LaunchError::Stack)?;
    let start = low.wrapping_add(GUARD);
    let mut req = MapRequest::anonymous(size, prot).fixed(start).named("[stack]");
    req.flags |= libc::MAP_NORESERVE;
    space.map(&req).map_err(LaunchError::Stack)?;
    Ok((start.0, start.0 + size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::sample;

    /// A directory with files for one test.
    struct Dir(PathBuf);
    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("tulk-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
        fn file(&self, name: &str, content: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            path
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn args(list: &[&str]) -> Vec<CString> {
        list.iter().map(|a| CString::new(*a).unwrap()).collect()
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        let dir = Dir::new("launch");
        let paths = Paths::new(None).unwrap();
        let fails = |path: &Path| match open(&paths, path, args(&["x"])) {
            Err(e) => (e.to_string(), e.exit_code(), e.errno().0),
            Ok(_) => panic!("{} starts", path.display()),
        };
        let (text, code, errno) = fails(&dir.0.join("missing"));
        assert!(text.contains("No such file"), "{text}");
        assert_eq!((code, errno), (127, libc::ENOENT));
        let (text, code, errno) = fails(&dir.0);
        assert!(text.ends_with("is a directory"), "{text}");
        assert_eq!((code, errno), (126, libc::EACCES));
        let (text, code, errno) = fails(&dir.file("text", b"hello"));
        assert!(text.contains("not an ELF program"), "{text}");
        assert_eq!((code, errno), (126, libc::ENOEXEC));
        assert!(fails(&dir.file("empty", b"")).0.ends_with("the file is empty"));
        assert!(fails(&dir.file("short", &sample()[..200])).0.contains("truncated"));
        let mut other = sample();
        other[18] = 243;
        assert!(fails(&dir.file("riscv", &other)).0.contains("RISC-V"));
        let (text, code, errno) = fails(&dir.file("dynamic", &sample()));
        assert!(text.contains("/lib/ld-linux-aarch64.so.1 is missing"), "{text}");
        assert!(text.contains("-L or QEMU_LD_PREFIX"), "{text}");
        assert_eq!((code, errno), (126, libc::ENOENT));
        let looped = dir.0.join("loop");
        let script = format!("#!{}\n", looped.display());
        assert!(fails(&dir.file("loop", script.as_bytes())).0.contains("without end"));
    }

    #[test]
    fn scripts_and_the_sysroot() {
        let dir = Dir::new("sysroot");
        let mut program = sample();
        // Without an interpreter: the third header becomes one that nobody reads.
        program[64 + 2 * 56] = 0x55;
        dir.file("root/real/interp", &program);
        dir.file("root/script", b"#! /bin/interp  -a b \nrest");
        std::fs::create_dir_all(dir.0.join("root/bin")).unwrap();
        // An absolute link stays inside the sysroot.
        std::os::unix::fs::symlink("/real/interp", dir.0.join("root/bin/interp")).unwrap();
        let paths = Paths::new(Some(&dir.0.join("root"))).unwrap();
        let program = open(&paths, Path::new("/script"), args(&["me", "arg"])).unwrap();
        let argv: Vec<&str> = program.argv.iter().map(|a| a.to_str().unwrap()).collect();
        assert_eq!(argv, ["/bin/interp", "-a b", "/script", "arg"]);
        assert_eq!(program.main.path, Path::new("/bin/interp"));
        assert!(program.main.host_path.ends_with("root/real/interp"));
        // What is not below the sysroot is the host's.
        assert_eq!(paths.host_path(Path::new("/etc/passwd")), Path::new("/etc/passwd"));
        assert_eq!(paths.host_path(Path::new("/proc/self")), Path::new("/proc/self"));
    }

    #[test]
    fn segments_are_mapped_with_their_zeroes() {
        // Reading what is not mapped must not end the test.
        tulk_exec::host::signals::install();
        let dir = Dir::new("map");
        let mut program = sample();
        program[64 + 2 * 56] = 0x55;
        program[0x1000..0x1800].fill(0xee);
        let path = dir.file("program", &program);
        let program = open(&Paths::new(None).unwrap(), &path, args(&["p"])).unwrap();
        let space = UserSpace::flat().unwrap().with_area(0x38_0000_0000..0x39_0000_0000);
        let loaded = load(&space, &program, None).unwrap();
        let bias = loaded.entry - 0x200;
        assert_eq!(bias % 0x1_0000, 0);
        assert_eq!((loaded.phdr, loaded.brk), (bias + 64, bias + 0x14000));
        let byte = |at: u64| {
            let mut b = [0];
            space.copy_in(GuestVa(bias + at), &mut b).map(|()| b[0]).ok()
        };
        assert_eq!((byte(0), byte(0x11000), byte(0x117ff)), (Some(0x7f), Some(0xee), Some(0xee)));
        assert_eq!((byte(0x11800), byte(0x13fff)), (Some(0), Some(0)));
        assert_eq!((byte(0x1000), byte(0x10000), byte(0x14000)), (None, None, None));
        let prot = |at: u64| space.query(GuestVa(bias + at)).map(|m| m.region.prot);
        assert_eq!((prot(0), prot(0x11000), prot(0x12000)), (Some(5), Some(3), Some(3)));
    }
}
