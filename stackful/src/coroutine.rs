//! The coroutine: a function on a stack of its own.
//!
//! # Memory
//!
//! No allocation beside the stack. The highest bytes of it hold the control block and the function:
//!
//! ```text
//!   bottom                                            start          top
//!    ├───────────────────────────────────────────────────┼──────┼──────┤
//!    │ frames of the running function                    │ f: F │ Core │
//!    └───────────────────────────────────────────────────┴──────┴──────┘
//! ```
//!
//! # Who touches what
//!
//! One thread, for the coroutine is not [`Send`], and on it one side at a time: the resumer while
//! the coroutine is suspended, the coroutine while it runs. Both reach `Core` through raw pointers;
//! neither holds a reference into it across a switch.
//!
//! # Life
//!
//! | status | on the stack | next |
//! |---|---|---|
//! | New | control block and function | Suspended or Done, by `resume`; Done, by drop |
//! | Suspended | the function's frames, the last one inside of `suspend` | the same |
//! | Done | nothing | |
//!
//! There is no status for running: meanwhile `resume` or drop holds the only `&mut`.
//!
//! A value crosses a switch in [`Link::parcel`]: what the one side puts there, the other takes.
//!
//! # Cancelling
//!
//! Dropping a suspended coroutine resumes it with [`Parcel::Cancel`]; `suspend` then throws
//! [`Cancelled`], the destructors run, and the function's first frame catches it. A function that
//! catches it itself and suspends again is cancelled again, [`CANCEL_TRIES`] times in all; after that
//! the stack is leaked, because there are frames on it that others may point to.
//!
//! A switch never leaves a stack that is being unwound: the count of panics belongs to the thread,
//! and the resumer would see one that is not its own.

use crate::arch::{self, Context};
use crate::stack::Stack;
use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::thread;

/// The least room below the control block and the function. It only keeps a stack from being taken
/// up by them: what a function needs is for its author to know, and the guard says when it is more.
const LEAST_ROOM: usize = 1024;

/// How often a coroutine that catches its cancellation is cancelled again, before its stack is
/// leaked. Any small number will do: a loop that retries what failed is the one likely case, and it
/// would never end.
const CANCEL_TRIES: usize = 8;

/// What [`Coroutine::resume`] came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CoroutineState<Yield, Return> {
    /// The function has suspended itself and can be resumed.
    Yielded(Yield),
    /// The function has returned.
    Complete(Return),
}

/// A function that can be suspended in the middle and resumed.
///
/// Made by [`new`](Self::new), it does nothing until it is first resumed. Its function gets a
/// [`Suspender`] and the first `Input`; each suspension hands out a `Yield` and comes back with the
/// next `Input`; the end hands out the `Return`.
///
/// # Panics in the function
///
/// A panic unwinds the coroutine's stack and goes on in the resumer, out of
/// [`resume`](Self::resume). The coroutine is done then.
///
/// # Dropping
///
/// Dropping a suspended coroutine unwinds its stack: its destructors run, on the dropping thread,
/// before drop returns. No panic hook runs for it. Code in the function that catches panics can see
/// it; it should pass it on. One that suspends instead is unwound again, and after 8 times its stack
/// is leaked, never freed under a frame that is still there. Built with `panic = "abort"`, where
/// nothing can be unwound, the stack of a suspended coroutine is leaked at once.
///
/// [`std::mem::forget`] leaks the stack and all on it.
///
/// # Threads
///
/// A coroutine stays on its thread, even when everything in it could be sent: code that is compiled
/// into it may hold the address of a thread-local variable across a suspension.
///
/// ```compile_fail,E0277
/// # use gort_stackful::{Coroutine, Stack};
/// let mut coroutine = Coroutine::<(), (), ()>::new(Stack::new(65536).unwrap(), |_, ()| ());
/// std::thread::spawn(move || coroutine.resume(()));
/// ```
///
/// Crates with unsafe code that relies on scopes of one thread to nest, such as `scoped-tls`, break
/// when a coroutine suspends inside of such a scope: the scopes of coroutine and resumer interleave.
///
/// # Lifetimes
///
/// The types of the values are fixed, as those behind a `Cell` are: an input that lives shorter than
/// the coroutine believes is refused.
///
/// ```compile_fail,E0597
/// # use gort_stackful::{Coroutine, Stack};
/// let stack = Stack::new(65536).unwrap();
/// let mut kept = Coroutine::new(stack, |suspender, first: &str| {
///     suspender.suspend(());
///     println!("{first}");
/// });
/// {
///     let short = String::from("gone");
///     kept.resume(&short);
/// }
/// kept.resume("");
/// ```
pub struct Coroutine<Input, Yield, Return> {
    /// In the stack. A raw pointer is invariant in the types, as it must be: an input that is put in
    /// may stay on the stack.
    core: *mut Core<Input, Yield, Return>,
    status: Status,
    /// Dropped by hand: it outlives what runs on it, and is leaked where that cannot be ended.
    stack: ManuallyDrop<Stack>,
}

/// Suspends the coroutine whose function it was given to.
pub struct Suspender<Input, Yield> {
    link: *mut Link<Input, Yield>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    New,
    Suspended,
    Done,
}

/// What lies at the top of the stack.
struct Top<Input, Yield, Return, F> {
    /// Read out, once, by the first switch to the coroutine.
    function: ManuallyDrop<F>,
    core: Core<Input, Yield, Return>,
}

/// The control block.
struct Core<Input, Yield, Return> {
    link: Link<Input, Yield>,
    /// Set when the function has ended; stays empty if it was dropped before it began.
    outcome: Option<thread::Result<Return>>,
}

/// The part of the control block that both sides use at every switch.
struct Link<Input, Yield> {
    resumer: Context,
    coroutine: Context,
    parcel: Parcel<Input, Yield>,
    /// The addresses of the stack.
    bounds: Range<usize>,
}

/// What crosses a switch.
enum Parcel<Input, Yield> {
    /// Taken; or, coming from the coroutine: it is done.
    Empty,
    Resume(Input),
    Cancel,
    Yield(Yield),
}

/// What is thrown to unwind a dropped coroutine.
struct Cancelled;

impl<Input, Yield, Return> Coroutine<Input, Yield, Return> {
    /// A coroutine that will run `function` on `stack`, from the first [`resume`](Self::resume) on.
    ///
    /// Besides what the function needs, the stack must hold the function's captured variables, some
    /// 150 bytes and the largest of the values. Unwinding runs on it too, also when a suspended
    /// coroutine is dropped: that takes some 6 KiB, and a panic that prints its backtrace 20 KiB.
    ///
    /// # Panics
    ///
    /// If the captured variables leave less than 1 KiB of the stack.
    pub fn new<F>(stack: Stack, function: F) -> Self
    where
        F: FnOnce(&Suspender<Input, Yield>, Input) -> Return + 'static,
    {
        let top = Self::place::<F>(&stack);
        let bounds = stack.bottom().addr()..stack.top().addr();
        let link = Link {
            resumer: Context::EMPTY,
            coroutine: Context::at_start(top.cast(), enter::<Input, Yield, Return, F>, top),
            parcel: Parcel::Empty,
            bounds,
        };
        let core = Core {
            link,
            outcome: None,
        };
        let function = ManuallyDrop::new(function);
        // SAFETY: `place` gave an aligned place of this type in the stack, which is ours alone.
        let core = unsafe {
            top.write(Top { function, core });
            &raw mut (*top).core
        };
        Self {
            core,
            status: Status::New,
            stack: ManuallyDrop::new(stack),
        }
    }

    /// Where control block and function lie; the frames begin right below, so it is a multiple of 16.
    fn place<F>(stack: &Stack) -> *mut Top<Input, Yield, Return, F> {
        let size = size_of::<Top<Input, Yield, Return, F>>();
        let align = align_of::<Top<Input, Yield, Return, F>>().max(16);
        let end = stack.top().addr();
        let place = end.checked_sub(size).map(|start| start & !(align - 1));
        let least = stack.bottom().addr() + LEAST_ROOM;
        let Some(place) = place.filter(|&place| place >= least) else {
            panic!(
                "a stack of {} bytes is too small for a coroutine whose function and values take \
                 {size}: make it larger, or box what the function captures",
                stack.size()
            );
        };
        // SAFETY: `place` lies in the usable part of the stack, at this distance from its end.
        unsafe { stack.top().sub(end - place).cast() }
    }

    /// Runs the coroutine until it suspends itself or ends. `input` becomes the function's argument
    /// the first time, and what [`Suspender::suspend`] returns every other time.
    ///
    /// # Panics
    ///
    /// If the coroutine is done. If the function panics, with the function's panic.
    #[inline]
    pub fn resume(&mut self, input: Input) -> CoroutineState<Yield, Return> {
        assert!(
            self.status != Status::Done,
            "a coroutine that is done was resumed: it has returned or panicked before"
        );
        match self.run(Parcel::Resume(input)) {
            Some(value) => CoroutineState::Yielded(value),
            None => match self.take_outcome() {
                Some(Ok(value)) => CoroutineState::Complete(value),
                Some(Err(panic)) => panic::resume_unwind(panic),
                // It was given an input, so it has run, and everything that ends it sets this.
                None => unreachable!("a coroutine ended without an outcome"),
            },
        }
    }

    /// Whether the function has returned or panicked.
    pub fn is_done(&self) -> bool {
        self.status == Status::Done
    }

    /// The stack of a coroutine that is done, to be used again.
    ///
    /// # Errors
    ///
    /// Gives the coroutine back if it is not done.
    pub fn into_stack(self) -> Result<Stack, Self> {
        if !self.is_done() {
            return Err(self);
        }
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and what `Drop` would do for a coroutine that is done is
        // to drop the stack.
        Ok(unsafe { ManuallyDrop::take(&mut this.stack) })
    }

    /// Switches to the coroutine, and tells what it yielded, or `None` when it is done. It must not
    /// be done before.
    #[inline]
    fn run(&mut self, parcel: Parcel<Input, Yield>) -> Option<Yield> {
        // SAFETY: the core lies in `stack`, which is alive. The coroutine is not running, because it
        // could be only inside of a call of this function, which holds `&mut self`. So nobody else
        // uses the core now, and the context is the one that `at_start` or the last `suspend` left.
        // It is on this thread's stack switch, because a coroutine is not `Send`.
        let parcel = unsafe {
            let link = &raw mut (*self.core).link;
            (*link).parcel = parcel;
            arch::switch(&raw mut (*link).resumer, &raw const (*link).coroutine);
            mem::replace(&mut (*link).parcel, Parcel::Empty)
        };
        match parcel {
            Parcel::Yield(value) => {
                self.status = Status::Suspended;
                Some(value)
            }
            // The coroutine has taken what it got before it gives anything back.
            _ => {
                self.status = Status::Done;
                None
            }
        }
    }

    fn take_outcome(&mut self) -> Option<thread::Result<Return>> {
        // SAFETY: the core lies in `stack`, which is alive, and the coroutine is not running.
        unsafe { (*self.core).outcome.take() }
    }

    /// Ends what is on the stack. Tells whether that succeeded, and if not, the stack must stay.
    fn cancel(&mut self) -> bool {
        if cfg!(panic = "abort") && self.status == Status::Suspended {
            return false;
        }
        for _ in 0..CANCEL_TRIES {
            if self.status == Status::Done {
                break;
            }
            drop(self.run(Parcel::Cancel));
        }
        self.status == Status::Done
    }
}

impl<Input, Yield, Return> Drop for Coroutine<Input, Yield, Return> {
    fn drop(&mut self) {
        if !self.cancel() {
            return;
        }
        let outcome = self.take_outcome();
        // SAFETY: dropped here only. The coroutine is done: no frame is left on the stack, and with
        // the outcome taken the core holds nothing that needs to be dropped.
        unsafe { ManuallyDrop::drop(&mut self.stack) };
        match outcome {
            // A destructor on the stack has panicked. If that happened while this thread unwinds
            // anyway, a second panic would end the process; the hook has reported it already.
            Some(Err(panic)) if !panic.is::<Cancelled>() && !thread::panicking() => {
                panic::resume_unwind(panic)
            }
            _ => {}
        }
    }
}

impl<Input, Yield> Suspender<Input, Yield> {
    /// Gives `value` and control to the resumer. Returns the next input, when it resumes.
    ///
    /// If the coroutine is dropped instead, this unwinds its stack.
    ///
    /// # Panics
    ///
    /// If the coroutine's own stack is not the one that runs, for instance because a coroutine that
    /// it has resumed got hold of this suspender; and while the thread is panicking, for instance in
    /// a destructor: the panic would go on in the resumer, which has nothing to do with it.
    #[inline]
    pub fn suspend(&self, value: Yield) -> Input {
        let link = self.link;
        // SAFETY: the function that holds `self` lives on the stack that the link is in. The bounds
        // never change.
        let own_stack = unsafe { (*link).bounds.contains(&arch::stack_pointer()) };
        assert!(
            own_stack,
            "a coroutine was suspended from another stack than its own; suspend it in its own function"
        );
        assert!(
            !thread::panicking(),
            "a coroutine was suspended while its thread is panicking; do not suspend in destructors"
        );
        // SAFETY: this is the coroutine's own stack, so it is running, and its resumer waits in
        // `Coroutine::run`: the context there is valid, and nobody else uses the link.
        let parcel = unsafe {
            (*link).parcel = Parcel::Yield(value);
            arch::switch(&raw mut (*link).coroutine, &raw const (*link).resumer);
            mem::replace(&mut (*link).parcel, Parcel::Empty)
        };
        match parcel {
            Parcel::Resume(input) => input,
            // `run` is only ever given these two.
            _ => throw_cancelled(),
        }
    }
}

#[cold]
fn throw_cancelled() -> ! {
    // Not `panic!`: nothing has gone wrong that a panic hook should report.
    panic::resume_unwind(Box::new(Cancelled))
}

/// The first frame of every coroutine.
unsafe extern "C" fn enter<Input, Yield, Return, F>(top: *mut Top<Input, Yield, Return, F>) -> !
where
    F: FnOnce(&Suspender<Input, Yield>, Input) -> Return,
{
    // SAFETY: `top` is what `Coroutine::new` wrote, and this runs once. The last switch leaves for
    // good: `run` sees an empty parcel and never switches here again. Everything that lived on this
    // stack is gone by then, because it lived in `begin`.
    unsafe {
        begin(top);
        let link = &raw mut (*top).core.link;
        arch::switch(&raw mut (*link).coroutine, &raw const (*link).resumer);
    }
    // A switch to a coroutine that is done: there is nothing to go on with, and no one to tell.
    process::abort()
}

/// Runs the function, or drops it, and sets the outcome. Never unwinds.
///
/// # Safety
///
/// `top` is what `Coroutine::new` wrote, and this is called once.
unsafe fn begin<Input, Yield, Return, F>(top: *mut Top<Input, Yield, Return, F>)
where
    F: FnOnce(&Suspender<Input, Yield>, Input) -> Return,
{
    // SAFETY: the resumer waits, so the core is ours; the function is read out once, here.
    let (function, parcel, link) = unsafe {
        let link = &raw mut (*top).core.link;
        let parcel = mem::replace(&mut (*link).parcel, Parcel::Empty);
        let function = ManuallyDrop::take(&mut (*top).function);
        (function, parcel, link)
    };
    // Unwind safety: a panic goes on in the resumer, or in whoever drops the coroutine.
    let outcome = match parcel {
        Parcel::Resume(input) => {
            let suspender = Suspender { link };
            let call = AssertUnwindSafe(|| function(&suspender, input));
            Some(panic::catch_unwind(call))
        }
        // Dropped before it began.
        _ => match panic::catch_unwind(AssertUnwindSafe(|| drop(function))) {
            Ok(()) => None,
            Err(panic) => Some(Err(panic)),
        },
    };
    // SAFETY: as above.
    unsafe { (*top).core.outcome = outcome };
}

impl<Input, Yield, Return> fmt::Debug for Coroutine<Input, Yield, Return> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coroutine")
            .field("status", &self.status)
            .field("stack", &*self.stack)
            .finish()
    }
}

impl<Input, Yield> fmt::Debug for Suspender<Input, Yield> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suspender").finish_non_exhaustive()
    }
}
