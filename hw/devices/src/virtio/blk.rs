//! Virtio block device (Virtual I/O Device 1.2, section 5.2): read, write, flush, identification, discard and write
//! zeroes, on one or more queues.
//!
//! Vcpus do not wait for the disk: a notification only takes requests from the rings. A worker ([`start_worker`], or a
//! test) then repeats [`Blk::next_job`], [`Job::run`] and [`Blk::complete`], of which only `run` is slow, and that one
//! works without the device's lock. Jobs run one after the other in the order of the requests, so a flush covers all
//! that came before. Neighbouring requests become one access to the disk, as do all segments of a request.
//!
//! Reset and snapshot wait until no job runs: behind them the device touches neither memory nor disk. Requests that were
//! taken but not answered are part of the state and run (again) after it is loaded, which gives the same result because
//! the driver leaves their buffers alone.
//!
//! Not modelled: secure erase, zoned devices, lifetime, and barriers and SCSI commands of drafts before 1.0.

use super::queue::{Broken, Chain};
use super::{Rings, VirtioDevice, VirtioPci};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tulk_block::{Disk, SECTOR};
use tulk_hw::Dma;

/// Feature bits (5.2.3).
pub mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const GEOMETRY: u64 = 1 << 4;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

const QUEUE_SIZE: u16 = 256;
/// Segments of data in a request: the queue without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
const WRITEBACK_OFFSET: usize = 32;
/// Longest discard and write-zeroes, in sectors: 1 GiB.
const MAX_RANGE: u32 = 1 << 21;
const MAX_RANGES: u32 = 16;
/// Most bytes that are moved at once; requests are merged up to this.
const CHUNK: usize = 1 << 20;

/// Answers (5.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupp = 2,
    /// None: the request stays until the host can do it.
    Wait = 0xff,
}

/// The answer for an error of the host's.
fn failed(error: std::io::Error) -> Status {
    if tulk_block::is_waiting(&error) { Status::Wait } else { Status::IoErr }
}

/// How the device presents its disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// What GET_ID answers, at most 20 bytes.
    pub serial: String,
    /// Logical and physical block size in bytes, powers of two from 512 on.
    pub logical_block: u32,
    pub physical_block: u32,
    /// Number of queues, 1 to 16.
    pub queues: u16,
    pub discard: bool,
    /// The guest sees and may switch a write cache; without, each write is flushed.
    pub write_cache: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            serial: String::new(),
            logical_block: 512,
            physical_block: 512,
            queues: 1,
            discard: true,
            write_cache: true,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Kind {
    Read,
    /// `through`: to stable storage before it is answered.
    Write {
        through: bool,
    },
    Flush,
    GetId,
    Discard,
    WriteZeroes {
        through: bool,
    },
    Unknown,
}

/// A request that was taken from a ring. Its status byte is the last one that the device may write.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Request {
    queue: u16,
    kind: Kind,
    sector: u64,
    chain: Chain,
}

const HEADER: usize = 16;

impl Request {
    /// Bytes of data, without header and status.
    fn data_len(&self) -> usize {
        match self.kind {
            Kind::Read | Kind::GetId => self.chain.writable_len() - 1,
            _ => self.chain.readable_len() - HEADER,
        }
    }
}

/// The saved state: requests without an answer, in order, of which the first `running` are with a worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct State {
    requests: VecDeque<Request>,
    writeback: bool,
}

/// What device and worker share: whether a job runs, and whether it is to stop.
#[derive(Default)]
pub struct Gate {
    busy: Mutex<Flags>,
    changed: Condvar,
    cancel: AtomicBool,
}

#[derive(Default)]
struct Flags {
    running: bool,
    wake: bool,
    stop: bool,
}

impl Gate {
    fn wake(&self) {
        self.busy.lock().wake = true;
        self.changed.notify_all();
    }
    fn finished(&self) {
        self.busy.lock().running = false;
        self.changed.notify_all();
    }
    fn wait_idle(&self) {
        let mut flags = self.busy.lock();
        while flags.running {
            self.changed.wait(&mut flags);
        }
    }
}

/// Work for the disk that needs no lock of the device.
pub struct Job {
    /// Of one kind; adjacent on the disk if there are several.
    requests: Vec<Request>,
    disk: Arc<dyn Disk>,
    dma: Arc<dyn Dma>,
    serial: [u8; 20],
    logical_block: u64,
    gate: Arc<Gate>,
    /// The device's, to recognise a reset in between.
    generation: u64,
    /// Of the requests that are done; what is left waits.
    answers: Vec<(Status, u32)>,
    ran: bool,
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ran {
            self.gate.finished();
        }
    }
}

/// The device type. See the module's text for who does what.
pub struct Blk {
    disk: Arc<dyn Disk>,
    options: Options,
    gate: Arc<Gate>,
    state: State,
    /// How many requests at the front of `state.requests` are with a worker.
    running: usize,
    /// The first request waits for the host; see [`Blk::retry`].
    waits: bool,
    generation: u64,
}

impl Blk {
    pub fn new(disk: Arc<dyn Disk>, options: Options) -> Blk {
        let options = Options {
            queues: options.queues.clamp(1, 16),
            logical_block: options.logical_block.next_power_of_two().clamp(512, 1 << 16),
            ..options
        };
        let state = State { requests: VecDeque::new(), writeback: options.write_cache };
        let gate = Arc::default();
        Blk { disk, options, gate, state, running: 0, waits: false, generation: 0 }
    }

    /// The disk's size changed; the driver is told.
    pub fn resized(&mut self, rings: &mut Rings) {
        rings.config_changed();
    }

    /// The host may be able to do what it could not.
    pub fn retry(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.gate.wake();
        }
    }

    fn writes_through(&self, rings: &Rings) -> bool {
        match rings.has(feature::CONFIG_WCE) {
            true => !self.state.writeback,
            false => !rings.has(feature::FLUSH),
        }
    }

    /// The next work, if there is some and none is under way.
    pub fn next_job(&mut self, rings: &Rings) -> Option<Job> {
        let first = self.state.requests.front().filter(|_| self.running == 0 && !self.waits)?;
        let mut requests = vec![first.clone()];
        if matches!(first.kind, Kind::Read | Kind::Write { .. }) {
            let mut bytes = first.data_len();
            for next in self.state.requests.iter().skip(1) {
                let adjacent = first.sector.checked_add(bytes as u64 / SECTOR) == Some(next.sector);
                let whole = (bytes as u64).is_multiple_of(SECTOR);
                let fits = bytes + next.data_len() <= CHUNK;
                if next.kind != first.kind || !adjacent || !whole || !fits {
                    break;
                }
                bytes += next.data_len();
                requests.push(next.clone());
            }
        }
        self.running = requests.len();
        self.gate.cancel.store(false, Ordering::SeqCst);
        self.gate.busy.lock().running = true;
        let mut serial = [0; 20];
        for (to, from) in serial.iter_mut().zip(self.options.serial.bytes()) {
            *to = from;
        }
        Some(Job {
            requests,
            disk: self.disk.clone(),
            dma: rings.dma.clone(),
            serial,
            logical_block: u64::from(self.options.logical_block),
            gate: self.gate.clone(),
            generation: self.generation,
            answers: Vec::new(),
            ran: false,
        })
    }

    /// Returns the requests of a job that ran to the driver.
    pub fn complete(&mut self, job: Job, rings: &mut Rings) {
        if job.generation != self.generation {
            return;
        }
        self.running = 0;
        self.waits = job.answers.len() < job.requests.len();
        for (request, (_, written)) in job.requests.iter().zip(&job.answers) {
            self.state.requests.pop_front();
            rings.push(request.queue, &[(request.chain.head, *written)]);
        }
        // Requests that found no room before.
        for queue in 0..self.options.queues {
            self.take(queue, rings);
        }
    }

    /// Takes what waits in a queue, at most as many requests as it has descriptors.
    fn take(&mut self, queue: u16, rings: &mut Rings) {
        let open = self.state.requests.iter().filter(|r| r.queue == queue).count();
        for _ in open..usize::from(rings.size(queue)) {
            let Some(chain) = rings.pop(queue) else { break };
            let mut header = [0; HEADER];
            if !chain.read(&*rings.dma, 0, &mut header) || chain.writable_len() == 0 {
                rings.stop(queue, Broken("block request without header or status"));
                break;
            }
            let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
            let through = self.writes_through(rings);
            let kind = match u32::from_le_bytes([t0, t1, t2, t3]) {
                0 => Kind::Read,
                1 => Kind::Write { through },
                4 => Kind::Flush,
                8 => Kind::GetId,
                11 if self.options.discard => Kind::Discard,
                13 => Kind::WriteZeroes { through },
                _ => Kind::Unknown,
            };
            let sector = u64::from_le_bytes(sector);
            self.state.requests.push_back(Request { queue, kind, sector, chain });
        }
    }

    /// Runs everything that waits, on the caller's thread: for tests and boards without a worker.
    pub fn run_all(&mut self, rings: &mut Rings) {
        while let Some(mut job) = self.next_job(rings) {
            job.run();
            self.complete(job, rings);
        }
    }
}

impl Job {
    /// Does the work and writes the answers into guest memory. Slow.
    pub fn run(&mut self) {
        if !self.run_merged() {
            self.answers.clear();
            for request in &self.requests {
                match self.run_one(request) {
                    (Status::Wait, _) => break,
                    answer => self.answers.push(answer),
                }
            }
        }
        for (request, (status, written)) in self.requests.iter().zip(&mut self.answers) {
            let at = request.chain.writable_len() - 1;
            request.chain.write(&*self.dma, at, &[*status as u8]);
            // With an error, data that may lie behind the first piece cannot be told from the rest.
            *written += 1;
        }
        self.ran = true;
        self.gate.finished();
    }

    fn cancelled(&self) -> bool {
        self.gate.cancel.load(Ordering::SeqCst)
    }

    /// One access to the disk for several requests. False: not so, or it failed and each is to be tried alone.
    fn run_merged(&mut self) -> bool {
        let [first, _, ..] = &self.requests[..] else { return false };
        let total: usize = self.requests.iter().map(Request::data_len).sum();
        let Some(offset) = self.range(first.sector, total as u64) else { return false };
        if self.requests.iter().any(|r| self.range(r.sector, r.data_len() as u64).is_none()) {
            return false;
        }
        let mut data = vec![0; total];
        let mut at = 0;
        match first.kind {
            Kind::Read => {
                if self.disk.read_at(offset, &mut data).is_err() {
                    return false;
                }
                for r in &self.requests {
                    let n = r.data_len();
                    let ok = r.chain.write(&*self.dma, 0, &data[at..at + n]);
                    let status = if ok { Status::Ok } else { Status::IoErr };
                    self.answers.push((status, n as u32));
                    at += n;
                }
            }
            Kind::Write { through } => {
                for r in &self.requests {
                    let n = r.data_len();
                    if !r.chain.read(&*self.dma, HEADER, &mut data[at..at + n]) {
                        return false;
                    }
                    at += n;
                }
                let written = self.disk.write_at(offset, &data);
                if written.is_err() || through && self.disk.flush().is_err() {
                    return false;
                }
                self.answers = vec![(Status::Ok, 0); self.requests.len()];
            }
            _ => return false,
        }
        true
    }

    /// The byte offset of an access, if it lies on the disk and on its blocks.
    fn range(&self, sector: u64, len: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR)?;
        let end = offset.checked_add(len)?;
        // Drivers before 1.0 use sectors whatever the block size is, so only whole sectors are demanded.
        (len.is_multiple_of(SECTOR) && end <= self.disk.len()).then_some(offset)
    }

    /// Status and bytes written besides it.
    fn run_one(&self, r: &Request) -> (Status, u32) {
        let result = match r.kind {
            Kind::Read => return self.read(r),
            Kind::Write { through } => self.write(r).and_then(|()| self.settle(through)),
            Kind::Flush => self.settle(true),
            Kind::GetId => {
                let n = r.data_len().min(self.serial.len());
                let ok = r.chain.write(&*self.dma, 0, &self.serial[..n]);
                return (if ok { Status::Ok } else { Status::IoErr }, n as u32);
            }
            Kind::Discard => self.ranges(r, false),
            Kind::WriteZeroes { through } => {
                self.ranges(r, true).and_then(|()| self.settle(through))
            }
            Kind::Unknown => Err(Status::Unsupp),
        };
        (result.err().unwrap_or(Status::Ok), 0)
    }

    fn settle(&self, through: bool) -> Result<(), Status> {
        if through {
            self.disk.flush().map_err(failed)?;
        }
        Ok(())
    }

    fn read(&self, r: &Request) -> (Status, u32) {
        let len = r.data_len();
        let Some(offset) = self.range(r.sector, len as u64) else { return (Status::IoErr, 0) };
        let mut data = vec![0; len.min(CHUNK)];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(CHUNK);
            let part = &mut data[..n];
            let read = match self.cancelled() {
                true => Err(Status::IoErr),
                false => self.disk.read_at(offset + at as u64, part).map_err(failed),
            };
            if let Err(status) = read {
                return (status, at as u32);
            }
            if !r.chain.write(&*self.dma, at, part) {
                return (Status::IoErr, at as u32);
            }
            at += n;
        }
        (Status::Ok, len as u32)
    }

    fn write(&self, r: &Request) -> Result<(), Status> {
        let len = r.data_len();
        let offset = self.range(r.sector, len as u64).ok_or(Status::IoErr)?;
        let mut data = vec![0; len.min(CHUNK)];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(CHUNK);
            let part = &mut data[..n];
            if self.cancelled() || !r.chain.read(&*self.dma, HEADER + at, part) {
                return Err(Status::IoErr);
            }
            self.disk.write_at(offset + at as u64, part).map_err(failed)?;
            at += n;
        }
        Ok(())
    }

    /// Discard and write zeroes: a list of ranges (5.2.6.2). All are checked before the first is touched.
    fn ranges(&self, r: &Request, zero: bool) -> Result<(), Status> {
        let len = r.data_len();
        if len == 0 || !len.is_multiple_of(16) || len / 16 > MAX_RANGES as usize {
            return Err(Status::IoErr);
        }
        if self.disk.read_only() {
            return Err(Status::IoErr);
        }
        let mut raw = vec![0; len];
        if !r.chain.read(&*self.dma, HEADER, &mut raw) {
            return Err(Status::IoErr);
        }
        let mut list = Vec::new();
        for range in raw.as_chunks::<16>().0 {
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = *range;
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            // Bit 0, unmap, is for write zeroes only; the others are reserved.
            if u32::from_le_bytes(flags) & !u32::from(zero) != 0 {
                return Err(Status::Unsupp);
            }
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let bytes = u64::from(sectors) * SECTOR;
            let offset = self.range(sector, bytes).ok_or(Status::IoErr)?;
            if sectors > MAX_RANGE || !bytes.is_multiple_of(self.logical_block) {
                return Err(Status::IoErr);
            }
            list.push((offset, bytes));
        }
        for (mut offset, mut left) in list {
            while left > 0 {
                if self.cancelled() {
                    return Err(Status::IoErr);
                }
                let n = if zero { left.min(32 * CHUNK as u64) } else { left };
                let done = match zero {
                    true => self.disk.write_zeroes(offset, n),
                    false => self.disk.discard(offset, n),
                };
                done.map_err(failed)?;
                (offset, left) = (offset + n, left - n);
            }
        }
        Ok(())
    }
}

impl VirtioDevice for Blk {
    const NAME: &'static str = "virtio-blk";
    const ID: u16 = 2;
    const CLASS: u32 = 0x01_00_00;
    type State = State;

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; usize::from(self.options.queues)]
    }

    fn features(&self) -> u64 {
        use feature::*;
        let mut bits = SEG_MAX | GEOMETRY | BLK_SIZE | TOPOLOGY | FLUSH | MQ;
        if self.options.write_cache {
            bits |= CONFIG_WCE;
        }
        if self.disk.read_only() {
            bits |= RO;
        } else {
            bits |= WRITE_ZEROES | if self.options.discard { DISCARD } else { 0 };
        }
        bits
    }

    /// struct virtio_blk_config (5.2.4).
    fn config(&self, _: u64) -> Vec<u8> {
        let capacity = self.disk.len() / SECTOR;
        let logical = self.options.logical_block;
        let exponent = self.options.physical_block.max(logical).ilog2() - logical.ilog2();
        let (heads, sectors) = (16u8, 63u8);
        let cylinders = (capacity / (16 * 63)).clamp(2, 16383) as u16;
        let mut c = Vec::with_capacity(60);
        c.extend(capacity.to_le_bytes());
        c.extend(0u32.to_le_bytes()); // size_max: no limit
        c.extend(SEG_MAX.to_le_bytes());
        c.extend(cylinders.to_le_bytes());
        c.extend([heads, sectors]);
        c.extend(logical.to_le_bytes());
        c.extend([exponent as u8, 0]);
        c.extend(1u16.to_le_bytes()); // minimum I/O size in blocks
        c.extend(0u32.to_le_bytes()); // optimum: none
        c.extend([u8::from(self.state.writeback), 0]);
        c.extend(self.options.queues.to_le_bytes());
        let discard = if self.options.discard { (MAX_RANGE, MAX_RANGES) } else { (0, 0) };
        c.extend(discard.0.to_le_bytes());
        c.extend(discard.1.to_le_bytes());
        c.extend((logical / SECTOR as u32).to_le_bytes()); // alignment of discards
        c.extend(MAX_RANGE.to_le_bytes());
        c.extend(MAX_RANGES.to_le_bytes());
        c.extend([1, 0, 0, 0]); // write zeroes may unmap
        c
    }

    fn write_config(&mut self, offset: usize, data: &[u8], rings: &mut Rings) {
        let at = WRITEBACK_OFFSET.checked_sub(offset);
        if let Some(byte) = at.and_then(|at| data.get(at))
            && rings.has(feature::CONFIG_WCE)
        {
            self.state.writeback = byte & 1 != 0;
        }
    }

    fn notify(&mut self, queue: u16, rings: &mut Rings) {
        self.take(queue, rings);
        if !self.state.requests.is_empty() {
            self.gate.wake();
        }
    }

    fn reset(&mut self) {
        self.gate.cancel.store(true, Ordering::SeqCst);
        self.gate.wait_idle();
        self.generation += 1;
        self.running = 0;
        self.waits = false;
        self.state = State { requests: VecDeque::new(), writeback: self.options.write_cache };
    }

    fn state(&self) -> State {
        self.gate.wait_idle();
        self.state.clone()
    }

    fn check_state(&self, state: &State) -> Result<(), String> {
        let sound = |r: &Request| {
            r.queue < self.options.queues
                && r.chain.readable_len() >= HEADER
                && r.chain.writable_len() > 0
        };
        let room = usize::from(QUEUE_SIZE) * usize::from(self.options.queues);
        if !state.requests.iter().all(sound) || state.requests.len() > room {
            return Err("requests that no driver could have made".into());
        }
        Ok(())
    }

    fn set_state(&mut self, state: State) {
        self.reset();
        self.state = state;
        if !self.state.requests.is_empty() {
            self.gate.wake();
        }
    }
}

/// A thread that does a block device's work. Ends, with the job at hand, when it is dropped, which must not happen
/// under the device's lock.
pub struct Worker {
    gate: Arc<Gate>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts the worker of a block device.
///
/// # Errors
/// The host gives no thread.
pub fn start_worker(device: Arc<Mutex<VirtioPci<Blk>>>) -> std::io::Result<Worker> {
    let gate = device.lock().device().gate.clone();
    let thread_gate = gate.clone();
    let thread = std::thread::Builder::new().name("virtio-blk".into()).spawn(move || {
        loop {
            {
                let mut flags = thread_gate.busy.lock();
                while !flags.wake && !flags.stop {
                    thread_gate.changed.wait(&mut flags);
                }
                if flags.stop {
                    return;
                }
                flags.wake = false;
            }
            let mut job = device.lock().with(|blk, rings| blk.next_job(rings));
            while let Some(mut work) = job {
                work.run();
                let stop = thread_gate.busy.lock().stop;
                job = device.lock().with(|blk, rings| {
                    blk.complete(work, rings);
                    blk.next_job(rings).filter(|_| !stop)
                });
            }
        }
    })?;
    Ok(Worker { gate, thread: Some(thread) })
}

impl Worker {
    /// Waits until no job runs. The device's lock may be held, and then none begins.
    pub fn wait_idle(&self) {
        self.gate.wait_idle();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.gate.busy.lock().stop = true;
        self.gate.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
