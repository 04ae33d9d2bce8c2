//! What the tasks do.

#![allow(
    clippy::waker_clone_wake,
    reason = "a wake by value is another path than one by reference"
)]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use gort::runtime::Handle;
use gort::task::JoinHandle;

use crate::ledger::{Ledger, fail};

/// xorshift64*: seeded, small, good enough to choose by.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // SplitMix64's finalizer: neighbouring seeds must not give neighbouring choices.
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// Sleeps for less than so many microseconds.
    pub(crate) fn pause(&mut self, micros: u64) {
        std::thread::sleep(Duration::from_micros(self.below(micros)));
    }
}

/// The payload of panics that belong to the test.
struct Expected;

/// Keeps expected panics off the terminal.
pub(crate) fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Expected>() {
                before(info);
            }
        }));
    });
}

/// What the tasks of a round share.
pub(crate) struct World {
    pub(crate) ledger: Arc<Ledger>,
    /// Tasks that may still be spawned by tasks and meddlers.
    budget: AtomicIsize,
    wakers: Mutex<mpsc::Sender<Arc<Parked>>>,
    lock: gort::sync::Mutex<u64>,
    permits: gort::sync::Semaphore,
}

impl World {
    pub(crate) fn new(ledger: Arc<Ledger>, wakers: &Wakers, budget: usize) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            budget: AtomicIsize::new(budget as isize),
            wakers: Mutex::new(wakers.send.clone()),
            lock: gort::sync::Mutex::new(0),
            permits: gort::sync::Semaphore::new(3),
        })
    }

    fn may_spawn(&self) -> bool {
        self.budget.fetch_sub(1, SeqCst) > 0
    }

    pub(crate) fn budget_is_spent(&self) -> bool {
        self.budget.load(SeqCst) <= 0
    }

    /// The meddlers spend what the tasks leave.
    pub(crate) fn wait_for_budget(&self) {
        while !self.budget_is_spent() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn wait_for_nothing_alive(&self) {
        // The ledger's watch ends this if it never comes.
        while self.ledger.alive() != 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// A parked task, to be woken by whoever gets it.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    woken: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Parked {
    /// Sets the condition, then wakes: a wake that is lost leaves the task parked for ever.
    fn wake(&self, rng: &mut Rng) {
        self.woken.store(true, SeqCst);
        let waker = self.waker.lock().unwrap().take();
        if let Some(waker) = waker {
            match rng.below(3) {
                0 => waker.wake(),
                1 => waker.wake_by_ref(),
                _ => {
                    let second = waker.clone();
                    waker.wake();
                    second.wake();
                }
            }
        }
    }
}

/// Threads that are no runtime's and wake what is sent to them.
pub(crate) struct Wakers {
    send: mpsc::Sender<Arc<Parked>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Wakers {
    pub(crate) fn start(rng: &mut Rng) -> Self {
        let (send, receive) = mpsc::channel::<Arc<Parked>>();
        let receive = Arc::new(Mutex::new(receive));
        let threads = (0..2)
            .map(|_| {
                let receive = receive.clone();
                let mut rng = Rng::new(rng.next());
                std::thread::spawn(move || {
                    loop {
                        let next = receive.lock().unwrap().recv();
                        let Ok(parked) = next else { return };
                        if rng.below(4) == 0 {
                            rng.pause(50);
                        }
                        parked.wake(&mut rng);
                    }
                })
            })
            .collect();
        Self { send, threads }
    }

    /// Every `World` must be gone.
    pub(crate) fn stop(self) {
        drop(self.send);
        for thread in self.threads {
            // Left to end by itself while some world's sender lives: nothing waits for it.
            if thread.is_finished() {
                thread.join().expect("a waker thread panicked");
            }
        }
    }
}

/// The future of every task here: counts, and notices a second poller.
struct Tracked<F> {
    id: usize,
    polled: bool,
    running: AtomicBool,
    ledger: Arc<Ledger>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.running.swap(true, SeqCst) {
            fail(
                &self.ledger,
                &format!("task {} is polled twice at once", self.id),
            );
        }
        self.polled = true;
        self.ledger.polls.add();
        let result = self.future.as_mut().poll(cx);
        self.running.store(false, SeqCst);
        result
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        self.ledger.future_dropped(self.id, self.polled);
    }
}

/// The output of every task here.
pub(crate) struct Output {
    id: usize,
    ledger: Arc<Ledger>,
}

impl Drop for Output {
    fn drop(&mut self) {
        self.ledger.output_dropped(self.id);
    }
}

/// A task in somebody's hands: the handle and what it must say.
struct Spawned {
    id: usize,
    panics: bool,
    handle: JoinHandle<Output>,
}

/// Spawns a task on the current runtime and lets it run free.
pub(crate) fn spawn(world: &Arc<World>, seed: u64) {
    drop(spawn_on(&Handle::current(), world, seed, 0).handle);
}

fn spawn_on(handle: &Handle, world: &Arc<World>, seed: u64, depth: u32) -> Spawned {
    let mut rng = Rng::new(seed);
    let ledger = world.ledger.clone();
    let id = ledger.new_task();
    let panics = rng.below(50) == 0;
    let future = Box::pin(run(world.clone(), rng, id, panics, depth));
    let tracked = Tracked {
        id,
        polled: false,
        running: AtomicBool::new(false),
        ledger,
        future,
    };
    // Of several sizes, so that all classes of task cells take part.
    let handle = match seed % 4 {
        0 | 1 => handle.spawn(tracked),
        2 => padded::<400, _>(handle, tracked),
        _ => padded::<5_000, _>(handle, tracked),
    };
    Spawned { id, panics, handle }
}

fn padded<const N: usize, F>(handle: &Handle, future: F) -> JoinHandle<Output>
where
    F: Future<Output = Output> + Send + 'static,
{
    handle.spawn(async move {
        let padding = [1_u8; N];
        let output = future.await;
        assert!(padding.iter().all(|byte| *byte == 1));
        output
    })
}

/// A meddler's turn: a task from a thread that is no runtime's.
pub(crate) fn spawn_from_outside(world: &Arc<World>, handle: &Handle, rng: &mut Rng) {
    if !world.may_spawn() {
        return;
    }
    let spawned = spawn_on(handle, world, rng.next(), 0);
    match rng.below(4) {
        0 => drop(spawned.handle),
        1 => spawned.handle.abort(),
        2 => {
            spawned.handle.abort_handle().abort();
            check_join(
                world,
                spawned.id,
                spawned.panics,
                handle.block_on(spawned.handle),
            );
        }
        _ => check_join(
            world,
            spawned.id,
            spawned.panics,
            handle.block_on(spawned.handle),
        ),
    }
}

fn check_join(
    world: &World,
    id: usize,
    panics: bool,
    result: Result<Output, gort::task::JoinError>,
) {
    match result {
        Ok(output) if output.id != id => {
            fail(
                &world.ledger,
                &format!("task {id} gave the output of {}", output.id),
            );
        }
        Ok(_) => world.ledger.joined.add(),
        Err(error) if error.is_cancelled() => world.ledger.cancelled.add(),
        Err(error) => {
            if !panics || !error.into_panic().is::<Expected>() {
                fail(
                    &world.ledger,
                    &format!("task {id} panicked and should not have"),
                );
            }
            world.ledger.panicked.add();
        }
    }
}

async fn run(world: Arc<World>, mut rng: Rng, id: usize, panics: bool, depth: u32) -> Output {
    let steps = 1 + rng.below(12);
    for _ in 0..steps {
        step(&world, &mut rng, depth).await;
    }
    if panics {
        std::panic::panic_any(Expected);
    }
    world.ledger.outputs_made.add();
    Output {
        id,
        ledger: world.ledger.clone(),
    }
}

async fn step(world: &Arc<World>, rng: &mut Rng, depth: u32) {
    match rng.below(20) {
        0..=3 => gort::task::yield_now().await,
        4..=6 => park(world, rng, false).await,
        7 => park(world, rng, true).await,
        8..=10 => children(world, rng, depth).await,
        11 => gort::time::sleep(Duration::from_micros(rng.below(1_500))).await,
        12 => {
            let limit = Duration::from_micros(rng.below(800));
            let work = gort::time::sleep(Duration::from_micros(rng.below(800)));
            let _ = gort::time::timeout(limit, work).await;
        }
        13 => blocking(world, rng).await,
        14 => self_wake(rng.below(5)).await,
        15 => *world.lock.lock().await += 1,
        16 => {
            let _permit = world.permits.acquire().await;
            gort::task::yield_now().await;
        }
        // Polls that take their time: what a P is taken away for.
        17 => rng.pause(300),
        18 => {
            let until = Instant::now() + Duration::from_micros(rng.below(100));
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        // And that then use the P that they may have lost.
        _ => {
            rng.pause(300);
            children(world, rng, depth).await;
            self_wake(1).await;
        }
    }
}

/// Waits for a wake from a foreign thread, or from a task.
async fn park(world: &Arc<World>, rng: &mut Rng, by_task: bool) {
    world.ledger.parks.add();
    let parked = Arc::new(Parked::default());
    if by_task {
        if !world.may_spawn() {
            return;
        }
        let (waking, mut rng) = (parked.clone(), Rng::new(rng.next()));
        let id = world.ledger.new_task();
        let ledger = world.ledger.clone();
        let future = Box::pin(async move {
            gort::task::yield_now().await;
            waking.wake(&mut rng);
        });
        drop(gort::spawn(Tracked {
            id,
            polled: false,
            running: AtomicBool::new(false),
            ledger,
            future,
        }));
    } else {
        let wakers = world.wakers.lock().unwrap().clone();
        wakers.send(parked.clone()).expect("the waker threads live");
    }
    poll_fn(|cx| {
        let before = parked.waker.lock().unwrap().replace(cx.waker().clone());
        drop(before);
        if parked.woken.load(SeqCst) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    world.ledger.wakes.add();
}

async fn children(world: &Arc<World>, rng: &mut Rng, depth: u32) {
    if depth > 6 {
        return;
    }
    let mut joins = Vec::new();
    for _ in 0..rng.below(5) {
        if !world.may_spawn() {
            break;
        }
        let spawned = spawn_on(&Handle::current(), world, rng.next(), depth + 1);
        match rng.below(6) {
            0 => drop(spawned.handle),
            1 => spawned.handle.abort(),
            2 => {
                spawned.handle.abort();
                joins.push(spawned);
            }
            _ => joins.push(spawned),
        }
    }
    for spawned in joins {
        check_join(world, spawned.id, spawned.panics, spawned.handle.await);
    }
}

async fn blocking(world: &Arc<World>, rng: &mut Rng) {
    struct Job(Arc<Ledger>);
    impl Drop for Job {
        fn drop(&mut self) {
            self.0.jobs_dropped.add();
        }
    }
    world.ledger.jobs_spawned.add();
    let job = Job(world.ledger.clone());
    let mut inner = Rng::new(rng.next());
    let (nested, spawning) = (rng.below(3) == 0, world.clone());
    let handle = gort::task::spawn_blocking(move || {
        job.0.jobs_run.add();
        inner.pause(200);
        if nested && spawning.may_spawn() {
            drop(spawn_on(&Handle::current(), &spawning, inner.next(), 5).handle);
        }
    });
    match rng.below(4) {
        0 => drop(handle),
        1 => {
            handle.abort();
            let _ = handle.await;
        }
        _ => {
            let _ = handle.await;
        }
    }
}

async fn self_wake(times: u64) {
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        if left % 2 == 0 {
            cx.waker().clone().wake();
        }
        Poll::Pending
    })
    .await;
}
