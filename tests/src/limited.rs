//! A gateway whose requests are limited, before an upstream that always answers: for tests that count who passes.

use std::collections::BTreeMap;

use crate::{
    process::Process,
    scenario::{Answer, Call, Runtime},
    stage::Stage,
    upstream::Cut,
};

/// A gateway that lets `requests` pass in an hour, with `settings` as it is told them and `secrets` beside the caller's key.
pub fn start(
    runtime: Runtime,
    requests: u32,
    settings: &str,
    secrets: impl IntoIterator<Item = (String, String)>,
) -> Process {
    let mut secrets = BTreeMap::from_iter(secrets);
    secrets.insert(KEY.into(), "sk-web-7d1f".into());
    let config = CONFIG
        .replace("# settings", settings)
        .replace("REQUESTS", &requests.to_string());
    let gateway = Process::start(runtime, &config, &secrets).unwrap();
    let answer = Answer {
        body: Some(r#"{"object":"chat.completion","choices":[{}]}"#.into()),
        times: Some(400),
        spare: true,
        ..Answer::default()
    };
    let answers = BTreeMap::from([("a".into(), vec![answer])]);
    gateway.script().load(&answers, Cut::AsWritten);
    gateway
}

/// A request that falls under the limit.
pub fn call() -> Call {
    Call {
        path: "/v1/chat/completions".into(),
        key: Some(KEY.into()),
        body: Some(r#"{"model":"smart","messages":[]}"#.into()),
        ..Call::default()
    }
}

/// The secret that is the caller's key.
const KEY: &str = "WEB_KEY";

const CONFIG: &str = r#"
[gateway]
# settings

[[consumers]]
name = "web"
keys = ["$WEB_KEY"]
limits = [{ requests = REQUESTS, per = "1h" }]

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
