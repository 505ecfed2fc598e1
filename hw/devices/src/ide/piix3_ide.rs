//! 82371SB (PIIX3) function 1: two IDE channels with bus masters (Intel 290550, section 2.3).
//!
//! The channels answer at the legacy ports while IDETIM enables their decode. Interrupts are IRQ 14 and 15, not the PCI
//! pin.

use super::Tray;
use super::atapi::event;
use super::drive::{
    Attachment, CHUNK, Drive, DriveKind, Phase, State as DriveState, device, status,
};
use crate::pci::{
    Bar, ConfigSpace, Identity, Mapping, PciFunction, Space, command, load_function, reg,
    save_function, status as pci_status,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_base::GuestPa;
use tulk_block::Disk;
use tulk_hw::{Device, Dma, IrqLine, Snapshot, SnapshotError};

/// IDETIM of the primary channel; the secondary one's follows.
const IDETIM: u16 = 0x40;
const IDE_DECODE_ENABLE: u16 = 1 << 15;

/// Bits of BMICOM and BMISTA.
const START: u8 = 1;
const TO_MEMORY: u8 = 8;
const ACTIVE: u8 = 1;
const DMA_ERROR: u8 = 2;
const INTERRUPT: u8 = 4;
const DMA_CAPABLE: u8 = 0x60;

/// Bits of the device control register.
const NIEN: u8 = 2;
const SRST: u8 = 4;
const HOB: u8 = 0x80;

/// Entries of a descriptor table, which does not cross 64 KiB.
const MAX_DESCRIPTORS: u32 = 8192;

#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
struct BusMaster {
    /// BMICOM.
    command: u8,
    /// BMISTA.
    status: u8,
    /// BMIDTP: where the descriptor table is.
    table: u32,
    /// The next descriptor of the running transfer.
    next: u32,
    /// What is left of the current one.
    address: u32,
    left: u32,
    /// The current one is the last.
    last: bool,
}

#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
struct ChannelState {
    /// The selected drive.
    unit: u8,
    /// Device control.
    control: u8,
    /// The level of the interrupt.
    interrupt: bool,
    bus_master: BusMaster,
}

#[derive(Serialize, Deserialize)]
struct State {
    channels: [ChannelState; 2],
    drives: [[Option<DriveState>; 2]; 2],
}

struct Channel {
    s: ChannelState,
    drives: [Option<Drive>; 2],
    irq: IrqLine,
}

/// The IDE controller, function 1 of the ISA bridge's slot.
pub struct Piix3Ide {
    config: ConfigSpace,
    channels: [Channel; 2],
    dma: Arc<dyn Dma>,
    /// Kept, so that large transfers do not allocate each time. Not state.
    scratch: Vec<u8>,
}

impl Piix3Ide {
    /// BAR 4: the bus masters, 8 bytes for each channel.
    pub const BUS_MASTER: u8 = 4;
    /// Windows of the legacy ports: 0x1F0 (8 bytes) and 0x3F6 (1), 0x170 and 0x376. The bus maps them.
    pub const COMMAND_0: u8 = 7;
    pub const CONTROL_0: u8 = 8;
    pub const COMMAND_1: u8 = 9;
    pub const CONTROL_1: u8 = 10;

    /// A controller with drives 0 and 1 of the primary and secondary channel, and IRQ 14 and 15.
    pub fn new(
        drives: [[Option<Attachment>; 2]; 2],
        irqs: [IrqLine; 2],
        dma: Arc<dyn Dma>,
    ) -> Piix3Ide {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7010,
            revision: 0,
            class: 0x01_0180,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        });
        config
            .define(reg::COMMAND, &[0, 0], &[(command::IO | command::BUS_MASTER) as u8, 0])
            .define(reg::STATUS, &(pci_status::DEVSEL_MEDIUM | 0x80).to_le_bytes(), &[])
            .define(IDETIM, &[0; 5], &[0xff, 0xf3, 0xff, 0xf3, 0xff])
            .bar(Piix3Ide::BUS_MASTER, Bar::Io(16));
        let channel = |(drives, irq): ([Option<Attachment>; 2], IrqLine)| Channel {
            s: ChannelState::default(),
            drives: drives.map(|d| d.map(Drive::new)),
            irq,
        };
        let [first, second] = drives;
        let [irq14, irq15] = irqs;
        let channels = [channel((first, irq14)), channel((second, irq15))];
        let mut ide = Piix3Ide { config, channels, dma, scratch: Vec::new() };
        ide.reset();
        ide
    }

    fn cdrom(&mut self, channel: usize, unit: usize) -> Option<&mut Drive> {
        let drive = self.channels.get_mut(channel)?.drives.get_mut(unit)?.as_mut()?;
        (drive.kind == DriveKind::Cdrom).then_some(drive)
    }

    /// Puts a medium into a CD-ROM, or takes it out; the guest is told. False if there is no CD-ROM.
    pub fn set_medium(
        &mut self,
        channel: usize,
        unit: usize,
        medium: Option<Arc<dyn Disk>>,
    ) -> bool {
        self.cdrom(channel, unit).map(|d| d.set_medium(medium)).is_some()
    }

    /// What is on a channel: whether it is a disk or a CD-ROM, and its disk.
    pub fn attached(
        &self,
        channel: usize,
        unit: usize,
    ) -> Option<(DriveKind, Option<Arc<dyn Disk>>)> {
        let drive = self.channels.get(channel)?.drives.get(unit)?.as_ref()?;
        Some((drive.kind, drive.disk.clone()))
    }

    /// Presses the eject button: opens the tray, or asks the guest to when it locked it.
    pub fn press_eject(&mut self, channel: usize, unit: usize) {
        if let Some(drive) = self.cdrom(channel, unit) {
            if drive.s.cd.locked {
                drive.s.cd.event = event::EJECT_REQUEST;
            } else {
                drive.move_tray(Tray::Open);
            }
        }
    }

    /// The tray of a CD-ROM and whether the guest locked it.
    pub fn tray(&mut self, channel: usize, unit: usize) -> Option<(Tray, bool)> {
        self.cdrom(channel, unit).map(|d| (d.s.cd.tray, d.s.cd.locked))
    }

    /// The host may be able to do what it could not: stalled drives try again.
    pub fn retry(&mut self) {
        for channel in 0..2 {
            self.channels[channel].drives.iter_mut().flatten().for_each(Drive::retry);
            self.run_dma(channel);
            self.update_interrupt(channel);
        }
    }

    fn bus_master_read(&self, channel: usize, offset: u64) -> u8 {
        let bm = &self.channels[channel].s.bus_master;
        match offset {
            0 => bm.command,
            2 => bm.status,
            4..8 => bm.table.to_le_bytes()[offset as usize - 4],
            _ => 0,
        }
    }

    fn bus_master_write(&mut self, channel: usize, offset: u64, value: u8) {
        let bm = &mut self.channels[channel].s.bus_master;
        match offset {
            0 => {
                let old = std::mem::replace(&mut bm.command, value & (START | TO_MEMORY));
                if bm.command & START == 0 {
                    bm.status &= !ACTIVE;
                } else if old & START == 0 {
                    bm.status |= ACTIVE;
                    (bm.next, bm.left, bm.last) = (bm.table, 0, false);
                    self.run_dma(channel);
                }
            }
            2 => {
                bm.status &= !(value & (DMA_ERROR | INTERRUPT));
                bm.status = bm.status & !DMA_CAPABLE | value & DMA_CAPABLE;
            }
            4..8 => {
                let shift = 8 * (offset as u32 - 4);
                bm.table = bm.table & !(0xff << shift) | u32::from(value) << shift & !3;
            }
            _ => {}
        }
    }

    /// Moves what the selected drive and the descriptors agree on, once both are ready.
    fn run_dma(&mut self, channel: usize) {
        let c = &mut self.channels[channel];
        let Some(drive) = c.drives[usize::from(c.s.unit)].as_mut() else { return };
        let bm = &mut c.s.bus_master;
        let ready = self.config.bus_master() && bm.command & START != 0;
        let mut segments = Vec::new();
        let mut descriptors = 0;
        while ready && bm.status & ACTIVE != 0 && drive.dma_left() != 0 {
            segments.clear();
            let before = bm.clone();
            let want = drive.dma_left().min(CHUNK as u64) as usize;
            let mut have = 0;
            while have < want && bm.next_segment(&*self.dma, &mut descriptors) {
                let n = (bm.left as usize).min(want - have);
                segments.push((bm.address, n));
                bm.address = bm.address.wrapping_add(n as u32);
                bm.left -= n as u32;
                have += n;
            }
            self.scratch.resize(self.scratch.len().max(have), 0);
            let data = &mut self.scratch[..have];
            let mut in_memory = true;
            if drive.s.phase == Phase::DmaIn {
                let mut rest = &data[..0];
                if have != 0 {
                    let n = drive.dma_read(data);
                    rest = &data[..n];
                }
                for (address, n) in &segments {
                    let (now, then) = rest.split_at((*n).min(rest.len()));
                    in_memory &= self.dma.write(GuestPa((*address).into()), now);
                    rest = then;
                }
            } else {
                let mut rest = &mut *data;
                for (address, n) in &segments {
                    let (now, then) = rest.split_at_mut(*n);
                    in_memory &= self.dma.read(GuestPa((*address).into()), now);
                    rest = then;
                }
                if have != 0 {
                    drive.dma_write(data);
                }
            }
            if drive.s.stalled {
                // The whole chunk is moved once more.
                *bm = before;
                break;
            }
            if !in_memory {
                bm.status |= DMA_ERROR;
            }
            // Active with an interrupt means that descriptors are left; not active without one, that they were short.
            if bm.left == 0 && bm.last || have < want {
                bm.status &= !ACTIVE;
            }
        }
        self.update_interrupt(channel);
    }

    fn update_interrupt(&mut self, channel: usize) {
        let c = &mut self.channels[channel];
        let pending = c.drives[usize::from(c.s.unit)].as_ref().is_some_and(|d| d.s.intrq);
        let level = pending && c.s.control & NIEN == 0;
        if level && !c.s.interrupt {
            c.s.bus_master.status |= INTERRUPT;
        }
        if level != c.s.interrupt {
            c.s.interrupt = level;
            c.irq.set(level);
        }
    }

    fn register_read(&mut self, channel: usize, offset: u64) -> u8 {
        let c = &mut self.channels[channel];
        if c.drives.iter().all(Option::is_none) {
            // Nobody drives the bus; D7 is pulled down.
            return 0x7f;
        }
        let Some(drive) = &mut c.drives[usize::from(c.s.unit)] else { return 0 };
        let shift = if c.s.control & HOB != 0 { 8 } else { 0 };
        let s = &mut drive.s;
        if c.s.control & SRST != 0 && offset == 7 {
            return status::BSY;
        }
        match offset {
            1 => s.error,
            2 => (s.count >> shift) as u8,
            3 => (s.lba_low >> shift) as u8,
            4 => (s.lba_mid >> shift) as u8,
            5 => (s.lba_high >> shift) as u8,
            6 => s.device | 0xa0,
            _ => {
                s.intrq = false;
                let status = s.status;
                self.update_interrupt(channel);
                status
            }
        }
    }

    fn register_write(&mut self, channel: usize, offset: u64, value: u8) {
        let c = &mut self.channels[channel];
        c.s.control &= !HOB;
        if offset == 7 {
            return self.command(channel, value);
        }
        // Both drives keep what is written; the selected one acts.
        for s in c.drives.iter_mut().flatten().map(|d| &mut d.s) {
            let fifo = |register: u16| register << 8 | u16::from(value);
            match offset {
                1 => s.feature = fifo(s.feature),
                2 => s.count = fifo(s.count),
                3 => s.lba_low = fifo(s.lba_low),
                4 => s.lba_mid = fifo(s.lba_mid),
                5 => s.lba_high = fifo(s.lba_high),
                _ => s.device = value & 0x5f,
            }
        }
        if offset == 6 {
            c.s.unit = u8::from(value & device::DEV != 0);
            self.update_interrupt(channel);
        }
    }

    fn command(&mut self, channel: usize, code: u8) {
        let c = &mut self.channels[channel];
        if c.s.control & SRST != 0 {
            return;
        }
        if code == 0x90 {
            // EXECUTE DEVICE DIAGNOSTIC: both drives, and drive 0 answers.
            c.s.unit = 0;
            for drive in c.drives.iter_mut().flatten() {
                drive.signature();
                drive.s.device = 0;
            }
            if let Some(drive) = &mut c.drives[0] {
                drive.s.intrq = true;
            }
        } else if let Some(drive) = &mut c.drives[usize::from(c.s.unit)] {
            let busy = drive.s.status & (status::DRQ | status::BSY) != 0;
            // While data are due or the host has to be waited for, only DEVICE RESET is heard.
            if !busy || code == 0x08 {
                drive.command(code);
                return self.run_dma(channel);
            }
        }
        self.update_interrupt(channel);
    }

    fn control_write(&mut self, channel: usize, value: u8) {
        let c = &mut self.channels[channel];
        let old = std::mem::replace(&mut c.s.control, value & (NIEN | SRST | HOB));
        if old & SRST == 0 && value & SRST != 0 {
            c.s.unit = 0;
            for drive in c.drives.iter_mut().flatten() {
                drive.signature();
                drive.s.device = 0;
            }
        }
        self.update_interrupt(channel);
    }

    fn data(&mut self, channel: usize) -> Option<&mut Drive> {
        let c = &mut self.channels[channel];
        c.drives[usize::from(c.s.unit)].as_mut()
    }
}

impl BusMaster {
    /// Makes sure that something is left of the current descriptor; false at the end of the table.
    fn next_segment(&mut self, dma: &dyn Dma, descriptors: &mut u32) -> bool {
        if self.left != 0 {
            return true;
        }
        if self.last || *descriptors >= MAX_DESCRIPTORS {
            return false;
        }
        *descriptors += 1;
        let mut entry = [0; 8];
        if !dma.read(GuestPa(self.next.into()), &mut entry) {
            self.status |= DMA_ERROR;
            return false;
        }
        let [a, b, c, d, low, high, _, flags] = entry;
        self.address = u32::from_le_bytes([a, b, c, d]) & !1;
        self.left = u32::from(u16::from_le_bytes([low, high]) & !1);
        if self.left == 0 {
            self.left = 0x1_0000;
        }
        self.last = flags & 0x80 != 0;
        // The table stays within its 64 KiB.
        self.next = self.next & 0xffff_0000 | self.next.wrapping_add(8) & 0xffff;
        true
    }
}

impl PciFunction for Piix3Ide {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn config_write(&mut self, offset: u16, bytes: u8, value: u32) {
        self.config.write(offset, bytes, value);
        for channel in 0..2 {
            self.run_dma(channel);
        }
    }
    fn mappings(&self) -> Vec<Mapping> {
        let mut all = self.config.mappings();
        for (channel, command_block, control_block) in [(0, 0x1f0, 0x3f6), (1, 0x170, 0x376)] {
            let timing = self.config.word(IDETIM + 2 * channel);
            if timing & IDE_DECODE_ENABLE != 0 && self.config.command() & command::IO != 0 {
                let window = Piix3Ide::COMMAND_0 + 2 * channel as u8;
                let space = Space::Io;
                all.push(Mapping { window, space, address: command_block, size: 8 });
                let window = window + 1;
                all.push(Mapping { window, space, address: control_block, size: 1 });
            }
        }
        all
    }
}

impl Device for Piix3Ide {
    fn name(&self) -> &'static str {
        "piix3-ide"
    }

    fn reset(&mut self) {
        self.config.reset();
        for channel in 0..2 {
            let c = &mut self.channels[channel];
            c.s = ChannelState { interrupt: c.s.interrupt, ..ChannelState::default() };
            for drive in c.drives.iter_mut().flatten() {
                drive.reset();
            }
            self.update_interrupt(channel);
        }
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        let channel = usize::from(window >= Piix3Ide::COMMAND_1);
        match (window, offset) {
            (Piix3Ide::COMMAND_0 | Piix3Ide::COMMAND_1, 0) => {
                let Some(drive) = self.data(channel) else { return 0 };
                let value = drive.data_read(bytes);
                if drive.s.position == 0 || drive.s.phase == Phase::Idle {
                    self.update_interrupt(channel);
                }
                value.into()
            }
            (Piix3Ide::COMMAND_0 | Piix3Ide::COMMAND_1, 1..8) => {
                self.register_read(channel, offset).into()
            }
            (Piix3Ide::CONTROL_0 | Piix3Ide::CONTROL_1, 0) => {
                let c = &self.channels[channel];
                let none = if c.drives.iter().all(Option::is_none) { 0x7f } else { 0 };
                let drive = c.drives[usize::from(c.s.unit)].as_ref();
                let reset = c.s.control & SRST != 0;
                let alternate = |d: &Drive| if reset { status::BSY } else { d.s.status };
                drive.map_or(none, alternate).into()
            }
            (Piix3Ide::BUS_MASTER, 0..16) => tulk_hw::read_bytes(offset, bytes, |at| match at {
                0..16 => self.bus_master_read((at / 8) as usize, at % 8),
                _ => 0xff,
            }),
            _ => tulk_hw::ones(bytes),
        }
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        let channel = usize::from(window >= Piix3Ide::COMMAND_1);
        match (window, offset) {
            (Piix3Ide::COMMAND_0 | Piix3Ide::COMMAND_1, 0) => {
                let Some(drive) = self.data(channel) else { return };
                drive.data_write(bytes, value as u32);
                if drive.s.position == 0 {
                    self.run_dma(channel);
                }
            }
            (Piix3Ide::COMMAND_0 | Piix3Ide::COMMAND_1, 1..8) => {
                self.register_write(channel, offset, value as u8);
            }
            (Piix3Ide::CONTROL_0 | Piix3Ide::CONTROL_1, 0) => {
                self.control_write(channel, value as u8);
            }
            (Piix3Ide::BUS_MASTER, 0..16) => {
                tulk_hw::write_bytes(offset, bytes, value, |at, byte| {
                    if at < 16 {
                        self.bus_master_write((at / 8) as usize, at % 8, byte);
                    }
                });
            }
            _ => {}
        }
    }

    fn save(&self) -> Snapshot {
        let state = State {
            channels: self.channels.each_ref().map(|c| c.s.clone()),
            drives: self
                .channels
                .each_ref()
                .map(|c| c.drives.each_ref().map(|d| d.as_ref().map(|d| d.s.clone()))),
        };
        save_function(&self.config, &state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let channels = &self.channels;
        let check = |state: &State| {
            for (channel, (c, saved)) in channels.iter().zip(&state.drives).enumerate() {
                for (unit, (drive, saved)) in c.drives.iter().zip(saved).enumerate() {
                    if drive.is_some() != saved.is_some() {
                        return Err(format!("drive {unit} of channel {channel}"));
                    }
                    saved.as_ref().map_or(Ok(()), DriveState::check)?;
                }
            }
            match state.channels.iter().all(|c| c.unit < 2) {
                true => Ok(()),
                false => Err("no such drive".to_string()),
            }
        };
        let state: State = load_function("piix3-ide", &mut self.config, snapshot, check)?;
        for ((c, s), saved) in self.channels.iter_mut().zip(state.channels).zip(state.drives) {
            c.irq.set(s.interrupt);
            c.s = s;
            for (drive, saved) in c.drives.iter_mut().zip(saved) {
                if let (Some(drive), Some(saved)) = (drive, saved) {
                    drive.s = saved;
                }
            }
        }
        Ok(())
    }
}
