//! Finds, once a process, everything that `pthread_create` knows and does not tell.
//!
//! The rule: what glibc says itself comes first (exported symbols, and the descriptors that it
//! exports for libthread_db, the debugger's library); what it does not say is measured on two
//! ordinary pthreads ([`probe`]), where every scan must have exactly one hit and both must agree;
//! and whatever was found is used on a trial thread before anybody relies on it
//! ([`trial`](super::trial)). Any surprise is an error with its reason, and gort uses std::thread.
//!
//! Other threads may come and go meanwhile: nothing here expects a number of threads or an order.
//!
//! The probes also leave glibc in its multi-threaded mode. Before the first pthread_create malloc
//! takes no locks, and no flag that can be reached from outside changes that for good.

use super::glibc::{self, Glibc, ListHead, Offsets, Pthread, Stacks, header};
use super::probe::{self, Report, Snapshot, StackOf};
use super::signals::{self, Blocked, Set};
use super::symbols::{descriptor, descriptor_size, function, symbol};
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Minor versions of glibc 2 on which all of this was measured. Below, pthreads are a library of
/// their own. Above, it is tried only on request: the lock's place is the one thing that has to be
/// written to in order to check it.
const OLDEST: u32 = 34;
const NEWEST_KNOWN: u32 = 43;

/// Masks for the two probes: patterns that no other field holds, of signals 45 to 63, which no
/// program expects to be delivered to a thread that lives for a millisecond.
const MASKS: [Set; 2] = [Set(0x5a5a_1000_0000_0000), Set(0x3c96_8000_0000_0000)];

/// How long the helper may take to run into the lock: microseconds normally, more on a machine
/// that is overloaded.
const PATIENCE: Duration = Duration::from_secs(5);

macro_rules! ensure {
    ($condition:expr, $($reason:tt)*) => {
        if !$condition {
            return Err(format!($($reason)*));
        }
    };
}
pub(super) use ensure;

unsafe extern "C" {
    /// From libgcc's unwinder, which std links: the start of the function around an address.
    fn _Unwind_FindEnclosingFunction(pc: *mut c_void) -> *mut c_void;
}

/// What was found, and the probe on a stack of its own that a trial thread must resemble.
pub(super) struct Discovery {
    pub(super) glibc: Glibc,
    pub(super) model: Snapshot,
}

/// Why a glibc newer than all that were measured is used only on request.
pub(super) const UNKNOWN_VERSION: &str =
    "this glibc is newer than 2.43, the newest with which raw clone was verified";

/// Whether this glibc is newer than all that were measured.
pub(super) fn is_newer_than_known() -> bool {
    version().is_ok_and(|minor| minor > NEWEST_KNOWN)
}

pub(super) fn discover() -> Result<Discovery, String> {
    no_sanitizer()?;
    let minor = version()?;
    ensure!(minor >= OLDEST, "glibc 2.{minor} is older than 2.{OLDEST}");
    let pthread_size = descriptor_size("pthread")?;
    let (tls_size, tls_align) = static_tls(pthread_size)?;
    let mut at = described_offsets(pthread_size)?;
    let stacks = stack_lists()?;
    verify_lock(&stacks)?;
    check_self(&at, &stacks)?;

    let thread_count = symbol::<AtomicU32>("__nptl_nthreads")?;
    // The probes' stacks have room for the static TLS, as pthread_create takes it from them.
    let stack_size = (256 * 1024 + tls_size).next_multiple_of(super::mapping::page_size());
    let probes = run_probes(&at, &stacks, thread_count, pthread_size, stack_size)?;
    let Probes { first, second, .. } = &probes;
    let clear_tid_value = measure(&mut at, &probes)?;
    let (user_stack_at, user_stack) = user_stack(&at, &first.snapshot, &second.snapshot)?;
    at.user_stack = user_stack_at;

    type AllocateTls = unsafe extern "C" fn(*mut u8) -> *mut u8;
    type DeallocateTls = unsafe extern "C" fn(*mut u8, bool);
    let glibc = Glibc {
        pthread_size,
        tls_size,
        tls_align,
        flags: second.snapshot.half(at.flags),
        user_stack,
        robust_futex_offset: first.snapshot.word(at.robust_head + 8) as isize,
        clear_tid_value,
        stacks,
        thread_count,
        single_threaded: symbol("__libc_single_threaded")?,
        start_thread: start_thread(first, second)?,
        // SAFETY: glibc's functions of these names have had these types since 2.3.
        allocate_tls: unsafe { function::<AllocateTls>("_dl_allocate_tls")? },
        // SAFETY: as above.
        deallocate_tls: unsafe { function::<DeallocateTls>("_dl_deallocate_tls")? },
        offsets: at,
    };
    ensure!(
        !glibc.is_single_threaded(),
        "glibc still believes that there is one thread"
    );
    Ok(Discovery {
        glibc,
        model: probes.second.snapshot,
    })
}

/// The two probes: the first on a stack of glibc's, the second on one of ours.
struct Probes {
    first: Report,
    second: Report,
    /// Where the second's stack began, and the size of both.
    own_stack: usize,
    stack_size: usize,
    pthread_size: usize,
}

/// Runs both, and checks what must hold for each by itself.
fn run_probes(
    at: &Offsets,
    stacks: &Stacks,
    thread_count: *const AtomicU32,
    pthread_size: usize,
    stack_size: usize,
) -> Result<Probes, String> {
    let listed = |report: &Report, expected: (bool, bool)| {
        let found = find_thread(stacks, report.pthread, at)?;
        ensure!(
            found == expected,
            "a probe is on the wrong list of threads: {found:?}"
        );
        // SAFETY: a variable of libc. Relaxed: the value alone is the answer.
        let count = unsafe { (*thread_count).load(Ordering::Relaxed) };
        ensure!(
            count >= 2,
            "__nptl_nthreads counts {count} with this thread and a probe running"
        );
        Ok(())
    };
    let run = |stack_of, mask, expected| {
        probe::run(pthread_size, stack_of, stack_size, mask, |report, stack| {
            listed(report, expected)?;
            Ok(stack)
        })
    };
    let (first, _) = run(StackOf::Glibc, MASKS[0], (false, true))?;
    let (second, own_stack) = run(StackOf::Probe, MASKS[1], (true, false))?;
    check_probe(&first, at, pthread_size)?;
    check_probe(&second, at, pthread_size)?;
    Ok(Probes {
        first,
        second,
        own_stack: own_stack.ok_or("a probe has no stack")?,
        stack_size,
        pthread_size,
    })
}

// What glibc says itself.

/// Sanitizers keep a record of every thread, which they make in their wrapper of pthread_create.
fn no_sanitizer() -> Result<(), String> {
    for (name, sanitizer) in [
        ("__asan_init", "AddressSanitizer"),
        ("__tsan_init", "ThreadSanitizer"),
        ("__msan_init", "MemorySanitizer"),
        ("__hwasan_init", "HWAddressSanitizer"),
        ("__rtsan_init", "RealtimeSanitizer"),
    ] {
        ensure!(
            symbol::<c_void>(name).is_err(),
            "the program runs under {sanitizer}"
        );
    }
    Ok(())
}

/// The minor version of glibc 2.
fn version() -> Result<u32, String> {
    // SAFETY: the function returns a static C string.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy();
    // SAFETY: glibc's variable is a C string.
    let nptl = unsafe { CStr::from_ptr(symbol::<c_char>("__nptl_version")?) }.to_string_lossy();
    ensure!(
        nptl == version,
        "glibc is {version} and its threads are {nptl}"
    );
    version
        .strip_prefix("2.")
        .and_then(|rest| rest.split(['.', '-']).next()?.parse().ok())
        .ok_or_else(|| format!("glibc calls itself {version}"))
}

/// Size and alignment of the static TLS block.
fn static_tls(pthread_size: usize) -> Result<(usize, usize), String> {
    type Info = unsafe extern "C" fn(*mut usize, *mut usize);
    let (mut size, mut align) = (0, 0);
    // SAFETY: glibc's function of this name has this type, and writes two words.
    unsafe { function::<Info>("_dl_get_tls_static_info")?(&mut size, &mut align) };
    ensure!(
        size >= pthread_size && align.is_power_of_two() && align >= 64 && size < 1 << 30,
        "the static TLS block makes no sense: {size} bytes, aligned to {align}"
    );
    Ok((size, align))
}

/// The offsets that libthread_db's descriptors give, directly or by the next field.
fn described_offsets(pthread_size: usize) -> Result<Offsets, String> {
    ensure!(
        descriptor("pthread_dtvp")? == 8,
        "the thread control block is not x86_64's"
    );
    let at = Offsets {
        list: descriptor("pthread_list")?,
        tid: descriptor("pthread_tid")?,
        specific: descriptor("pthread_specific")?,
        start_routine: descriptor("pthread_start_routine")?,
        // The argument follows the routine; the probes check both.
        arg: descriptor("pthread_start_routine")? + 8,
        // The flags follow; the probes check the bit for a stack of the user's.
        flags: descriptor("pthread_cancelhandling")? + 4,
        sched_policy: descriptor("pthread_schedpolicy")?,
        sched_priority: descriptor("pthread_schedparam_sched_priority")?,
        ..Offsets::default()
    };
    for offset in [
        at.list,
        at.tid,
        at.specific,
        at.arg,
        at.flags,
        at.sched_policy,
        at.sched_priority,
    ] {
        ensure!(
            offset + 16 <= pthread_size,
            "an offset lies outside struct pthread: {offset}"
        );
    }
    Ok(at)
}

/// The two lists of threads, and where their lock should be.
fn stack_lists() -> Result<Stacks, String> {
    let rtld_global = symbol::<u8>("_rtld_global")?;
    let known_to_libc = symbol::<*mut u8>("__nptl_rtld_global")?;
    // SAFETY: glibc's variable is a pointer.
    let known_to_libc = unsafe { known_to_libc.read() };
    ensure!(
        known_to_libc == rtld_global,
        "libc and ld.so do not belong together"
    );
    let used = rtld_global.wrapping_add(descriptor("rtld_global__dl_stack_used")?);
    let user = rtld_global.wrapping_add(descriptor("rtld_global__dl_stack_user")?);
    ensure!(
        user == used.wrapping_add(16),
        "the lists of threads are not neighbours"
    );
    // Behind it: the list of cached stacks, the size of the cache, the stack in flight, and the
    // lock. Unchanged from 2.34 to 2.43. Read before anything is written there.
    let cache = user.wrapping_add(16);
    // SAFETY: the words lie in ld.so's data. Volatile, as glibc may change them meanwhile; whatever
    // it writes passes the check.
    let (next, prev, size) = unsafe {
        let words = cache.cast::<usize>();
        (
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
        )
    };
    ensure!(
        next != 0 && prev != 0 && size % super::mapping::page_size() == 0 && size < 1 << 46,
        "what follows the lists of threads is not the cache of stacks"
    );
    Ok(Stacks {
        used: used.cast(),
        user: user.cast(),
        lock: cache.wrapping_add(16 + 8 + 8).cast(),
    })
}

/// Makes sure that the word taken for the lock is the lock: takes it the way glibc would, lets a
/// helper call pthread_create, and expects to see the helper wait for it.
fn verify_lock(stacks: &Stacks) -> Result<(), String> {
    // SAFETY: the word lies in ld.so's data, where alignment and lifetime are given.
    let lock = unsafe { &*stacks.lock };
    let go = Barrier::new(2);
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("gort-probe".into())
            .spawn_scoped(scope, || {
                go.wait();
                go.wait();
                // Only its way through pthread_create matters, not whether it succeeds.
                drop(std::thread::Builder::new().spawn(|| {}).map(|t| t.join()));
            })
            .map_err(|e| format!("cannot start a probe: {e}"))?;
        // The helper must be done with its own start before the lock is taken.
        go.wait();
        // Taken with everything blocked: no handler may run while this thread holds glibc's lock.
        // Between the tries signals are open, as a setuid caller holds it until all have answered.
        let deadline = Instant::now() + PATIENCE;
        let blocked = loop {
            let blocked = Blocked::new(signals::ALL);
            if glibc::try_acquire(lock) {
                break Some(blocked);
            }
            drop(blocked);
            if Instant::now() > deadline {
                break None;
            }
            std::thread::yield_now();
        };
        go.wait();
        let Some(blocked) = blocked else {
            return Err("the lock of the lists of threads is never free".into());
        };
        let deadline = Instant::now() + PATIENCE;
        let mut waited_for = false;
        while !waited_for && Instant::now() < deadline {
            std::thread::yield_now();
            // Relaxed: the value alone is the answer.
            waited_for = lock.load(Ordering::Relaxed) == 2;
        }
        glibc::release(lock);
        drop(blocked);
        ensure!(
            waited_for,
            "the lock of the lists of threads is not where it should be"
        );
        Ok(())
    })
}

// What the threads show.

/// On which lists a thread is: (stacks of users, stacks of glibc).
pub(super) fn find_thread(
    stacks: &Stacks,
    pthread: usize,
    at: &Offsets,
) -> Result<(bool, bool), String> {
    let node = Pthread::at(ptr::with_exposed_provenance_mut(pthread)).field::<ListHead>(at.list);
    let _blocked = Blocked::new(signals::ALL_BUT_SETXID);
    // SAFETY: under the lock.
    stacks.locked(|stacks| unsafe { stacks.find(node) })
}

/// The calling thread must look like a pthread before others are measured.
fn check_self(at: &Offsets, stacks: &Stacks) -> Result<(), String> {
    let me = Pthread::current();
    // SAFETY: the own struct pthread, at offsets within it; pthread_self and gettid touch nothing.
    let (this, self_, tid, real_tid) = unsafe {
        (
            libc::pthread_self() as usize,
            me.get::<usize>(header::SELF),
            me.get::<i32>(at.tid),
            libc::gettid(),
        )
    };
    ensure!(
        this == me.address() && self_ == me.address(),
        "the calling thread is not a pthread: its thread pointers disagree"
    );
    ensure!(
        tid == real_tid,
        "the calling thread's tid is {real_tid}, but glibc has {tid}"
    );
    let (user, used) = find_thread(stacks, me.address(), at)?;
    ensure!(user || used, "the calling thread is on no list of threads");
    Ok(())
}

/// What must hold for each probe by itself.
fn check_probe(probe: &Report, at: &Offsets, pthread_size: usize) -> Result<(), String> {
    let (seen, base) = (&probe.snapshot, probe.pthread);
    let inside = |address: usize| address > base && address + 24 <= base + pthread_size;
    ensure!(
        seen.word(header::TCB) == base && seen.word(header::SELF) == base,
        "a probe's thread pointers disagree"
    );
    ensure!(
        seen.half(header::MULTIPLE_THREADS) == 1,
        "a probe is not marked as one of many threads"
    );
    let me = Pthread::current();
    for offset in header::SHARED.step_by(8) {
        // SAFETY: the calling thread's own header.
        let mine = unsafe { me.get::<usize>(offset) };
        ensure!(
            seen.word(offset) == mine,
            "the thread header at {offset:#x} differs between threads"
        );
    }
    ensure!(
        seen.half(at.tid) as i32 == probe.tid,
        "a probe's tid is not where glibc says it is"
    );
    ensure!(
        seen.word(at.start_routine) == probe::entry_address(),
        "pthread_create is wrapped by another library (a profiler, a sanitizer, a garbage collector)"
    );
    ensure!(
        probe.robust.1 == 24 && inside(probe.robust.0 - 8),
        "a probe's robust list is not in its struct pthread"
    );
    let robust = probe.robust.0 - base;
    ensure!(
        seen.word(robust) == probe.robust.0 && seen.word(robust - 8) == probe.robust.0,
        "a probe's robust list is not empty"
    );
    ensure!(
        inside(seen.word(at.specific)),
        "a probe's pthread keys are not in its struct pthread"
    );
    Ok(())
}

/// `a` if both agree.
fn same(what: &str, a: usize, b: usize) -> Result<usize, String> {
    ensure!(a == b, "two probes disagree on {what}: {a:#x} and {b:#x}");
    Ok(a)
}

/// The only element.
fn only(what: &str, hits: &[usize]) -> Result<usize, String> {
    match hits {
        [hit] => Ok(*hit),
        _ => Err(format!(
            "{what} should be found once in struct pthread, not at {hits:?}"
        )),
    }
}

/// Fills in the offsets that have to be measured. Returns the clear-tid word's first value.
fn measure(at: &mut Offsets, probes: &Probes) -> Result<u32, String> {
    let Probes {
        first,
        second,
        own_stack,
        stack_size,
        pthread_size,
    } = probes;
    let (a, b) = (&first.snapshot, &second.snapshot);
    at.robust_head = same(
        "the robust list",
        first.robust.0 - first.pthread,
        second.robust.0 - second.pthread,
    )?;
    at.specific_block = same(
        "the block of pthread keys",
        a.word(at.specific) - first.pthread,
        b.word(at.specific) - second.pthread,
    )?;

    // The stack block: its address and size stand side by side in the probe whose stack is ours.
    let mut blocks = b.find(*own_stack);
    blocks.retain(|&offset| offset + 32 <= *pthread_size && b.word(offset + 8) == *stack_size);
    at.stackblock = only("the stack block", &blocks)?;
    let guard = (a.word(at.stackblock + 16), a.word(at.stackblock + 24));
    ensure!(
        guard.0 == guard.1 && guard.0 == super::mapping::page_size(),
        "the guard sizes are not behind the stack block: {guard:?}"
    );

    let masks = [a.find(MASKS[0].0 as usize), b.find(MASKS[1].0 as usize)];
    at.sigmask = same(
        "the signal mask",
        only("a signal mask", &masks[0])?,
        only("a signal mask", &masks[1])?,
    )?;

    match (first.clear_tid, second.clear_tid) {
        (Some(x), Some(y)) => {
            at.clear_tid = same(
                "the clear-tid word",
                x.wrapping_sub(first.pthread),
                y.wrapping_sub(second.pthread),
            )?;
            ensure!(
                at.clear_tid % 4 == 0 && at.clear_tid + 4 <= *pthread_size,
                "the clear-tid word lies outside struct pthread"
            );
        }
        // Without the kernel's word for it the trial thread has to show that the guess is right:
        // through 2.42 it is the tid.
        _ => {
            ensure!(
                !is_newer_than_known(),
                "the kernel does not tell the clear-tid address"
            );
            at.clear_tid = at.tid;
        }
    }
    Ok(if at.clear_tid == at.tid {
        0
    } else {
        a.half(at.clear_tid)
    })
}

/// Where glibc notes that a stack is the user's, and the value: the only byte behind the pthread
/// keys in which the probes differ. It was a bool to 2.42 and is an enum since.
fn user_stack(at: &Offsets, a: &Snapshot, b: &Snapshot) -> Result<(usize, u8), String> {
    /// `ATTR_FLAG_STACKADDR`, <nptl/pthreadP.h>: the same fact once more, in the flags.
    const STACK_ADDRESS_SET: u32 = 0x8;
    /// PTHREAD_KEY_1STLEVEL_SIZE pointers, <bits/local_lim.h>.
    const SPECIFIC: usize = 32 * 8;
    /// The flags and small numbers between the keys and the next pointers.
    const SMALL_FIELDS: usize = 12;
    let flags = (a.half(at.flags), b.half(at.flags));
    ensure!(
        flags.0 ^ flags.1 == STACK_ADDRESS_SET && flags.1 & STACK_ADDRESS_SET != 0,
        "the flags do not tell a user's stack: {:#x} and {:#x}",
        flags.0,
        flags.1
    );
    let start = at.specific + SPECIFIC;
    ensure!(
        descriptor("pthread_report_events")? == start + 1,
        "the fields behind the pthread keys are not the expected ones"
    );
    let differing: Vec<_> = (start..start + SMALL_FIELDS)
        .filter(|&offset| a.byte(offset) != b.byte(offset))
        .collect();
    let offset = only("the mark of a user's stack", &differing)?;
    Ok((offset, b.byte(offset)))
}

/// The function that the probes returned to.
fn start_thread(first: &Report, second: &Report) -> Result<usize, String> {
    let enclosing = |address: usize| {
        // SAFETY: the function only looks the address up in the unwind tables. One byte back: a
        // return address may already belong to the next function.
        unsafe { _Unwind_FindEnclosingFunction((address - 1) as *mut c_void) as usize }
    };
    let start = same(
        "start_thread",
        enclosing(first.return_address),
        enclosing(second.return_address),
    )?;
    ensure!(
        start != 0 && start < first.return_address,
        "start_thread has no unwind table"
    );
    ensure!(
        library_of(start)? == library_of(libc::gnu_get_libc_version as *const () as usize)?,
        "a pthread's root is not in libc: pthread_create is wrapped by another library"
    );
    Ok(start)
}

/// Where the library that holds `address` begins.
fn library_of(address: usize) -> Result<usize, String> {
    let mut info = libc::Dl_info {
        dli_fname: ptr::null(),
        dli_fbase: ptr::null_mut(),
        dli_sname: ptr::null(),
        dli_saddr: ptr::null_mut(),
    };
    // SAFETY: dladdr looks the address up without touching it, and writes the structure.
    let found = unsafe { libc::dladdr(address as *const c_void, &mut info) };
    ensure!(found != 0, "the address {address:#x} is in no library");
    Ok(info.dli_fbase.addr())
}
