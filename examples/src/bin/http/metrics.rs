//! What the scheduler did so far, as JSON.

use gort::runtime::RuntimeMetrics;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Metrics {
    alive_tasks: usize,
    spawned_tasks: u64,
    global_queue: usize,
    processors: Vec<Processor>,
    machines: Vec<Machine>,
    run_queue_latency_us: Latency,
}

#[derive(Serialize)]
struct Processor {
    p: usize,
    polls: u64,
    runnext: u64,
    global: u64,
    stolen: u64,
    spilled: u64,
    netpolls: u64,
    retaken: u64,
    queued: usize,
}

#[derive(Serialize)]
struct Machine {
    m: usize,
    polls: u64,
    parks: u64,
    netpoll: u64,
    cpu_ms: Option<u128>,
    thread: Option<i32>,
}

#[derive(Serialize)]
struct Latency {
    samples: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Metrics {
    pub(crate) fn new(metrics: &RuntimeMetrics) -> Self {
        let processors = metrics.processors().into_iter().map(|p| Processor {
            p: p.index,
            polls: p.polls,
            runnext: p.from_runnext,
            global: p.from_global,
            stolen: p.stolen,
            spilled: p.spilled,
            netpolls: p.netpolls,
            retaken: p.retaken,
            queued: p.queued,
        });
        let machines = metrics.machines().into_iter().map(|m| Machine {
            m: m.number,
            polls: m.polls,
            parks: m.parks,
            netpoll: m.netpoll_waits,
            cpu_ms: m.cpu_time.map(|time| time.as_millis()),
            thread: m.thread_id,
        });
        let latency = metrics.schedule_latency();
        let micros = |percent| latency.percentile(percent).as_nanos() as f64 / 1000.0;
        Self {
            alive_tasks: metrics.num_alive_tasks(),
            spawned_tasks: metrics.spawned_tasks_count(),
            global_queue: metrics.global_queue_depth(),
            processors: processors.collect(),
            machines: machines.collect(),
            run_queue_latency_us: Latency {
                samples: latency.count(),
                p50: micros(50.0),
                p90: micros(90.0),
                p99: micros(99.0),
                max: micros(100.0),
            },
        }
    }
}
