//! What `Coroutine` promises.

use gort_stackful::{Coroutine, CoroutineState, Stack, Suspender};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

/// Enough for a panic with a backtrace in a debug build.
const SIZE: usize = 64 * 1024;

fn stack() -> Stack {
    Stack::new(SIZE).unwrap()
}

/// Counts its drops in a shared counter.
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn counter() -> (Rc<Cell<u32>>, Counted) {
    let count = Rc::new(Cell::new(0));
    (count.clone(), Counted(count))
}

/// The text of the panic that `f` ends with.
fn panic_text<R>(f: impl FnOnce() -> R) -> String {
    let Err(panic) = panic::catch_unwind(AssertUnwindSafe(f)) else {
        panic!("no panic");
    };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().expect("a text").to_string(),
    }
}

#[test]
fn values_go_both_ways() {
    let mut coroutine = Coroutine::new(stack(), |suspender, mut input: u64| {
        for _ in 0..1000 {
            input = suspender.suspend(input * 2);
        }
        vec![input]
    });
    for n in 0..1000 {
        assert_eq!(coroutine.resume(n), CoroutineState::Yielded(n * 2));
        assert!(!coroutine.is_done());
    }
    assert_eq!(coroutine.resume(7), CoroutineState::Complete(vec![7]));
    assert!(coroutine.is_done());
}

#[test]
fn large_aligned_and_empty_values() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(align(256))]
    struct Wide([u8; 512]);

    let captured = Wide([3; 512]);
    let mut coroutine = Coroutine::new(stack(), move |suspender, input: Wide| {
        assert_eq!((&raw const captured).addr() % 256, 0);
        let input = suspender.suspend(Wide([input.0[0] + captured.0[511]; 512]));
        suspender.suspend(input);
    });
    assert_eq!(
        coroutine.resume(Wide([1; 512])),
        CoroutineState::Yielded(Wide([4; 512]))
    );
    assert_eq!(
        coroutine.resume(Wide([9; 512])),
        CoroutineState::Yielded(Wide([9; 512]))
    );
    assert_eq!(
        coroutine.resume(Wide([0; 512])),
        CoroutineState::Complete(())
    );
}

#[test]
fn registers_survive() {
    // More live values than there are registers, integer and floating-point, on both sides.
    fn mix(n: u64) -> u64 {
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17)
    }
    let mut coroutine = Coroutine::new(stack(), |suspender, seed: u64| {
        let ints: [u64; 24] = std::array::from_fn(|i| mix(seed + i as u64));
        let floats: [f64; 24] = std::array::from_fn(|i| (seed + i as u64) as f64 * 0.5);
        let ints = std::hint::black_box(ints);
        let floats = std::hint::black_box(floats);
        for _ in 0..100 {
            suspender.suspend(());
        }
        ints.iter().fold(0, |a, b| a ^ b) ^ floats.iter().sum::<f64>().to_bits()
    });
    let seed = 11;
    let ints = (0..24).fold(0, |a, i| a ^ mix(seed + i));
    let floats: f64 = (0..24).map(|i| (seed + i) as f64 * 0.5).sum();
    let mut mine = std::hint::black_box([1.5_f64; 24]);
    for round in 0..100 {
        assert_eq!(coroutine.resume(seed), CoroutineState::Yielded(()));
        mine.iter_mut().for_each(|x| *x += f64::from(round));
    }
    assert!(mine.iter().all(|&x| x == 1.5 + 4950.0));
    assert_eq!(
        coroutine.resume(0),
        CoroutineState::Complete(ints ^ floats.to_bits())
    );
}

#[test]
fn suspends_in_any_depth() {
    fn walk(suspender: &Suspender<(), u32>, depth: u32) {
        if depth > 0 {
            walk(suspender, depth - 1);
            suspender.suspend(depth);
            walk(suspender, depth - 1);
        }
    }
    let mut coroutine = Coroutine::new(stack(), |suspender, ()| walk(suspender, 8));
    let mut seen = 0;
    while let CoroutineState::Yielded(depth) = coroutine.resume(()) {
        seen += 1;
        // The ruler sequence: how often two divides the position.
        assert_eq!(depth, u32::from(seen as u8).trailing_zeros() + 1);
    }
    assert_eq!(seen, 255);
}

#[test]
fn many_interleave() {
    let mut all: Vec<_> = (0..100_u32)
        .map(|id| {
            Coroutine::new(Stack::new(16 * 1024).unwrap(), move |suspender, ()| {
                (0..50).for_each(|step| suspender.suspend(id * 1000 + step));
                id
            })
        })
        .collect();
    for step in 0..50 {
        for (id, coroutine) in (0..).zip(&mut all) {
            assert_eq!(
                coroutine.resume(()),
                CoroutineState::Yielded(id * 1000 + step)
            );
        }
    }
    for (id, coroutine) in (0..).zip(&mut all) {
        assert_eq!(coroutine.resume(()), CoroutineState::Complete(id));
    }
}

#[test]
fn nests() {
    fn level(depth: u32) -> u32 {
        if depth == 0 {
            return 0;
        }
        let mut inner = Coroutine::new(stack(), move |suspender, ()| {
            let below = level(depth - 1);
            suspender.suspend(below);
            below + 1
        });
        let CoroutineState::Yielded(below) = inner.resume(()) else {
            panic!("done early")
        };
        let CoroutineState::Complete(sum) = inner.resume(()) else {
            panic!("suspended twice")
        };
        assert_eq!(below + 1, sum);
        sum
    }
    assert_eq!(level(10), 10);
}

#[test]
fn panic_goes_to_the_resumer() {
    let (drops, counted) = counter();
    let mut coroutine = Coroutine::new(stack(), move |suspender, n: u32| -> u32 {
        let _counted = counted;
        let n = suspender.suspend(n);
        panic!("bad {n}")
    });
    assert_eq!(coroutine.resume(1), CoroutineState::Yielded(1));
    assert_eq!(drops.get(), 0);
    assert_eq!(panic_text(|| coroutine.resume(2)), "bad 2");
    assert_eq!(drops.get(), 1);
    assert!(coroutine.is_done() && !std::thread::panicking());
    let text = panic_text(|| coroutine.resume(3));
    assert!(
        text.starts_with("a coroutine that is done was resumed"),
        "{text}"
    );
}

#[test]
fn panic_is_caught_inside_and_the_coroutine_goes_on() {
    let mut coroutine = Coroutine::new(stack(), |suspender, ()| {
        for n in 0..3 {
            let caught = panic_text(|| panic!("inner {n}"));
            suspender.suspend(caught);
        }
    });
    for n in 0..3 {
        assert_eq!(
            coroutine.resume(()),
            CoroutineState::Yielded(format!("inner {n}"))
        );
    }
    assert_eq!(coroutine.resume(()), CoroutineState::Complete(()));
}

#[test]
fn drop_unwinds_every_frame_in_order() {
    struct Note(&'static str, Rc<RefCell<Vec<&'static str>>>);
    impl Drop for Note {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
        }
    }
    fn deeper(suspender: &Suspender<(), ()>, notes: &Rc<RefCell<Vec<&'static str>>>) {
        let _note = Note("deeper", notes.clone());
        suspender.suspend(());
        notes.borrow_mut().push("not reached");
    }
    let notes = Rc::new(RefCell::new(Vec::new()));
    let (mine, captured) = (notes.clone(), Note("captured", notes.clone()));
    let mut coroutine = Coroutine::new(stack(), move |suspender, ()| {
        let _first = Note("first", mine.clone());
        let _second = Note("second", mine.clone());
        let _captured = &captured;
        deeper(suspender, &mine);
    });
    assert_eq!(coroutine.resume(()), CoroutineState::Yielded(()));
    assert!(notes.borrow().is_empty());
    drop(coroutine);
    assert_eq!(*notes.borrow(), ["deeper", "second", "first", "captured"]);
    assert_eq!(Rc::strong_count(&notes), 1);
}

#[test]
fn drop_before_the_first_resume_drops_the_function() {
    let (drops, counted) = counter();
    let coroutine = Coroutine::new(stack(), move |_: &Suspender<(), ()>, ()| drop(counted));
    assert_eq!(drops.get(), 0);
    drop(coroutine);
    assert_eq!(drops.get(), 1);
}

#[test]
fn drop_when_done_drops_nothing_twice() {
    let (drops, counted) = counter();
    let mut coroutine = Coroutine::new(stack(), move |_: &Suspender<Counted, ()>, input| {
        (counted, input)
    });
    let (inputs, input) = counter();
    let CoroutineState::Complete(output) = coroutine.resume(input) else {
        panic!("suspended")
    };
    drop(coroutine);
    assert_eq!((drops.get(), inputs.get()), (0, 0));
    drop(output);
    assert_eq!((drops.get(), inputs.get()), (1, 1));
}

#[test]
fn drop_runs_no_panic_hook() {
    // The hook is the process's: the other tests may panic meanwhile, this thread may not.
    let me = std::thread::current().id();
    let before = panic::take_hook();
    let called = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = called.clone();
    panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == me {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        before(info);
    }));
    let mut coroutine = Coroutine::new(stack(), |suspender, ()| suspender.suspend(()));
    coroutine.resume(());
    drop(coroutine);
    assert_eq!(called.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(panic_text(|| panic!("seen")), "seen");
    assert_eq!(called.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn drop_while_the_thread_panics() {
    let (drops, counted) = counter();
    let text = panic_text(|| {
        let mut coroutine = Coroutine::new(stack(), move |suspender, ()| {
            let _counted = counted;
            suspender.suspend(());
        });
        coroutine.resume(());
        panic!("outer");
    });
    assert_eq!((text.as_str(), drops.get()), ("outer", 1));
    assert!(!std::thread::panicking());
}

#[test]
fn swallowed_cancellation_may_end_by_itself() {
    let (drops, counted) = counter();
    let mut coroutine = Coroutine::new(stack(), move |suspender, ()| {
        let _counted = counted;
        // Swallows it, suspends again, and passes the second on.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| suspender.suspend(1)));
        suspender.suspend(2);
    });
    coroutine.resume(());
    drop(coroutine);
    assert_eq!(drops.get(), 1);
}

#[test]
fn endlessly_swallowed_cancellation_leaks_the_stack() {
    let (drops, counted) = counter();
    let throws = Rc::new(Cell::new(0));
    let seen = throws.clone();
    let mut coroutine = Coroutine::new(stack(), move |suspender, ()| {
        let _counted = counted;
        loop {
            if panic::catch_unwind(AssertUnwindSafe(|| suspender.suspend(()))).is_err() {
                seen.set(seen.get() + 1);
            }
        }
    });
    coroutine.resume(());
    drop(coroutine);
    // Its frame is still there, and so is what lies in it.
    assert_eq!((throws.get(), drops.get()), (8, 0));
    assert_eq!(Rc::strong_count(&throws), 2);
}

#[test]
fn panic_in_a_destructor_of_the_function_comes_out_of_drop() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("bomb");
        }
    }
    let bomb = Bomb;
    let coroutine = Coroutine::new(stack(), move |_: &Suspender<(), ()>, ()| drop(bomb));
    assert_eq!(panic_text(|| drop(coroutine)), "bomb");
}

#[test]
fn foreign_suspender_is_refused() {
    // The inner coroutine gets hold of the outer one's suspender, and tries to suspend that one
    // from its own stack.
    thread_local!(static OUTER: Cell<Option<&'static Suspender<(), ()>>> = const { Cell::new(None) });
    let mut outer = Coroutine::new(stack(), |suspender: &Suspender<(), ()>, ()| {
        // SAFETY: the inner coroutine uses it below only, while `suspender` lives.
        let forged = unsafe { &*std::ptr::from_ref(suspender) };
        OUTER.set(Some(forged));
        let mut inner = Coroutine::new(stack(), |_: &Suspender<(), ()>, ()| {
            OUTER.get().unwrap().suspend(());
        });
        let text = panic_text(|| inner.resume(()));
        assert!(text.contains("from another stack than its own"), "{text}");
    });
    assert_eq!(outer.resume(()), CoroutineState::Complete(()));
}

#[test]
fn suspending_in_a_destructor_while_panicking_is_refused() {
    struct Suspends<'a>(&'a Suspender<(), ()>, Rc<RefCell<String>>);
    impl Drop for Suspends<'_> {
        fn drop(&mut self) {
            // Caught, because a panic that leaves a destructor while unwinding ends the process.
            *self.1.borrow_mut() = panic_text(|| self.0.suspend(()));
        }
    }
    let text = Rc::new(RefCell::new(String::new()));
    let note = text.clone();
    let mut coroutine = Coroutine::new(stack(), move |suspender, ()| {
        let _suspends = Suspends(suspender, note);
        panic!("first");
    });
    assert_eq!(panic_text(|| coroutine.resume(())), "first");
    assert!(
        text.borrow().contains("while its thread is panicking"),
        "{}",
        text.borrow()
    );
}

#[test]
fn stack_is_reused() {
    let mut stack = stack();
    let place = format!("{stack:?}");
    for round in 0..1000_u32 {
        let mut coroutine = Coroutine::new(stack, move |_: &Suspender<(), ()>, ()| round);
        coroutine = coroutine.into_stack().expect_err("not done yet");
        assert_eq!(coroutine.resume(()), CoroutineState::Complete(round));
        stack = coroutine.into_stack().unwrap();
        assert_eq!(format!("{stack:?}"), place);
    }
}

#[test]
fn too_large_for_its_stack() {
    let captured = [7_u8; 8192];
    let text = panic_text(|| {
        Coroutine::new(
            Stack::new(4096).unwrap(),
            move |_: &Suspender<(), ()>, ()| captured[9],
        )
    });
    assert!(
        text.contains("too small for a coroutine") && text.contains("box what"),
        "{text}"
    );
}

#[test]
fn backtrace_ends_at_the_first_frame() {
    #[inline(never)]
    fn marked_function() -> String {
        std::hint::black_box(std::backtrace::Backtrace::force_capture().to_string())
    }
    let stack = Stack::new(512 * 1024).unwrap();
    let mut coroutine = Coroutine::new(stack, |suspender, ()| {
        suspender.suspend(String::new());
        suspender.suspend(marked_function());
    });
    coroutine.resume(());
    let CoroutineState::Yielded(trace) = coroutine.resume(()) else {
        panic!("done")
    };
    assert!(trace.contains("marked_function"), "{trace}");
    let last = trace
        .lines()
        .rfind(|line| !line.trim_start().starts_with("at "))
        .unwrap();
    assert!(last.contains("gort_stackful_0_1_start"), "{trace}");
}

#[test]
fn works_on_every_thread_of_its_own() {
    let threads: Vec<_> = (0..8_u64)
        .map(|id| {
            std::thread::spawn(move || {
                let mut coroutine = Coroutine::new(stack(), move |suspender, ()| {
                    let mut sum = 0;
                    for n in 0..10_000 {
                        sum += n * id;
                        suspender.suspend(());
                    }
                    sum
                });
                loop {
                    if let CoroutineState::Complete(sum) = coroutine.resume(()) {
                        return sum;
                    }
                }
            })
        })
        .collect();
    for (id, thread) in (0..).zip(threads) {
        assert_eq!(thread.join().unwrap(), id * 10_000 * 9_999 / 2);
    }
}

#[test]
fn dropped_with_its_thread() {
    thread_local! {
        static KEPT: RefCell<Option<Coroutine<(), (), ()>>> = const { RefCell::new(None) };
    }
    struct Tell(std::sync::mpsc::Sender<std::thread::ThreadId>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.send(std::thread::current().id()).unwrap();
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut coroutine = Coroutine::new(stack(), move |suspender, ()| {
            let _tell = Tell(sender);
            suspender.suspend(());
        });
        coroutine.resume(());
        KEPT.set(Some(coroutine));
    });
    let id = thread.thread().id();
    thread.join().unwrap();
    assert_eq!(receiver.recv(), Ok(id));
}
