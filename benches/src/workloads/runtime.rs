//! Starting and ending whole runtimes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::Workload;
use crate::WORKERS;
use crate::rt::Runtime;

pub(super) fn workloads<R: Runtime>() -> Vec<Workload<R>> {
    vec![
        Workload::outside("runtime start and drop", 300, |_: &R, ops| {
            start_drop::<R>(ops)
        }),
        Workload::outside("runtime start, one task, drop", 300, |_: &R, ops| {
            start_run_drop::<R>(ops)
        }),
    ]
}

fn start_drop<R: Runtime>(times: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        drop(black_box(R::new(WORKERS)));
    }
    start.elapsed()
}

fn start_run_drop<R: Runtime>(times: u64) -> Duration {
    let start = Instant::now();
    for i in 0..times {
        let rt = R::new(WORKERS);
        assert_eq!(rt.run(async move { black_box(i) }), i);
    }
    start.elapsed()
}
