//! The cooperative budget of tokio's runtime-agnostic half (`sync`, its I/O helpers).
//!
//! Those primitives count how often a task gets something without waiting, and make it yield when
//! the budget of its poll is used up; but only a tokio runtime sets that budget. What the stable
//! API allows an executor: the guard of `coop::poll_proceed` puts the thread's budget back to what
//! it was when the guard was made. So one guard, made once a thread where the budget is full,
//! dropped and made anew before each poll, gives each poll a full budget.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use tokio::task::coop::{self, RestoreOnPending};

/// A thread's budget. Lives on the M that it belongs to.
pub(crate) struct Budget(Cell<Option<RestoreOnPending>>);

impl Budget {
    /// Makes the guard, for which it enters a real tokio runtime (without drivers or threads) for
    /// a moment. The only way that this can fail is memory; then polls have no budget, as outside
    /// of any runtime.
    pub(crate) fn new() -> Self {
        let guard = tokio::runtime::Builder::new_current_thread()
            .build()
            .ok()
            .and_then(|runtime| {
                runtime.block_on(poll_fn(|cx| match coop::poll_proceed(cx) {
                    Poll::Ready(guard) => Poll::Ready(Some(guard)),
                    Poll::Pending => Poll::Ready(None),
                }))
            });
        Self(Cell::new(guard))
    }

    /// A full budget for the next poll.
    #[inline]
    pub(crate) fn refill(&self) {
        // Dropping restores the full budget; the new guard remembers it.
        drop(self.0.take());
        if let Poll::Ready(guard) = coop::poll_proceed(&mut Context::from_waker(Waker::noop())) {
            self.0.set(Some(guard));
        }
    }
}

/// Runs `f` with the thread's own budget set aside, and puts that back afterwards: for a thread
/// that becomes an M for a while (`block_on` on a current-thread runtime).
pub(crate) fn set_aside<R>(f: impl FnOnce() -> R) -> R {
    let mut f = Some(f);
    let mut whole = coop::unconstrained(poll_fn(|_| {
        let f = f.take().expect("polled once");
        Poll::Ready(f())
    }));
    match std::pin::Pin::new(&mut whole).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("the future above is ready at once"),
    }
}

use std::future::Future;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refilled_budget_runs_out_after_128() {
        set_aside(|| {
            let budget = Budget::new();
            let spend = || {
                let mut spent = 0;
                while let Poll::Ready(guard) =
                    coop::poll_proceed(&mut Context::from_waker(Waker::noop()))
                {
                    guard.made_progress();
                    spent += 1;
                    assert!(spent < 1000, "no budget is set");
                }
                spent
            };
            for _ in 0..3 {
                budget.refill();
                assert!((126..=128).contains(&spend()));
            }
        });
        assert!(coop::has_budget_remaining());
    }
}
