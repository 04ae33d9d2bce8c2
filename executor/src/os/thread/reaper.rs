//! Threads whose handles were dropped.
//!
//! Such a thread is never detached: its stack is gort's and may be unmapped only after the kernel
//! has finished with it, which is what a join tells. So the handle waits in a process-wide list
//! until its thread has ended, and the next spawn or join takes it off.
//!
//! The list is a stack of nodes with two operations, push one and take all. Nobody pops a single
//! node, so there is no ABA problem, and there is no lock that a fork could leave held. A handle
//! that another thread is just looking at is not in the list; at worst it waits for the next turn.

use super::JoinHandle;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

struct Node {
    handle: JoinHandle,
    next: *mut Node,
}

static HEAD: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());

/// Takes over a handle, and joins the thread on the spot if it has already ended. In a forked child
/// the handles from before the fork, the list's too, are let go: there is nothing to join.
pub(super) fn adopt(handle: JoinHandle) {
    if handle.lost_in_fork() {
        drop(handle);
    } else if handle.is_finished() {
        finish(handle);
    } else {
        push(handle);
    }
}

/// Joins every thread in the list that has ended.
pub(super) fn reap() {
    // Relaxed: only a hint; a handle that is missed now is found the next time.
    if HEAD.load(Ordering::Relaxed).is_null() {
        return;
    }
    // Acquire pairs with the Release in `push`: the nodes are seen as they were written.
    let mut next = HEAD.swap(ptr::null_mut(), Ordering::Acquire);
    while !next.is_null() {
        // SAFETY: the swap took the whole chain off the list, so it belongs to this call alone;
        // every node in it came from `Box::into_raw` in `push`.
        let node = unsafe { Box::from_raw(next) };
        next = node.next;
        adopt(node.handle);
    }
}

fn push(handle: JoinHandle) {
    let node = Box::into_raw(Box::new(Node {
        handle,
        next: ptr::null_mut(),
    }));
    let mut head = HEAD.load(Ordering::Relaxed);
    loop {
        // SAFETY: the node is not in the list yet, so nobody else can see it.
        unsafe { (*node).next = head };
        // Release pairs with the Acquire in `reap`.
        match HEAD.compare_exchange_weak(head, node, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(current) => head = current,
        }
    }
}

/// Joins an ended thread. Its result is dropped: nobody can ask for it any more, and the panic
/// hook has already reported a panic.
fn finish(mut handle: JoinHandle) {
    match handle.thread.take() {
        Some(super::Thread::Raw(thread)) => thread.join(),
        Some(super::Thread::Std(thread)) => thread.join(),
        None => {}
    }
}
