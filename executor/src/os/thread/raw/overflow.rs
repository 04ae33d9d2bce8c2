//! Says which M has overflowed its stack before the process dies of it.
//!
//! std's handler does not know stacks that std did not make, and without one the user would see
//! nothing but "Segmentation fault". So the guard page of every M stands in a table, and a handler
//! for SIGSEGV and SIGBUS, which runs on the M's signal stack, looks a fault up there. A fault that
//! is none of ours goes to the handler that was there before, std's in most programs.
//!
//! The table is an append-only list of chunks whose slots are taken and given back with atomics:
//! the handler may look at any moment, on any thread, also in a forked child, and takes no lock.
//! A slot that changes under its eyes can at worst cost the message.
//!
//! The handler calls only async-signal-safe functions: `write`, `prctl`, `gettid`, `sigaction`,
//! `tgkill` and `abort`.

use super::mapping::Region;
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Slots in a chunk: 24 bytes each, so that a chunk fills a page and a half. The first is static.
const SLOTS: usize = 256;

struct Chunk {
    slots: [Slot; SLOTS],
    next: AtomicPtr<Chunk>,
}

/// One M's stack. `guard` is 0 while nobody owns the slot, and 1 while its owner fills it.
struct Slot {
    guard: AtomicUsize,
    stack: AtomicUsize,
    end: AtomicUsize,
}

/// No guard lies at address 1: it marks a slot as taken but not yet readable.
const FILLING: usize = 1;

impl Chunk {
    const fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    guard: AtomicUsize::new(0),
                    stack: AtomicUsize::new(0),
                    end: AtomicUsize::new(0),
                }
            }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn next(&self) -> Option<&'static Chunk> {
        // Acquire pairs with the Release in `append`. SAFETY: chunks are never freed.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    /// The chunk after this one, made if there is none.
    fn append(&self) -> &'static Chunk {
        let new = Box::into_raw(Box::new(Chunk::new()));
        match self
            .next
            .compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Acquire)
        {
            // SAFETY: it is in the list now, and chunks in the list are never freed.
            Ok(_) => unsafe { &*new },
            Err(theirs) => {
                // SAFETY: `new` comes from `into_raw` above, and nobody has seen it; `theirs` is
                // in the list. The Acquire on failure pairs with the Release of whoever put it in.
                unsafe {
                    drop(Box::from_raw(new));
                    &*theirs
                }
            }
        }
    }
}

static TABLE: Chunk = Chunk::new();

/// The place of one stack in the table; empty again when it is dropped.
#[derive(Debug)]
pub(super) struct Registration(&'static AtomicUsize);

/// Enters a stack.
pub(super) fn register(region: &Region) -> Registration {
    let mut chunk = &TABLE;
    loop {
        for slot in &chunk.slots {
            // Relaxed: the claim publishes nothing; the Release below does.
            let claim =
                slot.guard
                    .compare_exchange(0, FILLING, Ordering::Relaxed, Ordering::Relaxed);
            if claim.is_ok() {
                slot.stack.store(region.stack, Ordering::Relaxed);
                slot.end.store(region.end, Ordering::Relaxed);
                // Release pairs with the Acquire in `find`.
                slot.guard.store(region.guard, Ordering::Release);
                return Registration(&slot.guard);
            }
        }
        chunk = chunk.next().unwrap_or_else(|| chunk.append());
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Relaxed: whoever claims the slot next writes all of it anew.
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The stack into whose guard `address` falls while the stack pointer is at `sp`. Both must fit: a
/// stray access to some other M's guard, or one from a stackful task, is not an overflow of the M.
fn find(address: usize, sp: usize) -> Option<Region> {
    let mut chunk = Some(&TABLE);
    while let Some(current) = chunk {
        for slot in &current.slots {
            // Acquire pairs with the Release in `register`.
            let guard = slot.guard.load(Ordering::Acquire);
            let region = Region {
                guard,
                stack: slot.stack.load(Ordering::Relaxed),
                end: slot.end.load(Ordering::Relaxed),
            };
            if guard > FILLING && region.is_overflow(address, sp) {
                return Some(region);
            }
        }
        chunk = current.next();
    }
    None
}

/// The two signals of a bad access, and what handled them before.
const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];
static PREVIOUS: [AtomicPtr<libc::sigaction>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

/// Installs the handler, once a process.
pub(super) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
                replace(signal, previous).map_err(|e| e.raw_os_error().unwrap_or(libc::EINVAL))?;
            }
            Ok(())
        })
        .map_err(io::Error::from_raw_os_error)
}

/// Puts our handler before the one in force. Ours takes over the mask and the flags that the other
/// asked for, so that it finds its world unchanged when it is called from ours.
fn replace(signal: libc::c_int, previous: &AtomicPtr<libc::sigaction>) -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction, and sigaction writes it.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks; `old` is ours.
    check(unsafe { libc::sigaction(signal, ptr::null(), &mut old) })?;
    let mut new = old;
    new.sa_sigaction = on_fault as *const () as usize;
    new.sa_flags = libc::SA_SIGINFO
        | libc::SA_ONSTACK
        | (old.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART));
    // Never freed: the handler may need it until the process ends. Release pairs with the Acquire
    // in `on_fault`.
    previous.store(Box::into_raw(Box::new(old)), Ordering::Release);
    // SAFETY: `on_fault` has the signature that SA_SIGINFO asks for and is async-signal-safe.
    check(unsafe { libc::sigaction(signal, &new, ptr::null_mut()) })
}

fn check(rc: libc::c_int) -> io::Result<()> {
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a siginfo and a ucontext of its own to an SA_SIGINFO handler, both
    // valid until the handler returns.
    let (code, address, sp) = unsafe {
        let context = context.cast::<libc::ucontext_t>();
        let sp = (*context).uc_mcontext.gregs[libc::REG_RSP as usize];
        ((*info).si_code, (*info).si_addr() as usize, sp as usize)
    };
    // Codes up to 0 come from kill and its kin, where the address means nothing.
    let sent = code <= 0;
    if !sent {
        if let Some(region) = find(address, sp) {
            report(&region);
            // SAFETY: abort takes nothing and may be called in a handler.
            unsafe { libc::abort() }
        }
    }
    // SAFETY: the arguments are the ones this handler was called with.
    unsafe { chain(signal, info, context, sent) }
}

/// Does what would have been done had this handler not been there.
///
/// # Safety
///
/// To be called from a handler for `signal` with the handler's own arguments.
unsafe fn chain(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    sent: bool,
) {
    let index = usize::from(signal != SIGNALS[0]);
    // Acquire pairs with the Release in `replace`, which comes before the handler is installed.
    let previous = PREVIOUS[index].load(Ordering::Acquire);
    // SAFETY: `replace` stored a pointer to a sigaction that is never freed.
    let previous = unsafe { &*previous };
    match previous.sa_sigaction {
        libc::SIG_IGN if sent => {}
        // A fault cannot be ignored: the kernel kills too when the signal of one is.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: see `default_action`.
            unsafe { default_action(signal) };
            if sent {
                // Nothing will fault again after the return, so it is sent once more.
                // SAFETY: the calls touch no memory.
                unsafe {
                    libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal);
                }
            }
        }
        handler => {
            if previous.sa_flags & libc::SA_RESETHAND != 0 {
                // SAFETY: see `default_action`.
                unsafe { default_action(signal) };
            }
            if previous.sa_flags & libc::SA_SIGINFO != 0 {
                type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                // SAFETY: whoever installed it with SA_SIGINFO gave a function of this type.
                let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
                handler(signal, info, context);
            } else {
                type Handler = extern "C" fn(libc::c_int);
                // SAFETY: whoever installed it without SA_SIGINFO gave a function of this type.
                let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
                handler(signal);
            }
        }
    }
}

/// After this the instruction that faulted runs again and kills the process, with a core dump that
/// shows it.
///
/// # Safety
///
/// For a handler that has decided that the process is to die.
unsafe fn default_action(signal: libc::c_int) {
    // SAFETY: all zeroes is a valid sigaction: the default, no flags, an empty mask.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &default, ptr::null_mut());
    }
}

/// Writes the message to the standard error, in one `write` so that it is not torn apart.
fn report(region: &Region) {
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the last a zero. gettid touches no memory.
    let tid = unsafe {
        libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
        libc::gettid()
    };
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(16);

    let mut text = Text::new();
    text.push(b"\nthread '");
    text.push(&name[..end]);
    text.push(b"' (");
    text.push_number(tid.unsigned_abs() as usize);
    text.push(b") has overflowed its stack of ");
    text.push_number(region.size() / 1024);
    text.push(
        b" KiB\nA future or blocking closure that this gort thread ran recursed too deep or keeps \
          too much on the stack.\nBuilder::thread_stack_size makes the stacks larger.\n",
    );
    text.write();
}

/// A text on the stack: no allocation in a signal handler.
struct Text {
    bytes: [u8; 384],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Self {
            bytes: [0; 384],
            len: 0,
        }
    }

    /// Appends what fits.
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
    }

    fn push_number(&mut self, mut number: usize) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn write(&self) {
        // SAFETY: the pointer and the length are those of a live array. An error has nowhere to go.
        unsafe {
            libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(guard: usize) -> Region {
        Region {
            guard,
            stack: guard + 0x1000,
            end: guard + 0x9000,
        }
    }

    #[test]
    fn finds_registered_guards_only() {
        // Addresses that no mapping of this process has, so that other tests do not interfere.
        let base = 0xffff_0000_0000_0000_usize;
        let at = |i: usize| base + i * 0x10_0000;
        // More than a chunk holds, so that the list grows.
        let registered: Vec<_> = (0..SLOTS + 10).map(|i| register(&region(at(i)))).collect();
        for i in 0..SLOTS + 10 {
            let found = find(at(i) + 8, at(i) + 0x1000).expect("registered");
            assert_eq!(found.guard, at(i));
            assert_eq!(found.size(), 0x8000);
            assert!(
                find(at(i) + 0x1000, at(i) + 0x1000).is_none(),
                "the stack is no guard"
            );
            assert!(
                find(at(i) + 8, at(i) + 0xa000).is_none(),
                "not from another stack"
            );
        }
        drop(registered);
        assert!((0..SLOTS + 10).all(|i| find(at(i) + 8, at(i) + 0x1000).is_none()));
    }

    #[test]
    fn text_keeps_what_fits() {
        let mut text = Text::new();
        text.push_number(0);
        text.push(b" ");
        text.push_number(usize::MAX);
        assert_eq!(&text.bytes[..text.len], b"0 18446744073709551615");
        text.push(&[b'x'; 1000]);
        assert_eq!(text.len, text.bytes.len());
    }
}
