//! Address spaces against a page model and against the host kernel's behaviour.

use super::*;
use crate::UserMem;
use parking_lot::Mutex;
use tulk_base::{GuestMem, MemAlign, MemOp, MemOrder, RmwOp};

const RW: u32 = READ | WRITE;

fn spaces() -> [UserSpace; 2] {
    raw::tests::install_handler();
    // Tests run in one process: each flat space gets its own area.
    static NEXT: Mutex<u64> = Mutex::new(0x20_0000_0000);
    let start = {
        let mut next = NEXT.lock();
        *next += 0x1_0000_0000;
        *next
    };
    [
        UserSpace::flat().unwrap().with_area(start..start + 0x1_0000_0000),
        UserSpace::window32().unwrap(),
    ]
}

#[derive(Default)]
struct Log(Mutex<Vec<(u64, u64, CodeChange)>>);
impl CodeListener for Log {
    fn code_changed(&self, start: GuestVa, len: u64, change: CodeChange) {
        self.0.lock().push((start.0, len, change));
    }
}

fn anon(space: &UserSpace, pages: u64, prot: u32) -> GuestVa {
    space.map(&MapRequest::anonymous(pages * PAGE, prot)).unwrap()
}

#[test]
fn maps_protects_and_unmaps() {
    for space in spaces() {
        let a = anon(&space, 3, RW);
        let mut mem = UserMem::new(&space);
        mem.store(a, MemOp::U64, 0x0102_0304_0506_0708).unwrap();
        assert_eq!(mem.load(a, MemOp::U32), Ok(0x0506_0708));
        let mid = a.wrapping_add(PAGE);
        space.protect(mid, PAGE, READ).unwrap();
        let fault = mem.store(mid, MemOp::U8, 1).unwrap_err();
        assert_eq!(
            fault,
            MemFault { va: mid, kind: AccessKind::Write, cause: FaultCause::Protection }
        );
        // A store that straddles the boundary names the first byte that cannot be written.
        let fault = mem.store(GuestVa(mid.0 - 2), MemOp::U32, 1).unwrap_err();
        assert_eq!(fault.va, mid);
        space.unmap(mid, PAGE).unwrap();
        let fault = mem.load(mid, MemOp::U8).unwrap_err();
        assert_eq!(fault.cause, FaultCause::Unmapped);
        // What protects across a hole reports ENOMEM after changing the part in front.
        assert_eq!(space.protect(a, 3 * PAGE, READ), Err(ENOMEM));
        assert_eq!(space.query(a).unwrap().region.prot, READ);
        assert_eq!(space.query(a.wrapping_add(2 * PAGE)).unwrap().region.prot, RW);
        space.unmap(a, 3 * PAGE).unwrap();
        assert!(space.regions().is_empty());
    }
}

#[test]
fn random_maps_agree_with_what_the_host_does() {
    for space in spaces() {
        const PAGES: u64 = 48;
        let area = anon(&space, PAGES, 0);
        space.unmap(area, PAGES * PAGE).unwrap();
        let mut model = [None; PAGES as usize];
        let mut rng = 7u64;
        let mut below = |n: u64| {
            rng = rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (rng >> 33) % n
        };
        for _ in 0..1500 {
            let a = below(PAGES);
            let b = a + 1 + below((PAGES - a).min(9));
            let (at, len) = (area.wrapping_add(a * PAGE), (b - a) * PAGE);
            let prot = [0, READ, RW, READ | EXEC, RW | EXEC][below(5) as usize];
            let cells = &mut model[a as usize..b as usize];
            match below(5) {
                0 | 1 => {
                    assert_eq!(space.map(&MapRequest::anonymous(len, prot).fixed(at)), Ok(at));
                    cells.fill(Some(prot));
                }
                2 => {
                    space.unmap(at, len).unwrap();
                    cells.fill(None);
                }
                3 => {
                    let hole = cells.iter().position(|c| c.is_none());
                    let want = if hole.is_some() { Err(ENOMEM) } else { Ok(()) };
                    assert_eq!(space.protect(at, len, prot), want);
                    let upto = hole.unwrap_or(cells.len());
                    cells[..upto].fill(Some(prot));
                }
                _ => space.watch_code(at, len),
            }
            for (i, cell) in model.iter().enumerate() {
                let va = area.wrapping_add(i as u64 * PAGE);
                let mut mem = UserMem::new(&space);
                let readable = mem.load(va, MemOp::U8).is_ok();
                assert_eq!(readable, cell.is_some_and(|p| p != 0), "page {i}: {cell:?}");
                let cause = mem.store(va, MemOp::U8, 1).err().map(|f| f.cause);
                match cell {
                    None => assert_eq!(cause, Some(FaultCause::Unmapped)),
                    Some(p) if p & WRITE == 0 => assert_eq!(cause, Some(FaultCause::Protection)),
                    // Bus: allowed by the map, refused by the host, because the page is watched.
                    Some(_) if cause.is_some() => {
                        assert_eq!(cause, Some(FaultCause::Bus));
                        let host = space.host_ptr(va);
                        assert_eq!(space.on_write_fault(host, |_| ()), WriteFault::CodePage { va });
                        mem.store(va, MemOp::U8, 1).unwrap();
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

#[test]
fn never_replaces_what_is_not_the_guests() {
    let [space, _] = spaces();
    let own = Box::new([7u8; 3 * PAGE as usize]);
    let page = GuestVa((own.as_ptr() as u64).next_multiple_of(PAGE));
    assert!(space.map(&MapRequest::anonymous(PAGE, RW).fixed(page)).is_err());
    assert_eq!(space.protect(page, PAGE, 0), Err(ENOMEM));
    space.unmap(page, PAGE).unwrap();
    assert!(own.iter().all(|&b| b == 7));
    // A hint at such a place is moved instead.
    let mut req = MapRequest::anonymous(PAGE, RW);
    req.hint = page;
    assert_ne!(space.map(&req).unwrap(), page);
    // Above 47 bits nothing can be mapped.
    let high = MapRequest::anonymous(PAGE, RW).fixed(GuestVa(1 << 47));
    assert_eq!(space.map(&high), Err(ENOMEM));
    let huge = MapRequest::anonymous(u64::MAX - 5000, RW);
    assert_eq!(space.map(&huge), Err(ENOMEM));
}

#[test]
fn hints_fixed_and_noreplace() {
    for space in spaces() {
        let a = anon(&space, 4, RW);
        let mut req = MapRequest::anonymous(PAGE, RW);
        req.hint = a;
        assert_ne!(space.map(&req), Ok(a));
        req.flags |= libc::MAP_FIXED_NOREPLACE;
        assert_eq!(space.map(&req), Err(Errno(libc::EEXIST)));
        space.unmap(a, PAGE).unwrap();
        assert_eq!(space.map(&req), Ok(a));
        assert_eq!(
            space.map(&MapRequest::anonymous(PAGE, RW).fixed(GuestVa(a.0 + 1))),
            Err(EINVAL)
        );
        assert_eq!(space.map(&MapRequest::anonymous(0, RW)), Err(EINVAL));
        // A failing fixed request (a bad descriptor) leaves no trace.
        let hole = GuestVa(a.0 - 16 * PAGE);
        let bad = MapRequest { flags: libc::MAP_PRIVATE | libc::MAP_FIXED, fd: -1, ..req.clone() };
        assert!(space.map(&MapRequest { hint: hole, ..bad }).is_err());
        assert!(space.query(hole).is_none());
    }
}

#[test]
fn remap_shrinks_grows_and_moves() {
    for space in spaces() {
        let a = anon(&space, 8, RW);
        let mut mem = UserMem::new(&space);
        for i in 0..8 {
            mem.store(a.wrapping_add(i * PAGE), MemOp::U64, i).unwrap();
        }
        assert_eq!(space.remap(a, 8 * PAGE, 4 * PAGE, 0, GuestVa(0)), Ok(a));
        assert!(space.query(a.wrapping_add(4 * PAGE)).is_none());
        assert_eq!(space.remap(a, 4 * PAGE, 6 * PAGE, 0, GuestVa(0)), Ok(a));
        assert_eq!(mem.load(a.wrapping_add(5 * PAGE), MemOp::U64), Ok(0));
        let blocker = MapRequest::anonymous(PAGE, READ).fixed(a.wrapping_add(6 * PAGE));
        space.map(&blocker).unwrap();
        assert_eq!(space.remap(a, 6 * PAGE, 9 * PAGE, 0, GuestVa(0)), Err(ENOMEM));
        space.watch_code(a, PAGE);
        let b = space.remap(a, 6 * PAGE, 9 * PAGE, libc::MREMAP_MAYMOVE, GuestVa(0)).unwrap();
        assert_ne!(a, b);
        for i in 0..4 {
            assert_eq!(mem.load(b.wrapping_add(i * PAGE), MemOp::U64), Ok(i));
        }
        mem.store(b, MemOp::U64, 99).unwrap();
        assert_eq!(mem.load(a, MemOp::U8).unwrap_err().cause, FaultCause::Unmapped);
        let c = GuestVa(b.0 - 64 * PAGE);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        assert_eq!(space.remap(b, 9 * PAGE, 9 * PAGE, flags, c), Ok(c));
        assert_eq!(mem.load(c, MemOp::U64), Ok(99));
        assert_eq!(space.remap(c, 9 * PAGE, 9 * PAGE, flags, GuestVa(c.0 + PAGE)), Err(EINVAL));
        assert_eq!(space.remap(GuestVa(PAGE), PAGE, PAGE, 0, GuestVa(0)), Err(EFAULT));
    }
}

#[test]
fn the_break_moves() {
    for space in spaces() {
        let start = GuestVa(0x3000_1000);
        space.set_brk_start(start);
        assert_eq!(space.brk(GuestVa(0)), start);
        let end = start.wrapping_add(5 * PAGE + 12);
        assert_eq!(space.brk(end), end);
        UserMem::new(&space).store(GuestVa(end.0 - 1), MemOp::U8, 5).unwrap();
        assert_eq!(space.brk(start.wrapping_add(1)), start.wrapping_add(1));
        assert!(space.query(start.wrapping_add(PAGE)).is_none());
        assert_eq!(space.brk(GuestVa(u64::MAX)), start.wrapping_add(1));
        space.map(&MapRequest::anonymous(PAGE, RW).fixed(start.wrapping_add(2 * PAGE))).unwrap();
        assert_eq!(space.brk(end), start.wrapping_add(1));
    }
}

#[test]
fn watched_code_is_reported() {
    for space in spaces() {
        let log = Arc::new(Log::default());
        space.set_listener(log.clone());
        let take = || std::mem::take(&mut *log.0.lock());
        let a = anon(&space, 4, RW | EXEC);
        let before = space.code_generation(a);
        space.watch_code(a, 2 * PAGE);
        let mut mem = UserMem::new(&space);
        assert!(mem.store(a, MemOp::U8, 1).is_err());
        let host = space.host_ptr(a);
        let told = std::cell::Cell::new(None);
        let fault = space.on_write_fault(host + 8, |page| told.set(Some(page)));
        assert_eq!((fault, told.get()), (WriteFault::CodePage { va: a }, Some(a)));
        assert_ne!(space.code_generation(a), before);
        mem.store(a, MemOp::U8, 1).unwrap();
        assert!(take().is_empty());
        assert_eq!(
            space.on_write_fault(space.host_ptr(a.wrapping_add(3 * PAGE)), |_| unreachable!()),
            WriteFault::NotOurs
        );

        space.watch_code(a, 2 * PAGE);
        space.prepare_kernel_write(a.wrapping_add(PAGE - 1), 2);
        assert_eq!(take(), [(a.0, 2 * PAGE, CodeChange::Written)]);
        mem.store(a.wrapping_add(PAGE), MemOp::U8, 1).unwrap();

        space.watch_code(a, 4 * PAGE);
        space.protect(a.wrapping_add(PAGE), PAGE, RW).unwrap();
        assert_eq!(take(), [(a.0 + PAGE, PAGE, CodeChange::NotExecutable)]);
        space.protect(a.wrapping_add(PAGE), PAGE, RW | EXEC).unwrap();
        assert!(mem.store(a.wrapping_add(PAGE), MemOp::U8, 1).is_err(), "still watched");
        space.unmap(a, 2 * PAGE).unwrap();
        assert_eq!(take(), [(a.0, 2 * PAGE, CodeChange::Unmapped)]);
        space.map(&MapRequest::anonymous(2 * PAGE, RW).fixed(a.wrapping_add(2 * PAGE))).unwrap();
        assert_eq!(take(), [(a.0 + 2 * PAGE, 2 * PAGE, CodeChange::Unmapped)]);
    }
}

#[test]
fn byte_order_sign_alignment_and_atomics() {
    for space in spaces() {
        let a = anon(&space, 1, RW);
        let mut mem = UserMem::new(&space);
        mem.store(a, MemOp::U32.with_big_endian(), 0x8182_8384).unwrap();
        assert_eq!(mem.load(a, MemOp::U8), Ok(0x81));
        assert_eq!(mem.load(a, MemOp::U32.with_big_endian()), Ok(0x8182_8384));
        assert_eq!(mem.load(a, MemOp::S16.with_big_endian()), Ok(0xffff_ffff_ffff_8182));
        let odd = a.wrapping_add(2);
        let demand = MemOp::U32.with_align(MemAlign::Natural);
        assert_eq!(mem.load(odd, demand).unwrap_err().cause, FaultCause::Align);
        assert!(mem.load(odd, MemOp::U32).is_ok());
        for be in [false, true] {
            for log2 in 0..4 {
                let op = MemOp::of_log2(log2);
                let op = if be { op.with_big_endian() } else { op };
                let m = mask(op);
                for rmw in RmwOp::ALL {
                    let (old, operand) = (0x80u64 << (8 * log2), 3);
                    mem.store(a, op.with_order(MemOrder::SeqCst), old).unwrap();
                    assert_eq!(mem.rmw(a, op, rmw, operand), Ok(old & m), "{rmw:?}");
                    let sext = |v: u64| (v << (64 - 8 * op.bytes())) as i64;
                    let old = old & m;
                    let want = match rmw {
                        RmwOp::Xchg => 3,
                        RmwOp::Add => old.wrapping_add(3),
                        RmwOp::Sub => old.wrapping_sub(3),
                        RmwOp::And => old & 3,
                        RmwOp::AndNot => old & !3,
                        RmwOp::Or => old | 3,
                        RmwOp::Xor => old ^ 3,
                        RmwOp::MinS => {
                            if sext(old) < sext(3) {
                                old
                            } else {
                                3
                            }
                        }
                        RmwOp::MaxS => {
                            if sext(old) > sext(3) {
                                old
                            } else {
                                3
                            }
                        }
                        RmwOp::MinU => old.min(3),
                        RmwOp::MaxU => old.max(3),
                    };
                    assert_eq!(mem.load(a, op), Ok(want & m), "{rmw:?} {op}");
                }
                mem.store(a, op, 0x77).unwrap();
                assert_eq!(mem.cas(a, op, 0x77, 0x78), Ok(0x77));
                assert_eq!(mem.cas(a, op, 0x77, 0x79), Ok(0x78));
            }
            let op = if be { MemOp::U128.with_big_endian() } else { MemOp::U128 };
            let v = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeffu128;
            mem.store128(a, op, v).unwrap();
            assert_eq!(mem.load128(a, op), Ok(v));
            assert_eq!(mem.load(a, MemOp::U8), Ok(if be { 0 } else { 0xff }));
            assert_eq!(mem.cas(a, op, v, !v), Ok(v));
            assert_eq!(mem.load128(a, op.with_order(MemOrder::Acquire)), Ok(!v));
            let fault = mem.cas(a.wrapping_add(8), op, 0, 0).unwrap_err();
            assert_eq!(fault.cause, FaultCause::Align);
        }
    }
}

fn mask(op: MemOp) -> u64 {
    u64::MAX >> (64 - 8 * op.bytes())
}

/// As many elements as there is room for, then the fault; overlapping copies spread what they copied.
#[test]
fn elements_in_bulk() {
    for space in spaces() {
        let a = anon(&space, 3, RW);
        space.protect(a.wrapping_add(2 * PAGE), PAGE, READ).unwrap();
        let mut mem = UserMem::new(&space);
        for op in [MemOp::U8, MemOp::U16, MemOp::U32, MemOp::U64] {
            let size = op.bytes() as u64;
            let value = 0x8877_6655_4433_2211;
            // The last element extends over the end when it is wider than a byte.
            let start = a.wrapping_add(PAGE + 1);
            let room = (PAGE - 1) / size;
            let (done, fault) = mem.fill_elements(start, op, 2 * room, value);
            assert_eq!(done, room, "{op}");
            let fault = fault.expect("a fault");
            assert_eq!((fault.kind, fault.cause), (AccessKind::Write, FaultCause::Protection));
            assert_eq!(fault.va, a.wrapping_add(2 * PAGE));
            for n in [0, 1, room / 2, room - 1] {
                let at = start.wrapping_add(n * size);
                assert_eq!(mem.load(at, op), Ok(value & mask(op)), "{op} {n}");
            }
            for n in 0..600 {
                mem.store(a.wrapping_add(n), MemOp::U8, n % 251).unwrap();
            }
            let count = 400 / size;
            // One element further: the first one everywhere.
            let to = a.wrapping_add(size);
            assert_eq!(mem.copy_elements(to, a, op, count), (count, None));
            let first = mem.load(a, op);
            for n in 0..=count {
                assert_eq!(mem.load(a.wrapping_add(n * size), op), first, "{op} {n}");
            }
            let from = a.wrapping_add(410);
            let (done, fault) = mem.copy_elements(start, from, op, 2 * room);
            assert_eq!((done, fault.map(|f| f.va)), (room, Some(a.wrapping_add(2 * PAGE))));
        }
        if space.is_window() {
            let op = MemOp::U8;
            let (done, fault) = mem.fill_elements(GuestVa(0xffff_fff0), op, 64, 0);
            assert_eq!((done, fault.is_some()), (0, true));
        }
    }
}

#[test]
fn copies_strings_and_code() {
    for space in spaces() {
        let a = anon(&space, 2, RW);
        space.unmap(a.wrapping_add(PAGE), PAGE).unwrap();
        let tail = a.wrapping_add(PAGE - 6);
        space.copy_out(tail, b"hello\0").unwrap();
        assert_eq!(space.read_cstr(tail, 4096), Ok(Some(b"hello".to_vec())));
        assert_eq!(space.read_cstr(tail, 5), Ok(Some(b"hello".to_vec())));
        assert_eq!(space.read_cstr(tail, 4), Ok(None));
        let fault = space.copy_out(tail, b"1234567").unwrap_err();
        assert_eq!((fault.va, fault.cause), (a.wrapping_add(PAGE), FaultCause::Unmapped));
        let fault = space.read_cstr(tail, 4096).unwrap_err();
        assert_eq!((fault.va, fault.kind), (a.wrapping_add(PAGE), AccessKind::Read));
        let mut buf = [0; 32];
        assert!(space.copy_in(tail, &mut buf).is_err());
        assert_eq!(space.fetch_code(tail, &mut buf), 0);
        space.protect(a, PAGE, EXEC).unwrap();
        assert_eq!(space.fetch_code(tail, &mut buf), 6);
        assert_eq!(&buf[..6], b"123456");
    }
}

#[test]
fn a_truncated_file_is_a_bus_error_and_tags_are_ignored() {
    use std::os::fd::AsRawFd;
    raw::tests::install_handler();
    let space = UserSpace::flat().unwrap().with_area(0x30_0000_0000..0x31_0000_0000);
    let space = space.with_address_tags();
    let path = std::env::temp_dir().join(format!("tulk-softmmu-{}", std::process::id()));
    let file =
        std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.unwrap();
    std::fs::remove_file(&path).unwrap();
    file.set_len(2 * PAGE).unwrap();
    let req = MapRequest {
        flags: libc::MAP_SHARED,
        fd: file.as_raw_fd(),
        ..MapRequest::anonymous(2 * PAGE, RW)
    };
    let a = space.map(&req).unwrap();
    let second = a.wrapping_add(PAGE);
    assert_eq!(space.query(second).unwrap().region.offset, 0);
    space.protect(second, PAGE, READ).unwrap();
    assert_eq!(space.query(second).unwrap().region.offset, PAGE);
    let mut mem = UserMem::new(&space);
    let tagged = GuestVa(second.0 | 0xab00_0000_0000_0000);
    assert_eq!(mem.load(tagged, MemOp::U64), Ok(0));
    assert_eq!(mem.store(tagged, MemOp::U64, 1).unwrap_err().cause, FaultCause::Protection);
    file.set_len(PAGE).unwrap();
    assert_eq!(mem.load(second, MemOp::U64).unwrap_err().cause, FaultCause::Bus);
    assert_eq!(mem.load(a, MemOp::U64), Ok(0));
}

#[test]
fn attached_memory_is_the_guests() {
    for space in spaces() {
        let req = MapRequest::anonymous(2 * PAGE, RW);
        let at = space
            .map_by(&req, |host| {
                let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                let prot = libc::PROT_READ | libc::PROT_WRITE;
                raw::map(host, 2 * PAGE, prot, flags, -1, 0).map(drop)
            })
            .unwrap();
        UserMem::new(&space).store(at, MemOp::U8, 3).unwrap();
        assert_eq!(space.map_by(&req, |_| Err(libc::EACCES)), Err(Errno(libc::EACCES)));
        assert_eq!(space.regions().len(), 1);
    }
}
