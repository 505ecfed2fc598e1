use crate::driver::Driver;
use parking_lot::Mutex;
use std::sync::Arc;
use tulk_devices::chardev::{CharDevice, Plug};
use tulk_devices::virtio::console::{Console, Port, feature};
use tulk_devices::virtio::pci::{MODERN, layout};
use tulk_devices::virtio::{Interface, VirtioPci};
use tulk_hw::{Device, VecMemory, check_device};
use tulk_ui::{CharBackend, CharSink};

#[derive(Default)]
struct Terminal {
    written: Mutex<Vec<u8>>,
    ready: Mutex<u32>,
}

impl CharBackend for Terminal {
    fn write(&self, bytes: &[u8]) {
        self.written.lock().extend(bytes);
    }
    fn connect(&self, _: Arc<dyn CharSink>) {}
    fn ready(&self) {
        *self.ready.lock() += 1;
    }
    fn describe(&self) -> String {
        "terminal".into()
    }
}

impl Terminal {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.written.lock())
    }
    fn take_ready(&self) -> u32 {
        std::mem::take(&mut self.ready.lock())
    }
}

fn port(backend: &Arc<Terminal>, console: bool, name: Option<&str>) -> Port {
    Port { backend: backend.clone(), console, name: name.map(str::to_string) }
}

#[test]
fn one_console() {
    for legacy in [false, true] {
        let terminal = Arc::new(Terminal::default());
        let console = Console::new(vec![port(&terminal, true, None)]);
        let make = |dma| VirtioPci::new(console, dma, Interface::Transitional);
        let mut d = Driver::start(make, legacy, feature::SIZE);
        assert_eq!(d.rings.len(), 2);
        let text = vec![b'x'; 5000];
        d.add(1, &[b"login: ", &text], &[]);
        d.kick(1);
        assert_eq!(terminal.take(), [b"login: ".to_vec(), text].concat());
        assert_eq!(d.used(1).len(), 1);
        terminal.take_ready();
        assert_eq!(d.dev.receive(0, b"root"), 0);
        d.add(0, &[], &[3]);
        d.kick(0);
        assert_eq!(terminal.take_ready(), 1);
        assert_eq!(d.dev.receive(0, b"root"), 3);
        assert_eq!(d.used(0)[0].2, b"roo");
        d.interrupt();
        d.dev.with(|console, rings| console.resize(80, 25, rings));
        assert_eq!(d.interrupt(), Some(2));
    }
}

#[test]
fn several_ports() {
    let (tty, agent) = (Arc::new(Terminal::default()), Arc::new(Terminal::default()));
    let ports = vec![port(&tty, true, None), port(&agent, false, Some("org.tulk.agent"))];
    // One console without a name is the simple device; a second port brings the control queues.
    let console = Console::new(ports);
    let make = |dma| VirtioPci::new(console, dma, Interface::Transitional);
    let mut d = Driver::start(make, false, feature::SIZE | feature::MULTIPORT);
    assert_eq!(d.rings.len(), 6);
    assert_eq!(d.dev.read(MODERN, layout::DEVICE + 4, 4), 2);
    for _ in 0..16 {
        d.add(2, &[], &[64]);
    }
    let message = |id: u32, event: u16, value: u16| {
        [&id.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let say = |d: &mut Driver<Console>, id: u32, event: u16, value: u16| {
        d.add(3, &[&message(id, event, value)], &[]);
        d.kick(3);
        d.used(2).into_iter().map(|u| u.2).collect::<Vec<_>>()
    };
    assert_eq!(say(&mut d, 0, 0, 1), [message(0, 1, 1), message(1, 1, 1)]);
    assert_eq!(say(&mut d, 0, 3, 1), [message(0, 4, 1), message(0, 6, 1)]);
    let name = [message(1, 7, 1), b"org.tulk.agent".to_vec()].concat();
    assert_eq!(say(&mut d, 1, 3, 1), [name, message(1, 6, 1)]);
    assert_eq!(say(&mut d, 7, 3, 1), Vec::<Vec<u8>>::new(), "no such port");
    d.dev.with(|console, rings| console.resize(132, 43, rings));
    let size = [message(0, 5, 0), vec![43, 0, 132, 0]].concat();
    assert_eq!(d.used(2)[0].2, size);
    // Port 1 has queues 4 and 5, and takes nothing before the driver opens it.
    d.add(4, &[], &[64]);
    assert_eq!(d.dev.receive(1, b"hello"), 0);
    agent.take_ready();
    say(&mut d, 1, 6, 1);
    assert_eq!(agent.take_ready(), 1);
    assert_eq!(d.dev.receive(1, b"hello"), 5);
    assert_eq!(d.used(4)[0].2, b"hello");
    d.add(5, &[b"done"], &[]);
    d.kick(5);
    assert_eq!((agent.take(), tty.take()), (b"done".to_vec(), vec![]));
    let saved = d.dev.save();
    d.dev.reset();
    d.dev.load(&saved).unwrap();
    assert_eq!(d.dev.save(), saved);
}

#[test]
fn emergency_writes_and_conformance() {
    let tty = Arc::new(Terminal::default());
    let ports = || vec![port(&tty, true, None), port(&tty, false, Some("p"))];
    let memory = Arc::new(VecMemory::new(1 << 20));
    let mut dev = VirtioPci::new(Console::new(ports()), memory, Interface::Transitional);
    dev.write(MODERN, layout::DEVICE + 8, 4, b'!'.into());
    assert_eq!(tty.take(), b"!");
    check_device(&mut dev, &[64, 4096, 1, 1, layout::SIZE], 20_000);
    let plug = Plug { device: Arc::new(Mutex::new(dev)), port: 0, notice: Box::new(|_| {}) };
    assert_eq!(plug.receive(b"a"), 0);
}
