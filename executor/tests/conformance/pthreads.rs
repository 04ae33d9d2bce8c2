//! pthread calls on and from a thread.

use crate::support::{THREADS, Threads, join, wait_until};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

unsafe extern "C" {
    fn pthread_tryjoin_np(thread: libc::pthread_t, result: *mut *mut c_void) -> c_int;
    fn pthread_timedjoin_np(
        thread: libc::pthread_t,
        result: *mut *mut c_void,
        until: *const libc::timespec,
    ) -> c_int;
}

static DESTROYED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn count(value: *mut c_void) {
    DESTROYED.fetch_add(value.addr(), Ordering::Relaxed);
}

pub(crate) fn keys_and_destructors(threads: Threads) {
    // More than the 32 that fit into the descriptor itself.
    const KEYS: usize = 100;
    let keys: Vec<_> = (0..KEYS)
        .map(|_| {
            let mut key = 0;
            // SAFETY: the destructor takes any value.
            let rc = unsafe { libc::pthread_key_create(&mut key, Some(count)) };
            assert_eq!(rc, 0);
            key
        })
        .collect();
    for round in 1..=2 {
        let keys = keys.clone();
        threads.each(move |_| {
            for &key in &keys {
                // SAFETY: the keys exist until the end of the process.
                unsafe {
                    assert!(
                        libc::pthread_getspecific(key).is_null(),
                        "a value of another thread"
                    );
                    assert_eq!(
                        libc::pthread_setspecific(key, ptr::without_provenance(1)),
                        0
                    );
                    assert_eq!(libc::pthread_getspecific(key).addr(), 1);
                }
            }
        });
        assert_eq!(DESTROYED.load(Ordering::Relaxed), round * KEYS * THREADS);
    }
}

pub(crate) fn create_and_join(threads: Threads) {
    extern "C" fn echo(argument: *mut c_void) -> *mut c_void {
        argument
    }
    threads.each(|_| {
        for k in 1..50 {
            let (mut thread, mut result) = (0, ptr::null_mut());
            // SAFETY: the start routine touches nothing, and the thread is joined once.
            unsafe {
                let argument = ptr::without_provenance_mut(k);
                assert_eq!(
                    libc::pthread_create(&mut thread, ptr::null(), echo, argument),
                    0
                );
                assert_eq!(libc::pthread_join(thread, &mut result), 0);
            }
            assert_eq!(result.addr(), k);
        }
    });
}

pub(crate) fn tryjoin_and_timedjoin(threads: Threads) {
    let go_on = Arc::new(AtomicBool::new(false));
    let itself = Arc::new(AtomicUsize::new(0));
    let (g, i) = (go_on.clone(), itself.clone());
    let handle = threads.spawn(move || {
        // SAFETY: pthread_self touches no memory.
        i.store(unsafe { libc::pthread_self() } as usize, Ordering::Release);
        while !g.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    });
    wait_until("the thread runs", || itself.load(Ordering::Acquire) != 0);
    let thread = itself.load(Ordering::Acquire) as libc::pthread_t;
    let long_ago = libc::timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    // SAFETY: the thread is not joined yet, and neither call succeeds while it runs.
    unsafe {
        assert_eq!(pthread_tryjoin_np(thread, ptr::null_mut()), libc::EBUSY);
        assert_eq!(
            pthread_timedjoin_np(thread, ptr::null_mut(), &long_ago),
            libc::ETIMEDOUT
        );
    }
    go_on.store(true, Ordering::Relaxed);
    join(handle);
}
