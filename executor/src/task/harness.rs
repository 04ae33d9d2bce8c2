//! The part of a task cell that knows the future's type: making one, polling, completing.
//!
//! Every call of user code (poll, drop of future or output, the join waker) is inside a
//! `catch_unwind`: a panic becomes the task's `JoinError` or, where there is nobody to tell, ends
//! here. It never reaches the M.

use std::future::Future;
use std::mem::{ManuallyDrop, offset_of};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use super::header::{Header, TaskRef, Vtable};
use super::runnable::{Polled, Runnable};
use super::state::ToParked;
use super::{Cache, Id, JoinError, JoinHandle, current, slab, waker};
use crate::quietly::quietly;
use crate::sched::{self, Scheduler};

/// What stands behind the header.
enum Stage<F: Future> {
    Future(F),
    Output(Result<F::Output, JoinError>),
    Empty,
}

/// A cell with its stage in place.
#[repr(C)]
struct Inline<F: Future> {
    header: Header,
    stage: Stage<F>,
}

/// A cell whose stage does not fit in the largest class, or wants more alignment than a cell has.
#[repr(C)]
struct Boxed<F: Future> {
    header: Header,
    stage: Box<Stage<F>>,
}

/// The functions for tasks of future `F`.
struct Harness<F>(std::marker::PhantomData<F>);

impl<F: Future> Harness<F> {
    const INLINE: bool =
        size_of::<Inline<F>>() <= slab::LARGEST && align_of::<Inline<F>>() <= slab::CELL_ALIGN;

    const CLASS: usize = slab::class_of(if Self::INLINE {
        size_of::<Inline<F>>()
    } else {
        size_of::<Boxed<F>>()
    });

    const VTABLE: &'static Vtable = &Vtable {
        poll: Self::poll,
        cancel: Self::cancel,
        take_output: Self::take_output,
        drop_output: Self::drop_output,
        free: Self::free,
    };

    /// Writes a task into a free cell and makes it live.
    ///
    /// # Safety
    /// `cell` is a free cell of `Self::CLASS` that nobody else holds, and `scheduler` lives as
    /// long as the cell does (the caller gives the cell its share).
    #[inline(always)]
    unsafe fn write(
        cell: NonNull<Header>,
        future: F,
        scheduler: NonNull<Scheduler>,
        id: Id,
        location: &'static Location<'static>,
    ) {
        // SAFETY: the cell is ours, large enough and aligned for either layout. The state
        // word stays zero, so walkers pass by until `init`.
        unsafe {
            Header::write(
                cell,
                Self::VTABLE,
                scheduler,
                id,
                location,
                Self::CLASS as u8,
            );
            if Self::INLINE {
                Self::stage(cell).write(Stage::Future(future));
            } else {
                let stage = Box::new(Stage::Future(future));
                (&raw mut (*cell.cast::<Boxed<F>>().as_ptr()).stage).write(stage);
            }
            Header::state(cell).init();
        }
    }

    /// # Safety
    /// `cell` is a cell of this type, whose header has been written.
    #[inline(always)]
    unsafe fn stage(cell: NonNull<Header>) -> *mut Stage<F> {
        // SAFETY: plain address arithmetic inside the cell, or a read of the Box's address, which
        // never changes while the cell lives.
        unsafe {
            if Self::INLINE {
                cell.byte_add(offset_of!(Inline<F>, stage)).as_ptr().cast()
            } else {
                let boxed = &raw mut (*cell.cast::<Boxed<F>>().as_ptr()).stage;
                (*boxed.cast::<*mut Stage<F>>()).cast()
            }
        }
    }

    /// # Safety
    /// The contract of [`Vtable::poll`].
    unsafe fn poll(cell: NonNull<Header>) -> Polled {
        // SAFETY: RUNNING is ours, so the stage is too.
        let stage = unsafe { Self::stage(cell) };
        // SAFETY: the caller's reference keeps the cell live for the whole of the poll; the
        // borrowed waker lives no longer, and whoever keeps it clones it.
        let waker = unsafe { waker::borrowed(cell) };
        let current = current::Guard::polling(cell);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the stage holds the future until RUNNING turns into COMPLETE, and the cell
            // does not move while it lives: pinned.
            let future = unsafe {
                match &mut *stage {
                    Stage::Future(future) => Pin::new_unchecked(future),
                    Stage::Output(_) | Stage::Empty => unreachable!("RUNNING without a future"),
                }
            };
            let polled = future.poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                // SAFETY: the stage is ours; a future is dropped before its output is stored.
                unsafe { replace(stage, Stage::Empty) };
            }
            polled
        }));
        let output = match polled {
            Ok(Poll::Pending) => {
                // SAFETY: a live cell.
                let state = unsafe { Header::state(cell) };
                let yielded = current.has_yielded();
                match state.to_parked(yielded) {
                    ToParked::Parked => return Polled::Parked,
                    ToParked::Reschedule => {
                        // SAFETY: the transition leaves us the `Runnable`.
                        let runnable = unsafe { Runnable::from_raw(cell) };
                        return if yielded {
                            Polled::Yielded(runnable)
                        } else {
                            Polled::Woken(runnable)
                        };
                    }
                    // SAFETY: RUNNING stays ours.
                    ToParked::Cancel => unsafe { Self::drop_future(cell) },
                }
            }
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => {
                // A second panic, in the future's drop, is of no interest; nor is a third, in the
                // drop of its payload.
                // SAFETY: as above.
                quietly(|| drop(unsafe { Self::drop_future(cell) }));
                Err(JoinError::panic(super::Id::of(cell), payload))
            }
        };
        // SAFETY: RUNNING is ours, the stage is empty, and the `Runnable`'s reference goes along.
        unsafe { Self::complete(cell, output) };
        Polled::Parked
    }

    /// # Safety
    /// The contract of [`Vtable::cancel`].
    unsafe fn cancel(cell: NonNull<Header>) {
        let _current = current::Guard::dropping(cell);
        // SAFETY: RUNNING is ours, and one reference.
        unsafe {
            let output = Self::drop_future(cell);
            Self::complete(cell, output);
        }
    }

    /// Empties the stage; the error says how that went.
    ///
    /// # Safety
    /// RUNNING is the caller's.
    unsafe fn drop_future(cell: NonNull<Header>) -> Result<F::Output, JoinError> {
        // SAFETY: the stage is ours with RUNNING.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe {
            replace(Self::stage(cell), Stage::Empty)
        }));
        Err(match dropped {
            Ok(()) => JoinError::cancelled(Id::of(cell)),
            Err(payload) => JoinError::panic(Id::of(cell), payload),
        })
    }

    /// Stores the output, tells the `JoinHandle`, and drops two references: the task's own and
    /// the caller's.
    ///
    /// # Safety
    /// RUNNING and one reference are the caller's; the stage is empty.
    unsafe fn complete(cell: NonNull<Header>, output: Result<F::Output, JoinError>) {
        // SAFETY: the stage is ours and empty, so nothing needs dropping.
        unsafe { Self::stage(cell).write(Stage::Output(output)) };
        // SAFETY: a live cell; the references below outlast the borrow.
        let state = unsafe { Header::state(cell) };
        let completed = state.complete();
        if completed.drop_output {
            // SAFETY: no `JoinHandle` lives, so the output is ours.
            unsafe { Self::drop_output(cell) };
        } else if completed.wake_join {
            // SAFETY: JOIN_WAKER lends us the slot until `release_join_waker`.
            let slot = unsafe { &(*cell.as_ptr()).join_waker };
            quietly(|| {
                // SAFETY: nobody writes the slot while JOIN_WAKER is set.
                if let Some(waker) = unsafe { &*slot.get() } {
                    waker.wake_by_ref();
                }
            });
            if state.release_join_waker() {
                // SAFETY: the handle is gone; the slot is ours alone.
                quietly(|| drop(unsafe { (*slot.get()).take() }));
            }
        }
        // SAFETY: as above; the scheduler outlives the cell.
        unsafe { (*cell.as_ptr()).scheduler.as_ref() }.task_completed();
        if state.drop_refs(2) {
            // SAFETY: they were the last.
            unsafe { Self::free(cell) };
        }
    }

    /// # Safety
    /// The contract of [`Vtable::take_output`].
    unsafe fn take_output(cell: NonNull<Header>, slot: *mut ()) {
        // SAFETY: by contract the stage is the caller's and `slot` has this type.
        unsafe {
            let stage = Self::stage(cell);
            match std::mem::replace(&mut *stage, Stage::Empty) {
                Stage::Output(output) => {
                    *slot.cast::<Poll<Result<F::Output, JoinError>>>() = Poll::Ready(output);
                }
                _ => panic!("JoinHandle polled after completion"),
            }
        }
    }

    /// # Safety
    /// The contract of [`Vtable::drop_output`].
    unsafe fn drop_output(cell: NonNull<Header>) {
        let _current = current::Guard::dropping(cell);
        // SAFETY: by contract the stage is the caller's.
        quietly(|| unsafe { replace(Self::stage(cell), Stage::Empty) });
    }

    /// # Safety
    /// The contract of [`Vtable::free`]: the last reference is gone.
    unsafe fn free(cell: NonNull<Header>) {
        // SAFETY: nobody else can reach the cell, whose header is live; the scheduler is, until
        // the cell's share is given back at the end of `free_cell`.
        unsafe {
            quietly(|| {
                if Self::INLINE {
                    Self::stage(cell).drop_in_place();
                } else {
                    (&raw mut (*cell.cast::<Boxed<F>>().as_ptr()).stage).drop_in_place();
                }
            });
            quietly(|| (&raw mut (*cell.as_ptr()).join_waker).drop_in_place());
            let scheduler = (*cell.as_ptr()).scheduler;
            Header::state(cell).clear();
            sched::free_cell(scheduler, Self::CLASS, cell);
        }
    }
}

/// Drops what `stage` holds, with `next` in its place even if the drop panics.
///
/// # Safety
/// The stage is the caller's.
unsafe fn replace<F: Future>(stage: *mut Stage<F>, next: Stage<F>) {
    struct Write<F: Future>(*mut Stage<F>, ManuallyDrop<Stage<F>>);
    impl<F: Future> Drop for Write<F> {
        fn drop(&mut self) {
            // SAFETY: the old value has been dropped; the new one is moved in, once.
            unsafe { self.0.write(ManuallyDrop::take(&mut self.1)) };
        }
    }
    let _write = Write(stage, ManuallyDrop::new(next));
    // SAFETY: the stage is ours and initialised; a pinned future is dropped in place.
    unsafe { stage.drop_in_place() };
}

/// A task as `spawn` makes it.
#[must_use]
pub(crate) struct Spawned<T> {
    pub(crate) runnable: Runnable,
    pub(crate) join: JoinHandle<T>,
}

/// Makes a task of `future`, in a cell from `cache` or, without one, from the shared pool.
///
/// # Safety
/// `scheduler` outlives the cell: the caller has taken a share of its life for it. `F` is `Send`,
/// or the task never leaves the thread.
#[inline(always)]
pub(crate) unsafe fn new<F: Future>(
    cache: Option<&mut Cache>,
    future: F,
    scheduler: NonNull<Scheduler>,
    id: Id,
    location: &'static Location<'static>,
) -> Spawned<F::Output> {
    let class = Harness::<F>::CLASS;
    let cell = match cache {
        Some(cache) => cache.alloc(class),
        None => slab::alloc_shared(class),
    };
    // SAFETY: the cell is free, of the right class and ours; the scheduler by contract. A new
    // task has three references, of which the `Runnable` and the `JoinHandle` are made here.
    unsafe {
        Harness::<F>::write(cell, future, scheduler, id, location);
        Spawned {
            runnable: Runnable::from_raw(cell),
            join: JoinHandle::new(TaskRef::from_raw(cell)),
        }
    }
}

/// Returns a cell whose contents are gone to `cache` or to the shared pool.
///
/// # Safety
/// As `slab::free_shared`.
pub(crate) unsafe fn recycle(cache: Option<&mut Cache>, class: usize, cell: NonNull<Header>) {
    // SAFETY: the caller's contract.
    unsafe {
        match cache {
            Some(cache) => cache.free(class, cell),
            None => slab::free_shared(class, cell),
        }
    }
}
