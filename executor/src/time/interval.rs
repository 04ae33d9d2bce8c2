//! [`Interval`]: a tick at a regular period.

use super::{Duration, Instant, Sleep, reasonable, sleep_until};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A tick that comes later than this counts as missed (tokio's threshold, which its documentation
/// of `MissedTickBehavior` states).
const LATE: Duration = Duration::from_millis(5);

/// Ticks every `period`, the first time at once: `interval_at(Instant::now(), period)`.
///
/// Unlike a loop around [`sleep`](super::sleep()), the period is measured from tick to tick: the
/// time that the loop's body takes is part of it. What happens when the body takes longer than
/// that is set with [`Interval::set_missed_tick_behavior`].
///
/// # Panics
///
/// If `period` is zero; if it is called outside of a runtime that has timers.
///
/// # Examples
///
/// ```no_run
/// use gort::time::{Duration, interval};
///
/// # async fn example() {
/// let mut heartbeat = interval(Duration::from_secs(2));
/// loop {
///     heartbeat.tick().await;
///     println!("still here");
/// }
/// # }
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks every `period`, the first time at `start`.
///
/// # Panics
///
/// If `period` is zero; if it is called outside of a runtime that has timers.
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(
        !period.is_zero(),
        "the `period` of an interval must be longer than zero"
    );
    Interval {
        delay: Box::pin(sleep_until(start)),
        period: reasonable(period),
        missed_tick_behavior: MissedTickBehavior::default(),
    }
}

/// What an [`Interval`] does after a tick that was asked for too late.
///
/// A tick is missed if [`Interval::tick`] returns more than 5 ms after the tick was due. With a
/// period of 50 ms and a pause of 125 ms after the first tick (ticks that are returned at, in ms):
///
/// | behaviour | ticks |
/// |---|---|
/// | `Burst` | 0, 125, 125, 150, 200, 250 |
/// | `Delay` | 0, 125, 175, 225, 275 |
/// | `Skip` | 0, 125, 150, 200, 250 |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedTickBehavior {
    /// Ticks at once until it has caught up; every tick happens, and the schedule stays as it was.
    #[default]
    Burst,
    /// The schedule starts afresh: the next tick comes one period after the late one.
    Delay,
    /// Leaves out the ticks that are over and goes on with the next one of the old schedule.
    Skip,
}

impl MissedTickBehavior {
    /// When to tick after the tick due at `due` was returned only at `now`.
    fn next(self, due: Instant, now: Instant, period: Duration) -> Instant {
        match self {
            Self::Burst => due + period,
            Self::Delay => now + period,
            Self::Skip => {
                let into_period = (now - due).as_nanos() % period.as_nanos();
                // Less than a period, which is at most 30 years: some 2^60 ns.
                now + (period - Duration::from_nanos(into_period as u64))
            }
        }
    }
}

/// Ticks at a regular period, without end: what [`interval`] and [`interval_at`] return.
///
/// Dropping it ends it.
#[derive(Debug)]
pub struct Interval {
    /// Waits for the next tick.
    delay: Pin<Box<Sleep>>,
    period: Duration,
    missed_tick_behavior: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick and returns when it was due.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a `tick` that is dropped before it completes has used up no tick.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// Polls for the next tick and returns when it was due.
    ///
    /// While it is pending, the waker of the last call is the one that is woken.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(self.delay.as_mut().poll(cx));
        let due = self.delay.deadline();
        let now = Instant::now();
        let next = if now - due > LATE {
            self.missed_tick_behavior.next(due, now, self.period)
        } else {
            due + self.period
        };
        self.delay.as_mut().reset_idle(next);
        Poll::Ready(due)
    }

    /// Makes the next tick come one period from now.
    pub fn reset(&mut self) {
        self.reset_at(Instant::now() + self.period);
    }

    /// Makes the next tick come at once.
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// Makes the next tick come after `after`, and the following ones a period apart again.
    pub fn reset_after(&mut self, after: Duration) {
        self.reset_at(Instant::now() + reasonable(after));
    }

    /// Makes the next tick come at `deadline`, be that sooner or later than a period from now, and
    /// the following ones a period apart again. Ticks that were missed before are forgotten; if
    /// `deadline` has passed, the [`MissedTickBehavior`] applies to it.
    pub fn reset_at(&mut self, deadline: Instant) {
        self.delay.as_mut().reset(deadline);
    }

    /// What happens after a missed tick.
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed_tick_behavior
    }

    /// Sets what happens after a missed tick.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed_tick_behavior = behavior;
    }

    /// The time between ticks.
    pub fn period(&self) -> Duration {
        self.period
    }
}
