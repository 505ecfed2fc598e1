//! ATA disk commands (ATA/ATAPI-6, chapter 8).

use super::drive::{Drive, Phase, Transfer, device, error, status};
use super::identify::identify_disk;
use tulk_block::SECTOR;

/// By which protocol a transfer command moves its data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Pio,
    Multiple,
    Dma,
    /// No data leaves the drive.
    Verify,
}

/// A command that transfers sectors.
struct TransferCommand {
    code: u8,
    write: bool,
    ext: bool,
    protocol: Protocol,
    fua: bool,
}

const fn row(code: u8, write: bool, ext: bool, protocol: Protocol, fua: bool) -> TransferCommand {
    TransferCommand { code, write, ext, protocol, fua }
}

const TRANSFERS: &[TransferCommand] = &[
    row(0x20, false, false, Protocol::Pio, false), // READ SECTOR(S)
    row(0x21, false, false, Protocol::Pio, false), // the same without retries
    row(0x24, false, true, Protocol::Pio, false),  // READ SECTOR(S) EXT
    row(0x25, false, true, Protocol::Dma, false),  // READ DMA EXT
    row(0x29, false, true, Protocol::Multiple, false), // READ MULTIPLE EXT
    row(0x30, true, false, Protocol::Pio, false),  // WRITE SECTOR(S)
    row(0x31, true, false, Protocol::Pio, false),  // the same without retries
    row(0x34, true, true, Protocol::Pio, false),   // WRITE SECTOR(S) EXT
    row(0x35, true, true, Protocol::Dma, false),   // WRITE DMA EXT
    row(0x39, true, true, Protocol::Multiple, false), // WRITE MULTIPLE EXT
    row(0x3c, true, false, Protocol::Pio, true),   // WRITE VERIFY
    row(0x3d, true, true, Protocol::Dma, true),    // WRITE DMA FUA EXT
    row(0x40, false, false, Protocol::Verify, false), // READ VERIFY SECTOR(S)
    row(0x41, false, false, Protocol::Verify, false), // the same without retries
    row(0x42, false, true, Protocol::Verify, false), // READ VERIFY SECTOR(S) EXT
    row(0xc4, false, false, Protocol::Multiple, false), // READ MULTIPLE
    row(0xc5, true, false, Protocol::Multiple, false), // WRITE MULTIPLE
    row(0xc8, false, false, Protocol::Dma, false), // READ DMA
    row(0xc9, false, false, Protocol::Dma, false), // the same without retries
    row(0xca, true, false, Protocol::Dma, false),  // WRITE DMA
    row(0xcb, true, false, Protocol::Dma, false),  // the same without retries
    row(0xce, true, true, Protocol::Multiple, true), // WRITE MULTIPLE FUA EXT
];

/// Most sectors that 28-bit commands reach.
const LBA28_SECTORS: u64 = 0x0fff_ffff;

/// Where a transfer fails: none of it counts when it is to be tried again.
fn not_done(at: usize, error: u8) -> (usize, u8) {
    if error == error::WAIT { (0, error) } else { (at, error) }
}

/// Most range entries of one DATA SET MANAGEMENT block of data.
const TRIM_BLOCKS: u16 = 8;

impl Drive {
    pub(super) fn sectors(&self) -> u64 {
        self.disk.as_ref().map_or(0, |d| d.len() / SECTOR)
    }

    pub(super) fn ata_command(&mut self, code: u8) {
        if let Some(command) = TRANSFERS.iter().find(|t| t.code == code) {
            return self.start_transfer(command);
        }
        match code {
            0x06 => self.data_set_management(),
            // RECALIBRATE, SEEK: nothing moves.
            0x10..=0x1f | 0x70..=0x7f => self.complete(),
            0x27 | 0xf8 => self.read_native_max(code == 0x27),
            0x91 => self.initialize_device_parameters(),
            0xb0 => self.smart(),
            0xc6 => self.set_multiple_mode(),
            // STANDBY, STANDBY IMMEDIATE, SLEEP; IDLE, IDLE IMMEDIATE; and as ATA-1 numbered them.
            0xe0 | 0xe2 | 0xe6 | 0x94 | 0x96 | 0x99 => self.power(true),
            0xe1 | 0xe3 | 0x95 | 0x97 => self.power(false),
            0xe5 | 0x98 => {
                self.s.count = if self.s.standby { 0x00 } else { 0xff };
                self.complete();
            }
            0xe7 | 0xea => self.flush_cache(),
            0xec => {
                self.s.buffer = identify_disk(self);
                self.s.transfer.left = 0;
                self.offer();
            }
            0xef => self.set_features(),
            // SECURITY FREEZE LOCK: it is.
            0xf5 => self.complete(),
            // Everything else: NOP, DEVICE RESET and PACKET among them.
            _ => self.fail(error::ABRT),
        }
    }

    fn power(&mut self, standby: bool) {
        self.s.standby = standby;
        self.complete();
    }

    /// The address in the registers, whether it is on the disk or not. CHS addresses may not exist.
    fn address(&self, ext: bool) -> Option<u64> {
        let s = &self.s;
        let byte = |r: u16| u64::from(r & 0xff);
        let old = |r: u16| u64::from(r >> 8);
        let low = byte(s.lba_low) | byte(s.lba_mid) << 8 | byte(s.lba_high) << 16;
        if ext {
            Some(low | old(s.lba_low) << 24 | old(s.lba_mid) << 32 | old(s.lba_high) << 40)
        } else if s.device & device::LBA != 0 {
            Some(low | u64::from(s.device & 15) << 24)
        } else {
            let (head, sector) = (u64::from(s.device & 15), byte(s.lba_low));
            let (heads, sectors) = (u64::from(s.heads), u64::from(s.sectors));
            let cylinder = byte(s.lba_mid) | byte(s.lba_high) << 8;
            (head < heads && (1..=sectors).contains(&sector))
                .then(|| (cylinder * heads + head) * sectors + sector - 1)
        }
    }

    fn set_address(&mut self, lba: u64, ext: bool) {
        let s = &mut self.s;
        let fifo = |current: u64, old: u64| (current & 0xff | (old & 0xff) << 8) as u16;
        if ext {
            s.lba_low = fifo(lba, lba >> 24);
            s.lba_mid = fifo(lba >> 8, lba >> 32);
            s.lba_high = fifo(lba >> 16, lba >> 40);
        } else if s.device & device::LBA != 0 {
            s.lba_low = fifo(lba, 0);
            s.lba_mid = fifo(lba >> 8, 0);
            s.lba_high = fifo(lba >> 16, 0);
            s.device = s.device & 0xf0 | (lba >> 24) as u8 & 15;
        } else {
            let (heads, sectors) = (u64::from(s.heads), u64::from(s.sectors));
            let cylinder = lba / (heads * sectors);
            s.lba_low = fifo(lba % sectors + 1, 0);
            s.lba_mid = fifo(cylinder, 0);
            s.lba_high = fifo(cylinder >> 8, 0);
            s.device = s.device & 0xf0 | (lba / sectors % heads) as u8;
        }
    }

    fn start_transfer(&mut self, command: &TransferCommand) {
        let ext = command.ext;
        let block = match command.protocol {
            Protocol::Multiple if self.s.multiple == 0 => return self.fail(error::ABRT),
            Protocol::Multiple => u32::from(self.s.multiple),
            _ => 1,
        };
        let left = match (ext, self.s.count) {
            (true, 0) => 0x1_0000,
            (true, n) => u64::from(n),
            (false, n) if n & 0xff == 0 => 256,
            (false, n) => u64::from(n & 0xff),
        };
        let Some(lba) = self.address(ext).filter(|lba| *lba < self.sectors()) else {
            return self.fail(error::IDNF);
        };
        if command.write && self.disk.as_ref().is_none_or(|d| d.read_only()) {
            return self.fail(error::ABRT);
        }
        self.s.transfer = Transfer { lba, offset: 0, left, block, fua: command.fua, ext };
        match (command.protocol, command.write) {
            (Protocol::Verify, _) => self.verify(),
            (Protocol::Dma, false) => self.await_dma(Phase::DmaIn),
            (Protocol::Dma, true) => self.await_dma(Phase::DmaOut),
            (_, false) => self.ata_block_read(),
            (_, true) => self.request_sectors(false),
        }
    }

    /// Sectors from the transfer's place on that are on the disk, `n` at most.
    fn present(&self, n: u64) -> u64 {
        n.min(self.sectors().saturating_sub(self.s.transfer.lba))
    }

    /// `n` sectors are done.
    fn advance(&mut self, n: u64) {
        self.s.transfer.lba += n;
        self.s.transfer.left -= n.min(self.s.transfer.left);
    }

    /// Ends a transfer with the registers as the standard wants them: no sectors left, the address of the last one.
    fn transfer_complete(&mut self) {
        let Transfer { lba, ext, .. } = self.s.transfer;
        self.set_address(lba.saturating_sub(1), ext);
        self.s.count = 0;
        self.complete();
    }

    /// Ends a transfer at the sector that failed.
    fn transfer_failed(&mut self, error: u8) {
        if error == error::WAIT {
            return self.stall();
        }
        let Transfer { lba, ext, left, .. } = self.s.transfer;
        self.set_address(lba, ext);
        self.s.count = left as u16;
        self.fail(error);
    }

    /// Reads sectors from the transfer's place on; gives how many bytes, and what stands behind them otherwise.
    fn read_sectors(&self, out: &mut [u8]) -> Result<(), (usize, u8)> {
        let here = self.s.transfer.lba * SECTOR;
        let present = self.present(out.len() as u64 / SECTOR) * SECTOR;
        let present = present as usize;
        let disk = self.disk.as_ref().ok_or((0, error::ABRT))?;
        if let Err(error) = disk.read_at(here, &mut out[..present]) {
            if error::of(&error, error::UNC) == error::WAIT {
                return Err((0, error::WAIT));
            }
            // Which one is it? The guest is told, and gets those before.
            for (n, sector) in out[..present].chunks_exact_mut(SECTOR as usize).enumerate() {
                let at = n * SECTOR as usize;
                let read = disk.read_at(here + at as u64, sector);
                read.map_err(|e| not_done(at, error::of(&e, error::UNC)))?;
            }
        }
        if present < out.len() { Err((present, error::IDNF)) } else { Ok(()) }
    }

    fn write_sectors(&self, data: &[u8]) -> Result<(), (usize, u8)> {
        let here = self.s.transfer.lba * SECTOR;
        let present = (self.present(data.len() as u64 / SECTOR) * SECTOR) as usize;
        let disk = self.disk.as_ref().ok_or((0, error::ABRT))?;
        if let Err(error) = disk.write_at(here, &data[..present]) {
            if error::of(&error, error::ABRT) == error::WAIT {
                return Err((0, error::WAIT));
            }
            for (n, sector) in data[..present].chunks_exact(SECTOR as usize).enumerate() {
                let at = n * SECTOR as usize;
                let written = disk.write_at(here + at as u64, sector);
                written.map_err(|e| not_done(at, error::of(&e, error::ABRT)))?;
            }
        }
        if present < data.len() { Err((present, error::IDNF)) } else { Ok(()) }
    }

    /// The host has read a block, or none yet: the next one, or the end.
    pub(super) fn ata_block_read(&mut self) {
        let Transfer { left, block, .. } = self.s.transfer;
        if left == 0 {
            // No interrupt behind the last block.
            self.end_data();
            self.s.status = status::DRDY | status::DSC;
            return;
        }
        let n = left.min(block.into());
        let mut buffer = std::mem::take(&mut self.s.buffer);
        buffer.resize((n * SECTOR) as usize, 0);
        let result = self.read_sectors(&mut buffer);
        self.s.buffer = buffer;
        match result {
            Ok(()) => {
                let last = self.s.transfer.lba + n - 1;
                self.advance(n);
                self.set_address(last, self.s.transfer.ext);
                self.s.count = self.s.transfer.left as u16;
                self.offer();
            }
            Err((done, error)) => {
                self.advance(done as u64 / SECTOR);
                self.transfer_failed(error);
            }
        }
    }

    fn request_sectors(&mut self, interrupt: bool) {
        let Transfer { left, block, .. } = self.s.transfer;
        let bytes = left.min(block.into()) * SECTOR;
        self.request(Phase::PioOut, bytes as usize, interrupt);
    }

    pub(super) fn ata_block_written(&mut self) {
        let buffer = std::mem::take(&mut self.s.buffer);
        if self.s.command == 0x06 {
            return self.trim(&buffer);
        }
        let done = self.written(&buffer);
        self.s.buffer = buffer;
        if done && self.s.transfer.left != 0 {
            self.request_sectors(true);
        }
    }

    /// Writes whole sectors and ends the command behind the last one. False if it failed.
    fn written(&mut self, data: &[u8]) -> bool {
        let mut result = self.write_sectors(data);
        let last = self.s.transfer.left <= data.len() as u64 / SECTOR;
        if result.is_ok() && last && (self.s.transfer.fua || !self.s.write_cache) {
            let flushed = self.disk.as_ref().map_or(Ok(()), |d| d.flush());
            result = flushed.map_err(|e| not_done(data.len(), error::of(&e, error::ABRT)));
        }
        let done = result.err().map_or(data.len(), |(done, _)| done);
        self.advance(done as u64 / SECTOR);
        if let Err((_, error)) = result {
            self.transfer_failed(error);
            return false;
        }
        if self.s.transfer.left == 0 {
            self.transfer_complete();
        }
        true
    }

    pub(super) fn ata_dma_read(&mut self, out: &mut [u8]) -> usize {
        let whole = out.len() - out.len() % SECTOR as usize;
        let (body, tail) = out.split_at_mut(whole);
        let result = self.read_sectors(body);
        let done = result.err().map_or(whole, |(done, _)| done);
        self.advance(done as u64 / SECTOR);
        if let Err((_, error)) = result {
            self.transfer_failed(error);
            return done;
        }
        if !tail.is_empty() {
            let mut sector = [0; SECTOR as usize];
            if self.read_sectors(&mut sector).is_ok() {
                tail.copy_from_slice(&sector[..tail.len()]);
            }
        } else if self.s.transfer.left == 0 {
            self.transfer_complete();
        }
        whole + tail.len()
    }

    pub(super) fn ata_dma_write(&mut self, data: &[u8]) {
        if self.s.command == 0x06 {
            let left = self.s.transfer.left;
            self.s.transfer.left -= (data.len() as u64 / SECTOR).min(left);
            self.trim(data);
            if self.s.stalled {
                self.s.transfer.left = left;
            }
            return;
        }
        self.written(&data[..data.len() - data.len() % SECTOR as usize]);
    }

    fn verify(&mut self) {
        let mut buffer = vec![0; 128 << 10];
        while self.s.transfer.left != 0 {
            let n = self.s.transfer.left.min(buffer.len() as u64 / SECTOR);
            let result = self.read_sectors(&mut buffer[..(n * SECTOR) as usize]);
            let done = result.err().map_or(n, |(done, _)| done as u64 / SECTOR);
            self.advance(done);
            if let Err((_, error)) = result {
                return self.transfer_failed(error);
            }
        }
        self.transfer_complete();
    }

    fn flush_cache(&mut self) {
        match self.disk.as_ref().map(|d| d.flush()) {
            Some(Ok(())) => self.complete(),
            Some(Err(error)) => self.host_failed(&error),
            None => self.fail(error::ABRT),
        }
    }

    /// Ends a command without data by an error of the host's, or stalls it.
    fn host_failed(&mut self, error: &std::io::Error) {
        match error::of(error, error::ABRT) {
            error::WAIT => self.stall(),
            bits => self.fail(bits),
        }
    }

    /// Goes on with the access that stalled. Those of the bus master are the controller's to repeat.
    pub(super) fn retry(&mut self) {
        if !std::mem::take(&mut self.s.stalled) {
            return;
        }
        self.s.status = status::DRDY | status::DSC | status::DRQ;
        match (self.s.phase, self.s.command) {
            (Phase::DmaIn | Phase::DmaOut, _) => {}
            (Phase::PioOut, _) => self.ata_block_written(),
            (Phase::Idle, 0xe7 | 0xea | 0xef) => self.flush_cache(),
            (Phase::Idle, 0x40..=0x42) => self.verify(),
            _ => self.ata_block_read(),
        }
    }

    fn read_native_max(&mut self, ext: bool) {
        let last = self.sectors().saturating_sub(1);
        self.s.device |= device::LBA;
        self.set_address(if ext { last } else { last.min(LBA28_SECTORS - 1) }, ext);
        self.complete();
    }

    fn initialize_device_parameters(&mut self) {
        self.s.heads = (self.s.device & 15) + 1;
        match self.s.count as u8 {
            0 => self.fail(error::ABRT),
            sectors => {
                self.s.sectors = sectors;
                self.complete();
            }
        }
    }

    fn set_multiple_mode(&mut self) {
        let n = self.s.count as u8;
        if n > 16 || !(n == 0 || n.is_power_of_two()) {
            return self.fail(error::ABRT);
        }
        self.s.multiple = n;
        self.complete();
    }

    fn set_features(&mut self) {
        match self.s.feature as u8 {
            0x02 => self.s.write_cache = true,
            0x82 => {
                self.s.write_cache = false;
                return self.flush_cache();
            }
            0x03 => match self.s.count as u8 {
                // Default, default without IORDY, flow control modes 0 to 4.
                0x00 | 0x01 | 0x08..=0x0c => {}
                mode @ (0x20..=0x22 | 0x40..=0x45) => self.s.dma_mode = mode,
                _ => return self.fail(error::ABRT),
            },
            0x55 => self.s.read_ahead = false,
            0xaa => self.s.read_ahead = true,
            // Advanced power management and acoustics off, power-on defaults off and on.
            0x85 | 0xc2 | 0x66 | 0xcc => {}
            _ => return self.fail(error::ABRT),
        }
        self.complete();
    }

    /// DATA SET MANAGEMENT with TRIM: by DMA, 512-byte blocks of ranges.
    fn data_set_management(&mut self) {
        let (trim, blocks) = (self.s.feature & 1 != 0, self.s.count);
        let writable = self.disk.as_ref().is_some_and(|d| !d.read_only());
        if !trim || !writable || blocks == 0 || blocks > TRIM_BLOCKS {
            return self.fail(error::ABRT);
        }
        let left = u64::from(blocks);
        self.s.transfer = Transfer { lba: 0, offset: 0, left, block: 1, fua: false, ext: true };
        self.await_dma(Phase::DmaOut);
    }

    fn trim(&mut self, ranges: &[u8]) {
        let Some(disk) = self.disk.clone() else { return self.fail(error::ABRT) };
        for range in ranges.chunks_exact(8) {
            let range = u64::from_le_bytes(range.try_into().unwrap_or_default());
            let (lba, n) = (range & 0xffff_ffff_ffff, range >> 48);
            if n == 0 {
                continue;
            }
            if lba + n > self.sectors() {
                return self.fail(error::IDNF);
            }
            if let Err(error) = disk.discard(lba * SECTOR, n * SECTOR) {
                return self.host_failed(&error);
            }
        }
        if self.s.transfer.left == 0 {
            self.complete();
        }
    }

    /// SMART: a drive in good health that keeps no logs.
    fn smart(&mut self) {
        let s = &mut self.s;
        if (s.lba_mid & 0xff, s.lba_high & 0xff) != (0x4f, 0xc2)
            || (!s.smart && s.feature as u8 != 0xd8)
        {
            return self.fail(error::ABRT);
        }
        match s.feature as u8 {
            // READ DATA, READ THRESHOLDS: revision and checksum, no attributes.
            0xd0 | 0xd1 => {
                let mut page = vec![0; SECTOR as usize];
                page[0] = 1;
                page[511] = 0xff;
                s.buffer = page;
                s.transfer.left = 0;
                return self.offer();
            }
            // ATTRIBUTE AUTOSAVE, SAVE ATTRIBUTES, EXECUTE OFF-LINE: done.
            0xd2..=0xd4 => {}
            0xd8 => s.smart = true,
            0xd9 => s.smart = false,
            // RETURN STATUS: the registers unchanged mean no threshold is exceeded.
            0xda => {}
            _ => return self.fail(error::ABRT),
        }
        self.complete();
    }
}
