//! `yield_now`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::runtime::context;

/// Lets the other ready tasks run first.
///
/// The task goes to the back of its processor's queue, behind everything that is ready now and
/// behind what a look at the global queue, the timers and the sockets turns up. Outside of a
/// runtime's worker it just wakes itself.
///
/// # Cancel safety
///
/// Cancel safe.
///
/// # Examples
///
/// ```
/// # gort::runtime::Runtime::new().unwrap().block_on(async {
/// for _ in 0..3 {
///     // ... a piece of a long computation ...
///     gort::task::yield_now().await;
/// }
/// # });
/// ```
pub async fn yield_now() {
    YieldNow { yielded: false }.await;
}

struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        // The wake marks the task as woken during its own poll; the note makes the worker put it
        // on the deferred list rather than at the ring's tail.
        context::note_yield();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
