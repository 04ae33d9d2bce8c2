//! Time: waiting for a moment, at most for a while, or at a regular period.
//!
//! - [`sleep()`] and [`sleep_until`] wait.
//! - [`timeout()`] and [`timeout_at`] give a future a limit.
//! - [`interval()`] and [`interval_at`] tick.
//!
//! All of them need a runtime with timers (`Builder::enable_time` or `Builder::enable_all`) at the
//! place where they are called; the future may then be polled anywhere, also by another executor.
//! A timer never fires early. It fires through the runtime it was made in, so if that shuts down
//! first, polling the future panics.
//!
//! # Inside
//!
//! Each P has a queue of timers (`queue.rs`), a 4-ary heap (`heap.rs`) under a lock of its own, and
//! fires what is due when it looks for work; other Ps fire it when that P is busy. `driver.rs` holds
//! the queues of a runtime together and sees to it that the M that sleeps in netpoll wakes in time.
//! A sleep registers at its first poll with the queue of the P on which it was made.

pub(crate) mod driver;
pub mod error;
mod heap;
mod instant;
#[cfg(not(loom))]
mod interval;
mod queue;
#[cfg(not(loom))]
mod sleep;
#[cfg(not(loom))]
mod timeout;

pub use instant::Instant;
#[cfg(not(loom))]
pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
#[cfg(not(loom))]
pub use sleep::{Sleep, sleep, sleep_until};
#[doc(no_inline)]
pub use std::time::Duration;
#[cfg(not(loom))]
pub use timeout::{Timeout, timeout, timeout_at};

/// Some 30 years, tokio's bound: `Instant::now() + duration` cannot overflow up to there, and
/// nobody can tell it from for ever.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// `duration`, but not more than can be added to any present instant.
fn reasonable(duration: Duration) -> Duration {
    duration.min(FAR_FUTURE)
}

#[cfg(all(test, not(loom)))]
const _: () = {
    const fn thread_safe<T: Send + Sync>() {}
    const fn unpin<T: Unpin>() {}
    // As tokio's: services hold these in tasks that move between threads.
    thread_safe::<Sleep>();
    thread_safe::<Interval>();
    thread_safe::<Timeout<()>>();
    thread_safe::<driver::Timers>();
    unpin::<Interval>();
};
