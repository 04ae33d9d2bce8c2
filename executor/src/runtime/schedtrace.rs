//! `GORT_SCHEDTRACE=N`: a line on standard error every N milliseconds that says what the scheduler
//! is doing, as Go's `GODEBUG=schedtrace=N`. No rebuild, no code in the service.
//!
//! ```text
//! SCHED 2003ms: runtime=1 workers=2 idleprocs=0 threads=3 spinning=0 blocking=1 runqueue=12 [3 0] tasks=97 polls=81344
//! ```
//!
//! `threads` are the workers' and those for blocking closures, `blocking` the latter; `runqueue` is
//! the length of the global queue and the numbers in brackets those of the local ones; `tasks` are
//! alive; `polls` were begun since the line before.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::metrics::RuntimeMetrics;
use crate::sched::Scheduler;

const ENV: &str = "GORT_SCHEDTRACE";

/// Starts the trace of one runtime, if the environment asks for it. It ends with the runtime.
///
/// # Errors
///
/// The variable is not a positive number, or no thread can be started.
pub(super) fn start(scheduler: &Arc<Scheduler>) -> io::Result<()> {
    let Some(value) = std::env::var_os(ENV) else {
        return Ok(());
    };
    let period = parse(value.to_str()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the environment variable {ENV} is {value:?}, but it must be the number of \
                 milliseconds between two lines, for example 1000"
            ),
        )
    })?;
    let scheduler = Arc::downgrade(scheduler);
    // A thread of std's: it watches the Ms and is none of them.
    std::thread::Builder::new()
        .name("gort-schedtrace".into())
        .spawn(move || trace(&scheduler, period))?;
    Ok(())
}

fn parse(value: Option<&str>) -> Option<Duration> {
    let millis: u64 = value?.trim().parse().ok()?;
    (millis != 0).then(|| Duration::from_millis(millis))
}

fn trace(scheduler: &Weak<Scheduler>, period: Duration) {
    let start = Instant::now();
    let mut polls = 0;
    loop {
        std::thread::sleep(period);
        let Some(scheduler) = scheduler.upgrade() else {
            return;
        };
        if scheduler.is_closed() {
            return;
        }
        let metrics = RuntimeMetrics::new(Arc::clone(&scheduler));
        let line = line(&scheduler, &metrics, start.elapsed(), &mut polls);
        // Nothing to be done about a closed standard error.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

fn line(
    scheduler: &Scheduler,
    metrics: &RuntimeMetrics,
    elapsed: Duration,
    polls: &mut u64,
) -> String {
    let processors = metrics.processors();
    let now: u64 = processors.iter().map(|p| p.polls).sum();
    let before = std::mem::replace(polls, now);
    let mut queues = String::new();
    for p in &processors {
        let space = if queues.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(queues, "{space}{}", p.queued);
    }
    let blocking = metrics.num_blocking_threads();
    format!(
        "SCHED {}ms: runtime={} workers={} idleprocs={} threads={} spinning={} blocking={} \
         runqueue={} [{}] tasks={} polls={}\n",
        elapsed.as_millis(),
        scheduler.id,
        processors.len(),
        metrics.num_idle_processors(),
        scheduler.life.machines() + blocking,
        metrics.num_spinning(),
        blocking,
        metrics.global_queue_depth(),
        queues,
        metrics.num_alive_tasks(),
        now.wrapping_sub(before),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_numbers_are_periods() {
        assert_eq!(parse(Some("1000")), Some(Duration::from_secs(1)));
        for bad in [Some("0"), Some("-1"), Some("fast"), Some(""), None] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_line_counts_polls_since_the_one_before() {
        let runtime = super::super::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let scheduler = runtime.handle().scheduler();
        let mut polls = 0;
        let mut line = || {
            line(
                scheduler,
                &runtime.metrics(),
                Duration::from_secs(2),
                &mut polls,
            )
        };
        line();
        runtime.block_on(async {
            for _ in 0..10 {
                crate::spawn(async {}).await.unwrap();
            }
        });
        let text = line();
        assert!(text.starts_with("SCHED 2000ms: runtime="), "{text}");
        assert!(
            text.contains(" workers=2 ") && text.ends_with(" polls=10\n"),
            "{text}"
        );
        assert!(line().ends_with(" polls=0\n"));
    }
}
