//! [`Instant`]: a point on the runtime's clock.

use std::fmt;
use std::ops;
use std::time::Duration;

/// A measurement of a clock that never goes backwards, useful only with [`Duration`].
///
/// It wraps [`std::time::Instant`], of which it is a type of its own so that the runtime's clock
/// and the system's cannot be confused; [`from_std`](Self::from_std) and
/// [`into_std`](Self::into_std) convert at no cost.
#[derive(Clone, Copy, Eq, PartialEq, PartialOrd, Ord, Hash)]
pub struct Instant {
    std: std::time::Instant,
}

impl Instant {
    /// The present moment.
    ///
    /// ```
    /// use gort::time::Instant;
    ///
    /// let start = Instant::now();
    /// assert!(Instant::now() >= start);
    /// ```
    pub fn now() -> Self {
        Self::from_std(std::time::Instant::now())
    }

    /// The same moment as `std`.
    pub fn from_std(std: std::time::Instant) -> Self {
        Self { std }
    }

    /// The same moment as a [`std::time::Instant`].
    pub fn into_std(self) -> std::time::Instant {
        self.std
    }

    /// The time from `earlier` to `self`, or zero if `earlier` is in fact later.
    pub fn duration_since(&self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }

    /// The time from `earlier` to `self`, or `None` if `earlier` is in fact later.
    ///
    /// ```
    /// use gort::time::{Duration, Instant};
    ///
    /// let start = Instant::now();
    /// let later = start + Duration::from_secs(1);
    /// assert_eq!(later.checked_duration_since(start), Some(Duration::from_secs(1)));
    /// assert_eq!(start.checked_duration_since(later), None);
    /// ```
    pub fn checked_duration_since(&self, earlier: Self) -> Option<Duration> {
        self.std.checked_duration_since(earlier.std)
    }

    /// The time from `earlier` to `self`, or zero if `earlier` is in fact later.
    ///
    /// ```
    /// use gort::time::{Duration, Instant};
    ///
    /// let start = Instant::now();
    /// let later = start + Duration::from_secs(1);
    /// assert_eq!(start.saturating_duration_since(later), Duration::ZERO);
    /// ```
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.std.saturating_duration_since(earlier.std)
    }

    /// The time since this instant, or zero if it lies in the future.
    pub fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    /// `self + duration`, or `None` if the clock cannot represent that.
    pub fn checked_add(&self, duration: Duration) -> Option<Self> {
        self.std.checked_add(duration).map(Self::from_std)
    }

    /// `self - duration`, or `None` if the clock cannot represent that.
    pub fn checked_sub(&self, duration: Duration) -> Option<Self> {
        self.std.checked_sub(duration).map(Self::from_std)
    }
}

impl From<std::time::Instant> for Instant {
    fn from(std: std::time::Instant) -> Self {
        Self::from_std(std)
    }
}

impl From<Instant> for std::time::Instant {
    fn from(instant: Instant) -> Self {
        instant.into_std()
    }
}

/// # Panics
///
/// If the clock cannot represent the sum; [`Instant::checked_add`] does not panic.
impl ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self::from_std(self.std + duration)
    }
}

impl ops::AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

/// # Panics
///
/// If the clock cannot represent the difference; [`Instant::checked_sub`] does not panic.
impl ops::Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self::from_std(self.std - duration)
    }
}

impl ops::SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

/// Zero if the right-hand instant is the later one.
impl ops::Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std.fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn differences_saturate_and_sums_are_checked() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let later = start + second;
        assert_eq!(later - start, second);
        assert_eq!(start - later, Duration::ZERO);
        assert_eq!(start.duration_since(later), Duration::ZERO);
        assert_eq!(later - second, start);
        assert_eq!(start.checked_add(Duration::MAX), None);
        assert_eq!(start.checked_sub(Duration::MAX), None);
        assert_eq!(
            (start + Duration::from_secs(3600)).elapsed(),
            Duration::ZERO
        );
        let (mut up, mut down) = (start, later);
        up += second;
        down -= second;
        assert_eq!((up, down), (later, start));
    }

    #[test]
    fn conversions_keep_the_moment() {
        let std = std::time::Instant::now();
        assert_eq!(Instant::from(std).into_std(), std);
        assert_eq!(std::time::Instant::from(Instant::from_std(std)), std);
    }
}
