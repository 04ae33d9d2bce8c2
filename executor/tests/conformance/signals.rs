//! Signal masks, handlers and the stack they run on.

use crate::support::{THREADS, Threads, gettid, join, wait_until};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

/// The kernel's own idea of the calling thread's mask, glibc's internal signals included.
fn kernel_mask() -> u64 {
    let mut mask = 0_u64;
    // SAFETY: only asks, and writes eight bytes to a local.
    unsafe {
        let set = ptr::null::<u64>();
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            set,
            &raw mut mask,
            8,
        );
    }
    mask
}

fn change_mask(how: c_int, signal: c_int) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        assert_eq!(libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut()), 0);
    }
}

pub(crate) fn mask_is_inherited(threads: Threads) {
    let before = kernel_mask();
    change_mask(libc::SIG_BLOCK, libc::SIGUSR2);
    let expected = before | 1 << (libc::SIGUSR2 - 1);
    threads.each(move |_| {
        assert_eq!(kernel_mask(), expected);
        change_mask(libc::SIG_UNBLOCK, libc::SIGUSR2);
        assert_eq!(kernel_mask(), before);
    });
    // Starting threads left the creator's own mask alone.
    assert_eq!(kernel_mask(), expected);
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static ON_SIGNAL_STACK: AtomicUsize = AtomicUsize::new(0);
static HANDLED_BY: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(_: c_int) {
    let mut stack = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: only asks.
    let flags = unsafe {
        libc::sigaltstack(ptr::null(), stack.as_mut_ptr());
        stack.assume_init().ss_flags
    };
    let on_it = flags & libc::SS_ONSTACK != 0;
    ON_SIGNAL_STACK.fetch_add(usize::from(on_it), Ordering::Relaxed);
    HANDLED_BY.store(gettid(), Ordering::Relaxed);
    // Release pairs with the Acquire of whoever counts.
    HANDLED.fetch_add(1, Ordering::Release);
}

fn install(signal: c_int) {
    // SAFETY: all zeroes is a valid sigaction; the handler is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

pub(crate) fn handlers_run_on_the_signal_stack(threads: Threads) {
    install(libc::SIGUSR1);
    let stop = Arc::new(AtomicBool::new(false));
    let handles: Vec<_> = (0..THREADS)
        .map(|_| {
            let itself = Arc::new(AtomicUsize::new(0));
            let (i, stop) = (itself.clone(), stop.clone());
            let handle = threads.spawn(move || {
                // SAFETY: pthread_self touches no memory.
                i.store(unsafe { libc::pthread_self() } as usize, Ordering::Release);
                while !stop.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            });
            wait_until("the thread runs", || itself.load(Ordering::Acquire) != 0);
            (handle, itself.load(Ordering::Acquire) as libc::pthread_t)
        })
        .collect();
    let mut sent = 0;
    for (handle, thread) in &handles {
        for round in 0..10 {
            // SAFETY: the thread runs until `stop`.
            let rc = unsafe {
                if round % 2 == 0 {
                    libc::pthread_kill(*thread, libc::SIGUSR1)
                } else {
                    let (pid, tid) = (libc::getpid(), handle.tid());
                    libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGUSR1) as c_int
                }
            };
            assert_eq!(rc, 0);
            sent += 1;
            wait_until("the signal is handled", || {
                HANDLED.load(Ordering::Acquire) == sent
            });
            assert_eq!(HANDLED_BY.load(Ordering::Relaxed), handle.tid());
        }
    }
    assert_eq!(ON_SIGNAL_STACK.load(Ordering::Relaxed), sent);
    stop.store(true, Ordering::Relaxed);
    handles.into_iter().for_each(|(handle, _)| join(handle));
    // A signal that a thread sends to itself.
    threads.each(|_| {
        // SAFETY: the handler is installed.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    });
    assert_eq!(HANDLED.load(Ordering::Acquire), sent + THREADS);
}

pub(crate) fn timer_that_starts_threads(threads: Threads) {
    static FIRED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn fired(_: libc::sigval) {
        FIRED.fetch_add(1, Ordering::Relaxed);
    }
    // glibc's sigevent: value, signal, how, then the function.
    #[repr(C)]
    struct Event {
        value: *mut c_void,
        signal: c_int,
        notify: c_int,
        function: extern "C" fn(libc::sigval),
        rest: [usize; 5],
    }
    threads.each(|_| {
        let before = FIRED.load(Ordering::Relaxed);
        let mut event = Event {
            value: ptr::null_mut(),
            signal: 0,
            notify: libc::SIGEV_THREAD,
            function: fired,
            rest: [0; 5],
        };
        let mut timer = ptr::null_mut();
        // SAFETY: the event has the layout of a sigevent with SIGEV_THREAD; timer and times are
        // locals of the right type.
        unsafe {
            let event = (&raw mut event).cast();
            assert_eq!(
                libc::timer_create(libc::CLOCK_MONOTONIC, event, &mut timer),
                0
            );
            let mut once: libc::itimerspec = std::mem::zeroed();
            once.it_value.tv_nsec = 1_000_000;
            assert_eq!(libc::timer_settime(timer, 0, &once, ptr::null_mut()), 0);
        }
        wait_until("the timer fires", || FIRED.load(Ordering::Relaxed) > before);
        // SAFETY: the timer exists.
        assert_eq!(unsafe { libc::timer_delete(timer) }, 0);
    });
}
