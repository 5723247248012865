//! What was spent stays spent when the power fails.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use tidegate_tests::{
    limited::{self, call},
    process::Process,
    scenario::Runtime,
    stage::Stage,
};

#[test]
fn native_forgets_nothing_when_it_is_killed() {
    spend_kill_spend(Runtime::Native);
}

#[test]
fn workerd_forgets_nothing_when_it_is_killed() {
    spend_kill_spend(Runtime::Workerd);
}

#[test]
fn spin_forgets_nothing_when_it_is_killed() {
    spend_kill_spend(Runtime::Spin);
}

fn spend_kill_spend(runtime: Runtime) {
    if !Runtime::asked_for().unwrap().contains(&runtime) {
        eprintln!("TIDEGATE_RUNTIMES does not ask for {runtime}");
        return;
    }
    let mut gateway = limited::start(runtime, 10, "", []);
    assert_eq!(granted(&gateway, 3), 3);
    gateway.kill_and_restart().unwrap();
    assert_eq!(granted(&gateway, 2), 2, "after one restart");
    gateway.kill_and_restart().unwrap();
    assert_eq!(
        granted(&gateway, 20),
        5,
        "exactly what is left after two restarts"
    );
    gateway.kill_and_restart().unwrap();
    assert_eq!(granted(&gateway, 5), 0, "nothing is left");
}

/// How many of `count` calls at once are let in.
fn granted(gateway: &Process, count: usize) -> usize {
    let statuses: Vec<_> = gateway
        .calls(&call(), count)
        .iter()
        .map(|reply| reply.status())
        .collect();
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 429)),
        "{statuses:?}\n{}",
        gateway.overheard()
    );
    statuses.iter().filter(|status| **status == 200).count()
}
