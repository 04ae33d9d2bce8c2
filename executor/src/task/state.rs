//! The state word of a task: its life-cycle bits and its reference count.
//!
//! ```text
//!  63                                6     5          4          3         2        1        0
//! ┌───────────────────────────────────┬──────────┬──────────┬─────────┬────────┬─────────┬───────┐
//! │ reference count                   │JOIN_WAKER│JOIN_INTER│CANCELLED│COMPLETE│SCHEDULED│RUNNING│
//! └───────────────────────────────────┴──────────┴──────────┴─────────┴────────┴─────────┴───────┘
//! ```
//!
//! # Go's names
//!
//! | Go           | RUNNING | SCHEDULED | COMPLETE | here |
//! |--------------|---------|-----------|----------|------|
//! | `_Gidle`     | 0 | 0 | 0 | no reference: the cell is free |
//! | `_Grunnable` | 0 | 1 | 0 | a [`Runnable`](super::Runnable) is in a queue, or on its way to one |
//! | `_Grunning`  | 1 | 0 | 0 | one thread polls, or drops, the future |
//! | `_Grunning`  | 1 | 1 | 0 | woken during its own poll: runnable again when the poll returns |
//! | `_Gwaiting`  | 0 | 0 | 0 | parked: a waker will make it runnable |
//! | `_Gdead`     | 0 | any | 1 | the future is gone; the output, if anyone wants it, is in its place |
//!
//! # References
//!
//! The count holds one for each of: the task itself until it completes (so that a task without any
//! waker lives until its runtime shuts down), the `Runnable` in a queue or being polled, the
//! `JoinHandle`, every `Waker`, every `AbortHandle`, and a registry walker for as long as it looks.
//! Whoever brings it to zero frees the cell.
//!
//! # Who may touch what
//!
//! * The future and the output (`stage`): whoever set RUNNING, until it sets COMPLETE. After
//!   COMPLETE: the `JoinHandle` if JOIN_INTEREST was set at that moment, otherwise the completer.
//! * The join waker slot: see the table at [`State::set_join_waker`].
//!
//! # Orderings
//!
//! Every transition is an AcqRel read-modify-write, the failed loads Acquire: the Release half
//! publishes what its thread did to `stage` or the slot before it gave the right up, the Acquire
//! half of the next transition of the same word receives it. Reading modification order, every
//! RMW continues the release sequence of the one before, so it does not matter how many
//! transitions lie between. New references are Relaxed (made from a live one, as in `Arc`).

use crate::facade::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Set while one thread has the exclusive right to the future: it polls it, or drops it. Never
/// set together with COMPLETE.
const RUNNING: usize = 1 << 0;
/// Set while a `Runnable` exists that is not being polled, and during a poll if the task must run
/// again after it. Wakers that find it set have nothing to do.
const SCHEDULED: usize = 1 << 1;
/// Set once, when the future is gone and the output stands in its place. Never unset.
const COMPLETE: usize = 1 << 2;
/// Set by abort and shutdown: the next thread to hold RUNNING drops the future instead of polling.
const CANCELLED: usize = 1 << 3;
/// Set while the `JoinHandle` lives.
const JOIN_INTEREST: usize = 1 << 4;
/// Set while the join waker slot belongs to the completer.
const JOIN_WAKER: usize = 1 << 5;
/// One reference.
const REF_ONE: usize = 1 << 6;
/// Beyond this many references something leaks wakers; like `Arc`, abort before it can wrap.
const REF_MAX: usize = isize::MAX as usize;

/// A task as `spawn` makes it: runnable, with three references (its own, the `Runnable`'s, the
/// `JoinHandle`'s).
const INITIAL: usize = (3 * REF_ONE) | JOIN_INTEREST | SCHEDULED;

/// The state word. All zeroes (fresh or recycled memory) is a free cell.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct State(AtomicUsize);

/// What the thread that took a `Runnable` must do with it.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToRunning {
    /// Poll the future.
    Poll,
    /// Drop the future and complete the task as cancelled.
    Cancel,
    /// Somebody else completed, or is completing, the task; the `Runnable`'s reference is gone.
    Nothing,
    /// As `Nothing`, and it was the last reference: free the cell.
    Free,
}

/// What follows a poll that returned `Pending`.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToParked {
    /// Parked; the `Runnable`'s reference is gone.
    Parked,
    /// Woken meanwhile: the poller still has the `Runnable` and must queue it.
    Reschedule,
    /// Cancelled meanwhile: RUNNING is kept; drop the future and complete.
    Cancel,
}

/// What follows a wake.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToScheduled {
    /// The caller now has a `Runnable`, reference included, and must queue it.
    Queue,
    /// Nothing to do.
    Nothing,
    /// The consumed waker was the last reference: free the cell.
    Free,
}

/// What the `JoinHandle` must do when it is dropped.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JoinDropped {
    /// The output is there and nobody else will drop it.
    pub(crate) drop_output: bool,
    /// The slot belongs to the handle: empty it.
    pub(crate) drop_waker: bool,
}

/// What the completer must do.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    /// No `JoinHandle` lives: drop the output.
    pub(crate) drop_output: bool,
    /// Wake the waker in the slot, then call [`State::release_join_waker`].
    pub(crate) wake_join: bool,
}

impl State {
    /// A fresh task's state, for the models; cells are made live by [`State::init`].
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(INITIAL))
    }

    /// Makes a free cell a live task.
    ///
    /// Release: pairs with [`State::try_ref`], by which a registry walker that knows nothing of
    /// this spawn gains its reference and then reads the header.
    #[inline]
    pub(crate) fn init(&self) {
        self.0.store(INITIAL, Release);
    }

    /// Makes the cell free. Only for the thread that brought the count to zero; the Release pairs
    /// with nothing (the cell's next user gets it by way of a free list), it keeps the header's
    /// last use in front.
    #[inline]
    pub(crate) fn clear(&self) {
        self.0.store(0, Release);
    }

    #[inline]
    fn transition<R>(&self, mut step: impl FnMut(usize) -> (usize, R)) -> R {
        let mut current = self.0.load(Acquire);
        loop {
            let (next, result) = step(current);
            match self.0.compare_exchange_weak(current, next, AcqRel, Acquire) {
                Ok(_) => return result,
                Err(actual) => current = actual,
            }
        }
    }

    /// `_Grunnable` → `_Grunning`, by the thread that took the `Runnable` from a queue.
    #[inline]
    pub(crate) fn to_running(&self) -> ToRunning {
        self.transition(|current| {
            debug_assert!(current & SCHEDULED != 0);
            if current & (RUNNING | COMPLETE) != 0 {
                // A shutdown took the right to the future while the task was queued.
                let next = (current & !SCHEDULED) - REF_ONE;
                let last = next < REF_ONE;
                return (
                    next,
                    if last {
                        ToRunning::Free
                    } else {
                        ToRunning::Nothing
                    },
                );
            }
            let next = (current & !SCHEDULED) | RUNNING;
            if current & CANCELLED != 0 {
                (next, ToRunning::Cancel)
            } else {
                (next, ToRunning::Poll)
            }
        })
    }

    /// `_Grunning` → `_Gwaiting` (or `_Grunnable`) after `Pending`. A task that `yielded` is
    /// runnable again as if it had been woken.
    #[inline]
    pub(crate) fn to_parked(&self, yielded: bool) -> ToParked {
        self.transition(|current| {
            debug_assert!(current & RUNNING != 0 && current & COMPLETE == 0);
            if current & CANCELLED != 0 {
                return (current, ToParked::Cancel);
            }
            let next = current & !RUNNING;
            if yielded || current & SCHEDULED != 0 {
                (next | SCHEDULED, ToParked::Reschedule)
            } else {
                // Never the last one: the task's own reference is given up at completion only.
                (next - REF_ONE, ToParked::Parked)
            }
        })
    }

    /// A wake that consumes the waker.
    ///
    /// Even a wake that changes nothing writes the word: what the waking thread did before must
    /// be visible to the poll that is still to come, and only a read-modify-write makes it so.
    #[inline]
    pub(crate) fn wake_by_val(&self) -> ToScheduled {
        self.transition(|current| {
            if current & (COMPLETE | SCHEDULED) != 0 {
                let next = current - REF_ONE;
                let last = next < REF_ONE;
                (
                    next,
                    if last {
                        ToScheduled::Free
                    } else {
                        ToScheduled::Nothing
                    },
                )
            } else if current & RUNNING != 0 {
                // The poller will queue its own `Runnable`; the waker's reference goes.
                ((current | SCHEDULED) - REF_ONE, ToScheduled::Nothing)
            } else {
                // The waker's reference becomes the `Runnable`'s.
                (current | SCHEDULED, ToScheduled::Queue)
            }
        })
    }

    /// A wake that keeps the waker. See [`State::wake_by_val`] for why it always writes.
    #[inline]
    pub(crate) fn wake_by_ref(&self) -> ToScheduled {
        self.transition(|current| {
            if current & (COMPLETE | SCHEDULED) != 0 {
                (current, ToScheduled::Nothing)
            } else if current & RUNNING != 0 {
                (current | SCHEDULED, ToScheduled::Nothing)
            } else {
                ((current | SCHEDULED) + REF_ONE, ToScheduled::Queue)
            }
        })
    }

    /// Abort from any thread. `Queue` means that the task was parked and must run once more to be
    /// cancelled.
    pub(crate) fn abort(&self) -> ToScheduled {
        self.transition(|current| {
            if current & (COMPLETE | CANCELLED) != 0 {
                (current, ToScheduled::Nothing)
            } else if current & (RUNNING | SCHEDULED) != 0 {
                (current | CANCELLED, ToScheduled::Nothing)
            } else {
                (
                    (current | CANCELLED | SCHEDULED) + REF_ONE,
                    ToScheduled::Queue,
                )
            }
        })
    }

    /// Shutdown, by a registry walker that holds a reference: true gives it the right to the
    /// future (RUNNING), which it must drop and complete; the walker's reference then counts as
    /// the `Runnable`'s. False: the task is complete, or its poller will see CANCELLED.
    #[must_use]
    pub(crate) fn shut_down(&self) -> bool {
        self.transition(|current| {
            if current & COMPLETE != 0 {
                (current, false)
            } else if current & RUNNING != 0 {
                (current | CANCELLED, false)
            } else {
                (current | CANCELLED | RUNNING, true)
            }
        })
    }

    /// `_Grunning` → `_Gdead`; the output, or nothing, stands in the future's place.
    #[inline]
    pub(crate) fn complete(&self) -> Completed {
        // The right to RUNNING is ours, so it is set, and COMPLETE is not: one xor does both.
        let before = self.0.fetch_xor(RUNNING | COMPLETE, AcqRel);
        debug_assert!(before & RUNNING != 0 && before & COMPLETE == 0);
        Completed {
            drop_output: before & JOIN_INTEREST == 0,
            wake_join: before & (JOIN_INTEREST | JOIN_WAKER) == JOIN_INTEREST | JOIN_WAKER,
        }
    }

    /// The completer has woken the join waker and gives the slot back. True: the `JoinHandle` is
    /// gone meanwhile, so the completer must empty the slot.
    #[must_use]
    pub(crate) fn release_join_waker(&self) -> bool {
        let before = self.0.fetch_and(!JOIN_WAKER, AcqRel);
        debug_assert!(before & COMPLETE != 0 && before & JOIN_WAKER != 0);
        before & JOIN_INTEREST == 0
    }

    /// The `JoinHandle` has filled the slot and gives it to the completer. False: the task
    /// completed first; the slot is still the handle's, and the output is there.
    ///
    /// | JOIN_WAKER | COMPLETE | the slot belongs to |
    /// |---|---|---|
    /// | 0 | 0 | the `JoinHandle` (fill, replace) |
    /// | 1 | 0 | both may read it, nobody may write it |
    /// | 1 | 1 | the completer, until `release_join_waker` |
    /// | 0 | 1 | the `JoinHandle`, or the completer if the handle is gone |
    #[must_use]
    pub(crate) fn set_join_waker(&self) -> bool {
        self.transition(|current| {
            debug_assert!(current & JOIN_INTEREST != 0 && current & JOIN_WAKER == 0);
            if current & COMPLETE != 0 {
                (current, false)
            } else {
                (current | JOIN_WAKER, true)
            }
        })
    }

    /// The `JoinHandle` wants the slot back to replace the waker. False: the task completed
    /// first, the output is there.
    #[must_use]
    pub(crate) fn unset_join_waker(&self) -> bool {
        self.transition(|current| {
            debug_assert!(current & JOIN_INTEREST != 0);
            if current & COMPLETE != 0 {
                (current, false)
            } else {
                (current & !JOIN_WAKER, true)
            }
        })
    }

    /// Drops the `JoinHandle` of a task that nobody has touched yet: the usual case of a handle
    /// that `spawn`'s caller does not keep.
    #[inline]
    #[must_use]
    pub(crate) fn drop_join_handle_fast(&self) -> bool {
        // Release: nothing of the task was touched; Relaxed failure: the slow way loads again.
        self.0
            .compare_exchange(
                INITIAL,
                (INITIAL & !JOIN_INTEREST) - REF_ONE,
                Release,
                Relaxed,
            )
            .is_ok()
    }

    /// The `JoinHandle` goes. Its reference stays the caller's to drop, after it has done what
    /// the result asks for.
    pub(crate) fn drop_join_handle(&self) -> JoinDropped {
        self.transition(|current| {
            debug_assert!(current & JOIN_INTEREST != 0);
            let complete = current & COMPLETE != 0;
            let mut next = current & !JOIN_INTEREST;
            if !complete {
                // Takes the slot back: the completer will not look without JOIN_INTEREST.
                next &= !JOIN_WAKER;
            }
            let drop_waker = next & JOIN_WAKER == 0;
            (
                next,
                JoinDropped {
                    drop_output: complete,
                    drop_waker,
                },
            )
        })
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.0.load(Acquire) & COMPLETE != 0
    }

    /// Whether the slot is lent to the completer; for the `JoinHandle` only, which alone sets it.
    pub(crate) fn has_join_waker(&self) -> bool {
        self.0.load(Acquire) & JOIN_WAKER != 0
    }

    /// A further reference, made from a live one.
    #[inline]
    pub(crate) fn add_ref(&self) {
        let before = self.0.fetch_add(REF_ONE, Relaxed);
        if before > REF_MAX {
            std::process::abort();
        }
    }

    /// A reference for a registry walker, which owns none yet: only a non-zero count can grow, so
    /// a free cell stays free.
    ///
    /// Acquire pairs with `init`.
    #[must_use]
    pub(crate) fn try_ref(&self) -> bool {
        let mut current = self.0.load(Relaxed);
        loop {
            if current < REF_ONE {
                return false;
            }
            match self
                .0
                .compare_exchange_weak(current, current + REF_ONE, Acquire, Relaxed)
            {
                Ok(_) => return true,
                Err(actual) => current = actual,
            }
        }
    }

    /// Drops `count` references; true: they were the last, the caller frees the cell.
    #[inline]
    #[must_use]
    pub(crate) fn drop_refs(&self, count: usize) -> bool {
        let before = self.0.fetch_sub(count * REF_ONE, AcqRel);
        debug_assert!(before >= count * REF_ONE);
        before - count * REF_ONE < REF_ONE
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::facade::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    const SEQ_CST: loom::sync::atomic::Ordering = loom::sync::atomic::Ordering::SeqCst;

    /// A task as a model: the stage and the waker slot are cells that loom watches, the counters
    /// are what must come out right.
    struct Model {
        state: State,
        /// The future or the output: touched by whoever the state says.
        stage: UnsafeCell<Stage>,
        /// The join waker's slot.
        slot: UnsafeCell<bool>,
        /// `Runnable`s that wait to be taken.
        queued: AtomicUsize,
        polls: AtomicUsize,
        futures_dropped: AtomicUsize,
        outputs_dropped: AtomicUsize,
        join_wakes: AtomicUsize,
        freed: AtomicUsize,
    }

    #[derive(PartialEq, Debug)]
    enum Stage {
        Future,
        Output,
        Empty,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                state: State::new(),
                stage: UnsafeCell::new(Stage::Future),
                slot: UnsafeCell::new(false),
                queued: AtomicUsize::new(1),
                polls: AtomicUsize::new(0),
                futures_dropped: AtomicUsize::new(0),
                outputs_dropped: AtomicUsize::new(0),
                join_wakes: AtomicUsize::new(0),
                freed: AtomicUsize::new(0),
            })
        }

        fn stage(&self, from: Stage, to: Stage) {
            // SAFETY: the thing to be shown: loom reports an access that is not ordered.
            self.stage.with_mut(|stage| unsafe {
                assert_eq!(*stage, from);
                *stage = to;
            });
        }

        fn free(&self) {
            // SAFETY: as above; touching both shows that all uses come before.
            self.stage
                .with_mut(|stage| unsafe { *stage = Stage::Empty });
            // SAFETY: as above.
            self.slot.with_mut(|slot| unsafe { *slot = false });
            assert_eq!(self.freed.fetch_add(1, SEQ_CST), 0, "freed once");
        }

        fn scheduled(&self, result: ToScheduled) {
            match result {
                ToScheduled::Queue => {
                    let before = self.queued.fetch_add(1, SEQ_CST);
                    assert_eq!(before, 0, "one Runnable at a time");
                }
                ToScheduled::Nothing => {}
                ToScheduled::Free => self.free(),
            }
        }

        fn drop_ref(&self) {
            if self.state.drop_refs(1) {
                self.free();
            }
        }

        fn cancel(&self) {
            self.stage(Stage::Future, Stage::Empty);
            self.futures_dropped.fetch_add(1, SEQ_CST);
            self.complete();
        }

        fn complete(&self) {
            self.stage(Stage::Empty, Stage::Output);
            let completed = self.state.complete();
            if completed.drop_output {
                self.stage(Stage::Output, Stage::Empty);
                self.outputs_dropped.fetch_add(1, SEQ_CST);
            } else if completed.wake_join {
                // SAFETY: JOIN_WAKER lends the slot.
                self.slot.with_mut(|slot| assert!(unsafe { *slot }));
                self.join_wakes.fetch_add(1, SEQ_CST);
                if self.state.release_join_waker() {
                    // SAFETY: the handle is gone.
                    self.slot.with_mut(|slot| unsafe { *slot = false });
                }
            }
            if self.state.drop_refs(2) {
                self.free();
            }
        }

        /// An M: takes the `Runnable` if there is one and runs it; the future is ready at poll
        /// `ready_at` and is told by `waker` how to behave before.
        fn run(&self, ready_at: usize) -> bool {
            if self.queued.load(SEQ_CST) == 0 {
                return false;
            }
            assert_eq!(self.queued.fetch_sub(1, SEQ_CST), 1);
            match self.state.to_running() {
                ToRunning::Nothing => {}
                ToRunning::Free => self.free(),
                ToRunning::Cancel => self.cancel(),
                ToRunning::Poll => {
                    self.stage(Stage::Future, Stage::Future);
                    if self.polls.fetch_add(1, SEQ_CST) + 1 >= ready_at {
                        self.stage(Stage::Future, Stage::Empty);
                        self.futures_dropped.fetch_add(1, SEQ_CST);
                        self.complete();
                    } else {
                        match self.state.to_parked(false) {
                            ToParked::Parked => {}
                            ToParked::Reschedule => self.scheduled(ToScheduled::Queue),
                            ToParked::Cancel => self.cancel(),
                        }
                    }
                }
            }
            true
        }

        /// One poll of the `JoinHandle`, as in `join.rs`; true with the output in hand.
        fn poll_join(&self) -> bool {
            if !self.state.is_complete() {
                if self.state.has_join_waker() && !self.state.unset_join_waker() {
                    return self.take_output();
                }
                // SAFETY: JOIN_WAKER is unset and the task was not complete: ours.
                self.slot.with_mut(|slot| unsafe { *slot = true });
                if self.state.set_join_waker() {
                    return false;
                }
                // SAFETY: still ours.
                self.slot.with_mut(|slot| unsafe { *slot = false });
            }
            self.take_output()
        }

        fn take_output(&self) -> bool {
            self.stage(Stage::Output, Stage::Empty);
            self.outputs_dropped.fetch_add(1, SEQ_CST);
            true
        }

        fn drop_join(&self, has_output: bool) {
            if self.state.drop_join_handle_fast() {
                return;
            }
            let dropped = self.state.drop_join_handle();
            if dropped.drop_output && !has_output {
                self.stage(Stage::Output, Stage::Empty);
                self.outputs_dropped.fetch_add(1, SEQ_CST);
            }
            if dropped.drop_waker {
                // SAFETY: the slot is the handle's.
                self.slot.with_mut(|slot| unsafe { *slot = false });
            }
            self.drop_ref();
        }

        /// What must hold when every thread is done and every `Runnable` has been run.
        fn check(&self) {
            assert_eq!(self.queued.load(SEQ_CST), 0);
            assert_eq!(
                self.futures_dropped.load(SEQ_CST),
                1,
                "the future is dropped once"
            );
            assert_eq!(
                self.outputs_dropped.load(SEQ_CST),
                1,
                "the output goes to one place"
            );
            assert_eq!(self.freed.load(SEQ_CST), 1, "the cell is freed");
        }
    }

    /// A waker, cloned during the first poll, is woken by value while the `JoinHandle` is polled
    /// and dropped, and an M runs what is queued.
    #[test]
    fn loom_state_wake_join() {
        loom::model(|| {
            let model = Model::new();
            // The first poll keeps a waker, then parks.
            assert!({
                model.state.add_ref();
                model.run(2)
            });
            let waker = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    let result = model.state.wake_by_val();
                    model.scheduled(result);
                    model.run(2);
                })
            };
            let joined = model.poll_join();
            model.drop_join(joined);
            waker.join().unwrap();
            while model.run(2) {}
            model.check();
        });
    }

    /// Abort against a poll that is about to park and a wake by reference.
    #[test]
    fn loom_state_abort_run_wake() {
        loom::model(|| {
            let model = Model::new();
            model.state.add_ref();
            let runner = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    model.run(2);
                })
            };
            let waker = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    let result = model.state.wake_by_ref();
                    model.scheduled(result);
                    model.drop_ref();
                })
            };
            let result = model.state.abort();
            model.scheduled(result);
            runner.join().unwrap();
            waker.join().unwrap();
            while model.run(2) {}
            assert!(model.state.is_complete(), "an aborted task ends");
            model.drop_join(false);
            model.check();
        });
    }

    /// Shutdown's walker against an M that polls and a `JoinHandle` that waits.
    #[test]
    fn loom_state_shutdown_run_join() {
        loom::model(|| {
            let model = Model::new();
            let runner = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    model.run(2);
                })
            };
            let walker = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    if model.state.try_ref() {
                        if model.state.shut_down() {
                            model.cancel();
                        } else {
                            model.drop_ref();
                        }
                    }
                })
            };
            let joined = model.poll_join();
            runner.join().unwrap();
            walker.join().unwrap();
            while model.run(2) {}
            let joined = joined || {
                assert!(model.state.is_complete(), "a cancelled task ends");
                model.poll_join()
            };
            model.drop_join(joined);
            model.check();
        });
    }

    /// Completion against the `JoinHandle` that replaces its waker, and is dropped.
    #[test]
    fn loom_state_complete_rewake() {
        loom::model(|| {
            let model = Model::new();
            let mut joined = model.poll_join();
            assert!(!joined);
            let runner = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    model.run(1);
                })
            };
            joined = model.poll_join();
            model.drop_join(joined);
            runner.join().unwrap();
            model.check();
        });
    }
}
