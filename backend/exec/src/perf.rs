//! Tells Linux perf about regions: `/tmp/perf-PID.map` (names only) and `jit-PID.dump` (with code, for `perf inject
//! --jit`). Formats: tools/perf/Documentation/{jit-interface,jitdump-specification}.txt.

use crate::config::Config;
use crate::host::{self, epoch::lock};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tulk_base::GuestVa;

#[derive(Default)]
struct Files {
    map: Option<File>,
    dump: Option<File>,
    index: u64,
}

/// See the module.
pub struct Perf {
    files: Mutex<Files>,
    wanted: AtomicBool,
    map: bool,
    dump: Option<PathBuf>,
}

const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER_SIZE: u32 = 40;
const CODE_LOAD: u32 = 0;
const EM_X86_64: u32 = 62;

impl Perf {
    pub fn new(config: &Config) -> Perf {
        let perf = Perf {
            files: Mutex::default(),
            wanted: AtomicBool::new(false),
            map: config.perf_map,
            dump: config.jitdump.clone(),
        };
        perf.open();
        perf
    }

    fn open(&self) {
        let pid = std::process::id();
        let mut files = Files::default();
        let complain = |error: io::Error, what: &str| tracing::warn!(%error, "cannot write {what}");
        if self.map {
            let file = File::create(format!("/tmp/perf-{pid}.map"));
            files.map = file.map_err(|e| complain(e, "the perf map")).ok();
        }
        if let Some(folder) = &self.dump {
            let file = File::create_new(folder.join(format!("jit-{pid}.dump")))
                .and_then(|mut file| header(&mut file, pid).map(|()| file));
            files.dump = file.map_err(|e| complain(e, "the jitdump")).ok();
            if let Some(file) = &files.dump {
                // perf finds the file by this mapping.
                host::map_executable(file);
            }
        }
        self.wanted.store(files.map.is_some() || files.dump.is_some(), Ordering::Relaxed);
        *lock(&self.files) = files;
    }

    /// Regions should be reported.
    pub fn wants(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// A child has a process id, and files, of its own.
    pub fn after_fork(&self) {
        if self.map || self.dump.is_some() {
            self.open();
        }
    }

    /// A region was published.
    pub fn region(&self, guest: &str, pc: GuestVa, address: usize, code: &[u8]) {
        let name = format!("{guest}_{:x}", pc.0);
        let mut files = lock(&self.files);
        let files = &mut *files;
        if let Some(map) = &mut files.map {
            let _ = writeln!(map, "{address:x} {:x} {name}", code.len());
        }
        if let Some(dump) = &mut files.dump {
            files.index += 1;
            let _ = record(dump, &name, address as u64, code, files.index);
        }
    }
}

fn header(file: &mut File, pid: u32) -> io::Result<()> {
    let mut out = Vec::new();
    for word in [MAGIC, VERSION, HEADER_SIZE, EM_X86_64, 0, pid] {
        out.extend(word.to_ne_bytes());
    }
    out.extend(host::monotonic_ns().to_ne_bytes());
    out.extend(0u64.to_ne_bytes());
    file.write_all(&out)
}

fn record(file: &mut File, name: &str, address: u64, code: &[u8], index: u64) -> io::Result<()> {
    let size = 16 + 40 + name.len() + 1 + code.len();
    let mut out = Vec::with_capacity(size);
    out.extend(CODE_LOAD.to_ne_bytes());
    out.extend((size as u32).to_ne_bytes());
    out.extend(host::monotonic_ns().to_ne_bytes());
    for word in [std::process::id(), host::thread_id()] {
        out.extend(word.to_ne_bytes());
    }
    for word in [address, address, code.len() as u64, index] {
        out.extend(word.to_ne_bytes());
    }
    out.extend(name.as_bytes());
    out.push(0);
    out.extend(code);
    file.write_all(&out)
}
