//! What the C library keeps for each thread.

use crate::support::{THREADS, Threads};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

unsafe extern "C" {
    static stdout: *mut libc::FILE;
    fn flockfile(file: *mut libc::FILE);
    fn ftrylockfile(file: *mut libc::FILE) -> c_int;
    fn funlockfile(file: *mut libc::FILE);
    fn strsignal(signal: c_int) -> *const c_char;
    fn iconv_open(to: *const c_char, from: *const c_char) -> *mut c_void;
    fn iconv_close(descriptor: *mut c_void) -> c_int;
}

pub(crate) fn errno(threads: Threads) {
    let arrived: Arc<[AtomicUsize; 2]> = Arc::default();
    let addresses: Arc<Mutex<Vec<usize>>> = Arc::default();
    let a = addresses.clone();
    threads.each(move |i| {
        // SAFETY: errno is the thread's own.
        let mine = unsafe { &mut *libc::__errno_location() };
        a.lock().unwrap().push((&raw const *mine).addr());
        // Not a `Barrier`: its futex calls may set errno themselves.
        let meet = |round: usize| {
            arrived[round].fetch_add(1, Ordering::SeqCst);
            while arrived[round].load(Ordering::SeqCst) < THREADS {
                std::thread::yield_now();
            }
        };
        *mine = 1000 + i as i32;
        meet(0);
        let found = crate::support::errno();
        meet(1);
        assert_eq!(found, 1000 + i as i32);
        // SAFETY: the path is a C string.
        let rc = unsafe { libc::open(c"/nonexistent/file".as_ptr(), libc::O_RDONLY) };
        assert_eq!((rc, crate::support::errno()), (-1, libc::ENOENT));
    });
    let addresses = addresses.lock().unwrap();
    for (i, address) in addresses.iter().enumerate() {
        assert!(
            !addresses[..i].contains(address),
            "two threads share one errno"
        );
    }
}

fn text(pointer: *const c_char) -> String {
    // SAFETY: every caller passes a C string that libc returned for this thread.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

pub(crate) fn locale_and_ctype(threads: Threads) {
    // SAFETY: plain calls with valid C strings and buffers; locales are freed
    // after the thread has left them.
    threads.each(|_| unsafe {
        assert!(libc::isalpha(i32::from(b'a')) != 0 && libc::isalpha(i32::from(b'1')) == 0);
        assert_eq!(libc::toupper(i32::from(b'q')), i32::from(b'Q'));
        assert_eq!(libc::strtod(c"3.25".as_ptr(), ptr::null_mut()), 3.25);
        assert_eq!(text((*libc::localeconv()).decimal_point), ".");
        let locale = libc::newlocale(libc::LC_ALL_MASK, c"C.UTF-8".as_ptr(), ptr::null_mut());
        assert!(!locale.is_null());
        let before = libc::uselocale(locale);
        assert!(libc::isalpha(i32::from(b'z')) != 0);
        libc::uselocale(before);
        libc::freelocale(locale);
        assert!(text(libc::strerror(99999)).contains("99999"));
        assert!(text(strsignal(250)).contains("250"));
        let mut buffer = [0; 64];
        let format = c"%d %.2f %s %5x".as_ptr();
        let len = libc::snprintf(
            buffer.as_mut_ptr(),
            64,
            format,
            42,
            2.5,
            c"hi".as_ptr(),
            255,
        );
        assert_eq!((len, &*text(buffer.as_ptr())), (16, "42 2.50 hi    ff"));
    });
}

pub(crate) fn stdio_locks(threads: Threads) {
    // SAFETY: stdout is open, and every lock is given back.
    threads.each(|_| unsafe {
        for _ in 0..300 {
            // The lock knows its owner: it may be taken twice.
            flockfile(stdout);
            assert_eq!(ftrylockfile(stdout), 0);
            libc::fputs(c"a".as_ptr(), stdout);
            libc::fputs(c"b\n".as_ptr(), stdout);
            funlockfile(stdout);
            funlockfile(stdout);
        }
        libc::fflush(stdout);
    });
}

pub(crate) fn users_and_iconv(threads: Threads) {
    // SAFETY: the buffers are as large as the calls are told.
    threads.each(|_| unsafe {
        let mut user: libc::passwd = std::mem::zeroed();
        let mut buffer = [0; 4096];
        let mut found = ptr::null_mut();
        let rc = libc::getpwuid_r(0, &mut user, buffer.as_mut_ptr(), buffer.len(), &mut found);
        assert_eq!(rc, 0);
        if !found.is_null() {
            assert_eq!(text(user.pw_name), "root");
        }
        let descriptor = iconv_open(c"UTF-16".as_ptr(), c"ISO-8859-15".as_ptr());
        assert_ne!(descriptor.addr(), usize::MAX);
        assert_eq!(iconv_close(descriptor), 0);
    });
}

pub(crate) fn multi_threaded_mode(threads: Threads) {
    let single_threaded = || {
        // SAFETY: a one-byte flag of glibc, read while nobody changes it.
        unsafe {
            let flag = libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr());
            flag.cast::<u8>().as_ref().is_some_and(|&flag| flag != 0)
        }
    };
    threads.each(move |_| assert!(!single_threaded()));
    crate::support::in_forked_child(|| threads.each(move |_| assert!(!single_threaded())));
}
