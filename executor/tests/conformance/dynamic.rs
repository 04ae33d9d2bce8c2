//! Libraries that are loaded while threads run, and their thread locals.

use crate::support::{THREADS, Threads, join, skip};
use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};

/// A temporary directory with the library in it, removed at the end.
pub(crate) struct Built(PathBuf);

impl Built {
    /// Compiles a file of `tests/clib`, or says why that is not possible.
    pub(crate) fn new(source: &str, flags: &[&str]) -> Result<Self, String> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gort-clib-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let built = Self(dir);
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(built.path())
            .arg(format!(
                "{}/tests/clib/{source}",
                env!("CARGO_MANIFEST_DIR")
            ))
            .args(flags)
            .output()
            .map_err(|e| format!("there is no C compiler `cc`: {e}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cc: {errors}");
        Ok(built)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("lib.so")
    }

    /// Loads the library.
    pub(crate) fn open(&self) -> Library {
        let path = CString::new(self.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: the library has no constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "{}", {
            // SAFETY: dlerror returns a C string after a failure.
            unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy()
        });
        Library(handle)
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A loaded library, unloaded when dropped.
pub(crate) struct Library(*mut c_void);

// SAFETY: a handle of dlopen may be used on any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the library is loaded.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    }

    /// The calling thread's value, which starts at [`INITIAL`].
    pub(crate) fn get(&self) -> c_int {
        // SAFETY: the function has this type.
        let get: extern "C" fn() -> c_int = unsafe { std::mem::transmute(self.symbol(c"get")) };
        get()
    }

    fn set(&self, value: c_int) {
        // SAFETY: the function has this type.
        let set: extern "C" fn(c_int) = unsafe { std::mem::transmute(self.symbol(c"set")) };
        set(value);
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: nothing of the library is used any more.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

/// The model whose variables lie in the block that was allocated when the thread started.
pub(crate) const INITIAL_EXEC: &str = "-ftls-model=initial-exec";

/// As in `tls.c`.
pub(crate) const INITIAL: c_int = 42;

pub(crate) fn tls_general_dynamic(threads: Threads) {
    loaded_after_the_start(threads, "-ftls-model=global-dynamic");
}

/// The hard one.
pub(crate) fn tls_initial_exec(threads: Threads) {
    loaded_after_the_start(threads, INITIAL_EXEC);
}

fn loaded_after_the_start(threads: Threads, model: &str) {
    let built = match Built::new("tls.c", &[model]) {
        Ok(built) => built,
        Err(why) => return skip("thread locals of loaded libraries", &why),
    };
    let loaded = Arc::new((Barrier::new(THREADS + 1), OnceLock::<Library>::new()));
    let handles: Vec<_> = (0..THREADS)
        .map(|i| {
            let loaded = loaded.clone();
            threads.spawn(move || {
                let (barrier, library) = &*loaded;
                barrier.wait();
                barrier.wait();
                let library = library.get().unwrap();
                assert_eq!(library.get(), INITIAL, "in a thread older than the library");
                library.set(i as c_int);
                barrier.wait();
                assert_eq!(library.get(), i as c_int);
            })
        })
        .collect();
    loaded.0.wait();
    assert!(loaded.1.set(built.open()).is_ok());
    loaded.0.wait();
    loaded.0.wait();
    handles.into_iter().for_each(join);
    let late = loaded.clone();
    threads.each(move |_| assert_eq!(late.1.get().unwrap().get(), INITIAL, "in a younger thread"));
    let built = Arc::new(built);
    threads.each(move |_| assert_eq!(built.open().get(), INITIAL, "loaded by the thread itself"));
}

pub(crate) fn dlopen_churn(threads: Threads) {
    let built = match Built::new("tls.c", &[INITIAL_EXEC]) {
        Ok(built) => Arc::new(built),
        Err(why) => return skip("dlopen_churn", &why),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let handles: Vec<_> = (0..THREADS)
        .map(|_| {
            let (built, stop) = (built.clone(), stop.clone());
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(built.open().get(), INITIAL);
                }
            })
        })
        .collect();
    for _ in 0..200 {
        assert_eq!(built.open().get(), INITIAL);
        let inside = built.clone();
        join(threads.spawn(move || assert_eq!(inside.open().get(), INITIAL)));
    }
    stop.store(true, Ordering::Relaxed);
    handles.into_iter().for_each(join);
}
