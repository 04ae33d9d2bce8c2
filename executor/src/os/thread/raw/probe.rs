//! Ordinary pthreads that look at themselves, so that [`discover`](super::discover) can measure.
//!
//! A probe runs until the measurement is done and is then joined. One has a stack from glibc, the
//! other one of ours; they differ in what glibc notes about the stack and in nothing else.

use super::glibc::Pthread;
use std::arch::global_asm;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Barrier, OnceLock};

use super::signals::{Blocked, Set};

/// Who allocates the probe's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StackOf {
    Glibc,
    Probe,
}

/// What a probe saw.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) pthread: usize,
    pub(super) tid: i32,
    /// Where the start routine returns to: a place in glibc's start_thread.
    pub(super) return_address: usize,
    /// From get_robust_list: the head and its size.
    pub(super) robust: (usize, usize),
    /// The clear-tid address, where the kernel tells it (CONFIG_CHECKPOINT_RESTORE).
    pub(super) clear_tid: Option<usize>,
    /// The first `pthread_size` bytes of struct pthread.
    pub(super) snapshot: Snapshot,
}

/// A copy of a struct pthread.
#[derive(Debug)]
pub(super) struct Snapshot(Vec<u8>);

impl Snapshot {
    /// Copies the calling thread's own struct pthread.
    ///
    /// # Safety
    ///
    /// `size` must be the size of a struct pthread.
    pub(super) unsafe fn of_current(size: usize) -> Self {
        // SAFETY: the thread's own struct is there while it runs. Others write to it at no time
        // that matters: list neighbours change the node, whose value is never used.
        Self(unsafe { std::slice::from_raw_parts(Pthread::current().as_ptr(), size) }.to_vec())
    }

    pub(super) fn word(&self, offset: usize) -> usize {
        let bytes = self.0[offset..offset + 8].try_into();
        usize::from_ne_bytes(bytes.unwrap_or_default())
    }

    pub(super) fn half(&self, offset: usize) -> u32 {
        let bytes = self.0[offset..offset + 4].try_into();
        u32::from_ne_bytes(bytes.unwrap_or_default())
    }

    pub(super) fn byte(&self, offset: usize) -> u8 {
        self.0[offset]
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Offsets of all aligned words that hold `value`.
    pub(super) fn find(&self, value: usize) -> Vec<usize> {
        (0..self.0.len() / 8 * 8)
            .step_by(8)
            .filter(|&offset| self.word(offset) == value)
            .collect()
    }
}

/// Shared between the probe and the thread that measures.
struct Shared {
    size: usize,
    report: OnceLock<Report>,
    reported: Barrier,
    measured: Barrier,
}

/// The symbol of the entry, with the version for the same reason as in `clone.rs`.
macro_rules! symbol {
    () => {
        concat!(
            "gort_probe_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH"),
        )
    };
}

// void *gort_probe(void *argument): passes its own return address on as the second argument.
global_asm!(
    ".text",
    ".p2align 4",
    concat!(".globl ", symbol!()),
    concat!(".hidden ", symbol!()),
    concat!(".type ", symbol!(), ", @function"),
    concat!(symbol!(), ":"),
    ".cfi_startproc",
    // On entry the return address stands on top of the stack.
    "mov rsi, [rsp]",
    // A jump, not a call: the probe's body returns to start_thread itself.
    "jmp {body}",
    ".cfi_endproc",
    concat!(".size ", symbol!(), ", . - ", symbol!()),
    body = sym body,
);

unsafe extern "C" {
    #[link_name = symbol!()]
    fn entry(argument: *mut c_void) -> *mut c_void;
}

/// The address at which a probe enters, to be found again in its struct pthread.
pub(super) fn entry_address() -> usize {
    (entry as unsafe extern "C" fn(*mut c_void) -> *mut c_void) as usize
}

/// The probe itself.
///
/// # Safety
///
/// Called by `entry` with the `Shared` that `run` passed to pthread_create.
unsafe extern "C" fn body(argument: *mut c_void, return_address: usize) -> *mut c_void {
    // SAFETY: `run` keeps it alive until it has joined this thread.
    let shared = unsafe { &*argument.cast::<Shared>() };
    let mut robust = (0_usize, 0_usize);
    let mut clear_tid = 0_usize;
    // SAFETY: the system calls write to locals of the size that the kernel expects.
    let (robust_rc, clear_tid_rc, tid) = unsafe {
        (
            libc::syscall(
                libc::SYS_get_robust_list,
                0,
                &raw mut robust.0,
                &raw mut robust.1,
            ),
            libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut clear_tid),
            libc::gettid(),
        )
    };
    let report = Report {
        pthread: Pthread::current().address(),
        tid,
        return_address,
        robust: if robust_rc == 0 { robust } else { (0, 0) },
        clear_tid: (clear_tid_rc == 0).then_some(clear_tid),
        // SAFETY: the size comes from glibc's own descriptor.
        snapshot: unsafe { Snapshot::of_current(shared.size) },
    };
    // Nobody else sets it, so it is empty.
    let _ = shared.report.set(report);
    shared.reported.wait();
    shared.measured.wait();
    ptr::null_mut()
}

/// A stack of our own for a probe.
struct Stack {
    base: *mut c_void,
    size: usize,
}

impl Stack {
    fn new(size: usize) -> io::Result<Self> {
        // SAFETY: a new mapping wherever the kernel likes.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base, size })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: `run` has joined the thread on it.
        unsafe { libc::munmap(self.base, self.size) };
    }
}

/// A pthread_attr_t, destroyed when dropped.
struct Attributes(libc::pthread_attr_t);

impl Attributes {
    fn new() -> Result<Self, String> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: pthread_attr_init fills it in.
        unsafe {
            check(
                "pthread_attr_init",
                libc::pthread_attr_init(attributes.as_mut_ptr()),
            )?;
            Ok(Self(attributes.assume_init()))
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialised.
        unsafe { libc::pthread_attr_destroy(&mut self.0) };
    }
}

fn check(call: &str, errno: c_int) -> Result<(), String> {
    match errno {
        0 => Ok(()),
        _ => Err(format!("{call}: {}", io::Error::from_raw_os_error(errno))),
    }
}

/// Runs a probe with signal mask `mask` and a stack of `stack_size` bytes, and calls `measure`
/// while it is alive with its report and, if the stack is ours, where that lies.
///
/// pthread_create is called by its name on purpose: if someone has put a wrapper before it (a
/// sanitizer, a profiler, a garbage collector), the probe goes through the wrapper, and shows it.
pub(super) fn run<R>(
    pthread_size: usize,
    stack_of: StackOf,
    stack_size: usize,
    mask: Set,
    measure: impl FnOnce(&Report, Option<usize>) -> Result<R, String>,
) -> Result<(Report, R), String> {
    let shared = Shared {
        size: pthread_size,
        report: OnceLock::new(),
        reported: Barrier::new(2),
        measured: Barrier::new(2),
    };
    let mut attributes = Attributes::new()?;
    let stack = match stack_of {
        StackOf::Glibc => None,
        StackOf::Probe => {
            Some(Stack::new(stack_size).map_err(|e| format!("a probe's stack: {e}"))?)
        }
    };
    // SAFETY: the attributes are initialised, and the stack outlives the thread.
    unsafe {
        match &stack {
            None => check(
                "pthread_attr_setstacksize",
                libc::pthread_attr_setstacksize(&mut attributes.0, stack_size),
            )?,
            Some(stack) => check(
                "pthread_attr_setstack",
                libc::pthread_attr_setstack(&mut attributes.0, stack.base, stack.size),
            )?,
        }
    }
    let mut thread: libc::pthread_t = 0;
    let masked = Blocked::new(mask);
    // SAFETY: `entry` has the C signature of a start routine and never unwinds; `shared` outlives
    // the thread, which is joined below on every path.
    let errno = unsafe {
        let entry: extern "C" fn(*mut c_void) -> *mut c_void =
            std::mem::transmute(entry_address() as *const ());
        let argument = (&raw const shared).cast_mut().cast();
        libc::pthread_create(&mut thread, &attributes.0, entry, argument)
    };
    drop(masked);
    check("pthread_create", errno)?;

    shared.reported.wait();
    let measured = match shared.report.get() {
        Some(report) if report.pthread == thread as usize => {
            measure(report, stack.as_ref().map(|stack| stack.base.addr()))
        }
        _ => Err("a pthread_t is not the thread pointer".into()),
    };
    shared.measured.wait();
    // SAFETY: the thread was created joinable and is joined once.
    check("pthread_join", unsafe {
        libc::pthread_join(thread, ptr::null_mut())
    })?;
    let measured = measured?;
    let report = shared.report.into_inner().ok_or("a probe left no report")?;
    Ok((report, measured))
}
