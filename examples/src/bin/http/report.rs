//! What the clients saw, in numbers.

use std::fmt;
use std::time::Duration;

use crate::load::Outcome;

/// A power of two is cut into that many buckets: percentiles are at most 1/32 too high.
const PARTS: u64 = 32;

/// A histogram of latencies. The memory that it takes does not depend on how long the load lasts.
pub(crate) struct Latency {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: vec![0; index(u64::MAX) + 1],
            count: 0,
            max: 0,
        }
    }
}

/// The bucket of a number of nanoseconds: numbers below 32 have one each, every power of two from
/// there on has 32.
fn index(nanos: u64) -> usize {
    let shift = (nanos | PARTS).ilog2() - PARTS.ilog2();
    (u64::from(shift) * PARTS + (nanos >> shift)) as usize
}

/// The largest number in a bucket.
fn last_of(index: usize) -> u64 {
    let shift = (index as u64 / PARTS).saturating_sub(1);
    let first = (index as u64 - shift * PARTS) << shift;
    first + ((1 << shift) - 1)
}

impl Latency {
    pub(crate) fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[index(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `percent` per cent of the requests did not exceed.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let rank = (percent / 100.0 * self.count as f64).ceil() as u64;
        let mut seen = 0;
        let index = self.buckets.iter().position(|&bucket| {
            seen += bucket;
            seen >= rank.max(1)
        });
        Duration::from_nanos(index.map_or(0, last_of).min(self.max))
    }
}

/// Prints an [`Outcome`].
pub(crate) struct Report<'a> {
    outcome: &'a Outcome,
    elapsed: Duration,
}

impl<'a> Report<'a> {
    pub(crate) fn new(outcome: &'a Outcome, elapsed: Duration) -> Self {
        Self { outcome, elapsed }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (latency, errors) = (&self.outcome.latency, self.outcome.errors);
        let all = latency.count() + errors;
        let rate = latency.count() as f64 / self.elapsed.as_secs_f64();
        let share = 100.0 * errors as f64 / all.max(1) as f64;
        writeln!(f, "requests     {:>10}", thousands(all))?;
        writeln!(f, "per second   {:>10}", thousands(rate as u64))?;
        writeln!(f, "errors       {:>10}   {share:.3} %", thousands(errors))?;
        if let Some(error) = &self.outcome.first_error {
            writeln!(f, "             for instance: {error}")?;
        }
        write!(f, "latency     ")?;
        for percent in [50.0, 90.0, 99.0, 99.9, 100.0] {
            let name = match percent {
                100.0 => "max".into(),
                percent => format!("p{percent}"),
            };
            write!(f, "  {name} {:.2?}", latency.percentile(percent))?;
        }
        writeln!(f)
    }
}

/// 1234567 as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_its_bucket_and_close_to_its_end() {
        for power in 0..64 {
            for nanos in [(1u64 << power) - 1, 1 << power, (1 << power) + 1] {
                let last = last_of(index(nanos));
                assert!(last >= nanos && last - nanos <= nanos / PARTS, "{nanos}");
                assert_eq!(index(last), index(nanos));
                assert!(last == u64::MAX || index(last + 1) == index(nanos) + 1);
            }
        }
    }

    #[test]
    fn percentiles() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile(99.0), Duration::ZERO);
        for nanos in 1..=20 {
            latency.record(Duration::from_nanos(nanos));
        }
        let mut slow = Latency::default();
        slow.record(Duration::from_millis(3));
        latency.merge(&slow);
        assert_eq!(latency.count(), 21);
        assert_eq!(latency.percentile(0.0), Duration::from_nanos(1));
        assert_eq!(latency.percentile(50.0), Duration::from_nanos(11));
        assert_eq!(latency.percentile(100.0), Duration::from_millis(3));
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
