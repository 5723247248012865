//! What was spent stays spent when the power fails.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;

use tidegate_tests::{
    process::Process,
    scenario::{Answer, Call, Runtime},
    stage::Stage,
    upstream::Cut,
};

const CONFIG: &str = r#"
[[consumers]]
name = "web"
keys = ["$WEB_KEY"]
limits = [{ requests = 10, per = "1h" }]

[providers.alpha]
dialect = "openai"
base_url = "{a}/v1"

[models.smart]
targets = ["alpha/gpt-a"]

[[routes]]
name = "llm"
path = "/v1"
serve = "models"
"#;

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
    let secrets = BTreeMap::from([("WEB_KEY".to_owned(), "sk-web-7d1f".to_owned())]);
    let mut gateway = Process::start(runtime, CONFIG, &secrets).unwrap();
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
    let body = r#"{"object":"chat.completion","choices":[]}"#.to_owned();
    let answer = Answer {
        body: Some(body),
        times: Some(count),
        spare: true,
        ..Answer::default()
    };
    gateway.script().load(
        &BTreeMap::from([("a".to_owned(), vec![answer])]),
        Cut::AsWritten,
    );
    let call = Call {
        path: "/v1/chat/completions".into(),
        key: Some("WEB_KEY".into()),
        body: Some(r#"{"model":"smart","messages":[]}"#.into()),
        ..Call::default()
    };
    let statuses: Vec<_> = gateway
        .calls(&call, count)
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
