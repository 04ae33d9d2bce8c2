//! The shortest ways through the whole of gort.

use gort::runtime::Builder;

fn runtimes() -> Vec<gort::runtime::Runtime> {
    let mut all = vec![Builder::new_current_thread().enable_all().build().unwrap()];
    for workers in [1, 2, 4] {
        all.push(
            Builder::new_multi_thread()
                .worker_threads(workers)
                .enable_all()
                .build()
                .unwrap(),
        );
    }
    all
}

#[test]
fn spawn_and_join() {
    for runtime in runtimes() {
        let sum = runtime.block_on(async {
            let tasks: Vec<_> = (0..10_000u64)
                .map(|n| {
                    gort::spawn(async move {
                        gort::task::yield_now().await;
                        n
                    })
                })
                .collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.unwrap();
            }
            sum
        });
        assert_eq!(sum, 49_995_000);
    }
}
