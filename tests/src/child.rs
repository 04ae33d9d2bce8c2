//! Tests that need a process of their own: limits, environment, signals.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;

const CHILD: &str = "GORT_TEST_CHILD";

/// Runs `body` in a child process, as the test named `test` of this test binary and nothing else.
/// `prepare` sees the command before it starts (environment, user). Panics with what the child
/// printed if it fails or does not end.
///
/// Must be the whole of the test: the child runs the same test function and finds itself here.
#[track_caller]
pub fn in_child(test: &str, prepare: impl FnOnce(&mut Command), body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some_and(|name| name == test) {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn().expect("this binary can be run again");
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let readers = [
        std::thread::spawn(move || read(stdout)),
        std::thread::spawn(move || read(stderr)),
    ];
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let [stdout, stderr] = readers.map(|reader| reader.join().unwrap());
    let told = format!("stdout:\n{stdout}\nstderr:\n{stderr}");
    let status = status.unwrap_or_else(|| panic!("the child process hangs\n{told}"));
    assert!(status.success(), "the child process: {status}\n{told}");
    assert!(
        stdout.contains("1 passed"),
        "no test of this binary is named {test}\n{told}"
    );
}

fn read(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
