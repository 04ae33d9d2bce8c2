//! [`GortTimer`]: hyper's time-outs on gort's timers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::hyper::rt::{Sleep, Timer};
use pin_project_lite::pin_project;

use crate::time;

/// Gives hyper the timers of the current runtime.
///
/// hyper's builders take it as `.timer(GortTimer::new())`. Without one they have no time-outs:
/// neither for the head of a request nor for HTTP/2's keep-alive.
///
/// # Panics
///
/// Its methods, and with them whatever in hyper calls them, panic outside of a runtime, and in one
/// without timers, as [`time::sleep`](crate::time::sleep()) does.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct GortTimer;

impl GortTimer {
    /// A timer for whichever runtime is current when it is used.
    pub fn new() -> Self {
        Self
    }
}

impl Timer for GortTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(GortSleep {
            inner: time::sleep(duration),
        })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(GortSleep {
            inner: time::sleep_until(deadline.into()),
        })
    }

    fn now(&self) -> Instant {
        time::Instant::now().into()
    }

    /// hyper moves a connection's deadline once a request: that allocates nothing here.
    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<GortSleep>() {
            Some(sleep) => sleep.project().inner.reset(deadline.into()),
            // Made by somebody else's timer.
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

pin_project! {
    struct GortSleep {
        #[pin]
        inner: time::Sleep,
    }
}

impl Sleep for GortSleep {}

impl Future for GortSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Builder;

    /// A sleep of no runtime of ours.
    struct Foreign;

    impl Sleep for Foreign {}

    impl Future for Foreign {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    fn block_on(future: impl Future<Output = ()>) {
        let mut builder = Builder::new_current_thread();
        builder.enable_time().build().unwrap().block_on(future);
    }

    #[test]
    fn a_sleep_lasts_at_least_as_long_as_asked() {
        block_on(async {
            let timer = GortTimer::new();
            let begin = timer.now();
            timer.sleep(Duration::from_millis(3)).await;
            assert!(begin.elapsed() >= Duration::from_millis(3));
            timer.sleep_until(begin + Duration::from_millis(6)).await;
            assert!(begin.elapsed() >= Duration::from_millis(6));
        });
    }

    #[test]
    fn reset_moves_its_own_sleep_and_replaces_another() {
        block_on(async {
            let timer = GortTimer::new();
            let far = Duration::from_secs(3600);
            let mut sleep = timer.sleep(far);
            let before = std::ptr::from_ref(&*sleep).cast::<()>();
            timer.reset(&mut sleep, timer.now() + Duration::from_millis(1));
            assert_eq!(std::ptr::from_ref(&*sleep).cast::<()>(), before);
            sleep.await;

            let mut sleep: Pin<Box<dyn Sleep>> = Box::pin(Foreign);
            timer.reset(&mut sleep, timer.now() + Duration::from_millis(1));
            sleep.await;
        });
    }
}
