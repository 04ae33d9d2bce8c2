//! `#[gort::main]` and `#[gort::test]` at work. Their messages are tested in gort-macros.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::thread;

fn one() -> io::Result<u8> {
    Ok(1)
}

fn fails() -> io::Result<u8> {
    Err(io::Error::other("no"))
}

/// The thread on which a spawned task runs.
async fn thread_of_a_task() -> thread::ThreadId {
    gort::spawn(async { thread::current().id() }).await.unwrap()
}

mod runs {
    use super::*;

    #[gort::test]
    async fn test_is_single_threaded_by_default() {
        assert_eq!(thread_of_a_task().await, thread::current().id());
    }

    #[gort::test(flavor = "multi_thread", worker_threads = 2)]
    async fn test_with_workers() {
        assert_ne!(thread_of_a_task().await, thread::current().id());
    }

    #[gort::test]
    #[should_panic(expected = "on purpose")]
    async fn should_panic_is_kept() {
        panic!("on purpose");
    }

    #[gort::test]
    #[ignore = "shows that the attribute is kept: run, it would fail"]
    async fn ignore_is_kept() {
        panic!("this test is ignored");
    }

    #[gort::test]
    async fn result() -> Result<(), Box<dyn Error>> {
        one()?;
        gort::spawn(async {}).await?;
        Ok(())
    }

    #[gort::main]
    async fn multi_thread_by_default() -> bool {
        thread_of_a_task().await != thread::current().id()
    }

    #[gort::main(flavor = "current_thread")]
    async fn current_thread() -> bool {
        thread_of_a_task().await == thread::current().id()
    }

    #[test]
    fn main_takes_the_flavor() {
        assert!(multi_thread_by_default());
        assert!(current_thread());
    }
}

mod renamed {
    use gort as tokio;

    #[tokio::main(crate = "tokio", worker_threads = 1)]
    async fn by_argument() -> u8 {
        tokio::spawn(async { 1 }).await.unwrap()
    }

    mod elsewhere {
        pub(super) use ::gort as other;
    }

    #[elsewhere::other::main(crate = "self::elsewhere::other")]
    async fn by_path() -> u8 {
        2
    }

    #[test]
    fn crate_argument() {
        assert_eq!((by_argument(), by_path()), (1, 2));
    }
}

/// Functions of every shape that an attribute may meet. That they compile is most of the test.
mod shapes {
    use super::*;

    struct Holder(u8);

    impl Holder {
        #[gort::main]
        async fn by_reference(&self) -> u8 {
            self.0
        }

        #[gort::main(flavor = "current_thread")]
        async fn by_mutable_reference(&mut self) -> &mut u8 {
            self.0 += 1;
            &mut self.0
        }

        #[gort::main(flavor = "current_thread")]
        async fn by_value(self) -> Self {
            self
        }
    }

    #[gort::main(flavor = "current_thread")]
    async fn generic<T: Display, const N: usize>(
        value: T,
        text: &str,
    ) -> Result<String, Box<dyn Error>> {
        let read = one()?;
        if N == 0 {
            // Coerced, as in a plain function.
            return Err("zero".into());
        }
        Ok(format!("{value}{text}{read}{N}"))
    }

    #[gort::main(flavor = "current_thread")]
    async fn coerced(first: bool) -> Box<dyn Display> {
        if first {
            return Box::new(1);
        }
        Box::new("second")
    }

    #[gort::main(flavor = "current_thread")]
    async fn hidden() -> Result<impl Display, io::Error> {
        one()
    }

    #[gort::main(flavor = "current_thread")]
    async fn question() -> Option<u8> {
        Some(fails().ok()? + 1)
    }

    #[gort::main(flavor = "current_thread")]
    async fn inferred() -> Vec<String> {
        let list = Default::default();
        if fails().is_ok() {
            return list;
        }
        list
    }

    #[gort::main(flavor = "current_thread")]
    async fn patterns(mut sum: u8, (a, b): (u8, u8)) -> u8 {
        sum += a;
        sum + b
    }

    #[gort::main(flavor = "current_thread")]
    async fn inner_attribute() -> u8 {
        #![allow(unused_variables)]
        let unused = 1;
        return 3;
    }

    #[allow(dead_code, reason = "never returns, so it is compiled only")]
    #[gort::main]
    async fn never() -> ! {
        loop {
            gort::task::yield_now().await;
        }
    }

    #[allow(dead_code, reason = "never returns, so it is compiled only")]
    #[gort::main]
    async fn forever() -> Result<(), Box<dyn Error>> {
        loop {
            gort::task::yield_now().await;
            one()?;
        }
    }

    #[test]
    fn all() {
        assert_eq!(Holder(3).by_reference(), 3);
        assert_eq!(*Holder(3).by_mutable_reference(), 4);
        assert_eq!(Holder(3).by_value().0, 3);
        assert_eq!(generic::<_, 3>(1, "a").unwrap(), "1a13");
        assert_eq!(generic::<_, 0>(1, "a").unwrap_err().to_string(), "zero");
        assert_eq!(format!("{}{}", coerced(true), coerced(false)), "1second");
        assert_eq!(hidden().unwrap().to_string(), "1");
        assert_eq!(question(), None);
        assert!(inferred().is_empty());
        assert_eq!(patterns(1, (2, 3)), 6);
        assert_eq!(inner_attribute(), 3);
    }
}
