//! Intel 82540EM Gigabit Ethernet controller ("e1000"; PCI/PCI-X Family of Gigabit Ethernet Controllers Software
//! Developer's Manual, 317453): both descriptor formats, checksum and segmentation offload, address and VLAN filters,
//! interrupt moderation, EEPROM, PHY, statistics.
//!
//! Not modelled: writing the EEPROM, flash, MSI, power management and wake-up, manageability, flow control frames, UDP
//! segmentation, header splitting, the raw packet checksum of receive descriptors, CRC values (zeros stand for them), the
//! time that a frame or a negotiation takes, registers under their 82542 addresses.
//!
//! | file | what |
//! |---|---|
//! | `regs.rs` | the registers as a table |
//! | `wires.rs` | EEPROM and PHY |
//! | `receive.rs` `transmit.rs` | the rings |

mod receive;
mod regs;
mod transmit;
mod wires;

use super::Nic;
use crate::pci::{Bar, ConfigSpace, Identity, PciFunction, load_function, save_function};
use regs::{Reg, ctrl, eecd, eerd, interrupt, mdic, stat, status};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use transmit::{Contexts, Packet};
use tulk_base::GuestPa;
use tulk_hw::{Clock, Device, Dma, Snapshot, SnapshotError};
use tulk_net::Network;
use wires::{Microwire, Phy};

const INTEL: u16 = 0x8086;
const DEVICE_ID: u16 = 0x100e;
const SUBSYSTEM: u16 = 0x001e;

/// Windows: registers in memory (128 KiB), and as address and data ports (64 bytes; 13.1.2).
pub const MEMORY: u8 = 0;
pub const PORTS: u8 = 1;

/// A timer for interrupts: restarted by each event, with an absolute limit from the first (13.4.30 to 13.4.31).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Delay {
    at: Option<u64>,
    limit: Option<u64>,
}

impl Delay {
    /// `delay` and `limit` are in units of 1.024 us; a limit of 0 is none.
    fn start(&mut self, now: u64, delay: u32, limit: u32) {
        if limit != 0 {
            self.limit.get_or_insert(now + 1024 * u64::from(limit));
        }
        let at = now + 1024 * u64::from(delay);
        self.at = Some(self.limit.map_or(at, |l| l.min(at)));
    }
    fn take_due(&mut self, now: u64) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            *self = Delay::default();
        }
        due
    }
}

/// The saved state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct State {
    /// By [`Reg`].
    registers: Vec<u32>,
    statistics: Vec<u32>,
    /// Multicast table, receive addresses, VLAN table.
    mta: Vec<u32>,
    ra: Vec<u32>,
    vfta: Vec<u32>,
    phy: Phy,
    microwire: Microwire,
    link_up: bool,
    /// The register that the ports show.
    port_address: u32,
    /// The pin is up; when it may rise next (13.4.18).
    asserted: bool,
    quiet_until: u64,
    receive_delay: Delay,
    transmit_delay: Delay,
    contexts: Contexts,
    /// The packet whose descriptors came in part.
    packet: Packet,
    /// Descriptors were left behind a burst.
    again: bool,
    /// A frame found no room; the network waits to be told.
    starved: bool,
}

impl State {
    fn new(words: &[u16; 64], link_up: bool) -> State {
        let table = |range: Range<u64>| vec![0; ((range.end - range.start) / 4) as usize];
        let mut ra = table(regs::RA);
        ra[0] = u32::from(words[0]) | u32::from(words[1]) << 16;
        ra[1] = u32::from(words[2]) | 1 << 31;
        State {
            registers: Reg::ALL.iter().map(|r| r.reset()).collect(),
            statistics: table(regs::STATISTICS),
            mta: table(regs::MTA),
            ra,
            vfta: table(regs::VFTA),
            phy: Phy::new(),
            microwire: Microwire::default(),
            link_up,
            port_address: 0,
            asserted: false,
            quiet_until: 0,
            receive_delay: Delay::default(),
            transmit_delay: Delay::default(),
            contexts: Contexts::default(),
            packet: Packet::default(),
            again: false,
            starved: false,
        }
    }

    fn fits(&self, other: &State) -> bool {
        let lengths = |s: &State| {
            [s.registers.len(), s.statistics.len(), s.mta.len(), s.ra.len(), s.vfta.len()]
        };
        lengths(self) == lengths(other) && other.phy.fits()
    }
}

/// The controller. Its frames go to a [`Network`]; frames for it come by [`Nic::receive`].
pub struct E1000 {
    config: ConfigSpace,
    dma: Arc<dyn Dma>,
    clock: Arc<dyn Clock>,
    network: Arc<dyn Network>,
    eeprom: [u16; 64],
    state: State,
    /// Storage for pieces of large segments.
    piece: Vec<u8>,
}

impl E1000 {
    pub fn new(
        network: Arc<dyn Network>,
        mac: [u8; 6],
        dma: Arc<dyn Dma>,
        clock: Arc<dyn Clock>,
    ) -> E1000 {
        let mut config = ConfigSpace::new(Identity {
            vendor: INTEL,
            device: DEVICE_ID,
            revision: 3,
            class: 0x02_00_00,
            subsystem_vendor: INTEL,
            subsystem: SUBSYSTEM,
        });
        config.pin(1);
        config.bar(MEMORY, Bar::Memory32 { size: 128 << 10, prefetchable: false });
        config.bar(PORTS, Bar::Io(64));
        let eeprom = wires::eeprom(mac);
        let state = State::new(&eeprom, true);
        E1000 { config, dma, clock, network, eeprom, state, piece: Vec::new() }
    }

    fn reg(&self, reg: Reg) -> u32 {
        self.state.registers[reg as usize]
    }
    fn set(&mut self, reg: Reg, value: u32) {
        self.state.registers[reg as usize] = value;
    }
    fn is(&self, reg: Reg, bits: u32) -> bool {
        self.reg(reg) & bits == bits
    }

    /// A ring's address and number of descriptors.
    fn ring(&self, low: Reg, high: Reg, len: Reg) -> (GuestPa, u32) {
        let pa = u64::from(self.reg(high)) << 32 | u64::from(self.reg(low));
        (GuestPa(pa), self.reg(len) / 16)
    }

    /// A reset by software (13.4.1): all but the PHY, configuration space and the ports' address.
    fn reset_controller(&mut self) {
        if self.state.starved {
            self.network.ready();
        }
        let fresh = State::new(&self.eeprom, self.state.link_up);
        let old = std::mem::replace(&mut self.state, fresh);
        self.state.phy = old.phy;
        self.state.port_address = old.port_address;
        self.config.set_interrupt(false);
    }

    /// Sets interrupt causes.
    fn raise(&mut self, causes: u32, now: u64) {
        self.set(Reg::ICR, self.reg(Reg::ICR) | causes & interrupt::ALL);
        self.update_interrupt(now);
    }

    /// Drives the pin from ICR and IMS; it does not rise more often than ITR allows.
    fn update_interrupt(&mut self, now: u64) {
        let wanted = self.reg(Reg::ICR) & self.reg(Reg::IMS) != 0;
        if !wanted {
            self.state.asserted = false;
        } else if !self.state.asserted && now >= self.state.quiet_until {
            self.state.asserted = true;
            self.state.quiet_until = match self.reg(Reg::ITR) {
                0 => 0,
                interval => now + 256 * u64::from(interval),
            };
        }
        self.config.set_interrupt(self.state.asserted);
    }

    /// Counts; counters stay at their largest value.
    fn count(&mut self, offset: u64, by: u32) {
        let n = ((offset - regs::STATISTICS.start) / 4) as usize;
        if stat::WIDE.contains(&offset) {
            let (low, carry) = self.state.statistics[n].overflowing_add(by);
            self.state.statistics[n] = low;
            let high = &mut self.state.statistics[n + 1];
            *high = high.wrapping_add(carry.into());
        } else {
            self.state.statistics[n] = self.state.statistics[n].saturating_add(by);
        }
    }

    /// Counts a frame of `len` bytes without CRC in the counter of its size, from `first` on.
    fn count_size(&mut self, first: u64, len: usize) {
        let class = match len + 4 {
            0..=64 => 0,
            65..=127 => 1,
            128..=255 => 2,
            256..=511 => 3,
            512..=1023 => 4,
            _ => 5,
        };
        self.count(first + 4 * class, 1);
    }

    fn read_statistic(&mut self, offset: u64) -> u32 {
        let n = ((offset - regs::STATISTICS.start) / 4) as usize;
        if stat::WIDE.contains(&offset) {
            return self.state.statistics[n];
        }
        if stat::WIDE.contains(&offset.wrapping_sub(4)) {
            self.state.statistics[n - 1] = 0;
        }
        std::mem::take(&mut self.state.statistics[n])
    }

    /// The table that holds an offset, and the place in it.
    fn table(&mut self, offset: u64) -> Option<&mut u32> {
        let tables = [
            (regs::MTA, &mut self.state.mta),
            (regs::RA, &mut self.state.ra),
            (regs::VFTA, &mut self.state.vfta),
        ];
        let (range, table) = tables.into_iter().find(|(range, _)| range.contains(&offset))?;
        table.get_mut(((offset - range.start) / 4) as usize)
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        if regs::STATISTICS.contains(&offset) {
            return self.read_statistic(offset);
        }
        if let Some(entry) = self.table(offset) {
            return *entry;
        }
        let Some(reg) = Reg::at(offset) else { return 0 };
        let value = self.reg(reg);
        match reg {
            Reg::STATUS if self.state.link_up => value | status::LINK_UP,
            Reg::ICR => {
                self.set(Reg::ICR, 0);
                self.update_interrupt(self.clock.now());
                value
            }
            _ => value,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let now = self.clock.now();
        if let Some(entry) = self.table(offset) {
            *entry = value;
            // The upper half of a receive address: 16 bits, select, valid.
            if regs::RA.contains(&offset) && offset & 4 != 0 {
                *entry &= 0x8003_ffff;
            }
            return;
        }
        match offset {
            regs::ICS => return self.raise(value, now),
            regs::IMC => {
                self.set(Reg::IMS, self.reg(Reg::IMS) & !value);
                return self.update_interrupt(now);
            }
            _ => {}
        }
        let Some(reg) = Reg::at(offset) else { return };
        self.set(reg, self.reg(reg) & !reg.writable() | value & reg.writable());
        match reg {
            Reg::CTRL if value & ctrl::RST != 0 => self.reset_controller(),
            Reg::CTRL_EXT if value & 1 << 13 != 0 => {
                let fresh = State::new(&self.eeprom, self.state.link_up);
                self.state.ra[..2].copy_from_slice(&fresh.ra[..2]);
            }
            Reg::EECD => self.write_eecd(),
            Reg::EERD if value & eerd::START != 0 => {
                let word = self.eeprom.get((value >> 8 & 0xff) as usize).copied().unwrap_or(0);
                self.set(Reg::EERD, u32::from(word) << 16 | value & 0xff00 | eerd::DONE);
            }
            Reg::MDIC => {
                let (result, negotiates) = self.state.phy.access(value, self.state.link_up);
                self.set(Reg::MDIC, result);
                let done = if value & mdic::INTERRUPT != 0 { interrupt::MDAC } else { 0 };
                let link = if negotiates { interrupt::LSC } else { 0 };
                self.raise(done | link, now);
            }
            Reg::ICR => {
                self.set(Reg::ICR, self.reg(Reg::ICR) & !value);
                self.update_interrupt(now);
            }
            Reg::IMS => {
                self.set(Reg::IMS, self.reg(Reg::IMS) | value & interrupt::ALL);
                self.update_interrupt(now);
            }
            Reg::ITR => {
                // A shorter interval counts at once.
                let longest = now + 256 * u64::from(self.reg(Reg::ITR));
                self.state.quiet_until = self.state.quiet_until.min(longest);
                self.update_interrupt(now);
            }
            Reg::RDTR if value & 1 << 31 != 0 => {
                self.state.receive_delay = Delay::default();
                self.raise(interrupt::RXT0, now);
            }
            Reg::TIDV if value & 1 << 31 != 0 => {
                self.state.transmit_delay = Delay::default();
                self.raise(interrupt::TXDW, now);
            }
            Reg::RDT | Reg::RCTL if std::mem::take(&mut self.state.starved) => {
                self.network.ready();
            }
            Reg::TDT | Reg::TCTL => self.transmit(now),
            _ => {}
        }
    }

    fn write_eecd(&mut self) {
        let wires = self.reg(Reg::EECD);
        let high = self.state.microwire.drive(wires, &self.eeprom);
        let output = if high { eecd::DO } else { 0 };
        let grant = if wires & eecd::REQ != 0 { eecd::GNT } else { 0 };
        self.set(Reg::EECD, wires & !(eecd::DO | eecd::GNT) | output | grant);
    }

    /// Registers are read and written as aligned dwords; larger accesses are two, smaller ones read a part.
    fn read_memory(&mut self, offset: u64, bytes: u8) -> u64 {
        let low = u64::from(self.read_register(offset & !3));
        match bytes {
            8 => low | u64::from(self.read_register((offset & !3).wrapping_add(4))) << 32,
            _ => low >> (8 * (offset & 3)),
        }
    }
}

impl Device for E1000 {
    fn name(&self) -> &'static str {
        "e1000"
    }

    fn reset(&mut self) {
        self.reset_controller();
        self.state = State::new(&self.eeprom, self.state.link_up);
        self.config.reset();
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        let value = match (window, offset & !3) {
            (MEMORY, _) => self.read_memory(offset, bytes),
            (PORTS, 0) => u64::from(self.state.port_address) >> (8 * (offset & 3)),
            (PORTS, 4) => self.read_memory(self.state.port_address.into(), 4),
            _ => 0,
        };
        value & tulk_hw::ones(bytes)
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        match (window, offset, bytes) {
            (MEMORY, _, 8) if offset & 3 == 0 => {
                self.write_register(offset, value as u32);
                self.write_register(offset.wrapping_add(4), (value >> 32) as u32);
            }
            (MEMORY, _, 4) if offset & 3 == 0 => self.write_register(offset, value as u32),
            (PORTS, 0, 4) => self.state.port_address = value as u32 & 0x1_fffc,
            (PORTS, 4, 4) => self.write_register(self.state.port_address.into(), value as u32),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<u64> {
        let s = &self.state;
        let waiting = self.reg(Reg::ICR) & self.reg(Reg::IMS) != 0 && !s.asserted;
        let times = [
            s.receive_delay.at,
            s.transmit_delay.at,
            waiting.then_some(s.quiet_until),
            s.again.then_some(0),
        ];
        times.into_iter().flatten().min()
    }

    fn tick(&mut self, now: u64) {
        let mut causes = 0;
        if self.state.receive_delay.take_due(now) {
            causes |= interrupt::RXT0;
        }
        if self.state.transmit_delay.take_due(now) {
            causes |= interrupt::TXDW;
        }
        self.raise(causes, now);
        if self.state.again {
            self.transmit(now);
        }
    }

    fn save(&self) -> Snapshot {
        save_function(&self.config, &self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let fresh = &self.state;
        let check = |saved: &State| match fresh.fits(saved) {
            true => Ok(()),
            false => Err("tables of other sizes".to_string()),
        };
        self.state = load_function("e1000", &mut self.config, snapshot, check)?;
        Ok(())
    }
}

impl PciFunction for E1000 {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

impl Nic for E1000 {
    fn receive(&mut self, frame: &[u8]) -> bool {
        self.receive_frame(frame)
    }

    fn set_link(&mut self, up: bool) {
        if up != self.state.link_up {
            self.state.link_up = up;
            self.raise(interrupt::LSC, self.clock.now());
        }
    }
}
