//! A Dify that is asked for twice of what it can do, in real time: what comes out of it with Tidegate before it and without, and how
//! long the console takes meanwhile. `cargo xtask bench overload` measures the same at length.

// A test tells what went wrong by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fakes;

use std::{collections::BTreeMap, net::SocketAddr, thread, time::Duration};

use tidegate_tests::{
    flood::{Flood, Outcome, play},
    process::Process,
    scenario::Runtime,
};

/// Four cores, 0.4 s of one for each run, and a model of two seconds.
const MACHINE: &str = "/dify/cores-4-2s";
const CAPACITY: f64 = 10.0;

/// Callers who come so much too late would come in time on a machine that has room for this test.
const LATE: Duration = Duration::from_millis(20);

const KEY: &str = "app-chat-overload";

#[test]
fn most_of_what_dify_can_do_comes_out_of_it_and_the_console_stays_quick() {
    if !Runtime::asked_for().unwrap().contains(&Runtime::Native) {
        eprintln!("TIDEGATE_RUNTIMES does not ask for native");
        return;
    }
    let (mut without, mut with) = side_by_side();
    for _ in 0..2 {
        if with.late.percent(95) < LATE {
            break;
        }
        eprintln!("this machine has too much to do: once more");
        (without, with) = side_by_side();
    }
    let console = with.console.percent(99);
    println!(
        "{:.2} a second without, {:.2} with; the console: {console:?}",
        without.useful, with.useful
    );
    assert_eq!(with.odd, 0, "{}", with.oddity);
    assert_eq!(with.console_failed, 0);
    assert!(with.useful >= 0.8 * CAPACITY, "{:.2} a second", with.useful);
    assert!(without.useful <= 0.5 * with.useful, "{:.2}", without.useful);
    assert!(console < Duration::from_secs(1), "{console:?}");
}

/// What comes of a Dify that stands alone, and of one that has a gateway before it.
fn side_by_side() -> (Outcome, Outcome) {
    let (bare, behind) = (fakes::start(), fakes::start());
    let secrets = BTreeMap::from([("APP_KEY".to_owned(), KEY.to_owned())]);
    let config = CONFIG.replace("DIFY", &format!("http://{behind}{MACHINE}"));
    let gateway = Process::start(Runtime::Native, &config, &secrets).unwrap();
    thread::scope(|scope| {
        let without = scope.spawn(|| flood(bare, MACHINE, MACHINE));
        let with = scope.spawn(|| flood(gateway.address(), "/agents", ""));
        (without.join().unwrap(), with.join().unwrap())
    })
}

fn flood(address: SocketAddr, runs: &str, console: &str) -> Outcome {
    play(&Flood {
        address,
        runs: runs.into(),
        console: console.into(),
        key: KEY.into(),
        rate: 2.0 * CAPACITY,
        warm: Duration::from_secs(10),
        counted: Duration::from_secs(12),
    })
}

const CONFIG: &str = r#"
[dify.main]
api = "DIFY"
overload = "auto"

[dify.main.apps.support]
key = "$APP_KEY"

[[routes]]
name = "support"
path = "/agents"
serve = "dify.main/support"
access = "public"

[[routes]]
name = "dify"
path = "/"
serve = "dify.main"
access = "public"
"#;
