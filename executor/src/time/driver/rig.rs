//! Timers driven by hand: the hour is the unit, so that real time plays no part.

use super::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

pub(in crate::time) const HOUR: Duration = Duration::from_secs(3600);

pub(in crate::time) struct Rig {
    timers: Arc<Timers>,
    unparks: Arc<AtomicUsize>,
    /// The numbers of the wakers that were woken, in order.
    woken: Arc<Mutex<Vec<u32>>>,
}

struct Numbered {
    id: u32,
    woken: Arc<Mutex<Vec<u32>>>,
}

impl Wake for Numbered {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push(self.id);
    }
}

impl Rig {
    pub(in crate::time) fn new(queues: usize) -> Self {
        let unparks = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&unparks);
        let unpark = Box::new(move || {
            // Relaxed: read on the same thread or after a join.
            counter.fetch_add(1, Ordering::Relaxed);
        });
        Self {
            timers: Arc::new(Timers::new(queues, unpark)),
            unparks,
            woken: Arc::default(),
        }
    }

    pub(in crate::time) fn timers(&self) -> Arc<Timers> {
        Arc::clone(&self.timers)
    }

    /// The full hour `hours` after the start.
    pub(in crate::time) fn at(&self, hours: u32) -> Instant {
        self.timers.start + HOUR * hours
    }

    /// A waker that reports under the number `id`.
    pub(in crate::time) fn waker(&self, id: u32) -> Waker {
        let woken = Arc::clone(&self.woken);
        Waker::from(Arc::new(Numbered { id, woken }))
    }

    /// Expires a queue at an hour and returns whose wakers were woken, in order.
    pub(in crate::time) fn expire(&self, queue: usize, hours: u32) -> Vec<u32> {
        let mut out = WakeList::new();
        self.timers.expire(queue, self.at(hours), &mut out);
        out.wake_all();
        self.woken()
    }

    /// Shuts down and returns whose wakers were woken.
    pub(in crate::time) fn shutdown(&self) -> Vec<u32> {
        let mut out = WakeList::new();
        self.timers.shutdown(&mut out);
        out.wake_all();
        self.woken()
    }

    /// Whose wakers were woken since the last look.
    pub(in crate::time) fn woken(&self) -> Vec<u32> {
        std::mem::take(&mut self.woken.lock().unwrap())
    }

    /// How often the hook was called since the last look.
    pub(super) fn unparks(&self) -> usize {
        self.unparks.swap(0, Ordering::Relaxed)
    }

    pub(super) fn timer(&self, queue: usize) -> Timer {
        Timer::new(self.timers(), queue)
    }

    pub(super) fn poll(&self, timer: &mut Timer, hours: u32, id: u32) -> Poll<Result<(), Error>> {
        timer.poll(self.at(hours), &mut Context::from_waker(&self.waker(id)))
    }

    /// A timer of queue 0 that is armed and polled by the waker of that number.
    pub(super) fn armed(&self, hours: u32, id: u32) -> Timer {
        let mut timer = self.timer(0);
        assert!(self.poll(&mut timer, hours, id).is_pending());
        timer
    }

    /// `Timers::prepare_sleep` at an hour, in hours.
    pub(super) fn prepare_sleep(&self, hours: u32) -> Option<f64> {
        let duration = self.timers.prepare_sleep_at(|| self.at(hours))?;
        Some(duration.as_secs_f64() / HOUR.as_secs_f64())
    }
}
