//! The readiness of one socket, and who waits for it.
//!
//! epoll is edge-triggered: it reports that a socket *became* ready, once. So readiness is
//! remembered here until an operation finds that it would block.
//!
//! # The word
//!
//! | bits | content                                                             |
//! |------|---------------------------------------------------------------------|
//! | 0-5  | [`Ready`]                                                           |
//! | 7    | the runtime has shut down; set once, never cleared                  |
//! | 8-   | tick: the number of events so far (wraps, after 2^24 at the least)  |
//!
//! An operation reads ready bits and tick, makes its system call, and on `WouldBlock` clears the
//! bits *if the tick is still the same*: an event that came in between the two is newer than the
//! `WouldBlock` and must not be wiped out. The closed bits are final and never cleared.
//!
//! # Waiting
//!
//! The poll methods (`AsyncRead`, `poll_accept` and so on) have one slot a direction, and the last
//! waker left there counts, as their documentation says. Futures (`readable().await`) enter a list,
//! each with its own interest, and leave it when they are dropped.
//!
//! A waiter leaves its waker under the lock and then looks at the word once more. The poller sets
//! the word first and takes the wakers under the lock second. Whichever of the two critical
//! sections comes first, the waiter sees the bits or the poller sees the waker.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire},
};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::{lock, shut_down_error};
use crate::io::{Interest, Ready};
use crate::wake_list::WakeList;

const SHUT_DOWN: usize = 1 << 7;
/// One tick; what is above it is the tick.
const TICK: usize = 1 << 8;

const _: () = assert!(Ready::ALL.bits() < SHUT_DOWN);

/// A socket's readiness and its waiters.
///
/// Not padded to a cache line: it is touched by the M that polls and the M that runs the socket's
/// task, seldom at once, and with many sockets memory is what counts.
#[derive(Debug, Default)]
pub(crate) struct ScheduledIo {
    word: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    reader: Option<Waker>,
    writer: Option<Waker>,
    list: Slab<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    interest: Interest,
    /// None once woken; the entry stays until its future takes it out.
    waker: Option<Waker>,
}

/// Which of the two slots a poll method uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    fn mask(self) -> Ready {
        match self {
            Direction::Read => Interest::READABLE.mask(),
            Direction::Write => Interest::WRITABLE.mask(),
        }
    }
}

/// Readiness as it was seen at one moment: what [`ScheduledIo::clear`] needs to clear no more than
/// that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyEvent {
    pub(crate) ready: Ready,
    tick: usize,
}

impl ScheduledIo {
    /// What of `mask` is ready now. Pending if nothing is, an error after shutdown.
    fn look(&self, mask: Ready) -> Poll<io::Result<ReadyEvent>> {
        // Acquire: pairs with the AcqRel updates below. It also keeps the system call that the
        // caller makes next behind this load: were the tick read after it, `clear` could wipe out
        // an event that the call has not seen.
        let word = self.word.load(Acquire);
        if word & SHUT_DOWN != 0 {
            return Poll::Ready(Err(shut_down_error()));
        }
        let ready = Ready::from_bits(word) & mask;
        if ready.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(ReadyEvent {
            ready,
            tick: word & !(TICK - 1),
        }))
    }

    /// What is ready for `interest`, for an operation that does not wait. What epoll reported
    /// before the shutdown still counts after it, so that a last `try_write` goes through.
    pub(super) fn try_ready(&self, interest: Interest) -> io::Result<ReadyEvent> {
        // Acquire: as in `look`.
        let word = self.word.load(Acquire);
        let ready = Ready::from_bits(word) & interest.mask();
        if !ready.is_empty() {
            let tick = word & !(TICK - 1);
            return Ok(ReadyEvent { ready, tick });
        }
        Err(match word & SHUT_DOWN {
            0 => io::ErrorKind::WouldBlock.into(),
            // WouldBlock would be a lie: it never becomes ready again.
            _ => shut_down_error(),
        })
    }

    /// Waits in the slot of `direction`: of several tasks that wait there, the last is woken.
    pub(super) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<ReadyEvent>> {
        let mask = direction.mask();
        if let ready @ Poll::Ready(_) = self.look(mask) {
            return ready;
        }
        let waker = cx.waker().clone();
        let replaced = {
            let mut waiters = lock(&self.waiters);
            match direction {
                Direction::Read => waiters.reader.replace(waker),
                Direction::Write => waiters.writer.replace(waker),
            }
        };
        drop(replaced);
        // The second look (module docs). The lock is free again: the poller's critical section,
        // if it came before ours, has been acquired by ours, and its bits with it.
        self.look(mask)
    }

    /// Waits for `interest` beside any number of others.
    pub(super) fn ready(&self, interest: Interest) -> WaitReady<'_> {
        WaitReady {
            io: self,
            interest,
            key: None,
        }
    }

    /// Forgets the readiness in `event`, except what is final, unless a newer event has come.
    pub(super) fn clear(&self, event: ReadyEvent) {
        let gone = event.ready - Ready::READ_CLOSED - Ready::WRITE_CLOSED;
        // AcqRel: Release keeps the system call that found WouldBlock before the update. Both pair
        // with the other updates of the word and the load in `look`.
        let _ = self.word.fetch_update(AcqRel, Acquire, |word| {
            (word & !(TICK - 1) == event.tick).then_some(word & !gone.bits())
        });
    }

    /// Believes it ready without an event (a fresh socket nearly always is). Not a tick: an
    /// operation that finds otherwise may clear it.
    pub(super) fn assume_ready(&self, ready: Ready) {
        // AcqRel: pairs with the load in `look`.
        self.word.fetch_or(ready.bits(), AcqRel);
    }

    /// Takes note of an event, and moves the wakers of those who wait for it to `woken`.
    pub(super) fn dispatch(&self, ready: Ready, woken: &mut WakeList) {
        // AcqRel: pairs with the load in `look` and the update in `clear`.
        let _ = self.word.fetch_update(AcqRel, Acquire, |word| {
            Some((word | ready.bits()).wrapping_add(TICK))
        });
        self.take_wakers(ready, woken);
    }

    /// Ends all waiting for good.
    pub(super) fn shut_down(&self, woken: &mut WakeList) {
        // AcqRel: pairs with the loads in `look` and `try_ready`.
        self.word.fetch_or(SHUT_DOWN, AcqRel);
        self.take_wakers(Ready::ALL, woken);
    }

    fn take_wakers(&self, ready: Ready, woken: &mut WakeList) {
        let mut guard = lock(&self.waiters);
        let waiters = &mut *guard;
        if ready.is_readable() {
            waiters
                .reader
                .take()
                .into_iter()
                .for_each(|w| woken.push(w));
        }
        if ready.is_writable() {
            waiters
                .writer
                .take()
                .into_iter()
                .for_each(|w| woken.push(w));
        }
        for (_, waiter) in &mut waiters.list {
            if !(ready & waiter.interest.mask()).is_empty() {
                waiter.waker.take().into_iter().for_each(|w| woken.push(w));
            }
        }
    }

    /// Drops the wakers in the slots: they may keep alive the very task that owns the socket.
    pub(super) fn clear_wakers(&self) {
        let (reader, writer) = {
            let mut waiters = lock(&self.waiters);
            (waiters.reader.take(), waiters.writer.take())
        };
        drop((reader, writer));
    }
}

/// The future of [`ScheduledIo::ready`].
#[derive(Debug)]
pub(super) struct WaitReady<'a> {
    io: &'a ScheduledIo,
    interest: Interest,
    /// The entry in the list, once it waits.
    key: Option<usize>,
}

impl Future for WaitReady<'_> {
    type Output = io::Result<ReadyEvent>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (io, interest) = (self.io, self.interest);
        if let ready @ Poll::Ready(_) = io.look(interest.mask()) {
            return ready;
        }
        let waker = Some(cx.waker().clone());
        let replaced = {
            let list = &mut lock(&io.waiters).list;
            match self.key {
                Some(key) => std::mem::replace(&mut list[key].waker, waker),
                None => {
                    self.key = Some(list.insert(Waiter { interest, waker }));
                    None
                }
            }
        };
        drop(replaced);
        // The second look, as in `ScheduledIo::poll_ready`.
        io.look(interest.mask())
    }
}

impl Drop for WaitReady<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waiter = lock(&self.io.waiters).list.remove(key);
            drop(waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Release};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Acquire)
        }
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, AcqRel);
        }
    }

    fn dispatch(io: &ScheduledIo, ready: Ready) {
        let mut woken = WakeList::new();
        io.dispatch(ready, &mut woken);
        woken.wake_all();
    }

    fn counter() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    #[test]
    fn an_event_between_look_and_clear_survives() {
        let io = ScheduledIo::default();
        dispatch(&io, Ready::READABLE);
        let old = io.try_ready(Interest::READABLE).unwrap();
        dispatch(&io, Ready::READABLE);
        io.clear(old);
        let new = io.try_ready(Interest::READABLE).expect("newer than old");
        io.clear(new);
        let err = io.try_ready(Interest::READABLE).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn closed_is_final_and_the_other_direction_untouched() {
        let io = ScheduledIo::default();
        dispatch(&io, Ready::READABLE | Ready::READ_CLOSED | Ready::WRITABLE);
        io.clear(io.try_ready(Interest::READABLE).unwrap());
        let read = io.try_ready(Interest::READABLE).unwrap();
        assert_eq!(read.ready, Ready::READ_CLOSED);
        let write = io.try_ready(Interest::WRITABLE).unwrap();
        assert_eq!(write.ready, Ready::WRITABLE);
    }

    #[test]
    fn ticks_wrap_without_touching_the_flags() {
        let io = ScheduledIo {
            word: AtomicUsize::new(!(TICK - 1) | Ready::WRITABLE.bits()),
            ..ScheduledIo::default()
        };
        let old = io.try_ready(Interest::WRITABLE).unwrap();
        dispatch(&io, Ready::READABLE);
        assert_eq!(
            io.word.load(Acquire),
            (Ready::WRITABLE | Ready::READABLE).bits()
        );
        io.clear(old);
        assert!(io.try_ready(Interest::WRITABLE).is_ok());
    }

    #[test]
    fn each_waiter_is_woken_for_its_own_interest_only() {
        let io = ScheduledIo::default();
        let (reads, read_waker) = counter();
        let (writes, write_waker) = counter();
        let mut read_cx = Context::from_waker(&read_waker);
        let mut write_cx = Context::from_waker(&write_waker);
        let mut readable = pin!(io.ready(Interest::READABLE));
        let mut writable = pin!(io.ready(Interest::WRITABLE));
        assert!(readable.as_mut().poll(&mut read_cx).is_pending());
        assert!(writable.as_mut().poll(&mut write_cx).is_pending());
        assert!(io.poll_ready(&mut read_cx, Direction::Read).is_pending());

        dispatch(&io, Ready::READABLE);
        assert_eq!(reads.get(), 2, "the slot and the list");
        assert_eq!(writes.get(), 0);
        assert!(readable.as_mut().poll(&mut read_cx).is_ready());
        assert!(writable.as_mut().poll(&mut write_cx).is_pending());

        dispatch(&io, Ready::WRITABLE);
        assert_eq!((reads.get(), writes.get()), (2, 1));
    }

    #[test]
    fn a_woken_waiter_whose_event_was_used_by_another_waits_again() {
        let io = ScheduledIo::default();
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        let mut readable = pin!(io.ready(Interest::READABLE));
        assert!(readable.as_mut().poll(&mut cx).is_pending());
        dispatch(&io, Ready::READABLE);
        io.clear(io.try_ready(Interest::READABLE).unwrap());
        assert!(readable.as_mut().poll(&mut cx).is_pending());
        dispatch(&io, Ready::READABLE);
        assert_eq!(count.get(), 2);
        assert!(readable.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let io = ScheduledIo::default();
        let (count, waker) = counter();
        {
            let mut readable = pin!(io.ready(Interest::READABLE));
            let mut cx = Context::from_waker(&waker);
            assert!(readable.as_mut().poll(&mut cx).is_pending());
        }
        assert!(lock(&io.waiters).list.is_empty());
        dispatch(&io, Ready::READABLE);
        assert_eq!(count.get(), 0);
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn shutdown_wakes_all_and_outlasts_clear() {
        let io = ScheduledIo::default();
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        assert!(io.poll_ready(&mut cx, Direction::Read).is_pending());
        assert!(io.poll_ready(&mut cx, Direction::Write).is_pending());
        let mut error = pin!(io.ready(Interest::ERROR));
        assert!(error.as_mut().poll(&mut cx).is_pending());
        dispatch(&io, Ready::WRITABLE);
        let seen = io.try_ready(Interest::WRITABLE).unwrap();

        let mut woken = WakeList::new();
        io.shut_down(&mut woken);
        woken.wake_all();
        assert_eq!(count.get(), 3);
        assert!(matches!(error.poll(&mut cx), Poll::Ready(Err(_))));

        assert!(io.try_ready(Interest::WRITABLE).is_ok());
        io.clear(seen);
        let err = io.try_ready(Interest::WRITABLE).unwrap_err();
        assert_ne!(err.kind(), io::ErrorKind::WouldBlock);
        assert!(matches!(
            io.poll_ready(&mut cx, Direction::Write),
            Poll::Ready(Err(_))
        ));
    }

    /// The second look: a waiter that registers just as the event comes is woken or sees it.
    #[test]
    fn a_wait_that_races_with_its_event_is_never_lost() {
        const ROUNDS: usize = 20_000;
        let sockets: Vec<_> = (0..ROUNDS).map(|_| ScheduledIo::default()).collect();
        let mut lost = 0;
        // The round that each side has reached; the other one waits for it, so that they collide.
        let (waiting, dispatching) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let meet = |mine: &AtomicUsize, other: &AtomicUsize, round: usize| {
            mine.store(round, Release);
            while other.load(Acquire) < round {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (round, io) in sockets.iter().enumerate() {
                    meet(&dispatching, &waiting, round);
                    dispatch(io, Ready::READABLE);
                }
                dispatching.store(ROUNDS, Release);
            });
            for (round, io) in sockets.iter().enumerate() {
                let (slot_woken, slot_waker) = counter();
                let (list_woken, list_waker) = counter();
                let mut slot_cx = Context::from_waker(&slot_waker);
                let mut list_cx = Context::from_waker(&list_waker);
                let mut listed = pin!(io.ready(Interest::READABLE));
                meet(&waiting, &dispatching, round);
                // Which of the two meets the event, and where, changes from round to round.
                for i in 0..round / 2 % 200 {
                    std::hint::black_box(i);
                }
                let (mut slot_waits, mut list_waits) = (false, false);
                for list in [round % 2 == 0, round % 2 != 0] {
                    if list {
                        list_waits = listed.as_mut().poll(&mut list_cx).is_pending();
                    } else {
                        slot_waits = io.poll_ready(&mut slot_cx, Direction::Read).is_pending();
                    }
                }
                while dispatching.load(Acquire) <= round {
                    std::thread::yield_now();
                }
                lost += usize::from(slot_waits && slot_woken.get() == 0);
                lost += usize::from(list_waits && list_woken.get() == 0);
            }
        });
        // Only now: a panic in there would leave the other thread waiting.
        assert_eq!(lost, 0);
    }

    /// A waker that looks at the socket from its clone, drop and wake: it would hang if one of them
    /// ran under the waiters lock.
    #[test]
    fn wakers_run_without_the_lock() {
        struct Reenter(Arc<ScheduledIo>);
        impl Drop for Reenter {
            fn drop(&mut self) {
                drop(self.0.waiters.try_lock().expect("dropped under the lock"));
            }
        }
        impl Wake for Reenter {
            fn wake(self: Arc<Self>) {
                drop(self.0.waiters.try_lock().expect("woken under the lock"));
            }
        }
        let io = Arc::new(ScheduledIo::default());
        for ready in [Ready::EMPTY, Ready::READABLE] {
            io.clear(ReadyEvent {
                ready: Ready::READABLE,
                tick: 0,
            });
            for _ in 0..2 {
                let waker = Waker::from(Arc::new(Reenter(io.clone())));
                let mut cx = Context::from_waker(&waker);
                let _ = io.poll_ready(&mut cx, Direction::Read);
                let mut wait = pin!(io.ready(Interest::READABLE));
                let _ = wait.as_mut().poll(&mut cx);
            }
            dispatch(&io, ready);
        }
        io.clear_wakers();
        assert_eq!(Arc::strong_count(&io), 1, "all wakers dropped");
    }
}
