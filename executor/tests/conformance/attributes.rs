//! What a thread, the kernel and debuggers can learn about a thread.

use crate::support::{STACK, Threads, errno, gettid, join};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

pub(crate) fn stack_of_getattr_np(threads: Threads) {
    threads.each(|_| {
        let here = 0_u8;
        let here = (&raw const here).addr();
        let mut attr = MaybeUninit::uninit();
        let (mut base, mut size, mut guard) = (ptr::null_mut(), 0, 0);
        // SAFETY: the attributes are initialised by the first call and destroyed by the last.
        unsafe {
            assert_eq!(
                libc::pthread_getattr_np(libc::pthread_self(), attr.as_mut_ptr()),
                0
            );
            assert_eq!(
                libc::pthread_attr_getstack(attr.as_ptr(), &mut base, &mut size),
                0
            );
            assert_eq!(
                libc::pthread_attr_getguardsize(attr.as_ptr(), &mut guard),
                0
            );
            libc::pthread_attr_destroy(attr.as_mut_ptr());
        }
        assert!(
            (base.addr()..base.addr() + size).contains(&here),
            "{base:?} {size:#x}"
        );
        assert!((STACK..2 * STACK).contains(&size), "{size:#x}");
        assert_eq!(guard, 4096);
    });
}

fn comm_of_current() -> String {
    let path = format!("/proc/self/task/{}/comm", gettid());
    std::fs::read_to_string(path).unwrap().trim_end().into()
}

pub(crate) fn comm(threads: Threads) {
    for name in [
        "short",
        "fifteen-bytes-x",
        "sixteen-bytes-xx",
        "a-name-that-is-too-long",
        "schön",
    ] {
        let handle = threads.try_spawn(name, STACK, move || {
            // What of it the kernel keeps may end within a character.
            let shown =
                String::from_utf8_lossy(&name.as_bytes()[..name.len().min(15)]).into_owned();
            assert_eq!(comm_of_current(), shown);
        });
        join(handle.unwrap());
    }
}

pub(crate) fn set_name_affinity_sched(threads: Threads) {
    // SAFETY: calls on the thread itself, with locals of the right type.
    threads.each(|_| unsafe {
        let me = libc::pthread_self();
        let mut name = [0; 16];
        assert_eq!(libc::pthread_setname_np(me, c"renamed".as_ptr()), 0);
        assert_eq!(
            libc::pthread_getname_np(me, name.as_mut_ptr(), name.len()),
            0
        );
        assert_eq!(CStr::from_ptr(name.as_ptr()), c"renamed");
        assert_eq!(comm_of_current(), "renamed");

        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of_val(&cpus);
        assert_eq!(libc::pthread_getaffinity_np(me, size, &mut cpus), 0);
        assert!(libc::CPU_COUNT(&cpus) >= 1);
        assert_eq!(libc::pthread_setaffinity_np(me, size, &cpus), 0);

        let (mut policy, mut param) = (-1, std::mem::zeroed());
        assert_eq!(libc::pthread_getschedparam(me, &mut policy, &mut param), 0);
        assert_eq!(policy, libc::sched_getscheduler(0));

        let (mut clock, mut time) = (0, std::mem::zeroed());
        assert_eq!(libc::pthread_getcpuclockid(me, &mut clock), 0);
        assert_eq!(libc::clock_gettime(clock, &mut time), 0);
    });
}

pub(crate) fn cpu_and_rseq(threads: Threads) {
    threads.each(|_| {
        for _ in 0..100 {
            // SAFETY: sched_getcpu touches no memory of ours.
            assert!(unsafe { libc::sched_getcpu() } >= 0);
        }
        // SAFETY: two variables of glibc 2.35 and later, or null.
        let (offset, size) = unsafe {
            (
                libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr())
                    .cast::<isize>()
                    .as_ref(),
                libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr())
                    .cast::<u32>()
                    .as_ref(),
            )
        };
        if let (Some(&offset), Some(1..)) = (offset, size) {
            // SAFETY: pthread_self is the thread pointer, and the area lies at this offset from it.
            // It is registered already, so the kernel refuses to do it again.
            let rc = unsafe {
                let area = (libc::pthread_self() as usize).wrapping_add_signed(offset);
                libc::syscall(libc::SYS_rseq, area, 32, 0, 0x5305_3053_u32)
            };
            assert_eq!((rc, errno()), (-1, libc::EBUSY), "rseq is not registered");
        }
    });
}
