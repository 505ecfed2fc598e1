//! The two cascaded Intel 8259A interrupt controllers of a PC, with the edge/level registers (ELCR) of the PIIX3.
//!
//! Register and command names are those of the Intel 8259A data sheet (231468-003). A request on an edge-triggered
//! input stays latched when the input falls again before it is acknowledged, as in the chipsets that integrate the
//! 8259A; the discrete part would answer with IR7 then.
//!
//! Not modelled: 8080/8085 mode (three-byte CALL), buffered mode, cascades on other inputs than 2.

use serde::{Deserialize, Serialize};
use tulk_hw::{Device, IrqInputs, IrqLine, Snapshot, SnapshotError};

/// Window of the master's two ports, usually 0x20.
pub const MASTER: u8 = 0;
/// Window of the slave's two ports, usually 0xa0.
pub const SLAVE: u8 = 1;
/// Window of the two edge/level registers, usually 0x4d0.
pub const ELCR: u8 = 2;

/// The master's input that the slave's output is connected to.
const CASCADE: u8 = 2;
/// Inputs that may be switched to level, by controller: not the timer, keyboard, cascade, RTC and FPU.
const ELCR_WRITABLE: [u8; 2] = [0xf8, 0xde];

const ICW1_IC4: u8 = 1 << 0;
const ICW1_SNGL: u8 = 1 << 1;
const ICW1_LTIM: u8 = 1 << 3;
const ICW1: u8 = 1 << 4;
const ICW4_AEOI: u8 = 1 << 1;
const ICW4_SFNM: u8 = 1 << 4;
const OCW3: u8 = 1 << 3;
const OCW3_RIS: u8 = 1 << 0;
const OCW3_RR: u8 = 1 << 1;
const OCW3_P: u8 = 1 << 2;
const OCW3_SMM: u8 = 1 << 5;
const OCW3_ESMM: u8 = 1 << 6;

/// Which initialisation word is expected at the odd port.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
enum Expected {
    /// None: the odd port is OCW1, the mask.
    #[default]
    Ocw1,
    Icw2,
    Icw3,
    Icw4,
}

#[derive(Clone, Serialize, Deserialize, Debug, Default)]
struct Chip {
    lines: u8,
    irr: u8,
    isr: u8,
    imr: u8,
    elcr: u8,
    icw1: u8,
    vector: u8,
    icw3: u8,
    icw4: u8,
    expected: Expected,
    /// The input with the lowest priority; the one above it in the ring has the highest.
    lowest: u8,
    rotate_in_aeoi: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
}

impl Chip {
    fn level_triggered(&self) -> u8 {
        if self.icw1 & ICW1_LTIM != 0 { 0xff } else { self.elcr }
    }

    /// Inputs from the highest priority on.
    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=8).map(move |n| lowest.wrapping_add(n) & 7)
    }

    /// The request to serve next. `cascade` has the inputs that lead to a slave.
    fn request(&self, cascade: u8) -> Option<u8> {
        let mut blocking = self.isr;
        if self.special_mask {
            blocking &= !self.imr;
        }
        if self.icw4 & ICW4_SFNM != 0 {
            blocking &= !cascade;
        }
        for n in self.by_priority() {
            if blocking >> n & 1 != 0 {
                return None;
            }
            if (self.irr & !self.imr) >> n & 1 != 0 {
                return Some(n);
            }
        }
        None
    }

    fn set(&mut self, n: u8, level: bool) {
        let bit = 1 << n;
        let rises = level && self.lines & bit == 0;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        if self.level_triggered() & bit != 0 {
            self.irr = self.irr & !bit | self.lines & bit;
        } else if rises {
            self.irr |= bit;
        }
    }

    /// Puts a request into service.
    fn begin(&mut self, n: u8) {
        let bit = 1 << n;
        if self.level_triggered() & bit == 0 {
            self.irr &= !bit;
        }
        if self.icw4 & ICW4_AEOI == 0 {
            self.isr |= bit;
        } else if self.rotate_in_aeoi {
            self.lowest = n;
        }
    }

    fn initialise(&mut self, icw1: u8) {
        *self = Chip {
            lines: self.lines,
            elcr: self.elcr,
            vector: self.vector,
            icw1,
            // Without ICW4 its functions are off; without ICW3 the slave's identification is 7.
            icw3: 7,
            lowest: 7,
            expected: Expected::Icw2,
            ..Chip::default()
        };
        self.irr = self.lines & self.level_triggered();
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            self.initialise(value);
        } else if value & OCW3 != 0 {
            if value & OCW3_ESMM != 0 {
                self.special_mask = value & OCW3_SMM != 0;
            }
            if value & OCW3_RR != 0 {
                self.read_isr = value & OCW3_RIS != 0;
            }
            self.poll = value & OCW3_P != 0;
        } else {
            self.write_ocw2(value);
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let level = value & 7;
        let served = if value >> 6 & 1 != 0 {
            Some(level)
        } else {
            let visible = if self.special_mask { self.isr & !self.imr } else { self.isr };
            self.by_priority().find(|n| visible >> n & 1 != 0)
        };
        // R (rotate), SL (specific), EOI.
        match value >> 5 {
            0b000 => self.rotate_in_aeoi = false,
            0b100 => self.rotate_in_aeoi = true,
            0b001 | 0b011 | 0b101 | 0b111 => {
                if let Some(n) = served {
                    self.isr &= !(1 << n);
                    if value >> 7 != 0 {
                        self.lowest = n;
                    }
                }
            }
            0b110 => self.lowest = level,
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        let icw4 = if self.icw1 & ICW1_IC4 != 0 { Expected::Icw4 } else { Expected::Ocw1 };
        self.expected = match self.expected {
            Expected::Ocw1 => {
                self.imr = value;
                Expected::Ocw1
            }
            Expected::Icw2 => {
                self.vector = value & 0xf8;
                if self.icw1 & ICW1_SNGL != 0 { icw4 } else { Expected::Icw3 }
            }
            Expected::Icw3 => {
                self.icw3 = value;
                icw4
            }
            Expected::Icw4 => {
                self.icw4 = value;
                Expected::Ocw1
            }
        };
    }

    fn read(&mut self, port: u64, cascade: u8) -> u8 {
        if self.poll {
            self.poll = false;
            return match self.request(cascade) {
                Some(n) => {
                    self.begin(n);
                    0x80 | n
                }
                None => 0,
            };
        }
        match port {
            0 if self.read_isr => self.isr,
            0 => self.irr,
            _ => self.imr,
        }
    }
}

/// Both controllers. Inputs 0 to 15 are the interrupt requests IRQ0 to IRQ15.
pub struct I8259 {
    chips: [Chip; 2],
    output: IrqLine,
}

impl I8259 {
    /// `output` is the master's INT pin: the processor's INTR or the local APIC's LINT0.
    pub fn new(output: IrqLine) -> I8259 {
        let mut pic = I8259 { chips: [Chip::default(), Chip::default()], output };
        pic.reset();
        pic
    }

    /// The level of INT.
    pub fn has_interrupt(&self) -> bool {
        self.chips[0].request(1 << CASCADE).is_some()
    }

    /// The processor's interrupt acknowledge cycle: the vector, input 7's if there is no request (any more).
    pub fn acknowledge(&mut self) -> u8 {
        let n = self.chips[0].request(1 << CASCADE);
        let vector = match n {
            None => self.chips[0].vector | 7,
            Some(n) => {
                self.chips[0].begin(n);
                if n == CASCADE && self.chips[0].icw1 & ICW1_SNGL == 0 {
                    let request = self.chips[1].request(0);
                    if let Some(n) = request {
                        self.chips[1].begin(n);
                    }
                    self.chips[1].vector | request.unwrap_or(7)
                } else {
                    self.chips[0].vector | n
                }
            }
        };
        self.update();
        vector
    }

    /// In-service, request and mask registers of both controllers, for the monitor: `[[irr, isr, imr]; 2]`.
    pub fn registers(&self) -> [[u8; 3]; 2] {
        [0, 1].map(|n: usize| [self.chips[n].irr, self.chips[n].isr, self.chips[n].imr])
    }

    fn update(&mut self) {
        let slave = self.chips[1].request(0).is_some();
        self.chips[0].set(CASCADE, slave);
        // INT of the slave falls between two requests: each of them is an edge for the master.
        if slave {
            self.chips[0].irr |= 1 << CASCADE;
        }
        self.output.set(self.has_interrupt());
    }
}

impl IrqInputs for I8259 {
    fn set_input(&mut self, line: u32, level: bool) {
        if line < 16 && line != u32::from(CASCADE) {
            self.chips[line as usize / 8].set(line as u8 & 7, level);
            self.update();
        }
    }
}

impl Device for I8259 {
    fn name(&self) -> &'static str {
        "i8259"
    }

    fn reset(&mut self) {
        self.chips = [(); 2].map(|()| Chip { lowest: 7, ..Chip::default() });
        self.update();
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        let value = tulk_hw::read_bytes(offset, bytes, |port| match (window, port) {
            (MASTER, 0..2) => self.chips[0].read(port, 1 << CASCADE),
            (SLAVE, 0..2) => self.chips[1].read(port, 0),
            (ELCR, 0..2) => self.chips[port as usize].elcr,
            _ => 0xff,
        });
        self.update();
        value
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        tulk_hw::write_bytes(offset, bytes, value, |port, value| match (window, port) {
            (MASTER | SLAVE, 0) => self.chips[window as usize].write_command(value),
            (MASTER | SLAVE, 1) => self.chips[window as usize].write_data(value),
            (ELCR, 0..2) => {
                let chip = &mut self.chips[port as usize];
                chip.elcr = value & ELCR_WRITABLE[port as usize];
                chip.irr = chip.irr & !chip.elcr | chip.lines & chip.elcr;
            }
            _ => {}
        });
        self.update();
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.chips)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.chips = tulk_hw::load_state(self.name(), snapshot)?;
        self.output.set(self.has_interrupt());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulk_hw::{RecordedIrqs, check_device};

    /// Set up as a PC's firmware does: vectors 0x08 and 0x70, nothing masked.
    fn pic(icw4: u8) -> I8259 {
        let mut pic = I8259::new(IrqLine::unconnected());
        for (window, vector, icw3) in [(MASTER, 0x08, 0x04), (SLAVE, 0x70, 0x02)] {
            pic.write(window, 0, 1, 0x11);
            for value in [vector, icw3, icw4] {
                pic.write(window, 1, 1, value.into());
            }
        }
        pic
    }
    fn edge(pic: &mut I8259, line: u32) {
        pic.set_input(line, true);
        pic.set_input(line, false);
    }
    fn isr(pic: &mut I8259, window: u8) -> u64 {
        pic.write(window, 0, 1, 0x0b);
        pic.read(window, 0, 1)
    }

    #[test]
    fn conforms() {
        check_device(&mut pic(1), &[2, 2, 2], 20_000);
    }

    #[test]
    fn fully_nested() {
        let irqs = RecordedIrqs::new();
        let mut pic = pic(1);
        pic.output = IrqLine::new(irqs.clone(), 0);
        edge(&mut pic, 4);
        assert!(irqs.level(0));
        assert_eq!(pic.acknowledge(), 0x0c);
        assert!(!irqs.level(0));
        // Lower priority waits, higher interrupts.
        edge(&mut pic, 7);
        assert!(!pic.has_interrupt());
        edge(&mut pic, 1);
        assert_eq!(pic.acknowledge(), 0x09);
        assert_eq!(isr(&mut pic, MASTER), 0x12);
        pic.write(MASTER, 0, 1, 0x20);
        assert_eq!(isr(&mut pic, MASTER), 0x10);
        pic.write(MASTER, 0, 1, 0x64);
        assert_eq!(isr(&mut pic, MASTER), 0);
        assert_eq!(pic.acknowledge(), 0x0f);
    }

    #[test]
    fn cascade_and_special_fully_nested_mode() {
        for (icw4, nested) in [(1, false), (0x11, true)] {
            let mut pic = pic(icw4);
            edge(&mut pic, 12);
            assert_eq!(pic.acknowledge(), 0x74);
            assert_eq!((isr(&mut pic, MASTER), isr(&mut pic, SLAVE)), (4, 0x10));
            edge(&mut pic, 8);
            assert_eq!(pic.has_interrupt(), nested);
            if !nested {
                pic.write(MASTER, 0, 1, 0x20);
            }
            assert_eq!(pic.acknowledge(), 0x70);
        }
    }

    #[test]
    fn masks_and_special_mask_mode() {
        let mut pic = pic(1);
        pic.write(MASTER, 1, 1, 0x10);
        edge(&mut pic, 4);
        assert!(!pic.has_interrupt());
        assert_eq!(pic.read(MASTER, 1, 1), 0x10);
        pic.write(MASTER, 1, 1, 0);
        assert_eq!(pic.acknowledge(), 0x0c);
        edge(&mut pic, 6);
        assert!(!pic.has_interrupt());
        // Masking the level in service lets lower ones through; an unspecific EOI does not see it.
        pic.write(MASTER, 1, 1, 0x10);
        pic.write(MASTER, 0, 1, 0x68);
        assert_eq!(pic.acknowledge(), 0x0e);
        pic.write(MASTER, 0, 1, 0x20);
        pic.write(MASTER, 0, 1, 0x20);
        assert_eq!(isr(&mut pic, MASTER), 0x10);
        pic.write(MASTER, 0, 1, 0x48);
        pic.write(MASTER, 0, 1, 0x20);
        assert_eq!(isr(&mut pic, MASTER), 0);
    }

    #[test]
    fn rotations() {
        let mut pic = pic(1);
        // Set priority: 3 lowest, so 4 is highest.
        pic.write(MASTER, 0, 1, 0xc3);
        edge(&mut pic, 0);
        edge(&mut pic, 4);
        assert_eq!(pic.acknowledge(), 0x0c);
        // Rotate on unspecific EOI: 4 is lowest now.
        pic.write(MASTER, 0, 1, 0xa0);
        edge(&mut pic, 4);
        edge(&mut pic, 5);
        for vector in [0x0d, 0x08, 0x0c] {
            assert_eq!(pic.acknowledge(), vector);
            pic.write(MASTER, 0, 1, 0x20);
        }
        // Rotate on specific EOI of 6: 7 is highest.
        edge(&mut pic, 6);
        pic.acknowledge();
        pic.write(MASTER, 0, 1, 0xe6);
        edge(&mut pic, 0);
        edge(&mut pic, 7);
        assert_eq!(pic.acknowledge(), 0x0f);
    }

    #[test]
    fn automatic_eoi() {
        let mut pic = pic(3);
        edge(&mut pic, 3);
        assert_eq!(pic.acknowledge(), 0x0b);
        assert_eq!(isr(&mut pic, MASTER), 0);
        pic.write(MASTER, 0, 1, 0x80);
        edge(&mut pic, 3);
        pic.acknowledge();
        edge(&mut pic, 3);
        edge(&mut pic, 4);
        assert_eq!(pic.acknowledge(), 0x0c);
    }

    #[test]
    fn levels_and_spurious() {
        let mut pic = pic(1);
        pic.write(ELCR, 0, 2, 0xffff);
        assert_eq!(pic.read(ELCR, 0, 2), 0xdef8);
        pic.set_input(10, true);
        assert_eq!(pic.acknowledge(), 0x72);
        pic.write(SLAVE, 0, 1, 0x20);
        pic.write(MASTER, 0, 1, 0x20);
        assert!(pic.has_interrupt(), "the line is still up");
        // It falls before the acknowledge: the master goes on to the slave, which has nothing to tell.
        pic.set_input(10, false);
        assert_eq!(pic.acknowledge(), 0x77);
        assert_eq!((isr(&mut pic, MASTER), isr(&mut pic, SLAVE)), (4, 0));
        pic.write(MASTER, 0, 1, 0x20);
        pic.set_input(5, true);
        pic.set_input(5, false);
        assert!(!pic.has_interrupt());
        assert_eq!(pic.acknowledge(), 0x0f);
        assert_eq!(isr(&mut pic, MASTER), 0);
    }

    #[test]
    fn poll() {
        let mut pic = pic(1);
        pic.write(MASTER, 0, 1, 0x0c);
        assert_eq!(pic.read(MASTER, 0, 1), 0);
        edge(&mut pic, 3);
        pic.write(MASTER, 0, 1, 0x0c);
        assert_eq!(pic.read(MASTER, 0, 1), 0x83);
        assert_eq!(isr(&mut pic, MASTER), 8);
    }

    #[test]
    fn initialisation_needs_a_new_edge() {
        let mut pic = pic(1);
        pic.write(MASTER, 1, 1, 0xff);
        pic.set_input(1, true);
        pic.write(MASTER, 0, 1, 0x12);
        assert_eq!(pic.read(MASTER, 0, 1), 0, "IRR is empty");
        // Single and without ICW4: one word more.
        pic.write(MASTER, 1, 1, 0x20);
        pic.write(MASTER, 1, 1, 0xfd);
        assert_eq!(pic.read(MASTER, 1, 1), 0xfd);
        pic.set_input(1, false);
        pic.set_input(1, true);
        assert_eq!(pic.acknowledge(), 0x21);
    }
}
