//! Runs items in child processes, and starts threads for them.

use gort::__conformance::{Handle, ThreadBackend, selected, spawn};
use std::fmt::Display;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Names the item that a child process is to run.
const CHILD: &str = "GORT_CONFORMANCE_CHILD";

/// Begins the line that says what could not be checked.
const NOTE: &str = "conformance: skipped ";

/// When an item counts as hung. Far beyond what any needs, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Stack of the threads in most items.
pub(crate) const STACK: usize = 1 << 20;

/// Threads in most items.
pub(crate) const THREADS: usize = 4;

/// How the child process is expected to end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Success,
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
    /// SIGABRT, with this text on the standard error.
    Abort(&'static str),
}

/// The back end under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads(pub(crate) ThreadBackend);

impl Threads {
    /// Starts a thread.
    pub(crate) fn spawn(self, f: impl FnOnce() + Send + 'static) -> Handle {
        self.try_spawn("m", STACK, f)
            .unwrap_or_else(|e| panic!("spawn: {e}"))
    }

    pub(crate) fn try_spawn(
        self,
        name: &str,
        stack_size: usize,
        f: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Handle> {
        spawn(name, stack_size, self.0, f)
    }

    /// Runs `f` on [`THREADS`] threads at once, each with its number, and passes on a panic.
    pub(crate) fn each(self, f: impl Fn(usize) + Send + Sync + 'static) {
        let f = std::sync::Arc::new(f);
        let handles: Vec<_> = (0..THREADS)
            .map(|i| {
                let f = f.clone();
                self.spawn(move || f(i))
            })
            .collect();
        for handle in handles {
            join(handle);
        }
    }

    pub(crate) fn is_raw(self) -> bool {
        self.0 == ThreadBackend::RawClone
    }
}

/// Joins, and passes a panic on.
pub(crate) fn join(handle: Handle) {
    if let Err(panic) = handle.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs an item: in the child itself, in the parent by starting the child and judging its end.
pub(crate) fn run(name: &str, ending: Ending, item: fn(Threads)) {
    let backend = if name.starts_with("raw") {
        ThreadBackend::RawClone
    } else {
        ThreadBackend::Std
    };
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        return item(Threads(backend));
    }
    let gnu = cfg!(all(target_arch = "x86_64", target_env = "gnu"));
    match selected(backend) {
        Err(e) if !gnu => return skip(name, &e),
        Err(e) => panic!("{e}"),
        Ok(_) => {}
    }
    let output = run_child(command(name));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let as_expected = match ending {
        Ending::Success => output.status.success(),
        Ending::Code(code) => output.status.code() == Some(code),
        Ending::Signal(signal) => output.status.signal() == Some(signal),
        Ending::Abort(text) => {
            output.status.signal() == Some(libc::SIGABRT) && stderr.contains(text)
        }
    };
    // Skips and notes of a child that did well.
    for line in stderr.lines().filter(|line| line.starts_with(NOTE)) {
        tell(line);
    }
    assert!(
        as_expected,
        "{name} should have ended with {ending:?}, but: {}\n--- stdout\n{}\n--- stderr\n{stderr}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
    );
}

/// The command that runs an item in a process of its own.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, name);
    command
}

/// Runs a command with nothing to read, and kills it when it hangs.
pub(crate) fn run_child(mut command: Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let pid = child.id() as i32;
    let (done, waiting) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let _ = done.send(());
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    waiting.recv().expect("the waiter runs");
    let hung = waiting.recv_timeout(PATIENCE).is_err();
    if hung {
        // SAFETY: the child is not reaped before the waiter returns, so the pid is still its own.
        unsafe { libc::kill(pid, libc::SIGABRT) };
    }
    let output = waiter.join().expect("no panic").expect("wait");
    assert!(
        !hung,
        "{command:?} hung\n--- stdout\n{}\n--- stderr\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Says why an item is not checked here.
pub(crate) fn skip(what: &str, why: &dyn Display) {
    tell(&format!("{NOTE}{what}: {why}"));
}

/// Past libtest's capture, which would swallow it in a test that passes.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE / 2;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub(crate) fn gettid() -> i32 {
    // SAFETY: gettid touches no memory.
    unsafe { libc::gettid() }
}

pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Forks, runs `child` in the child, and expects it to succeed. A panic there is a failure here.
pub(crate) fn in_forked_child(child: impl FnOnce()) {
    // SAFETY: the child does what other programs do after a fork although POSIX does not promise
    // it: that it works is what the item checks.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).is_ok();
        // SAFETY: ends the child without the destructors of the parent.
        unsafe { libc::_exit(if ok { 7 } else { 1 }) };
    }
    assert!(pid > 0, "fork: {}", errno());
    let mut status = 0;
    // SAFETY: waitpid writes to a local.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid);
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7,
        "the forked child ended with status {status:#x}"
    );
}

/// The lines of a file in /proc/self, counted.
pub(crate) fn proc_lines(file: &str) -> usize {
    std::fs::read_to_string(format!("/proc/self/{file}"))
        .expect("/proc")
        .lines()
        .count()
}

/// Resident memory, bytes.
pub(crate) fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages = statm.split(' ').nth(1).expect("statm");
    pages.parse::<usize>().expect("statm") * 4096
}

/// A small random number generator: the seed is in the source, so a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `n`. xorshift64*, Vigna 2016.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}
