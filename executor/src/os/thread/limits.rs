//! What to tell a user whose system refused a thread.
//!
//! `EAGAIN` alone does not say which of four limits was reached, so the error lists all of them
//! with their values in this process. Everything here runs once, on the way to an error.

use super::Options;
use std::fs;
use std::io;
use std::path::Path;

/// The type of `RLIMIT_*`, which differs between C libraries.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// The refusal `e` in words, after `retries` repeated attempts. The kind stays; the number itself
/// is in the text, since an `io::Error` carries either a number or a text.
pub(super) fn explain(e: &io::Error, options: &Options, retries: u32) -> io::Error {
    let advice = match e.raw_os_error() {
        Some(libc::EAGAIN) => format!(
            "it was tried {} times. A limit on threads is reached: {}. Raise it, or start fewer \
             threads (Builder::worker_threads, Builder::max_blocking_threads)",
            retries + 1,
            thread_limits(),
        ),
        Some(libc::ENOMEM) => format!(
            "there is no memory for its stack of {} KiB: {}. Make stacks smaller \
             (Builder::thread_stack_size), start fewer threads, or raise the limit",
            options.stack_size / 1024,
            memory_limits(),
        ),
        Some(libc::EPERM | libc::ENOSYS) => {
            "a seccomp filter or another sandbox that forbids clone does this".into()
        }
        _ => return io::Error::new(e.kind(), format!("{}: {e}", subject(options))),
    };
    io::Error::new(e.kind(), format!("{}: {e}; {advice}", subject(options)))
}

fn subject(options: &Options) -> String {
    format!("cannot start the OS thread {:?}", options.name)
}

fn thread_limits() -> String {
    let mut limits = vec![
        format!(
            "`ulimit -u` (RLIMIT_NPROC, all threads of the user) is {}",
            rlimit(libc::RLIMIT_NPROC)
        ),
        setting("/proc/sys/kernel/threads-max"),
        setting("/proc/sys/kernel/pid_max"),
    ];
    limits.extend(cgroup("pids.current", "pids.max"));
    limits.join(", ")
}

fn memory_limits() -> String {
    let mut limits = vec![
        format!("`ulimit -v` (RLIMIT_AS) is {}", rlimit(libc::RLIMIT_AS)),
        format!(
            "`ulimit -l` (RLIMIT_MEMLOCK) is {}",
            rlimit(libc::RLIMIT_MEMLOCK)
        ),
        setting("/proc/sys/vm/overcommit_memory"),
        setting("/proc/sys/vm/max_map_count"),
    ];
    limits.extend(cgroup("memory.current", "memory.max"));
    limits.join(", ")
}

fn rlimit(which: Resource) -> String {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes the structure, which is ours and of the right type.
    if unsafe { libc::getrlimit(which, &mut limit) } != 0 {
        return "unknown".into();
    }
    if limit.rlim_cur == libc::RLIM_INFINITY {
        "unlimited".into()
    } else {
        limit.rlim_cur.to_string()
    }
}

fn setting(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(value) => format!("{path} is {}", value.trim()),
        Err(_) => format!("{path} cannot be read"),
    }
}

/// The process's own group in the unified hierarchy, where it limits the resource at all.
fn cgroup(current: &str, max: &str) -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let dir = Path::new("/sys/fs/cgroup").join(path);
    let max_value = fs::read_to_string(dir.join(max)).ok()?;
    let current_value = fs::read_to_string(dir.join(current)).ok()?;
    Some(format!(
        "{} is {} with {} in use",
        dir.join(max).display(),
        max_value.trim(),
        current_value.trim()
    ))
}
