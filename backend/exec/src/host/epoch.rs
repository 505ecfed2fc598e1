//! When may memory be freed that another thread could still be reading?
//!
//! Translations are reached without locks: through edges of other blocks, per-vCPU caches, the lookup table and
//! generated code. So whoever removes one first makes it unreachable and then *retires* it here. Each thread that
//! reads translations is a [`Participant`]; between [`Participant::pin`] and the drop or [`Guard::refresh`] of its guard
//! it may hold references. An object is freed when every participant was seen, after the retirement, either
//! unpinned or at a refresh (a quiescent point).
//!
//! The compiler checks half of the argument: references obtained from a [`Shared`] borrow the guard, and `refresh`
//! needs the guard mutably, so none survives it. The other half, that a retired object cannot be reached any
//! more, is the duty of [`Epoch::retire`]'s callers; `invalidate.rs` and `table.rs` argue it where they do it.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The epoch of a participant that holds no references.
const IDLE: u64 = u64::MAX;

/// One thread's standing.
pub struct Participant {
    seen: AtomicU64,
}

/// While it lives, what was reachable since [`Participant::pin`] or the last [`Guard::refresh`] stays allocated.
pub struct Guard<'p> {
    participant: &'p Participant,
    epoch: &'p Epoch,
}

/// Something to do once nobody can be looking any more; mostly dropping a box.
type Deferred = Box<dyn FnOnce() + Send>;

/// See the module.
pub struct Epoch {
    now: AtomicU64,
    participants: Mutex<Vec<Arc<Participant>>>,
    retired: Mutex<Vec<(u64, Deferred)>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Epoch {
    pub fn new() -> Epoch {
        Epoch { now: AtomicU64::new(1), participants: Mutex::default(), retired: Mutex::default() }
    }

    pub fn join(&self) -> Arc<Participant> {
        let participant = Arc::new(Participant { seen: AtomicU64::new(IDLE) });
        lock(&self.participants).push(participant.clone());
        participant
    }

    /// The participant must not be pinned.
    pub fn leave(&self, participant: &Arc<Participant>) {
        lock(&self.participants).retain(|p| !Arc::ptr_eq(p, participant));
    }

    /// Only the threads of these survived a `fork`.
    pub fn only(&self, survivors: &[Option<&Arc<Participant>>]) {
        lock(&self.participants).retain(|p| survivors.iter().flatten().any(|q| Arc::ptr_eq(p, q)));
    }

    /// Runs `free` after a grace period that starts now. What it frees must be unreachable for any thread that pins
    /// or refreshes from now on.
    pub fn retire(&self, free: impl FnOnce() + Send + 'static) {
        fence(Ordering::SeqCst);
        let epoch = self.now.fetch_add(1, Ordering::SeqCst);
        lock(&self.retired).push((epoch, Box::new(free)));
    }

    /// Frees what may be freed. True when nothing is left waiting.
    pub fn collect(&self) -> bool {
        let oldest = {
            let participants = lock(&self.participants);
            participants.iter().map(|p| p.seen.load(Ordering::SeqCst)).min().unwrap_or(IDLE)
        };
        let (due, empty): (Vec<_>, bool) = {
            let mut retired = lock(&self.retired);
            let due = retired.extract_if(.., |(epoch, _)| *epoch < oldest).collect();
            (due, retired.is_empty())
        };
        // Outside the lock: a deferred action may retire more.
        for (_, free) in due {
            free();
        }
        empty
    }

    /// Locks what a `fork` must not find locked, as long as the result lives.
    pub fn freeze(&self) -> impl Sized + '_ {
        (lock(&self.participants), lock(&self.retired))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        for (_, free) in
            std::mem::take(self.retired.get_mut().unwrap_or_else(PoisonError::into_inner))
        {
            free();
        }
    }
}

impl Participant {
    pub fn pin<'p>(&'p self, epoch: &'p Epoch) -> Guard<'p> {
        self.announce(epoch);
        Guard { participant: self, epoch }
    }

    /// A collector that reads the old value frees only what was unreachable before it read, and this thread
    /// looks at shared pointers only after the fence.
    fn announce(&self, epoch: &Epoch) {
        self.seen.store(epoch.now.load(Ordering::SeqCst), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }
}

impl Guard<'_> {
    /// A quiescent point: no reference obtained under this guard exists.
    #[inline]
    pub fn refresh(&mut self) {
        if self.participant.seen.load(Ordering::Relaxed) != self.epoch.now.load(Ordering::Acquire) {
            self.participant.announce(self.epoch);
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.participant.seen.store(IDLE, Ordering::Release);
    }
}

/// A pointer that several threads read without locks, to an object that lives until it is retired.
#[repr(transparent)]
pub struct Shared<T>(AtomicPtr<T>, PhantomData<T>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared(AtomicPtr::default(), PhantomData)
    }
}

impl<T> Shared<T> {
    #[inline]
    pub fn get<'g>(&self, _guard: &'g Guard<'_>) -> Option<&'g T> {
        // SAFETY: non-null pointers come from `Owned`s, whose objects are freed only by `Owned::free` a grace period after
        // the last pointer to them was removed; the guard began or was refreshed before this load.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
    /// As [`Shared::get`] where no guard can be had.
    ///
    /// # Safety
    /// The thread is pinned, and the pointer has been reachable for it since.
    pub unsafe fn get_unguarded<'g>(&self) -> Option<&'g T> {
        // SAFETY: the caller's promise is what a guard proves.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
    /// Points to an object that is published already (its reference proves it alive).
    #[inline]
    pub fn set(&self, target: Option<&T>) {
        let pointer = target.map_or(std::ptr::null_mut(), |t| std::ptr::from_ref(t).cast_mut());
        self.0.store(pointer, Ordering::Release);
    }
    /// Starts to load the object's first cache line.
    #[inline]
    pub fn prefetch(&self) {
        super::prefetch(self.0.load(Ordering::Relaxed));
    }
    #[inline]
    pub fn is(&self, target: &T) -> bool {
        std::ptr::eq(self.0.load(Ordering::Relaxed), target)
    }
}

/// The owner's handle of an object that [`Shared`]s point to. Dropping it leaks the object.
pub struct Owned<T>(*mut T);

// SAFETY: a handle only hands out shared references and frees; both may happen on any thread when `T` allows it.
unsafe impl<T: Send + Sync> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Owned<T> {}

impl<T> Owned<T> {
    pub fn new(value: T) -> Owned<T> {
        Owned(Box::into_raw(Box::new(value)))
    }
    /// The object itself: nobody refers to it any more.
    pub fn free(self) -> T {
        // SAFETY: made by `Box::into_raw`, freed once because this consumes the handle; the caller runs it after the
        // grace period of a retirement, or while dropping the engine, when no thread uses it.
        *unsafe { Box::from_raw(self.0) }
    }
}

impl<T> std::ops::Deref for Owned<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: alive until `free`, which consumes the handle.
        unsafe { &*self.0 }
    }
}

/// A [`Shared`] that owns: the one place from which its object is taken to be retired.
#[repr(transparent)]
pub struct OwnedSlot<T>(Shared<T>);

impl<T> Default for OwnedSlot<T> {
    fn default() -> Self {
        OwnedSlot(Shared::default())
    }
}

impl<T> OwnedSlot<T> {
    #[inline]
    pub fn get<'g>(&self, guard: &'g Guard<'_>) -> Option<&'g T> {
        self.0.get(guard)
    }
    /// As [`Shared::prefetch`].
    #[inline]
    pub fn prefetch(&self) {
        self.0.prefetch();
    }
    /// Replaces what is there; the old object must have been taken before, or leaks.
    pub fn put(&self, object: Owned<T>) {
        self.0.0.store(object.0, Ordering::Release);
    }
    pub fn take(&self) -> Option<Owned<T>> {
        let pointer = self.0.0.swap(std::ptr::null_mut(), Ordering::AcqRel);
        (!pointer.is_null()).then_some(Owned(pointer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn nothing_is_freed_before_the_grace_period() {
        let epoch = Epoch::new();
        let freed = Arc::new(AtomicUsize::new(0));
        let (a, b) = (epoch.join(), epoch.join());
        let mut guard = a.pin(&epoch);
        let count = freed.clone();
        epoch.retire(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let late = b.pin(&epoch);
        assert!(!epoch.collect());
        assert_eq!(freed.load(Ordering::SeqCst), 0);
        guard.refresh();
        assert!(epoch.collect());
        assert_eq!(freed.load(Ordering::SeqCst), 1);
        drop(late);
        epoch.leave(&b);
    }

    #[test]
    fn readers_and_a_replacing_writer() {
        let epoch = Epoch::new();
        let slot: Shared<u64> = Shared::default();
        let mut owned = Owned::new(0u64);
        slot.set(Some(&owned));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    let me = epoch.join();
                    let mut guard = me.pin(&epoch);
                    let mut last = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let now = *slot.get(&guard).unwrap();
                        assert!(now >= last && now < 1 << 32);
                        last = now;
                        guard.refresh();
                    }
                    drop(guard);
                    epoch.leave(&me);
                });
            }
            for n in 1..20_000u64 {
                let next = Owned::new(n);
                slot.set(Some(&next));
                let old = std::mem::replace(&mut owned, next);
                epoch.retire(move || {
                    // A reader that came too late would see this.
                    old.free();
                });
                epoch.collect();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(epoch.collect());
        slot.set(None);
        owned.free();
    }
}
