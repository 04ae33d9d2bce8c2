//! Every workload on every runtime, once and small: what a run checks of itself must hold.

use gort_benches::workloads::{Contender, GROUPS};

#[test]
fn every_workload_runs_on_every_runtime() {
    let contenders = Contender::all();
    for group in GROUPS {
        let names = contenders[0].list(group);
        for contender in &contenders {
            assert_eq!(
                contender.list(group),
                names,
                "the same workloads on {}",
                contender.name
            );
        }
        for (index, (name, ops)) in names.into_iter().enumerate() {
            for contender in &contenders {
                println!("{group}: {name} on {}", contender.name);
                match contender.prepare(group, index) {
                    // The least that still makes use of each task and connection.
                    Ok(mut run) => drop(run(ops.div_ceil(20))),
                    Err(why) => println!("skipped: {why}"),
                }
            }
        }
    }
}
