//! One stack: a private memory mapping whose lowest pages are a guard.
//!
//! ```text
//!   base                 bottom                                     top
//!    ├─────────────────────┼──────────────────────────────────────────┤
//!    │ guard: no access    │ usable; pages are committed when touched │
//!    └─────────────────────┴──────────────────────────────────────────┘
//!      GUARD, rounded up     ◄──── the stack grows this way
//! ```
//!
//! The mapping lives as long as its [`Stack`], which alone knows of it. It takes two of the mappings
//! that the kernel allows a process, because the guard has another protection than the rest.

use std::error::Error;
use std::fmt;
use std::io;
use std::ptr;
use std::sync::OnceLock;

/// The least size of a guard. Rust probes every page of a large frame and so cannot step over a
/// guard of one page, but C does not probe: the largest frame in glibc 2.36 has 33,312 bytes
/// (`vfwprintf`, measured), and 36 KiB are the next whole pages above that.
const GUARD: usize = 36 * 1024;

/// A guarded stack for a [`Coroutine`](crate::Coroutine).
///
/// Its memory is reserved at once and committed page by page, when it is touched. Below it lies a
/// guard of at least 36 KiB: running over the end of the stack faults there, and changes no memory
/// of anybody else. (A C function with a larger frame that touches only its far end could step over
/// the guard; Rust functions cannot.)
///
/// Dropping the stack gives the memory back.
///
/// # Examples
///
/// ```
/// let stack = gort_stackful::Stack::new(100_000)?;
/// assert!(stack.size() >= 100_000);
/// # Ok::<(), gort_stackful::StackError>(())
/// ```
pub struct Stack {
    base: *mut u8,
    guard: usize,
    size: usize,
}

// SAFETY: the mapping belongs to this value alone, and no thread owns memory in particular.
unsafe impl Send for Stack {}
// SAFETY: a shared `Stack` tells its size and addresses, and gives no access to the memory.
unsafe impl Sync for Stack {}

impl Stack {
    /// Makes a stack of `size` bytes or more: rounded up to whole pages, one at least.
    ///
    /// # Errors
    ///
    /// If `size` cannot be addressed, or the system refuses the memory or the guard. At the kernel's
    /// limit on mappings the error says which setting raises it.
    pub fn new(size: usize) -> Result<Self, StackError> {
        let refused = |what, cause| StackError::new(what, size, cause);
        let page = page_size();
        let guard = GUARD.next_multiple_of(page);
        let usable = size.max(1).checked_next_multiple_of(page);
        let total = usable.and_then(|usable| usable.checked_add(guard));
        let (Some(usable), Some(total)) = (usable, total) else {
            let cause = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(refused("to address so much", cause));
        };

        let access = libc::PROT_READ | libc::PROT_WRITE;
        // MAP_STACK keeps huge pages away (Linux 6.7): one touched byte would commit 2 MB.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: an anonymous mapping at an address that the kernel chooses overlaps nothing.
        let base = unsafe { libc::mmap(ptr::null_mut(), total, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(refused("to reserve memory", io::Error::last_os_error()));
        }
        // From here on a return unmaps it.
        let stack = Self {
            base: base.cast(),
            guard,
            size: usable,
        };
        // SAFETY: the range is the lower part of the mapping just made, which nobody else knows.
        if unsafe { libc::mprotect(base, guard, libc::PROT_NONE) } != 0 {
            return Err(refused("to protect the guard", io::Error::last_os_error()));
        }
        Ok(stack)
    }

    /// The usable size in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// One past the highest usable byte; a multiple of the page size.
    pub(crate) fn top(&self) -> *mut u8 {
        // SAFETY: one past the end of the mapping.
        unsafe { self.base.add(self.guard + self.size) }
    }

    /// The lowest usable byte, just above the guard.
    pub(crate) fn bottom(&self) -> *mut u8 {
        // SAFETY: inside of the mapping, because the usable part is not empty.
        unsafe { self.base.add(self.guard) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let total = self.guard + self.size;
        // SAFETY: the mapping is this value's own, and who used it has gone: a coroutine drops its
        // stack only when nothing runs or will run on it.
        unsafe {
            if libc::munmap(self.base.cast(), total) != 0 {
                // Possible at the limit on mappings only, where a neighbour has merged with ours and
                // would have to be split off. The addresses are lost; the memory need not be.
                libc::madvise(self.base.cast(), total, libc::MADV_DONTNEED);
            }
        }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("bottom", &self.bottom())
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(page).expect("sysconf knows the page size on every Linux")
    })
}

/// Why there is no stack.
#[derive(Debug)]
pub struct StackError {
    refused: &'static str,
    size: usize,
    cause: io::Error,
    limit: Option<MappingLimit>,
}

impl StackError {
    fn new(refused: &'static str, size: usize, cause: io::Error) -> Self {
        // Only this error number can mean the limit; reading the counts costs some milliseconds.
        let limit = match cause.raw_os_error() {
            Some(libc::ENOMEM) => MappingLimit::if_reached(),
            _ => None,
        };
        Self {
            refused,
            size,
            cause,
            limit,
        }
    }

    /// The system's error.
    pub fn as_io_error(&self) -> &io::Error {
        &self.cause
    }
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            refused,
            size,
            cause,
            limit,
        } = self;
        write!(
            f,
            "no stack of {size} bytes: the system refused {refused}: {cause}"
        )?;
        if let Some(MappingLimit { mappings, allowed }) = limit {
            write!(
                f,
                "; this process has {mappings} memory mappings, Linux allows {allowed} \
                 (vm.max_map_count), and each stack takes 2: use fewer stacks at a time, or raise \
                 the limit, for instance with `sysctl -w vm.max_map_count={}`",
                allowed.saturating_mul(16)
            )?;
        }
        Ok(())
    }
}

impl Error for StackError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

impl From<StackError> for io::Error {
    fn from(error: StackError) -> Self {
        io::Error::new(error.cause.kind(), error)
    }
}

/// How many mappings this process has, and may have.
#[derive(Debug)]
struct MappingLimit {
    mappings: usize,
    allowed: usize,
}

impl MappingLimit {
    /// `None` also where /proc cannot be read: then nothing is claimed about the limit.
    fn if_reached() -> Option<Self> {
        let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
        let allowed = allowed.trim().parse().ok()?;
        let maps = std::fs::read("/proc/self/maps").ok()?;
        let mappings = maps.iter().filter(|&&byte| byte == b'\n').count();
        // The kernel refuses what would exceed the limit, and splitting needs one more or two.
        (mappings + 2 >= allowed).then_some(Self { mappings, allowed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The protection of the mapping at `address`, as in /proc/self/maps: "rw-p".
    fn protection(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let bound = |hex| usize::from_str_radix(hex, 16).unwrap();
            (bound(start) <= address && address < bound(end)).then(|| rest[..4].to_string())
        })
    }

    #[test]
    fn size_is_rounded_up_to_pages() {
        let page = page_size();
        for (asked, got) in [(0, page), (1, page), (page, page), (page + 1, 2 * page)] {
            assert_eq!(Stack::new(asked).unwrap().size(), got);
        }
    }

    #[test]
    fn every_usable_byte_is_usable_and_the_guard_is_not() {
        let stack = Stack::new(3 * page_size()).unwrap();
        let (bottom, top) = (stack.bottom(), stack.top());
        assert_eq!(top.addr() - bottom.addr(), stack.size());
        // SAFETY: the usable part of a stack that nothing runs on.
        let bytes = unsafe { std::slice::from_raw_parts_mut(bottom, stack.size()) };
        bytes.fill(0xA5);
        assert!(bytes.iter().all(|&byte| byte == 0xA5));

        assert_eq!(protection(bottom.addr()).unwrap(), "rw-p");
        assert_eq!(protection(top.addr() - 1).unwrap(), "rw-p");
        for below in [1, page_size(), 33_312, GUARD] {
            assert_eq!(
                protection(bottom.addr() - below).unwrap(),
                "---p",
                "{below} below"
            );
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for size in [usize::MAX, usize::MAX - GUARD, isize::MAX as usize] {
            let error = Stack::new(size).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("no stack of {size} bytes: ")),
                "{text}"
            );
            // The address space is what is missing, and the message must not blame another limit.
            assert!(!text.contains("max_map_count"), "{text}");
            assert!(error.as_io_error().raw_os_error().is_some());
        }
    }

    #[test]
    fn error_converts_and_keeps_its_kind_and_text() {
        let error = Stack::new(usize::MAX).unwrap_err();
        let text = error.to_string();
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), text);
    }
}
