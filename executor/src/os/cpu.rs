//! How many workers a runtime gets when nobody says.
//!
//! `GORT_WORKERS` decides if it is set. Otherwise it is the smaller of
//!
//! 1. the CPUs this thread may run on (`sched_getaffinity`, which a cpuset cgroup narrows too), and
//! 2. the CPU bandwidth its cgroup may use, quota divided by period, rounded up, but at least
//!    [`MIN_FROM_QUOTA`] ([`cgroup`]).
//!
//! A worker more than the quota buys only makes the kernel throttle all of them at once, in the
//! middle of whatever they do; rounding up rather than down keeps a fractional CPU usable. This is
//! Go's rule since 1.25, apart from one point: Go reads the limit of the process's own cgroup, and
//! here the limits of all its ancestors that are visible count too, as they do for the kernel.
//!
//! A source that cannot be read (no /proc, no cgroup file system, a permission, a format this
//! code does not know) is left out, as if it set no limit: a service must start in a sandbox too.
//! If nothing can be read the answer is 1.

mod cgroup;

use std::ffi::OsStr;
use std::path::Path;

/// The variable that overrides the default, as `TOKIO_WORKER_THREADS` does in tokio.
const ENV: &str = "GORT_WORKERS";

/// The least a cgroup quota alone brings the count down to (Go's floor, runtime/cgroup_linux.go).
/// With a single worker nothing runs beside a poll that is slow to return, and a quota below two
/// CPUs still lets two threads run at once until it is used up. Affinity to one CPU gives 1.
const MIN_FROM_QUOTA: usize = 2;

/// The number of workers of a runtime whose builder was not told one; at least 1.
///
/// # Panics
///
/// If `GORT_WORKERS` is set to anything but a positive whole number.
pub(crate) fn default_worker_count() -> usize {
    let forced = std::env::var_os(ENV);
    worker_count(forced.as_deref(), affinity(), Path::new("/"))
}

/// The rule of this module over its inputs. `root` is where `/proc` and the cgroup mounts are
/// looked for: `/`, or a tree that a test has made.
fn worker_count(forced: Option<&OsStr>, affinity: Option<usize>, root: &Path) -> usize {
    if let Some(value) = forced {
        return parse_forced(value).unwrap_or_else(|problem| panic!("{problem}"));
    }
    let quota = cgroup::cpu_limit(root).map(|cpus| cpus.max(MIN_FROM_QUOTA));
    match (affinity, quota) {
        (Some(cpus), Some(limit)) => cpus.min(limit),
        (Some(cpus), None) => cpus,
        (None, Some(limit)) => limit,
        (None, None) => 1,
    }
}

fn parse_forced(value: &OsStr) -> Result<usize, String> {
    match value.to_str().map(|text| text.trim().parse()) {
        Some(Ok(count)) if count > 0 => Ok(count),
        _ => Err(format!(
            "the environment variable {ENV} is {value:?}, but it must be a whole number of \
             workers, 1 or more; unset it to let gort choose by CPU affinity and cgroup quota"
        )),
    }
}

/// How many CPUs the calling thread may run on.
fn affinity() -> Option<usize> {
    // A kernel built for more CPUs than the mask holds answers EINVAL. 8,192 is the largest
    // NR_CPUS that Kconfig offers on x86-64; one doubling more leaves room.
    let mut mask = vec![0_u64; 1024 / 64];
    while mask.len() <= 16_384 / 64 {
        // SAFETY: the kernel writes at most the given number of bytes, which is the size of
        // `mask`, and `mask` is borrowed by nobody else.
        let written = unsafe {
            libc::syscall(
                libc::SYS_sched_getaffinity,
                0,
                size_of_val(mask.as_slice()),
                mask.as_mut_ptr(),
            )
        };
        if written > 0 {
            let cpus = mask.iter().map(|word| word.count_ones() as usize).sum();
            return Some(cpus).filter(|&cpus| cpus > 0);
        }
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return None;
        }
        mask.resize(mask.len() * 2, 0);
    }
    None
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::cgroup::fake::FakeRoot;
    use super::*;

    #[test]
    fn the_smaller_of_affinity_and_quota() {
        let root = FakeRoot::v2("/", &[("", "250000 100000\n")]);
        assert_eq!(worker_count(None, Some(8), root.path()), 3);
        assert_eq!(worker_count(None, Some(2), root.path()), 2);
        assert_eq!(worker_count(None, None, root.path()), 3);
    }

    #[test]
    fn a_small_quota_leaves_two_but_not_more_than_affinity() {
        let root = FakeRoot::v2("/", &[("", "10000 100000\n")]);
        assert_eq!(worker_count(None, Some(8), root.path()), 2);
        assert_eq!(worker_count(None, Some(1), root.path()), 1);
    }

    #[test]
    fn nothing_readable_means_one() {
        let root = FakeRoot::empty();
        assert_eq!(worker_count(None, None, root.path()), 1);
        assert_eq!(worker_count(None, Some(5), root.path()), 5);
    }

    #[test]
    fn the_environment_overrides_both() {
        let root = FakeRoot::v2("/", &[("", "100000 100000\n")]);
        let forced = |text: &str| worker_count(Some(OsStr::new(text)), Some(4), root.path());
        assert_eq!(forced("17"), 17);
        assert_eq!(forced(" 1 "), 1);
    }

    #[test]
    fn a_bad_override_is_explained() {
        for bad in ["", "0", "-1", "two", "1.5", "99999999999999999999999"] {
            let problem = parse_forced(OsStr::new(bad)).unwrap_err();
            assert!(problem.contains("GORT_WORKERS"), "{problem}");
            assert!(problem.contains(&format!("{bad:?}")), "{problem}");
            assert!(problem.contains("1 or more"), "{problem}");
        }
    }

    #[test]
    #[should_panic(expected = "GORT_WORKERS")]
    fn a_bad_override_panics() {
        worker_count(Some(OsStr::new("many")), Some(4), Path::new("/"));
    }

    #[test]
    fn this_machine() {
        let cpus = affinity().expect("Linux knows the affinity of a thread");
        // SAFETY: sysconf only reads its argument.
        let configured = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) } as usize;
        assert!((1..=configured).contains(&cpus), "{cpus} of {configured}");
        let count = worker_count(None, affinity(), Path::new("/"));
        assert!((1..=cpus).contains(&count));
    }
}
