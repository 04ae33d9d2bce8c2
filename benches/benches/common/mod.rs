//! A group of workloads as criterion benches: a criterion group a workload, a function a runtime.

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use gort_benches::workloads::Contender;

/// Runs all workloads of a group; the command line is criterion's (`-- --quick`, a filter, …).
pub(crate) fn bench(group: &str) {
    let contenders = Contender::all();
    let mut criterion = Criterion::default()
        // A run is tens of milliseconds of many operations: few samples say enough.
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (index, (name, ops)) in contenders[0].list(group).into_iter().enumerate() {
        let mut group_of = criterion.benchmark_group(name);
        group_of
            .sampling_mode(SamplingMode::Flat)
            .throughput(Throughput::Elements(ops));
        for contender in &contenders {
            match contender.prepare(group, index) {
                Ok(mut run) => {
                    group_of.bench_function(contender.name, |bencher| {
                        bencher.iter_custom(|runs| (0..runs).map(|_| run(ops)).sum());
                    });
                }
                Err(why) => eprintln!("skipped: {name} on {}: {why}", contender.name),
            }
        }
        group_of.finish();
    }
    criterion.final_summary();
}
