//! `yield_now`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::current;

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
        if !current::yield_polled(cx.waker()) {
            // Inside of something that has wakers of its own, or not in a task.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
