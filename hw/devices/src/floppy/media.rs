//! Formats of floppy disks.

use tulk_block::SECTOR;

/// A format with 512-byte sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Media {
    pub tracks: u8,
    pub heads: u8,
    pub sectors: u8,
    /// As in the data rate select register: 0 is 500 kbit/s, 1 is 300, 2 is 250, 3 is 1000.
    pub rate: u8,
    /// Type of the drive for it as CMOS byte 0x10 has it.
    pub drive_type: u8,
}

const fn media(tracks: u8, heads: u8, sectors: u8, rate: u8, drive_type: u8) -> Media {
    Media { tracks, heads, sectors, rate, drive_type }
}

/// From small to large: 160K, 180K, 320K, 360K, 720K, 1.2M, 1.44M, 1.68M, 1.72M, 2.88M.
const FORMATS: [Media; 10] = [
    media(40, 1, 8, 2, 1),
    media(40, 1, 9, 2, 1),
    media(40, 2, 8, 2, 1),
    media(40, 2, 9, 2, 1),
    media(80, 2, 9, 2, 3),
    media(80, 2, 15, 0, 2),
    media(80, 2, 18, 0, 4),
    media(80, 2, 21, 0, 4),
    media(82, 2, 21, 0, 4),
    media(80, 2, 36, 3, 5),
];

impl Media {
    /// The format of an image of `bytes`: the one with this size, or 1.44M for smaller ones without a format (boot
    /// sectors), or the next larger one. `None`: larger than all.
    pub fn of_size(bytes: u64) -> Option<Media> {
        let exact = FORMATS.iter().find(|m| m.bytes() == bytes);
        let usual = FORMATS.iter().find(|m| m.drive_type == 4 && m.bytes() >= bytes);
        exact.or(usual).or_else(|| FORMATS.iter().find(|m| m.bytes() >= bytes)).copied()
    }

    pub fn bytes(&self) -> u64 {
        u64::from(self.tracks) * u64::from(self.heads) * u64::from(self.sectors) * SECTOR
    }

    /// Whether the medium can be read at a rate: drives for 1.2M turn faster, so that 300 stands for 250 there.
    pub fn readable_at(&self, rate: u8) -> bool {
        rate == self.rate || self.rate == 2 && rate == 1
    }

    /// Byte offset of a sector, which counts from 1. `None`: there is no such sector.
    pub fn offset(&self, track: u8, head: u8, sector: u8) -> Option<u64> {
        let exists =
            track < self.tracks && head < self.heads && (1..=self.sectors).contains(&sector);
        let track = u64::from(track) * u64::from(self.heads) + u64::from(head);
        exists.then(|| (track * u64::from(self.sectors) + u64::from(sector) - 1) * SECTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let of = |kilobytes: u64| {
            Media::of_size(kilobytes << 10).map(|m| (m.tracks, m.heads, m.sectors))
        };
        assert_eq!(of(160), Some((40, 1, 8)));
        assert_eq!(of(360), Some((40, 2, 9)));
        assert_eq!(of(720), Some((80, 2, 9)));
        assert_eq!(of(1200), Some((80, 2, 15)));
        assert_eq!(of(1440), Some((80, 2, 18)));
        assert_eq!(of(2880), Some((80, 2, 36)));
        assert_eq!(of(1), Some((80, 2, 18)));
        assert_eq!(of(2000), Some((80, 2, 36)));
        assert_eq!(of(4000), None);
        let m = Media::of_size(1440 << 10).unwrap();
        assert_eq!(m.offset(1, 0, 1), Some(18 * 1024));
        assert_eq!((m.offset(0, 0, 0), m.offset(80, 0, 1), m.offset(0, 0, 19)), (None, None, None));
    }
}
