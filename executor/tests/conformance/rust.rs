//! What Rust's standard library offers to a thread.

use crate::support::{THREADS, Threads, gettid, join};
use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::panic::catch_unwind;
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, OnceLock, RwLock, mpsc};
use std::time::{Duration, Instant};

pub(crate) fn println_and_format(threads: Threads) {
    threads.each(|i| {
        for k in 0..200 {
            let text = format!("{:?}-{:>8.3}", [k; 3], f64::from(k));
            assert!(text.ends_with(".000"));
            println!("{k} from {i}: {text}");
        }
        eprintln!("done");
    });
}

pub(crate) fn panic_with_backtrace(threads: Threads) {
    threads.each(|i| {
        for k in 0..5 {
            let caught = catch_unwind(|| {
                let _dropped = String::from("on the way");
                panic!("boom {i} {k}");
            });
            let payload = caught.expect_err("it panics");
            let message = payload
                .downcast_ref::<String>()
                .expect("a formatted message");
            assert_eq!(message, &format!("boom {i} {k}"));
        }
        let backtrace = Backtrace::force_capture().to_string();
        assert!(backtrace.contains("panic_with_backtrace"), "{backtrace}");
        // It ends where the thread begins, rather than run through the stack.
        assert!((5..150).contains(&backtrace.lines().count()), "{backtrace}");
    });
}

pub(crate) fn park_and_unpark(threads: Threads) {
    threads.each(|_| {
        let me = std::thread::current();
        assert_eq!(me.id(), std::thread::current().id());
        let waker = std::thread::spawn(move || me.unpark());
        std::thread::park();
        waker.join().unwrap();
        std::thread::park_timeout(Duration::from_millis(1));
        std::thread::yield_now();
    });
    let ids: Arc<Mutex<Vec<_>>> = Arc::default();
    let seen = ids.clone();
    threads.each(move |_| seen.lock().unwrap().push(std::thread::current().id()));
    let ids = ids.lock().unwrap();
    for (i, id) in ids.iter().enumerate() {
        assert!(!ids[..i].contains(id), "a ThreadId was given twice");
    }
}

pub(crate) fn sleep(threads: Threads) {
    threads.each(|_| {
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(20));
    });
}

pub(crate) fn spawn_and_scope(threads: Threads) {
    threads.each(|_| {
        let named = std::thread::Builder::new()
            .name("child".into())
            .spawn(|| std::thread::current().name().map(str::len));
        assert_eq!(named.unwrap().join().unwrap(), Some(5));
        let mut numbers = [1, 2, 3, 4];
        let sum = std::thread::scope(|scope| {
            let (front, back) = numbers.split_at_mut(2);
            scope.spawn(|| front[0] = 10);
            scope.spawn(|| back[0] = 30);
            scope.spawn(|| 5).join().unwrap()
        });
        assert_eq!((sum, numbers), (5, [10, 2, 30, 4]));
    });
}

pub(crate) fn std_sync(threads: Threads) {
    static ONCE: OnceLock<u64> = OnceLock::new();
    static LAZY: LazyLock<Vec<u8>> = LazyLock::new(|| vec![1; 10]);
    const ROUNDS: u64 = 5000;
    let shared = Arc::new((
        Mutex::new(0),
        Condvar::new(),
        RwLock::new(0),
        Barrier::new(THREADS),
    ));
    let inside = shared.clone();
    threads.each(move |_| {
        let (mutex, condvar, rwlock, barrier) = &*inside;
        barrier.wait();
        for k in 0..ROUNDS {
            *mutex.lock().unwrap() += 1;
            if k % 10 == 0 {
                *rwlock.write().unwrap() += 1;
            } else {
                assert!(*rwlock.read().unwrap() <= ROUNDS);
            }
        }
        assert_eq!((*ONCE.get_or_init(|| 9), LAZY.len()), (9, 10));
        condvar.notify_all();
        let all = condvar.wait_while(mutex.lock().unwrap(), |sum| *sum < THREADS as u64 * ROUNDS);
        assert_eq!(*all.unwrap(), THREADS as u64 * ROUNDS);
        condvar.notify_all();
    });
    assert_eq!(*shared.2.read().unwrap(), THREADS as u64 * ROUNDS / 10);

    let (sender, receiver) = mpsc::sync_channel(2);
    let sum = std::thread::spawn(move || receiver.iter().sum::<u64>());
    let sender = Mutex::new(Some(sender));
    let handles: Vec<_> = (0..THREADS)
        .map(|_| {
            let sender = sender.lock().unwrap().clone().unwrap();
            threads.spawn(move || (0..1000).for_each(|k| sender.send(k).unwrap()))
        })
        .collect();
    drop(sender.lock().unwrap().take());
    handles.into_iter().for_each(join);
    assert_eq!(sum.join().unwrap(), THREADS as u64 * 499_500);
}

pub(crate) fn files_and_environment(threads: Threads) {
    threads.each(|i| {
        let path = std::env::temp_dir().join(format!("gort-{}-{i}", std::process::id()));
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello");
        std::fs::remove_file(&path).unwrap();
        let task = format!("/proc/self/task/{}", gettid());
        assert!(
            std::fs::exists(task).unwrap(),
            "the thread is not in /proc/self/task"
        );
        assert!(std::env::var_os("PATH").is_some());
        assert!(std::env::args().count() > 0);
        assert!(std::env::current_dir().is_ok());
        assert!(std::thread::available_parallelism().is_ok());
    });
}

pub(crate) fn sockets_and_resolver(threads: Threads) {
    threads.each(|_| {
        let found: Vec<SocketAddr> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert!(found.iter().all(|address| address.ip().is_loopback()) && !found.is_empty());
        // The failing way too. An address literal that is none fails without a query.
        assert!(("256.256.256.256.", 1).to_socket_addrs().is_err());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            TcpStream::connect(address)
                .unwrap()
                .write_all(b"ping")
                .unwrap();
        });
        let mut text = String::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        client.join().unwrap();
        assert_eq!(text, "ping");
    });
}

pub(crate) fn hash_map_and_getrandom(threads: Threads) {
    threads.each(|_| {
        let map: HashMap<i32, i32> = (0..10).map(|i| (i, i)).collect();
        assert_eq!(map.len(), 10);
        let mut bytes = [0_u8; 32];
        // SAFETY: writes 32 bytes into an array of 32.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), 32, 0) };
        assert!(got == 32 && bytes != [0; 32]);
    });
}
