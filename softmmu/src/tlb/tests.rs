//! The caches against a model that knows every page's mapping: nothing stale is ever found, and what may stay does.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tulk_base::{GuestPa, GuestVa};

const PAGE: u64 = 4096;
const MODES: u8 = 2;

fn memory() -> Arc<PhysMem> {
    let mem = PhysMem::new(256 * PAGE, 512 * PAGE).unwrap();
    mem.map(GuestPa(0), 256 * PAGE, 0, PhysKind::Ram);
    mem
}

fn mapping(pa: u64, log2: u8, write: bool, global: bool) -> Mapping {
    Mapping { pa: GuestPa(pa), size_log2: log2, read: true, write, exec: true, global }
}

fn fill(owner: &mut TlbOwner, va: u64, mmu: u8, mapping: &Mapping) {
    let (ticket, _) = owner.begin(va, AccessKind::Read, mmu);
    owner.insert(ticket, va, mmu, mapping).unwrap();
}

#[test]
fn hits_are_inside_a_page_and_of_the_right_kind() {
    let mem = memory();
    let mut owner = TlbOwner::new(Tlb::new(mem.clone(), MODES));
    fill(&mut owner, 0x7000, 0, &mapping(0x3000, 12, false, false));
    let at = mem.frame_host(3);
    assert_eq!(owner.host(0x7123, 4, 0, false), Some(at + 0x123));
    assert_eq!(owner.host(0x7ffc, 4, 0, false), Some(at + 0xffc));
    assert_eq!(owner.host(0x7ffd, 4, 0, false), None);
    assert_eq!(owner.host(0x7000, 4, 0, true), None);
    assert_eq!(owner.host(0x7000, 4, 1, false), None);
    assert_eq!(owner.find(0x7ffd, 0, false).map(|f| f.pa), Some(0x3ffd));
    assert_eq!(owner.find(0x7ffd, 0, true), None);
    // A device is found, but never fast; neither is a page at the end of the address space crossed.
    fill(&mut owner, 0x9000, 0, &mapping(300 * PAGE, 12, true, false));
    assert_eq!(owner.host(0x9000, 1, 0, false), None);
    assert_eq!(owner.find(0x9004, 0, true), Some(Found { pa: 300 * PAGE + 4, page: None }));
    fill(&mut owner, !0xfff, 0, &mapping(0x4000, 12, true, false));
    assert_eq!(owner.host(u64::MAX - 7, 8, 0, true), Some(mem.frame_host(4) + 0xff8));
    assert_eq!(owner.host(u64::MAX - 6, 8, 0, true), None);
    assert_eq!(owner.host(0, 1, 0, true), None);
}

#[test]
fn code_and_display_make_stores_slow() {
    let mem = memory();
    let tlb = Tlb::new(mem.clone(), MODES);
    let mut owner = TlbOwner::new(tlb.clone());
    let rw = |frame: u64| mapping(frame * PAGE, 12, true, false);
    fill(&mut owner, 0x7000, 0, &rw(3));
    assert!(owner.host(0x7000, 4, 0, true).is_some());
    assert_eq!(mem.set_flags(3, CODE), WRITABLE);
    assert!(tlb.protect(3..4) && !tlb.protect(3..4));
    assert_eq!(owner.host(0x7000, 4, 0, true), None);
    assert!(owner.host(0x7000, 4, 0, false).is_some() && owner.find(0x7000, 0, true).is_some());
    // As long as there is code it stays slow, also where it is filled anew.
    owner.refresh(0x7000, 0);
    fill(&mut owner, 0x8000, 1, &rw(3));
    assert_eq!((owner.host(0x7000, 4, 0, true), owner.host(0x8000, 4, 1, true)), (None, None));
    mem.clear_flags(3, CODE);
    owner.refresh(0x7000, 0);
    assert!(owner.host(0x7000, 4, 0, true).is_some());
    assert_eq!(owner.host(0x8000, 4, 1, true), None);
    // A display.
    mem.map(GuestPa(5 * PAGE), PAGE, 5 * PAGE, PhysKind::Tracked);
    fill(&mut owner, 0xa000, 0, &rw(5));
    assert_eq!(owner.host(0xa000, 4, 0, true), None);
    mem.written(5, 0, 4);
    owner.refresh(0xa000, 0);
    assert!(owner.host(0xa000, 4, 0, true).is_some());
}

/// A debugger's pages are slow for data in every space and mode, in both directions, until it names others; nothing else is, and code
/// is not.
#[test]
fn watched_pages_are_slow() {
    let mem = memory();
    let tlb = Tlb::new(mem, MODES);
    let mut owner = TlbOwner::new(tlb.clone());
    let map = mapping(0x3000, 12, true, false);
    let fast = |owner: &TlbOwner, va: u64, mmu: u8| {
        [false, true].map(|write| owner.host(va, 4, mmu, write).is_some())
    };
    fill(&mut owner, 0x7000, 0, &map);
    assert_eq!(fast(&owner, 0x7000, 0), [true; 2]);
    let (ticket, _) = owner.begin(0x8000, AccessKind::Read, 0);
    tlb.watch(&[0x7000, 0x9000]);
    // What was found is gone, and what was being looked for when the page was not watched is void.
    assert_eq!((owner.find(0x7000, 0, false), fast(&owner, 0x7000, 0)), (None, [false; 2]));
    assert_eq!(owner.insert(ticket, 0x8000, 0, &map), None);
    for space in 0..2 {
        owner.switch_space(space);
        for mmu in 0..MODES {
            for page in [0x6000, 0x7000, 0x8000, 0x9000] {
                fill(&mut owner, page, mmu, &map);
            }
            // Found, but not fast; neighbours are fast, but not across the border.
            for page in [0x7000, 0x9000] {
                assert_eq!(fast(&owner, page + 0xff0, mmu), [false; 2], "{space} {mmu}");
                assert_eq!(owner.find(page + 5, mmu, true).map(|f| f.pa), Some(0x3005));
            }
            for page in [0x6000, 0x8000] {
                assert_eq!(fast(&owner, page + 0xffc, mmu), [true; 2], "{space} {mmu}");
                assert_eq!(fast(&owner, page + 0xffd, mmu), [false; 2], "{space} {mmu}");
            }
            // It stays slow, whatever happens to the page.
            owner.refresh(0x7000, mmu);
            fill(&mut owner, 0x7000, mmu, &mapping(0x4000, 21, true, true));
            assert_eq!(fast(&owner, 0x7000, mmu), [false; 2], "{space} {mmu}");
        }
    }
    let (ticket, _) = owner.begin(0x7000, AccessKind::Exec, 0);
    assert!(owner.insert_code(ticket, 0x7000, 0, &map, 5).is_some());
    assert_eq!(owner.code_id(0x7000, 0), 5);
    tlb.watch(&[]);
    fill(&mut owner, 0x7000, 0, &map);
    assert_eq!(fast(&owner, 0x7000, 0), [true; 2]);
}

#[test]
fn a_drop_makes_tickets_void() {
    let mem = memory();
    let tlb = Tlb::new(mem, MODES);
    let mut owner = TlbOwner::new(tlb.clone());
    let map = mapping(0x3000, 12, true, false);
    let (ticket, _) = owner.begin(0x7000, AccessKind::Read, 0);
    tlb.clear();
    assert_eq!(owner.insert(ticket, 0x7000, 0, &map), None);
    assert_eq!(owner.insert_code(ticket, 0x7000, 0, &map, 5), None);
    assert_eq!((owner.host(0x7000, 1, 0, false), owner.code_id(0x7000, 0)), (None, 0));
}

#[test]
fn spaces_come_back_until_there_are_too_many() {
    let mut owner = TlbOwner::new(Tlb::new(memory(), MODES));
    for space in 0..SPACES as u16 {
        owner.switch_space(space);
        fill(&mut owner, 0x7000, 0, &mapping(space as u64 * PAGE, 12, true, false));
    }
    for space in 0..SPACES as u16 {
        owner.switch_space(space);
        assert_eq!(owner.find(0x7000, 0, false).map(|f| f.pa), Some(space as u64 * PAGE));
    }
    owner.switch_space(100);
    assert_eq!(owner.find(0x7000, 0, false), None);
    owner.switch_space(SPACES as u16 - 1);
    assert!(owner.find(0x7000, 0, false).is_some());
    // Space 0 made room.
    owner.switch_space(0);
    assert_eq!(owner.find(0x7000, 0, false), None);
}

#[test]
fn tables_grow_with_what_is_used() {
    let mem = memory();
    let mut owner = TlbOwner::new(Tlb::new(mem, MODES));
    let pages = 2000u64;
    for _ in 0..8 {
        for n in 0..pages {
            if owner.find(n * PAGE, 0, false).is_none() {
                fill(&mut owner, n * PAGE, 0, &mapping(n % 256 * PAGE, 12, true, false));
            }
        }
    }
    assert!((0..pages).all(|n| owner.host(n * PAGE, 8, 0, true).is_some()));
    let mut masks = Vec::new();
    owner.words(|mmu, mask, table, code| {
        assert!(table != 0 && code != 0);
        masks.push((mmu, mask));
    });
    assert_eq!(masks[0], (0, (2048 - 1) << 5));
    owner.words(|_, _, _, _| panic!("nothing moved"));
    // Many flushes with little in between.
    for _ in 0..QUIET * 4 {
        owner.flush(TlbFlush::NonGlobal);
    }
    owner.words(|mmu, mask, _, _| assert!(mmu != 0 || mask < (1024 - 1) << 5));
}

#[derive(Clone, Debug)]
enum Action {
    Fill { page: u64, mmu: u8, log2: u8, global: bool },
    Code { page: u64, mmu: u8, global: bool },
    Switch(u16),
    Flush(TlbFlush),
    Clear,
}

fn actions() -> impl Strategy<Value = Action> {
    let page = 0u64..64;
    let space = 0u16..3;
    prop_oneof![
        8 => (page.clone(), 0..MODES, prop_oneof![Just(12u8), Just(14)], any::<bool>())
            .prop_map(|(page, mmu, log2, global)| Action::Fill { page, mmu, log2, global }),
        3 => (page.clone(), 0..MODES, any::<bool>())
            .prop_map(|(page, mmu, global)| Action::Code { page, mmu, global }),
        2 => space.clone().prop_map(Action::Switch),
        1 => prop_oneof![
            Just(TlbFlush::All),
            Just(TlbFlush::NonGlobal),
            space.clone().prop_map(TlbFlush::Space),
        ].prop_map(Action::Flush),
        2 => (page, space, any::<bool>()).prop_map(|(page, space, all)| {
            let va = GuestVa(page * PAGE + 5);
            Action::Flush(match all {
                true => TlbFlush::Page { va, space },
                false => TlbFlush::NonGlobalPage { va, space },
            })
        }),
        1 => Just(Action::Clear),
    ]
}

/// What may still be cached: by space, MMU index and page.
#[derive(Default)]
struct Model {
    data: BTreeMap<(u16, u8, u64), Mapping>,
    code: BTreeMap<(u16, u8, u64), (u32, bool)>,
}

impl Model {
    fn flush(&mut self, what: TlbFlush) {
        let page_gone =
            |key: &(u16, u8, u64), map: &Mapping, va: GuestVa, space: u16, all: bool| {
                let size = 1u64 << map.size_log2;
                let same = key.2 * PAGE / size == va.0 / size;
                same && if map.global { all } else { key.0 == space }
            };
        match what {
            TlbFlush::All => *self = Model::default(),
            TlbFlush::NonGlobal => {
                self.data.retain(|_, map| map.global);
                self.code.retain(|_, code| code.1);
            }
            TlbFlush::Space(space) => {
                self.data.retain(|key, map| map.global || key.0 != space);
                self.code.retain(|key, code| code.1 || key.0 != space);
            }
            TlbFlush::Page { va, space } | TlbFlush::NonGlobalPage { va, space } => {
                let all = matches!(what, TlbFlush::Page { .. });
                self.data.retain(|key, map| !page_gone(key, map, va, space, all));
                self.code.retain(|key, code| {
                    let here = key.2 == va.0 >> 12;
                    !here || if code.1 { !all } else { key.0 != space }
                });
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_flushed_is_found(list in proptest::collection::vec(actions(), 1..120)) {
        let mem = memory();
        let tlb = Tlb::new(mem.clone(), MODES);
        let mut owner = TlbOwner::new(tlb.clone());
        let (mut model, mut space, mut next) = (Model::default(), 0u16, 0u32);
        for action in list {
            match action {
                Action::Fill { page, mmu, log2, global } => {
                    // What a large page maps does not depend on the piece that is touched.
                    next += 1;
                    let pages = 1u64 << (log2 - 12);
                    let first = page / pages * pages;
                    // An overlap with other sizes or frames is the guest's error unless it flushes first.
                    owner.flush(TlbFlush::Page { va: GuestVa(page * PAGE), space });
                    model.flush(TlbFlush::Page { va: GuestVa(page * PAGE), space });
                    for p in first..first + pages {
                        owner.flush(TlbFlush::Page { va: GuestVa(p * PAGE), space });
                        model.flush(TlbFlush::Page { va: GuestVa(p * PAGE), space });
                    }
                    let frame = next as u64 % 32 * pages;
                    let map = mapping(frame * PAGE, log2, true, global);
                    fill(&mut owner, page * PAGE, mmu, &map);
                    model.data.insert((space, mmu, page), map);
                    // It is there now.
                    let pa = frame * PAGE + page % pages * PAGE + 9;
                    prop_assert_eq!(owner.find(page * PAGE + 9, mmu, true).map(|f| f.pa), Some(pa));
                    let host = mem.frame_host(pa as u32 >> 12) + 9;
                    prop_assert_eq!(owner.host(page * PAGE + 9, 1, mmu, true), Some(host));
                }
                Action::Code { page, mmu, global } => {
                    next += 1;
                    let (ticket, _) = owner.begin(page * PAGE, AccessKind::Exec, mmu);
                    let map = mapping(0, 12, false, global);
                    owner.insert_code(ticket, page * PAGE, mmu, &map, next).unwrap();
                    model.code.insert((space, mmu, page), (next, global));
                }
                Action::Switch(to) => {
                    owner.switch_space(to);
                    space = to;
                }
                Action::Flush(what) => {
                    owner.flush(what);
                    model.flush(what);
                }
                Action::Clear => {
                    tlb.clear();
                    model = Model::default();
                }
            }
            for mmu in 0..MODES {
                for page in 0..64u64 {
                    if let Some(found) = owner.find(page * PAGE, mmu, false) {
                        let map = model.data.get(&(space, mmu, page));
                        prop_assert_eq!(Some(found.pa), map.map(|m| physical(m, page * PAGE)));
                    }
                    let (ticket, known) = owner.begin(page * PAGE, AccessKind::Read, mmu);
                    let _ = ticket;
                    if let Some(known) = known {
                        let size = 1u64 << known.size_log2;
                        let inside = |key: &&(u16, u8, u64)| {
                            key.0 == space && key.1 == mmu && key.2 * PAGE / size == page * PAGE / size
                        };
                        prop_assert!(model.data.keys().any(|key| inside(&key)), "large page {}", page);
                    }
                    let id = owner.code_id(page * PAGE, mmu);
                    let code = model.code.get(&(space, mmu, page)).map(|c| c.0);
                    prop_assert!(id == 0 || Some(id) == code);
                }
            }
        }
    }
}

/// Protecting finds entries wherever a table that grew, shrank or was refreshed has them.
#[test]
fn protecting_a_frame_finds_all_its_pages() {
    let mem = memory();
    let tlb = Tlb::new(mem.clone(), MODES);
    let mut owner = TlbOwner::new(tlb.clone());
    let frame_of = |n: u64| n * 7 % 256;
    let va_of = |n: u64| (0x1000 + n) * PAGE;
    const N: u64 = 3000;
    for round in 0..3 {
        for n in 0..N {
            let writes = mapping(frame_of(n) * PAGE, 12, n % 5 != 0, true);
            fill(&mut owner, va_of(n), (n % 2) as u8, &writes);
        }
        let is_fast = |owner: &TlbOwner, n| owner.host(va_of(n), 8, (n % 2) as u8, true).is_some();
        let fast = |owner: &TlbOwner| (0..N).filter(|&n| is_fast(owner, n)).collect::<Vec<_>>();
        let mut before = fast(&owner);
        assert!(before.len() > 300);
        for frames in [3..4, 17..40, 200..256] {
            let inside = |n: &u64| frames.contains(&(frame_of(*n) as u32));
            assert_eq!(tlb.protect(frames.clone()), before.iter().any(inside));
            before.retain(|n| !inside(n));
            assert_eq!(fast(&owner), before);
            assert!(!tlb.protect(frames.clone()));
            // As after a store that was allowed.
            let again = (0..N).filter(inside).filter(|n| n % 5 != 0);
            let again: Vec<u64> =
                again.filter(|&n| owner.find(va_of(n), (n % 2) as u8, true).is_some()).collect();
            again.iter().for_each(|&n| owner.refresh(va_of(n), (n % 2) as u8));
            assert!(again.iter().all(|&n| is_fast(&owner, n)));
            assert_eq!(tlb.protect(frames.clone()), !again.is_empty());
            assert_eq!(fast(&owner), before);
        }
        // The tables shrink in between.
        for _ in 0..(round + 1) * 2 * QUIET {
            owner.flush(TlbFlush::NonGlobal);
        }
    }
}
