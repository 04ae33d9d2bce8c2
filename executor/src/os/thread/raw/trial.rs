//! The last step of the boot: one thread is started with what was found, and looks around.
//!
//! It must find itself in every place where a pthread would, and its struct pthread must hold
//! something exactly where that of an ordinary pthread on a user's stack does: a field that
//! a future `pthread_create` fills in and `Glibc::describe` does not know fails here, and not in a
//! service.

use super::super::Options;
use super::super::job::Job;
use super::discover::{Discovery, ensure, find_thread};
use super::glibc::{Offsets, Pthread, Stacks};
use super::mapping::Region;
use super::probe::Snapshot;
use super::{Thread, start_with};
use crate::runtime::ThreadBackend;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the trial thread may take; it needs some 50 µs. It cannot be stopped: if it is late,
/// it is left behind and std::thread is used.
const PATIENCE: Duration = Duration::from_secs(10);

thread_local! {
    /// Shows that a thread starts with the initial values of thread locals, not with its creator's
    /// or with zeroes.
    static FRESH: Cell<u64> = const { Cell::new(FRESH_VALUE) };
}
const FRESH_VALUE: u64 = 0x676f_7274_2d54_4c53;

/// What the trial thread is told, and what it finds.
struct Findings {
    own_list: Result<(bool, bool), String>,
    snapshot: Snapshot,
    pthread_self: usize,
    thread_pointer: usize,
    gettid: i32,
    tid_in_glibc: i32,
    errno: usize,
    robust_head: usize,
    stack: Option<Range<usize>>,
    signal_stack: usize,
    here: usize,
    fresh: u64,
}

pub(super) fn run(discovery: &Discovery) -> Result<(), String> {
    let glibc = &discovery.glibc;
    FRESH.set(!FRESH_VALUE);
    let findings = Arc::new(Mutex::new(None));
    let job = {
        let findings = findings.clone();
        let (size, at, stacks) = (glibc.pthread_size, glibc.offsets, SendStacks(glibc.stacks));
        Arc::new(Job::new(Box::new(move || {
            let found = look_around(size, &at, &stacks.get());
            *findings.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        })))
    };
    let options = Options {
        name: "gort-trial".into(),
        stack_size: 256 * 1024,
        backend: ThreadBackend::RawClone,
    };
    let thread = start_with(glibc, &options, &job).map_err(|e| format!("the trial thread: {e}"))?;
    let deadline = Instant::now() + PATIENCE;
    while !thread.is_finished() {
        ensure!(
            Instant::now() < deadline,
            "the trial thread did not end in {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_micros(50));
    }
    let found = findings
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let found = found.ok_or("the trial thread left no findings")?;
    judge(&thread, &glibc.offsets, &found)?;
    compare(
        &discovery.model,
        &found.snapshot,
        &incomparable(&glibc.offsets),
    )?;

    let pthread = thread.mapping.pthread().address();
    thread.join();
    let listed = find_thread(&glibc.stacks, pthread, &glibc.offsets)?;
    ensure!(
        listed == (false, false),
        "the trial thread is still listed after its join"
    );
    Ok(())
}

/// The addresses of glibc's lists, for the trial thread.
struct SendStacks(Stacks);

// SAFETY: they are addresses of ld.so's variables; see `Glibc`.
unsafe impl Send for SendStacks {}

impl SendStacks {
    fn get(&self) -> Stacks {
        self.0
    }
}

/// On the trial thread.
fn look_around(pthread_size: usize, at: &Offsets, stacks: &Stacks) -> Findings {
    let me = Pthread::current();
    let mut robust = (0_usize, 0_usize);
    let mut signal_stack = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: the size was checked by the probes; the system calls write to locals of the right
    // type; errno's address and the tid are this thread's own.
    unsafe {
        // First: later calls may leave traces in struct pthread.
        let snapshot = Snapshot::of_current(pthread_size);
        libc::syscall(
            libc::SYS_get_robust_list,
            0,
            &raw mut robust.0,
            &raw mut robust.1,
        );
        libc::sigaltstack(ptr::null(), signal_stack.as_mut_ptr());
        Findings {
            own_list: find_thread(stacks, me.address(), at),
            snapshot,
            pthread_self: libc::pthread_self() as usize,
            thread_pointer: me.address(),
            gettid: libc::gettid(),
            tid_in_glibc: me.get(at.tid),
            errno: libc::__errno_location().addr(),
            robust_head: robust.0,
            stack: stack_of_current(),
            signal_stack: signal_stack.assume_init().ss_sp.addr(),
            here: (&raw const robust).addr(),
            fresh: FRESH.get(),
        }
    }
}

/// What pthread_getattr_np says about the calling thread's stack.
fn stack_of_current() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::uninit();
    let (mut base, mut size) = (ptr::null_mut(), 0);
    // SAFETY: pthread_getattr_np initialises the attributes, which are read and then destroyed.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let mut attributes = attributes.assume_init();
        let rc = libc::pthread_attr_getstack(&attributes, &mut base, &mut size);
        libc::pthread_attr_destroy(&mut attributes);
        (rc == 0).then(|| base.addr()..base.addr() + size)
    }
}

/// Whether the thread found itself where it should be.
fn judge(thread: &Thread, at: &Offsets, found: &Findings) -> Result<(), String> {
    let pthread = thread.mapping.pthread().address();
    let Region { stack, end, .. } = thread.mapping.region();
    ensure!(
        found.thread_pointer == pthread && found.pthread_self == pthread,
        "the trial thread has another's thread pointer"
    );
    ensure!(
        found.gettid == thread.tid && found.tid_in_glibc == thread.tid,
        "the trial thread's tid is not known to glibc"
    );
    ensure!(
        found.own_list.clone()? == (true, false),
        "the trial thread is not listed"
    );
    ensure!(
        (end..pthread).contains(&found.errno),
        "the trial thread's errno is not in its thread locals"
    );
    ensure!(
        found.fresh == FRESH_VALUE,
        "the trial thread's thread locals are not initialised"
    );
    ensure!(
        found.robust_head == pthread + at.robust_head,
        "the trial thread's robust list is not registered"
    );
    ensure!(
        (stack..end).contains(&found.here),
        "the trial thread ran on another stack"
    );
    ensure!(
        found.stack == Some(stack..thread.mapping.end()),
        "pthread_getattr_np gives the trial thread the stack {:x?}",
        found.stack
    );
    ensure!(
        found.signal_stack == thread.mapping.signal_stack().0.addr(),
        "the trial thread has no signal stack of its own"
    );
    Ok(())
}

/// The registration area for restartable sequences, relative to struct pthread. The kernel writes
/// the current CPU there, which may well be 0.
fn rseq_area() -> Range<isize> {
    // SAFETY: two variables of glibc 2.35 and later; where they are missing, dlsym gives null.
    unsafe {
        let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
        match offset.as_ref() {
            Some(&offset) => offset..offset + RSEQ_AREA,
            None => 0..0,
        }
    }
}

/// `sizeof (struct rseq)` as of Linux 6.3, <linux/rseq.h>; glibc reserves no more in struct pthread.
const RSEQ_AREA: isize = 32;

/// Where the two may differ: the rseq area; the guard's sizes, which pthread_create leaves to whoever
/// brings a stack; and the signal mask, of which the probe has one that is easy to find.
fn incomparable(at: &Offsets) -> [Range<isize>; 3] {
    let (stackblock, sigmask) = (at.stackblock as isize, at.sigmask as isize);
    [
        rseq_area(),
        stackblock + 16..stackblock + 32,
        sigmask..sigmask + 8,
    ]
}

/// Whether both hold something in the same places, but for the given ones.
fn compare(model: &Snapshot, trial: &Snapshot, but_for: &[Range<isize>]) -> Result<(), String> {
    for offset in (0..model.len()).step_by(4) {
        if but_for
            .iter()
            .any(|range| range.contains(&(offset as isize)))
        {
            continue;
        }
        let (expected, found) = (model.half(offset), trial.half(offset));
        ensure!(
            (expected == 0) == (found == 0),
            "struct pthread holds {expected:#x} at {offset:#x} in an ordinary thread and \
             {found:#x} in the trial thread"
        );
    }
    Ok(())
}
