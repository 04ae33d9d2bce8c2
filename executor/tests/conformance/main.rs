//! Both thread back ends against everything that a thread of a C and Rust program may be asked to do.
//!
//! Each item runs in a process of its own (this binary, started again), once with threads by raw
//! clone and once with `std::thread`: an item may change the user id, overflow a stack or exit. A
//! failure shows what the child printed. What cannot be checked on the machine at hand (no root, no
//! compiler, no debugger) is skipped, and the reason is printed.

mod attributes;
mod dynamic;
mod handle;
mod identity;
mod libc_state;
mod memory;
mod process;
mod pthreads;
mod rust;
mod signals;
mod soak;
mod support;
mod sync;
mod tools;

/// A test per item and back end: `raw_clone::memory::malloc`, `std_thread::memory::malloc`, …
macro_rules! items {
    ($($module:ident { $($item:ident $(=> $ending:expr)?,)* })*) => {
        mod raw_clone {
            $(mod $module {
                $(#[test]
                fn $item() {
                    let ending = [$($ending,)? $crate::support::Ending::Success][0];
                    let name = concat!("raw_clone::", stringify!($module), "::", stringify!($item));
                    $crate::support::run(name, ending, $crate::$module::$item);
                })*
            })*
        }
        mod std_thread {
            $(mod $module {
                $(#[test]
                fn $item() {
                    let ending = [$($ending,)? $crate::support::Ending::Success][0];
                    let name = concat!("std_thread::", stringify!($module), "::", stringify!($item));
                    $crate::support::run(name, ending, $crate::$module::$item);
                })*
            })*
        }
    };
}

items! {
    memory {
        malloc,
        free_on_another_thread,
        thread_local_drop,
        thread_locals_are_fresh,
        thousand_threads,
        no_growth_over_4000_threads,
        odd_stack_sizes,
    }
    rust {
        println_and_format,
        panic_with_backtrace,
        park_and_unpark,
        sleep,
        spawn_and_scope,
        std_sync,
        files_and_environment,
        sockets_and_resolver,
        hash_map_and_getrandom,
    }
    sync {
        mutex_kinds,
        mutex_priority_inheritance,
        mutex_robust,
        rwlock,
    }
    libc_state {
        errno,
        locale_and_ctype,
        stdio_locks,
        users_and_iconv,
        multi_threaded_mode,
    }
    pthreads {
        keys_and_destructors,
        create_and_join,
        tryjoin_and_timedjoin,
    }
    attributes {
        stack_of_getattr_np,
        comm,
        set_name_affinity_sched,
        cpu_and_rseq,
    }
    signals {
        mask_is_inherited,
        handlers_run_on_the_signal_stack,
        timer_that_starts_threads,
    }
    identity {
        setuid_elsewhere,
        setuid_in_a_thread,
        setuid_churn,
    }
    dynamic {
        tls_general_dynamic,
        tls_initial_exec,
        dlopen_churn,
    }
    process {
        commands,
        fork_in_a_thread,
        fork_and_start_again,
        fork_beside_running_threads,
        handles_after_fork,
        exit_while_running => crate::support::Ending::Code(7),
        main_returns,
        overflow => crate::support::Ending::Abort("thread 'deep"),
        overflow_in_a_destructor => crate::support::Ending::Abort("thread 'deep"),
        fault_goes_to_the_default => crate::support::Ending::Signal(libc::SIGSEGV),
        fault_goes_to_the_handler_before => crate::support::Ending::Code(7),
        sent_signal_kills => crate::support::Ending::Signal(libc::SIGSEGV),
    }
    handle {
        tid_and_is_finished,
        panic_is_the_result,
        dropped_handles_are_reaped,
        join_itself,
        bad_name,
        refused_by_nproc,
        refused_by_address_space,
        environment_overrides_auto,
        first_spawn_is_raced,
        wrapped_pthread_create,
    }
    tools {
        gdb_shows_every_thread,
        valgrind_finds_nothing,
    }
    soak {
        churn,
    }
}
