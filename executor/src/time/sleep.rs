//! [`Sleep`]: a future that waits for a moment.

use super::driver::{Timer, Timers};
use super::error::Error;
use super::{Duration, Instant, reasonable};
use crate::runtime::context;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Waits until `duration` has elapsed: `sleep_until(Instant::now() + duration)`.
///
/// The time counts from this call, not from the first poll. The sleep never ends early; how late
/// it ends depends on how busy the workers are. Nothing runs while it waits. A duration of zero is
/// ready at the first poll, and one of more than 30 years waits for 30 years.
///
/// # Cancellation
///
/// Drop the future. Nothing else is needed.
///
/// # Panics
///
/// If it is called outside of a runtime, or if the runtime has no timers (see
/// `Builder::enable_time`). This is about the call, not about the first poll: outside of a runtime
/// `block_on(sleep(duration))` panics, and `block_on(async { sleep(duration).await })` does not.
///
/// Polling it panics if its runtime has shut down before the time was up.
///
/// # Examples
///
/// ```no_run
/// use gort::time::{Duration, sleep};
///
/// # async fn example() {
/// sleep(Duration::from_millis(100)).await;
/// println!("100 ms are over");
/// # }
/// ```
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + reasonable(duration))
}

/// Waits until `deadline`.
///
/// A deadline that has passed is ready at the first poll. What is said at [`sleep`] about
/// precision, cancellation and panics holds here too.
///
/// # Examples
///
/// ```no_run
/// use gort::time::{Duration, Instant, sleep_until};
///
/// # async fn example() {
/// sleep_until(Instant::now() + Duration::from_millis(100)).await;
/// println!("100 ms are over");
/// # }
/// ```
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    let (timers, queue) = context::timers();
    Sleep::on(timers, queue, deadline)
}

pin_project! {
    /// The future that [`sleep`] and [`sleep_until`] return.
    ///
    /// It is not `Unpin`: to poll it by hand or to use it in `select!` more than once, pin it.
    /// Polled again after it has completed, it is ready again, until it is [reset](Self::reset).
    ///
    /// # Examples
    ///
    /// A deadline that every event pushes back:
    ///
    /// ```no_run
    /// use gort::time::{Duration, Instant, sleep};
    /// use tokio::sync::mpsc::Receiver;
    ///
    /// async fn until_quiet(mut events: Receiver<()>) {
    ///     let quiet = Duration::from_secs(1);
    ///     let idle = sleep(quiet);
    ///     tokio::pin!(idle);
    ///     loop {
    ///         tokio::select! {
    ///             () = &mut idle => return,
    ///             Some(()) = events.recv() => idle.as_mut().reset(Instant::now() + quiet),
    ///         }
    ///     }
    /// }
    /// ```
    #[project(!Unpin)]
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct Sleep {
        deadline: Instant,
        timer: Timer,
    }
}

impl Sleep {
    pub(super) fn on(timers: Arc<Timers>, queue: usize, deadline: Instant) -> Self {
        Self {
            deadline,
            timer: Timer::new(timers, queue),
        }
    }

    /// When the future completes, or did.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the time is up.
    ///
    /// The timer starts at the first poll or [reset](Self::reset): a `Sleep` that was never polled
    /// has not elapsed, even if its deadline has passed.
    pub fn is_elapsed(&self) -> bool {
        self.timer.is_elapsed()
    }

    /// Gives the sleep another deadline, earlier or later, before or after it has completed.
    ///
    /// The timer starts at once. A task that waits for this sleep goes on waiting, for the new
    /// deadline; if that has passed, it is woken.
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        let this = self.project();
        *this.deadline = deadline;
        this.timer.reset(deadline, Instant::now());
    }

    /// As [`reset`](Self::reset), but the timer starts at the next poll.
    pub(super) fn reset_idle(self: Pin<&mut Self>, deadline: Instant) {
        let this = self.project();
        *this.deadline = deadline;
        this.timer.disarm();
    }

    fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        // Out of budget the task yields here, even if the time is up.
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let result = ready!(this.timer.poll(*this.deadline, cx));
        coop.made_progress();
        Poll::Ready(result)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_elapsed(cx)) {
            Ok(()) => Poll::Ready(()),
            // As in tokio: no caller could do anything but give up.
            Err(error) => panic!("sleep failed: {error}"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::driver::rig::{HOUR, Rig};
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;

    #[test]
    fn reset_moves_the_deadline_and_the_timer() {
        let rig = Rig::new(1);
        let mut sleep = pin!(Sleep::on(rig.timers(), 0, rig.at(5)));
        let waker = rig.waker(1);
        let mut cx = Context::from_waker(&waker);
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        sleep.as_mut().reset(rig.at(3));
        assert_eq!(sleep.deadline(), rig.at(3));
        assert_eq!(rig.expire(0, 3), [1]);
        assert!(sleep.is_elapsed());
        assert!(sleep.as_mut().poll(&mut cx).is_ready());
        assert!(sleep.as_mut().poll(&mut cx).is_ready());
        sleep.as_mut().reset(rig.at(9));
        assert!(!sleep.is_elapsed());
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
    }

    #[test]
    fn one_that_was_never_polled_has_not_elapsed() {
        let rig = Rig::new(1);
        let past = Instant::now().checked_sub(HOUR).unwrap();
        let mut sleep = pin!(Sleep::on(rig.timers(), 0, past));
        assert!(!sleep.is_elapsed());
        let waker = rig.waker(1);
        assert!(
            sleep
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        );
        assert!(sleep.is_elapsed());
    }

    #[test]
    #[should_panic(expected = "shut down")]
    fn polled_after_the_shutdown_it_panics() {
        let rig = Rig::new(1);
        rig.shutdown();
        let mut sleep = pin!(Sleep::on(rig.timers(), 0, rig.at(1)));
        let waker = rig.waker(1);
        let _ = sleep.as_mut().poll(&mut Context::from_waker(&waker));
    }

    #[test]
    fn the_budget_makes_it_yield() {
        // A task that only ever waits for what is over must give way to others. tokio's own
        // runtime sets the budget here.
        let rig = Rig::new(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut sleep = pin!(Sleep::on(rig.timers(), 0, Instant::now()));
        let mut in_a_row = 0;
        runtime.block_on(poll_fn(|cx| {
            while sleep.as_mut().poll(cx).is_ready() {
                in_a_row += 1;
                assert!(in_a_row < 10_000, "it never yields");
            }
            Poll::Ready(())
        }));
        assert!(in_a_row > 0);
    }
}
