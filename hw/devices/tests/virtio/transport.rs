use crate::driver::{Driver, MEMORY};
use std::sync::Arc;
use tulk_devices::pci::{PciFunction, command, reg};
use tulk_devices::virtio::pci::{LEGACY, MODERN, MSIX, layout, status};
use tulk_devices::virtio::rng::{MOST, Rng};
use tulk_devices::virtio::{Interface, VirtioPci, feature};
use tulk_hw::{Device, Dma, VecMemory, check_device};

fn rng() -> Rng {
    let mut n = 0u8;
    Rng::new(Box::new(move |out| {
        out.iter_mut().for_each(|b| {
            n = n.wrapping_add(1);
            *b = n;
        })
    }))
}

fn make(dma: Arc<dyn Dma>) -> VirtioPci<Rng> {
    VirtioPci::new(rng(), dma, Interface::Transitional)
}

fn ids(interface: Interface) -> (u32, u32, u32) {
    let dev = VirtioPci::new(rng(), Arc::new(VecMemory::new(0)), interface);
    let c = dev.config();
    (
        c.dword(reg::VENDOR_ID),
        c.dword(reg::SUBSYSTEM_VENDOR_ID),
        u32::from(c.byte(reg::REVISION_ID)),
    )
}

#[test]
fn identities() {
    assert_eq!(ids(Interface::Transitional), (0x1005_1af4, 0x0004_1af4, 0));
    assert_eq!(ids(Interface::Legacy), (0x1005_1af4, 0x0004_1af4, 0));
    assert_eq!(ids(Interface::Modern), (0x1044_1af4, 0x0004_1af4, 1));
}

#[test]
fn random_bytes_come_by_both_interfaces() {
    for (legacy, features) in [(false, 0), (true, 0), (false, feature::RING_EVENT_IDX)] {
        let mut d = Driver::start(make, legacy, features);
        let head = d.add(0, &[], &[3, 5]);
        d.kick(0);
        assert_eq!(d.used(0), [(head, 8, vec![1, 2, 3, 4, 5, 6, 7, 8])]);
        assert_eq!(d.interrupt(), Some(1));
        assert_eq!(d.interrupt(), None);
        d.add(0, &[], &[10_000]);
        d.kick(0);
        assert_eq!(d.used(0)[0].1, MOST as u32);
    }
}

/// Rings wrap around and indices around 65536.
#[test]
fn many_requests() {
    let mut d = Driver::start(make, false, feature::RING_EVENT_IDX);
    for n in 0..70_000 {
        d.add(0, &[], &[1]);
        d.kick(0);
        assert_eq!(d.used(0).len(), 1, "{n}");
    }
    assert!(!d.needs_reset());
}

#[test]
fn interrupts_are_suppressed_by_flag_and_by_index() {
    let mut d = Driver::start(make, false, 0);
    let avail = d.rings[0].avail;
    d.poke(avail, &[1, 0]);
    d.add(0, &[], &[1]);
    d.kick(0);
    assert_eq!((d.used(0).len(), d.interrupt()), (1, None));
    d.poke(avail, &[0, 0]);
    d.add(0, &[], &[1]);
    d.kick(0);
    assert_eq!(d.interrupt(), Some(1));

    let mut d = Driver::start(make, false, feature::RING_EVENT_IDX);
    let (avail, used, size) = (d.rings[0].avail, d.rings[0].used, u64::from(d.rings[0].size));
    d.poke(avail + 4 + 2 * size, &2u16.to_le_bytes());
    let mut seen = Vec::new();
    for _ in 0..5 {
        d.add(0, &[], &[1]);
        d.kick(0);
        seen.push(d.interrupt().is_some());
    }
    // The first is always told; then only the one that passes the index.
    assert_eq!(seen, [true, false, true, false, false]);
    assert_eq!(d.peek16(used + 4 + 8 * size), 5, "the device wants to hear of the next request");
}

#[test]
fn messages() {
    let mut d = Driver::start(make, false, 0);
    let control = u16::from(msix_capability(&d.dev)) + 2;
    d.dev.config_write(control, 2, 0x8000);
    for (vector, data) in [(0u64, 0x40), (1, 0x41)] {
        d.dev.write(MSIX, 16 * vector, 8, 0xfee0_0000);
        d.dev.write(MSIX, 16 * vector + 8, 8, data);
    }
    d.set_common(16, 2, 0);
    d.set_common(22, 2, 0);
    d.set_common(26, 2, 9);
    assert_eq!(d.common(26, 2), 0xffff, "no such vector");
    d.set_common(26, 2, 1);
    assert_eq!(d.common(26, 2), 1);
    d.add(0, &[], &[1]);
    d.kick(0);
    assert_eq!(d.irqs.take_messages(), [(0xfee0_0000, 0x41)]);
    d.dev.with(|_, rings| rings.config_changed());
    assert_eq!(d.irqs.take_messages(), [(0xfee0_0000, 0x40)]);
    assert_eq!(d.common(21, 1), 1, "generation");
    assert!(!d.irqs.level(5));
}

fn capabilities(dev: &dyn PciFunction) -> Vec<(u8, u8)> {
    let config = dev.config();
    let mut at = config.byte(reg::CAPABILITIES);
    let mut all = Vec::new();
    while at != 0 {
        all.push((config.byte(at.into()), at));
        at = config.byte(u16::from(at) + 1);
    }
    all
}

fn msix_capability(dev: &dyn PciFunction) -> u8 {
    capabilities(dev).iter().find(|c| c.0 == 0x11).unwrap().1
}

#[test]
fn modern_structures_are_found_and_reached_by_configuration_space() {
    let mut d = Driver::start(make, false, 0);
    let all = capabilities(&d.dev);
    let mut kinds = Vec::new();
    for &(id, at) in all.iter().filter(|c| c.0 == 9) {
        let at = u16::from(at);
        let c = d.dev.config();
        assert_eq!(id, 9);
        kinds.push((c.byte(at + 3), c.byte(at + 4), c.dword(at + 8)));
    }
    kinds.sort();
    assert_eq!(kinds, [(1, 4, 0), (2, 4, 0x3000), (3, 4, 0x1000), (4, 4, 0x2000), (5, 0, 0)]);
    let at =
        all.iter().map(|c| u16::from(c.1)).find(|at| d.dev.config().byte(at + 3) == 5).unwrap();
    d.dev.config_write(at + 4, 1, MODERN.into());
    d.dev.config_write(at + 8, 4, 20);
    d.dev.config_write(at + 12, 4, 1);
    assert_eq!(d.dev.config_read(at + 16, 4) & 0xff, 15, "the status");
    d.dev.config_write(at + 16, 4, 0);
    assert_eq!(d.status(), 0);
    // Nonsense is no access.
    d.dev.config_write(at + 12, 4, 3);
    d.dev.config_write(at + 16, 4, 1);
    d.dev.config_write(at + 12, 4, 1);
    d.dev.config_write(at + 8, 4, 0xffff_ffff);
    d.dev.config_write(at + 16, 4, 1);
    assert_eq!(d.status(), 0);
}

#[test]
fn features_must_be_offered_and_modern() {
    for (features, accepted) in
        [(feature::VERSION_1, true), (0, false), (feature::VERSION_1 | 1 << 40, false)]
    {
        let mut dev = make(Arc::new(VecMemory::new(MEMORY)));
        let mut set = |at: u64, bytes: u8, value: u64| dev.write(MODERN, at, bytes, value);
        set(20, 1, 3);
        for half in 0..2 {
            set(8, 4, half);
            set(12, 4, features >> (32 * half) & 0xffff_ffff);
        }
        set(20, 1, 11);
        assert_eq!(dev.read(MODERN, 20, 1) == 11, accepted, "{features:#x}");
    }
    let mut dev = VirtioPci::new(rng(), Arc::new(VecMemory::new(0)), Interface::Modern);
    assert_eq!(dev.read(LEGACY, 0, 4), 0xffff_ffff);
    let mut dev = VirtioPci::new(rng(), Arc::new(VecMemory::new(0)), Interface::Legacy);
    assert_eq!(dev.read(MODERN, 0, 4), 0xffff_ffff);
    assert_eq!(capabilities(&dev).len(), 1);
}

#[test]
fn a_running_queue_stays_where_it_is() {
    let mut d = Driver::start(make, false, 0);
    let desc = d.rings[0].desc;
    d.set_common(22, 2, 0);
    for (at, bytes, value) in [(24, 2, 2), (28, 2, 0), (32, 8, 0), (40, 8, 0), (48, 8, 0)] {
        d.set_common(at, bytes, value);
    }
    assert_eq!((d.common(24, 2), d.common(28, 2), d.common(32, 8)), (8, 1, desc));
    d.add(0, &[], &[1]);
    d.kick(0);
    assert_eq!(d.used(0).len(), 1);
}

#[test]
fn without_bus_mastering_nothing_moves() {
    let mut d = Driver::start(make, false, 0);
    d.dev.config_write(reg::COMMAND, 2, command::MEMORY.into());
    d.add(0, &[], &[1]);
    d.kick(0);
    assert!(d.used(0).is_empty());
    d.dev.config_write(reg::COMMAND, 2, (command::MEMORY | command::BUS_MASTER).into());
    assert_eq!(d.used(0).len(), 1);
}

#[test]
fn conforms() {
    for interface in [Interface::Transitional, Interface::Modern, Interface::Legacy] {
        let mut dev = VirtioPci::new(rng(), Arc::new(VecMemory::new(MEMORY)), interface);
        check_device(&mut dev, &[32, 4096, 1, 1, layout::SIZE], 20_000);
    }
}

#[test]
fn a_snapshot_holds_the_rings() {
    let mut d = Driver::start(make, false, feature::RING_EVENT_IDX);
    d.add(0, &[], &[4]);
    d.kick(0);
    assert_eq!(d.used(0).len(), 1);
    let saved = d.dev.save();
    d.dev = make(Arc::new(d.memory.clone()));
    d.dev.load(&saved).unwrap();
    assert_eq!(d.dev.save(), saved);
    d.add(0, &[], &[4]);
    d.kick(0);
    assert_eq!(d.used(0).len(), 1);
    let mut other = saved.clone();
    other["state"]["queues"] = serde_json::json!([]);
    assert!(d.dev.load(&other).is_err());
    assert_eq!(d.status(), 15);
}

const TABLE: u64 = 0x9_0000;

/// A driver whose queue is put into disorder by `spoil` before the kick.
fn spoiled(features: u64, spoil: impl FnOnce(&mut Driver<Rng>)) -> bool {
    let mut d = Driver::start(make, false, features);
    d.add(0, &[], &[4]);
    // Good descriptors where only a wrong step leads: behind the queue's last one, and in a table.
    d.descriptor(d.rings[0].desc, d.rings[0].size, 0x8_0000, 4, 2, 0);
    d.descriptor(TABLE, 0, 0x8_0000, 4, 2, 0);
    spoil(&mut d);
    d.kick(0);
    let broken = d.needs_reset();
    if broken {
        assert_eq!(d.interrupt(), Some(2), "the driver is told");
        // Nothing moves until it resets the device, and then all is well.
        d.kick(0);
        assert!(d.used(0).is_empty());
        d.set_common(20, 1, 0);
        assert_eq!(d.status(), 0);
    } else {
        assert_eq!(d.used(0).len(), 1);
    }
    broken
}

#[test]
fn hostile_rings_ask_for_a_reset() {
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;
    /// Of the entropy device's queue.
    const SIZE: u16 = 8;
    assert!(!spoiled(0, |d| assert_eq!(d.rings[0].size, SIZE)), "a good one");
    let desc = |pa: u64, len: u32, flags: u16, next: u16| {
        move |d: &mut Driver<Rng>| d.descriptor(d.rings[0].desc, 0, pa, len, flags, next)
    };
    let ind = feature::RING_INDIRECT_DESC;
    assert!(spoiled(0, desc(0x8_0000, 4, WRITE | NEXT, 0)), "a loop");
    assert!(spoiled(0, desc(0x8_0000, 4, WRITE | NEXT, SIZE)), "an index out of range");
    assert!(spoiled(0, desc(u64::MAX, 4, WRITE, 0)), "an address that wraps");
    assert!(spoiled(0, desc(0x8_0000, 0, WRITE, 0)), "no room");
    assert!(spoiled(0, desc(TABLE, 16, INDIRECT, 0)), "a table, but not agreed on");
    assert!(!spoiled(ind, desc(TABLE, 16, INDIRECT, 0)), "a good table");
    assert!(spoiled(ind, desc(TABLE, 8, INDIRECT, 0)), "half a table entry");
    assert!(spoiled(ind, desc(TABLE, 0, INDIRECT, 0)), "an empty table");
    assert!(spoiled(ind, desc(TABLE, 16, INDIRECT | NEXT, 0)), "a table with a next one");
    assert!(spoiled(ind, desc(1 << 40, 16, INDIRECT, 0)), "a table outside RAM");
    assert!(
        spoiled(ind, |d| {
            d.descriptor(d.rings[0].desc, 0, 0x9_1000, 16, INDIRECT, 0);
            d.descriptor(0x9_1000, 0, TABLE, 16, INDIRECT, 0);
        }),
        "a table in a table"
    );
    assert!(
        spoiled(ind, |d| {
            d.descriptor(d.rings[0].desc, 0, TABLE, 0xffff_fff0, INDIRECT, 0);
            d.descriptor(TABLE, 0, 0x8_0000, 1, WRITE | NEXT, 0);
        }),
        "a loop in a table"
    );
    assert!(
        spoiled(0, |d| {
            for n in 0..2 {
                d.descriptor(d.rings[0].desc, n, 0, u32::MAX, WRITE | (1 - n), 1);
            }
        }),
        "more than 4 GiB"
    );
    assert!(
        spoiled(0, |d| {
            d.descriptor(d.rings[0].desc, 0, 0x8_0000, 4, WRITE | NEXT, 1);
            d.descriptor(d.rings[0].desc, 1, 0x8_0000, 4, 0, 0);
        }),
        "readable behind writable"
    );
    assert!(spoiled(0, |d| d.poke(d.rings[0].avail + 2, &[200, 0])), "a runaway index");
    assert!(spoiled(0, |d| d.poke(d.rings[0].avail + 4, &[SIZE as u8, 0])), "a head out of range");
    assert!(!spoiled(0, desc(1 << 40, 4, WRITE, 0)), "a buffer outside RAM is written to nowhere");
}

#[test]
fn rings_outside_ram_ask_for_a_reset() {
    for (at, value) in [(32, 1 << 40), (40, 1 << 40), (48, 1 << 40), (48, u64::MAX)] {
        let mut d = Driver::start(make, false, feature::RING_EVENT_IDX);
        // Placed anew behind a reset, with one ring far away.
        let place = [d.rings[0].desc, d.rings[0].avail, d.rings[0].used];
        d.set_common(20, 1, 0);
        d.set_common(20, 1, 3);
        d.set_common(8, 4, 1);
        d.set_common(12, 4, 1);
        d.set_common(20, 1, 11);
        for (n, pa) in place.into_iter().enumerate() {
            d.set_common(32 + 8 * n as u64, 8, pa);
        }
        d.set_common(24, 2, 8);
        d.set_common(at, 8, value);
        d.set_common(28, 2, 1);
        d.set_common(20, 1, 15);
        d.add(0, &[], &[4]);
        d.kick(0);
        assert_eq!(d.status(), 15 | status::NEEDS_RESET, "{at}");
    }
}

#[test]
fn legacy_queues_stop_when_they_break() {
    let mut d = Driver::start(make, true, 0);
    d.add(0, &[], &[4]);
    d.poke(d.rings[0].avail + 4, &[0xff, 0xff]);
    d.kick(0);
    assert!(d.used(0).is_empty());
    assert_eq!(d.status(), 7);
    assert_eq!(d.interrupt(), None);
}
