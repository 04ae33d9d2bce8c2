//! Who holds a P, and how it is taken from an M in the middle of a poll.
//!
//! # The problem
//!
//! An M that polls a task may be stuck in it, so sysmon must be able to take its P away without
//! asking. But the poll itself uses the P: a wake pushes to its ring, a spawn takes from its
//! caches. So every entry into scheduler code must notice a loss, at next to no cost.
//!
//! # The words
//!
//! Each P has one word; each M has one *mark*.
//!
//! ```text
//!   P's word:  63           26 25              2 1    0
//!             ┌───────────────┬─────────────────┬──────┐
//!             │ tick (polls)  │ M's number      │ kind │   IDLE · OWNED · REQUEST · TAKEN
//!             └───────────────┴─────────────────┴──────┘
//!   M's mark: up while the M is in scheduler code, that is, while it may touch its P's data
//! ```
//!
//! | from | to | who | when |
//! |---|---|---|---|
//! | IDLE, TAKEN | OWNED(m, t) | m, which got the P from the idle list or the taker | [`Ownership::acquire`] |
//! | OWNED(m, t) | OWNED(m, t+1) | m, mark up | a poll begins |
//! | OWNED(m, t) | IDLE | m, mark up | [`Ownership::release`] |
//! | OWNED(m, t) | REQUEST(m, t) | a taker | it saw tick t for too long |
//! | REQUEST(m, t) | OWNED(m, t) | m on entry, or the taker that saw the mark up | withdrawn |
//! | REQUEST(m, t) | TAKEN | the taker that saw the mark down | m has lost the P |
//!
//! Requests, withdrawals and losses are compare-exchanges on the whole word, so a request is about
//! one poll only. Takers exclude each other by a lock of their own.
//!
//! # Why at most one of them touches the P
//!
//! Entering and taking are the two sides of Dekker's protocol:
//!
//! ```text
//!   M:      mark = up;      light fence;  read word
//!   taker:  word = REQUEST; heavy fence;  read mark
//! ```
//!
//! At least one of the two sees what the other wrote. If the taker sees the mark down, any later
//! entry of M sees REQUEST or TAKEN; both then compare-exchange the same word and one of them
//! loses. If the taker sees the mark up, it withdraws. M's plain stores (a new tick, IDLE) happen
//! only with the mark up after having read OWNED: a request that comes in between is overwritten,
//! and the taker, whose heavy fence is after it, either sees the mark up, or finds the word changed.
//!
//! # Orderings
//!
//! * Entry: Relaxed store of the mark, light fence, Relaxed load of the word. The fence pair
//!   (`os/asymmetric_fence.rs`) orders them against the taker's.
//! * Lowering the mark is a Release store, which the taker's Acquire load of the mark pairs with:
//!   the next holder sees everything the old one did to the P.
//! * REQUEST→TAKEN is Acquire for form's sake; TAKEN→OWNED and IDLE→OWNED are handed over through
//!   the idle list's lock.
//!
//! No user code runs with the mark up: it could block, and the P could not be taken.

use crate::facade::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::os::asymmetric_fence as fence;

const KIND: u64 = 0b11;
const IDLE: u64 = 0;
const OWNED: u64 = 1;
const REQUEST: u64 = 2;
const TAKEN: u64 = 3;

const MACHINE_SHIFT: u32 = 2;
/// The Ms of a runtime are numbered below this: four times the kernel's limit on threads.
pub(crate) const MACHINES: u32 = 1 << 24;
const TICK_SHIFT: u32 = 26;
/// One poll. 2^38 polls later the tick wraps; a taker would have to sleep for that long between
/// its two looks to mistake one poll for another.
const TICK: u64 = 1 << TICK_SHIFT;

/// A P's word. See the module's doc.
#[derive(Debug)]
pub(crate) struct Ownership(AtomicU64);

/// An M's mark. See the module's doc.
#[derive(Debug)]
pub(crate) struct Mark(AtomicBool);

/// The value that the word of an M's own P has while nobody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim(u64);

/// What a taker saw, to be compared with a later look: an M in the middle of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed(u64);

impl Observed {
    /// The number of the M that holds the P.
    pub(crate) fn machine(self) -> u32 {
        ((self.0 >> MACHINE_SHIFT) as u32) & (MACHINES - 1)
    }
}

impl Mark {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Puts the mark up and says whether the P is still this M's. If it is not, the mark is down
    /// again. Only for the M whose mark this is.
    #[inline(always)]
    #[must_use]
    pub(crate) fn enter(&self, word: &Ownership, claim: Claim) -> bool {
        debug_assert!(
            !self.0.load(Relaxed),
            "scheduler code is not entered twice: no user code runs with the mark up"
        );
        // Relaxed: ordered before the load by the light fence, which pairs with the taker's heavy
        // one.
        self.0.store(true, Relaxed);
        fence::light();
        if word.0.load(Relaxed) == claim.0 {
            return true;
        }
        self.enter_contended(word, claim)
    }

    /// A taker asks for the P, or has it. Whoever's compare-exchange comes first has it.
    #[cold]
    fn enter_contended(&self, word: &Ownership, claim: Claim) -> bool {
        let request = (claim.0 & !KIND) | REQUEST;
        // Release hands nothing over; Acquire pairs with the taker's own withdrawal.
        match word.0.compare_exchange(request, claim.0, AcqRel, Acquire) {
            Ok(_) => return true,
            // The taker itself has withdrawn: it had seen the mark up.
            Err(actual) if actual == claim.0 => return true,
            Err(_) => {}
        }
        self.0.store(false, Release);
        false
    }

    /// Lowers the mark. Release pairs with the taker's Acquire load in [`Ownership::take`].
    #[inline(always)]
    pub(crate) fn leave(&self) {
        self.0.store(false, Release);
    }

    /// Puts the mark up without a P: its owner is about to acquire one.
    #[inline(always)]
    pub(crate) fn raise(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Ownership {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(IDLE))
    }

    /// Makes `machine` the holder. Only for the M that took the P from the idle list, or whom the
    /// taker handed it to, and with its mark up.
    pub(crate) fn acquire(&self, machine: u32) -> Claim {
        debug_assert!(machine < MACHINES);
        // Relaxed: nobody else writes the word of an idle or taken P, and the hand-over went
        // through a lock.
        let tick = (self.0.load(Relaxed) & !(TICK - 1)).wrapping_add(TICK);
        let claim = tick | (u64::from(machine) << MACHINE_SHIFT) | OWNED;
        // Release: a taker that sees the claim sees the hand-over.
        self.0.store(claim, Release);
        Claim(claim)
    }

    /// Begins the next poll: whatever a taker has observed is out of date. Holder only, mark up.
    #[inline(always)]
    #[must_use]
    pub(crate) fn next_poll(&self, claim: Claim) -> Claim {
        let next = Claim(claim.0.wrapping_add(TICK));
        // Relaxed: publishes nothing; may overwrite a request (see the module's doc).
        self.overwrite(next.0);
        next
    }

    /// The holder gives the P up. Holder only, mark up; then it lowers the mark and puts the P on
    /// the idle list.
    pub(crate) fn release(&self, claim: Claim) {
        // What the holder did to the P goes to the next one through the idle list's lock.
        self.overwrite((claim.0 & !(TICK - 1)) | IDLE);
    }

    /// The holder's plain store.
    ///
    /// Under loom it is a swap: loom keeps the modification order of stores as a partial order,
    /// and would let the taker's second compare-exchange read its own REQUEST past a later store
    /// that it has already synchronised with, which no coherent memory does.
    #[inline(always)]
    fn overwrite(&self, word: u64) {
        #[cfg(not(loom))]
        self.0.store(word, Relaxed);
        #[cfg(loom)]
        self.0.swap(word, Relaxed);
    }

    /// For a taker: the holder and its poll, if there is one.
    pub(crate) fn observe(&self) -> Option<Observed> {
        // Acquire pairs with `acquire`.
        let word = self.0.load(Acquire);
        (word & KIND == OWNED).then_some(Observed(word))
    }

    /// The number of polls begun so far, for thieves that want to know whether the holder moves.
    pub(crate) fn tick(&self) -> u64 {
        self.0.load(Relaxed) >> TICK_SHIFT
    }

    /// Takes the P from the M observed, if it is still in the same poll and outside of scheduler
    /// code. True: the P is the caller's, who must hand it to an M or to the idle list.
    ///
    /// The caller holds the takers' lock, and `mark` is that of `observed.machine()`.
    #[must_use]
    pub(crate) fn take(&self, observed: Observed, mark: &Mark) -> bool {
        let request = (observed.0 & !KIND) | REQUEST;
        if self
            .0
            .compare_exchange(observed.0, request, AcqRel, Relaxed)
            .is_err()
        {
            return false;
        }
        // Acquire pairs with `leave`.
        if !fence::heavy() || mark.0.load(Acquire) {
            // In scheduler code, or the kernel refused the fence and nothing is known. A failure
            // means that the M has withdrawn the request itself.
            let _ = self
                .0
                .compare_exchange(request, observed.0, AcqRel, Relaxed);
            return false;
        }
        let taken = (observed.0 & !(TICK - 1)) | TAKEN;
        self.0
            .compare_exchange(request, taken, AcqRel, Relaxed)
            .is_ok()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::facade::UnsafeCell;
    use loom::sync::Arc;

    struct Model {
        word: Ownership,
        mark: Mark,
        other: Mark,
        /// The P's data: loom reports any two accesses that are not ordered.
        data: UnsafeCell<u32>,
    }

    impl Model {
        fn new() -> Self {
            Self {
                word: Ownership::new(),
                mark: Mark::new(),
                other: Mark::new(),
                data: UnsafeCell::new(0),
            }
        }

        fn touch(&self) {
            // SAFETY: what the model checks: only the holder, mark up, gets here.
            self.data.with_mut(|data| unsafe { *data += 1 });
        }

        /// The taker's side: takes P if it can, and uses it as another M would.
        fn retake(&self) -> bool {
            let Some(observed) = self.word.observe() else {
                return false;
            };
            assert_eq!(observed.machine(), 1);
            let taken = self.word.take(observed, &self.mark);
            if taken {
                self.other.raise();
                let claim = self.word.acquire(2);
                self.touch();
                self.other.leave();
                assert!(self.other.enter(&self.word, claim));
                self.touch();
                self.other.leave();
            }
            taken
        }
    }

    /// Retake against wakes and spawns in a poll, and against the poll's end.
    #[test]
    fn loom_retake_against_entries_and_poll_end() {
        loom::model(|| {
            let model = Arc::new(Model::new());
            model.mark.raise();
            let mut claim = model.word.acquire(1);
            claim = model.word.next_poll(claim);
            model.mark.leave();
            let taker = {
                let model = model.clone();
                loom::thread::spawn(move || model.retake())
            };
            // A wake in the poll.
            let mut lost = !model.mark.enter(&model.word, claim);
            if !lost {
                model.touch();
                model.mark.leave();
                // The poll's end; the next poll begins.
                lost = !model.mark.enter(&model.word, claim);
            }
            if !lost {
                model.touch();
                claim = model.word.next_poll(claim);
                model.mark.leave();
                lost = !model.mark.enter(&model.word, claim);
            }
            if !lost {
                model.touch();
                model.word.release(claim);
                model.mark.leave();
            }
            let taken = taker.join().unwrap();
            assert_eq!(taken, lost, "the P has exactly one holder");
        });
    }

    /// Two retakes in a row, the second after a withdrawal.
    #[test]
    fn loom_retake_twice() {
        loom::model(|| {
            let model = Arc::new(Model::new());
            model.mark.raise();
            let claim = model.word.acquire(1);
            model.mark.leave();
            let taker = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    model.retake() || {
                        match model.word.observe() {
                            Some(observed) if observed.machine() == 1 => {
                                model.word.take(observed, &model.mark)
                            }
                            _ => false,
                        }
                    }
                })
            };
            let mut held = 0;
            for _ in 0..2 {
                if model.mark.enter(&model.word, claim) {
                    model.touch();
                    model.mark.leave();
                    held += 1;
                }
            }
            let taken = taker.join().unwrap();
            if !taken {
                assert_eq!(held, 2);
            }
            assert_eq!(model.mark.enter(&model.word, claim), !taken);
        });
    }
}
