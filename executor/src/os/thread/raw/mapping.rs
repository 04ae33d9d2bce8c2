//! The memory of an M: one mapping for everything that pthread_create would allocate.
//!
//! ```text
//!  base                                                              pthread
//!   │ guard │ signal stack │ guard │ stack  ◀── grows down │ static TLS │ struct pthread │
//! ```
//!
//! The lower guard ends a signal handler that runs away, the upper one the stack; both are a page,
//! std's size for a guard. A mapping belongs to one thread from its start until it is joined; then
//! it goes to a small cache, or back to the system. While it exists, cached or not, its guard stands
//! in the overflow table.

use super::glibc::{Glibc, Pthread};
use super::overflow::{self, Registration};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Room for handlers on the signal stack beyond the frame that the kernel itself pushes: Go gives
/// its handlers the same (`gsignal`). Pages that no handler touches cost nothing.
const SIGNAL_STACK: usize = 32 * 1024;

/// The least stack, glibc's `PTHREAD_STACK_MIN`.
const MIN_STACK: usize = 16 * 1024;

/// A joined mapping keeps the top of its stack, which the next thread touches at once; deeper pages
/// go back to the system.
const KEPT: usize = 16 * 1024;

/// Mappings kept for the next threads. Ms live long, so this only has to carry the ones that a
/// runtime ends while it, or a runtime built after it, starts others.
const CACHED: usize = 16;

/// The part of a mapping that the overflow handler needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    /// First byte of the guard below the stack.
    pub(super) guard: usize,
    /// First byte of the stack, the end of the guard.
    pub(super) stack: usize,
    /// The end of the stack.
    pub(super) end: usize,
}

impl Region {
    /// Whether an access to `address` with the stack pointer at `sp` is this stack overflowing. The
    /// pointer may already be below the guard, as C moves it by a whole frame before it writes.
    pub(super) fn is_overflow(&self, address: usize, sp: usize) -> bool {
        /// The largest frame taken for one of C's.
        const FRAME: usize = 256 * 1024;
        (self.guard..self.stack).contains(&address)
            && (self.guard.saturating_sub(FRAME)..=self.end).contains(&sp)
    }

    /// Bytes of stack.
    pub(super) fn size(&self) -> usize {
        self.end.wrapping_sub(self.stack)
    }
}

/// An M's memory. Dropping it unmaps it, so its owner must know that no thread runs on it.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    signal_stack: (*mut u8, usize),
    stack: (*mut u8, usize),
    pthread: Pthread,
    /// Dropped before the memory goes: see `Drop`.
    guard: Option<Registration>,
}

// SAFETY: a mapping is memory of the process and tied to no thread; whoever owns the value owns it.
unsafe impl Send for Mapping {}

/// Joined mappings. Each slot is taken and filled with one swap, so there is no lock, and no ABA
/// problem either: whoever swaps a pointer out owns what it points to.
static CACHE: [AtomicPtr<Mapping>; CACHED] = [const { AtomicPtr::new(ptr::null_mut()) }; CACHED];

/// Bytes in a page.
pub(super) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    // SAFETY: sysconf touches no memory of ours.
    *SIZE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}

/// Bytes of a signal stack: what the kernel says it needs (more with AVX-512 or AMX) and ours.
fn signal_stack_size() -> usize {
    // SAFETY: getauxval touches no memory of ours. It gives 0 where the kernel does not say.
    let kernel = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    (kernel.max(libc::MINSIGSTKSZ) + SIGNAL_STACK).next_multiple_of(page_size())
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the stack size does not fit into the address space",
    )
}

impl Mapping {
    /// A mapping with at least `stack_size` bytes of stack, whose TLS area and struct pthread are
    /// all zeroes; from the cache if there is one of exactly this size.
    pub(super) fn acquire(glibc: &Glibc, stack_size: usize) -> io::Result<Self> {
        let page = page_size();
        let stack_size = stack_size
            .max(MIN_STACK)
            .checked_next_multiple_of(page)
            .filter(|&size| size <= isize::MAX as usize / 2)
            .ok_or_else(too_large)?;
        let cached = CACHE.iter().find_map(|slot| Self::take(slot, stack_size));
        match cached {
            Some(mapping) => {
                mapping.wipe();
                Ok(mapping)
            }
            None => Self::map(glibc, page, stack_size),
        }
    }

    /// The mapping in `slot` if its stack has this size.
    fn take(slot: &AtomicPtr<Mapping>, stack_size: usize) -> Option<Self> {
        // Relaxed: only a hint that spares the swap.
        if slot.load(Ordering::Relaxed).is_null() {
            return None;
        }
        // Acquire pairs with the Release in `put`.
        let mapping = NonNull::new(slot.swap(ptr::null_mut(), Ordering::Acquire))?;
        // SAFETY: it comes from `Box::into_raw` in `put`, and the swap made it ours alone.
        let mapping = unsafe { Box::from_raw(mapping.as_ptr()) };
        if mapping.stack.1 == stack_size {
            return Some(*mapping);
        }
        // Another size: back into its slot, or unmapped if that was filled meanwhile.
        drop(Self::put(slot, mapping));
        None
    }

    /// Puts a mapping into an empty slot, or gives it back.
    fn put(slot: &AtomicPtr<Mapping>, mapping: Box<Mapping>) -> Option<Box<Mapping>> {
        let raw = Box::into_raw(mapping);
        // Release pairs with the Acquire in `take`.
        match slot.compare_exchange(ptr::null_mut(), raw, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => None,
            // SAFETY: `raw` comes from `into_raw` above and was not stored.
            Err(_) => Some(unsafe { Box::from_raw(raw) }),
        }
    }

    fn map(glibc: &Glibc, page: usize, stack_size: usize) -> io::Result<Self> {
        let signal_size = signal_stack_size();
        let below_stack = page + signal_size + page;
        // One alignment more than needed, as a mapping starts on a page and TLS may want more.
        let above_stack = glibc.tls_size + 2 * glibc.tls_align + glibc.pthread_size;
        let len = (below_stack + above_stack)
            .checked_add(stack_size)
            .and_then(|len| len.checked_next_multiple_of(page))
            .ok_or_else(too_large)?;
        // SAFETY: a new mapping wherever the kernel likes disturbs nobody. Guards stay PROT_NONE and
        // are never charged for.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            let e = io::Error::last_os_error();
            // From mmap this is about locked memory (mlockall); from clone, about threads.
            return Err(match e.raw_os_error() {
                Some(libc::EAGAIN) => io::Error::from_raw_os_error(libc::ENOMEM),
                _ => e,
            });
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(too_large)?;

        let signal_stack = base.as_ptr().wrapping_add(page);
        let stack = base.as_ptr().wrapping_add(below_stack);
        let tls = stack.wrapping_add(stack_size);
        let tls = tls.wrapping_add(tls.align_offset(glibc.tls_align));
        // The TLS block ends where struct pthread begins. glibc's size counts both.
        let static_tls = (glibc.tls_size - glibc.pthread_size).next_multiple_of(glibc.tls_align);
        let mut mapping = Self {
            base,
            len,
            signal_stack: (signal_stack, signal_size),
            stack: (stack, stack_size),
            pthread: Pthread::at(tls.wrapping_add(static_tls)),
            guard: None,
        };
        mapping.open(signal_stack, signal_size)?;
        mapping.open(stack, len - below_stack)?;
        mapping.guard = Some(overflow::register(&mapping.region()));
        Ok(mapping)
    }

    fn open(&self, start: *mut u8, len: usize) -> io::Result<()> {
        // SAFETY: the range lies in this mapping, which nothing uses yet.
        let rc = unsafe { libc::mprotect(start.cast(), len, libc::PROT_READ | libc::PROT_WRITE) };
        if rc == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Makes a used mapping as good as new: glibc expects zeroes where it finds no value of its own.
    fn wipe(&self) {
        let (stack, size) = self.stack;
        let from = stack.wrapping_add(size);
        // SAFETY: from the end of the stack to the end of the mapping lies only what the thread
        // before left, and it has been joined.
        unsafe { ptr::write_bytes(from, 0, self.end() - from.addr()) };
    }

    /// Back to the cache or to the system. No thread may run on the mapping any more.
    pub(super) fn release(self) {
        let (stack, size) = self.stack;
        let from = self.base.as_ptr().wrapping_add(page_size());
        let to = stack.wrapping_add(size - KEPT.min(size));
        // SAFETY: the range lies in this mapping and holds dead stack frames only. If the advice is
        // refused, as under mlockall, the pages simply stay.
        unsafe { libc::madvise(from.cast(), to.addr() - from.addr(), libc::MADV_DONTNEED) };
        let mut mapping = Some(Box::new(self));
        for slot in &CACHE {
            match mapping.take() {
                Some(full_handed) => mapping = Self::put(slot, full_handed),
                None => return,
            }
        }
    }

    pub(super) fn pthread(&self) -> Pthread {
        self.pthread
    }

    /// The signal stack's first byte and its size.
    pub(super) fn signal_stack(&self) -> (*mut u8, usize) {
        self.signal_stack
    }

    /// Where the stack begins to grow down.
    pub(super) fn stack_top(&self) -> *mut u8 {
        self.stack.0.wrapping_add(self.stack.1)
    }

    pub(super) fn region(&self) -> Region {
        Region {
            guard: self.stack.0.addr() - page_size(),
            stack: self.stack.0.addr(),
            end: self.stack_top().addr(),
        }
    }

    /// The end of the mapping.
    pub(super) fn end(&self) -> usize {
        self.base.addr().get() + self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // First out of the table: the address may belong to someone else right after.
        self.guard = None;
        // SAFETY: the value owned the mapping, and no thread runs on it (see the type).
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
