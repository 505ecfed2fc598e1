//! A drive's registers and data phases (ATA/ATAPI-6, chapters 7 and 9), which disks and CD-ROMs have in common.

use super::atapi::CdState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_block::{Disk, SECTOR};

/// Bits of the status register.
pub(super) mod status {
    pub const BSY: u8 = 0x80;
    pub const DRDY: u8 = 0x40;
    pub const DSC: u8 = 0x10;
    pub const DRQ: u8 = 0x08;
    pub const ERR: u8 = 0x01;
}

/// Bits of the error register.
pub(super) mod error {
    pub const UNC: u8 = 0x40;
    pub const IDNF: u8 = 0x10;
    pub const ABRT: u8 = 0x04;
    /// No bit at all: the host asks to try again later ([`super::Drive::stall`]).
    pub const WAIT: u8 = 0;

    /// The bits for an error of the host.
    pub fn of(error: &std::io::Error, bits: u8) -> u8 {
        if tulk_block::is_waiting(error) { WAIT } else { bits }
    }
}

/// Bits of the interrupt reason, which ATAPI has in place of the sector count.
pub(super) mod reason {
    pub const COMMAND: u8 = 1;
    pub const TO_HOST: u8 = 2;
}

/// Bits of the device register.
pub(super) mod device {
    pub const LBA: u8 = 0x40;
    pub const DEV: u8 = 0x10;
}

/// Most bytes that one host read or write moves.
pub(super) const CHUNK: usize = 2 << 20;

/// What kind of drive is on the cable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriveKind {
    Disk,
    Cdrom,
}

/// A drive as the board gives it to a controller.
pub struct Attachment {
    pub kind: DriveKind,
    /// The disk, or the CD-ROM's medium if there is one.
    pub disk: Option<Arc<dyn Disk>>,
    /// At most 20 characters of ASCII.
    pub serial: String,
    /// At most 40 characters of ASCII.
    pub model: String,
}

impl Attachment {
    pub fn disk(disk: Arc<dyn Disk>) -> Attachment {
        Attachment {
            kind: DriveKind::Disk,
            disk: Some(disk),
            serial: "TK00001".into(),
            model: "TULK HARDDISK".into(),
        }
    }
    pub fn cdrom(medium: Option<Arc<dyn Disk>>) -> Attachment {
        Attachment {
            kind: DriveKind::Cdrom,
            disk: medium,
            serial: "TK00002".into(),
            model: "TULK DVD-ROM".into(),
        }
    }
}

/// What the drive expects from the host.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) enum Phase {
    Idle,
    /// The host reads the buffer by the data register.
    PioIn,
    PioOut,
    /// The host writes the 12 bytes of a packet.
    Packet,
    DmaIn,
    DmaOut,
}

/// How a transfer goes on.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) struct Transfer {
    /// The next sector (of 512 bytes, or of the CD).
    pub lba: u64,
    /// Bytes that are done of the ATAPI stream.
    pub offset: u64,
    /// Sectors that are left (disk), or bytes in all (CD).
    pub left: u64,
    /// Sectors in a block of data (disk), or bytes (CD).
    pub block: u32,
    /// The last data of a write is to be on stable storage.
    pub fua: bool,
    /// The LBA registers have 48 bits.
    pub ext: bool,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(super) struct State {
    pub status: u8,
    pub error: u8,
    /// These five keep the byte that was written before in their high half.
    pub feature: u16,
    pub count: u16,
    pub lba_low: u16,
    pub lba_mid: u16,
    pub lba_high: u16,
    pub device: u8,
    pub command: u8,
    /// The interrupt is pending.
    pub intrq: bool,
    pub phase: Phase,
    pub transfer: Transfer,
    pub buffer: Vec<u8>,
    /// Where in the buffer the host is.
    pub position: usize,
    /// READ and WRITE MULTIPLE: sectors in a block, 0 when not allowed.
    pub multiple: u8,
    /// Geometry of INITIALIZE DEVICE PARAMETERS.
    pub heads: u8,
    pub sectors: u8,
    pub write_cache: bool,
    pub read_ahead: bool,
    /// What SET FEATURES chose: 0x20 and 0x40 with the mode, for multiword and ultra DMA.
    pub dma_mode: u8,
    pub standby: bool,
    pub smart: bool,
    /// Busy until the host can go on with the command.
    pub stalled: bool,
    pub cd: CdState,
}

/// Buffers hold at most this: a block of PIO data.
const MAX_BUFFER: usize = 128 << 10;

impl State {
    fn new(kind: DriveKind) -> State {
        State {
            status: if kind == DriveKind::Disk { status::DRDY | status::DSC } else { 0 },
            error: 1,
            feature: 0,
            count: 1,
            lba_low: 1,
            lba_mid: if kind == DriveKind::Disk { 0 } else { 0x14 },
            lba_high: if kind == DriveKind::Disk { 0 } else { 0xeb },
            device: 0,
            command: 0,
            intrq: false,
            phase: Phase::Idle,
            transfer: Transfer { lba: 0, offset: 0, left: 0, block: 1, fua: false, ext: false },
            buffer: Vec::new(),
            position: 0,
            multiple: 16,
            heads: 16,
            sectors: 63,
            write_cache: true,
            read_ahead: true,
            dma_mode: 0x45,
            standby: false,
            smart: true,
            stalled: false,
            cd: CdState::default(),
        }
    }

    /// Whether it can be a snapshot of a drive.
    pub fn check(&self) -> Result<(), String> {
        let t = &self.transfer;
        let fits = self.buffer.len() <= MAX_BUFFER
            && self.position <= self.buffer.len()
            && self.multiple <= 16
            && (1..=16).contains(&self.heads)
            && self.sectors >= 1
            && (1..=0xfffe).contains(&t.block)
            && t.left <= 1 << 40
            && t.offset <= t.left.max(1 << 40)
            && t.lba <= 1 << 48;
        if fits { Ok(()) } else { Err("values out of range".into()) }
    }
}

/// A drive: its state, what it is, its medium.
pub(super) struct Drive {
    pub s: State,
    pub kind: DriveKind,
    pub disk: Option<Arc<dyn Disk>>,
    pub serial: String,
    pub model: String,
}

impl Drive {
    pub fn new(attachment: Attachment) -> Drive {
        let Attachment { kind, disk, serial, model } = attachment;
        Drive { s: State::new(kind), kind, disk, serial, model }
    }

    /// Behind power-on; the tray closes.
    pub fn reset(&mut self) {
        self.s = State::new(self.kind);
    }

    /// Behind SRST, EXECUTE DEVICE DIAGNOSTIC and DEVICE RESET: the signature, and all commands are over.
    pub fn signature(&mut self) {
        let fresh = State::new(self.kind);
        let s = &mut self.s;
        s.status = fresh.status;
        s.error = fresh.error;
        (s.count, s.lba_low) = (fresh.count, fresh.lba_low);
        (s.lba_mid, s.lba_high) = (fresh.lba_mid, fresh.lba_high);
        s.device &= device::DEV;
        s.intrq = false;
        s.standby = false;
        self.end_data();
    }

    pub fn end_data(&mut self) {
        self.s.phase = Phase::Idle;
        self.s.buffer.clear();
        self.s.position = 0;
        self.s.stalled = false;
    }

    /// The host cannot do it now: the drive is busy until [`Drive::retry`]. Nothing of the access counts as done.
    pub fn stall(&mut self) {
        self.s.stalled = true;
        self.s.status = status::BSY;
        self.s.intrq = false;
    }

    /// Ends the command: ready, with an interrupt.
    pub fn complete(&mut self) {
        self.end_data();
        self.s.status = status::DRDY | status::DSC;
        self.s.intrq = true;
    }

    /// Ends the command with bits of the error register.
    pub fn fail(&mut self, error: u8) {
        self.end_data();
        self.s.error = error;
        self.s.status = status::DRDY | status::DSC | status::ERR;
        self.s.intrq = true;
    }

    /// Starts the command in the command register.
    pub fn command(&mut self, code: u8) {
        self.s.command = code;
        self.s.intrq = false;
        self.s.error = 0;
        self.end_data();
        self.s.status = status::DRDY | status::DSC;
        match self.kind {
            DriveKind::Disk => self.ata_command(code),
            DriveKind::Cdrom => self.cd_command(code),
        }
    }

    /// Hands the buffer to the host, as one block of data.
    pub fn offer(&mut self) {
        self.s.phase = Phase::PioIn;
        self.s.position = 0;
        self.s.status = status::DRDY | status::DSC | status::DRQ;
        self.s.intrq = true;
    }

    /// Asks the host for `bytes`, with an interrupt unless it is the first block.
    pub fn request(&mut self, phase: Phase, bytes: usize, interrupt: bool) {
        self.s.phase = phase;
        self.s.position = 0;
        self.s.buffer.clear();
        self.s.buffer.resize(bytes, 0);
        self.s.status = status::DRDY | status::DSC | status::DRQ;
        self.s.intrq = interrupt;
    }

    /// Waits for the bus master.
    pub fn await_dma(&mut self, phase: Phase) {
        self.s.phase = phase;
        self.s.status = status::DRDY | status::DSC | status::DRQ;
    }

    /// A read of the data register: 2 or 4 bytes (a byte is half a word, lost).
    #[inline]
    pub fn data_read(&mut self, bytes: u8) -> u32 {
        let s = &mut self.s;
        if s.phase != Phase::PioIn || s.stalled {
            return 0;
        }
        let rest = &s.buffer[s.position..];
        let value = match (bytes, rest) {
            (4, [a, b, c, d, ..]) => u32::from_le_bytes([*a, *b, *c, *d]),
            (_, [a, b, ..]) => u32::from(u16::from_le_bytes([*a, *b])),
            (_, [a]) => u32::from(*a),
            (_, []) => 0,
        };
        s.position = s.buffer.len().min(s.position + if bytes == 4 { 4 } else { 2 });
        if s.position == s.buffer.len() {
            self.block_read();
        }
        if bytes == 1 { value & 0xff } else { value }
    }

    #[inline]
    pub fn data_write(&mut self, bytes: u8, value: u32) {
        let s = &mut self.s;
        if !matches!(s.phase, Phase::PioOut | Phase::Packet) || s.stalled {
            return;
        }
        let n = (s.buffer.len() - s.position).min(if bytes == 4 { 4 } else { 2 });
        s.buffer[s.position..s.position + n].copy_from_slice(&value.to_le_bytes()[..n]);
        s.position += n;
        if s.position == s.buffer.len() {
            self.block_written();
        }
    }

    fn block_read(&mut self) {
        match self.kind {
            DriveKind::Disk => self.ata_block_read(),
            DriveKind::Cdrom => self.cd_block_read(),
        }
    }

    fn block_written(&mut self) {
        match (self.kind, self.s.phase) {
            (DriveKind::Disk, _) => self.ata_block_written(),
            (DriveKind::Cdrom, Phase::Packet) => self.cd_packet(),
            // No packet takes data from the host.
            (DriveKind::Cdrom, _) => self.fail(error::ABRT),
        }
    }

    /// Bytes that the DMA phase has still to move.
    pub fn dma_left(&self) -> u64 {
        let t = &self.s.transfer;
        match (self.s.phase, self.kind) {
            _ if self.s.stalled => 0,
            (Phase::DmaIn | Phase::DmaOut, DriveKind::Disk) => t.left.saturating_mul(SECTOR),
            (Phase::DmaIn, DriveKind::Cdrom) => t.left.saturating_sub(t.offset),
            _ => 0,
        }
    }

    /// Moves data to the host: fills `out` from the drive; what is less is an error, by which the command is over.
    /// A part of a sector at the end is delivered, but counts as not read.
    pub fn dma_read(&mut self, out: &mut [u8]) -> usize {
        match self.kind {
            DriveKind::Disk => self.ata_dma_read(out),
            DriveKind::Cdrom => self.cd_dma_read(out),
        }
    }

    /// Moves data to the drive: whole sectors of it.
    pub fn dma_write(&mut self, data: &[u8]) {
        if self.kind == DriveKind::Disk {
            self.ata_dma_write(data);
        }
    }
}
