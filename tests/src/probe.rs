//! Things that count what happens to them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

/// A counter that is shared by cloning.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    /// A counter at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one more.
    pub fn add(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    /// The count.
    pub fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// A waker that counts its wakes.
pub fn counting_waker() -> (Count, Waker) {
    struct Counting(Count);
    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.add();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.0.add();
        }
    }
    let count = Count::new();
    (count.clone(), Waker::from(Arc::new(Counting(count))))
}

/// What is known of a [`Probe`]'s future or output.
#[derive(Debug, Default)]
struct Seen {
    polls: usize,
    drops: Vec<ThreadId>,
    output_drops: Vec<ThreadId>,
    waker: Option<Waker>,
    ready: bool,
}

/// Watches one future, which parks until [`Probe::finish`] lets it complete, and the output.
#[derive(Clone, Debug, Default)]
pub struct Probe(Arc<Mutex<Seen>>);

impl Probe {
    /// A probe whose future has not been made.
    pub fn new() -> Self {
        Self::default()
    }

    /// The future.
    pub fn future(&self) -> ProbeFuture {
        ProbeFuture(self.clone())
    }

    /// How often the future was polled.
    pub fn polls(&self) -> usize {
        self.0.lock().unwrap().polls
    }

    /// How often the future was dropped.
    pub fn drops(&self) -> usize {
        self.0.lock().unwrap().drops.len()
    }

    /// How often the output was dropped.
    pub fn output_drops(&self) -> usize {
        self.0.lock().unwrap().output_drops.len()
    }

    /// The thread on which the future was dropped, which happened exactly once.
    #[track_caller]
    pub fn dropped_on(&self) -> ThreadId {
        let drops = self.0.lock().unwrap().drops.clone();
        assert_eq!(drops.len(), 1, "the future must be dropped exactly once");
        drops[0]
    }

    /// The thread on which the output was dropped, which happened exactly once.
    #[track_caller]
    pub fn output_dropped_on(&self) -> ThreadId {
        let drops = self.0.lock().unwrap().output_drops.clone();
        assert_eq!(drops.len(), 1, "the output must be dropped exactly once");
        drops[0]
    }

    /// A clone of the waker of the last poll.
    #[track_caller]
    pub fn waker(&self) -> Waker {
        let waker = self.0.lock().unwrap().waker.clone();
        waker.expect("the future has been polled")
    }

    /// Forgets the waker of the last poll.
    pub fn forget_waker(&self) {
        let waker = self.0.lock().unwrap().waker.take();
        drop(waker);
    }

    /// Lets the future complete, and wakes it.
    pub fn finish(&self) {
        let waker = {
            let mut seen = self.0.lock().unwrap();
            seen.ready = true;
            seen.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// See [`Probe`].
#[derive(Debug)]
pub struct ProbeFuture(Probe);

/// The output of a [`ProbeFuture`].
#[derive(Debug)]
pub struct ProbeOutput(Probe);

impl Future for ProbeFuture {
    type Output = ProbeOutput;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ProbeOutput> {
        let mut seen = self.0.0.lock().unwrap();
        assert!(seen.drops.is_empty(), "polled after it was dropped");
        seen.polls += 1;
        if seen.ready {
            Poll::Ready(ProbeOutput(self.0.clone()))
        } else {
            let before = seen.waker.replace(cx.waker().clone());
            drop(seen);
            drop(before);
            Poll::Pending
        }
    }
}

impl Drop for ProbeFuture {
    fn drop(&mut self) {
        let mut seen = self.0.0.lock().unwrap();
        seen.drops.push(std::thread::current().id());
    }
}

impl Drop for ProbeOutput {
    fn drop(&mut self) {
        let mut seen = self.0.0.lock().unwrap();
        seen.output_drops.push(std::thread::current().id());
    }
}
