//! Futures and outputs of all sizes and alignments: in slab cells, and boxed beyond them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use gort::runtime::Runtime;
use gort_tests::{Count, on_each_runtime};

/// A future of `N` bytes at the alignment of `A` whose bytes must not change and which must not
/// move.
struct Sized<const N: usize, A> {
    bytes: [u8; N],
    seed: u8,
    at: usize,
    polls: u8,
    drops: Count,
    _align: [A; 0],
    _pinned: std::marker::PhantomPinned,
}

/// The output, of the same size and alignment.
struct Big<const N: usize, A> {
    bytes: [u8; N],
    seed: u8,
    drops: Count,
    _align: [A; 0],
}

fn pattern(seed: u8, index: usize) -> u8 {
    seed.wrapping_add((index % 251) as u8)
}

impl<const N: usize, A> Sized<N, A> {
    fn new(seed: u8, drops: &Count) -> Self {
        Self {
            bytes: std::array::from_fn(|index| pattern(seed, index)),
            seed,
            at: 0,
            polls: 0,
            drops: drops.clone(),
            _align: [],
            _pinned: std::marker::PhantomPinned,
        }
    }
}

fn check<const N: usize>(bytes: &[u8; N], seed: u8) {
    let wrong = (0..N).find(|&index| bytes[index] != pattern(seed, index));
    assert_eq!(wrong, None, "a byte of {N} changed");
}

impl<const N: usize, A> Future for Sized<N, A> {
    type Output = Big<N, A>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let here = &raw const *self as usize;
        assert_eq!(here % align_of::<Self>(), 0, "misaligned");
        assert!(self.at == 0 || self.at == here, "it moved between polls");
        check(&self.bytes, self.seed);
        // SAFETY: nothing is moved out of the pinned place; plain fields are written.
        let this = unsafe { self.get_unchecked_mut() };
        this.at = here;
        this.polls += 1;
        if this.polls < 4 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Big {
            bytes: this.bytes,
            seed: this.seed,
            drops: this.drops.clone(),
            _align: [],
        })
    }
}

impl<const N: usize, A> Drop for Sized<N, A> {
    fn drop(&mut self) {
        check(&self.bytes, self.seed);
        let here = &raw const *self as usize;
        assert!(self.at == 0 || self.at == here, "it moved before its drop");
        self.drops.add();
    }
}

impl<const N: usize, A> Drop for Big<N, A> {
    fn drop(&mut self) {
        check(&self.bytes, self.seed);
        self.drops.add();
    }
}

/// Many at once, joined, detached and aborted.
fn run<const N: usize, A: Send + 'static>(runtime: &Runtime) {
    let drops = Count::new();
    // Each task costs two drops, of future and output; an aborted one may have made no output.
    let count = (200_000 / (N + 1_000)).max(4);
    runtime.block_on(async {
        let handles: Vec<_> = (0..count)
            .map(|n| gort::spawn(Sized::<N, A>::new(n as u8, &drops)))
            .collect();
        for (n, handle) in handles.into_iter().enumerate() {
            let output = handle.await.expect("no byte has changed");
            assert_eq!(output.seed, n as u8);
        }
    });
    assert_eq!(drops.get(), 2 * count);
    // From outside, where cells come from the shared pool.
    for n in 0..4 {
        let handle = runtime.spawn(Sized::<N, A>::new(n, &drops));
        let output = runtime.block_on(handle).expect("no byte has changed");
        check(&output.bytes, n);
    }
    assert_eq!(drops.get(), 2 * count + 8);
    let aborted = Count::new();
    runtime.block_on(async {
        let handle = gort::spawn(Sized::<N, A>::new(1, &aborted));
        handle.abort();
        let made = usize::from(handle.await.is_ok());
        assert_eq!(aborted.get(), 1 + made);
    });
}

macro_rules! aligned {
    ($($name:ident $align:literal),*) => {
        $(#[repr(align($align))] #[derive(Clone, Copy)] struct $name;)*
    };
}
aligned!(Align16 16, Align32 32, Align64 64, Align128 128, Align256 256, Align1024 1024, Align4096 4096);

#[test]
fn sizes() {
    on_each_runtime(|runtime| {
        run::<0, u8>(runtime);
        run::<1, u8>(runtime);
        run::<7, u8>(runtime);
        run::<24, u64>(runtime);
        run::<64, u64>(runtime);
        run::<100, u64>(runtime);
        run::<250, u64>(runtime);
        run::<500, u64>(runtime);
        run::<1_000, u64>(runtime);
        run::<2_000, u64>(runtime);
        // About the largest class, where tasks begin to be boxed.
        run::<3_900, u8>(runtime);
        run::<3_960, u8>(runtime);
        run::<3_968, u8>(runtime);
        run::<3_976, u8>(runtime);
        run::<3_984, u8>(runtime);
        run::<4_000, u8>(runtime);
        run::<4_096, u8>(runtime);
        run::<10_000, u64>(runtime);
    });
}

/// Without optimization the copies of such a future on its way into the task and of its output on
/// the way out are some 2 MiB of stack, so this thread gets more.
#[test]
fn hundred_kilobytes() {
    let test = || on_each_runtime(run::<100_000, u64>);
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(test);
    thread.unwrap().join().unwrap();
}

#[test]
fn alignments() {
    on_each_runtime(|runtime| {
        run::<1, Align16>(runtime);
        run::<1, Align32>(runtime);
        run::<200, Align32>(runtime);
        run::<1, Align64>(runtime);
        run::<1_000, Align64>(runtime);
        run::<1, Align128>(runtime);
        run::<1, Align256>(runtime);
        run::<1, Align1024>(runtime);
        run::<1, Align4096>(runtime);
        run::<5_000, Align4096>(runtime);
    });
}

/// The output is larger than the future, and the other way round.
#[test]
fn large_outputs() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let large = gort::spawn(async { [7_u8; 50_000] }).await.unwrap();
            assert!(large.iter().all(|byte| *byte == 7));
            let held = [3_u8; 20_000];
            let small = gort::spawn(async move {
                gort::task::yield_now().await;
                u8::from(held.iter().all(|byte| *byte == 3))
            });
            assert_eq!(small.await.unwrap(), 1);
        });
    });
}

/// Cells are used again: more tasks than fit in memory at once, of changing sizes.
#[test]
fn churn() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let drops = Count::new();
            for _ in 0..30 {
                let small: Vec<_> = (0..400)
                    .map(|n| gort::spawn(Sized::<10, u8>::new(n as u8, &drops)))
                    .collect();
                let large: Vec<_> = (0..40)
                    .map(|n| gort::spawn(Sized::<3_000, u64>::new(n, &drops)))
                    .collect();
                for handle in small {
                    drop(handle.await.unwrap());
                }
                for handle in large {
                    drop(handle.await.unwrap());
                }
            }
            assert_eq!(drops.get(), 30 * 440 * 2);
        });
    });
}
