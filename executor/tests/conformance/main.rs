//! Both thread back ends against everything a thread may be asked to do.

use gort::__conformance::{ThreadBackend, selected, spawn};
#[test]
fn smoke() {
    println!("{:?}", selected(ThreadBackend::Auto));
    for i in 0..10 {
        let h = spawn("smoke", 1 << 20, ThreadBackend::RawClone, move || {
            println!("hello {i}")
        })
        .unwrap();
        println!("tid {}", h.tid());
        h.join().unwrap();
    }
}
