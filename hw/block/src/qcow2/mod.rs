//! qcow2 images as untrusted bytes: the header with its extensions, the tables, the check of both.
//!
//! `imago` reads and writes the guest's data; what is here looks at an image before it may, and finds out what is wrong with one.
//! Specification: QEMU's `docs/interop/qcow2.txt`. All numbers are big-endian.

mod check;
mod header;
mod snapshots;

pub use check::{Report, check};
pub use header::Header;
pub use snapshots::Snapshot;

/// Bits 9 to 55 of table entries: an offset in the file.
pub(crate) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// The cluster has a reference count of exactly one.
pub(crate) const COPIED: u64 = 1 << 63;
/// The entry describes a compressed cluster.
pub(crate) const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros (version 3).
pub(crate) const ZERO: u64 = 1;

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
pub(crate) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|w| u64::from_be_bytes(*w))
}
