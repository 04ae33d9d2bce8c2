//! The reactor: one epoll instance (through mio) a runtime, and the readiness of its sockets.
//!
//! As in Go, no thread of its own runs it. An M that finds no work asks it without waiting, and
//! one idle M at a time blocks in it: [`Netpoll::try_lock`] gives the [`Poller`], which is the
//! right to poll, and [`Netpoll::wake`] interrupts whoever blocks with it.
//!
//! ```text
//!   socket ── Registration ── Arc<ScheduledIo> ◀── slot ── Registrations ◀── token ── epoll event
//!                  │            readiness word       index and generation               │
//!                  └──────────▶ waiters: reader, writer, list ◀── wakers gathered ── Poller::poll
//! ```
//!
//! Files: `poll` owns the epoll instance and the poll lock, `wakeup` decides who writes the
//! eventfd, `timerfd` makes timeouts exact, `slots` maps tokens to sockets, `readiness` holds a socket's state and its waiters,
//! `registration` is what `net` builds sockets from.
//!
//! # Life cycle
//!
//! A registration is a slot (index and generation, both in its token), then an `epoll_ctl` ADD.
//! Dropping it deletes it from epoll, then frees the slot; an event that was already fetched finds
//! the slot empty or its generation changed and is dropped. A registration keeps its netpoll alive,
//! so that it may be dropped on any thread and after the runtime. [`Netpoll::shutdown`] empties
//! the slots and marks every socket: what waits on one is woken, and it and all later waits get an
//! error.
//!
//! # Locks
//!
//! In this order, each held while the next is taken, never the other way round:
//!
//! 1. the poll lock (only ever try-locked), held while an M polls and gathers wakers;
//! 2. the registrations lock, held for a few dozen events at a time;
//! 3. the waiters lock of one socket.
//!
//! No user code runs under any of them. Wakers are user code: they are cloned before and dropped
//! or woken after the lock, and gathered in a [`WakeList`](crate::wake_list::WakeList) in between;
//! the caller of [`Poller::poll`] wakes them when it has dropped the poller. A socket's last
//! reference, which may own wakers, is likewise dropped after the registrations lock.

mod poll;
mod readiness;
mod registration;
mod slots;
mod timerfd;
mod wakeup;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use poll::{Netpoll, Poller};
pub(crate) use registration::{Progress, Registration};

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, poisoned or not: no user code runs under netpoll's locks, and none of the states they
/// guard is ever left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every wait on a socket gets once its runtime has shut down.
fn shut_down_error() -> io::Error {
    io::Error::other(
        "the runtime that drives this socket is shutting down or gone, so its readiness is no \
         longer reported: use the socket within the life of the runtime that made it, or move it \
         to another one with into_std and from_std",
    )
}
