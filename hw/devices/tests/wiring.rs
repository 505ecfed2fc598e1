//! The interrupt controllers wired as on a board: 8259, I/O APIC and local APICs together, from several threads.

use parking_lot::Mutex;
use std::sync::Arc;
use tulk_base::CpuEvent;
use tulk_devices::intc::{Apics, I8259, IoApic};
use tulk_devices::timer::I8254;
use tulk_hw::{Device, IrqLine, IrqSink, ManualClock};

struct Board {
    apics: Arc<Apics>,
    pic: Arc<Mutex<I8259>>,
    ioapic: Arc<Mutex<IoApic>>,
}

/// ISA interrupts lead to both controllers; IRQ0 is input 2 of the I/O APIC.
impl IrqSink for Board {
    fn set(&self, line: u32, level: bool) {
        if line < 16 {
            self.pic.set(line, level);
        }
        self.ioapic.set(if line == 0 { 2 } else { line }, level);
    }
}

fn board() -> (Arc<Board>, Arc<ManualClock>) {
    let clock = ManualClock::new();
    let apics = Apics::new(2, clock.clone(), 1_000_000_000, |_| {});
    let pic = Arc::new(Mutex::new(I8259::new(IrqLine::new(apics.clone(), 0))));
    let ioapic = Arc::new(Mutex::new(IoApic::new(apics.clone())));
    let (p, i) = (pic.clone(), ioapic.clone());
    apics.connect_pic(move || p.lock().acknowledge());
    apics.connect_ioapic(move |vector| i.lock().end_of_interrupt(vector));
    for (window, words) in [(0u8, [0x20, 4, 1]), (1, [0x28, 2, 1])] {
        pic.lock().write(window, 0, 1, 0x11);
        for word in words {
            pic.lock().write(window, 1, 1, word);
        }
    }
    (Arc::new(Board { apics, pic, ioapic }), clock)
}

#[test]
fn timer_through_the_virtual_wire() {
    let (board, clock) = board();
    let mut pit = I8254::new(clock.clone(), IrqLine::new(board.clone(), 0));
    for (port, value) in [(3, 0x34), (0, 0xe8), (0, 3)] {
        pit.write(0, port, 1, value);
    }
    // The output's rise when the mode is set is an edge, too.
    assert_eq!(board.apics.take_event(0, true), Some(CpuEvent::Interrupt(0x20)));
    board.pic.lock().write(0, 0, 1, 0x20);
    assert_eq!(board.apics.take_event(0, true), None);
    let at = pit.deadline().unwrap();
    clock.set(at);
    pit.tick(at);
    assert!(!board.apics.has_event(1, true));
    assert!(!board.apics.has_event(0, false));
    assert_eq!(board.apics.take_event(0, true), Some(CpuEvent::Interrupt(0x20)));
    assert!(!board.apics.has_event(0, true), "in service");
}

#[test]
fn levels_through_the_ioapic() {
    let (board, _) = board();
    board.apics.mmio_write(1, 0xf0, 4, 0x1ff);
    {
        let mut ioapic = board.ioapic.lock();
        for (register, value) in [(0x27, 1 << 24), (0x26, 0xa055)] {
            ioapic.write(0, 0, 4, register);
            ioapic.write(0, 0x10, 4, value);
        }
    }
    board.pic.lock().write(1, 1, 1, 0xff);
    board.set(11, true);
    for _ in 0..3 {
        assert_eq!(board.apics.take_event(1, true), Some(CpuEvent::Interrupt(0x55)));
        assert!(!board.apics.has_event(1, true));
        board.apics.mmio_write(1, 0xb0, 4, 0);
    }
    board.set(11, false);
    assert_eq!(board.apics.take_event(1, true), Some(CpuEvent::Interrupt(0x55)));
    board.apics.mmio_write(1, 0xb0, 4, 0);
    assert!(!board.apics.has_event(1, true));
}

#[test]
fn no_deadlock_between_threads() {
    let (board, _) = board();
    for cpu in 0..2 {
        board.apics.mmio_write(cpu, 0xf0, 4, 0x1ff);
    }
    {
        let mut ioapic = board.ioapic.lock();
        for (register, value) in [(0x27, 1 << 24), (0x26, 0xa055), (0x29, 0), (0x28, 0x56)] {
            ioapic.write(0, 0, 4, register);
            ioapic.write(0, 0x10, 4, value);
        }
    }
    std::thread::scope(|scope| {
        for line in [11, 12] {
            let board = board.clone();
            scope.spawn(move || {
                for n in 0..20_000 {
                    board.set(line, n % 2 == 0);
                }
            });
        }
        for cpu in 0..2 {
            let board = board.clone();
            scope.spawn(move || {
                for _ in 0..20_000 {
                    if board.apics.take_event(cpu, true).is_some() {
                        board.apics.mmio_write(cpu, 0xb0, 4, 0);
                    }
                    board.pic.lock().write(0, 0, 1, 0x20);
                    board.apics.mmio_write(cpu, 0x310, 4, u64::from(1 - cpu) << 24);
                    board.apics.mmio_write(cpu, 0x300, 4, 0x4060);
                }
            });
        }
    });
    board.set(11, false);
    board.set(12, false);
    // Everything can be drained again.
    for cpu in 0..2 {
        let mut left = 0;
        while board.apics.take_event(cpu, true).is_some() {
            board.apics.mmio_write(cpu, 0xb0, 4, 0);
            board.pic.lock().write(1, 0, 1, 0x20);
            board.pic.lock().write(0, 0, 1, 0x20);
            left += 1;
            assert!(left < 10, "processor {cpu} does not come to rest");
        }
    }
}
