//! Running a future on the calling thread.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use std::task::{Context, Poll, Wake, Waker};

use super::Handle;
use super::context;
use crate::os::parker::{Parker, Unpark};
use crate::sched::Scheduler;
use crate::sched::budget;
use crate::sched::machine::Machine;
use crate::sched::worker::{Main, Worker};

/// Wakes a thread that only waits for its own future.
struct ThreadWaker(Parker);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let unpark = self.0.unpark();
        debug_assert_eq!(unpark, Unpark::Done, "this thread parks nowhere else");
    }
}

/// Runs a future on the calling thread, which runs nothing else meanwhile.
#[track_caller]
pub(super) fn park_on<F: Future>(handle: &Handle, future: F) -> F::Output {
    context::drive(handle, || {
        let thread = Arc::new(ThreadWaker(Parker::new()));
        let waker = Waker::from(Arc::clone(&thread));
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            thread.0.park(None);
        }
    })
}

/// Wakes the M that a thread is while it drives a current-thread runtime.
struct MainWaker {
    /// Release by the waker, AcqRel by the M that takes it: what the waker did before is visible
    /// to the poll that follows.
    woken: AtomicBool,
    machine: Arc<Machine>,
    scheduler: Arc<Scheduler>,
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Release) {
            self.scheduler.unpark(&self.machine);
        }
    }
}

/// The future of `block_on` as the worker's loop sees it. A panic is kept, since the loop must
/// hand its P back before it unwinds.
struct MainFuture<'a, F: Future> {
    future: Pin<&'a mut F>,
    waker: Arc<MainWaker>,
    as_waker: Waker,
    result: Option<Result<F::Output, Box<dyn Any + Send>>>,
}

impl<F: Future> Main for MainFuture<'_, F> {
    fn is_woken(&self) -> bool {
        self.waker.woken.load(Acquire)
    }

    fn poll(&mut self) -> bool {
        // Acquire pairs with `wake_by_ref`.
        self.waker.woken.swap(false, AcqRel);
        let mut cx = Context::from_waker(&self.as_waker);
        let future = self.future.as_mut();
        self.result = match catch_unwind(AssertUnwindSafe(|| future.poll(&mut cx))) {
            Ok(Poll::Pending) => return false,
            Ok(Poll::Ready(output)) => Some(Ok(output)),
            Err(payload) => Some(Err(payload)),
        };
        true
    }
}

/// Runs a future on the calling thread, which is an M of the current-thread runtime meanwhile: it
/// holds the P, unless another thread does.
#[track_caller]
pub(super) fn drive_on<F: Future>(handle: &Handle, future: F) -> F::Output {
    context::assert_not_driving();
    // Outlives the future, whose drop may ask for the runtime too.
    let _context = context::enter(handle);
    let scheduler = Arc::clone(handle.scheduler());
    let machine = scheduler.register_machine();
    let waker = Arc::new(MainWaker {
        woken: AtomicBool::new(true),
        machine: Arc::clone(&machine),
        scheduler: Arc::clone(&scheduler),
    });
    let mut main = MainFuture {
        future: pin!(future),
        as_waker: Waker::from(Arc::clone(&waker)),
        waker,
        result: None,
    };
    budget::set_aside(|| {
        let worker = Worker::new(Arc::clone(&scheduler), Arc::clone(&machine));
        context::run_worker(&worker, handle, || worker.run_main(&mut main));
    });
    scheduler.retire_machine(machine);
    match main.result {
        Some(Ok(output)) => output,
        Some(Err(payload)) => resume_unwind(payload),
        None => unreachable!("a runtime is borrowed, and so not shut down, while it is driven"),
    }
}
