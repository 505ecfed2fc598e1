//! The ATAPI CD-ROM: the PACKET protocol (ATA/ATAPI-6, section 9.8), the sense and the tray (MMC-5, chapter 4).

use super::drive::{Drive, Phase, Transfer, error, reason, status};
use super::identify::identify_cdrom;
use serde::{Deserialize, Serialize};
use tulk_block::Disk;

/// Bytes of user data in a sector.
pub(super) const CD_SECTOR: u64 = 2048;

/// Where the medium is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub enum Tray {
    #[default]
    Closed,
    Open,
}

/// What a command's data are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub(super) enum Source {
    /// [`CdState::response`].
    #[default]
    Response,
    /// The user data of sectors.
    Cooked,
    /// Whole sectors of 2352 bytes.
    Raw,
}

/// Sense key, additional sense code and its qualifier.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub(super) struct Sense(pub u8, pub u8, pub u8);

pub(super) mod sense {
    use super::Sense;
    pub const NO_MEDIUM: Sense = Sense(2, 0x3a, 1);
    pub const TRAY_OPEN: Sense = Sense(2, 0x3a, 2);
    pub const READ_ERROR: Sense = Sense(3, 0x11, 0);
    pub const INVALID_COMMAND: Sense = Sense(5, 0x20, 0);
    pub const OUT_OF_RANGE: Sense = Sense(5, 0x21, 0);
    pub const INVALID_FIELD: Sense = Sense(5, 0x24, 0);
    pub const NO_SAVED_PARAMETERS: Sense = Sense(5, 0x39, 0);
    pub const REMOVAL_PREVENTED: Sense = Sense(5, 0x53, 2);
    pub const MEDIUM_CHANGED: Sense = Sense(6, 0x28, 0);
}

/// Media events of GET EVENT STATUS NOTIFICATION.
pub(super) mod event {
    pub const EJECT_REQUEST: u8 = 1;
    pub const NEW_MEDIA: u8 = 2;
    pub const MEDIA_REMOVAL: u8 = 3;
}

#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub(super) struct CdState {
    pub tray: Tray,
    /// Software prevents removal.
    pub locked: bool,
    pub sense: Sense,
    /// The medium may have changed, and no command has said so yet.
    pub attention: bool,
    /// The media event that is not reported yet, or 0.
    pub event: u8,
    pub source: Source,
    pub response: Vec<u8>,
    /// The packet's data go by DMA.
    dma: bool,
}

/// A packet command.
pub(super) struct PacketCommand {
    pub code: u8,
    pub needs_medium: bool,
    /// Runs although a unit attention is pending.
    pub in_attention: bool,
    pub run: fn(&mut Drive, &[u8; 12]),
}

impl Drive {
    pub(super) fn medium(&self) -> Option<&dyn Disk> {
        self.disk.as_deref().filter(|_| self.s.cd.tray == Tray::Closed)
    }

    /// Sectors of the medium.
    pub(super) fn cd_sectors(&self) -> u64 {
        self.medium().map_or(0, |d| d.len() / CD_SECTOR)
    }

    pub(super) fn cd_command(&mut self, code: u8) {
        match code {
            // DEVICE RESET: no interrupt.
            0x08 => self.signature(),
            0xa0 => self.packet_command(),
            0xa1 => {
                self.s.cd.response.clear();
                self.s.buffer = identify_cdrom(self);
                let transfer = &mut self.s.transfer;
                (transfer.offset, transfer.left) = (0, 0);
                self.offer();
            }
            0xef => match (self.s.feature as u8, self.s.count as u8) {
                (0x03, 0x00 | 0x01 | 0x08..=0x0c) => self.complete(),
                (0x03, mode @ (0x20..=0x22 | 0x40..=0x45)) => {
                    self.s.dma_mode = mode;
                    self.complete();
                }
                (0x02 | 0x82 | 0x55 | 0xaa | 0x66 | 0xcc, _) => self.complete(),
                _ => self.fail(error::ABRT),
            },
            // Power modes, FLUSH CACHE.
            0xe0..=0xe3 | 0xe6 | 0xe7 => self.complete(),
            0xe5 => {
                self.s.count = 0xff;
                self.complete();
            }
            // IDENTIFY DEVICE and READ SECTORS: software finds by the signature what this is.
            0xec | 0x20 => {
                self.signature();
                self.fail(error::ABRT);
            }
            _ => self.fail(error::ABRT),
        }
    }

    fn packet_command(&mut self) {
        let s = &mut self.s;
        // Overlap is not supported.
        if s.feature & 2 != 0 {
            return self.fail(error::ABRT);
        }
        s.cd.dma = s.feature & 1 != 0;
        let limit = u32::from(s.lba_mid & 0xff | s.lba_high << 8);
        let block = match limit {
            0 | 0xffff => 0xfffe,
            1 => 1,
            n => n & !1,
        };
        s.transfer = Transfer { lba: 0, offset: 0, left: 0, block, fua: false, ext: false };
        s.count = reason::COMMAND.into();
        self.request(Phase::Packet, 12, false);
    }

    /// The packet is complete.
    pub(super) fn cd_packet(&mut self) {
        let packet: [u8; 12] = self.s.buffer[..].try_into().unwrap_or_default();
        self.end_data();
        let Some(command) = super::cd_data::COMMANDS.iter().find(|c| c.code == packet[0]) else {
            return self.cd_fail(sense::INVALID_COMMAND);
        };
        if self.s.cd.attention && !command.in_attention {
            self.s.cd.attention = false;
            return self.cd_fail(sense::MEDIUM_CHANGED);
        }
        if command.needs_medium && self.medium().is_none() {
            return self.cd_no_medium();
        }
        if packet[0] != 0x03 {
            self.s.cd.sense = Sense::default();
        }
        (command.run)(self, &packet);
    }

    pub(super) fn cd_no_medium(&mut self) {
        let open = self.s.cd.tray == Tray::Open;
        self.cd_fail(if open { sense::TRAY_OPEN } else { sense::NO_MEDIUM });
    }

    pub(super) fn cd_complete(&mut self) {
        self.s.count = (reason::COMMAND | reason::TO_HOST).into();
        self.complete();
    }

    pub(super) fn cd_fail(&mut self, sense: Sense) {
        self.s.cd.sense = sense;
        self.s.count = (reason::COMMAND | reason::TO_HOST).into();
        self.fail(sense.0 << 4 | error::ABRT);
    }

    /// Sends at most `allocated` bytes of a response.
    pub(super) fn respond(&mut self, mut response: Vec<u8>, allocated: usize) {
        response.truncate(allocated);
        let left = response.len() as u64;
        self.s.cd.response = response;
        self.send(Source::Response, 0, left);
    }

    /// Sends sectors, which are on the medium.
    pub(super) fn send(&mut self, source: Source, lba: u64, bytes: u64) {
        self.s.cd.source = source;
        let transfer = &mut self.s.transfer;
        (transfer.lba, transfer.offset, transfer.left) = (lba, 0, bytes);
        if bytes == 0 {
            self.cd_complete();
        } else if self.s.cd.dma {
            self.s.count = reason::TO_HOST.into();
            self.await_dma(Phase::DmaIn);
        } else {
            self.cd_block_read();
        }
    }

    /// The host has read a block, or none yet: the next one, or the end.
    pub(super) fn cd_block_read(&mut self) {
        if self.s.command == 0xa1 {
            self.end_data();
            self.s.status = status::DRDY | status::DSC;
            return;
        }
        let Transfer { offset, left, block, .. } = self.s.transfer;
        if offset >= left {
            return self.cd_complete();
        }
        let n = (left - offset).min(block.into());
        let mut buffer = std::mem::take(&mut self.s.buffer);
        buffer.resize(n as usize, 0);
        let result = self.cd_stream(offset, &mut buffer);
        self.s.buffer = buffer;
        if !result {
            return self.cd_fail(sense::READ_ERROR);
        }
        self.s.transfer.offset += n;
        self.s.count = reason::TO_HOST.into();
        (self.s.lba_mid, self.s.lba_high) = (n as u16 & 0xff, n as u16 >> 8);
        self.offer();
    }

    pub(super) fn cd_dma_read(&mut self, out: &mut [u8]) -> usize {
        let offset = self.s.transfer.offset;
        if !self.cd_stream(offset, out) {
            self.cd_fail(sense::READ_ERROR);
            return 0;
        }
        self.s.transfer.offset += out.len() as u64;
        if self.s.transfer.offset >= self.s.transfer.left {
            self.cd_complete();
        }
        out.len()
    }

    /// Puts another medium into the drive, or none. The tray is closed then.
    pub(super) fn set_medium(&mut self, medium: Option<std::sync::Arc<dyn Disk>>) {
        self.s.cd.attention = medium.is_some();
        self.s.cd.event = if medium.is_some() { event::NEW_MEDIA } else { event::MEDIA_REMOVAL };
        self.s.cd.tray = Tray::Closed;
        self.s.cd.locked &= medium.is_some();
        self.disk = medium;
    }

    pub(super) fn move_tray(&mut self, tray: Tray) {
        if self.s.cd.tray == tray {
            return;
        }
        self.s.cd.tray = tray;
        if self.disk.is_some() {
            let closed = tray == Tray::Closed;
            self.s.cd.attention = closed;
            self.s.cd.event = if closed { event::NEW_MEDIA } else { event::MEDIA_REMOVAL };
        }
    }
}
