//! What every device must stand: for the devices' tests.

use crate::Device;

/// A small generator of numbers, the same on each run.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut x = seed | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Scribbles over a device's windows (`lengths[n]` bytes of window n, and a little behind them) and checks what holds
/// for all devices: no access panics, values fit their size, a snapshot that is loaded back gives the same snapshot,
/// a foreign snapshot is refused and changes nothing, and reset gives the state of a fresh device.
///
/// # Panics
/// When one of these does not hold.
pub fn check_device(device: &mut dyn Device, lengths: &[u64], accesses: u32) {
    device.reset();
    let fresh = device.save();
    let mut next = numbers(0x7475_6c6b);
    let mut now = 0;
    for n in 0..accesses {
        let window = (next() % lengths.len() as u64) as u8;
        let bytes = 1u8 << (next() % 4);
        let offset = next() % (lengths[window as usize] + 16);
        if next().is_multiple_of(3) {
            let value = device.read(window, offset, bytes);
            let bits = 8 * bytes as u32;
            assert!(
                bits == 64 || value >> bits == 0,
                "{}: window {window} offset {offset:#x}: {value:#x} does not fit {bytes} bytes",
                device.name()
            );
        } else {
            let value = match next() % 4 {
                0 => next() % 256,
                1 => 1 << (next() % 64),
                2 => 0,
                _ => next(),
            };
            device.write(window, offset, bytes, value);
        }
        if let Some(deadline) = device.deadline().filter(|_| n % 7 == 0) {
            now = deadline.max(now);
            device.tick(now);
        }
    }
    let busy = device.save();
    assert!(device.load(&serde_json::json!({"no": "device"})).is_err(), "{}", device.name());
    assert_eq!(device.save(), busy, "{}: a refused snapshot changed the device", device.name());
    device.reset();
    assert_eq!(device.save(), fresh, "{}: reset does not reset everything", device.name());
    device.load(&busy).expect("its own snapshot");
    assert_eq!(device.save(), busy, "{}: the snapshot is not everything", device.name());
    device.reset();
}
