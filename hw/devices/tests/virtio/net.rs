use crate::cable::Cable;
use crate::driver::Driver;
use parking_lot::Mutex;
use std::sync::Arc;
use tulk_devices::net::{Nic, Socket, offload};
use tulk_devices::virtio::net::{CTRL, Net, RX, TX, feature};
use tulk_devices::virtio::pci::{LEGACY, MODERN, layout};
use tulk_devices::virtio::{Interface, VirtioPci};
use tulk_hw::{Device, VecMemory, check_device};
use tulk_net::{FrameSink, MAX_FRAME};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

fn driver(cable: &Arc<Cable>, legacy: bool, features: u64) -> Driver<Net> {
    let net = Net::new(cable.clone(), MAC);
    Driver::start(|dma| VirtioPci::new(net, dma, Interface::Transitional), legacy, features)
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut f = to.to_vec();
    f.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    f.extend((0..len).map(|n| n as u8));
    f
}

#[test]
fn frames_go_out() {
    for (legacy, header) in [(false, 12), (true, 10)] {
        let cable = Arc::new(Cable::default());
        let mut d = driver(&cable, legacy, feature::MAC);
        let f = frame([1; 6], 100);
        let raw = [vec![0; header], f.clone()].concat();
        d.add(TX.into(), &[&raw[..header], &raw[header..50], &raw[50..]], &[]);
        d.add(TX.into(), &[&raw], &[]);
        d.kick(TX.into());
        assert_eq!(cable.take(), [f.clone(), f]);
        assert_eq!(d.used(TX.into()).len(), 2);
        assert_eq!(d.interrupt(), Some(1));
        // Too short, too long: dropped, and the driver has its buffers back.
        d.add(TX.into(), &[&raw[..header + 13]], &[]);
        d.add(TX.into(), &[&vec![0; header + MAX_FRAME + 1]], &[]);
        d.kick(TX.into());
        assert!(cable.take().is_empty());
        assert_eq!(d.used(TX.into()).len(), 2);
        assert!(!d.needs_reset());
    }
}

#[test]
fn frames_come_in() {
    for (legacy, header) in [(false, 12), (true, 10)] {
        let cable = Arc::new(Cable::default());
        let mut d = driver(&cable, legacy, 0);
        let f = frame(MAC, 300);
        assert!(!d.dev.receive(&f), "no buffer");
        d.add(RX.into(), &[], &[header, 1514]);
        d.kick(RX.into());
        assert_eq!(cable.take_ready(), 1);
        assert!(d.dev.receive(&f));
        let used = d.used(RX.into());
        assert_eq!(used[0].1 as usize, header + f.len());
        assert_eq!(used[0].2[header..], f);
        assert_eq!(d.interrupt(), Some(1));
        // A frame larger than the buffer is dropped and leaves it.
        d.add(RX.into(), &[], &[header + 100]);
        assert!(d.dev.receive(&f));
        assert!(d.used(RX.into()).is_empty());
        assert!(d.dev.receive(&frame(MAC, 80)));
        assert_eq!(d.used(RX.into()).len(), 1);
        d.dev.set_link(false);
        assert!(d.dev.receive(&f), "swallowed");
    }
}

#[test]
fn frames_are_spread_over_merged_buffers() {
    let cable = Arc::new(Cable::default());
    let mut d = driver(&cable, false, feature::MRG_RXBUF);
    let f = frame(MAC, 286);
    for _ in 0..2 {
        d.add(RX.into(), &[], &[128]);
    }
    assert!(!d.dev.receive(&f), "two buffers are not enough");
    assert!(d.used(RX.into()).is_empty());
    d.add(RX.into(), &[], &[128]);
    d.kick(RX.into());
    assert_eq!(cable.take_ready(), 1);
    assert!(d.dev.receive(&f));
    let used = d.used(RX.into());
    assert_eq!(used.iter().map(|u| u.1).collect::<Vec<_>>(), [128, 128, 56]);
    let all: Vec<u8> = used.into_iter().flat_map(|u| u.2).collect();
    assert_eq!(all[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    assert_eq!(all[12..], f);
    // What the whole ring cannot hold does not wait for ever.
    for _ in 0..64 {
        d.add(RX.into(), &[], &[16]);
    }
    assert!(d.dev.receive(&frame(MAC, 1400)));
}

fn tcp(data: usize) -> Vec<u8> {
    let mut f = frame([0x52; 6], 0);
    f[12..].copy_from_slice(&[8, 0]);
    f.extend([0x45, 0]);
    f.extend(((40 + data) as u16).to_be_bytes());
    f.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    f.extend([1, 2, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    f.extend((0..data).map(|n| (n * 3) as u8));
    let ip = !offload::fold(offload::add(0, &f[14..34]));
    f[24..26].copy_from_slice(&ip.to_be_bytes());
    // The driver leaves the sum of the pseudo header.
    let sum = offload::fold(offload::add(6 + 20 + data as u64, &f[26..34]));
    f[50..52].copy_from_slice(&sum.to_be_bytes());
    f
}

fn sums_are_right(frame: &[u8]) -> bool {
    let at = offload::layout(frame).unwrap();
    offload::ip_sum_right(frame, &at) == Some(true)
        && offload::transport_sum_right(frame, &at) == Some(true)
}

#[test]
fn checksums_and_large_segments_are_finished() {
    let cable = Arc::new(Cable::default());
    let mut d = driver(&cable, false, feature::CSUM | feature::HOST_TSO4);
    let send = |d: &mut Driver<Net>, gso: u8, mss: u16, data: usize| {
        let [m0, m1] = mss.to_le_bytes();
        let header = [1, gso, 54, 0, m0, m1, 34, 0, 16, 0, 0, 0];
        d.add(TX.into(), &[&header, &tcp(data)], &[]);
        d.kick(TX.into());
        assert_eq!(d.used(TX.into()).len(), 1);
        cable.take()
    };
    let plain = send(&mut d, 0, 0, 101);
    assert_eq!(plain.len(), 1);
    assert!(sums_are_right(&plain[0]));
    let pieces = send(&mut d, 1, 1448, 40_000);
    assert_eq!(pieces.len(), 28);
    assert!(pieces.iter().all(|p| sums_are_right(p)));
    let data: Vec<u8> = pieces.iter().flat_map(|p| p[54..].to_vec()).collect();
    assert_eq!(data, tcp(40_000)[54..]);
    assert_eq!(send(&mut d, 4, 1448, 4000), Vec::<Vec<u8>>::new(), "not IPv6, not agreed on");
    assert_eq!(send(&mut d, 1, 0, 4000), Vec::<Vec<u8>>::new());
    assert!(!d.needs_reset());
}

#[test]
fn incoming_checksums_are_vouched_for() {
    let cable = Arc::new(Cable::default());
    let mut d = driver(&cable, false, feature::GUEST_CSUM);
    let mut good = tcp(64);
    let end = good.len();
    offload::finish(&mut good, 34..end, 50).unwrap();
    let mut bad = good.clone();
    bad[60] ^= 0x40;
    for (f, flags) in [(good, 2), (bad, 0), (frame(MAC, 60), 0)] {
        d.add(RX.into(), &[], &[1600]);
        assert!(d.dev.receive(&f));
        assert_eq!(d.used(RX.into())[0].2[0], flags);
    }
}

const FILTERS: u64 = feature::MAC
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_RX_EXTRA
    | feature::CTRL_VLAN
    | feature::CTRL_MAC_ADDR;

#[test]
fn the_control_queue_filters() {
    let cable = Arc::new(Cable::default());
    let mut d = driver(&cable, false, FILTERS);
    let command = |d: &mut Driver<Net>, class: u8, command: u8, data: &[u8]| {
        d.add(CTRL.into(), &[&[class, command], data], &[1]);
        d.kick(CTRL.into());
        d.used(CTRL.into())[0].2[0]
    };
    let passes = |d: &mut Driver<Net>, f: &[u8]| {
        d.add(RX.into(), &[], &[1600]);
        assert!(d.dev.receive(f));
        // A buffer that was not used is taken by the next frame.
        !d.used(RX.into()).is_empty()
    };
    let other = frame([2, 9, 9, 9, 9, 9], 60);
    let group = frame([1, 0, 0x5e, 0, 0, 1], 60);
    assert!(passes(&mut d, &other), "all, before the driver says otherwise");
    assert_eq!(command(&mut d, 0, 0, &[0]), 0);
    assert!(!passes(&mut d, &other));
    assert!(!passes(&mut d, &group));
    assert!(passes(&mut d, &frame(MAC, 60)));
    assert!(passes(&mut d, &frame([0xff; 6], 60)));
    let table = [&1u32.to_le_bytes()[..], &other[..6], &1u32.to_le_bytes(), &group[..6]].concat();
    assert_eq!(command(&mut d, 1, 0, &table), 0);
    assert!(passes(&mut d, &other));
    assert!(passes(&mut d, &group));
    assert_eq!(command(&mut d, 0, 3, &[1]), 0);
    assert!(!passes(&mut d, &group), "no multicast at all");
    assert_eq!(command(&mut d, 1, 1, &[2, 3, 4, 5, 6, 7]), 0);
    assert!(!passes(&mut d, &frame(MAC, 60)));
    assert!(passes(&mut d, &frame([2, 3, 4, 5, 6, 7], 60)));
    assert_eq!(d.dev.read(MODERN, layout::DEVICE, 4), 0x0504_0302);
    let mut tagged = frame([0xff; 6], 60);
    tagged[12..16].copy_from_slice(&[0x81, 0, 0, 7]);
    assert!(!passes(&mut d, &tagged));
    assert_eq!(command(&mut d, 2, 0, &[7, 0]), 0);
    assert!(passes(&mut d, &tagged));
    assert_eq!(command(&mut d, 2, 1, &[7, 0]), 0);
    assert!(!passes(&mut d, &tagged));
    for (class, code, data) in
        [(9, 0, &[0][..]), (0, 0, &[]), (1, 0, &[9, 0, 0, 0]), (1, 0, &[255; 8]), (2, 0, &[0, 255])]
    {
        assert_eq!(command(&mut d, class, code, data), 1, "{class} {code}");
    }
}

#[test]
fn configuration_and_conformance() {
    let cable = Arc::new(Cable::default());
    let mut d = driver(&cable, true, feature::MAC | feature::STATUS);
    assert_eq!(d.dev.read(LEGACY, 20, 4), 0x1200_5452);
    assert_eq!(d.dev.read(LEGACY, 26, 2), 1);
    d.dev.set_link(false);
    assert_eq!(d.interrupt(), Some(2));
    assert_eq!(d.dev.read(LEGACY, 26, 2), 0);
    let net = Net::new(cable, MAC);
    let mut dev = VirtioPci::new(net, Arc::new(VecMemory::new(1 << 20)), Interface::Transitional);
    check_device(&mut dev, &[32, 4096, 1, 1, layout::SIZE], 20_000);
    let socket = Socket { card: Arc::new(Mutex::new(dev)), notice: Box::new(|_| {}) };
    assert!(socket.receive(&frame(MAC, 60)), "swallowed: no driver");
}
