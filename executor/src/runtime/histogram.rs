//! A histogram of durations that one thread writes and any thread reads.
//!
//! # Buckets
//!
//! Log-linear, as HdrHistogram and Go's `timeHistogram` have it: each power of two of nanoseconds
//! is cut into [`SUB_BUCKETS`] equal parts, so that a bucket is never wider than an eighth of the
//! values in it and a percentile is at most 12.5 % too high. Values of [`RANGE`] and more (18
//! minutes) share the last bucket. 304 counters, 2.4 KB a P.
//!
//! # Concurrency
//!
//! [`Histogram::record`] belongs to the holder of the P; readers never write. So a count is a
//! Relaxed load and store, not a read-modify-write. When a P passes to another M, the hand-over
//! (Release by the one that lets go, Acquire by the one that takes) orders the two writers.
//! Readers use Relaxed loads: every counter is exact by itself and grows only, but a snapshot
//! taken during a write may have one sample in one of its totals and not yet in another.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// log2 of the number of parts in a power of two.
const SUB_BITS: u32 = 3;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Values from 2^`RANGE_BITS` ns on are not told apart.
const RANGE_BITS: u32 = 40;
const RANGE: u64 = 1 << RANGE_BITS;
/// The values below `SUB_BUCKETS` have a bucket each; every power of two above them, `SUB_BUCKETS`.
const BUCKETS: usize = SUB_BUCKETS * (RANGE_BITS - SUB_BITS + 1) as usize;

/// The bucket of a value.
fn index_of(nanos: u64) -> usize {
    let nanos = nanos.min(RANGE - 1);
    if nanos < SUB_BUCKETS as u64 {
        return nanos as usize;
    }
    // How far to shift so that the leading one and the SUB_BITS after it are left.
    let shift = nanos.ilog2() - SUB_BITS;
    // The leading one adds SUB_BUCKETS itself, which is the step from one power to the next.
    shift as usize * SUB_BUCKETS + (nanos >> shift) as usize
}

/// The least value of a bucket; `floor_of(BUCKETS)` is `RANGE`.
fn floor_of(index: usize) -> u64 {
    if index < 2 * SUB_BUCKETS {
        return index as u64;
    }
    let shift = index / SUB_BUCKETS - 1;
    ((index - shift * SUB_BUCKETS) as u64) << shift
}

/// The live histogram: one writer at a time, any number of readers.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64; BUCKETS]>,
    /// Saturates after 584 years of waiting.
    sum: AtomicU64,
    max: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: Box::new([const { AtomicU64::new(0) }; BUCKETS]),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }

    /// Counts one value. Only the holder of the P may call it; a second writer at the same time
    /// would be memory-safe but would lose counts.
    pub(crate) fn record(&self, nanos: u64) {
        // Relaxed: see the module's section on concurrency.
        let update = |cell: &AtomicU64, new: fn(u64, u64) -> u64, by: u64| {
            cell.store(new(cell.load(Ordering::Relaxed), by), Ordering::Relaxed);
        };
        update(&self.buckets[index_of(nanos)], u64::wrapping_add, 1);
        update(&self.sum, u64::saturating_add, nanos);
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.store(nanos, Ordering::Relaxed);
        }
    }

    /// Adds what has been counted so far to `into`, which may hold other Ps' counts already.
    pub(crate) fn merge_into(&self, into: &mut HistogramSnapshot) {
        // Relaxed: pairs with nothing; each counter is exact by itself.
        for (total, bucket) in into.buckets.iter_mut().zip(self.buckets.iter()) {
            *total += bucket.load(Ordering::Relaxed);
        }
        into.sum = into.sum.saturating_add(self.sum.load(Ordering::Relaxed));
        into.max = into.max.max(self.max.load(Ordering::Relaxed));
    }

    /// What has been counted so far.
    #[cfg(test)]
    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::new();
        self.merge_into(&mut snapshot);
        snapshot
    }
}

/// A histogram of durations at one moment, such as how long tasks sat in a run queue.
///
/// It has a bucket for every eighth of a power of two of nanoseconds: what it says of single
/// values is at most 12.5 % too high. Snapshots of several workers, or of several runtimes, can be
/// [merged](Self::merge).
///
/// Its [`Display`](fmt::Display) is one line for a log:
///
/// ```text
/// 1024 samples, mean 1.2µs, p50 960ns, p90 2.3µs, p99 14.3µs, p99.9 81.9µs, max 97.4µs
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: Box<[u64; BUCKETS]>,
    sum: u64,
    max: u64,
}

impl HistogramSnapshot {
    /// A histogram without samples: where merging starts.
    pub fn new() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            sum: 0,
            max: 0,
        }
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (total, bucket) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *total += bucket;
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The number of samples.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The arithmetic mean, from the exact values; zero if there are no samples.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// The largest sample, exactly; zero if there are no samples.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// A duration that `percent` per cent of the samples do not exceed: `percentile(99.0)` is the
    /// 99th percentile. It is the upper end of the bucket that the sample falls into (at most
    /// 12.5 % above the sample), but never more than [`max`](Self::max). Zero if there are no
    /// samples.
    ///
    /// # Panics
    ///
    /// If `percent` is not between 0 and 100.
    pub fn percentile(&self, percent: f64) -> Duration {
        assert!(
            (0.0..=100.0).contains(&percent),
            "a percentile is asked for by a number between 0 and 100, not {percent}"
        );
        let count = self.count();
        if count == 0 {
            return Duration::ZERO;
        }
        // The rank of the sample, from 1; the first sample stands for 0 %.
        let rank = ((percent / 100.0 * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let index = self
            .buckets
            .iter()
            .position(|bucket| {
                seen += bucket;
                seen >= rank
            })
            .expect("the rank is at most the sum of the buckets");
        // The last bucket has no upper end.
        let upper = match index {
            i if i == BUCKETS - 1 => u64::MAX,
            i => floor_of(i + 1) - 1,
        };
        Duration::from_nanos(upper.min(self.max))
    }

    /// The buckets that have samples, ascending: the least duration of each and its number of
    /// samples.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let counted = self.buckets.iter().enumerate().filter(|&(_, &n)| n > 0);
        counted.map(|(index, &n)| (Duration::from_nanos(floor_of(index)), n))
    }
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HistogramSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.buckets()).finish()
    }
}

impl fmt::Display for HistogramSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples, mean {:.1?}", self.count(), self.mean())?;
        for percent in [50.0, 90.0, 99.0, 99.9] {
            write!(f, ", p{percent} {:.1?}", self.percentile(percent))?;
        }
        write!(f, ", max {:.1?}", self.max())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> HistogramSnapshot {
        let histogram = Histogram::new();
        values.into_iter().for_each(|nanos| histogram.record(nanos));
        histogram.snapshot()
    }

    #[test]
    fn buckets_tile_the_range() {
        assert_eq!(floor_of(BUCKETS), RANGE);
        for index in 0..BUCKETS {
            let (floor, next) = (floor_of(index), floor_of(index + 1));
            assert!(floor < next);
            assert_eq!(index_of(floor), index, "floor {floor}");
            assert_eq!(index_of(next - 1), index, "last of {floor}..{next}");
            assert!(
                (next - floor) * 8 <= floor.max(8),
                "{floor}..{next} is wide"
            );
        }
        assert_eq!(index_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_within_an_eighth() {
        let snapshot = of((1..=10_000).map(|i| i * 1_000));
        assert_eq!(snapshot.count(), 10_000);
        assert_eq!(snapshot.mean(), Duration::from_nanos(5_000_500));
        assert_eq!(snapshot.max(), Duration::from_millis(10));
        for percent in [0.0, 0.01, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 100.0] {
            let exact = ((percent * 100.0) as u64).max(1) * 1_000;
            let found = snapshot.percentile(percent).as_nanos() as u64;
            assert!(found >= exact, "p{percent}: {found} below {exact}");
            assert!(
                found <= exact + exact / 8,
                "p{percent}: {found} above {exact}"
            );
        }
        assert_eq!(snapshot.percentile(100.0), snapshot.max());
    }

    #[test]
    fn empty_and_extreme() {
        let empty = HistogramSnapshot::new();
        assert_eq!(empty.percentile(99.0), Duration::ZERO);
        assert_eq!(empty.mean(), Duration::ZERO);
        assert_eq!(empty.buckets().count(), 0);
        let extreme = of([0, u64::MAX, u64::MAX]);
        assert_eq!(extreme.count(), 3);
        assert_eq!(extreme.percentile(0.0), Duration::ZERO);
        assert_eq!(extreme.percentile(50.0), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn merging_equals_recording_together() {
        let (a, b) = ([3, 900, 77_000], [5_000_000, 900, 1 << 50]);
        let mut merged = of(a);
        merged.merge(&of(b));
        assert_eq!(merged, of(a.into_iter().chain(b)));
    }

    #[test]
    #[should_panic(expected = "between 0 and 100")]
    fn a_percentile_above_100() {
        of([1]).percentile(100.1);
    }

    #[test]
    #[should_panic(expected = "between 0 and 100")]
    fn a_percentile_that_is_no_number() {
        of([1]).percentile(f64::NAN);
    }

    #[test]
    fn display_is_one_line() {
        let text = of([1_000, 2_000]).to_string();
        assert_eq!(
            text,
            "2 samples, mean 1.5µs, p50 1.0µs, p90 2.0µs, p99 2.0µs, p99.9 2.0µs, max 2.0µs"
        );
    }

    #[test]
    fn readers_beside_the_writer_never_see_a_count_shrink() {
        let histogram = Histogram::new();
        let total = 50_000;
        std::thread::scope(|s| {
            s.spawn(|| (0..total).for_each(|i| histogram.record(i)));
            let mut last = 0;
            while last < total {
                let count = histogram.snapshot().count();
                assert!(count >= last);
                last = count;
            }
        });
        assert_eq!(histogram.snapshot(), of(0..total));
    }
}
