//! [`Timeout`]: a future with a deadline.

use super::error::Elapsed;
use super::{Duration, Instant, Sleep, sleep_until};
use pin_project_lite::pin_project;
use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::task::coop;

/// Gives `future` at most `duration` to complete.
///
/// Returns the future's output, or [`Elapsed`] if the time is up first; the future is then dropped
/// with the `Timeout`. Every poll goes to the future first and to the clock second: a future that
/// is ready at once succeeds whatever the duration, and one that does not yield can take longer
/// than it was given and succeed.
///
/// A duration that reaches beyond what the clock can represent is no limit.
///
/// # Cancellation
///
/// Drop the `Timeout`, which drops the future; [`Timeout::into_inner`] saves it.
///
/// # Panics
///
/// As [`sleep`](super::sleep()): if it is called outside of a runtime that has timers.
///
/// # Examples
///
/// ```no_run
/// use gort::time::{Duration, timeout};
/// use tokio::sync::oneshot;
///
/// # async fn example(answer: oneshot::Receiver<u32>) {
/// match timeout(Duration::from_millis(10), answer).await {
///     Ok(answer) => println!("in time: {answer:?}"),
///     Err(elapsed) => println!("too late: {elapsed}"),
/// }
/// # }
/// ```
#[track_caller]
pub fn timeout<F>(duration: Duration, future: F) -> Timeout<F::IntoFuture>
where
    F: IntoFuture,
{
    #[expect(
        clippy::manual_map,
        reason = "a closure would hide the caller's place from a panic in `sleep_until`"
    )]
    let delay = match Instant::now().checked_add(duration) {
        Some(deadline) => Some(sleep_until(deadline)),
        None => None,
    };
    Timeout {
        value: future.into_future(),
        delay,
    }
}

/// Gives `future` until `deadline` to complete.
///
/// Everything else is as with [`timeout()`].
///
/// # Panics
///
/// As [`sleep`](super::sleep()): if it is called outside of a runtime that has timers.
#[track_caller]
pub fn timeout_at<F>(deadline: Instant, future: F) -> Timeout<F::IntoFuture>
where
    F: IntoFuture,
{
    Timeout {
        value: future.into_future(),
        delay: Some(sleep_until(deadline)),
    }
}

pin_project! {
    /// The future that [`timeout()`] and [`timeout_at`] return.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct Timeout<T> {
        #[pin]
        value: T,
        // None: the deadline is beyond the clock.
        #[pin]
        delay: Option<Sleep>,
    }
}

impl<T> Timeout<T> {
    /// The future that is given time.
    pub fn get_ref(&self) -> &T {
        &self.value
    }

    /// The future that is given time.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// Takes the future out and forgets the deadline.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T: Future> Future for Timeout<T> {
    type Output = Result<T::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let had_budget = coop::has_budget_remaining();
        if let Poll::Ready(output) = this.value.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match this.delay.as_pin_mut() {
            Some(delay) => poll_delay(delay, had_budget, cx).map(Err),
            None => Poll::Pending,
        }
    }
}

/// Not generic, so that it is compiled once.
fn poll_delay(delay: Pin<&mut Sleep>, had_budget: bool, cx: &mut Context<'_>) -> Poll<Elapsed> {
    let elapsed = if had_budget && !coop::has_budget_remaining() {
        // The future has used up the budget. If the delay had to yield too, a future that does so
        // at every poll would never time out.
        pin!(coop::unconstrained(delay)).poll(cx)
    } else {
        delay.poll(cx)
    };
    elapsed.map(|()| Elapsed::new())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::driver::rig::Rig;
    use super::*;
    use std::future::{pending, poll_fn, ready};

    fn on<F: Future>(rig: &Rig, deadline: Instant, value: F) -> Timeout<F> {
        Timeout {
            value,
            delay: Some(Sleep::on(rig.timers(), 0, deadline)),
        }
    }

    fn poll<F: Future>(future: Pin<&mut F>, rig: &Rig, id: u32) -> Poll<F::Output> {
        let waker = rig.waker(id);
        future.poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn the_future_comes_first() {
        let rig = Rig::new(1);
        let past = Instant::now();
        assert_eq!(
            poll(pin!(on(&rig, past, ready(7))), &rig, 1),
            Poll::Ready(Ok(7))
        );
    }

    #[test]
    fn a_deadline_in_the_past_elapses_at_the_first_poll() {
        let rig = Rig::new(1);
        let mut timeout = pin!(on(&rig, Instant::now(), pending::<()>()));
        let elapsed = poll(timeout.as_mut(), &rig, 1);
        assert_eq!(elapsed, Poll::Ready(Err(Elapsed::new())));
        let error = std::io::Error::from(Elapsed::new());
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn elapses_when_the_timer_fires() {
        let rig = Rig::new(1);
        let mut timeout = pin!(on(&rig, rig.at(2), pending::<()>()));
        assert!(poll(timeout.as_mut(), &rig, 1).is_pending());
        assert!(rig.expire(0, 1).is_empty());
        assert_eq!(rig.expire(0, 2), [1]);
        let elapsed = poll(timeout.as_mut(), &rig, 1);
        assert_eq!(elapsed, Poll::Ready(Err(Elapsed::new())));
    }

    #[test]
    fn into_inner_gives_the_future_back_and_forgets_the_timer() {
        let rig = Rig::new(1);
        let mut timeout = Box::pin(on(&rig, rig.at(2), pending::<()>()));
        assert!(poll(timeout.as_mut(), &rig, 1).is_pending());
        drop(timeout);
        assert_eq!(rig.timers().next_deadline(), None);
        let mut timeout = on(&rig, rig.at(2), ready(3));
        *timeout.get_mut() = ready(4);
        assert_eq!(timeout.get_ref().clone().into_inner(), 4);
        assert_eq!(timeout.into_inner().into_inner(), 4);
    }

    #[test]
    fn a_future_that_uses_up_the_budget_still_times_out() {
        let rig = Rig::new(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let greedy = poll_fn(|cx| {
            while let Poll::Ready(coop) = coop::poll_proceed(cx) {
                coop.made_progress();
            }
            Poll::<()>::Pending
        });
        let mut timeout = pin!(on(&rig, Instant::now(), greedy));
        let mut polls = 0;
        let result = runtime.block_on(poll_fn(|cx| {
            polls += 1;
            timeout.as_mut().poll(cx)
        }));
        assert_eq!((result, polls), (Err(Elapsed::new()), 1));
    }
}
