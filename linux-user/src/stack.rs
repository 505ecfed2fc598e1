//! The initial stack of a program: strings, auxiliary vector, environment, arguments, count.
//!
//! From high to low: the program's name (`AT_EXECFN`), environment strings, argument strings, the platform string,
//! 16 random bytes, padding; then, the stack pointer being a multiple of 16, `argc`, `argv`, 0, `envp`, 0, auxv.

use crate::abi::DataModel;
use crate::abi::record::{Field, ULong};
use crate::program::LaunchError;
use std::ffi::CString;
use tulk_base::GuestVa;
use tulk_softmmu::UserSpace;

/// `AT_*` numbers.
pub mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO: u64 = 32;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// What goes onto the stack.
pub struct Contents<'a> {
    pub argv: &'a [CString],
    pub env: &'a [CString],
    pub exec_fn: &'a CString,
    pub platform: &'a str,
    pub random: [u8; 16],
    /// Auxiliary entries with plain values; those that point into the stack are added here.
    pub auxv: &'a [(u64, u64)],
}

/// Where things are.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    pub sp: u64,
    /// First and last byte behind the argument and environment strings.
    pub args: (u64, u64),
    pub env: (u64, u64),
    /// The auxiliary vector as the guest sees it.
    pub auxv: Vec<u8>,
}

/// Writes the initial stack below `top`, at most `room` bytes.
pub fn build(
    space: &UserSpace,
    m: DataModel,
    top: u64,
    room: u64,
    c: &Contents<'_>,
) -> Result<Stack, LaunchError> {
    // Strings, in memory order.
    let mut strings = Vec::new();
    let mut offsets = |list: &[CString]| -> Vec<u64> {
        list.iter()
            .map(|s| {
                let at = strings.len() as u64;
                strings.extend_from_slice(s.as_bytes_with_nul());
                at
            })
            .collect()
    };
    let argv = offsets(c.argv);
    let envp = offsets(c.env);
    let exec_fn = offsets(std::slice::from_ref(c.exec_fn));
    let args_len = c.argv.iter().map(|s| s.as_bytes_with_nul().len() as u64).sum::<u64>();
    let env_len = c.env.iter().map(|s| s.as_bytes_with_nul().len() as u64).sum::<u64>();
    let word = m.word as u64;
    // The kernel leaves one zero word at the very end.
    let strings_at = (top - word)
        .checked_sub(strings.len() as u64)
        .filter(|&at| top - at < room / 4 * 3)
        .ok_or(LaunchError::TooLong)?;
    let mut fixed = c.platform.as_bytes().to_vec();
    fixed.push(0);
    let platform_len = fixed.len() as u64;
    fixed.extend_from_slice(&c.random);
    let platform_at = (strings_at - fixed.len() as u64) & !15;
    let random_at = platform_at + platform_len;

    let mut words = vec![argv.len() as u64];
    words.extend(argv.iter().map(|o| strings_at + o));
    words.push(0);
    words.extend(envp.iter().map(|o| strings_at + o));
    words.push(0);
    let auxv_index = words.len();
    let pointers = [
        (at::PLATFORM, platform_at),
        (at::RANDOM, random_at),
        (at::EXECFN, strings_at + exec_fn[0]),
        (at::NULL, 0),
    ];
    words.extend(c.auxv.iter().chain(&pointers).flat_map(|&(k, v)| [k, v]));
    let sp = (platform_at - words.len() as u64 * word) & !15;
    if top - sp > room {
        return Err(LaunchError::TooLong);
    }
    let mut bytes = vec![0; words.len() * m.word];
    for (b, &w) in bytes.chunks_exact_mut(m.word).zip(&words) {
        ULong::put(b, w, m);
    }
    let write =
        |at: u64, data: &[u8]| space.copy_out(GuestVa(at), data).map_err(|_| LaunchError::TooLong);
    write(sp, &bytes)?;
    write(platform_at, &fixed)?;
    write(strings_at, &strings)?;
    Ok(Stack {
        sp,
        args: (strings_at, strings_at + args_len),
        env: (strings_at + args_len, strings_at + args_len + env_len),
        auxv: bytes.split_off(auxv_index * m.word),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulk_softmmu::{MapRequest, UserSpace};

    #[test]
    fn the_layout_is_the_kernels() {
        let strings = |list: &[&str]| -> Vec<CString> {
            list.iter().map(|s| CString::new(*s).unwrap()).collect()
        };
        for m in [DataModel::LP64, DataModel { big_endian: true, word: 4, align64: 8, time: 4 }] {
            let space = UserSpace::window32().unwrap();
            let low = space.map(&MapRequest::anonymous(0x10000, 3)).unwrap().0;
            let top = low + 0x10000;
            for args in [&["a"][..], &["prog", "-x", "long argument"], &[]] {
                let argv = strings(args);
                let env = strings(&["A=1", "PATH=/bin"]);
                let exec_fn = CString::new("./prog").unwrap();
                let c = Contents {
                    argv: &argv,
                    env: &env,
                    exec_fn: &exec_fn,
                    platform: "aarch64",
                    random: [7; 16],
                    auxv: &[(at::PAGESZ, 4096)],
                };
                let s = build(&space, m, top, 0x10000, &c).unwrap();
                assert_eq!(s.sp % 16, 0);
                let word = |i: u64| {
                    let mut b = vec![0; m.word];
                    space.copy_in(GuestVa(s.sp + i * m.word as u64), &mut b).unwrap();
                    ULong::get(&b, m)
                };
                let text = |at: u64| {
                    String::from_utf8(space.read_cstr(GuestVa(at), 4096).unwrap().unwrap()).unwrap()
                };
                let n = args.len() as u64;
                assert_eq!(word(0), n);
                for (i, a) in args.iter().enumerate() {
                    assert_eq!(text(word(1 + i as u64)), *a);
                }
                assert_eq!(word(1 + n), 0);
                assert_eq!(text(word(2 + n)), "A=1");
                assert_eq!(word(4 + n), 0);
                assert_eq!((word(5 + n), word(6 + n)), (at::PAGESZ, 4096));
                assert_eq!((word(7 + n), text(word(8 + n))), (at::PLATFORM, "aarch64".into()));
                assert_eq!(word(9 + n), at::RANDOM);
                let mut random = [0; 16];
                space.copy_in(GuestVa(word(10 + n)), &mut random).unwrap();
                assert_eq!(random, [7; 16]);
                assert_eq!((word(11 + n), text(word(12 + n))), (at::EXECFN, "./prog".into()));
                assert_eq!((word(13 + n), word(14 + n)), (0, 0));
                let mut block = vec![0; (s.env.1 - s.env.0) as usize];
                space.copy_in(GuestVa(s.env.0), &mut block).unwrap();
                assert_eq!(block, b"A=1\0PATH=/bin\0");
            }
            let long = strings(&[&"x".repeat(0xf000)]);
            let exec_fn = CString::new("p").unwrap();
            let c = Contents {
                argv: &long,
                env: &[],
                exec_fn: &exec_fn,
                platform: "p",
                random: [0; 16],
                auxv: &[],
            };
            assert!(matches!(build(&space, m, top, 0x10000, &c), Err(LaunchError::TooLong)));
        }
    }
}
