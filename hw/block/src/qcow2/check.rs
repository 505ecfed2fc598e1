//! Consistency of an image: what the reference counts say against what the tables use.
//!
//! Read-only. The tables of the active disk and of all snapshots are walked once each, so that tables which point at each other cost
//! no more than the file is long. Memory is four bytes per cluster of the file.

use super::{COMPRESSED, COPIED, Header, OFFSET_MASK, ZERO, words};
use crate::file::{ImageFile, read_padded};
use crate::{Cache, Error, Locking};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// Clusters of a file, at most: 16 TiB with the usual ones.
const MAX_CLUSTERS: u64 = 1 << 28;
/// Findings that are described; the rest is counted.
const MAX_MESSAGES: usize = 1000;
/// Entries of all L1 tables together, at most.
const MAX_L1_ENTRIES: u64 = 1 << 28;

/// What was found, in the terms of `qemu-img check`.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Places where data may be lost, or will be by further writing.
    pub corruptions: u64,
    /// Clusters that are not used but counted: lost space.
    pub leaks: u64,
    /// What could not be checked.
    pub check_errors: u64,
    /// Clusters of the guest's disk, in all and of each kind.
    pub total_clusters: u64,
    pub allocated_clusters: u64,
    pub fragmented_clusters: u64,
    pub compressed_clusters: u64,
    /// Where the last used cluster ends, in bytes.
    pub image_end: u64,
    pub messages: Vec<String>,
}

struct Walk<'a> {
    file: &'a ImageFile,
    /// The same file without `O_DIRECT`.
    reader: &'a File,
    header: &'a Header,
    /// Per cluster of the file: how often it is used, and what its reference count says. Both stop at `u16::MAX`.
    used: Vec<u16>,
    counted: Vec<u16>,
    report: Report,
}

/// Checks a qcow2 image.
///
/// # Errors
/// What keeps a check from starting: no qcow2 header, unreadable, in use, a feature that we lack.
pub fn check(path: &Path, locking: Locking) -> Result<Report, Error> {
    let file = ImageFile::open(path, false, Cache::Writeback, locking)?;
    let header = Header::read(&file)?;
    check_file(&file, &file.file, &header)
}

/// The same for a file that is open.
pub(super) fn check_file(
    file: &ImageFile,
    reader: &File,
    header: &Header,
) -> Result<Report, Error> {
    let clusters = file.len.div_ceil(header.cluster_size());
    let lacks = if header.extended_l2() {
        Some("has extended L2 entries, which cannot be checked".into())
    } else if clusters > MAX_CLUSTERS {
        Some(format!("has {clusters} clusters: too many to be checked"))
    } else {
        None
    };
    if let Some(what) = lacks {
        return Err(Error::Unsupported { path: file.path.clone(), what });
    }
    let mut walk = Walk {
        file,
        reader,
        header,
        used: vec![0; clusters as usize],
        counted: vec![0; clusters as usize],
        report: Report {
            total_clusters: header.size.div_ceil(header.cluster_size()),
            ..Report::default()
        },
    };
    walk.read_refcounts()?;
    walk.read_tables()?;
    walk.compare();
    Ok(walk.report)
}

impl Walk<'_> {
    fn note(&mut self, text: String) {
        if self.report.messages.len() < MAX_MESSAGES {
            self.report.messages.push(text);
        }
    }
    fn error(&mut self, text: String) {
        self.report.corruptions += 1;
        self.note(format!("ERROR {text}"));
    }
    fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        read_padded(self.reader, offset, len as usize).map_err(Error::host("read", &self.file.path))
    }

    /// Counts `times` uses of each cluster that the range touches.
    fn uses(&mut self, start: u64, len: u64, times: u64, what: &str) {
        let bits = self.header.cluster_bits;
        let Some(last) = start.checked_add(len.saturating_sub(1)).filter(|_| len != 0) else {
            return;
        };
        for cluster in start >> bits..=last >> bits {
            let Some(used) = usize::try_from(cluster).ok().and_then(|c| self.used.get_mut(c))
            else {
                return self.error(format!("{what} at {start:#x} lies beyond the end of the file"));
            };
            *used = used.saturating_add(times.min(u16::MAX.into()) as u16);
        }
    }

    fn refcount(&self, offset: u64) -> u16 {
        let cluster = usize::try_from(offset >> self.header.cluster_bits).ok();
        cluster.and_then(|c| self.counted.get(c)).copied().unwrap_or(0)
    }

    fn read_refcounts(&mut self) -> Result<(), Error> {
        let header = self.header;
        let cluster = header.cluster_size();
        let table_len = u64::from(header.reftable_clusters) * cluster;
        let per_block = (cluster * 8) >> header.refcount_order;
        self.uses(0, cluster, 1, "the header");
        self.uses(header.reftable_offset, table_len, 1, "the refcount table");
        let table = self.read(header.reftable_offset, table_len)?;
        let mut seen = vec![false; self.used.len()];
        for (index, entry) in words(&table).enumerate().filter(|(_, entry)| *entry != 0) {
            let at = entry & OFFSET_MASK;
            if entry != at || !at.is_multiple_of(cluster) {
                self.error(format!("refcount block {index} is not cluster aligned: {entry:#x}"));
                continue;
            }
            self.uses(at, cluster, 1, "a refcount block");
            let seen = usize::try_from(at / cluster).ok().and_then(|c| seen.get_mut(c));
            if seen.is_none_or(|seen| std::mem::replace(seen, true)) {
                continue;
            }
            let block = self.read(at, cluster)?;
            let first = index as u64 * per_block;
            for i in 0..per_block {
                let value = refcount(&block, i as usize, header.refcount_order);
                if value == 0 {
                    continue;
                }
                // What is counted beyond the end of the file takes no space.
                let place = usize::try_from(first + i).ok();
                if let Some(counted) = place.and_then(|c| self.counted.get_mut(c)) {
                    *counted = value;
                }
            }
        }
        Ok(())
    }

    fn read_tables(&mut self) -> Result<(), Error> {
        let header = self.header;
        let mut l1_tables = vec![(header.l1_offset, header.l1_entries, true)];
        match header.read_snapshots(self.reader) {
            Ok((snapshots, len)) => {
                self.uses(header.snapshots_offset, len, 1, "the snapshot table");
                l1_tables.extend(snapshots.iter().map(|s| (s.l1_offset, s.l1_entries, false)));
            }
            Err(e) => self.error(format!("the snapshots cannot be read: {e}")),
        }
        if header.has_bitmaps {
            self.report.check_errors += 1;
            self.note("the image has persistent bitmaps, whose clusters are not checked".into());
        }
        // (offset, entries) to how many tables are there: snapshots may lie about each other.
        let mut distinct: HashMap<(u64, u32), (u64, bool)> = HashMap::new();
        for (offset, entries, active) in l1_tables {
            let table = distinct.entry((offset, entries)).or_default();
            *table = (table.0 + 1, table.1 | active);
        }
        if distinct.keys().map(|k| u64::from(k.1)).sum::<u64>() > MAX_L1_ENTRIES {
            self.report.check_errors += 1;
            self.note("the L1 tables of the snapshots are too large to be checked".into());
            distinct.retain(|_, (_, active)| *active);
        }
        // L2 table to how many L1 entries name it, and whether the active disk does.
        let mut l2_tables: HashMap<u64, (u64, bool)> = HashMap::new();
        let mut active_order = Vec::new();
        for ((offset, entries), (times, active)) in distinct {
            let len = u64::from(entries) * 8;
            self.uses(offset, len, times, "an L1 table");
            if !offset.is_multiple_of(header.cluster_size()) {
                self.error(format!("L1 table is not cluster aligned: {offset:#x}"));
                continue;
            }
            if offset.saturating_add(len) > self.file.len.next_multiple_of(header.cluster_size()) {
                continue; // Reported by `uses`.
            }
            let table = self.read(offset, len)?;
            for (index, entry) in words(&table).enumerate().filter(|(_, entry)| *entry != 0) {
                let at = entry & OFFSET_MASK;
                if entry & !(OFFSET_MASK | COPIED) != 0 || !at.is_multiple_of(header.cluster_size())
                {
                    self.error(format!("L2 table {index} is not cluster aligned: {entry:#x}"));
                    continue;
                }
                if at == 0 {
                    continue;
                }
                let l2 = l2_tables.entry(at).or_default();
                *l2 = (l2.0 + times, l2.1 | active);
                if active {
                    active_order.push(at);
                    let copied = entry & COPIED != 0;
                    if copied != (self.refcount(at) == 1) {
                        let refcount = self.refcount(at);
                        self.error(format!(
                            "OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={refcount}"
                        ));
                    }
                }
            }
        }
        let others = l2_tables.iter().filter(|(_, (_, active))| !active).map(|(at, _)| *at);
        let order: Vec<u64> = active_order.into_iter().chain(others).collect();
        for at in order {
            // Removed, so that a table that is named twice is read once.
            if let Some((times, active)) = l2_tables.remove(&at) {
                self.uses(at, header.cluster_size(), times, "an L2 table");
                if at < self.file.len {
                    self.read_l2(at, times, active)?;
                }
            }
        }
        Ok(())
    }

    fn read_l2(&mut self, at: u64, times: u64, active: bool) -> Result<(), Error> {
        let header = self.header;
        let cluster = header.cluster_size();
        let table = self.read(at, cluster)?;
        // Where the table's next cluster would follow without a gap.
        let mut next = 0;
        for (index, entry) in words(&table).enumerate().filter(|(_, entry)| *entry != 0) {
            if entry & COMPRESSED != 0 {
                let split = 62 - (header.cluster_bits - 8);
                let start = entry & ((1 << split) - 1);
                let more = entry >> split & ((1 << (header.cluster_bits - 8)) - 1);
                let from = start & !511;
                self.uses(from, (more + 1) * 512, times, "compressed data");
                if entry & COPIED != 0 {
                    self.error(format!("compressed cluster {index} of {at:#x} says COPIED"));
                }
                if active {
                    self.report.allocated_clusters += 1;
                    self.report.compressed_clusters += 1;
                    self.report.fragmented_clusters += 1;
                }
                continue;
            }
            let offset = entry & OFFSET_MASK;
            let zero = if header.version >= 3 { ZERO } else { 0 };
            if entry & !(OFFSET_MASK | COPIED | zero) != 0 || !offset.is_multiple_of(cluster) {
                self.error(format!(
                    "L2 entry {index} of the table at {at:#x} cannot be right: {entry:#x}"
                ));
                continue;
            }
            if offset == 0 {
                continue;
            }
            self.uses(offset, cluster, times, "data");
            if active {
                let refcount = self.refcount(offset);
                if (entry & COPIED != 0) != (refcount == 1) {
                    self.error(format!(
                        "OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={refcount}"
                    ));
                }
                if entry & zero == 0 {
                    self.report.allocated_clusters += 1;
                    if next != 0 && offset != next {
                        self.report.fragmented_clusters += 1;
                    }
                    next = offset + cluster;
                }
            }
        }
        Ok(())
    }

    fn compare(&mut self) {
        let mut end = 0;
        let used = std::mem::take(&mut self.used);
        let counted = std::mem::take(&mut self.counted);
        for (cluster, (&used, &counted)) in used.iter().zip(&counted).enumerate() {
            if used | counted == 0 {
                continue;
            }
            end = cluster as u64 + 1;
            let text = format!("cluster {cluster} refcount={counted} reference={used}");
            if counted > used {
                self.report.leaks += 1;
                self.note(format!("Leaked {text}"));
            } else if counted < used {
                self.error(text);
            }
        }
        self.report.image_end = end << self.header.cluster_bits;
    }
}

/// Count `index` of a refcount block. Counts narrower than a byte fill it from the least significant bit.
fn refcount(block: &[u8], index: usize, order: u32) -> u16 {
    let number = |bytes: usize| {
        let at = index * bytes;
        let number = block.get(at..at + bytes).unwrap_or(&[]);
        let number = number.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        number.min(u16::MAX.into()) as u16
    };
    match order {
        0..3 => {
            let width = 1 << order;
            let byte = block.get(index * width / 8).copied().unwrap_or(0);
            u16::from(byte >> (index * width % 8)) & ((1 << width) - 1)
        }
        _ => number(1 << (order - 3)),
    }
}
