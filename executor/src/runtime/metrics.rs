//! What a running runtime shows of itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::ThreadBackend;
use super::histogram::HistogramSnapshot;
use crate::os::{clock, thread};
use crate::sched::Scheduler;

/// Reads a runtime's counters. They are read one by one while the runtime goes on, so they need
/// not fit together exactly.
#[derive(Clone, Debug)]
pub struct RuntimeMetrics {
    scheduler: Arc<Scheduler>,
}

/// What one processor (P) did since the runtime started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProcessorMetrics {
    /// The processor's number, from 0.
    pub index: usize,
    /// Polls begun.
    pub polls: u64,
    /// Tasks that came from the LIFO slot.
    pub from_runnext: u64,
    /// Tasks taken from the global queue.
    pub from_global: u64,
    /// Tasks stolen from other processors.
    pub stolen: u64,
    /// Tasks that the full local queue spilled to the global one.
    pub spilled: u64,
    /// Looks at the sockets without waiting.
    pub netpolls: u64,
    /// Times that the processor was taken from a thread that was stuck in a poll.
    pub retaken: u64,
    /// Tasks in the local queue now.
    pub queued: usize,
}

/// What one machine (M), a worker thread, did since the runtime started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MachineMetrics {
    /// The machine's number, from 0.
    pub number: usize,
    /// The kernel's id of the thread; `None` if it has ended.
    pub thread_id: Option<i32>,
    /// Polls begun.
    pub polls: u64,
    /// Times that it went to sleep for want of work.
    pub parks: u64,
    /// Times that it waited for sockets and timers.
    pub netpoll_waits: u64,
    /// CPU time that the thread has used; `None` if it has ended.
    pub cpu_time: Option<Duration>,
}

impl RuntimeMetrics {
    pub(super) fn new(scheduler: Arc<Scheduler>) -> Self {
        Self { scheduler }
    }

    /// The number of processors.
    pub fn num_workers(&self) -> usize {
        self.scheduler.processors.len()
    }

    /// How the runtime's threads are made: [`ThreadBackend::RawClone`] or [`ThreadBackend::Std`].
    pub fn thread_backend(&self) -> ThreadBackend {
        match thread::selected(self.scheduler.config.thread.backend) {
            Ok(selected) => match selected.backend {
                thread::Backend::Raw => ThreadBackend::RawClone,
                thread::Backend::Std => ThreadBackend::Std,
            },
            // No thread of this runtime could be started (or none was wanted): what was asked for.
            Err(_) => self.scheduler.config.thread.backend,
        }
    }

    /// Why [`ThreadBackend::Auto`] took `std::thread`; `None` if it did not have to.
    pub fn thread_fallback_reason(&self) -> Option<&'static str> {
        thread::selected(self.scheduler.config.thread.backend)
            .ok()
            .and_then(|selected| selected.fallback)
    }

    /// Tasks that have been spawned and have not completed.
    pub fn num_alive_tasks(&self) -> usize {
        let (spawned, completed) = self.scheduler.task_counts();
        spawned.saturating_sub(completed) as usize
    }

    /// Tasks that have been spawned so far, blocking closures included.
    pub fn spawned_tasks_count(&self) -> u64 {
        self.scheduler.task_counts().0
    }

    /// Tasks in the global queue.
    pub fn global_queue_depth(&self) -> usize {
        self.scheduler.global.len()
    }

    /// Threads for blocking closures.
    pub fn num_blocking_threads(&self) -> usize {
        self.scheduler.blocking.snapshot().0
    }

    /// Threads for blocking closures that wait for one.
    pub fn num_idle_blocking_threads(&self) -> usize {
        self.scheduler.blocking.snapshot().1
    }

    /// Blocking closures that wait for a thread.
    pub fn blocking_queue_depth(&self) -> usize {
        self.scheduler.blocking.snapshot().2
    }

    /// Processors that no thread holds now.
    pub fn num_idle_processors(&self) -> usize {
        self.scheduler.idle.snapshot().0 as usize
    }

    /// Threads that look for work now.
    pub fn num_spinning(&self) -> usize {
        self.scheduler.idle.snapshot().1 as usize
    }

    /// Times that a worker thread was wanted and the system refused to start one.
    pub fn refused_threads_count(&self) -> u64 {
        self.scheduler.refused_machines.load(Relaxed)
    }

    /// What each processor did.
    pub fn processors(&self) -> Vec<ProcessorMetrics> {
        let metrics = |p: &crate::sched::processor::Processor| ProcessorMetrics {
            index: p.index as usize,
            polls: p.stats.polls.get(),
            from_runnext: p.stats.from_runnext.get(),
            from_global: p.stats.from_global.get(),
            stolen: p.stats.stolen.get(),
            spilled: p.stats.spilled.get(),
            netpolls: p.stats.netpolls.get(),
            retaken: p.stats.retaken.get(),
            queued: p.ring.len(),
        };
        self.scheduler.processors.iter().map(metrics).collect()
    }

    /// What each machine did.
    pub fn machines(&self) -> Vec<MachineMetrics> {
        let metrics = |m: Arc<crate::sched::machine::Machine>| {
            let thread_id = Some(m.tid.load(Relaxed)).filter(|tid| *tid != 0);
            MachineMetrics {
                number: m.number as usize,
                thread_id,
                polls: m.stats.polls.get(),
                parks: m.stats.parks.get(),
                netpoll_waits: m.stats.netpoll_waits.get(),
                cpu_time: thread_id.and_then(clock::thread_cpu_time),
            }
        };
        self.scheduler
            .all_machines()
            .into_iter()
            .map(metrics)
            .collect()
    }

    /// How long tasks sat in a queue before they ran; every 8th transition is sampled.
    pub fn schedule_latency(&self) -> HistogramSnapshot {
        let mut all = HistogramSnapshot::new();
        for p in &self.scheduler.processors {
            p.latency.merge_into(&mut all);
        }
        all
    }
}

/// Two tables, of the processors and of the machines, and a line on how long tasks sat in run
/// queues: for people to read, with no promise of stability.
///
/// ```text
/// Processors     polls    runnext     global     stolen    spilled   netpolls    retaken
///   P 0        180,371     82,303          2      3,272          0      2,952          0
///   P 1        179,346     81,896         63      3,298          0      2,934          0
///
/// Machines       polls      parks    netpoll        CPU     thread
///   M 0        179,348          4         11   1,005 ms       1856
///   M 1        180,369          7          1   1,005 ms       1857
///
/// Run queue  41,096 samples, mean 4.1µs, p50 2.3µs, p90 9.2µs, p99 30.7µs, p99.9 81.9µs, max 1.2ms
/// ```
impl fmt::Display for RuntimeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, first: &str, rest: &[String]| {
            write!(f, "{first:<10}")?;
            for cell in rest {
                write!(f, " {cell:>10}")?;
            }
            writeln!(f)
        };
        let head = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).into()).collect() };

        let names = [
            "polls", "runnext", "global", "stolen", "spilled", "netpolls", "retaken",
        ];
        row(f, "Processors", &head(&names))?;
        for p in self.processors() {
            let counts = [
                p.polls,
                p.from_runnext,
                p.from_global,
                p.stolen,
                p.spilled,
                p.netpolls,
                p.retaken,
            ];
            row(f, &format!("  P {}", p.index), &counts.map(grouped))?;
        }
        writeln!(f)?;
        let names = ["polls", "parks", "netpoll", "CPU", "thread"];
        row(f, "Machines", &head(&names))?;
        for m in self.machines() {
            let cpu = m.cpu_time.map(|cpu| cpu.as_millis() as u64);
            let cells = [
                grouped(m.polls),
                grouped(m.parks),
                grouped(m.netpoll_waits),
                cpu.map_or("-".into(), |ms| grouped(ms) + " ms"),
                m.thread_id.map_or("ended".into(), |tid| tid.to_string()),
            ];
            row(f, &format!("  M {}", m.number), &cells)?;
        }
        writeln!(f)?;
        writeln!(f, "Run queue  {}", self.schedule_latency())
    }
}

/// 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
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
    use crate::runtime::Builder;

    #[test]
    fn the_tables_have_a_row_for_each_processor_and_machine() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(3)
            .build()
            .unwrap();
        runtime.block_on(async { crate::spawn(async {}).await.unwrap() });
        let metrics = runtime.metrics();
        let text = metrics.to_string();
        let rows = |start| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(rows("  P "), 3, "{text}");
        // Not fewer: a machine may be added while the text is made, never taken away.
        assert!(rows("  M ") >= 3, "{text}");
        assert!(text.lines().last().unwrap().starts_with("Run queue  "));
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(super::grouped(number), text);
        }
    }
}
