//! Threads by raw `clone`: what Go's `newosproc` does, made fit for a program that shares its
//! process with glibc.
//!
//! A thread that glibc does not know reads zeroes from the thread locals of libraries loaded later,
//! is left out when `setuid` drops privileges, and leaks what glibc keeps for it. So this back end
//! does `pthread_create`'s work itself, all of it: it fills in glibc's descriptor of the thread,
//! links it into glibc's list and lets glibc's own `start_thread` be the thread's root. To dlopen,
//! setuid, fork, pthread keys, gdb and valgrind the M is then a thread like any other. What is
//! gained is that the stack, the guard, the signal stack and the moment of the join are gort's.
//!
//! # Life of a thread
//!
//! 1. *Boot*, once a process: [`discover`] measures the running glibc, [`trial`] starts one thread
//!    and looks at it from the inside. Either may refuse; [`available`] passes the reason on.
//! 2. *Start*, in [`start`]: a [`mapping`] is taken, the descriptor filled in, announced to glibc,
//!    given its thread locals, cloned. The order is explained there, step by step.
//! 3. *Run*: `start_thread` calls [`entry`], which sets the signal stack, the name and the mask,
//!    in this order, and runs the job.
//! 4. *End*: [`entry`] returns, `start_thread` runs the thread-local destructors and ends the
//!    thread, the kernel clears the clear-tid word and wakes whoever waits on it.
//! 5. *Join*: `pthread_join` frees what glibc holds; then the mapping goes back.
//!
//! # Ownership
//!
//! A [`Mapping`] may be released only after the join, so [`Thread`] keeps it in a `ManuallyDrop`: a
//! thread that is dropped unjoined leaks its memory rather than lose it while it runs. `Start` goes
//! from the creator to the thread with the clone, which orders everything before it before
//! everything in the thread.

mod clone;
mod discover;
mod glibc;
mod mapping;
mod overflow;
mod probe;
mod signals;
mod symbols;
mod trial;

use super::Options;
use super::job::Job;
use clone::Clone;
use glibc::{Description, Glibc};
use mapping::Mapping;
use signals::{Blocked, Set};
use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Whether falling back is worth a warning.
pub(super) const EXPECTED: bool = true;

/// Which versions of glibc will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// Those on which the discovery was measured.
    Known,
    /// Newer ones too: somebody asked for raw clone by name.
    Any,
}

/// Whether threads can be made by raw clone here, or why not. The first call boots.
pub(super) fn available(versions: Versions) -> Result<(), &'static str> {
    static NEWER: OnceLock<bool> = OnceLock::new();
    let newer = *NEWER.get_or_init(discover::is_newer_than_known);
    if newer && versions == Versions::Known {
        return Err(discover::UNKNOWN_VERSION);
    }
    boot().map(|_| ())
}

/// The measured glibc; measures it if nobody has.
fn boot() -> Result<&'static Glibc, &'static str> {
    static BOOT: OnceLock<Result<Glibc, String>> = OnceLock::new();
    BOOT.get_or_init(|| {
        let discovery = discover::discover()?;
        overflow::install().map_err(|e| format!("cannot install the overflow handler: {e}"))?;
        trial::run(&discovery)?;
        Ok(discovery.glibc)
    })
    .as_ref()
    .map_err(String::as_str)
}

/// What the creator leaves for the new thread.
struct Start {
    job: Arc<Job>,
    /// Ends in at least one zero.
    name: [u8; 16],
    signal_stack: (*mut u8, usize),
    /// The creator's mask, to be the thread's.
    mask: Set,
}

/// A running or ended thread. Dropping it leaks its memory; see the module's *Ownership*.
pub(super) struct Thread {
    mapping: ManuallyDrop<Mapping>,
    tid: i32,
    /// In the mapping's struct pthread; 0 once the thread has ended.
    clear_tid: *const AtomicU32,
}

// SAFETY: the pointer leads into the mapping that the value owns, to a word that is only read, and
// atomically; joining is possible from any thread.
unsafe impl Send for Thread {}
// SAFETY: as for Send; `&Thread` offers reads only.
unsafe impl Sync for Thread {}

/// One attempt. `job` is untouched if it fails.
pub(super) fn start(options: &Options, job: &Arc<Job>) -> io::Result<Thread> {
    let glibc = boot().map_err(|reason| io::Error::new(io::ErrorKind::Unsupported, reason))?;
    start_with(glibc, options, job)
}

fn start_with(glibc: &Glibc, options: &Options, job: &Arc<Job>) -> io::Result<Thread> {
    leave_single_threaded_mode(glibc)?;
    let mapping = Mapping::acquire(glibc, options.stack_size)?;
    let region = mapping.region();
    let pthread = mapping.pthread();

    // A handler that ran between the steps could itself start a thread or wait for glibc's lock.
    // Only SIGSETXID stays open: its sender holds the lock that step 2 may have to wait for.
    let blocked = Blocked::new(signals::ALL_BUT_SETXID);
    let start = Box::into_raw(Box::new(Start {
        job: job.clone(),
        name: comm(&options.name),
        signal_stack: mapping.signal_stack(),
        mask: blocked.before().without_internal(),
    }));

    // 1. The descriptor, complete before anybody can see it. The thread enters `entry` with
    //    everything blocked, so that no handler runs before there is a stack for it.
    // SAFETY: the mapping is this call's own, and its struct pthread is all zeroes.
    unsafe {
        glibc.describe(
            pthread,
            &Description {
                start_routine: entry,
                arg: start.cast(),
                guard: region.guard,
                guard_size: region.stack - region.guard,
                end: mapping.end(),
                mask: signals::ALL_BUT_INTERNAL,
            },
        );
    }

    // 2. On the list *before* it gets its thread locals: a library that is loaded at this moment
    //    initialises its thread locals in every thread on the list, and those that are allocated
    //    later find it loaded. The other way round it would miss this thread.
    // SAFETY: described above, and the mapping stays until the retraction or the join.
    unsafe { glibc.announce(pthread) };

    // SAFETY: described and announced, on a mapping that stays.
    match unsafe { allocate_and_clone(glibc, &mapping, &blocked) } {
        Ok(tid) => Ok(Thread {
            clear_tid: glibc.clear_tid_word(pthread).cast_const().cast(),
            mapping: ManuallyDrop::new(mapping),
            tid,
        }),
        Err(refusal) => {
            blocked.switch(signals::ALL_BUT_SETXID);
            // SAFETY: announced above, and no thread runs: `start` is still this call's own.
            unsafe {
                glibc.retract(pthread);
                drop(Box::from_raw(start));
            }
            drop(blocked);
            mapping.release();
            Err(refusal)
        }
    }
}

/// Steps 3 to 5 of the start. Returns the thread's id.
///
/// # Safety
///
/// The mapping's struct pthread must be described and announced, and `blocked` be in force.
unsafe fn allocate_and_clone(
    glibc: &Glibc,
    mapping: &Mapping,
    blocked: &Blocked,
) -> io::Result<i32> {
    let pthread = mapping.pthread();
    // 3. The thread locals: glibc fills the static block below struct pthread and allocates the
    //    table (dtv) for the rest. SIGSETXID is still open, as this waits for dlopen's lock.
    // SAFETY: the mapping has room for the static block below struct pthread.
    if unsafe { (glibc.allocate_tls)(pthread.as_ptr()) }.is_null() {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    }
    // 4. Everything blocked. The thread inherits it, and a `setuid` that comes now waits for this
    //    thread first and finds the new one on its next round.
    blocked.switch(signals::ALL);
    // 5. `clone` itself. Afterwards `blocked` gives the creator its mask back.
    let request = Clone {
        stack_top: mapping.stack_top(),
        tid: pthread.field(glibc.offsets.tid),
        clear_tid: glibc.clear_tid_word(pthread),
        pthread: pthread.as_ptr(),
        entry: glibc.start_thread,
    };
    // SAFETY: the stack and struct pthread lie in the mapping, which stays until the join;
    // start_thread takes a struct pthread and ends the thread; signals are blocked.
    let started = unsafe { request.call() };
    if started.is_err() {
        // SAFETY: allocated in step 3, and no thread uses it. False: the memory itself is ours.
        unsafe { (glibc.deallocate_tls)(pthread.as_ptr(), false) };
    }
    started
}

/// glibc leaves its locks out while it believes that there is one thread, which is what a forked
/// child may go back to. An ordinary pthread convinces it of the contrary.
fn leave_single_threaded_mode(glibc: &Glibc) -> io::Result<()> {
    if !glibc.is_single_threaded() {
        return Ok(());
    }
    let pthread = std::thread::Builder::new().spawn(|| {})?;
    // It does nothing that could fail.
    let _ = pthread.join();
    if glibc.is_single_threaded() {
        return Err(io::Error::other(
            "glibc believes that this process has a single thread",
        ));
    }
    Ok(())
}

/// The first 15 bytes of a name, what the kernel keeps.
fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    let len = name.len().min(15);
    comm[..len].copy_from_slice(&name.as_bytes()[..len]);
    comm
}

/// The first Rust code on a new thread, called by `start_thread`.
extern "C" fn entry(start: *mut c_void) -> *mut c_void {
    // SAFETY: the Box that `start_with` made for this thread and left to it with the clone.
    let start = unsafe { Box::from_raw(start.cast::<Start>()) };
    // SAFETY: the mapping's signal stack is this thread's alone until the join. prctl reads a
    // string that ends in zero.
    unsafe {
        signals::set_signal_stack(start.signal_stack.0, start.signal_stack.1);
        libc::prctl(libc::PR_SET_NAME, start.name.as_ptr());
    }
    signals::set_mask(start.mask);
    start.job.run();
    ptr::null_mut()
}

impl Thread {
    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    pub(super) fn is_finished(&self) -> bool {
        // Acquire pairs with the kernel's clearing of the word, after the thread's last access to
        // memory. SAFETY: the word lies in the mapping, which stays until the join.
        unsafe { &*self.clear_tid }.load(Ordering::Acquire) == 0
    }

    /// Waits for the end of the thread and gives its memory back.
    ///
    /// # Panics
    ///
    /// If a thread joins itself.
    pub(super) fn join(self) {
        let pthread = self.mapping.pthread().address() as libc::pthread_t;
        // SAFETY: the thread was started joinable, and this call, which consumes the only handle,
        // is the only join.
        let errno = unsafe { libc::pthread_join(pthread, ptr::null_mut()) };
        assert_eq!(
            errno,
            0,
            "cannot join thread {}: {}",
            self.tid,
            io::Error::from_raw_os_error(errno)
        );
        ManuallyDrop::into_inner(self.mapping).release();
    }
}
