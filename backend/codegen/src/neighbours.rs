//! Which accesses of a block to paged memory are neighbours: at constant distances from each other, whatever the address is.
//!
//! The first of them finds the TLB entry for all. Addresses are compared as [`Sum`]s: a *root*, of which nothing is known, plus
//! a constant. Who looks at the code says what the sums of its operands are, and makes new roots behind what may
//! change mappings.

/// Most bytes from the first to the end of the last one. The wider, the more often they lie on two pages.
const REACH: i64 = 256;
/// Most groups of a block.
pub const GROUPS: u16 = 128;

/// A number of which only the difference to others with the same root is known.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    root: u32,
    offset: i64,
}

impl Sum {
    pub fn plus(self, n: i64) -> Sum {
        Sum { offset: self.offset.wrapping_add(n), ..self }
    }
}

/// Accesses to one neighbourhood.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Offsets from the root, of the first byte and behind the last.
    low: i64,
    high: i64,
    pub reads: bool,
    pub writes: bool,
    members: u16,
    /// The last one.
    last: u32,
    /// Offset of the one that [`Neighbours::found_by`] named.
    finder: i64,
}

impl Group {
    /// From an access at `offset` to the first byte and to the last one.
    pub fn ends(&self, offset: i64) -> [i32; 2] {
        // Not far, see `REACH`.
        [self.low - offset, self.high - 1 - offset].map(|n| n as i32)
    }
}

/// One access.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    at: u32,
    pub group: u16,
    /// From the root.
    pub offset: i64,
    /// Others of the group follow.
    pub more: bool,
}

/// The groups of a block.
#[derive(Default)]
pub struct Neighbours {
    groups: Vec<Group>,
    members: Vec<Member>,
    next: usize,
    /// Roots of sums of two roots, the second shifted.
    pairs: Vec<((u32, u32, u8), u32)>,
    /// The group that is open for a root.
    open: Vec<(u32, u16)>,
    roots: u32,
}

impl Neighbours {
    pub fn clear(&mut self) {
        self.groups.clear();
        self.members.clear();
        self.next = 0;
        self.pairs.clear();
        self.open.clear();
        self.roots = 0;
    }

    /// A number like no other.
    pub fn root(&mut self) -> Sum {
        self.roots += 1;
        Sum { root: self.roots, offset: 0 }
    }

    /// `a + (b << shift)`.
    pub fn pair(&mut self, a: Sum, b: Sum, shift: u8) -> Sum {
        let key = (a.root, b.root, shift);
        let offset = a.offset.wrapping_add(b.offset << shift);
        let root = match self.pairs.iter().find(|pair| pair.0 == key) {
            Some(&(_, root)) => root,
            None => {
                let Sum { root, .. } = self.root();
                self.pairs.push((key, root));
                root
            }
        };
        Sum { root, offset }
    }

    /// Code at `at`, which grows from call to call, reads or writes so many bytes at an address.
    pub fn access(&mut self, at: u32, Sum { root, offset }: Sum, bytes: u32, write: bool) {
        // So far that the end has another sign: it stays alone.
        let (low, Some(high)) = (offset, offset.checked_add(bytes as i64)) else { return };
        if let Some(n) = self.open.iter().position(|open| open.0 == root) {
            let number = self.open[n].1;
            let group = &mut self.groups[number as usize];
            let (low, high) = (group.low.min(low), group.high.max(high));
            if high.saturating_sub(low) <= REACH {
                let (reads, writes) = (group.reads | !write, group.writes | write);
                let members = group.members.saturating_add(1);
                *group = Group { low, high, reads, writes, members, last: at, ..*group };
                self.members.push(Member { at, group: number, offset, more: false });
                return;
            }
            self.open.swap_remove(n);
        }
        let number = self.groups.len() as u16;
        if number == GROUPS {
            return;
        }
        let (reads, writes) = (!write, write);
        self.groups.push(Group { low, high, reads, writes, members: 1, last: at, finder: 0 });
        self.open.push((root, number));
        self.members.push(Member { at, group: number, offset, more: false });
    }

    /// The access at `at`, if it has neighbours. Asked for in the order in which they were told.
    pub fn member(&mut self, at: u32) -> Option<Member> {
        while self.members.get(self.next)?.at < at {
            self.next += 1;
        }
        let member = self.members[self.next];
        let group = self.group(member);
        let is_one = member.at == at && group.members > 1;
        is_one.then_some(Member { more: group.last != at, ..member })
    }

    pub fn group(&self, member: Member) -> &Group {
        &self.groups[member.group as usize]
    }

    /// The host address of `member` is known from here on.
    pub fn found_by(&mut self, member: Member) {
        self.groups[member.group as usize].finder = member.offset;
    }
    /// From the address that is known to the one of `member`.
    pub fn distance(&self, member: Member) -> i32 {
        // Not far, see `REACH`.
        (member.offset - self.group(member).finder) as i32
    }
}
