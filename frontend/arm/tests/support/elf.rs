//! A static AArch64 ELF file from segments.

/// What a segment may be used for, as in `p_flags`.
pub const EXEC: u32 = 1;
pub const WRITE: u32 = 2;
pub const READ: u32 = 4;

/// A piece of memory, page-aligned.
#[derive(Clone)]
pub struct Segment {
    pub va: u64,
    pub flags: u32,
    pub bytes: Vec<u8>,
}

const PAGE: usize = 4096;

/// The file; `entry` is where it starts.
pub fn image(entry: u64, segments: &[Segment]) -> Vec<u8> {
    let mut out = Vec::new();
    let word = |out: &mut Vec<u8>, v: u64, bytes: usize| out.extend(&v.to_le_bytes()[..bytes]);
    out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for (value, bytes) in [
        (2, 2),   // ET_EXEC
        (183, 2), // EM_AARCH64
        (1, 4),   // version
        (entry, 8),
        (64, 8), // program headers follow
        (0, 8),  // no sections
        (0, 4),  // flags
        (64, 2),
        (56, 2),
        (segments.len() as u64, 2),
        (64, 2),
        (0, 2),
        (0, 2),
    ] {
        word(&mut out, value, bytes);
    }
    let mut offset = (64 + 56 * segments.len()).next_multiple_of(PAGE);
    for s in segments {
        let size = s.bytes.len() as u64;
        word(&mut out, 1, 4); // PT_LOAD
        word(&mut out, s.flags as u64, 4);
        for value in [offset as u64, s.va, s.va, size, size, PAGE as u64] {
            word(&mut out, value, 8);
        }
        offset += s.bytes.len().next_multiple_of(PAGE);
    }
    for s in segments {
        out.resize(out.len().next_multiple_of(PAGE), 0);
        out.extend(&s.bytes);
    }
    out
}
