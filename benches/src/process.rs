//! What needs a process of its own: resident memory and idle CPU time. And what belongs to the
//! process: the limit on open files.

use std::fs;
use std::future::{Future, pending};
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::WORKERS;
use crate::rt::Runtime;
use crate::workloads::Contender;

/// Tasks that are parked for the memory measurements.
const PARKED: usize = 1_000_000;

/// They are spawned in batches, each parked before the next: no queue of a million runnable
/// tasks should remain in the allocator and count as memory of parked ones.
const BATCH: usize = 1_000;

/// How long an idle runtime is watched.
const WATCH: Duration = Duration::from_secs(3);

/// What a runtime consumes. Less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Resident bytes a task in `pending()` whose handle was dropped.
    PendingDetached,
    /// Resident bytes a task in `pending()` whose handle is kept; the 8 or so bytes of the handle
    /// itself belong to the user and are not counted.
    PendingKept,
    /// Resident bytes a task that waits on a `Notify` (its handle dropped): future, waker and all.
    Notified,
    /// CPU time, in microseconds a second, of a runtime without tasks.
    IdleEmpty,
    /// The same with 100 tasks in a long sleep and one that accepts on a listener.
    IdleWaiting,
    /// The same with one task that wakes every 10 ms.
    Ticking,
}

impl Resource {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 6] = [
        Self::PendingDetached,
        Self::PendingKept,
        Self::Notified,
        Self::IdleEmpty,
        Self::IdleWaiting,
        Self::Ticking,
    ];

    /// The name in reports, which ends in the unit.
    pub fn name(self) -> &'static str {
        match self {
            Self::PendingDetached => "memory, 1 M tasks in `pending()`, B/task",
            Self::PendingKept => "memory, 1 M tasks in `pending()`, handles kept, B/task",
            Self::Notified => "memory, 1 M tasks on a `Notify`, B/task",
            Self::IdleEmpty => "CPU, idle, no task, µs/s",
            Self::IdleWaiting => "CPU, idle, 100 sleeping tasks and a listener, µs/s",
            Self::Ticking => "CPU, one task that wakes every 10 ms, µs/s",
        }
    }
}

/// Measures one resource for runtime `R`. The process should be fresh.
pub fn measure<R: Runtime>(resource: Resource) -> f64 {
    match resource {
        Resource::PendingDetached => parked_pending::<R>(false),
        Resource::PendingKept => parked_pending::<R>(true),
        Resource::Notified => parked_notified::<R>(),
        Resource::IdleEmpty => idle::<R>(async {}),
        Resource::IdleWaiting => idle::<R>(waiting::<R>()),
        Resource::Ticking => idle::<R>(async {
            R::detach(R::spawn(async {
                loop {
                    R::sleep(Duration::from_millis(10)).await;
                }
            }));
        }),
    }
}

/// Polls counted by the parked tasks. Relaxed throughout: only the number matters.
static POLLED: AtomicUsize = AtomicUsize::new(0);

fn parked_pending<R: Runtime>(keep: bool) -> f64 {
    let rt = warm::<R>();
    let before = resident_bytes();
    let kept = rt.run(async move {
        let mut kept = Vec::new();
        if keep {
            kept.reserve_exact(PARKED);
        }
        park::<R>(|| {
            let handle = R::spawn(async {
                POLLED.fetch_add(1, Ordering::Relaxed);
                pending::<()>().await;
            });
            if keep {
                kept.push(handle)
            } else {
                R::detach(handle)
            }
        })
        .await;
        kept
    });
    let handles = mem::size_of_val(kept.as_slice());
    (resident_bytes() - before - handles as f64) / PARKED as f64
}

fn parked_notified<R: Runtime>() -> f64 {
    let rt = warm::<R>();
    let notify = Arc::new(Notify::new());
    let woken = Arc::new(AtomicUsize::new(0));
    let before = resident_bytes();
    rt.run({
        let (notify, woken) = (notify.clone(), woken.clone());
        async move {
            park::<R>(|| {
                let (notify, woken) = (notify.clone(), woken.clone());
                R::detach(R::spawn(async move {
                    POLLED.fetch_add(1, Ordering::Relaxed);
                    notify.notified().await;
                    woken.fetch_add(1, Ordering::Relaxed);
                }));
            })
            .await;
        }
    });
    let bytes = resident_bytes() - before;
    // That all can be woken shows that all were parked.
    notify.notify_waiters();
    wait_until("all parked tasks wake", || {
        woken.load(Ordering::Relaxed) == PARKED
    });
    bytes / PARKED as f64
}

/// Spawns all, and waits after each batch until its tasks have been polled.
async fn park<R: Runtime>(mut spawn: impl FnMut()) {
    for batch in 1..=PARKED / BATCH {
        (0..BATCH).for_each(|_| spawn());
        while POLLED.load(Ordering::Relaxed) < batch * BATCH {
            R::yield_now().await;
        }
    }
    // The last tasks may still be between the count and their return to the runtime.
    R::sleep(Duration::from_millis(100)).await;
}

/// A runtime that has run something, so that its threads and their allocator arenas exist.
fn warm<R: Runtime>() -> R {
    let rt = R::new(WORKERS);
    rt.run(async {
        let tasks: Vec<_> = (0..BATCH)
            .map(|_| R::spawn(async { R::yield_now().await }))
            .collect();
        for task in tasks {
            R::join(task).await;
        }
    });
    rt
}

/// CPU time in microseconds a second while the runtime has nothing to do but what `setup` left.
fn idle<R: Runtime>(setup: impl Future<Output = ()> + Send + 'static) -> f64 {
    let rt = warm::<R>();
    rt.run(setup);
    // Let it come to rest first: spinning and lingering of some milliseconds is not idling.
    thread::sleep(Duration::from_millis(500));
    let (wall, cpu) = (Instant::now(), cpu_time());
    thread::sleep(WATCH);
    let used = cpu_time() - cpu;
    used.as_secs_f64() * 1e6 / wall.elapsed().as_secs_f64()
}

async fn waiting<R: Runtime>() {
    for _ in 0..100 {
        R::detach(R::spawn(async {
            R::sleep(Duration::from_secs(3600)).await
        }));
    }
    let listener = R::listen().await.expect("listen on 127.0.0.1");
    R::detach(R::spawn(async move {
        let accepted = R::accept(&listener).await.map(drop);
        panic!("nobody connects to the idle listener, but: {accepted:?}");
    }));
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "gave up after 60 s: {what}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// Resident memory of this process. A float, since it may also go down.
fn resident_bytes() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("read /proc/self/statm");
    let pages: f64 = statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .expect("the second field of /proc/self/statm is a number of pages");
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * page as f64
}

/// CPU time that all threads of this process have used, in user and kernel mode.
pub fn cpu_time() -> Duration {
    usage(libc::RUSAGE_SELF)
}

/// CPU time that this process and the children it has waited for have used.
pub fn cpu_time_with_children() -> Duration {
    usage(libc::RUSAGE_SELF) + usage(libc::RUSAGE_CHILDREN)
}

fn usage(who: libc::c_int) -> Duration {
    // SAFETY: an all-zero rusage is a valid value of this plain C struct.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: `usage` is a valid place that nobody else knows.
    let result = unsafe { libc::getrusage(who, &mut usage) };
    assert_eq!(result, 0, "getrusage: {}", io::Error::last_os_error());
    let duration = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// CPU time that all processes of the machine have used, interrupts and time stolen by the
/// hypervisor included.
pub fn machine_cpu_time() -> Duration {
    /// The columns of /proc/stat that count no work: idle and iowait are waiting, and the two of
    /// guests are in user and nice already.
    const NO_WORK: [usize; 4] = [3, 4, 8, 9];
    let stat = fs::read_to_string("/proc/stat").expect("read /proc/stat");
    let total = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "));
    let ticks: u64 = total
        .expect("/proc/stat begins with the sum of all CPUs")
        .split_ascii_whitespace()
        .enumerate()
        .filter(|(column, _)| !NO_WORK.contains(column))
        .map(|(_, ticks)| ticks.parse::<u64>().expect("/proc/stat holds numbers"))
        .sum();
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

/// Makes sure that `files` can be open, as often as there are runtimes under test, and raises the
/// soft limit for it.
///
/// # Errors
///
/// If the hard limit does not allow it.
pub fn need_files(files: usize) -> Result<(), String> {
    /// Standard streams, listeners and pollers.
    const OTHERS: usize = 256;
    let need = (Contender::all().len() * files + OTHERS) as libc::rlim_t;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place that nobody else knows.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    assert_eq!(result, 0, "getrlimit: {}", io::Error::last_os_error());
    if limit.rlim_cur >= need {
        return Ok(());
    }
    if limit.rlim_max < need {
        let hard = limit.rlim_max;
        return Err(format!(
            "needs {need} open files, the hard limit (ulimit -Hn) is {hard}"
        ));
    }
    limit.rlim_cur = need;
    // SAFETY: reads the valid `limit`.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return Err(format!(
            "needs {need} open files, and setrlimit said: {error}"
        ));
    }
    Ok(())
}
