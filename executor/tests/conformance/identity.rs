//! `setuid` and its kin must reach every thread: one that keeps root is a hole in the service.

use crate::support::{THREADS, Threads, is_root, join, skip};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

/// nobody.
const NOBODY: u32 = 65534;

/// The kernel's idea of the calling thread's user and group.
fn ids() -> (u32, u32) {
    // SAFETY: the calls touch no memory.
    unsafe {
        (
            libc::syscall(libc::SYS_getuid) as u32,
            libc::syscall(libc::SYS_getgid) as u32,
        )
    }
}

fn become_nobody() {
    // SAFETY: changes the identity of the child process that this item runs in.
    unsafe {
        assert_eq!(libc::setgid(NOBODY), 0);
        assert_eq!(libc::setuid(NOBODY), 0);
    }
}

pub(crate) fn setuid_elsewhere(threads: Threads) {
    if !is_root() {
        return skip("setuid_elsewhere", &"only root can change its user");
    }
    let changed = Arc::new(Barrier::new(THREADS + 1));
    let handles: Vec<_> = (0..THREADS)
        .map(|_| {
            let changed = changed.clone();
            threads.spawn(move || {
                changed.wait();
                changed.wait();
                assert_eq!(ids(), (NOBODY, NOBODY));
            })
        })
        .collect();
    changed.wait();
    become_nobody();
    changed.wait();
    handles.into_iter().for_each(join);
    threads.each(|_| assert_eq!(ids(), (NOBODY, NOBODY)));
}

pub(crate) fn setuid_in_a_thread(threads: Threads) {
    if !is_root() {
        return skip("setuid_in_a_thread", &"only root can change its user");
    }
    let changed = Barrier::new(THREADS);
    threads.each(move |i| {
        changed.wait();
        if i == 0 {
            become_nobody();
        }
        changed.wait();
        assert_eq!(ids(), (NOBODY, NOBODY));
        changed.wait();
    });
    assert_eq!(ids(), (NOBODY, NOBODY));
}

/// Threads start and end while another changes the identity (to the same) all the time.
pub(crate) fn setuid_churn(threads: Threads) {
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicUsize::new(0));
    let (s, r) = (stop.clone(), rounds.clone());
    let changer = threads.spawn(move || {
        while !s.load(Ordering::Relaxed) {
            // SAFETY: -1 leaves each id as it is, but goes through all threads.
            assert_eq!(unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) }, 0);
            r.fetch_add(1, Ordering::Relaxed);
        }
    });
    for _ in 0..300 {
        let three: Vec<_> = (0..3)
            .map(|_| threads.spawn(|| drop(vec![1_u8; 100])))
            .collect();
        three.into_iter().for_each(join);
    }
    stop.store(true, Ordering::Relaxed);
    join(changer);
    assert!(rounds.load(Ordering::Relaxed) > 0);
}
