//! 82371SB (PIIX3) function 0, the PCI to ISA bridge (Intel 290550, section 2.2).
//!
//! Modelled: the routing of PIRQA-D to ISA interrupts, and the reset control register. The other registers keep their
//! bits. Not modelled: the X-bus chip selects (the board decodes all of its ISA devices always), I/O recovery times,
//! distributed DMA, motherboard interrupts, SMI generation. The edge and level control registers are in the interrupt
//! controllers.

use super::pirq::{PirqRouter, PirqState};
use super::{ConfigSpace, Identity, PciFunction, load_function, reg, save_function, status};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Device, Snapshot, SnapshotError};

/// Registers behind the header with their values behind reset and writable bits.
const REGISTERS: &[(u16, &[u8], &[u8])] = &[
    (0x4c, &[0x4d], &[0x7f]),                   // IORT, ISA I/O recovery timer
    (0x4e, &[0x03, 0x00], &[0xff, 0x01]),       // XBCS, X-bus chip select
    (PIRQRC, &[0x80; 4], &[0x8f; 4]),           // PIRQRC[A:D], PIRQ route control
    (0x69, &[0x02], &[0xfe]),                   // TOM, top of memory
    (0x6a, &[0x00, 0x00], &[0x00, 0x80]),       // MSTAT, miscellaneous status
    (0x70, &[0x80], &[0xef]),                   // MBIRQ0, motherboard IRQ route control
    (0x76, &[0x0c, 0x0c], &[0x8f, 0x8f]),       // MBDMA, motherboard DMA control
    (0x78, &[0x02, 0x00], &[0xff, 0xff]),       // PCSC, programmable chip select control
    (0x80, &[0x00], &[0x7f]),                   // APICBASE, APIC base address relocation
    (0x82, &[0x00], &[0x0f]),                   // DLC, deterministic latency control
    (0xa0, &[0x08], &[0x1f]),                   // SMICNTL, SMI control
    (0xa2, &[0x00, 0x00], &[0xff, 0x00]),       // SMIEN, SMI enable
    (0xa4, &[0; 4], &[0xff, 0xff, 0x00, 0xe0]), // SEE, system event enable
    (0xa8, &[0x0f], &[0xff]),                   // FTMR, fast off timer
    (0xaa, &[0x00, 0x00], &[0xff, 0x00]),       // SMIREQ, SMI request
    (0xac, &[0x00], &[0xff]),                   // CTLTMR, clock throttle low timer
    (0xae, &[0x00], &[0xff]),                   // CTHTMR, clock throttle high timer
];

const PIRQRC: u16 = 0x60;

/// How software asked for a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetKind {
    /// Only the processors, by their INIT pin.
    Soft,
    /// The whole machine.
    Hard,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// RC, the reset control register.
    rc: u8,
    pirq: PirqState,
}

/// RC: system reset (hard if set) and reset CPU (its rise resets).
const SRST: u8 = 1 << 1;
const RCPU: u8 = 1 << 2;

/// The ISA bridge, function 0 of its slot.
pub struct Piix3 {
    config: ConfigSpace,
    rc: u8,
    router: Arc<PirqRouter>,
    reset: Box<dyn Fn(ResetKind) + Send>,
}

impl Piix3 {
    /// The window of port 0xCF9, always decoded.
    pub const RESET_CONTROL: u8 = 7;

    /// `reset` is called within the guest's access, and must not reset the bridge there and then.
    pub fn new(router: Arc<PirqRouter>, reset: Box<dyn Fn(ResetKind) + Send>) -> Piix3 {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7000,
            revision: 0,
            class: 0x06_0100,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        });
        config
            .multifunction()
            .define(reg::COMMAND, &[0x07, 0], &[0, 1])
            .define(reg::STATUS, &status::DEVSEL_MEDIUM.to_le_bytes(), &[])
            .define(reg::INTERRUPT_LINE, &[0], &[]);
        for (offset, reset, writable) in REGISTERS {
            config.define(*offset, reset, writable);
        }
        Piix3 { config, rc: 0, router, reset }
    }

    fn route(&self) {
        let route = self.config.dword(PIRQRC).to_le_bytes();
        self.router.change(|state| state.route = route);
    }
}

impl PciFunction for Piix3 {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn config_write(&mut self, offset: u16, bytes: u8, value: u32) {
        self.config.write(offset, bytes, value);
        self.route();
    }
}

impl Device for Piix3 {
    fn name(&self) -> &'static str {
        "piix3"
    }
    fn reset(&mut self) {
        self.config.reset();
        self.rc = 0;
        self.route();
    }
    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        let ones = tulk_hw::ones(bytes);
        match (window, offset) {
            (Piix3::RESET_CONTROL, 0) => ones & !0xff | u64::from(self.rc),
            _ => ones,
        }
    }
    fn write(&mut self, window: u8, offset: u64, _bytes: u8, value: u64) {
        if (window, offset) != (Piix3::RESET_CONTROL, 0) {
            return;
        }
        let old = std::mem::replace(&mut self.rc, value as u8 & (SRST | RCPU));
        if self.rc & !old & RCPU != 0 {
            (self.reset)(if self.rc & SRST != 0 { ResetKind::Hard } else { ResetKind::Soft });
        }
    }
    fn save(&self) -> Snapshot {
        save_function(&self.config, &State { rc: self.rc, pirq: self.router.state() })
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let state: State = load_function("piix3", &mut self.config, snapshot, |_| Ok(()))?;
        self.rc = state.rc;
        self.router.change(|pirq| *pirq = state.pirq);
        self.route();
        Ok(())
    }
}
