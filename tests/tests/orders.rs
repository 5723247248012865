//! What an operator orders is felt by every thread within ten seconds, though each remembers by itself that it was refused.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{thread, time::Duration};

use tidegate_tests::{
    limited::{self, call},
    process::Process,
    scenario::{Call, Runtime},
    stage::Stage,
};

/// For how long a refusal is remembered, and a little more.
const REMEMBERED: Duration = Duration::from_millis(10_200);

#[test]
fn every_thread_feels_what_is_ordered() {
    if !Runtime::asked_for().unwrap().contains(&Runtime::Native) {
        eprintln!("TIDEGATE_RUNTIMES does not ask for native");
        return;
    }
    let secrets = [("ADMIN_KEY".into(), "adm-5511".into())];
    let settings = "admin_key = \"$ADMIN_KEY\"";
    let gateway = limited::start(Runtime::Native, 3, settings, secrets);
    assert_eq!(granted(&gateway, 40), 3);
    assert_eq!(granted(&gateway, 40), 0, "every thread has been refused");
    for (order, left) in [("\"reset\":true", 3), ("\"raise\":5,\"for\":\"1h\"", 5)] {
        let call = Call {
            path: "/_tidegate/limits".into(),
            key: Some("ADMIN_KEY".into()),
            body: Some(format!(
                "{{\"account\":\"consumer web requests 3600000\",{order}}}"
            )),
            ..Call::default()
        };
        let replies = gateway.calls(&call, 1);
        assert_eq!(replies[0].status(), 200, "{order}: {replies:?}");
        let said = String::from_utf8_lossy(&replies[0].content.bytes).into_owned();
        assert!(said.contains(&format!("\"left\":{left}")), "{said}");
        thread::sleep(REMEMBERED);
        // Whichever thread it comes to, the first call is let in, and so is every other that there is room for.
        for call in 1..=left {
            assert_eq!(granted(&gateway, 1), 1, "{order}: call {call}");
        }
        assert_eq!(granted(&gateway, 40), 0, "{order}");
    }
}

/// How many of `count` calls at once are let in.
fn granted(gateway: &Process, count: usize) -> usize {
    let replies = gateway.calls(&call(), count);
    let statuses = || replies.iter().map(|reply| reply.status());
    assert!(
        statuses().all(|status| matches!(status, 200 | 429)),
        "{}",
        gateway.overheard()
    );
    statuses().filter(|status| *status == 200).count()
}
