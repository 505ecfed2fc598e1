//! System mode: what a processor sees of the machine around it.
//!
//! [`Board`] is implemented by a machine (`hw/pc`) and used by the engine; frontends reach it through
//! `tulk_ir::Machine`. RAM is not here: it is `softmmu`'s, and processors reach it without asking the board.

use crate::{GuestPa, GuestVa};

/// Guest-physical memory is managed in pages of this size, whatever the guest's page sizes are.
pub const PHYS_PAGE_LOG2: u32 = 12;

/// One page of a guest's page tables, for one MMU index: the result of a successful walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Physical address of the first byte of the page (of `1 << size_log2` bytes).
    pub pa: GuestPa,
    /// log2 of the page's size in bytes: 12 or more.
    pub size_log2: u8,
    pub read: bool,
    /// False also while the walk must be repeated by a first write (dirty bit).
    pub write: bool,
    pub exec: bool,
    /// Valid in every address space.
    pub global: bool,
}

/// Which cached translations are dropped. A *space* is a tagged address space (x86: the PCID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlbFlush {
    /// Everything, global pages too.
    All,
    /// Everything but global pages, in all spaces.
    NonGlobal,
    /// Everything but global pages, in one space.
    Space(u16),
    /// The page that holds the address, whatever its size, in one space; and there as a global page.
    Page { va: GuestVa, space: u16 },
    /// The same, but not as a global page.
    NonGlobalPage { va: GuestVa, space: u16 },
}

/// What a processor is told from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuEvent {
    /// A maskable interrupt with its vector, already acknowledged.
    Interrupt(u8),
    Nmi,
    /// Back to the state behind reset, waiting for `Startup` unless it is the boot processor.
    Init,
    /// Start in real mode at page `vector`. Ignored unless the processor waits for it.
    Startup(u8),
}

/// The machine as its processors see it. All methods may be called from any processor's thread at any time.
pub trait Board: Send + Sync {
    /// Reads 1, 2 or 4 bytes from an I/O port. Ports without a device read as all ones.
    fn port_read(&self, cpu: u32, port: u16, bytes: u8) -> u32;
    fn port_write(&self, cpu: u32, port: u16, bytes: u8, value: u32);
    /// Reads 1, 2, 4 or 8 bytes of physical memory that is not RAM; within one page. All ones without a device.
    fn mmio_read(&self, cpu: u32, pa: GuestPa, bytes: u8) -> u64;
    fn mmio_write(&self, cpu: u32, pa: GuestPa, bytes: u8, value: u64);
    /// Whether [`Board::take_event`] would return something. Cheap: called often.
    fn has_event(&self, cpu: u32, interrupts: bool) -> bool;
    /// The most urgent event for this processor; maskable interrupts only if `interrupts`.
    fn take_event(&self, cpu: u32, interrupts: bool) -> Option<CpuEvent>;
    /// Model-specific registers that the board keeps (x86: the local APIC's). `None`: no such register.
    fn msr_read(&self, cpu: u32, msr: u32) -> Option<u64>;
    /// False: no such register, or a value that it refuses.
    fn msr_write(&self, cpu: u32, msr: u32, value: u64) -> bool;
    /// The task priority (x86: CR8, 0 to 15).
    fn task_priority(&self, cpu: u32) -> u8;
    fn set_task_priority(&self, cpu: u32, priority: u8);
    /// Address lines that are connected (x86: without A20 gate bit 20 is clear). When it changes, the board has all
    /// translations dropped.
    fn address_mask(&self) -> u64;
    /// Nanoseconds of guest time. Stands still while the machine is stopped.
    fn clock_ns(&self) -> u64;
    /// The processor cannot go on (x86: triple fault).
    fn shutdown(&self, cpu: u32);
}
