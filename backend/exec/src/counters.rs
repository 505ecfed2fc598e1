//! Where baseline code counts: words of their own, close together in the order in which code was made.
//!
//! In their blocks each would be a cache line and a page of the heap of its own. cc1 in the PC runs so many blocks that a
//! quarter of the time in baseline code went into waiting for the counter of the block that was entered.

use crate::host::epoch::lock;
use crate::host::huge_pages;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

/// Most words of one block.
pub const MOST: usize = 5;

/// Words for those who run some ten thousand blocks, whose memory a large page would add to.
const FEW: usize = 1 << 17;
static WORDS: [AtomicU32; FEW] = [const { AtomicU32::new(0) }; FEW];

/// Words of a chunk, one page of the larger kind, and chunks: 8 Mi words in all, for some three million blocks. There are more of them than
/// the host's TLB holds smaller pages besides those of the code.
const CHUNK: usize = 1 << 19;
const CHUNKS: usize = 16;
static MORE: [OnceLock<&'static [AtomicU32]>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
static FREE: Mutex<Free> = Mutex::new(Free { fresh: FIRST, lists: [0; MOST + 1] });

/// Those before are nobody's, and stand for all words of a block that has none.
const FIRST: u32 = MOST as u32;

struct Free {
    /// Words from here on were never used.
    fresh: u32,
    /// Of each size the first that came back, which has the number of the next in its first word; 0 is none.
    lists: [u32; MOST + 1],
}

/// Some words in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters(u32);

impl Counters {
    pub const NONE: Counters = Counters(0);

    /// `n` (1 to [`MOST`]) words that are 0. [`Counters::NONE`] when there are no more.
    pub fn new(n: usize) -> Counters {
        let mut free = lock(&FREE);
        let first = free.lists[n];
        if first != 0 {
            free.lists[n] = word(first).load(Ordering::Relaxed);
            (first..).take(n).for_each(|at| word(at).store(0, Ordering::Relaxed));
            return Counters(first);
        }
        let mut first = free.fresh as usize;
        if first < FEW && first + n > FEW {
            first = FEW;
        } else if first >= FEW && (first - FEW) % CHUNK + n > CHUNK {
            first = FEW + (first - FEW).next_multiple_of(CHUNK);
        }
        if first + n > FEW + CHUNK * CHUNKS {
            return Counters::NONE;
        }
        free.fresh = (first + n) as u32;
        // Maps them, if they are the first of a chunk: a `fork` waits for that.
        word(first as u32);
        Counters(first as u32)
    }

    /// Gives all `n` words back. Nobody may count there any more.
    pub fn free(self, n: usize) {
        if self != Counters::NONE {
            let mut free = lock(&FREE);
            word(self.0).store(free.lists[n], Ordering::Relaxed);
            free.lists[n] = self.0;
        }
    }

    pub fn word(self, n: usize) -> &'static AtomicU32 {
        word(self.0 + n as u32)
    }

    pub fn from_word(word: u32) -> Counters {
        Counters(word)
    }
    pub fn to_word(self) -> u32 {
        self.0
    }
}

fn word(at: u32) -> &'static AtomicU32 {
    let at = at as usize;
    match WORDS.get(at) {
        Some(word) => word,
        None => {
            let (chunk, at) = ((at - FEW) / CHUNK, (at - FEW) % CHUNK);
            &MORE[chunk].get_or_init(|| huge_pages(CHUNK))[at]
        }
    }
}

/// Keeps the lock, for `fork`.
pub fn freeze() -> impl Sized {
    lock(&FREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_apart_and_come_back() {
        let all: Vec<(Counters, usize)> =
            (0..CHUNK).map(|i| i % MOST + 1).map(|n| (Counters::new(n), n)).collect();
        for &(counters, n) in &all {
            assert_ne!(counters, Counters::NONE);
            for i in 0..n {
                assert_eq!(counters.word(i).fetch_add(1, Ordering::Relaxed), 0, "{counters:?}");
            }
        }
        for &(counters, n) in &all {
            counters.free(n);
        }
        // Others allocate meanwhile, but some of these come back, cleared.
        let again: Vec<(Counters, usize)> =
            all.iter().map(|&(_, n)| (Counters::new(n), n)).collect();
        assert!(again.iter().any(|counters| all.contains(counters)));
        for &(counters, n) in &again {
            assert!((0..n).all(|i| counters.word(i).load(Ordering::Relaxed) == 0));
            counters.free(n);
        }
        Counters::NONE.free(1);
        assert_ne!(Counters::new(1), Counters::NONE);
    }
}
