//! Character devices (serial ports, virtio consoles), and what a board needs to connect one: [`CharDevice`] and [`Plug`].

use parking_lot::Mutex;
use std::sync::Arc;
use tulk_hw::Device;
use tulk_ui::CharSink;

/// A device with character ports, as the host's side sees it.
pub trait CharDevice: Device {
    /// Offers bytes for a port; returns how many were taken. When there is room for the rest, the device calls
    /// [`tulk_ui::CharBackend::ready`].
    fn receive(&mut self, port: usize, bytes: &[u8]) -> usize;
    /// A serial break, where a port has them.
    fn line_break(&mut self, _port: usize) {}
}

/// The end of a cable: hands bytes to a port of a device behind its lock.
pub struct Plug<D: CharDevice + ?Sized> {
    pub device: Arc<Mutex<D>>,
    pub port: usize,
    /// Told of the device's deadline, which may have changed.
    pub notice: crate::net::Notice,
}

impl<D: CharDevice + ?Sized> CharSink for Plug<D> {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut device = self.device.lock();
        let taken = device.receive(self.port, bytes);
        (self.notice)(device.deadline());
        taken
    }
    fn line_break(&self) {
        let mut device = self.device.lock();
        device.line_break(self.port);
        (self.notice)(device.deadline());
    }
}
