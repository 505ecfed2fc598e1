//! The header, its extensions, and whether the tables that it names can be right.

use super::{COPIED, OFFSET_MASK, be32, be64, words};
use crate::Error;
use crate::file::{ImageFile, read_padded};
use std::fs::File;
use std::ops::Range;

/// Bytes of the active L1 table, at most: enough for 2 EiB with the largest clusters.
const MAX_L1: u64 = 32 << 20;
/// Bytes of the refcount table, at most.
const MAX_REFTABLE: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65536;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 2;
const EXTENDED_L2: u64 = 16;

/// Incompatible features in the order of their bits, with what a user can do.
const INCOMPATIBLE: [&str; 5] = [
    "was not closed properly (its reference counts are out of date); `qemu-img check -r all` repairs it",
    "is marked corrupt; `qemu-img check -r all` repairs it",
    "keeps its data in a file of its own, which is not supported",
    "is compressed with zstd, which is not supported; `qemu-img convert` makes a copy",
    "has extended L2 entries, which are not supported; `qemu-img convert` makes a copy",
];

/// What a qcow2 image says of itself, checked against the length of its file.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    pub cluster_bits: u32,
    /// Bytes of the guest's disk.
    pub size: u64,
    pub encryption: u32,
    pub l1_entries: u32,
    pub l1_offset: u64,
    pub reftable_offset: u64,
    pub reftable_clusters: u32,
    pub snapshots: u32,
    pub snapshots_offset: u64,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    /// log2 of a reference count's width in bits.
    pub refcount_order: u32,
    /// 0 is zlib, 1 is zstd.
    pub compression: u8,
    pub backing: Option<String>,
    pub backing_format: Option<String>,
    pub has_bitmaps: bool,
}

impl Header {
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }
    pub fn dirty(&self) -> bool {
        self.incompatible & DIRTY != 0
    }
    pub fn corrupt(&self) -> bool {
        self.incompatible & CORRUPT != 0
    }
    pub fn extended_l2(&self) -> bool {
        self.incompatible & EXTENDED_L2 != 0
    }
    pub fn lazy_refcounts(&self) -> bool {
        self.compatible & 1 != 0
    }

    /// # Errors
    /// What cannot be right, in words.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Header, String> {
        Self::fields(bytes).ok_or("its header is truncated")??.extensions(bytes)?.bounds(file_len)
    }

    fn fields(bytes: &[u8]) -> Option<Result<Header, String>> {
        if bytes.get(..4)? != b"QFI\xfb" {
            return Some(Err("it has no qcow2 header".into()));
        }
        let mut header = Header {
            version: be32(bytes, 4)?,
            cluster_bits: be32(bytes, 20)?,
            size: be64(bytes, 24)?,
            encryption: be32(bytes, 32)?,
            l1_entries: be32(bytes, 36)?,
            l1_offset: be64(bytes, 40)?,
            reftable_offset: be64(bytes, 48)?,
            reftable_clusters: be32(bytes, 56)?,
            snapshots: be32(bytes, 60)?,
            snapshots_offset: be64(bytes, 64)?,
            refcount_order: 4,
            ..Header::default()
        };
        if header.version == 3 {
            header.incompatible = be64(bytes, 72)?;
            header.compatible = be64(bytes, 80)?;
            header.autoclear = be64(bytes, 88)?;
            header.refcount_order = be32(bytes, 96)?;
            if be32(bytes, 100)? > 104 {
                header.compression = *bytes.get(104)?;
            }
        }
        let fault = match header.version {
            2 | 3 if !(9..=21).contains(&header.cluster_bits) => {
                format!("clusters of 2^{} bytes", header.cluster_bits)
            }
            2 | 3 if header.refcount_order > 6 => {
                format!("reference counts of 2^{} bits", header.refcount_order)
            }
            2 | 3 => return Some(Ok(header)),
            other => format!("version {other} is not supported"),
        };
        Some(Err(fault))
    }

    /// Extensions lie between the header and the backing file's name, all in the first cluster.
    fn extensions(mut self, bytes: &[u8]) -> Result<Header, String> {
        let truncated = "its header is truncated";
        let (offset, len) = (be64(bytes, 8).ok_or(truncated)?, be32(bytes, 16).ok_or(truncated)?);
        let within = |range: Range<u64>| {
            let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            bytes.get(range)
        };
        if offset != 0 {
            let name = offset
                .checked_add(len.into())
                .filter(|end| len <= 1023 && *end < self.cluster_size())
                .and_then(|end| within(offset..end))
                .ok_or("its backing file's name lies outside of the first cluster")?;
            let name =
                std::str::from_utf8(name).map_err(|_| "its backing file's name is not UTF-8");
            self.backing = Some(name?.to_string()).filter(|n| !n.is_empty());
        }
        let mut at = 72;
        if self.version == 3 {
            at = u64::from(be32(bytes, 100).ok_or(truncated)?);
            if at < 104 || at > self.cluster_size() || !at.is_multiple_of(8) {
                return Err(format!("its header claims to have {at} bytes"));
            }
        }
        loop {
            // Old images of version 2 end without saying so, where the name starts.
            if self.version == 2 && offset != 0 && at >= offset {
                return Ok(self);
            }
            let outside = || "its header extensions leave the first cluster";
            let start = at.checked_add(8).ok_or_else(outside)?;
            let head = within(at..start).ok_or_else(outside)?;
            let kind = be32(head, 0).ok_or_else(outside)?;
            let len = u64::from(be32(head, 4).ok_or_else(outside)?);
            let data = within(start..start + len).ok_or_else(outside)?;
            match kind {
                0 => return Ok(self),
                0xe279_2aca => {
                    let format = String::from_utf8(data.to_vec());
                    let format = format.map_err(|_| "its backing file's format is not UTF-8")?;
                    if self.backing_format.replace(format.clone()).is_some_and(|f| f != format) {
                        return Err("it has two formats for its backing file".into());
                    }
                }
                // Names of features: 48 bytes each.
                0x6803_f857 if len % 48 != 0 => return Err("its feature names are cut".into()),
                0x2385_2875 => self.has_bitmaps = true,
                0x4441_5441 if std::str::from_utf8(data).is_err() => {
                    return Err("its data file's name is not UTF-8".into());
                }
                _ => {}
            }
            at = start + len.next_multiple_of(8);
        }
    }

    /// Bytes of the file taken by the tables that the header names, with their names.
    pub(crate) fn tables(&self) -> Vec<(&'static str, Range<u64>)> {
        let cluster = self.cluster_size();
        let l1 = (u64::from(self.l1_entries) * 8).next_multiple_of(cluster);
        let reftable = u64::from(self.reftable_clusters) * cluster;
        [
            ("header", 0, cluster),
            ("L1 table", self.l1_offset, l1),
            ("refcount table", self.reftable_offset, reftable),
        ]
        .into_iter()
        .filter(|(_, _, len)| *len != 0)
        .map(|(name, start, len)| (name, start..start.saturating_add(len)))
        .collect()
    }

    fn bounds(self, file_len: u64) -> Result<Header, String> {
        let cluster = self.cluster_size();
        let (l1, reftable) = (
            u64::from(self.l1_entries) * 8,
            u64::from(self.reftable_clusters) << self.cluster_bits,
        );
        // An L1 entry stands for one L2 table of 8 byte entries (16 when extended).
        let entry_bits = 3 + u32::from(self.extended_l2());
        let reach = 1u64 << (2 * self.cluster_bits - entry_bits);
        let needed = self.size.div_ceil(reach);
        let check = |good: bool, what: &str| if good { Ok(()) } else { Err(what.to_string()) };
        check(self.size <= i64::MAX as u64, "its disk is larger than 8 EiB")?;
        check(l1 <= MAX_L1, "its L1 table is too large")?;
        check(needed <= self.l1_entries.into(), "its L1 table is too small for its disk")?;
        check(reftable <= MAX_REFTABLE, "its refcount table is too large")?;
        check(reftable != 0, "it has no refcount table")?;
        check(self.snapshots <= MAX_SNAPSHOTS, "it has too many snapshots")?;
        check(self.snapshots_offset.is_multiple_of(cluster), "its snapshot table is not aligned")?;
        let tables = self.tables();
        let end_of_file = file_len.next_multiple_of(cluster);
        for (name, range) in &tables {
            check(range.start.is_multiple_of(cluster), &format!("its {name} is not aligned"))?;
            check(range.end <= 1 << 56, &format!("its {name} lies beyond all files"))?;
            check(
                range.end <= end_of_file,
                &format!("its {name} lies beyond the end of the file, which is truncated"),
            )?;
        }
        if let Some((a, b)) = overlap(tables) {
            return Err(format!("its {a} and its {b} overlap"));
        }
        Ok(self)
    }

    /// # Errors
    /// [`Error::BadImage`], [`Error::Host`].
    pub(crate) fn read(file: &ImageFile) -> Result<Header, Error> {
        let bits = be32(&file.head(104)?, 20).unwrap_or(0).clamp(9, 21);
        let bytes = file.head((1usize << bits).min(file.len.max(104) as usize))?;
        // Reads beyond the end are zeros, which a header never lacks.
        Header::parse(&bytes, file.len).map_err(|what| Error::bad(&file.path, what))
    }

    /// The header of an image that can be used as a disk.
    ///
    /// # Errors
    /// As [`Header::read`]; features that we lack; entries of the tables in memory that point nowhere.
    pub(crate) fn read_usable(file: &ImageFile, write: bool) -> Result<Header, Error> {
        let header = Header::read(file)?;
        let unsupported =
            |what: &str| Error::Unsupported { path: file.path.clone(), what: what.into() };
        if header.encryption != 0 {
            return Err(unsupported("is encrypted, which is not supported"));
        }
        if header.incompatible != 0 {
            let bit = header.incompatible.trailing_zeros();
            let text = format!("needs feature {bit}, which is not supported");
            return Err(unsupported(INCOMPATIBLE.get(bit as usize).unwrap_or(&text.as_str())));
        }
        if header.compression != 0 {
            return Err(unsupported(INCOMPATIBLE[3]));
        }
        let plain;
        let reader = if file.direct {
            plain = File::open(&file.path).map_err(Error::host("read", &file.path))?;
            &plain
        } else {
            &file.file
        };
        header.check_tables(reader, file, write)?;
        if write {
            header.check_sound(reader, file)?;
        }
        Ok(header)
    }

    /// Whoever writes relies on all reference counts: one that is too low costs data, and `imago` takes no care of tables that
    /// lie. The tables of a disk of 100 GB have 16 MB.
    fn check_sound(&self, reader: &File, file: &ImageFile) -> Result<(), Error> {
        let report = super::check::check_file(file, reader, self)?;
        let fatal = report.corruptions + if self.has_bitmaps { 0 } else { report.check_errors };
        if fatal == 0 {
            return Ok(());
        }
        let first = report.messages.iter().find(|m| m.starts_with("ERROR"));
        let what = format!(
            "is damaged ({fatal} errors; {}) and can only be read (readonly=on or snapshot=on); `tulk img check` says more",
            first.map_or("it cannot be checked", |m| m)
        );
        Err(Error::Unsupported { path: file.path.clone(), what })
    }

    /// Entries of the L1 table, and when writing those of the refcount table: in the file, aligned, apart from each other.
    fn check_tables(&self, reader: &File, file: &ImageFile, write: bool) -> Result<(), Error> {
        let mut ranges = self.tables();
        for (name, table) in self.tables() {
            let (what, flags) = match name {
                "L1 table" => ("L2 table", COPIED),
                "refcount table" if write => ("refcount block", 0),
                _ => continue,
            };
            let entries = match what {
                "L2 table" => self.l1_entries as usize * 8,
                _ => (table.end - table.start) as usize,
            };
            let bytes = read_padded(reader, table.start, entries)
                .map_err(Error::host("read", &file.path))?;
            for (index, entry) in words(&bytes).enumerate().filter(|(_, e)| e & OFFSET_MASK != 0) {
                let offset = entry & OFFSET_MASK;
                if entry & !(OFFSET_MASK | flags) != 0
                    || !offset.is_multiple_of(self.cluster_size())
                {
                    let what = format!("entry {index} of its {name} is {entry:#x}");
                    return Err(Error::bad(&file.path, what));
                }
                if offset >= file.len {
                    let what = format!("{what} {index} lies beyond the end of the file");
                    return Err(Error::bad(&file.path, what));
                }
                ranges.push((what, offset..offset + self.cluster_size()));
            }
        }
        // Whoever only reads takes no harm.
        match overlap(ranges).filter(|_| write) {
            Some((a, b)) => Err(Error::bad(&file.path, format!("a {a} and a {b} overlap"))),
            None => Ok(()),
        }
    }
}

/// Two of the ranges that overlap.
fn overlap(mut ranges: Vec<(&'static str, Range<u64>)>) -> Option<(&'static str, &'static str)> {
    ranges.sort_unstable_by_key(|(_, range)| range.start);
    let clash = ranges.windows(2).find(|pair| pair[0].1.end > pair[1].1.start)?;
    Some((clash[0].0, clash[1].0))
}
