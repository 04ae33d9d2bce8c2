//! `Waker`s that are counted pointers to the task's header.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::header::{Header, TaskRef};
use super::runnable::Runnable;
use super::state::ToScheduled;

/// A waker that owns no reference: for the `Context` of a poll, whose caller owns one.
pub(super) struct Borrowed(ManuallyDrop<Waker>);

impl Deref for Borrowed {
    type Target = Waker;

    fn deref(&self) -> &Waker {
        &self.0
    }
}

/// # Safety
/// The caller holds a reference for as long as the result lives.
#[inline]
pub(super) unsafe fn borrowed(cell: NonNull<Header>) -> Borrowed {
    // SAFETY: the vtable fits the pointer; the waker is never dropped, so it needs no reference.
    Borrowed(ManuallyDrop::new(unsafe { Waker::from_raw(raw(cell)) }))
}

/// The task behind a waker, if the waker is one of a task of gort's. For comparison only.
#[inline]
pub(super) fn task_of(waker: &Waker) -> Option<*const Header> {
    // Equal vtables may have several addresses in principle; then a yield is only a little dearer.
    std::ptr::eq(waker.vtable(), &VTABLE).then(|| waker.data().cast())
}

fn raw(cell: NonNull<Header>) -> RawWaker {
    RawWaker::new(cell.as_ptr().cast_const().cast(), &VTABLE)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// The reference behind a waker's data pointer, still owned by the waker.
///
/// # Safety
/// `data` is that of a waker of this module.
unsafe fn task(data: *const ()) -> ManuallyDrop<TaskRef> {
    // SAFETY: `raw` made the pointer from a non-null cell that the waker keeps live.
    unsafe {
        let cell = NonNull::new_unchecked(data.cast_mut().cast());
        ManuallyDrop::new(TaskRef::from_raw(cell))
    }
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: called by `Waker` with its own data.
    let task = unsafe { task(data) };
    raw(TaskRef::clone(&task).into_raw())
}

unsafe fn wake(data: *const ()) {
    // SAFETY: as in `clone`.
    let task = unsafe { task(data) };
    match task.state().wake_by_val() {
        // SAFETY: the waker's reference became the `Runnable`'s, which is now ours.
        ToScheduled::Queue => unsafe { queue(&task) },
        ToScheduled::Nothing => {}
        // SAFETY: the waker's reference was the last.
        ToScheduled::Free => unsafe { (task.vtable().free)(task.as_ptr()) },
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: as in `clone`.
    let task = unsafe { task(data) };
    if task.state().wake_by_ref() == ToScheduled::Queue {
        // SAFETY: the transition made a `Runnable`, with a reference of its own.
        unsafe { queue(&task) }
    }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: as in `clone`; the waker's reference is dropped with it.
    drop(ManuallyDrop::into_inner(unsafe { task(data) }));
}

/// # Safety
/// The caller owns the task's `Runnable`.
unsafe fn queue(task: &TaskRef) {
    // SAFETY: the caller's contract. Once pushed, the task may run, complete and be freed on
    // another thread; the scheduler lives on regardless because `schedule` is called through the
    // task's M or keeps it alive itself.
    let runnable = unsafe { Runnable::from_raw(task.as_ptr()) };
    task.scheduler().schedule(runnable);
}
