//! The data of IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA/ATAPI-6, sections 8.15 and 8.16).

use super::drive::Drive;

struct Words([u16; 256]);

impl Words {
    fn set(&mut self, first: usize, words: &[u16]) {
        self.0[first..first + words.len()].copy_from_slice(words);
    }

    fn set_long(&mut self, first: usize, value: u64, words: usize) {
        for n in 0..words {
            self.0[first + n] = (value >> (16 * n)) as u16;
        }
    }

    /// Text padded with spaces, the first character in the high byte.
    fn text(&mut self, first: usize, words: usize, text: &str) {
        let mut bytes =
            text.bytes().filter(|b| (b' '..=b'~').contains(b)).chain(std::iter::repeat(b' '));
        for word in &mut self.0[first..first + words] {
            let pair = [bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' ')];
            *word = u16::from_be_bytes(pair);
        }
    }

    /// Multiword and ultra DMA modes, with the chosen one in the high byte.
    fn dma_modes(&mut self, chosen: u8) {
        let selected = |kind: u8| match chosen {
            mode if mode & 0xf8 == kind => 0x100 << (mode & 7),
            _ => 0u16,
        };
        self.set(63, &[0x07 | selected(0x20)]);
        // PIO modes 3 and 4; cycle times of 120 ns.
        self.set(64, &[0x03, 120, 120, 120, 120]);
        self.set(88, &[0x3f | selected(0x40)]);
    }

    /// The checksum that makes all bytes add up to 0.
    fn finish(mut self) -> Vec<u8> {
        self.0[255] = 0xa5;
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|w| w.to_le_bytes()).collect();
        let sum = bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        bytes[511] = sum.wrapping_neg();
        bytes
    }
}

const FIRMWARE: &str = "1.0";

pub(super) fn identify_disk(drive: &Drive) -> Vec<u8> {
    let s = &drive.s;
    let sectors = drive.sectors();
    let lba28 = sectors.min(0x0fff_ffff);
    // The default translation: at most 16383 cylinders of 16 heads and 63 sectors.
    let cylinders = (sectors / (16 * 63)).clamp(1, 16383) as u16;
    let now = u64::from(s.heads) * u64::from(s.sectors);
    let now_cylinders = (lba28 / now).clamp(1, 65535);
    let mut w = Words([0; 256]);
    w.set(0, &[0x0040, cylinders, 0, 16, 0, 0, 63]);
    w.text(10, 10, &drive.serial);
    w.text(23, 4, FIRMWARE);
    w.text(27, 20, &drive.model);
    w.set(47, &[0x8000 | 16]);
    // 32-bit data register; DMA, LBA, IORDY.
    w.set(48, &[1, 0x0b00]);
    w.set(51, &[0x0200, 0x0200, 0x0007]);
    w.set(54, &[now_cylinders as u16, s.heads.into(), s.sectors.into()]);
    w.set_long(57, now_cylinders * now, 2);
    w.set(59, &[if s.multiple == 0 { 0 } else { 0x100 | u16::from(s.multiple) }]);
    w.set_long(60, lba28, 2);
    w.dma_modes(s.dma_mode);
    // Words of 64-bit ranges in one DATA SET MANAGEMENT, in blocks.
    w.set(105, &[8]);
    // ATA-4 to ATA-6; ATA/ATAPI-6.
    w.set(80, &[0x0070, 0x0019]);
    // Supported: SMART, security, power management, write cache, look-ahead; flush, flush ext, LBA48.
    w.set(82, &[0x406b, 0x7400, 0x4040]);
    let cache = if s.write_cache { 0x20 } else { 0 } | if s.read_ahead { 0x40 } else { 0 };
    let smart = u16::from(s.smart);
    w.set(85, &[0x4008 | cache | smart, 0x3400, 0x4040]);
    // Device 0 or 1 passed its diagnostics, the cable has 80 wires.
    w.set(93, &[0x4000 | 0x2000 | 1]);
    w.set_long(100, sectors, 4);
    // Logical sectors are physical ones.
    w.set(106, &[0x4000]);
    // Security: supported, off, frozen. TRIM.
    w.set(128, &[0x0009]);
    w.set(169, &[1]);
    w.set(217, &[1]);
    w.finish()
}

pub(super) fn identify_cdrom(drive: &Drive) -> Vec<u8> {
    let mut w = Words([0; 256]);
    // CD-ROM, removable, DRQ within 50 us, 12-byte packets.
    w.set(0, &[0x85c0]);
    w.text(10, 10, &drive.serial);
    w.text(23, 4, FIRMWARE);
    w.text(27, 20, &drive.model);
    w.set(48, &[1, 0x0b00]);
    w.set(51, &[0, 0, 0x0006]);
    w.dma_modes(drive.s.dma_mode);
    w.set(80, &[0x0070, 0x0019]);
    // PACKET, DEVICE RESET.
    w.set(82, &[0x0210, 0x4000, 0x4000]);
    w.set(85, &[0x0210, 0, 0x4000]);
    w.set(93, &[0x4000 | 0x2000 | 1]);
    w.finish()
}
