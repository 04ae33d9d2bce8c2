//! A typed view of the part of glibc that `pthread_create` keeps to itself: the thread descriptor
//! (`struct pthread`), the list of threads on stacks that are not glibc's own, the lock of that
//! list, and the number of threads.
//!
//! Nothing here knows an offset: [`discover`](super::discover) measures them all in the running
//! process. What is taken as given is the x86_64 ABI of the thread control block, the first 0x50
//! bytes, which compilers and debuggers rely on.
//!
//! # Lock
//!
//! glibc's stack-list lock is a three-state futex: 0 free, 1 held, 2 held with waiters. Two rules:
//! it is only waited for with SIGSETXID deliverable ([`signals::ALL_BUT_SETXID`]), and while it is
//! held nothing is called that might want it, or any other lock of glibc.

use super::signals;
use std::arch::asm;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// glibc's doubly linked list node.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ListHead {
    next: *mut ListHead,
    prev: *mut ListHead,
}

/// Byte offsets within struct pthread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offsets {
    /// The node in the list of threads.
    pub(super) list: usize,
    pub(super) tid: usize,
    /// `specific[0]`, which points to the first block of pthread keys, and that block.
    pub(super) specific: usize,
    pub(super) specific_block: usize,
    pub(super) flags: usize,
    /// The byte that tells a stack of the user's from one of glibc's.
    pub(super) user_stack: usize,
    pub(super) start_routine: usize,
    pub(super) arg: usize,
    /// The head of the robust mutex list. Before it stands the pointer to the previous element.
    pub(super) robust_head: usize,
    /// Four words: stack block, its size, the guard's size, the guard's size as reported.
    pub(super) stackblock: usize,
    pub(super) sigmask: usize,
    /// What the kernel clears at the end.
    pub(super) clear_tid: usize,
    pub(super) sched_policy: usize,
    pub(super) sched_priority: usize,
}

/// The header of struct pthread, x86_64 ABI.
pub(super) mod header {
    /// Points to itself.
    pub(in crate::os::thread::raw) const TCB: usize = 0x00;
    /// Points to itself too.
    pub(in crate::os::thread::raw) const SELF: usize = 0x10;
    pub(in crate::os::thread::raw) const MULTIPLE_THREADS: usize = 0x18;
    /// sysinfo, stack guard, pointer guard, two words for vgetcpu, feature_1: equal in all threads.
    pub(in crate::os::thread::raw) const SHARED: std::ops::Range<usize> = 0x20..0x50;
}

/// `ATTR_FLAG_SCHED_SET | ATTR_FLAG_POLICY_SET`: the part of the flags that pthread_create takes
/// from the creating thread.
const INHERITED_FLAGS: u32 = 0x20 | 0x40;

/// The address of a struct pthread. Copying it copies the address only; whether the memory behind
/// it is there is what the `unsafe` methods ask their callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pthread(*mut u8);

impl Pthread {
    pub(super) fn at(address: *mut u8) -> Self {
        Self(address)
    }

    /// The calling thread's own.
    pub(super) fn current() -> Self {
        let pointer: *mut u8;
        // SAFETY: on x86_64 Linux the word at fs:0 is the thread pointer, in every thread.
        unsafe {
            asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, pure, readonly, preserves_flags));
        }
        Self(pointer)
    }

    pub(super) fn as_ptr(self) -> *mut u8 {
        self.0
    }

    pub(super) fn address(self) -> usize {
        self.0.addr()
    }

    pub(super) fn field<T>(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset).cast()
    }

    /// # Safety
    ///
    /// A live struct pthread with a `T` at `offset` that nobody writes at the same time.
    pub(super) unsafe fn get<T: Copy>(self, offset: usize) -> T {
        // SAFETY: as the caller vouches.
        unsafe { self.field::<T>(offset).read() }
    }

    /// # Safety
    ///
    /// A struct pthread that no other thread can see yet, with room for a `T` at `offset`.
    unsafe fn put<T>(self, offset: usize, value: T) {
        // SAFETY: as the caller vouches.
        unsafe { self.field::<T>(offset).write(value) }
    }
}

/// The part of glibc that starting a thread needs, as found in this process. Made only by
/// [`discover`](super::discover), which has checked every field.
#[derive(Debug)]
pub(super) struct Glibc {
    pub(super) offsets: Offsets,
    /// `sizeof (struct pthread)`.
    pub(super) pthread_size: usize,
    /// Bytes of the static TLS block, struct pthread included, and their alignment.
    pub(super) tls_size: usize,
    pub(super) tls_align: usize,
    /// `flags` of a thread on a stack of the user's.
    pub(super) flags: u32,
    pub(super) user_stack: u8,
    pub(super) robust_futex_offset: isize,
    /// What the clear-tid word holds before the thread runs, where it is not the tid itself.
    pub(super) clear_tid_value: u32,
    pub(super) stacks: Stacks,
    pub(super) thread_count: *const AtomicU32,
    pub(super) single_threaded: *const u8,
    /// `start_thread`, the root of every pthread.
    pub(super) start_thread: usize,
    pub(super) allocate_tls: unsafe extern "C" fn(*mut u8) -> *mut u8,
    pub(super) deallocate_tls: unsafe extern "C" fn(*mut u8, bool),
}

// SAFETY: the pointers lead to variables of libc and ld.so, which are never unmapped. They are
// atomics, a flag that is only ever read, and lists that are touched under glibc's lock alone.
unsafe impl Send for Glibc {}
// SAFETY: as for Send.
unsafe impl Sync for Glibc {}

/// What a new thread's struct pthread says about the thread.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) start_routine: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
    pub(super) arg: *mut libc::c_void,
    /// First byte of the guard below the stack, its size, and the end of the mapping.
    pub(super) guard: usize,
    pub(super) guard_size: usize,
    pub(super) end: usize,
    /// The mask with which the thread enters `start_routine`.
    pub(super) mask: signals::Set,
}

impl Glibc {
    /// Fills in a zeroed struct pthread the way pthread_create does for a stack of the user's.
    ///
    /// Two fields stay zero on purpose. `setxid_futex`: pthread_create's -1 would make a `setuid`
    /// caller wait, list lock in hand, for a clone that may itself be waiting for dlopen's lock,
    /// whose holder may want the list lock. With 0 the caller signals the thread as soon as it has
    /// a tid, and until then its creator, from whom the thread inherits its identity. `joinid`: the
    /// thread is joinable.
    ///
    /// # Safety
    ///
    /// `pthread` must be zeroed memory of `pthread_size` bytes that nobody else can see.
    pub(super) unsafe fn describe(&self, pthread: Pthread, what: &Description) {
        let at = &self.offsets;
        let me = Pthread::current();
        // SAFETY: the caller owns the memory, and every offset was found to lie in it. Reading the
        // own thread's fields races with nothing: only the thread itself writes these.
        unsafe {
            pthread.put(header::TCB, pthread.address());
            pthread.put(header::SELF, pthread.address());
            pthread.put(header::MULTIPLE_THREADS, 1_u32);
            ptr::copy_nonoverlapping(
                me.field::<u8>(header::SHARED.start),
                pthread.field(header::SHARED.start),
                header::SHARED.len(),
            );
            let robust = pthread.address() + at.robust_head;
            pthread.put(at.robust_head - 8, robust);
            pthread.put(at.robust_head, robust);
            pthread.put(at.robust_head + 8, self.robust_futex_offset);
            pthread.put(at.specific, pthread.address() + at.specific_block);
            let inherited = me.get::<u32>(at.flags) & INHERITED_FLAGS;
            pthread.put(at.flags, (self.flags & !INHERITED_FLAGS) | inherited);
            pthread.put(at.sched_policy, me.get::<u32>(at.sched_policy));
            pthread.put(at.sched_priority, me.get::<u32>(at.sched_priority));
            pthread.put(at.user_stack, self.user_stack);
            // pthread_getattr_np subtracts the guard again, so it belongs to the block.
            pthread.put(at.stackblock, what.guard);
            pthread.put(at.stackblock + 8, what.end - what.guard);
            pthread.put(at.stackblock + 16, what.guard_size);
            pthread.put(at.stackblock + 24, what.guard_size);
            if at.clear_tid != at.tid {
                pthread.put(at.clear_tid, self.clear_tid_value);
            }
            pthread.put(at.sigmask, what.mask);
            pthread.put(at.start_routine, what.start_routine);
            pthread.put(at.arg, what.arg);
            // Linked to itself, so that taking it off a list it is not on changes nothing: fork
            // does that in the child if it comes at the wrong moment.
            let node = pthread.field::<ListHead>(at.list);
            node.write(ListHead {
                next: node,
                prev: node,
            });
        }
    }

    /// Lets glibc see the thread: counts it and puts it on the list that `setuid`, `dlopen` and
    /// debuggers walk. Call with SIGSETXID deliverable.
    ///
    /// # Safety
    ///
    /// `pthread` must be described, not announced yet, and stay until retracted or joined.
    pub(super) unsafe fn announce(&self, pthread: Pthread) {
        // Relaxed: a count. glibc's own updates of it pair with the clone and the join.
        // SAFETY: the counter is a variable of libc.
        unsafe { (*self.thread_count).fetch_add(1, Ordering::Relaxed) };
        let node = pthread.field(self.offsets.list);
        // SAFETY: the caller vouches for the node, and it is added under the lock.
        self.stacks.locked(|stacks| unsafe { stacks.add(node) });
    }

    /// Undoes [`announce`](Self::announce) for a thread that could not be started.
    ///
    /// # Safety
    ///
    /// `pthread` must be announced and without a running thread.
    pub(super) unsafe fn retract(&self, pthread: Pthread) {
        let node = pthread.field(self.offsets.list);
        // SAFETY: the caller vouches for the node, and it is removed under the lock.
        self.stacks.locked(|stacks| unsafe { stacks.remove(node) });
        // Relaxed as in `announce`.
        // SAFETY: as in `announce`.
        unsafe { (*self.thread_count).fetch_sub(1, Ordering::Relaxed) };
    }

    /// Whether glibc believes that this process has one thread, and so leaves out its locks.
    pub(super) fn is_single_threaded(&self) -> bool {
        // SAFETY: a one-byte variable of libc. Volatile: glibc writes it behind the compiler's back.
        unsafe { self.single_threaded.read_volatile() != 0 }
    }

    /// The word that the kernel clears when the thread is gone.
    pub(super) fn clear_tid_word(&self, pthread: Pthread) -> *mut u32 {
        pthread.field(self.offsets.clear_tid)
    }
}

/// glibc's two lists of threads and their lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stacks {
    /// Threads on stacks that pthread_create allocated.
    pub(super) used: *mut ListHead,
    /// Threads on stacks that their creator brought, and the main thread.
    pub(super) user: *mut ListHead,
    pub(super) lock: *const AtomicU32,
}

/// No list of threads is longer: Linux has at most 2²² pids.
const MAX_THREADS: usize = 1 << 22;

impl Stacks {
    /// Runs `f` with the lock held. `f` must not unwind, call into glibc, or take long.
    pub(super) fn locked<R>(&self, f: impl FnOnce(&Self) -> R) -> R {
        // SAFETY: the lock is a variable of ld.so; glibc too only touches it atomically.
        let lock = unsafe { &*self.lock };
        acquire(lock);
        let result = f(self);
        release(lock);
        result
    }

    /// # Safety
    ///
    /// Under the lock, with a node that is on no list.
    unsafe fn add(&self, node: *mut ListHead) {
        // SAFETY: the lock keeps every other writer out, and the nodes on the list belong to
        // threads that cannot go away without the lock. Who walks the list without it (a debugger,
        // or fork's child) finds it whole at each step: the node points into the list before the
        // list points to it, and the fence keeps that order.
        unsafe {
            let first = (*self.user).next;
            (*node).next = first;
            (*node).prev = self.user;
            fence(Ordering::Release);
            (*first).prev = node;
            (*self.user).next = node;
        }
    }

    /// # Safety
    ///
    /// Under the lock, with a node that is on one of the lists.
    unsafe fn remove(&self, node: *mut ListHead) {
        // SAFETY: as in `add`.
        unsafe {
            let ListHead { next, prev } = node.read();
            (*next).prev = prev;
            (*prev).next = next;
        }
    }

    /// Whether the node is on the list of user stacks, and whether it is on the other one. An error
    /// if a list does not end.
    ///
    /// # Safety
    ///
    /// Under the lock.
    pub(super) unsafe fn find(&self, node: *mut ListHead) -> Result<(bool, bool), String> {
        // SAFETY: the caller holds the lock.
        unsafe { Ok((contains(self.user, node)?, contains(self.used, node)?)) }
    }
}

/// # Safety
///
/// `head` is the head of one of glibc's lists, and the lock is held.
unsafe fn contains(head: *mut ListHead, node: *mut ListHead) -> Result<bool, String> {
    // SAFETY: under the lock every node of the list is there.
    let mut current = unsafe { (*head).next };
    for _ in 0..MAX_THREADS {
        if current == node {
            return Ok(true);
        }
        if current == head || current.is_null() {
            return if current.is_null() {
                Err("a list of threads has a hole".into())
            } else {
                Ok(false)
            };
        }
        // SAFETY: as above.
        current = unsafe { (*current).next };
    }
    Err("a list of threads does not end".into())
}

/// glibc's `lll_lock`. Acquire pairs with the Release in `release` and in glibc's `lll_unlock`.
fn acquire(lock: &AtomicU32) {
    if try_acquire(lock) {
        return;
    }
    // From here on as a waiter: whoever unlocks sees the 2 and wakes someone.
    while lock.swap(2, Ordering::Acquire) != 0 {
        futex(lock, libc::FUTEX_WAIT, 2);
    }
}

/// One try. Acquire as in `acquire`.
pub(super) fn try_acquire(lock: &AtomicU32) -> bool {
    lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
        .is_ok()
}

/// glibc's `lll_unlock`. Release pairs with the Acquire of whoever locks next.
pub(super) fn release(lock: &AtomicU32) {
    if lock.swap(0, Ordering::Release) > 1 {
        futex(lock, libc::FUTEX_WAKE, 1);
    }
}

fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    // SAFETY: the kernel only reads the word, which lives as long as the process. A wait may end
    // early or not begin; every caller looks again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation | libc::FUTEX_PRIVATE_FLAG,
            value,
            ptr::null::<libc::timespec>(),
        );
    }
}
