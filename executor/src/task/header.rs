//! The G: a task, from `spawn` to the moment its memory is free again; and the part of its cell
//! that does not depend on the future's type.
//!
//! # One cell
//!
//! ```text
//!   Cell<F>  (one slab cell of a size class; `slab.rs`)
//!   ┌──────────────────────────────┬───────────────────────────────────┐
//!   │ Header, 72 bytes             │ Stage<F>                          │
//!   │ state · next · vtable ·      │ Future(F)  →  Output(..)  → Empty │
//!   │ scheduler · id · join waker ·│ (a future too large for the       │
//!   │ spawn site · queued at       │  largest class: a Box of the same)│
//!   └──────────────────────────────┴───────────────────────────────────┘
//! ```
//!
//! # Who may touch which field
//!
//! | field | read | written |
//! |---|---|---|
//! | `state` | anyone | by transitions only (`state.rs`) |
//! | `next` | whoever owns the `Runnable` (queue) or the free cell (free list) | same |
//! | `vtable`, `scheduler`, `id`, `location`, `class` | any reference | before `State::init` |
//! | `queued_at` | the M that dequeues | whoever queues; a queue hands it over |
//! | `join_waker` | see `State::set_join_waker` | same |
//! | `stage` | the holder of RUNNING; after COMPLETE the `JoinHandle` or completer | same |
//!
//! # Life cycle
//!
//! 1. `spawn` takes a cell, writes header and future, makes the state live.
//! 2. The [`Runnable`] goes to a queue. An M takes it and calls [`Runnable::run`].
//! 3. The poll parks, is queued again, or completes; completing wakes the `JoinHandle` and gives
//!    up the task's own reference.
//! 4. The last reference, on whichever thread, drops what is left in the cell and returns it to
//!    the slab; then the cell's share in the scheduler's life is given back.
//!
//! User code (polls, drops, wakers) runs only in `harness.rs` and `join.rs`, never under a lock
//! and never with the M's mark up (`sched/ownership.rs`).

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::mem::offset_of;
use std::panic::Location;
use std::ptr::NonNull;
use std::task::{Poll, Waker};

use super::Id;
use super::runnable::{Polled, Runnable};
use super::state::State;
use crate::sched::Scheduler;

/// What the scheduler can do with a task without knowing its future. All functions take the
/// address of a live cell of the vtable's own type.
pub(super) struct Vtable {
    /// Polls a task that is RUNNING by the caller, who owns a `Runnable`'s reference; gives the
    /// `Runnable` back if the task is to be queued again.
    pub(super) poll: unsafe fn(NonNull<Header>) -> Polled,
    /// Drops the future of a task that is RUNNING by the caller, and completes it as cancelled;
    /// takes over one reference.
    pub(super) cancel: unsafe fn(NonNull<Header>),
    /// Moves the output into the `Poll<Result<T, JoinError>>` behind the pointer.
    pub(super) take_output: unsafe fn(NonNull<Header>, *mut ()),
    /// Drops the output.
    pub(super) drop_output: unsafe fn(NonNull<Header>),
    /// Drops what is left in the stage and frees the cell.
    pub(super) free: unsafe fn(NonNull<Header>),
}

/// See the table in the module's doc for who may touch which field.
#[repr(C)]
pub(crate) struct Header {
    /// First: a free cell is known by this word alone.
    state: State,
    next: Cell<Option<NonNull<Header>>>,
    pub(super) vtable: &'static Vtable,
    /// Valid while the cell lives: the cell holds a share of the scheduler's life.
    pub(super) scheduler: NonNull<Scheduler>,
    pub(super) id: Id,
    /// When the task was queued, if this transition is sampled; see `sched::scheduler`.
    queued_at: Cell<u32>,
    pub(super) class: u8,
    pub(super) join_waker: UnsafeCell<Option<Waker>>,
    pub(super) location: &'static Location<'static>,
}

// What a turn touches stands first, within one cache line of 64 bytes.
const _: () = assert!(size_of::<Header>() == 72 && offset_of!(Header, location) == 64);

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Header {
    /// Writes a free cell's header, but for the state word, which walkers look at meanwhile.
    ///
    /// # Safety
    /// `cell` is a free cell of a slab, and the caller's alone.
    #[inline(always)]
    pub(super) unsafe fn write(
        cell: NonNull<Header>,
        vtable: &'static Vtable,
        scheduler: NonNull<Scheduler>,
        id: Id,
        location: &'static Location<'static>,
        class: u8,
    ) {
        let header = cell.as_ptr();
        // SAFETY: the fields are the caller's; nothing of a free cell needs dropping.
        unsafe {
            (&raw mut (*header).next).write(Cell::new(None));
            (&raw mut (*header).vtable).write(vtable);
            (&raw mut (*header).scheduler).write(scheduler);
            (&raw mut (*header).id).write(id);
            (&raw mut (*header).queued_at).write(Cell::new(0));
            (&raw mut (*header).class).write(class);
            (&raw mut (*header).join_waker).write(UnsafeCell::new(None));
            (&raw mut (*header).location).write(location);
        }
    }

    /// The state word of any cell, live or free.
    ///
    /// # Safety
    /// `cell` is a cell of a slab.
    pub(super) unsafe fn state<'a>(cell: NonNull<Header>) -> &'a State {
        // SAFETY: cells are mapped for ever and start with a `State`, which is an atomic word and
        // valid at any value.
        unsafe { &(*cell.as_ptr()).state }
    }

    /// # Safety
    /// The caller owns the cell's link: it has the task's `Runnable`, or the free cell.
    pub(crate) unsafe fn next(cell: NonNull<Header>) -> Option<NonNull<Header>> {
        // SAFETY: by contract nobody else touches the link; the field is plain data.
        unsafe { (*cell.as_ptr()).next.get() }
    }

    /// # Safety
    /// As [`Header::next`].
    pub(crate) unsafe fn set_next(cell: NonNull<Header>, next: Option<NonNull<Header>>) {
        // SAFETY: as in `next`. Written through the raw field, for a free cell's other fields may
        // be anything.
        unsafe { (&raw mut (*cell.as_ptr()).next).write(Cell::new(next)) }
    }

    /// # Safety
    /// The caller owns the task's `Runnable`.
    pub(super) unsafe fn queued_at(cell: NonNull<Header>) -> u32 {
        // SAFETY: the field belongs to the owner of the `Runnable`.
        unsafe { (*cell.as_ptr()).queued_at.get() }
    }

    /// # Safety
    /// The caller owns the task's `Runnable`.
    pub(super) unsafe fn set_queued_at(cell: NonNull<Header>, at: u32) {
        // SAFETY: as above.
        unsafe { (*cell.as_ptr()).queued_at.set(at) }
    }
}

/// A counted pointer to a live task: what wakers, handles and walkers hold.
#[derive(Debug)]
pub(super) struct TaskRef(NonNull<Header>);

// SAFETY: through a `TaskRef` only the atomic state, the fields that never change after `spawn`,
// and vtable functions guarded by state transitions are used. Futures are `Send` by `spawn`'s
// bound, or never leave the thread that may touch them.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// # Safety
    /// The caller owns a reference and hands it over.
    pub(super) unsafe fn from_raw(cell: NonNull<Header>) -> Self {
        Self(cell)
    }

    pub(super) fn as_ptr(&self) -> NonNull<Header> {
        self.0
    }

    pub(super) fn into_raw(self) -> NonNull<Header> {
        std::mem::ManuallyDrop::new(self).0
    }

    pub(super) fn state(&self) -> &State {
        // SAFETY: a live cell is a cell of a slab.
        unsafe { Header::state(self.0) }
    }

    pub(super) fn vtable(&self) -> &'static Vtable {
        // SAFETY: our reference keeps the cell live, and `vtable` never changes while it is.
        unsafe { (*self.0.as_ptr()).vtable }
    }

    pub(super) fn id(&self) -> Id {
        // SAFETY: as in `vtable`.
        unsafe { (*self.0.as_ptr()).id }
    }

    pub(super) fn location(&self) -> &'static Location<'static> {
        // SAFETY: as in `vtable`.
        unsafe { (*self.0.as_ptr()).location }
    }

    pub(super) fn scheduler(&self) -> &Scheduler {
        // SAFETY: the cell's share keeps the scheduler alive while the cell lives, and our
        // reference keeps the cell live.
        unsafe { (*self.0.as_ptr()).scheduler.as_ref() }
    }

    /// Cancels the task from outside: at its next turn it is dropped instead of polled.
    pub(super) fn abort(&self) {
        match self.state().abort() {
            super::state::ToScheduled::Queue => {
                // SAFETY: `Queue` hands us the task's `Runnable` with its reference.
                let runnable = unsafe { Runnable::from_raw(self.0) };
                self.scheduler().schedule(runnable);
            }
            super::state::ToScheduled::Nothing => {}
            super::state::ToScheduled::Free => unreachable!("abort consumes no reference"),
        }
    }

    /// # Safety
    /// The task is complete and the caller has the right to its output; `T` is its output type.
    pub(super) unsafe fn take_output<T>(&self) -> Result<T, super::JoinError> {
        let mut slot: Poll<Result<T, super::JoinError>> = Poll::Pending;
        // SAFETY: the caller's contract; the slot has the type that the vtable expects.
        unsafe { (self.vtable().take_output)(self.0, (&raw mut slot).cast()) };
        match slot {
            Poll::Ready(output) => output,
            Poll::Pending => unreachable!("take_output fills the slot"),
        }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        self.state().add_ref();
        Self(self.0)
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        if self.state().drop_refs(1) {
            // SAFETY: it was the last reference, so nobody else can reach the cell.
            unsafe { (self.vtable().free)(self.0) };
        }
    }
}
