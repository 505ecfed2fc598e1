//! Backends against real files, sockets and terminals.

use super::*;
use std::io::{Read, Write};
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(20);

/// A device with limited room.
#[derive(Default)]
struct Device {
    got: Mutex<Vec<u8>>,
    room: Mutex<usize>,
}

impl Device {
    fn new(room: usize) -> Arc<Device> {
        Arc::new(Device { got: Mutex::default(), room: Mutex::new(room) })
    }
    fn wait_for(&self, count: usize) -> Vec<u8> {
        let start = Instant::now();
        loop {
            let got = self.got.lock().clone();
            if got.len() >= count {
                return got;
            }
            assert!(start.elapsed() < PATIENCE, "{} of {count} bytes came", got.len());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl CharSink for Device {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut room = self.room.lock();
        let taken = bytes.len().min(*room);
        *room -= taken;
        self.got.lock().extend_from_slice(&bytes[..taken]);
        taken
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn error(result: Result<Arc<dyn CharBackend>, Error>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn files_are_truncated_or_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serial.log");
    for (spec, wanted) in
        [("file:{}", "one"), ("file:{}", "one"), ("file,path={},append=on", "oneone")]
    {
        let backend = open_chardev(&spec.replace("{}", path.to_str().unwrap())).unwrap();
        backend.write(b"one");
        backend.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), wanted);
    }
    let message = error(open_chardev("file:/nonexistent/x"));
    assert!(message.contains("file:/nonexistent/x: No such file"), "{message}");
}

#[test]
fn a_full_disk_is_no_end() {
    let backend = open_chardev("file:/dev/full").unwrap();
    backend.write(&[b'x'; 3 << 20]);
    backend.flush();
}

#[test]
fn a_unix_server_takes_one_client_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let spec = format!("unix:{},server=on,wait=off", path.display());
    let backend = open_chardev(&spec).unwrap();
    let device = Device::new(5);
    backend.connect(device.clone());
    assert!(backend.describe().ends_with("(disconnected)"));
    backend.write(b"nobody hears this");
    for round in 0..3 {
        let mut client = UnixStream::connect(&path).unwrap();
        wait_until("connected", || !backend.describe().contains("disconnected"));
        backend.write(b"hello");
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        // What the device has no room for stays, even when the client goes at once.
        client.write_all(b"0123456789").unwrap();
        drop(client);
        device.wait_for(10 * round + 5);
        *device.room.lock() = 10;
        backend.ready();
        device.wait_for(10 * round + 10);
        wait_until("disconnected", || backend.describe().contains("disconnected"));
    }
    assert_eq!(*device.got.lock(), b"0123456789".repeat(3));
    drop(backend);
    assert!(!path.exists());
}

#[test]
fn a_dead_socket_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    drop(open_chardev(&format!("unix:{},server=on,wait=off", path.display())).unwrap());
    std::fs::write(&path, "precious").unwrap();
    error(open_chardev(&format!("unix:{},server=on,wait=off", path.display())));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_peer_that_does_not_read_never_holds_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let backend = open_chardev(&format!("unix:{}", path.display())).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let start = Instant::now();
    for n in 0..5u32 << 20 >> 2 {
        backend.write(&n.to_le_bytes());
    }
    assert!(start.elapsed() < PATIENCE);
    // It gets the beginning that the kernel took, and the end.
    let last = ((5u32 << 20 >> 2) - 1).to_le_bytes();
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !all.ends_with(&last) {
        let count = peer.read(&mut buffer).unwrap();
        assert!(count > 0);
        all.extend_from_slice(&buffer[..count]);
    }
    assert!(all.len() >= link::CAPACITY && all.len() < 5 << 20, "{}", all.len());
    drop(peer);
    backend.write(b"gone");
    wait_until("disconnected", || backend.describe().contains("disconnected"));
}

#[test]
fn a_tcp_server_that_waits_and_a_client_that_reconnects() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = open_chardev(&format!("tcp:127.0.0.1:{port},reconnect-ms=20,nodelay")).unwrap();
    let device = Device::new(usize::MAX);
    client.connect(device.clone());
    for round in 1..=2 {
        let server = open_chardev(&format!("tcp:127.0.0.1:{port},server=on")).unwrap();
        server.write(b"ping");
        assert_eq!(device.wait_for(4 * round), b"ping".repeat(round));
        let other = Device::new(usize::MAX);
        server.connect(other.clone());
        wait_until("connected", || !client.describe().contains("disconnected"));
        client.write(b"pong");
        assert_eq!(other.wait_for(4), b"pong");
        drop(server);
        wait_until("disconnected", || client.describe().contains("disconnected"));
    }
    let message = error(open_chardev(&format!("tcp:127.0.0.1:{port}")));
    assert!(message.contains("refused"), "{message}");
}

#[test]
fn a_pty_keeps_what_came_before_its_reader() {
    let backend = open_chardev("pty").unwrap();
    let device = Device::new(usize::MAX);
    backend.connect(device.clone());
    let path = backend.describe().strip_prefix("pty:").unwrap().to_string();
    for _ in 0..2 {
        backend.write(b"boot\r\n");
        let mut terminal = File::options().read(true).write(true).open(&path).unwrap();
        let mut bytes = [0; 6];
        terminal.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"boot\r\n");
        terminal.write_all(b"ls\r").unwrap();
        device.wait_for(3);
        assert_eq!(std::mem::take(&mut *device.got.lock()), b"ls\r");
    }
}

#[test]
fn named_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    for end in ["in", "out"] {
        let file = path.with_extension(end);
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, Mode::from(0o600)).unwrap();
    }
    let backend = open_chardev(&format!("pipe:{}", path.display())).unwrap();
    let device = Device::new(usize::MAX);
    backend.connect(device.clone());
    backend.write(b"out");
    let mut bytes = [0; 3];
    File::open(path.with_extension("out")).unwrap().read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"out");
    std::fs::write(path.with_extension("in"), "in").unwrap();
    assert_eq!(device.wait_for(2), b"in");
    error(open_chardev("pipe:/nonexistent/p"));
}

#[test]
fn a_telnet_client() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let backend = open_chardev(&format!("telnet:127.0.0.1:{port},server=on,wait=off")).unwrap();
    let device = Device::new(usize::MAX);
    backend.connect(device.clone());
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut greeting = telnet::GREETING;
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, telnet::GREETING);
    client.write_all(&[telnet::IAC, 253, 1, b'a', telnet::IAC, telnet::IAC]).unwrap();
    assert_eq!(device.wait_for(2), [b'a', 255]);
    backend.write(&[255]);
    let mut doubled = [0; 2];
    client.read_exact(&mut doubled).unwrap();
    assert_eq!(doubled, [255, 255]);
}

#[test]
fn a_ring_keeps_the_end() {
    let ring = Ringbuf::new(4);
    ring.write(b"ab");
    ring.write(b"cdefg");
    ring.write(b"h");
    assert_eq!(ring.contents(), b"efgh");
}

#[test]
fn input_waits_for_room() {
    let (reader, mut writer) = io::pipe().unwrap();
    let inlet = Inlet::new(reader).unwrap();
    let device = Device::new(3);
    writer.write_all(b"abcdefgh").unwrap();
    inlet.intake.connect(device.clone());
    assert_eq!(device.wait_for(3), b"abc");
    *device.room.lock() = 100;
    inlet.intake.bell.ring();
    assert_eq!(device.wait_for(8), b"abcdefgh");
    drop(writer);
    // The end of the file is no end of the thread's patience: dropping it works, and it does not spin.
    drop(inlet);
}
