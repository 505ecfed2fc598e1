//! Virtio devices (Virtual I/O Device 1.2, OASIS): the queues and what all devices share ([`Rings`], [`VirtioDevice`]),
//! the PCI transport ([`VirtioPci`]), and one module per device type.
//!
//! A device type knows no transport: it is told of notifications, takes requests from [`Rings`] and returns them there.
//! The transport delivers interrupts afterwards. Drivers of big-endian guests over the legacy interface are not modelled.

pub mod blk;
pub mod console;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;

pub use pci::{Interface, VirtioPci};

use queue::{Broken, Chain, Queue};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use tulk_hw::Dma;

/// Feature bits of all device types (section 6; `ANY_LAYOUT` 6.3).
pub mod feature {
    pub const ANY_LAYOUT: u64 = 1 << 27;
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
}

/// Most requests that one notification may have a device work on; the rest follows by [`tulk_hw::Device::tick`], so that
/// a driver that adds requests as fast as they are served does not keep its vCPU in the device.
pub const BURST: usize = 512;

/// A device's queues as the device sees them. Errors of the driver stop the queue and are remembered for the transport.
pub struct Rings {
    pub dma: Arc<dyn Dma>,
    pub(crate) queues: Vec<Queue>,
    /// What device and driver agreed on.
    pub(crate) features: u64,
    /// The driver is up; queues may be used.
    pub(crate) live: bool,
    /// Bit per queue in which requests were returned.
    pub(crate) returned: u64,
    pub(crate) config_changed: bool,
    pub(crate) broken: Option<Broken>,
    /// Bit per queue that has work left behind a burst.
    pub(crate) again: u64,
}

impl Rings {
    pub fn new(dma: Arc<dyn Dma>, sizes: &[u16]) -> Rings {
        Rings {
            dma,
            queues: sizes.iter().map(|&max| Queue::new(max)).collect(),
            features: 0,
            live: false,
            returned: 0,
            config_changed: false,
            broken: None,
            again: 0,
        }
    }

    /// Whether a feature bit was agreed on.
    pub fn has(&self, feature: u64) -> bool {
        self.features & feature == feature
    }

    fn fail<T>(&mut self, queue: u16, result: Result<T, Broken>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(broken) => {
                self.stop(queue, broken);
                None
            }
        }
    }

    /// The driver broke a rule of the device: its queue stops and the device asks for a reset.
    pub fn stop(&mut self, queue: u16, broken: Broken) {
        if let Some(q) = self.queues.get_mut(queue as usize) {
            q.broken = true;
        }
        self.broken.get_or_insert(broken);
    }

    /// The next request of a queue, if there is one and the driver is up.
    pub fn pop(&mut self, queue: u16) -> Option<Chain> {
        if !self.live {
            return None;
        }
        let popped = self.queues.get_mut(queue as usize)?.pop(&*self.dma);
        self.fail(queue, popped).flatten()
    }

    /// Puts back the `count` requests that were popped last.
    pub fn unpop(&mut self, queue: u16, count: usize) {
        if let Some(q) = self.queues.get_mut(queue as usize) {
            (0..count).for_each(|_| q.unpop());
        }
    }

    /// Returns requests to the driver: head and bytes written.
    pub fn push(&mut self, queue: u16, done: &[(u16, u32)]) {
        let Some(q) = self.queues.get_mut(queue as usize) else { return };
        let pushed = q.push(&*self.dma, done);
        self.fail(queue, pushed);
        self.returned |= 1 << queue;
    }

    /// The device's configuration changed; the driver is told.
    pub fn config_changed(&mut self) {
        self.config_changed = true;
    }

    /// The burst is over; the device is notified again for this queue soon.
    pub fn again(&mut self, queue: u16) {
        self.again |= 1 << queue;
    }

    /// The size that the driver chose for a queue.
    pub fn size(&self, queue: u16) -> u16 {
        self.queues.get(queue as usize).map_or(0, |q| q.size)
    }

    /// The queues that the driver wants to hear of, as bits; forgets them.
    pub(crate) fn take_notifications(&mut self) -> u64 {
        let returned = std::mem::take(&mut self.returned);
        let mut wanted = 0;
        for n in (0..self.queues.len()).filter(|n| returned >> n & 1 != 0) {
            let result = self.queues[n].wants_notification(&*self.dma);
            wanted |= u64::from(self.fail(n as u16, result) == Some(true)) << n;
        }
        wanted
    }
}

/// A virtio device type behind any transport. At most 64 queues.
pub trait VirtioDevice: Send {
    /// Name for logs and the monitor.
    const NAME: &'static str;
    /// Virtio device ID (section 5).
    const ID: u16;
    /// PCI class, subclass and programming interface.
    const CLASS: u32;
    /// What a snapshot holds besides the transport's state.
    type State: Serialize + DeserializeOwned;

    /// Largest size of each queue.
    fn queue_sizes(&self) -> Vec<u16>;
    /// Offered feature bits of this device type.
    fn features(&self) -> u64;
    /// The device's configuration (`features`: what was agreed on so far).
    fn config(&self, features: u64) -> Vec<u8>;
    /// The driver writes to the configuration; `data` may reach beyond its end.
    fn write_config(&mut self, offset: usize, data: &[u8], rings: &mut Rings) {
        let _ = (offset, data, rings);
    }
    /// The driver says that a queue has requests.
    fn notify(&mut self, queue: u16, rings: &mut Rings);
    fn reset(&mut self);
    fn state(&self) -> Self::State;
    /// Whether a saved state may be this device's.
    ///
    /// # Errors
    /// What does not fit.
    fn check_state(&self, state: &Self::State) -> Result<(), String> {
        let _ = state;
        Ok(())
    }
    /// Takes over a saved state that was checked.
    fn set_state(&mut self, state: Self::State);
}
