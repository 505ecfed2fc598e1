//! Guest system calls: from the guest's table to the functions that serve them.
//!
//! A row of `data/<guest>.tbl` names a function `sys_*` here, or says that the host's call of the same name does
//! the same (`pass`, `block`). Functions get arguments already extended to 64 bits ([`args`]), reach guest memory
//! only through [`Cx`], and return the result or an error number of the host. What changes the flow of the guest
//! thread (exit, a new program, a signal frame) says so in [`Cx::flow`].

pub mod args;
pub mod clone;
pub mod dir;
pub mod exec;
pub mod fcntl;
pub mod file;
pub mod futex;
pub mod id16;
pub mod info;
pub mod ioctl;
pub mod ipc;
pub mod legacy;
pub mod mem;
pub mod msg;
pub mod multiplex;
pub mod open;
pub mod poll;
pub mod prctl;
pub mod process;
pub mod sched;
pub mod signal;
pub mod sock;
pub mod sockopt;
pub mod stat;
pub mod time;
pub mod wait;
pub mod x86;
pub mod xattr;

use crate::abi::GuestAbi;
use crate::abi::record::{DataModel, Field};
use crate::host::{self, Mem, SysArg};
use crate::process::Process;
use crate::signals::Interrupted;
use crate::strace;
use crate::thread_state::Thread;
use args::{Arg, Args};
use std::ffi::CString;
use std::sync::Arc;
use tulk_base::{CpuState, GuestVa};
pub use tulk_softmmu::Errno;

pub type SysResult = Result<u64, Errno>;
pub type SysFn = fn(&mut Cx<'_>, &Args) -> SysResult;

/// Who serves a system call.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Not implemented.
    Missing,
    /// ENOSYS on purpose.
    Declined,
    /// The host's call with this number.
    Pass(i64),
    /// The same; may sleep.
    Block(i64),
    Call(SysFn),
}

/// One row of a guest's table.
pub struct Row {
    pub number: u32,
    pub name: &'static str,
    pub handler: Handler,
    /// A call of a 32-bit guest whose `timespec`s are 64 bits wide.
    pub time64: bool,
    pub args: &'static [Arg],
}

/// What the guest thread does after a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Flow {
    /// Takes the result and goes on.
    #[default]
    Return,
    /// Goes on with registers that the call has set itself.
    Registers,
    /// The thread's loop makes a `vfork`.
    Vfork,
    /// This thread ends.
    ExitThread(i32),
    /// The process ends.
    ExitGroup(i32),
}

/// How a system call ended for the guest thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The registers are set, guest code goes on.
    Continue,
    /// A signal came before it did anything: no register is changed, the pc is behind the instruction. It is restarted
    /// unless a handler ends it.
    Restart(Interrupted),
    ExitThread(i32),
    ExitGroup(i32),
    /// [`Thread::vfork`] says what to do.
    Vfork,
}

/// What a system call works on.
pub struct Cx<'a> {
    pub process: &'a Arc<Process>,
    pub thread: &'a mut Thread,
    pub state: &'a mut CpuState,
    /// The interface that the call belongs to; a process may use more than one.
    pub abi: &'static dyn GuestAbi,
    /// Layout of the call's structures.
    pub model: DataModel,
    pub flow: Flow,
}

pub const EFAULT: Errno = Errno(libc::EFAULT);
pub const EINVAL: Errno = Errno(libc::EINVAL);
pub const ENOSYS: Errno = Errno(libc::ENOSYS);
pub const EBADF: Errno = Errno(libc::EBADF);
pub const ENOMEM: Errno = Errno(libc::ENOMEM);
pub const EINTR: Errno = Errno(libc::EINTR);
pub const EPERM: Errno = Errno(libc::EPERM);

/// Longest path with its NUL.
const PATH_MAX: usize = 4096;

/// Serves the system call that the guest's registers describe.
pub fn dispatch(
    process: &Arc<Process>,
    thread: &mut Thread,
    state: &mut CpuState,
    abi: &'static dyn GuestAbi,
) -> Outcome {
    let (number, raw) = abi.syscall(state);
    let row = u32::try_from(number).ok().and_then(|n| abi.row(n));
    let mut cx = Cx::new(process, thread, state);
    (cx.abi, cx.model) = (abi, abi.model());
    let args = cx.gather(row, &raw);
    let trace = process.options.strace.then(|| strace::entry(&cx, row, number, &args));
    let result = match row {
        Some(row) => cx.serve(row, &args),
        None => {
            process.unimplemented(number, None);
            Err(ENOSYS)
        }
    };
    if let Some(trace) = trace {
        strace::exit(&cx, row, &args, trace, &result);
    }
    match (cx.flow, result) {
        (Flow::ExitThread(code), _) => Outcome::ExitThread(code),
        (Flow::ExitGroup(code), _) => Outcome::ExitGroup(code),
        (Flow::Registers, Ok(_)) => Outcome::Continue,
        (Flow::Vfork, Ok(_)) => Outcome::Vfork,
        (_, Err(host::ERESTARTSYS | host::ERESTARTNOINTR)) => {
            Outcome::Restart(Interrupted::Restarts)
        }
        (_, Err(host::ERESTARTNOHAND)) => Outcome::Restart(Interrupted::Ends),
        // A debugger may still keep the handler from running.
        (_, Err(EINTR)) if host::is_interrupted(&cx.thread.interrupt) => {
            Outcome::Restart(Interrupted::Ends)
        }
        (_, result) => {
            let result = result.map_err(|e| Errno(abi.errno(e.0)));
            abi.set_result(cx.state, result);
            Outcome::Continue
        }
    }
}

impl<'a> Cx<'a> {
    pub fn new(
        process: &'a Arc<Process>,
        thread: &'a mut Thread,
        state: &'a mut CpuState,
    ) -> Cx<'a> {
        let abi = process.abi;
        Cx { process, thread, state, abi, model: abi.model(), flow: Flow::Return }
    }

    /// Argument registers as the row's arguments.
    pub fn gather(&mut self, row: Option<&Row>, raw: &[u64; 7]) -> Args {
        if row.is_some_and(|r| r.time64) {
            self.model = self.model.with_time64();
        }
        let kinds = row.map_or(&[][..], |r| r.args);
        args::gather(raw, kinds, self.model, self.abi.aligned_pairs())
    }

    /// Makes the call of a row.
    pub fn serve(&mut self, row: &Row, args: &Args) -> SysResult {
        match row.handler {
            Handler::Call(f) => f(self, args),
            Handler::Pass(nr) => self.pass(row.args, args).and_then(|w| host::call(nr, &w)),
            Handler::Block(nr) => self
                .pass(row.args, args)
                .and_then(|w| host::call_interruptible(nr, &w, &self.thread.interrupt)),
            Handler::Declined => Err(ENOSYS),
            Handler::Missing => {
                self.process.unimplemented(row.number as u64, Some(row.name));
                Err(ENOSYS)
            }
        }
    }
}

impl Cx<'_> {
    /// Argument words for the host's own call: pointers become host addresses.
    fn pass(&self, kinds: &[Arg], args: &Args) -> Result<[u64; 6], Errno> {
        let mut words = [0; 6];
        for (i, w) in words.iter_mut().enumerate() {
            *w = match kinds.get(i) {
                Some(Arg::Out) => {
                    let len = args.get(i + 1).copied().unwrap_or(0);
                    self.mem_out(args[i], len).word()
                }
                // Nothing says how much the kernel writes; every such structure is small.
                Some(Arg::Ptr) => self.mem_out(args[i], 1024).word(),
                Some(k) if k.is_pointer() => self.mem(args[i]).word(),
                Some(Arg::Open) => self.abi.open_flags_to_host(args[i] as u32) as u64,
                Some(_) => args[i],
                None => 0,
            };
        }
        Ok(words)
    }

    /// Guest memory that the kernel reads.
    pub fn mem(&self, va: u64) -> Mem {
        let space = &self.process.space;
        if va == 0 { Mem::NULL } else { Mem(space.host_ptr(space.untag(GuestVa(va)))) }
    }
    /// Guest memory into which the kernel writes up to `len` bytes.
    pub fn mem_out(&self, va: u64, len: u64) -> Mem {
        if va != 0 && len != 0 {
            self.process.space.prepare_kernel_write(GuestVa(va), len);
        }
        self.mem(va)
    }

    /// Reads a structure from guest memory.
    pub fn get<F: Field>(&self, va: u64) -> Result<F::Host, Errno> {
        self.get_as::<F>(va, self.model)
    }
    /// The same in a layout of its own.
    pub fn get_as<F: Field>(&self, va: u64, m: DataModel) -> Result<F::Host, Errno> {
        let mut small = [0u8; 256];
        let mut large = Vec::new();
        let size = F::size(m);
        let bytes = if size <= small.len() {
            &mut small[..size]
        } else {
            large.resize(size, 0);
            &mut large[..]
        };
        self.process.space.copy_in(GuestVa(va), bytes).map_err(|_| EFAULT)?;
        Ok(F::get(bytes, m))
    }
    pub fn get_opt<F: Field>(&self, va: u64) -> Result<Option<F::Host>, Errno> {
        if va == 0 { Ok(None) } else { self.get::<F>(va).map(Some) }
    }
    /// Writes a structure to guest memory.
    pub fn put<F: Field>(&self, va: u64, value: F::Host) -> Result<(), Errno> {
        self.put_as::<F>(va, value, self.model)
    }
    /// The same in a layout of its own.
    pub fn put_as<F: Field>(&self, va: u64, value: F::Host, m: DataModel) -> Result<(), Errno> {
        let size = F::size(m);
        let mut small = [0u8; 256];
        if size <= small.len() {
            F::put(&mut small[..size], value, m);
            return self.put_bytes(va, &small[..size]);
        }
        let mut large = vec![0; size];
        F::put(&mut large, value, m);
        self.put_bytes(va, &large)
    }
    /// The same, unless the pointer is null.
    pub fn put_opt<F: Field>(&self, va: u64, value: F::Host) -> Result<(), Errno> {
        if va == 0 { Ok(()) } else { self.put::<F>(va, value) }
    }
    /// Address of element `index` of an array.
    pub fn element<F: Field>(&self, va: u64, index: usize) -> u64 {
        va.wrapping_add((index * F::size(self.model)) as u64)
    }
    /// Reads `count` elements.
    pub fn get_array<F: Field>(&self, va: u64, count: usize) -> Result<Vec<F::Host>, Errno> {
        let m = self.model;
        let size = F::size(m);
        let bytes = self.get_bytes(va, count.checked_mul(size).ok_or(EINVAL)?)?;
        Ok(bytes.chunks_exact(size).map(|b| F::get(b, m)).collect())
    }
    /// Writes elements.
    pub fn put_array<F: Field>(&self, va: u64, values: &[F::Host]) -> Result<(), Errno> {
        let m = self.model;
        let size = F::size(m);
        let mut bytes = vec![0; values.len() * size];
        for (b, v) in bytes.chunks_exact_mut(size).zip(values) {
            F::put(b, *v, m);
        }
        self.put_bytes(va, &bytes)
    }
    pub fn get_bytes(&self, va: u64, len: usize) -> Result<Vec<u8>, Errno> {
        // A hostile length must not allocate before the memory is known to be there.
        if len > 1 << 16 && !self.process.space.is_mapped(GuestVa(va), len as u64) {
            return Err(EFAULT);
        }
        let mut bytes = vec![0; len];
        self.process.space.copy_in(GuestVa(va), &mut bytes).map_err(|_| EFAULT)?;
        Ok(bytes)
    }
    pub fn put_bytes(&self, va: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.process.space.copy_out(GuestVa(va), bytes).map_err(|_| EFAULT)
    }

    /// A path or other string, at most `PATH_MAX` bytes.
    pub fn string(&self, va: u64) -> Result<CString, Errno> {
        match self.process.space.read_cstr(GuestVa(va), PATH_MAX - 1) {
            Ok(Some(s)) => CString::new(s).map_err(|_| EFAULT),
            Ok(None) => Err(Errno(libc::ENAMETOOLONG)),
            Err(_) => Err(EFAULT),
        }
    }
    /// A path that is looked up: through the sysroot, and past tulk's own `/proc` entries.
    pub fn path(&self, dirfd: i32, va: u64, follow: bool) -> Result<CString, Errno> {
        let path = self.string(va)?;
        Ok(self.process.paths.lookup(self.process, dirfd, &path, follow).unwrap_or(path))
    }
}
