//! Many threads. Nothing here depends on speed: a lost wake-up shows as a wait that does not end,
//! which the generous limit turns into a failure.

use super::rig::HOUR;
use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::task::{Wake, Waker};
use std::thread;

/// Far beyond any scheduling delay.
const LIMIT: Duration = Duration::from_secs(120);

/// A flag to wait for that stays up until it is taken: a waker, and the eventfd of netpoll.
#[derive(Default)]
struct Latch {
    up: Mutex<bool>,
    changed: Condvar,
    raised: AtomicUsize,
}

impl Latch {
    fn raise(&self) {
        *self.up.lock().unwrap() = true;
        self.raised.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Waits for the flag and takes it.
    fn take(&self, what: &str) {
        let guard = self.up.lock().unwrap();
        let (mut up, result) = self
            .changed
            .wait_timeout_while(guard, LIMIT, |up| !*up)
            .unwrap();
        assert!(!result.timed_out(), "{what}: the wake-up was lost");
        *up = false;
    }
}

impl Wake for Latch {
    fn wake(self: Arc<Self>) {
        self.raise();
    }
}

/// Steps of a sequence that differs between threads and is the same in each run.
fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// One thread sleeps until the next timer, as the M in netpoll does; others arm timers and wait
/// for them. Time jumps: a sleep with a deadline is over at once, one without lasts until the hook
/// is called.
#[test]
fn a_sleeper_never_misses_a_timer() {
    const ROUNDS: usize = 4_000;
    const ARMERS: usize = 3;
    let hook = Arc::new(Latch::default());
    let unpark = Arc::clone(&hook);
    let timers = Arc::new(Timers::new(2, Box::new(move || unpark.raise())));
    let deadline = timers.start + HOUR;
    let done = AtomicBool::new(false);
    let (mut blocked, mut fired) = (0, 0);
    thread::scope(|s| {
        let armers: Vec<_> = (0..ARMERS)
            .map(|armer| {
                let timers = &timers;
                s.spawn(move || {
                    let mut state = armer as u64 + 1;
                    let mine = Arc::new(Latch::default());
                    let waker = Waker::from(Arc::clone(&mine));
                    for _ in 0..ROUNDS {
                        for _ in 0..random(&mut state) % 200 {
                            std::hint::spin_loop();
                        }
                        let mut timer = Timer::new(Arc::clone(timers), armer % 2);
                        let mut cx = Context::from_waker(&waker);
                        while timer.poll(deadline, &mut cx).is_pending() {
                            mine.take("a timer that was armed");
                        }
                    }
                })
            })
            .collect();
        s.spawn(|| {
            let mut out = WakeList::new();
            // Relaxed: the hook is raised after the store, and its lock orders the two.
            while !done.load(Ordering::Relaxed) {
                if timers.prepare_sleep().is_none() {
                    blocked += 1;
                    hook.take("the sleep of the poller");
                }
                timers.end_sleep();
                for queue in 0..timers.queues() {
                    fired += timers.expire(queue, deadline, &mut out);
                }
                out.wake_all();
            }
        });
        armers.into_iter().for_each(|armer| armer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        hook.raise();
    });
    println!("fired {fired}, slept without a deadline {blocked} times");
    assert_eq!(fired, ROUNDS * ARMERS);
}

/// Owners arm, reset, drop and wait on each other's queues while other threads expire them.
#[test]
fn owners_and_expirers_on_many_threads() {
    const OWNERS: usize = 4;
    const EXPIRERS: usize = 2;
    const TIMERS: usize = 4_000;
    let timers = Arc::new(Timers::new(3, Box::new(|| {})));
    let (start, due) = (timers.start, timers.start + HOUR * 50);
    let owners_left = AtomicUsize::new(OWNERS);
    let (fired, waited, dropped) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    thread::scope(|s| {
        for owner in 0..OWNERS {
            let (timers, owners_left, waited, dropped) = (&timers, &owners_left, &waited, &dropped);
            s.spawn(move || {
                let mut state = owner as u64 + 11;
                for _ in 0..TIMERS {
                    let latch = Arc::new(Latch::default());
                    let waker = Waker::from(Arc::clone(&latch));
                    let mut cx = Context::from_waker(&waker);
                    let queue = random(&mut state) as usize % timers.queues();
                    let mut timer = Timer::new(Arc::clone(timers), queue);
                    let hours = 1 + random(&mut state) as u32 % 40;
                    let mut pending = timer.poll(start + HOUR * hours, &mut cx).is_pending();
                    if pending && random(&mut state) % 4 == 0 {
                        timer.reset(start + HOUR * (hours + 5), start);
                        pending = timer.poll(start + HOUR * (hours + 5), &mut cx).is_pending();
                    }
                    if random(&mut state) % 3 == 0 {
                        dropped.fetch_add(1, Ordering::Relaxed);
                        drop(timer);
                    } else {
                        while pending {
                            latch.take("a timer");
                            pending = timer.poll(due, &mut cx).is_pending();
                        }
                        waited.fetch_add(1, Ordering::Relaxed);
                        assert!(timer.is_elapsed());
                        drop(timer);
                    }
                    // A waker for the first arming and one for the reset after it had fired.
                    assert!(latch.raised.load(Ordering::Relaxed) <= 2);
                    drop(waker);
                }
                owners_left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for _ in 0..EXPIRERS {
            s.spawn(|| {
                let mut out = WakeList::new();
                while owners_left.load(Ordering::Relaxed) > 0 {
                    for queue in 0..timers.queues() {
                        let n = timers.expire(queue, due, &mut out);
                        fired.fetch_add(n, Ordering::Relaxed);
                    }
                    out.wake_all();
                    thread::yield_now();
                }
            });
        }
    });
    let [fired, waited, dropped] = [fired, waited, dropped].map(AtomicUsize::into_inner);
    println!("fired {fired}, waited for {waited}, dropped {dropped}");
    assert_eq!(waited + dropped, OWNERS * TIMERS);
    assert!(fired >= waited);
    assert_eq!(timers.next_deadline(), None);
}
