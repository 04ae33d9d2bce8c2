//! See the module of the same name in `gort_benches::workloads`.

mod common;

fn main() {
    common::bench("channels");
}
