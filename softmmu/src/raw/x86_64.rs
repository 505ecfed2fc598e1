//! Fault-safe accesses for x86-64 hosts.
//!
//! Each accessor sets an error flag, performs one memory instruction at label `2`, clears the flag and
//! reaches label `3`; a row (`2`, `3`) in the section `tulk_fixups` tells the signal handler to continue
//! at `3`, where the flag is still set. Loads and stores are host TSO accesses, so every order up to
//! acquire/release is free; sequentially consistent stores are `xchg`.

use super::Fault;
use std::arch::asm;
use std::arch::x86_64::__m128i;

/// One row of the fixup table, pc-relative so that it needs no load-time relocation.
macro_rules! row {
    () => {
        ".pushsection tulk_fixups, \"aR\", @progbits\n.long 2b - .\n.long 3b - .\n.popsection"
    };
}

/// Packed: the assembler starts the section where it likes.
#[repr(C, packed)]
struct Row {
    pc: i32,
    to: i32,
}

unsafe extern "C" {
    #[link_name = "__start_tulk_fixups"]
    static ROWS: Row;
    #[link_name = "__stop_tulk_fixups"]
    static ROWS_END: Row;
}

/// Where to continue after a fault at `host_pc`, if that is an instruction of an accessor.
/// Async-signal-safe.
pub fn fixup(host_pc: usize) -> Option<usize> {
    let mut row = &raw const ROWS;
    let end = &raw const ROWS_END;
    while row < end {
        // SAFETY: the linker bounds the section by these two symbols and only `row!` writes to it.
        let r = unsafe { &*row };
        let pc_field = &raw const r.pc as usize;
        if pc_field.wrapping_add_signed(r.pc as isize) == host_pc {
            let to_field = &raw const r.to as usize;
            return Some(to_field.wrapping_add_signed(r.to as isize));
        }
        row = row.wrapping_add(1);
    }
    None
}

#[inline(always)]
fn done<T>(failed: u32, value: T) -> Result<T, Fault> {
    if failed == 0 { Ok(value) } else { Err(Fault) }
}

macro_rules! loads {
    ($($name:ident $ty:ty, $insn:literal, $reg:ident;)*) => {$(
        #[doc = concat!("Loads a `", stringify!($ty), "`.")]
        #[inline(always)]
        pub fn $name(host: usize) -> Result<$ty, Fault> {
            let value: u64;
            let failed: u32;
            // SAFETY: one load; a fault continues at label 3. See the trust note of the parent module.
            unsafe {
                asm!(
                    "mov {e:e}, 1",
                    concat!("2: ", $insn),
                    "xor {e:e}, {e:e}",
                    "3:",
                    row!(),
                    e = out(reg) failed,
                    v = lateout(reg) value,
                    p = in(reg) host,
                    options(nostack, readonly),
                );
            }
            done(failed, value as $ty)
        }
    )*};
}
loads! {
    load8 u8, "movzx {v:e}, byte ptr [{p}]", reg;
    load16 u16, "movzx {v:e}, word ptr [{p}]", reg;
    load32 u32, "mov {v:e}, dword ptr [{p}]", reg;
    load64 u64, "mov {v}, qword ptr [{p}]", reg;
}

macro_rules! stores {
    ($($name:ident $ty:ty, $reg:ident, $insn:literal;)*) => {$(
        #[doc = concat!("Stores a `", stringify!($ty), "`.")]
        #[inline(always)]
        pub fn $name(host: usize, value: $ty) -> Result<(), Fault> {
            let failed: u32;
            // SAFETY: one store; a fault continues at label 3. See the trust note of the parent module.
            unsafe {
                asm!(
                    "mov {e:e}, 1",
                    concat!("2: ", $insn),
                    "xor {e:e}, {e:e}",
                    "3:",
                    row!(),
                    e = out(reg) failed,
                    v = in($reg) value,
                    p = in(reg) host,
                    options(nostack),
                );
            }
            done(failed, ())
        }
    )*};
}
stores! {
    store8 u8, reg_byte, "mov byte ptr [{p}], {v}";
    store16 u16, reg, "mov word ptr [{p}], {v:x}";
    store32 u32, reg, "mov dword ptr [{p}], {v:e}";
    store64 u64, reg, "mov qword ptr [{p}], {v}";
}

macro_rules! swaps {
    ($($name:ident $ty:ty, $reg:ident, $insn:literal;)*) => {$(
        #[doc = concat!("Atomic, sequentially consistent `", stringify!($name), "`; the old value.")]
        #[inline(always)]
        pub fn $name(host: usize, value: $ty) -> Result<$ty, Fault> {
            let failed: u32;
            let old: $ty;
            // SAFETY: one atomic access; a fault continues at label 3. See the parent module.
            unsafe {
                asm!(
                    "mov {e:e}, 1",
                    concat!("2: ", $insn),
                    "mov {e:e}, 0",
                    "3:",
                    row!(),
                    e = out(reg) failed,
                    v = inout($reg) value => old,
                    p = in(reg) host,
                    options(nostack),
                );
            }
            done(failed, old)
        }
    )*};
}
swaps! {
    xchg8 u8, reg_byte, "xchg byte ptr [{p}], {v}";
    xchg16 u16, reg, "xchg word ptr [{p}], {v:x}";
    xchg32 u32, reg, "xchg dword ptr [{p}], {v:e}";
    xchg64 u64, reg, "xchg qword ptr [{p}], {v}";
    xadd8 u8, reg_byte, "lock xadd byte ptr [{p}], {v}";
    xadd16 u16, reg, "lock xadd word ptr [{p}], {v:x}";
    xadd32 u32, reg, "lock xadd dword ptr [{p}], {v:e}";
    xadd64 u64, reg, "lock xadd qword ptr [{p}], {v}";
}

macro_rules! cas {
    ($($name:ident $ty:ty, $acc:tt, $reg:ident, $insn:literal;)*) => {$(
        #[doc = concat!("Atomic compare-and-swap of a `", stringify!($ty), "`; the old value.")]
        #[inline(always)]
        pub fn $name(host: usize, expected: $ty, new: $ty) -> Result<$ty, Fault> {
            let failed: u32;
            let old: $ty;
            // SAFETY: one atomic access; a fault continues at label 3. See the parent module.
            unsafe {
                asm!(
                    "mov {e:e}, 1",
                    concat!("2: ", $insn),
                    "mov {e:e}, 0",
                    "3:",
                    row!(),
                    e = out(reg) failed,
                    n = in($reg) new,
                    p = in(reg) host,
                    inout($acc) expected => old,
                    options(nostack),
                );
            }
            done(failed, old)
        }
    )*};
}
cas! {
    cas8 u8, "al", reg_byte, "lock cmpxchg byte ptr [{p}], {n}";
    cas16 u16, "ax", reg, "lock cmpxchg word ptr [{p}], {n:x}";
    cas32 u32, "eax", reg, "lock cmpxchg dword ptr [{p}], {n:e}";
    cas64 u64, "rax", reg, "lock cmpxchg qword ptr [{p}], {n}";
}

/// Atomic compare-and-swap of 16 bytes at a 16-byte aligned address; the old value.
#[inline]
pub fn cas128(host: usize, expected: u128, new: u128) -> Result<u128, Fault> {
    let (lo, hi): (u64, u64);
    let failed: u32;
    // SAFETY: one atomic access; a fault continues at label 3, behind which rbx is restored.
    unsafe {
        asm!(
            "mov r8d, 1",
            "xchg rbx, rsi",
            "2: lock cmpxchg16b xmmword ptr [rdi]",
            "mov r8d, 0",
            "3: mov rbx, rsi",
            row!(),
            out("r8") failed,
            inout("rsi") new as u64 => _,
            in("rcx") (new >> 64) as u64,
            in("rdi") host,
            inout("rax") expected as u64 => lo,
            inout("rdx") (expected >> 64) as u64 => hi,
            options(nostack),
        );
    }
    done(failed, lo as u128 | (hi as u128) << 64)
}

macro_rules! load_vec {
    ($(#[$doc:meta])* $name:ident, $insn:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(host: usize) -> Result<u128, Fault> {
            let value: __m128i;
            let failed: u32;
            // SAFETY: one load; a fault continues at label 3. See the parent module.
            unsafe {
                asm!(
                    "mov {e:e}, 1",
                    concat!("2: ", $insn, " {v}, xmmword ptr [{p}]"),
                    "xor {e:e}, {e:e}",
                    "3:",
                    row!(),
                    e = out(reg) failed,
                    v = lateout(xmm_reg) value,
                    p = in(reg) host,
                    options(nostack, readonly),
                );
                done(failed, std::mem::transmute::<__m128i, u128>(value))
            }
        }
    };
}
macro_rules! store_vec {
    ($(#[$doc:meta])* $name:ident, $insn:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(host: usize, value: u128) -> Result<(), Fault> {
            let failed: u32;
            // SAFETY: one store; a fault continues at label 3. See the parent module.
            unsafe {
                asm!(
                    "mov {e:e}, 1",
                    concat!("2: ", $insn, " xmmword ptr [{p}], {v}"),
                    "xor {e:e}, {e:e}",
                    "3:",
                    row!(),
                    e = out(reg) failed,
                    v = in(xmm_reg) std::mem::transmute::<u128, __m128i>(value),
                    p = in(reg) host,
                    options(nostack),
                );
            }
            done(failed, ())
        }
    };
}
load_vec!(
    /// Loads 16 bytes, not as one access.
    load128, "movdqu"
);
load_vec!(load128_aligned, "movdqa");
store_vec!(
    /// Stores 16 bytes, not as one access.
    store128, "movdqu"
);
store_vec!(store128_aligned, "movdqa");

/// Loads 16 aligned bytes as one access. Hosts with AVX promise that for `movdqa`; others need
/// `cmpxchg16b`, which faults on read-only memory.
#[inline]
pub fn load128_atomic(host: usize) -> Result<u128, Fault> {
    if std::arch::is_x86_feature_detected!("avx") {
        load128_aligned(host)
    } else {
        cas128(host, 0, 0)
    }
}

/// Stores 16 aligned bytes as one access.
#[inline]
pub fn store128_atomic(host: usize, value: u128) -> Result<(), Fault> {
    if std::arch::is_x86_feature_detected!("avx") {
        return store128_aligned(host, value);
    }
    let mut seen = load128(host)?;
    loop {
        let old = cas128(host, seen, value)?;
        if old == seen {
            return Ok(());
        }
        seen = old;
    }
}

/// Moves `len` bytes upwards; returns how many were moved before a fault.
#[inline]
fn move_bytes(to: usize, from: usize, len: usize) -> usize {
    let left: usize;
    // SAFETY: one (repeated) instruction whose counter says at a fault what is left; one side is a
    // Rust slice of that length, the other guest memory that may fault.
    unsafe {
        asm!(
            "2: rep movsb",
            "3:",
            row!(),
            inout("rcx") len => left,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    len - left
}

/// Copies guest memory at `host` into `out`; returns how many bytes could be read.
pub fn copy_from(out: &mut [u8], host: usize) -> usize {
    // Small copies are common (system call structures) and string instructions start slowly.
    if out.len() <= 64 && out.len().is_multiple_of(8) {
        let mut at = 0;
        while at < out.len() {
            match load64(host.wrapping_add(at)) {
                Ok(v) => out[at..at + 8].copy_from_slice(&v.to_le_bytes()),
                Err(Fault) => break,
            }
            at += 8;
        }
        if at == out.len() {
            return at;
        }
    }
    move_bytes(out.as_mut_ptr() as usize, host, out.len())
}

/// Copies `data` to guest memory at `host`; returns how many bytes could be written.
pub fn copy_to(host: usize, data: &[u8]) -> usize {
    move_bytes(host, data.as_ptr() as usize, data.len())
}

/// A repeated string instruction, whose counter says at a fault how many elements were done.
macro_rules! repeat {
    ($insn:literal, $count:expr, $to:expr, $($input:tt)*) => {{
        let left: usize;
        // SAFETY: as for `move_bytes`; both sides are guest memory.
        unsafe {
            asm!(
                concat!("2: rep ", $insn),
                "3:",
                row!(),
                inout("rcx") $count => left,
                inout("rdi") $to => _,
                $($input)*,
                options(nostack, preserves_flags),
            );
        }
        $count - left
    }};
}

/// Copies `count` elements of `1 << log2` bytes (at most 8) one after another, upwards; returns how many were copied
/// before a fault. The ranges may overlap.
pub fn copy_elements(to: usize, from: usize, log2: u8, count: usize) -> usize {
    match log2 {
        0 => repeat!("movsb", count, to, inout("rsi") from => _),
        1 => repeat!("movsw", count, to, inout("rsi") from => _),
        2 => repeat!("movsd", count, to, inout("rsi") from => _),
        _ => repeat!("movsq", count, to, inout("rsi") from => _),
    }
}

/// Stores `count` elements of `1 << log2` bytes (at most 8), upwards; returns how many were stored before a fault.
pub fn fill_elements(to: usize, log2: u8, count: usize, value: u64) -> usize {
    match log2 {
        0 => repeat!("stosb", count, to, in("rax") value),
        1 => repeat!("stosw", count, to, in("rax") value),
        2 => repeat!("stosd", count, to, in("rax") value),
        _ => repeat!("stosq", count, to, in("rax") value),
    }
}
