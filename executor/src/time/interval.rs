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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::driver::rig::Rig;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn on(rig: &Rig, start: Instant, period: Duration, behavior: MissedTickBehavior) -> Interval {
        Interval {
            delay: Box::pin(Sleep::on(rig.timers(), 0, start)),
            period,
            missed_tick_behavior: behavior,
        }
    }

    fn tick(interval: &mut Interval, rig: &Rig) -> Poll<Instant> {
        let waker = rig.waker(1);
        interval.poll_tick(&mut Context::from_waker(&waker))
    }

    #[test]
    fn after_a_missed_tick() {
        // The table in the documentation of `MissedTickBehavior`.
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        for (behavior, expected) in [
            (MissedTickBehavior::Burst, 100),
            (MissedTickBehavior::Delay, 175),
            (MissedTickBehavior::Skip, 150),
        ] {
            let next = behavior.next(at(50), at(125), Duration::from_millis(50));
            assert_eq!(next, at(expected), "{behavior:?}");
        }
        // Late by whole periods: the next of the schedule is a period away, not now.
        let next = MissedTickBehavior::Skip.next(at(50), at(150), Duration::from_millis(50));
        assert_eq!(next, at(200));
    }

    #[test]
    fn a_burst_catches_up_tick_by_tick() {
        let rig = Rig::new(1);
        let start = Instant::now().checked_sub(SECOND * 100).unwrap();
        let mut interval = on(&rig, start, SECOND * 10, MissedTickBehavior::Burst);
        for i in 0..=10 {
            assert_eq!(
                tick(&mut interval, &rig),
                Poll::Ready(start + SECOND * 10 * i)
            );
        }
    }

    #[test]
    fn delay_and_skip_leave_ticks_out() {
        let rig = Rig::new(1);
        let before = Instant::now();
        let start = before.checked_sub(SECOND * 100).unwrap();
        let mut delay = on(&rig, start, SECOND * 3600, MissedTickBehavior::Delay);
        assert_eq!(tick(&mut delay, &rig), Poll::Ready(start));
        assert!(delay.delay.deadline() >= before + SECOND * 3600);
        assert!(tick(&mut delay, &rig).is_pending());
        let mut skip = on(&rig, start, SECOND * 3600, MissedTickBehavior::Skip);
        assert_eq!(tick(&mut skip, &rig), Poll::Ready(start));
        assert_eq!(skip.delay.deadline(), start + SECOND * 3600);
        assert!(tick(&mut skip, &rig).is_pending());
    }

    #[test]
    fn resets() {
        let rig = Rig::new(1);
        let hour = SECOND * 3600;
        let mut interval = on(&rig, rig.at(1), hour, MissedTickBehavior::Burst);
        assert!(tick(&mut interval, &rig).is_pending());
        let before = Instant::now();
        interval.reset();
        assert!(interval.delay.deadline() >= before + hour);
        interval.reset_after(Duration::MAX);
        assert!(interval.delay.deadline() > before + FAR);
        interval.reset_immediately();
        assert!(tick(&mut interval, &rig).is_ready());
        interval.reset_at(rig.at(7));
        assert!(tick(&mut interval, &rig).is_pending());
        assert_eq!(rig.timers().next_deadline(), Some(rig.at(7)));
    }

    /// Well below the longest sleep and far above everything else here.
    const FAR: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

    #[test]
    #[should_panic(expected = "longer than zero")]
    fn a_period_of_zero() {
        let _ = interval_at(Instant::now(), Duration::ZERO);
    }
}
