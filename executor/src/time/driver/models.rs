//! loom models: every interleaving of the real code with few threads. Deadlines are hours away, so
//! that real time decides nothing.

use super::*;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::task::{Wake, Waker};

const HOUR: Duration = Duration::from_secs(3600);

/// Counts wake-ups.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(0)))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Model {
    timers: Arc<Timers>,
    unparks: Arc<Count>,
}

impl Model {
    fn new(queues: usize) -> Self {
        let unparks = Count::new();
        let count = Arc::clone(&unparks);
        let timers = Timers::new(queues, Box::new(move || Arc::clone(&count).wake()));
        Self {
            timers: Arc::new(timers),
            unparks,
        }
    }

    fn at(&self, hours: u32) -> Instant {
        self.timers.start + HOUR * hours
    }

    fn arm(&self, queue: usize, hours: u32) -> Timer {
        let mut timer = Timer::new(Arc::clone(&self.timers), queue);
        timer.reset(self.at(hours), self.timers.start);
        timer
    }

    fn thread<R: 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&Self) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let this = Arc::clone(self);
        thread::spawn(move || f(&this))
    }

    fn expire(&self, hours: u32) -> usize {
        let mut out = WakeList::new();
        let fired = self.timers.expire(0, self.at(hours), &mut out);
        out.wake_all();
        fired
    }

    fn poll(&self, timer: &mut Timer, count: &Arc<Count>) -> Poll<Result<(), Error>> {
        let waker = Waker::from(Arc::clone(count));
        timer.poll(self.at(9), &mut Context::from_waker(&waker))
    }
}

/// In whole hours, as everything happens within the first second.
fn hours(duration: Option<Duration>) -> u64 {
    duration.map_or(u64::MAX, |d| (d.as_secs() + 1800) / 3600)
}

#[test]
fn a_sleeper_counts_a_timer_in_or_is_woken() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let armer = model.thread(|m| m.arm(0, 5));
        let sleep = hours(model.timers.prepare_sleep());
        let _timer = armer.join().unwrap();
        assert!(sleep == 5 || model.unparks.get() == 1);
    });
}

#[test]
fn two_earlier_timers_against_a_sleeper_that_has_one() {
    loom::model(|| {
        let model = Arc::new(Model::new(2));
        let _late = model.arm(0, 8);
        let a = model.thread(|m| m.arm(0, 5));
        let b = model.thread(|m| m.arm(1, 2));
        let sleep = hours(model.timers.prepare_sleep());
        let _timers = (a.join().unwrap(), b.join().unwrap());
        assert!(sleep == 2 || model.unparks.get() >= 1, "{sleep}");
    });
}

#[test]
fn a_sleeper_that_returns_and_sleeps_again() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let armer = model.thread(|m| m.arm(0, 5));
        model.timers.prepare_sleep();
        model.timers.end_sleep();
        let before = model.unparks.get();
        let sleep = hours(model.timers.prepare_sleep());
        let _timer = armer.join().unwrap();
        // A hook that was called before is latched, but the M may have used it up already.
        assert!(sleep == 5 || model.unparks.get() > before);
    });
}

#[test]
fn an_arm_while_another_timer_of_the_queue_goes() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let first = model.arm(0, 3);
        let armer = model.thread(|m| m.arm(0, 5));
        let dropper = thread::spawn(move || drop(first));
        let sleep = hours(model.timers.prepare_sleep());
        let _timer = armer.join().unwrap();
        dropper.join().unwrap();
        assert!(sleep <= 5 || model.unparks.get() == 1, "{sleep}");
    });
}

#[test]
fn a_poll_against_firing() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let mut timer = model.arm(0, 1);
        let expirer = model.thread(|m| m.expire(1));
        let count = Count::new();
        let pending = model.poll(&mut timer, &count).is_pending();
        assert_eq!(expirer.join().unwrap(), 1);
        assert_eq!(count.get(), usize::from(pending));
        assert!(model.poll(&mut timer, &count).is_ready());
    });
}

#[test]
fn a_new_waker_against_firing() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let mut timer = model.arm(0, 1);
        let (old, new) = (Count::new(), Count::new());
        assert!(model.poll(&mut timer, &old).is_pending());
        let expirer = model.thread(|m| m.expire(1));
        let pending = model.poll(&mut timer, &new).is_pending();
        expirer.join().unwrap();
        // Pending: the new waker is in place, and the old one is out of it.
        assert_eq!(
            (old.get(), new.get()),
            if pending { (0, 1) } else { (1, 0) }
        );
    });
}

#[test]
fn two_expirers_fire_once() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let mut timer = model.arm(0, 1);
        let count = Count::new();
        assert!(model.poll(&mut timer, &count).is_pending());
        let other = model.thread(|m| m.expire(2));
        let fired = model.expire(1) + other.join().unwrap();
        assert_eq!((fired, count.get()), (1, 1));
    });
}

#[test]
fn a_drop_against_firing() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let mut timer = model.arm(0, 1);
        let count = Count::new();
        assert!(model.poll(&mut timer, &count).is_pending());
        let expirer = model.thread(|m| m.expire(1));
        drop(timer);
        let fired = expirer.join().unwrap();
        assert_eq!(count.get(), fired);
        assert_eq!(
            Arc::strong_count(&count),
            1,
            "the entry and its waker are gone"
        );
        assert_eq!(model.timers.next_deadline(), None);
    });
}

#[test]
fn a_reset_against_firing() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let mut timer = model.arm(0, 1);
        let count = Count::new();
        assert!(model.poll(&mut timer, &count).is_pending());
        let expirer = model.thread(|m| m.expire(1));
        timer.reset(model.at(3), model.timers.start);
        let fired = expirer.join().unwrap();
        assert_eq!(count.get(), fired);
        // Whatever came first, it is armed now, for the new deadline.
        assert!(model.poll(&mut timer, &count).is_pending());
        assert_eq!(model.expire(2), 0);
        assert_eq!(model.expire(3), 1);
        assert!(model.poll(&mut timer, &count).is_ready());
    });
}

#[test]
fn an_arm_against_shutdown() {
    loom::model(|| {
        let model = Arc::new(Model::new(1));
        let closer = model.thread(|m| {
            let mut out = WakeList::new();
            m.timers.shutdown(&mut out);
            out.wake_all();
        });
        let mut timer = Timer::new(Arc::clone(&model.timers), 0);
        let count = Count::new();
        let pending = model.poll(&mut timer, &count).is_pending();
        closer.join().unwrap();
        assert_eq!(
            count.get(),
            usize::from(pending),
            "a pending sleep is woken"
        );
        assert!(matches!(
            model.poll(&mut timer, &count),
            Poll::Ready(Err(_))
        ));
    });
}
