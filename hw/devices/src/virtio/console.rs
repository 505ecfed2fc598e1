//! Virtio console (Virtual I/O Device 1.2, section 5.3): port 0 and, with `VIRTIO_CONSOLE_F_MULTIPORT`, up to 30 more
//! ports that are consoles or named channels; resizing; emergency writes.
//!
//! Where we leave the specification: RESIZE messages carry rows before columns, as Linux reads them since before the text
//! was written. More than [`MOST`] bytes of one request are lost. Not modelled: removal of ports.

use super::queue::Broken;
use super::{BURST, Rings, VirtioDevice, VirtioPci};
use crate::chardev::CharDevice;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use tulk_ui::CharBackend;

/// Feature bits (5.3.3).
pub mod feature {
    pub const SIZE: u64 = 1 << 0;
    pub const MULTIPORT: u64 = 1 << 1;
    pub const EMERG_WRITE: u64 = 1 << 2;
}

/// Most ports: each has two of the 64 queues that a device may have, and so has the control port.
pub const MAX_PORTS: usize = 31;
/// Most bytes of one request that are passed on.
pub const MOST: usize = 1 << 20;
/// Most control messages that wait for a driver.
const MAX_MESSAGES: usize = 256;
const QUEUE_SIZE: u16 = 128;

/// The control queues: to the driver, from the driver.
const CONTROL_IN: u16 = 2;
const CONTROL_OUT: u16 = 3;

/// Control events (5.3.6.2).
mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const PORT_ADD: u16 = 1;
    pub const PORT_READY: u16 = 3;
    pub const CONSOLE_PORT: u16 = 4;
    pub const RESIZE: u16 = 5;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// A port's outside.
pub struct Port {
    pub backend: Arc<dyn CharBackend>,
    /// A console of the guest (`hvc`), not a plain channel.
    pub console: bool,
    /// What channels are found by: `/dev/virtio-ports/NAME`.
    pub name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct PortState {
    guest_open: bool,
    /// The backend may hold bytes that found no room.
    starved: bool,
}

impl PortState {
    const FRESH: PortState = PortState { guest_open: false, starved: true };
}

/// The saved state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    ports: Vec<PortState>,
    /// Messages for the driver that found no room.
    messages: VecDeque<Vec<u8>>,
    columns: u16,
    rows: u16,
}

/// The device type.
pub struct Console {
    ports: Vec<Port>,
    multiport: bool,
    state: State,
}

fn receive_queue(port: usize) -> u16 {
    if port == 0 { 0 } else { 2 * port as u16 + 2 }
}

/// The port of a queue, and whether the driver sends on it; not for the control queues.
fn port_of(queue: u16) -> (usize, bool) {
    (if queue < 2 { 0 } else { usize::from(queue) / 2 - 1 }, queue & 1 != 0)
}

impl Console {
    /// A device with these ports (one at least, [`MAX_PORTS`] at most are used). One console without a name needs no control
    /// queue; otherwise the device has one.
    pub fn new(mut ports: Vec<Port>) -> Console {
        ports.truncate(MAX_PORTS);
        let multiport = !matches!(&ports[..], [Port { console: true, name: None, .. }]);
        let state = State {
            ports: vec![PortState::FRESH; ports.len()],
            messages: VecDeque::new(),
            columns: 0,
            rows: 0,
        };
        Console { ports, multiport, state }
    }

    /// Bytes from the outside for a port; how many were taken.
    pub fn receive(&mut self, port: usize, bytes: &[u8], rings: &mut Rings) -> usize {
        let multiport = rings.has(feature::MULTIPORT);
        let Some(state) = self.state.ports.get_mut(port) else { return bytes.len() };
        if multiport && !state.guest_open {
            state.starved = true;
            return 0;
        }
        let queue = receive_queue(port);
        let mut taken = 0;
        while taken < bytes.len() {
            let Some(chain) = rings.pop(queue) else {
                state.starved = true;
                break;
            };
            let n = chain.writable_len().min(bytes.len() - taken);
            if n == 0 {
                rings.stop(queue, Broken("console buffer without room"));
                break;
            }
            chain.write(&*rings.dma, 0, &bytes[taken..taken + n]);
            rings.push(queue, &[(chain.head, n as u32)]);
            taken += n;
        }
        taken
    }

    /// The outside's window has a new size, in characters.
    pub fn resize(&mut self, columns: u16, rows: u16, rings: &mut Rings) {
        (self.state.columns, self.state.rows) = (columns, rows);
        if rings.has(feature::MULTIPORT) {
            for port in 0..self.ports.len() {
                self.send_size(port);
            }
            self.deliver_messages(rings);
        }
        rings.config_changed();
    }

    fn send(&mut self, port: usize, event: u16, value: u16, rest: &[u8]) {
        let mut message = (port as u32).to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        message.extend(rest);
        if self.state.messages.len() < MAX_MESSAGES {
            self.state.messages.push_back(message);
        }
    }

    fn send_size(&mut self, port: usize) {
        let State { columns, rows, .. } = self.state;
        if self.ports[port].console && columns != 0 {
            let [c0, c1] = columns.to_le_bytes();
            let [r0, r1] = rows.to_le_bytes();
            self.send(port, event::RESIZE, 0, &[r0, r1, c0, c1]);
        }
    }

    fn deliver_messages(&mut self, rings: &mut Rings) {
        while let Some(message) = self.state.messages.front() {
            let Some(chain) = rings.pop(CONTROL_IN) else { return };
            if chain.writable_len() < message.len() {
                rings.stop(CONTROL_IN, Broken("control buffer too small"));
                return;
            }
            chain.write(&*rings.dma, 0, message);
            rings.push(CONTROL_IN, &[(chain.head, message.len() as u32)]);
            self.state.messages.pop_front();
        }
    }

    fn control(&mut self, rings: &mut Rings) {
        for _ in 0..BURST {
            let Some(chain) = rings.pop(CONTROL_OUT) else {
                self.deliver_messages(rings);
                return;
            };
            let mut raw = [0; 8];
            if !chain.read(&*rings.dma, 0, &mut raw) {
                rings.stop(CONTROL_OUT, Broken("control message too short"));
                return;
            }
            let [i0, i1, i2, i3, e0, e1, v0, v1] = raw;
            self.message(
                u32::from_le_bytes([i0, i1, i2, i3]) as usize,
                u16::from_le_bytes([e0, e1]),
                u16::from_le_bytes([v0, v1]),
            );
            rings.push(CONTROL_OUT, &[(chain.head, 0)]);
            self.deliver_messages(rings);
        }
        rings.again(CONTROL_OUT);
    }

    fn message(&mut self, port: usize, event: u16, value: u16) {
        if event == event::DEVICE_READY && value == 1 {
            for port in 0..self.ports.len() {
                self.send(port, event::PORT_ADD, 1, &[]);
            }
        }
        let Some(Port { console, name, .. }) = self.ports.get(port) else { return };
        match event {
            event::PORT_READY if value == 1 => {
                let (console, name) = (*console, name.clone());
                if console {
                    self.send(port, event::CONSOLE_PORT, 1, &[]);
                }
                if let Some(name) = name {
                    self.send(port, event::PORT_NAME, 1, name.as_bytes());
                }
                self.send(port, event::PORT_OPEN, 1, &[]);
                self.send_size(port);
            }
            event::PORT_OPEN => {
                let state = &mut self.state.ports[port];
                state.guest_open = value != 0;
                if state.guest_open && std::mem::take(&mut state.starved) {
                    self.ports[port].backend.ready();
                }
            }
            _ => {}
        }
    }

    fn transmit(&mut self, queue: u16, port: usize, rings: &mut Rings) {
        let mut buffer = [0; 4096];
        let mut work = 0;
        while let Some(chain) = rings.pop(queue) {
            let len = chain.readable_len().min(MOST);
            let mut at = 0;
            while at < len {
                let n = (len - at).min(buffer.len());
                if !chain.read(&*rings.dma, at, &mut buffer[..n]) {
                    break;
                }
                self.ports[port].backend.write(&buffer[..n]);
                at += n;
            }
            rings.push(queue, &[(chain.head, 0)]);
            work += 1 + len / buffer.len();
            if work >= BURST {
                rings.again(queue);
                return;
            }
        }
    }
}

impl VirtioDevice for Console {
    const NAME: &'static str = "virtio-console";
    const ID: u16 = 3;
    const CLASS: u32 = 0x07_80_00;
    type State = State;

    fn queue_sizes(&self) -> Vec<u16> {
        let control = usize::from(self.multiport);
        vec![QUEUE_SIZE; 2 * (self.ports.len() + control)]
    }

    fn features(&self) -> u64 {
        let multiport = if self.multiport { feature::MULTIPORT } else { 0 };
        feature::SIZE | feature::EMERG_WRITE | multiport
    }

    /// struct virtio_console_config (5.3.4).
    fn config(&self, _: u64) -> Vec<u8> {
        let mut config = self.state.columns.to_le_bytes().to_vec();
        config.extend(self.state.rows.to_le_bytes());
        config.extend((self.ports.len() as u32).to_le_bytes());
        config.extend(0u32.to_le_bytes());
        config
    }

    fn write_config(&mut self, offset: usize, data: &[u8], _: &mut Rings) {
        if let ([byte, ..], 8) = (data, offset)
            && let Some(port) = self.ports.first()
        {
            port.backend.write(&[*byte]);
        }
    }

    fn notify(&mut self, queue: u16, rings: &mut Rings) {
        if self.multiport && queue == CONTROL_OUT {
            return self.control(rings);
        }
        if self.multiport && queue == CONTROL_IN {
            return self.deliver_messages(rings);
        }
        let (port, from_driver) = port_of(queue);
        if port >= self.ports.len() {
            return;
        }
        if from_driver {
            self.transmit(queue, port, rings);
        } else if std::mem::take(&mut self.state.ports[port].starved) {
            self.ports[port].backend.ready();
        }
    }

    fn reset(&mut self) {
        let State { columns, rows, .. } = self.state;
        let ports = vec![PortState::FRESH; self.ports.len()];
        self.state = State { ports, messages: VecDeque::new(), columns, rows };
    }

    fn check_state(&self, state: &State) -> Result<(), String> {
        if state.ports.len() != self.ports.len() || state.messages.len() > MAX_MESSAGES {
            return Err("another number of ports".into());
        }
        Ok(())
    }

    fn state(&self) -> State {
        self.state.clone()
    }

    fn set_state(&mut self, state: State) {
        self.state = state;
    }
}

impl CharDevice for VirtioPci<Console> {
    fn receive(&mut self, port: usize, bytes: &[u8]) -> usize {
        self.with(|console, rings| console.receive(port, bytes, rings))
    }
}
