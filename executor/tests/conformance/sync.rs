//! pthread mutexes that know their owner: glibc takes it from the thread's descriptor, and for some
//! kinds the kernel compares it.

use crate::support::{THREADS, Threads, gettid, join};
use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::Arc;

unsafe extern "C" {
    fn pthread_mutexattr_setrobust(attr: *mut libc::pthread_mutexattr_t, robust: c_int) -> c_int;
    fn pthread_mutex_consistent(mutex: *mut libc::pthread_mutex_t) -> c_int;
}

/// A heap-allocated pthread mutex and a number that it protects.
struct Mutex {
    raw: UnsafeCell<libc::pthread_mutex_t>,
    number: UnsafeCell<u64>,
}

// SAFETY: the mutex is made to be shared, and the number is touched under it only.
unsafe impl Send for Mutex {}
// SAFETY: as for Send.
unsafe impl Sync for Mutex {}

impl Mutex {
    /// `set` chooses the kind.
    fn new(set: impl FnOnce(*mut libc::pthread_mutexattr_t) -> c_int) -> Arc<Self> {
        let mutex = Arc::new(Self {
            raw: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            number: UnsafeCell::new(0),
        });
        let mut attr = MaybeUninit::uninit();
        // SAFETY: the attributes are initialised before use, and the mutex stays where it is.
        unsafe {
            assert_eq!(libc::pthread_mutexattr_init(attr.as_mut_ptr()), 0);
            assert_eq!(set(attr.as_mut_ptr()), 0);
            assert_eq!(libc::pthread_mutex_init(mutex.raw.get(), attr.as_ptr()), 0);
        }
        mutex
    }

    fn of_kind(kind: c_int) -> Arc<Self> {
        // SAFETY: `new` passes initialised attributes.
        Self::new(|attr| unsafe { libc::pthread_mutexattr_settype(attr, kind) })
    }

    fn lock(&self) -> c_int {
        // SAFETY: the mutex is initialised and stays where it is.
        unsafe { libc::pthread_mutex_lock(self.raw.get()) }
    }

    fn unlock(&self) -> c_int {
        // SAFETY: as in `lock`.
        unsafe { libc::pthread_mutex_unlock(self.raw.get()) }
    }

    /// With the lock held.
    fn count(&self) {
        // SAFETY: the lock is held.
        unsafe { *self.number.get() += 1 };
    }

    /// After all threads have been joined.
    fn counted(&self) -> u64 {
        // SAFETY: no other thread is left.
        unsafe { *self.number.get() }
    }

    /// The owner's tid: the third word of a pthread_mutex_t, with the lock held.
    fn owner(&self) -> i32 {
        // SAFETY: a word of the structure, written under the lock, which is held.
        unsafe { self.raw.get().cast::<i32>().add(2).read() }
    }
}

const ROUNDS: u64 = 2000;

pub(crate) fn mutex_kinds(threads: Threads) {
    let recursive = Mutex::of_kind(libc::PTHREAD_MUTEX_RECURSIVE);
    let checking = Mutex::of_kind(libc::PTHREAD_MUTEX_ERRORCHECK);
    let (r, c) = (recursive.clone(), checking.clone());
    threads.each(move |_| {
        for _ in 0..ROUNDS {
            assert_eq!((r.lock(), r.lock()), (0, 0));
            assert_eq!(r.owner(), gettid());
            r.count();
            assert_eq!((r.unlock(), r.unlock(), r.unlock()), (0, 0, libc::EPERM));
            assert_eq!((c.lock(), c.lock()), (0, libc::EDEADLK));
            c.count();
            assert_eq!((c.unlock(), c.unlock()), (0, libc::EPERM));
        }
    });
    let all = THREADS as u64 * ROUNDS;
    assert_eq!((recursive.counted(), checking.counted()), (all, all));
}

pub(crate) fn mutex_priority_inheritance(threads: Threads) {
    // SAFETY: `new` passes initialised attributes.
    let mutex = Mutex::new(|attr| unsafe {
        libc::pthread_mutexattr_setprotocol(attr, libc::PTHREAD_PRIO_INHERIT)
    });
    let inside = mutex.clone();
    threads.each(move |_| {
        for _ in 0..ROUNDS / 4 {
            assert_eq!(inside.lock(), 0);
            inside.count();
            // Leaves room for others to wait, which brings the kernel in.
            std::thread::yield_now();
            assert_eq!(inside.unlock(), 0);
        }
    });
    assert_eq!(mutex.counted(), THREADS as u64 * (ROUNDS / 4));
}

pub(crate) fn mutex_robust(threads: Threads) {
    for _ in 0..5 {
        // SAFETY: `new` passes initialised attributes; 1 is PTHREAD_MUTEX_ROBUST.
        let mutex = Mutex::new(|attr| unsafe { pthread_mutexattr_setrobust(attr, 1) });
        let left_locked = mutex.clone();
        join(threads.spawn(move || assert_eq!(left_locked.lock(), 0)));
        // The kernel walked the dead thread's robust list.
        assert_eq!(mutex.lock(), libc::EOWNERDEAD);
        // SAFETY: the lock is held, by this thread.
        assert_eq!(unsafe { pthread_mutex_consistent(mutex.raw.get()) }, 0);
        assert_eq!(mutex.unlock(), 0);
        let inside = mutex.clone();
        threads.each(move |_| {
            for _ in 0..200 {
                assert_eq!((inside.lock(), inside.unlock()), (0, 0));
            }
        });
    }
}

pub(crate) fn rwlock(threads: Threads) {
    struct Lock(UnsafeCell<libc::pthread_rwlock_t>);
    // SAFETY: a rwlock is made to be shared.
    unsafe impl Send for Lock {}
    // SAFETY: as above.
    unsafe impl Sync for Lock {}
    impl Lock {
        fn get(&self) -> *mut libc::pthread_rwlock_t {
            self.0.get()
        }
    }
    let lock = Arc::new(Lock(UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER)));
    threads.each(move |_| {
        for _ in 0..500 {
            // SAFETY: the lock is initialised and stays where it is.
            unsafe {
                assert_eq!(libc::pthread_rwlock_wrlock(lock.get()), 0);
                assert_eq!(libc::pthread_rwlock_wrlock(lock.get()), libc::EDEADLK);
                assert_eq!(libc::pthread_rwlock_unlock(lock.get()), 0);
                assert_eq!(libc::pthread_rwlock_rdlock(lock.get()), 0);
                assert_eq!(libc::pthread_rwlock_unlock(lock.get()), 0);
            }
        }
    });
}
