//! What generated code calls beside the engine, on x86-64: thunks whose convention is [`crate::abi`]'s alone.

use crate::abi::{Reason, word};
use std::arch::naked_asm;
use tulk_base::state::{CELL_PC, OFFSET_CELLS, OFFSET_ENGINE, OFFSET_EXIT_REQUEST};

const PC_OFFSET: i32 = OFFSET_CELLS + 8 * CELL_PC as i32;
const REASON_OFFSET: i32 = OFFSET_ENGINE + 8 * word::REASON as i32;

/// [`word::THUNK_UNLINKED`].
///
/// # Safety
/// For generated code only, by the convention of [`crate::abi`].
#[unsafe(naked)]
pub unsafe extern "sysv64" fn unlinked_thunk() {
    naked_asm!(
        // The call is the first instruction of the record, whose third word is the pc.
        "pop rax",
        "sub rax, 3",
        "mov rcx, [rax + 16]",
        "mov [rdi + {a}], rax",
        "mov [rdi + {pc}], rcx",
        "mov qword ptr [rdi + {reason}], {direct}",
        "ret",
        a = const OFFSET_ENGINE + 8 * word::A as i32,
        pc = const PC_OFFSET,
        reason = const REASON_OFFSET,
        direct = const Reason::Direct as i32,
    )
}

/// [`word::THUNK_ENTRY`].
///
/// # Safety
/// For generated code only, by the convention of [`crate::abi`].
#[unsafe(naked)]
pub unsafe extern "sysv64" fn entry_thunk() {
    naked_asm!(
        "pop rax",
        "mov rcx, [rax]",
        "mov [rdi + {pc}], rcx",
        "mov ecx, {hot}",
        "mov edx, {poll}",
        "cmp dword ptr [rdi + {request}], 0",
        "cmovne ecx, edx",
        "mov [rdi + {reason}], rcx",
        "ret",
        pc = const PC_OFFSET,
        request = const OFFSET_EXIT_REQUEST,
        reason = const REASON_OFFSET,
        hot = const Reason::Hot as i32,
        poll = const Reason::Poll as i32,
    )
}
