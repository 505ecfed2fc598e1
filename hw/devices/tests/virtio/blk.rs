use crate::driver::Driver;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tulk_block::{Disk, FailingDisk, Guarded, MemoryDisk, OnError, Policy};
use tulk_devices::virtio::blk::{Blk, Options, feature, start_worker};
use tulk_devices::virtio::pci::{LEGACY, MODERN, layout};
use tulk_devices::virtio::{Interface, VirtioPci};
use tulk_hw::{Device, VecMemory, check_device};

/// A disk that writes down what is done to it.
struct Witness {
    disk: MemoryDisk,
    log: Mutex<Vec<String>>,
    fail: Mutex<bool>,
}

impl Witness {
    fn new(sectors: usize) -> Arc<Witness> {
        let data = (0..sectors * 512).map(|n| (n / 512 + n) as u8).collect();
        Arc::new(Witness {
            disk: MemoryDisk::new(data, false),
            log: Mutex::default(),
            fail: Mutex::new(false),
        })
    }
    fn took(&self, what: String) -> io::Result<()> {
        self.log.lock().push(what);
        if *self.fail.lock() { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }
}

impl Disk for Witness {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_only(&self) -> bool {
        self.disk.read_only()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.took(format!("read {}+{}", offset / 512, out.len() / 512))?;
        self.disk.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.took(format!("write {}+{}", offset / 512, data.len() / 512))?;
        self.disk.write_at(offset, data)
    }
    fn flush(&self) -> io::Result<()> {
        self.took("flush".into())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.took(format!("discard {}+{}", offset / 512, len / 512))
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.took(format!("zero {}+{}", offset / 512, len / 512))?;
        self.disk.write_at(offset, &vec![0; len as usize])
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn driver(disk: Arc<Witness>, legacy: bool, features: u64) -> Driver<Blk> {
    let options = Options { serial: "TULK-1".into(), ..Options::default() };
    let make = |dma| VirtioPci::new(Blk::new(disk, options), dma, Interface::Transitional);
    Driver::start(make, legacy, features)
}

/// Kicks, works, and gives what came back.
fn run(d: &mut Driver<Blk>) -> Vec<(u16, u32, Vec<u8>)> {
    d.kick(0);
    d.dev.with(|blk, rings| blk.run_all(rings));
    d.used(0)
}

const INDIRECT: u64 = tulk_devices::virtio::feature::RING_INDIRECT_DESC;
const EVENT_IDX: u64 = tulk_devices::virtio::feature::RING_EVENT_IDX;

#[test]
fn reads_and_writes_by_both_interfaces() {
    for (legacy, features) in
        [(false, 0), (false, INDIRECT), (false, EVENT_IDX), (true, INDIRECT), (true, 0)]
    {
        let disk = Witness::new(64);
        let mut d = driver(disk.clone(), legacy, features | feature::FLUSH);
        let head = d.add(0, &[&header(0, 3)], &[1000, 536, 1]);
        let used = run(&mut d);
        let mut expected = vec![0; 1536];
        disk.disk.read_at(3 * 512, &mut expected).unwrap();
        expected.push(0);
        assert_eq!(used, [(head, 1537, expected)]);
        assert_eq!(disk.log(), ["read 3+3"], "one access for all segments");
        assert_eq!(d.interrupt(), Some(1));
        // The header and data may be cut anywhere (2.7.4).
        let data = vec![0xa5; 1024];
        let mut request = header(1, 5);
        request.extend(&data);
        d.add(0, &[&request[..7], &request[7..100], &request[100..]], &[1]);
        assert_eq!(run(&mut d)[0].2, [0]);
        assert_eq!(disk.log(), ["write 5+2"]);
        let mut back = vec![0; 1024];
        disk.disk.read_at(5 * 512, &mut back).unwrap();
        assert_eq!(back, data);
        d.add(0, &[&header(8, 0)], &[20, 1]);
        assert_eq!(run(&mut d)[0].2, [&b"TULK-1"[..], &[0; 15]].concat());
    }
}

#[test]
fn answers_errors() {
    let disk = Witness::new(64);
    let mut d = driver(disk.clone(), false, feature::FLUSH);
    let mut status = |readable: &[u8], room: usize| {
        d.add(0, &[readable], &[room, 1]);
        d.kick(0);
        d.dev.with(|blk, rings| blk.run_all(rings));
        let (head, len, _) = d.used(0).pop().expect("an answer");
        assert!(len >= 1, "{head}");
        // The status byte stands last, however much was written.
        let writable = d.last_byte(0, head);
        disk.log();
        writable
    };
    assert_eq!(status(&header(0, 63), 512), 0);
    assert_eq!(status(&header(0, 64), 512), 1, "beyond the end");
    assert_eq!(status(&header(0, u64::MAX), 512), 1);
    assert_eq!(status(&header(0, 1 << 55), 512), 1);
    assert_eq!(status(&header(0, 0), 100), 1, "part of a sector");
    assert_eq!(status(&header(77, 0), 512), 2, "no such request");
    let range = |sector: u64, n: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &n.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    assert_eq!(status(&[header(13, 0), range(4, 2, 1)].concat(), 1), 0);
    assert_eq!(status(&[header(11, 0), range(4, 2, 1)].concat(), 1), 2, "unmap flag");
    assert_eq!(status(&[header(13, 0), range(4, 2, 2)].concat(), 1), 2, "reserved flag");
    assert_eq!(status(&[header(13, 0), range(63, 2, 0)].concat(), 1), 1, "beyond the end");
    assert_eq!(status(&[header(13, 0), range(63, u32::MAX, 0)].concat(), 1), 1);
    assert_eq!(status(&[header(11, 0), range(62, 2, 0)].concat(), 1), 0);
    assert_eq!(status(&[header(11, 0), range(63, 2, 0)].concat(), 1), 1, "beyond the end");
    assert_eq!(status(&header(13, 0), 1), 1, "no range");
    *disk.fail.lock() = true;
    assert_eq!(status(&header(0, 0), 512), 1, "the host's error");
    assert_eq!(status(&header(4, 0), 512), 1);
}

#[test]
fn merges_neighbours_and_keeps_the_order_of_flushes() {
    let disk = Witness::new(64);
    let mut d = driver(disk.clone(), false, feature::FLUSH | feature::CONFIG_WCE);
    let sector = [7; 512];
    for (kind, at) in [(1, 10), (1, 11), (1, 12), (4, 0), (1, 13), (1, 20)] {
        let data: &[u8] = if kind == 1 { &sector } else { &[] };
        d.add(0, &[&header(kind, at), data], &[1]);
    }
    for at in [10, 11] {
        d.add(0, &[&header(0, at)], &[512, 1]);
    }
    let used = run(&mut d);
    assert_eq!(used.len(), 8);
    assert!(used.iter().all(|(_, _, data)| data.last() == Some(&0)));
    assert_eq!(used[6].2[..512], sector);
    assert_eq!(disk.log(), ["write 10+3", "flush", "write 13+1", "write 20+1", "read 10+2"]);
    // A failing merged access is tried request by request.
    *disk.fail.lock() = true;
    for at in [10, 11] {
        d.add(0, &[&header(0, at)], &[512, 1]);
    }
    assert!(run(&mut d).iter().all(|(_, len, _)| *len == 1));
    assert_eq!(disk.log(), ["read 10+2", "read 10+1", "read 11+1"]);
    *disk.fail.lock() = false;
    // The cache is switched off: each write is flushed.
    d.dev.write(MODERN, layout::DEVICE + 32, 1, 0);
    d.add(0, &[&header(1, 1), &sector], &[1]);
    run(&mut d);
    assert_eq!(disk.log(), ["write 1+1", "flush"]);
}

#[test]
fn drivers_that_do_not_flush_write_through() {
    let disk = Witness::new(64);
    let mut d = driver(disk.clone(), true, 0);
    d.add(0, &[&header(1, 1), &[1; 512]], &[1]);
    run(&mut d);
    assert_eq!(disk.log(), ["write 1+1", "flush"]);
}

#[test]
fn configuration() {
    let mut d = driver(Witness::new(64), true, 0);
    assert_eq!(d.dev.read(LEGACY, 20, 4), 64);
    assert_eq!(d.dev.read(LEGACY, 20 + 12, 4), 254);
    assert_eq!(d.dev.read(LEGACY, 20 + 20, 4), 512);
    assert_eq!(d.dev.read(LEGACY, 20 + 34, 2), 1);
    let read_only: Arc<dyn Disk> = Arc::new(MemoryDisk::new(vec![0; 512], true));
    let make =
        |dma| VirtioPci::new(Blk::new(read_only, Options::default()), dma, Interface::Transitional);
    let mut d = Driver::start(make, false, feature::RO | feature::FLUSH);
    d.add(0, &[&header(1, 0), &[1; 512]], &[1]);
    assert_eq!(run(&mut d)[0].2, [1]);
}

#[test]
fn what_waits_for_the_host_is_tried_again() {
    let failing = Arc::new(FailingDisk::new(Arc::new(MemoryDisk::new(vec![0; 64 * 512], false))));
    let policy = Policy { write: OnError::Pause, read: OnError::Report };
    let disk = Arc::new(Guarded::new(failing.clone(), policy, |_, _, _| ()));
    let make = |dma| {
        VirtioPci::new(Blk::new(disk.clone(), Options::default()), dma, Interface::Transitional)
    };
    let mut d = Driver::start(make, false, feature::FLUSH);
    *failing.writes.lock() = Some(io::ErrorKind::StorageFull);
    d.add(0, &[&header(0, 1)], &[512, 1]);
    d.add(0, &[&header(1, 9), &[0x3c; 512]], &[1]);
    d.add(0, &[&header(1, 10), &[0x3d; 512]], &[1]);
    d.add(0, &[&header(4, 0)], &[1]);
    assert_eq!(run(&mut d).len(), 1, "what was before is answered");
    assert!(run(&mut d).is_empty());
    *failing.writes.lock() = None;
    assert!(run(&mut d).is_empty(), "not before the machine goes on");
    d.dev.with(|blk, _| blk.retry());
    let answers: Vec<_> = run(&mut d).into_iter().map(|(.., bytes)| bytes).collect();
    assert_eq!(answers, [[0], [0], [0]]);
    let mut written = [0; 1024];
    failing.read_at(9 * 512, &mut written).unwrap();
    assert_eq!((written[0], written[512]), (0x3c, 0x3d));
    // A reset of the machine forgets it.
    *failing.writes.lock() = Some(io::ErrorKind::StorageFull);
    d.add(0, &[&header(1, 9), &[0x77; 512]], &[1]);
    assert!(run(&mut d).is_empty());
    d.dev.reset();
    *failing.writes.lock() = None;
    d.dev.with(|blk, rings| {
        blk.retry();
        blk.run_all(rings);
    });
    failing.read_at(9 * 512, &mut written).unwrap();
    assert_eq!(written[0], 0x3c);
}

#[test]
fn open_requests_survive_in_a_snapshot() {
    let disk = Witness::new(64);
    let mut d = driver(disk.clone(), false, feature::FLUSH);
    d.add(0, &[&header(1, 9), &[0x3c; 512]], &[1]);
    d.kick(0);
    let saved = d.dev.save();
    let options = Options { serial: "TULK-1".into(), ..Options::default() };
    let memory = Arc::new(d.memory.clone());
    let blk = Blk::new(disk.clone(), options);
    d.dev = VirtioPci::new(blk, memory, Interface::Transitional);
    d.dev.load(&saved).unwrap();
    assert_eq!(d.dev.save(), saved);
    d.dev.with(|blk, rings| blk.run_all(rings));
    assert_eq!(d.used(0).len(), 1);
    assert_eq!(disk.log(), ["write 9+1"]);
}

#[test]
fn a_worker_does_the_work() {
    let disk = Witness::new(2048);
    let d = driver(disk.clone(), false, feature::FLUSH);
    let Driver { dev, memory, irqs, rings, .. } = d;
    let dev = Arc::new(Mutex::new(dev));
    let worker = start_worker(dev.clone()).unwrap();
    // The same driver once more, over the shared device.
    let kick = |dev: &Mutex<VirtioPci<Blk>>| {
        dev.lock().write(MODERN, layout::NOTIFY, 2, 0);
    };
    let poke = |at: u64, data: &[u8]| {
        memory.0.lock()[at as usize..at as usize + data.len()].copy_from_slice(data);
    };
    let (desc, avail, used) = (rings[0].desc, rings[0].avail, rings[0].used);
    for n in 0..200u16 {
        let descriptors: [(u64, u32, u16, u16); 3] =
            [(0x8_0000, 16, 1, 1), (0x8_1000, 4096, 3, 2), (0x8_3000, 1, 2, 0)];
        for (i, (pa, len, flags, next)) in descriptors.into_iter().enumerate() {
            let mut raw = pa.to_le_bytes().to_vec();
            raw.extend(len.to_le_bytes());
            raw.extend(flags.to_le_bytes());
            raw.extend(next.to_le_bytes());
            poke(desc + 16 * i as u64, &raw);
        }
        poke(0x8_0000, &header(0, u64::from(n)));
        poke(0x8_3000, &[0xff]);
        poke(avail + 4 + 2 * u64::from(n % rings[0].size), &[0, 0]);
        poke(avail + 2, &(n + 1).to_le_bytes());
        kick(&dev);
        let start = Instant::now();
        while memory.0.lock()[used as usize + 2..][..2] != (n + 1).to_le_bytes() {
            assert!(start.elapsed() < Duration::from_secs(20), "no answer to {n}");
            std::thread::yield_now();
        }
        let memory = memory.0.lock();
        assert_eq!(memory[0x8_3000], 0);
        let first = usize::from(n) * 512;
        assert_eq!(memory[0x8_1000], (first / 512 + first) as u8);
    }
    assert!(irqs.take_rises().contains(&5));
    // A reset waits for the job, and none runs behind it.
    poke(avail + 2, &201u16.to_le_bytes());
    kick(&dev);
    let mut device = dev.lock();
    device.reset();
    let log = disk.log().len();
    worker.wait_idle();
    assert!(log <= 201 && disk.log().is_empty());
    drop(device);
    drop(worker);
}

#[test]
fn conforms() {
    let options = Options { queues: 3, logical_block: 4096, ..Options::default() };
    let memory = Arc::new(VecMemory::new(1 << 20));
    let blk = Blk::new(Witness::new(64), options);
    let mut dev = VirtioPci::new(blk, memory, Interface::Transitional);
    check_device(&mut dev, &[128, 4096, 1, 1, layout::SIZE], 20_000);
}
