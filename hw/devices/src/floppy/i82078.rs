//! Intel 82078 floppy disk controller with up to four drives.
//!
//! Data sheet 290475-005. Commands take effect a moment after their last byte, by the device's deadline; data moves a
//! track at a time by DMA channel 2, or byte by byte in non-DMA mode.
//!
//! Not modelled: scan, save, restore, drive specification and option commands (they are invalid); deleted data marks
//! (written as ordinary data), CRC errors, motor spin-up and step rates, the tape drive register, formats with other
//! than 512-byte sectors.

use super::Media;
use crate::dma::I8237;
use crate::dma::i8237::Transfer;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use tulk_block::{Disk, SECTOR};
use tulk_hw::{Clock, Device, IrqLine, Snapshot, SnapshotError, snapshot_error};

/// The DMA channel of floppy controllers.
pub const DMA_CHANNEL: usize = 2;
/// Drives that the controller can select.
pub const DRIVES: usize = 4;

const SRA: u64 = 0;
const SRB: u64 = 1;
const DOR: u64 = 2;
const TDR: u64 = 3;
/// Read: main status. Write: data rate select.
const MSR_DSR: u64 = 4;
const FIFO: u64 = 5;
/// Read: digital input. Write: configuration control.
const DIR_CCR: u64 = 7;

const DOR_NOT_RESET: u8 = 1 << 2;
const DOR_DMA_GATE: u8 = 1 << 3;
const DSR_RESET: u8 = 1 << 7;
const MSR_RQM: u8 = 1 << 7;
const MSR_DIO: u8 = 1 << 6;
const MSR_NON_DMA: u8 = 1 << 5;
const MSR_BUSY: u8 = 1 << 4;
const DIR_CHANGED: u8 = 1 << 7;

const ST0_ABNORMAL: u8 = 0x40;
const ST0_INVALID: u8 = 0x80;
const ST0_READY_CHANGED: u8 = 0xc0;
const ST0_SEEK_END: u8 = 1 << 5;
const ST0_EQUIPMENT_CHECK: u8 = 1 << 4;
const ST1_END_OF_CYLINDER: u8 = 1 << 7;
const ST1_DATA_ERROR: u8 = 1 << 5;
const ST1_NO_DATA: u8 = 1 << 2;
const ST1_NOT_WRITABLE: u8 = 1 << 1;
const ST1_MISSING_MARK: u8 = 1 << 0;
const ST2_CONTROL_MARK: u8 = 1 << 6;
const ST2_DATA_ERROR: u8 = 1 << 5;
const ST2_WRONG_CYLINDER: u8 = 1 << 4;

const CONFIGURE_IMPLIED_SEEK: u8 = 1 << 6;
/// Without the FIFO, polling on.
const CONFIGURE_RESET: u8 = 0x20;

/// From a command's last byte to its effect.
const COMMAND_NS: u64 = 100_000;
/// Until DMA that is not ready is tried again.
const DMA_RETRY_NS: u64 = 1_000_000;

/// What a command does: table 5-1 of the data sheet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    ReadTrack,
    Specify,
    SenseDrive,
    Write,
    Read,
    Recalibrate,
    SenseInterrupt,
    ReadDeleted,
    Format,
    DumpRegisters,
    Seek,
    Version,
    Perpendicular,
    Configure,
    Lock,
    Verify,
    PartId,
    ReadId,
}

use Action::*;

/// Command bits that must match, their mask, bytes of the command.
const COMMANDS: &[(u8, u8, usize, Action)] = &[
    (0x02, 0x9f, 9, ReadTrack),
    (0x03, 0xff, 3, Specify),
    (0x04, 0xff, 2, SenseDrive),
    (0x05, 0x3f, 9, Write),
    (0x06, 0x1f, 9, Read),
    (0x07, 0xff, 2, Recalibrate),
    (0x08, 0xff, 1, SenseInterrupt),
    (0x09, 0x3f, 9, Write),
    (0x0a, 0xbf, 2, ReadId),
    (0x0c, 0x1f, 9, ReadDeleted),
    (0x0d, 0xbf, 6, Format),
    (0x0e, 0xff, 1, DumpRegisters),
    (0x0f, 0xff, 3, Seek),
    (0x10, 0xff, 1, Version),
    (0x12, 0xff, 2, Perpendicular),
    (0x13, 0xff, 4, Configure),
    (0x14, 0x7f, 1, Lock),
    (0x16, 0x1f, 9, Verify),
    (0x18, 0xff, 1, PartId),
    (0x8f, 0xbf, 3, Seek),
];

fn decode(command: u8) -> Option<(usize, Action)> {
    let row = COMMANDS.iter().find(|(bits, mask, ..)| command & mask == *bits);
    row.map(|&(_, _, length, action)| (length, action))
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
enum Phase {
    Command,
    /// Waits for its deadline, or for DMA.
    Execution,
    /// Bytes in `data` go to the host.
    PioRead,
    /// Bytes from the host are collected in `data`.
    PioWrite,
    Result,
}

#[derive(Clone, Serialize, Deserialize, Default)]
struct Drive {
    track: u8,
    /// The disk change line.
    changed: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct State {
    dor: u8,
    tdr: u8,
    /// Data rate, from DSR or CCR.
    rate: u8,
    phase: Phase,
    command: Vec<u8>,
    result: VecDeque<u8>,
    /// The sector (or the IDs of a track to format) on its way in non-DMA mode or when DMA stopped within it.
    data: VecDeque<u8>,
    deadline: Option<u64>,
    /// ST0 of finished seeks and resets that wait to be sensed, by drive.
    sense: VecDeque<(u8, u8)>,
    /// Drives that are seeking.
    seeking: u8,
    interrupt: bool,
    specify: [u8; 2],
    configure: [u8; 2],
    perpendicular: u8,
    lock: bool,
    /// End of track of the last read or write, for DUMPREG.
    last_sector: u8,
    /// Which sector of a track passes the head, for READ ID.
    rotation: u8,
    drives: [Drive; DRIVES],
}

/// The controller. Window 0 is eight ports, usually at 0x3f0 (0x3f6 is the IDE controller's); its interrupt is IRQ6.
pub struct I82078 {
    state: State,
    disks: [Option<(Arc<dyn Disk>, Media)>; DRIVES],
    /// Number of drives that are there.
    present: usize,
    clock: Arc<dyn Clock>,
    dma: Arc<Mutex<I8237>>,
    irq: IrqLine,
}

impl I82078 {
    /// A controller with `drives` empty drives.
    pub fn new(
        drives: usize,
        clock: Arc<dyn Clock>,
        dma: Arc<Mutex<I8237>>,
        irq: IrqLine,
    ) -> I82078 {
        let disks = [None, None, None, None];
        I82078 { state: Self::fresh(), disks, present: drives.min(DRIVES), clock, dma, irq }
    }

    fn fresh() -> State {
        State {
            dor: DOR_NOT_RESET | DOR_DMA_GATE,
            tdr: 0,
            rate: 2,
            phase: Phase::Command,
            command: vec![],
            result: VecDeque::new(),
            data: VecDeque::new(),
            deadline: None,
            sense: VecDeque::new(),
            seeking: 0,
            interrupt: false,
            specify: [0; 2],
            configure: [CONFIGURE_RESET, 0],
            perpendicular: 0,
            lock: false,
            last_sector: 0,
            rotation: 0,
            drives: [(); DRIVES].map(|()| Drive { track: 0, changed: true }),
        }
    }

    /// Puts a disk into a drive, or takes it out. False: no such drive, or a disk larger than all formats.
    pub fn insert(&mut self, drive: usize, disk: Option<Arc<dyn Disk>>) -> bool {
        if drive >= self.present {
            return false;
        }
        let new = match disk {
            None => None,
            Some(disk) => match Media::of_size(disk.len()) {
                None => return false,
                Some(media) => Some((disk, media)),
            },
        };
        self.disks[drive] = new;
        self.state.drives[drive].changed = true;
        true
    }

    /// What is in a drive.
    pub fn inserted(&self, drive: usize) -> Option<Arc<dyn Disk>> {
        self.disks.get(drive)?.as_ref().map(|(disk, _)| disk.clone())
    }

    /// Drives that there are.
    pub fn drives(&self) -> usize {
        self.present
    }

    /// Type of a drive for CMOS byte 0x10: as its disk needs it, 1.44M when it is empty, 0 if it is not there.
    pub fn drive_type(&self, drive: usize) -> u8 {
        if drive >= self.present {
            return 0;
        }
        self.disks[drive].as_ref().map_or(4, |(_, media)| media.drive_type)
    }

    fn set_interrupt(&mut self, on: bool) {
        self.state.interrupt = on;
        self.irq.set(on && self.state.dor & DOR_DMA_GATE != 0);
    }

    /// A reset by DOR or DSR: everything but what LOCK keeps.
    fn soft_reset(&mut self) {
        let old = std::mem::replace(&mut self.state, Self::fresh());
        let state = &mut self.state;
        (state.dor, state.tdr, state.rate) = (old.dor, old.tdr, old.rate);
        (state.specify, state.lock) = (old.specify, old.lock);
        (state.drives, state.rotation) = (old.drives, old.rotation);
        if old.lock {
            state.configure = old.configure;
        }
        // Perpendicular mode keeps the drives' bits, which only a hardware reset clears.
        state.perpendicular = old.perpendicular & 0x3c;
        self.set_interrupt(false);
    }

    /// Behind a reset the controller polls the drives, and finds that all have become ready.
    fn leave_reset(&mut self) {
        self.state.sense = (0..DRIVES as u8).map(|n| (n, ST0_READY_CHANGED | n)).collect();
        self.state.deadline = Some(self.clock.now() + COMMAND_NS);
    }

    fn in_reset(&self) -> bool {
        self.state.dor & DOR_NOT_RESET == 0
    }

    fn write_dor(&mut self, value: u8) {
        let before = std::mem::replace(&mut self.state.dor, value);
        if value & DOR_NOT_RESET == 0 {
            self.soft_reset();
        } else if before & DOR_NOT_RESET == 0 {
            self.leave_reset();
        }
        self.set_interrupt(self.state.interrupt);
    }

    fn msr(&self) -> u8 {
        if self.in_reset() {
            return 0;
        }
        let phase = match self.state.phase {
            Phase::Command if self.state.command.is_empty() => MSR_RQM,
            Phase::Command => MSR_RQM | MSR_BUSY,
            Phase::Execution => MSR_BUSY,
            Phase::PioRead => MSR_RQM | MSR_DIO | MSR_NON_DMA | MSR_BUSY,
            Phase::PioWrite => MSR_RQM | MSR_NON_DMA | MSR_BUSY,
            Phase::Result => MSR_RQM | MSR_DIO | MSR_BUSY,
        };
        phase | self.state.seeking
    }

    fn read_fifo(&mut self) -> u8 {
        match self.state.phase {
            Phase::PioRead => {
                self.set_interrupt(false);
                let byte = self.state.data.pop_front().unwrap_or(0);
                if self.state.data.is_empty() {
                    self.next_sector(false);
                }
                byte
            }
            Phase::Result => {
                self.set_interrupt(false);
                let byte = self.state.result.pop_front().unwrap_or(0);
                if self.state.result.is_empty() {
                    self.idle();
                }
                byte
            }
            _ => 0,
        }
    }

    fn write_fifo(&mut self, value: u8) {
        match self.state.phase {
            Phase::PioWrite => {
                self.set_interrupt(false);
                self.state.data.push_back(value);
                if self.state.data.len() >= self.unit() {
                    self.pio_written();
                }
            }
            Phase::Command if !self.in_reset() => {
                self.state.command.push(value);
                match decode(self.state.command[0]) {
                    None => self.results(&[ST0_INVALID]),
                    Some((length, action)) if self.state.command.len() >= length => {
                        self.start(action);
                    }
                    Some(_) => {}
                }
            }
            _ => {}
        }
    }

    fn idle(&mut self) {
        self.state.phase = Phase::Command;
        self.state.command.clear();
        self.state.result.clear();
        self.state.data.clear();
    }

    fn results(&mut self, bytes: &[u8]) {
        self.state.phase = Phase::Result;
        self.state.result = bytes.iter().copied().collect();
    }

    fn parameter(&self, n: usize) -> u8 {
        self.state.command.get(n).copied().unwrap_or(0)
    }
    fn drive(&self) -> usize {
        usize::from(self.parameter(1) & 3)
    }
    fn head(&self) -> u8 {
        self.parameter(1) >> 2 & 1
    }
    fn action(&self) -> Option<Action> {
        decode(self.parameter(0)).map(|(_, action)| action)
    }

    /// All bytes of a command are there.
    fn start(&mut self, action: Action) {
        let (one, two) = (self.parameter(1), self.parameter(2));
        match action {
            Specify => {
                self.state.specify = [one, two];
                self.idle();
            }
            Configure => {
                self.state.configure = [two, self.parameter(3)];
                self.idle();
            }
            Perpendicular => {
                // Drive bits change only together with OW.
                let drives = if one & 0x80 != 0 { one } else { self.state.perpendicular };
                self.state.perpendicular = drives & 0x3c | one & 3;
                self.idle();
            }
            Version => self.results(&[0x90]),
            PartId => self.results(&[0x01]),
            Lock => {
                self.state.lock = self.parameter(0) & 0x80 != 0;
                self.results(&[u8::from(self.state.lock) << 4]);
            }
            DumpRegisters => {
                let state = &self.state;
                let tracks = [0, 1, 2, 3].map(|n: usize| state.drives[n].track);
                let lock = u8::from(state.lock) << 7 | state.perpendicular;
                let [specify, configure] = [state.specify, state.configure];
                let rest =
                    [specify[0], specify[1], state.last_sector, lock, configure[0], configure[1]];
                let all: Vec<u8> = tracks.into_iter().chain(rest).collect();
                self.results(&all);
            }
            SenseDrive => {
                let drive = self.drive();
                let protected = self.disks[drive].as_ref().is_some_and(|(d, _)| d.read_only());
                let track0 = drive < self.present && self.state.drives[drive].track == 0;
                let st3 = 0x28 | u8::from(protected) << 6 | u8::from(track0) << 4 | one & 7;
                self.results(&[st3]);
            }
            SenseInterrupt => {
                self.set_interrupt(false);
                match self.state.sense.pop_front() {
                    None => self.results(&[ST0_INVALID]),
                    Some((drive, st0)) => {
                        self.state.seeking &= !(1 << (drive & 3));
                        let track = self.state.drives[usize::from(drive & 3)].track;
                        self.results(&[st0, track]);
                    }
                }
            }
            Seek | Recalibrate => {
                self.state.seeking |= 1 << self.drive();
                self.execute_later();
            }
            _ => self.execute_later(),
        }
    }

    fn execute_later(&mut self) {
        self.state.phase = Phase::Execution;
        self.state.deadline = Some(self.clock.now() + COMMAND_NS);
    }

    /// Moves a head; steps with a disk in the drive reset the change line.
    fn step(&mut self, drive: usize, track: u8) {
        let unit = &mut self.state.drives[drive];
        if unit.track != track && self.disks[drive].is_some() {
            unit.changed = false;
        }
        unit.track = track;
    }

    fn seek(&mut self, action: Action) {
        let drive = self.drive();
        let mut st0 = ST0_SEEK_END | self.parameter(1) & 7;
        let track = self.state.drives[drive].track;
        let to = match (action, self.parameter(0)) {
            (Recalibrate, _) => 0,
            // Relative: out or in.
            (_, 0x8f) => track.saturating_sub(self.parameter(2)),
            (_, 0xcf) => track.saturating_add(self.parameter(2)),
            _ => self.parameter(2),
        };
        if drive < self.present {
            self.step(drive, to);
        } else if action == Recalibrate {
            st0 |= ST0_ABNORMAL | ST0_EQUIPMENT_CHECK;
        }
        self.state.sense.retain(|&(n, _)| usize::from(n) != drive);
        self.state.sense.push_back((drive as u8, st0));
        self.idle();
        self.set_interrupt(true);
    }

    /// The deadline of an execution phase.
    fn execute(&mut self) {
        match self.action() {
            Some(action @ (Seek | Recalibrate)) => self.seek(action),
            Some(ReadId) => self.read_id(),
            Some(_) => self.start_transfer(),
            None => self.idle(),
        }
    }

    /// The disk in the selected drive, if it can be read at the present rate.
    fn disk(&self) -> Option<(Arc<dyn Disk>, Media)> {
        let (disk, media) = self.disks[self.drive()].as_ref()?;
        media.readable_at(self.state.rate).then(|| (disk.clone(), *media))
    }

    fn finish(&mut self, st0: u8, st1: u8, st2: u8, id: [u8; 4]) {
        let st0 = st0 | self.parameter(1) & 7;
        self.state.data.clear();
        self.state.last_sector = self.parameter(6);
        let [c, h, r, n] = id;
        self.results(&[st0, st1, st2, c, h, r, n]);
        self.set_interrupt(true);
    }

    fn fail(&mut self, st1: u8, st2: u8) {
        let id = self.id();
        self.finish(ST0_ABNORMAL, st1, st2, id);
    }

    /// C, H, R, N of the command, which move on with the transfer.
    fn id(&self) -> [u8; 4] {
        if self.action() == Some(Format) {
            return [self.state.drives[self.drive()].track, self.head(), 1, self.parameter(2)];
        }
        [2, 3, 4, 5].map(|n| self.parameter(n))
    }

    fn read_id(&mut self) {
        let track = self.state.drives[self.drive()].track;
        let head = self.head();
        match self.disk() {
            Some((_, media)) if media.offset(track, head, 1).is_some() => {
                self.state.rotation = self.state.rotation % media.sectors + 1;
                let id = [track, head, self.state.rotation, 2];
                self.finish(0, 0, 0, id);
            }
            _ => self.finish(ST0_ABNORMAL, ST1_MISSING_MARK, 0, [track, head, 1, 2]),
        }
    }

    fn start_transfer(&mut self) {
        let Some(action) = self.action() else { return self.idle() };
        let Some((disk, _)) = self.disk() else { return self.fail(ST1_MISSING_MARK, 0) };
        if matches!(action, Write | Format) && disk.read_only() {
            return self.fail(ST1_NOT_WRITABLE, 0);
        }
        let drive = self.drive();
        if action != Format && self.state.configure[0] & CONFIGURE_IMPLIED_SEEK != 0 {
            self.step(drive, self.parameter(2));
        }
        if action == ReadTrack {
            self.state.command[4] = 1;
        }
        let non_dma = self.state.specify[1] & 1 != 0;
        match action {
            Format | Write if non_dma => {
                self.state.phase = Phase::PioWrite;
                self.set_interrupt(true);
            }
            Verify => self.verify(),
            Format => self.format_by_dma(),
            _ if non_dma => self.load_pio(),
            _ => self.transfer_by_dma(),
        }
    }

    /// Bytes of what is moved at once: a sector, or the IDs of a track.
    fn unit(&self) -> usize {
        if self.action() == Some(Format) {
            usize::from(self.parameter(3)).max(1) * 4
        } else {
            SECTOR as usize
        }
    }

    /// Where the sector of the present ID is; else the status to fail with.
    fn locate(&self) -> Result<(Arc<dyn Disk>, u64), (u8, u8)> {
        let (disk, media) = self.disk().ok_or((ST1_MISSING_MARK, 0))?;
        let [c, h, r, n] = self.id();
        let track = self.state.drives[self.drive()].track;
        if c != track {
            return Err((ST1_NO_DATA, ST2_WRONG_CYLINDER));
        }
        let offset = media.offset(c, h, r).filter(|_| h == self.head() && n == 2);
        Ok((disk, offset.ok_or((ST1_NO_DATA, 0))?))
    }

    /// Reads the present sector. Images may be shorter than their format: the rest reads as zeros.
    fn read_sector(&self) -> Result<[u8; SECTOR as usize], (u8, u8)> {
        let (disk, offset) = self.locate()?;
        let mut sector = [0; SECTOR as usize];
        if offset + SECTOR <= disk.len() {
            disk.read_at(offset, &mut sector).map_err(|_| (ST1_DATA_ERROR, ST2_DATA_ERROR))?;
        }
        Ok(sector)
    }

    fn write_sector(&self, sector: &[u8]) -> Result<(), (u8, u8)> {
        let (disk, offset) = self.locate()?;
        if offset + SECTOR > disk.len() {
            return Err((ST1_NO_DATA, 0));
        }
        disk.write_at(offset, sector).map_err(|_| (ST1_DATA_ERROR, ST2_DATA_ERROR))
    }

    /// Moves the ID on behind a sector (table 5-6); false at the end of what the command may reach.
    fn advance_id(&mut self) -> bool {
        let multi_track = self.parameter(0) & 0x80 != 0 && self.action() != Some(ReadTrack);
        let last = self.parameter(4) == self.parameter(6) || self.parameter(4) == u8::MAX;
        let command = &mut self.state.command;
        if !last {
            command[4] += 1;
            return true;
        }
        command[4] = 1;
        if multi_track {
            command[1] ^= 4;
            command[3] ^= 1;
            if command[3] & 1 != 0 {
                return true;
            }
        }
        command[2] = command[2].wrapping_add(1);
        false
    }

    /// A sector is through; `done` when the host has enough. Prepares the next one or ends the command.
    fn next_sector(&mut self, done: bool) {
        let more = self.advance_id();
        let deleted = self.action() == Some(ReadDeleted);
        if done || deleted {
            let mark = if deleted { ST2_CONTROL_MARK } else { 0 };
            let id = self.id();
            return self.finish(0, 0, mark, id);
        }
        if !more {
            return self.fail(ST1_END_OF_CYLINDER, 0);
        }
        match self.state.phase {
            Phase::PioRead => self.load_pio(),
            Phase::PioWrite => self.set_interrupt(true),
            _ => {}
        }
    }

    fn load_pio(&mut self) {
        match self.read_sector() {
            Err((st1, st2)) => self.fail(st1, st2),
            Ok(sector) => {
                self.state.data = sector.into();
                self.state.phase = Phase::PioRead;
                self.set_interrupt(true);
            }
        }
    }

    fn pio_written(&mut self) {
        let bytes: Vec<u8> = self.state.data.drain(..).collect();
        if self.action() == Some(Format) {
            return self.format(&bytes);
        }
        match self.write_sector(&bytes) {
            Err((st1, st2)) => self.fail(st1, st2),
            Ok(()) => self.next_sector(false),
        }
    }

    /// Moves sectors until the terminal count, the end of the track or an error; waits while DMA is not ready.
    fn transfer_by_dma(&mut self) {
        // Two tracks at most, with the largest sector number.
        for _ in 0..512 {
            if !self.dma.lock().is_ready(DMA_CHANNEL) {
                self.state.deadline = Some(self.clock.now() + DMA_RETRY_NS);
                return;
            }
            let dma = self.dma.clone();
            let result = if self.action() == Some(Write) {
                let mut sector = [0; SECTOR as usize];
                self.locate().and_then(|_| {
                    let moved = dma.lock().transfer(DMA_CHANNEL, Transfer::FromMemory(&mut sector));
                    // A sector that ends early is filled with zeros.
                    if moved.bytes > 0 {
                        self.write_sector(&sector).map(|()| moved)
                    } else {
                        Ok(moved)
                    }
                })
            } else {
                self.read_sector()
                    .map(|sector| dma.lock().transfer(DMA_CHANNEL, Transfer::ToMemory(&sector)))
            };
            match result {
                Err((st1, st2)) => return self.fail(st1, st2),
                // The channel is set up for the other direction.
                Ok(moved) if moved.bytes == 0 => {
                    self.state.deadline = Some(self.clock.now() + DMA_RETRY_NS);
                    return;
                }
                Ok(moved) => self.next_sector(moved.terminal_count),
            }
            if self.state.phase != Phase::Execution {
                return;
            }
        }
    }

    fn verify(&mut self) {
        let limited = self.parameter(1) & 0x80 != 0;
        let mut left = if limited { usize::from(self.parameter(8)).max(1) } else { 512 };
        loop {
            if let Err((st1, st2)) = self.read_sector() {
                return self.fail(st1, st2);
            }
            left -= 1;
            let more = self.advance_id();
            if left == 0 || !more {
                let (ok, id) = (left == 0 || !limited, self.id());
                return if ok {
                    self.finish(0, 0, 0, id)
                } else {
                    self.fail(ST1_END_OF_CYLINDER, 0)
                };
            }
        }
    }

    fn format_by_dma(&mut self) {
        let mut ids = vec![0; self.unit()];
        let moved = self.dma.lock().transfer(DMA_CHANNEL, Transfer::FromMemory(&mut ids));
        if moved.bytes == 0 {
            self.state.deadline = Some(self.clock.now() + DMA_RETRY_NS);
        } else {
            self.format(&ids[..moved.bytes]);
        }
    }

    /// Fills the sectors of a track whose IDs are given; the image's format stays.
    fn format(&mut self, ids: &[u8]) {
        let fill = [self.parameter(5); SECTOR as usize];
        let (drive, head, size) = (self.drive(), self.head(), self.parameter(2));
        let track = self.state.drives[drive].track;
        let Some((disk, media)) = self.disk() else { return self.fail(ST1_MISSING_MARK, 0) };
        for id in ids.chunks_exact(4) {
            let fits = id[0] == track && id[1] == head && id[3] == 2 && size == 2;
            let offset =
                media.offset(track, head, id[2]).filter(|at| fits && at + SECTOR <= disk.len());
            let Some(offset) = offset else { return self.fail(ST1_NO_DATA, 0) };
            if disk.write_at(offset, &fill).is_err() {
                return self.fail(ST1_DATA_ERROR, ST2_DATA_ERROR);
            }
        }
        let id = self.id();
        self.finish(0, 0, 0, id);
    }
}

impl Device for I82078 {
    fn name(&self) -> &'static str {
        "i82078"
    }

    fn reset(&mut self) {
        self.state = Self::fresh();
        self.set_interrupt(false);
    }

    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |port| match port {
            SRA => u8::from(self.state.interrupt) << 7 | 0x06,
            SRB => 0xc0 | (self.state.dor & 1) << 5 | self.state.dor >> 4 & 3,
            DOR => self.state.dor,
            TDR => self.state.tdr,
            MSR_DSR => self.msr(),
            FIFO => self.read_fifo(),
            DIR_CCR => {
                let drive = usize::from(self.state.dor & 3);
                let motor = self.state.dor >> (4 + drive) & 1 != 0;
                let changed = self.state.drives[drive].changed && drive < self.present;
                if motor && changed { DIR_CHANGED } else { 0 }
            }
            _ => 0xff,
        })
    }

    fn write(&mut self, _window: u8, offset: u64, bytes: u8, value: u64) {
        tulk_hw::write_bytes(offset, bytes, value, |port, value| match port {
            DOR => self.write_dor(value),
            TDR => self.state.tdr = value & 3,
            MSR_DSR => {
                self.state.rate = value & 3;
                if value & DSR_RESET != 0 && !self.in_reset() {
                    self.soft_reset();
                    self.leave_reset();
                }
            }
            FIFO => self.write_fifo(value),
            DIR_CCR => self.state.rate = value & 3,
            _ => {}
        });
    }

    fn deadline(&self) -> Option<u64> {
        self.state.deadline
    }

    fn tick(&mut self, now: u64) {
        if self.state.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.state.deadline = None;
        if self.state.phase == Phase::Execution {
            self.execute();
        } else if !self.state.sense.is_empty() {
            self.set_interrupt(true);
        }
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let state: State = tulk_hw::load_state(self.name(), snapshot)?;
        let busy = matches!(state.phase, Phase::Execution | Phase::PioRead | Phase::PioWrite);
        let command = match state.command.first() {
            None => !busy,
            Some(&first) => match decode(first) {
                None => !busy,
                Some((length, _)) => {
                    state.command.len() <= length && (!busy || state.command.len() == length)
                }
            },
        };
        if !command || state.data.len() > 1024 || state.result.len() > 16 || state.sense.len() > 8 {
            return Err(snapshot_error(self.name(), "no such command, or longer than it can be"));
        }
        self.state = state;
        self.set_interrupt(self.state.interrupt);
        Ok(())
    }
}

#[cfg(test)]
#[path = "i82078_tests.rs"]
mod tests;
