//! The scheduler bugs that reviews found, each with the program that showed it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use gort::runtime::{Builder, Handle};

/// Runs `f` on a thread; false: it did not end in time.
fn ends(within: Duration, f: impl FnOnce() + Send + 'static) -> bool {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        let _ = tx.send(());
    });
    rx.recv_timeout(within).is_ok()
}

/// A current-thread runtime, two threads in block_on; the driver's own future is woken from
/// outside and done without a P: nobody relays.
#[test]
fn a_driver_that_leaves_without_a_p_hands_over() {
    assert!(
        ends(Duration::from_secs(5), || {
            let rt = Arc::new(Builder::new_current_thread().enable_all().build().unwrap());
            let (tx, rx) = gort::sync::oneshot::channel::<()>();
            let a = {
                let rt = rt.clone();
                std::thread::spawn(move || rt.block_on(async { rx.await.unwrap() }))
            };
            std::thread::sleep(Duration::from_millis(200));
            let b = {
                let rt = rt.clone();
                std::thread::spawn(move || {
                    rt.block_on(async { gort::time::sleep(Duration::from_millis(500)).await })
                })
            };
            std::thread::sleep(Duration::from_millis(200));
            tx.send(()).unwrap();
            a.join().unwrap();
            b.join().unwrap();
        }),
        "b hangs: nobody is in netpoll"
    );
}

/// A user's thread_name_fn panics at spawn_blocking: the drop of the runtime hangs.
#[test]
fn a_thread_name_that_panics_does_not_hang_the_shutdown() {
    assert!(
        ends(Duration::from_secs(5), || {
            let calls = Arc::new(AtomicUsize::new(0));
            let rt = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name_fn(move || {
                    assert!(calls.fetch_add(1, SeqCst) == 0, "on purpose");
                    "x".into()
                })
                .build()
                .unwrap();
            let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                drop(rt.spawn_blocking(|| ()))
            }));
            println!("spawn_blocking panicked: {}", r.is_err());
            drop(rt);
        }),
        "drop(runtime) hangs"
    );
}

/// A guard that a task forgets: the worker panics at its end, and is never counted out.
#[test]
fn a_forgotten_enter_guard_does_not_hang_the_shutdown() {
    assert!(
        ends(Duration::from_secs(5), || {
            let rt = Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap();
            let handle = rt.handle().clone();
            rt.block_on(async move {
                gort::spawn(async move { std::mem::forget(handle.enter()) })
                    .await
                    .unwrap()
            });
            drop(rt);
        }),
        "drop(runtime) hangs"
    );
}

struct InContext(Arc<AtomicBool>);
impl Drop for InContext {
    fn drop(&mut self) {
        self.0.store(Handle::try_current().is_ok(), SeqCst);
    }
}

/// The future of block_on is dropped within the runtime's context: multi yes, current-thread no.
#[test]
fn the_main_future_is_dropped_inside_its_context() {
    let check = |mut builder: Builder| {
        let seen = Arc::new(AtomicBool::new(false));
        let guard = InContext(seen.clone());
        builder.build().unwrap().block_on(poll_fn(move |_| {
            let _ = &guard;
            Poll::Ready(())
        }));
        seen.load(SeqCst)
    };
    let multi = check(Builder::new_multi_thread());
    let current = check(Builder::new_current_thread());
    println!("multi {multi}, current {current}");
    assert!(multi && current);
}

/// No M can be started after a retake, and the stuck task has woken one into runnext: stranded.
#[test]
fn a_start_refused_after_a_retake_strands_nothing() {
    if std::env::var_os("R7_CHILD").is_none() {
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_start_refused_after_a_retake_strands_nothing",
                "--nocapture",
            ])
            .env("R7_CHILD", "1")
            .output()
            .unwrap();
        println!(
            "{}\n{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(out.status.success());
        return;
    }
    assert!(ends(Duration::from_secs(20), || {
        let rt = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_stack_size(1 << 30)
            .build()
            .unwrap();
        let handle = rt.handle().clone();
        let (started_tx, started_rx) = mpsc::channel();
        let (go_tx, go_rx) = mpsc::channel::<()>();
        let (done_tx, done_rx) = mpsc::channel();
        std::thread::sleep(Duration::from_millis(100));
        rt.spawn(async move {
            // Into the empty runnext.
            gort::spawn(async move { done_tx.send(()).unwrap() });
            started_tx.send(()).unwrap();
            go_rx.recv().unwrap();
        });
        started_rx.recv().unwrap();
        // No room for another stack of a gigabyte.
        let pages: u64 = std::fs::read_to_string("/proc/self/statm")
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let limit = libc::rlimit {
            rlim_cur: pages * 4096 + (64 << 20),
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: a plain call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        let retaken = handle.__retake(0);
        println!(
            "retaken {retaken}, refused {}",
            rt.metrics().refused_threads_count()
        );
        go_tx.send(()).unwrap();
        let done = done_rx.recv_timeout(Duration::from_secs(5));
        println!("the task in runnext ran: {done:?}; {}", rt.metrics());
        // A push from outside finds it.
        rt.spawn(async {});
        println!(
            "after another spawn: {:?}",
            done_rx.recv_timeout(Duration::from_secs(5))
        );
        if done.is_err() {
            std::process::exit(3);
        }
    }));
}

/// How many threads start for two workers.
#[test]
fn as_many_threads_as_workers_at_the_start() {
    let mut most = 0;
    for _ in 0..200 {
        let started = Arc::new(AtomicUsize::new(0));
        let count = started.clone();
        let rt = Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(move || {
                count.fetch_add(1, SeqCst);
            })
            .build()
            .unwrap();
        rt.block_on(async {
            let t: Vec<_> = (0..10).map(|_| gort::spawn(async {})).collect();
            for t in t {
                t.await.unwrap();
            }
        });
        drop(rt);
        most = most.max(started.load(SeqCst));
    }
    println!("2 workers, at most {most} threads started");
    assert!(most <= 2);
}

struct Enters(Handle, Arc<AtomicBool>);
impl Drop for Enters {
    fn drop(&mut self) {
        let _guard = self.0.enter();
        self.1.store(true, SeqCst);
    }
}

/// `gort::spawn` on a closed runtime drops the future inside a borrow of the context.
#[test]
fn a_future_refused_by_a_closed_runtime_may_enter_it() {
    let rt = Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let handle = rt.handle().clone();
    drop(rt);
    let entered = Arc::new(AtomicBool::new(false));
    let guard = Enters(handle.clone(), entered.clone());
    let _context = handle.enter();
    let join = gort::spawn(async move { drop(guard) });
    assert!(join.is_finished());
    assert!(
        entered.load(SeqCst),
        "the future's drop panicked: already borrowed"
    );
}

struct BadDrop;
impl std::task::Wake for BadDrop {
    fn wake(self: Arc<Self>) {}
}
impl Drop for BadDrop {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

struct Counts(Arc<AtomicUsize>);
impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A join waker whose drop panics: JoinHandle's drop leaks its reference, cell and scheduler.
#[test]
fn a_join_waker_whose_drop_panics_leaks_nothing() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let guard = Counts(dropped.clone());
    let rt = Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_park(move || {
            let _ = &guard;
        })
        .build()
        .unwrap();
    let mut join = rt.spawn(std::future::pending::<()>());
    let waker = std::task::Waker::from(Arc::new(BadDrop));
    {
        use std::future::Future;
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(std::pin::Pin::new(&mut join).poll(&mut cx).is_pending());
    }
    drop(rt);
    drop(waker);
    let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(join)));
    println!(
        "drop of the handle panicked: {}, scheduler freed: {}",
        r.is_err(),
        dropped.load(SeqCst)
    );
    assert_eq!(dropped.load(SeqCst), 1, "leaked");
}

struct Blocks {
    entered: mpsc::Sender<()>,
    go: std::sync::Mutex<mpsc::Receiver<()>>,
    ran: AtomicBool,
}
impl std::task::Wake for Blocks {
    fn wake(self: Arc<Self>) {
        self.entered.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap(); // the P is taken here
        let (tx, rx) = mpsc::channel();
        // Notices the loss.
        drop(gort::spawn(async move { tx.send(()).unwrap() }));
        rx.recv().unwrap();
        self.ran.store(true, SeqCst);
        self.go.lock().unwrap().recv().unwrap(); // until the other M has parked
    }
}

/// An M that loses its P while it wakes what netpoll gave parks without being on the idle list,
/// and still counts as spinning: nobody is woken any more.
#[test]
fn a_p_retaken_while_wakers_run_leaves_no_ghost_spinner() {
    assert!(ends(Duration::from_secs(15), || {
        let rt = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (entered, entered_rx) = mpsc::channel();
        let (go, go_rx) = mpsc::channel();
        let blocks = Arc::new(Blocks {
            entered,
            go: std::sync::Mutex::new(go_rx),
            ran: AtomicBool::new(false),
        });
        let waker = std::task::Waker::from(blocks.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let mut sleep = Box::pin({
            let _g = rt.enter();
            gort::time::sleep(Duration::from_millis(200))
        });
        use std::future::Future;
        assert!(
            sleep
                .as_mut()
                .poll(&mut std::task::Context::from_waker(&waker))
                .is_pending()
        );
        entered_rx.recv().unwrap();
        let s = stop.clone();
        let busy = rt.spawn(async move {
            while !s.load(SeqCst) {
                gort::task::yield_now().await
            }
        });
        println!("retaken {}", rt.handle().__retake(0));
        std::thread::sleep(Duration::from_millis(200));
        go.send(()).unwrap();
        while !blocks.ran.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, SeqCst);
        while !busy.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(200));
        go.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let m = rt.metrics();
        println!(
            "idle Ps {}, spinning {}",
            m.num_idle_processors(),
            m.num_spinning()
        );
        let (tx, rx) = mpsc::channel();
        rt.spawn(async move { tx.send(()).unwrap() });
        let ran = rx.recv_timeout(Duration::from_secs(4));
        println!(
            "a task spawned afterwards: {ran:?}; queued {}",
            m.global_queue_depth()
        );
        if ran.is_err() {
            std::process::exit(3);
        }
    }));
}
