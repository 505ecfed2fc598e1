//! The packet commands of a CD-ROM (MMC-5, chapter 6; SPC-3 for those that all devices have).

use super::atapi::{CD_SECTOR, PacketCommand, Sense, Source, Tray, sense};
use super::drive::Drive;
use tulk_block::{Disk, SECTOR};

const fn row(
    code: u8,
    needs_medium: bool,
    in_attention: bool,
    run: fn(&mut Drive, &[u8; 12]),
) -> PacketCommand {
    PacketCommand { code, needs_medium, in_attention, run }
}

/// Code, whether it needs a medium, whether it runs before a unit attention is reported.
pub(super) static COMMANDS: &[PacketCommand] = &[
    row(0x00, true, false, |d, _| d.cd_complete()), // TEST UNIT READY
    row(0x03, false, true, request_sense),
    row(0x12, false, true, inquiry),
    row(0x1b, false, false, start_stop_unit),
    row(0x1e, false, false, prevent_removal),
    row(0x25, true, false, read_capacity),
    row(0x28, true, false, |d, p| d.read_cooked(be32(p, 2), be16(p, 7).into())), // READ(10)
    row(0x2b, true, false, seek),
    row(0x42, true, false, read_subchannel),
    row(0x43, true, false, read_toc),
    row(0x46, false, true, get_configuration),
    row(0x4a, false, true, get_event_status),
    row(0x51, true, false, read_disc_information),
    row(0x5a, false, false, mode_sense),
    row(0xa8, true, false, |d, p| d.read_cooked(be32(p, 2), be32(p, 6))), // READ(12)
    row(0xb9, true, false, read_cd_msf),
    row(0xbb, false, false, |d, _| d.cd_complete()), // SET CD SPEED
    row(0xbd, false, true, mechanism_status),
    row(0xbe, true, false, read_cd),
];

fn be16(packet: &[u8; 12], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn be32(packet: &[u8; 12], at: usize) -> u32 {
    u32::from(be16(packet, at)) << 16 | u32::from(be16(packet, at + 2))
}

/// Bytes of a raw sector.
const RAW: u64 = 2352;

/// Sectors before sector 0, in minutes, seconds and frames of 1/75 s.
const PREGAP: u64 = 150;

fn msf(lba: u64) -> [u8; 3] {
    let frames = lba + PREGAP;
    [(frames / 4500) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

/// An address as a table of contents has it.
fn address(lba: u64, as_msf: bool) -> [u8; 4] {
    let [m, s, f] = msf(lba);
    if as_msf { [0, m, s, f] } else { (lba as u32).to_be_bytes() }
}

fn bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

impl Drive {
    fn read_cooked(&mut self, lba: u32, sectors: u32) {
        self.send_sectors(Source::Cooked, lba.into(), sectors.into(), CD_SECTOR);
    }

    fn send_sectors(&mut self, source: Source, lba: u64, sectors: u64, size: u64) {
        if lba + sectors > self.cd_sectors() {
            return self.cd_fail(sense::OUT_OF_RANGE);
        }
        self.send(source, lba, sectors * size);
    }

    /// Fills `out` from byte `offset` of what the command sends. False when the host cannot read it.
    pub(super) fn cd_stream(&self, offset: u64, out: &mut [u8]) -> bool {
        let lba = self.s.transfer.lba;
        match self.s.cd.source {
            Source::Response => {
                let from = (offset as usize).min(self.s.cd.response.len());
                let rest = &self.s.cd.response[from..];
                let n = rest.len().min(out.len());
                out[..n].copy_from_slice(&rest[..n]);
                n == out.len()
            }
            Source::Cooked => {
                let medium = self.medium();
                medium.is_some_and(|m| read_bytes(m, lba * CD_SECTOR + offset, out))
            }
            Source::Raw => self.medium().is_some_and(|m| read_raw(m, lba, offset, out)),
        }
    }
}

/// Reads from any byte on.
fn read_bytes(medium: &dyn Disk, offset: u64, out: &mut [u8]) -> bool {
    let (skip, len) = (offset % SECTOR, out.len() as u64);
    if skip == 0 && len.is_multiple_of(SECTOR) {
        return medium.read_at(offset, out).is_ok();
    }
    let mut whole = vec![0; (skip + len).next_multiple_of(SECTOR) as usize];
    let ok = medium.read_at(offset - skip, &mut whole).is_ok();
    out.copy_from_slice(&whole[skip as usize..][..out.len()]);
    ok
}

/// Whole sectors of mode 1 (ECMA-130, chapter 14): sync, header, user data. The error correction reads as zeros.
fn read_raw(medium: &dyn Disk, lba: u64, offset: u64, out: &mut [u8]) -> bool {
    let mut done = 0;
    while done < out.len() {
        let at = offset + done as u64;
        let (sector, skip) = (lba + at / RAW, (at % RAW) as usize);
        let mut raw = [0; RAW as usize];
        raw[1..11].fill(0xff);
        raw[12..15].copy_from_slice(&msf(sector).map(bcd));
        raw[15] = 1;
        if medium.read_at(sector * CD_SECTOR, &mut raw[16..16 + CD_SECTOR as usize]).is_err() {
            return false;
        }
        let n = (out.len() - done).min(raw.len() - skip);
        out[done..done + n].copy_from_slice(&raw[skip..skip + n]);
        done += n;
    }
    true
}

fn request_sense(d: &mut Drive, packet: &[u8; 12]) {
    if std::mem::take(&mut d.s.cd.attention) {
        d.s.cd.sense = sense::MEDIUM_CHANGED;
    }
    let Sense(key, code, qualifier) = std::mem::take(&mut d.s.cd.sense);
    let mut data = vec![0; 18];
    data[0] = 0x70;
    data[2] = key;
    data[7] = 10;
    data[12] = code;
    data[13] = qualifier;
    d.respond(data, packet[4].into());
}

fn inquiry(d: &mut Drive, packet: &[u8; 12]) {
    // No vital product data.
    if packet[1] & 1 != 0 || packet[2] != 0 {
        return d.cd_fail(sense::INVALID_FIELD);
    }
    // CD-ROM, removable, ATAPI response format, 31 more bytes.
    let mut data = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
    data.extend_from_slice(b"TULK    ");
    data.extend_from_slice(b"DVD-ROM         ");
    data.extend_from_slice(b"1.0 ");
    d.respond(data, be16(packet, 3).into());
}

fn start_stop_unit(d: &mut Drive, packet: &[u8; 12]) {
    // Power conditions move nothing.
    if packet[4] & 0xf0 == 0 && packet[4] & 2 != 0 {
        let tray = if packet[4] & 1 != 0 { Tray::Closed } else { Tray::Open };
        if tray == Tray::Open && d.s.cd.locked {
            return d.cd_fail(sense::REMOVAL_PREVENTED);
        }
        d.move_tray(tray);
    }
    d.cd_complete();
}

fn prevent_removal(d: &mut Drive, packet: &[u8; 12]) {
    d.s.cd.locked = packet[4] & 1 != 0;
    d.cd_complete();
}

fn read_capacity(d: &mut Drive, _packet: &[u8; 12]) {
    let last = d.cd_sectors().saturating_sub(1) as u32;
    let data = [last.to_be_bytes(), (CD_SECTOR as u32).to_be_bytes()].concat();
    d.respond(data, 8);
}

fn seek(d: &mut Drive, packet: &[u8; 12]) {
    if u64::from(be32(packet, 2)) >= d.cd_sectors() {
        return d.cd_fail(sense::OUT_OF_RANGE);
    }
    d.cd_complete();
}

fn read_subchannel(d: &mut Drive, packet: &[u8; 12]) {
    // No audio is playing.
    let mut data = vec![0, 0x15, 0, 0];
    if packet[2] & 0x40 != 0 {
        match packet[3] {
            // Current position: track 1, index 1.
            1 => {
                data.extend([1, 0x14, 1, 1]);
                data.extend([address(0, packet[1] & 2 != 0), [0; 4]].concat());
            }
            // Media catalogue number, ISRC: there is none.
            n @ 2..=3 => data.extend([&[n, 0x14, 1, 0][..], &[0; 16]].concat()),
            _ => return d.cd_fail(sense::INVALID_FIELD),
        }
    }
    data[3] = data.len() as u8 - 4;
    d.respond(data, be16(packet, 7).into());
}

/// Control field: a data track; ADR 1.
const DATA_TRACK: u8 = 0x14;

fn read_toc(d: &mut Drive, packet: &[u8; 12]) {
    let (as_msf, first, end) = (packet[1] & 2 != 0, packet[6], d.cd_sectors());
    // SFF-8020i has the format in the control byte.
    let format = match packet[2] & 15 {
        0 => packet[9] >> 6,
        format => format,
    };
    let mut data = vec![0, 0, 1, 1];
    match format {
        0 => {
            if first > 1 && first != 0xaa {
                return d.cd_fail(sense::INVALID_FIELD);
            }
            if first <= 1 {
                data.extend([0, DATA_TRACK, 1, 0]);
                data.extend(address(0, as_msf));
            }
            data.extend([0, DATA_TRACK | 2, 0xaa, 0]);
            data.extend(address(end, as_msf));
        }
        // The first track of the last session.
        1 => {
            data.extend([0, DATA_TRACK, 1, 0]);
            data.extend(address(0, as_msf));
        }
        // As it is in the lead-in: first track, last track, lead-out, track 1.
        2 => {
            for (point, place) in
                [(0xa0, [1, 0, 0]), (0xa1, [1, 0, 0]), (0xa2, msf(end)), (1, msf(0))]
            {
                data.extend([1, DATA_TRACK, 0, point, 0, 0, 0, 0]);
                data.extend(place);
            }
        }
        _ => return d.cd_fail(sense::INVALID_FIELD),
    }
    let len = (data.len() as u16 - 2).to_be_bytes();
    data[..2].copy_from_slice(&len);
    d.respond(data, be16(packet, 7).into());
}

/// Profiles.
const CD_ROM: u16 = 0x0008;
const DVD_ROM: u16 = 0x0010;

/// Most sectors of a CD: 80 minutes and some; larger media are DVDs.
const CD_MAX_SECTORS: u64 = 450_000;

fn get_configuration(d: &mut Drive, packet: &[u8; 12]) {
    let (kind, start) = (packet[1] & 3, be16(packet, 2));
    let profile = match d.cd_sectors() {
        0 => 0,
        n if n <= CD_MAX_SECTORS => CD_ROM,
        _ => DVD_ROM,
    };
    let (cd, dvd) = (u8::from(profile == CD_ROM), u8::from(profile == DVD_ROM));
    let present = cd | dvd;
    // Feature, version and flags (persistent, current), data.
    let features: [(u16, u8, &[u8]); 6] = [
        (0x0000, 0x03, &[0, DVD_ROM as u8, dvd, 0, 0, CD_ROM as u8, cd, 0]),
        // Core: ATAPI.
        (0x0001, 0x0b, &[0, 0, 0, 2, 1, 0, 0, 0]),
        // Removable medium: a tray that ejects and locks.
        (0x0003, 0x0b, &[0x29, 0, 0, 0]),
        // Random readable: 2048 bytes, one at a time.
        (0x0010, present, &[0, 0, 8, 0, 0, 1, 0, 0]),
        // CD read, DVD read.
        (0x001e, 0x08 | cd, &[0, 0, 0, 0]),
        (0x001f, dvd, &[]),
    ];
    let mut data = vec![0; 6];
    data.extend(profile.to_be_bytes());
    for (feature, flags, body) in features {
        let wanted = match kind {
            0 => feature >= start,
            1 => feature >= start && flags & 1 != 0,
            2 => feature == start,
            _ => return d.cd_fail(sense::INVALID_FIELD),
        };
        if wanted {
            data.extend(feature.to_be_bytes());
            data.extend([flags, body.len() as u8]);
            data.extend(body);
        }
    }
    let len = (data.len() as u32 - 4).to_be_bytes();
    data[..4].copy_from_slice(&len);
    d.respond(data, be16(packet, 7).into());
}

/// The media class of GET EVENT STATUS NOTIFICATION, and its bit.
const MEDIA_CLASS: u8 = 4;

fn get_event_status(d: &mut Drive, packet: &[u8; 12]) {
    // Only polled.
    if packet[1] & 1 == 0 {
        return d.cd_fail(sense::INVALID_FIELD);
    }
    let supported = 1 << MEDIA_CLASS;
    if packet[4] & supported == 0 {
        return d.respond(vec![0, 2, 0x80, supported], be16(packet, 7).into());
    }
    let event = std::mem::take(&mut d.s.cd.event);
    let open = u8::from(d.s.cd.tray == Tray::Open);
    let present = u8::from(d.medium().is_some()) << 1;
    let data = vec![0, 6, MEDIA_CLASS, supported, event, open | present, 0, 0];
    d.respond(data, be16(packet, 7).into());
}

fn read_disc_information(d: &mut Drive, packet: &[u8; 12]) {
    let mut data = vec![0; 34];
    data[1] = 32;
    // Complete and finalised; one session with one track; unrestricted use.
    data[2] = 0x0e;
    data[3..7].fill(1);
    data[7] = 0x20;
    data[16..24].fill(0xff);
    d.respond(data, be16(packet, 7).into());
}

fn mode_sense(d: &mut Drive, packet: &[u8; 12]) {
    let (control, page) = (packet[2] >> 6, packet[2] & 0x3f);
    if control == 3 {
        return d.cd_fail(sense::NO_SAVED_PARAMETERS);
    }
    // Read error recovery; capabilities: reads CD-R, CD-RW, DVD-ROM; mode 2; tray, eject, lock; 50x.
    let lock = if d.s.cd.locked { 2 } else { 0 };
    let recovery = [0x01, 6, 0, 5, 0, 0, 0, 0];
    let mut capabilities = [0u8; 22];
    capabilities[..8].copy_from_slice(&[0x2a, 20, 0x3b, 0, 0x70, 0, 0x29 | lock, 0]);
    capabilities[8..10].copy_from_slice(&8816u16.to_be_bytes());
    capabilities[10..12].copy_from_slice(&2u16.to_be_bytes());
    capabilities[12..14].copy_from_slice(&512u16.to_be_bytes());
    capabilities[14..16].copy_from_slice(&8816u16.to_be_bytes());
    let mut data = vec![0; 8];
    // Medium type: door closed with data, no disc, door open.
    data[2] = match (d.s.cd.tray, d.medium()) {
        (Tray::Open, _) => 0x71,
        (_, None) => 0x70,
        _ => 0x01,
    };
    let pages: [&[u8]; 2] = [&recovery, &capabilities];
    let chosen: Vec<_> = pages.into_iter().filter(|p| page == 0x3f || p[0] == page).collect();
    if chosen.is_empty() {
        return d.cd_fail(sense::INVALID_FIELD);
    }
    for body in chosen {
        data.extend(&body[..2]);
        // Nothing is changeable.
        data.extend(body[2..].iter().map(|b| if control == 1 { 0 } else { *b }));
    }
    let len = (data.len() as u16 - 2).to_be_bytes();
    data[..2].copy_from_slice(&len);
    d.respond(data, be16(packet, 7).into());
}

fn mechanism_status(d: &mut Drive, packet: &[u8; 12]) {
    let open = if d.s.cd.tray == Tray::Open { 0x10 } else { 0 };
    d.respond(vec![0, open, 0, 0, 0, 1, 0, 0], be16(packet, 8).into());
}

fn read_cd(d: &mut Drive, packet: &[u8; 12]) {
    let sectors = be32(packet, 6) >> 8;
    read_cd_sectors(d, packet, be32(packet, 2).into(), sectors.into());
}

fn read_cd_msf(d: &mut Drive, packet: &[u8; 12]) {
    let frames = |at: usize| {
        let [m, s, f] = [packet[at], packet[at + 1], packet[at + 2]].map(u64::from);
        ((m * 60 + s) * 75 + f).checked_sub(PREGAP)
    };
    match (frames(3), frames(6)) {
        (Some(start), Some(end)) if start <= end => {
            read_cd_sectors(d, packet, start, end - start);
        }
        _ => d.cd_fail(sense::INVALID_FIELD),
    }
}

fn read_cd_sectors(d: &mut Drive, packet: &[u8; 12], lba: u64, sectors: u64) {
    // Sector type: any, or mode 1. No sub-channel.
    if !matches!(packet[1] >> 2 & 7, 0 | 2) || packet[10] & 7 != 0 {
        return d.cd_fail(sense::INVALID_FIELD);
    }
    match packet[9] & 0xf8 {
        0x00 => d.cd_complete(),
        0x10 => d.send_sectors(Source::Cooked, lba, sectors, CD_SECTOR),
        0xf8 => d.send_sectors(Source::Raw, lba, sectors, RAW),
        _ => d.cd_fail(sense::INVALID_FIELD),
    }
}
