//! Documents and what is said of them, as JSON: positions are the native adapter's to test.

use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::{
    dispatch::Reason,
    route::Service,
    timeouts::Timeouts,
    upstream::{Complaint, Form},
};

/// A document that uses everything there is.
const FULL: &str = r#"{
    "gateway": {"listen": "127.0.0.1:8080", "max_body": "10MB", "store": "embedded", "data_dir": "d",
        "on_ledger_failure": "allow", "limits": [{"requests": 500, "per": "1m"}]},
    "consumers": [
        {"name": "web", "keys": ["$WEB_KEY"], "limits": [{"requests": 60, "per": "1m"}, {"requests": 900, "per": "1h"}]},
        {"name": "job", "keys": ["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}],
    "providers": {"openai": {"dialect": "openai", "base_url": "https://api.openai.com/v1", "keys": ["$OPENAI"], "prefill": false},
        "local": {"dialect": "openai", "base_url": "http://127.0.0.1:1/v1"}},
    "models": {"smart": {"targets": ["openai/gpt-4.1", {"target": "local/qwen/3"}], "strategy": "fallback", "rescue": "off",
        "retry": {"attempts": 2, "on": ["connect", "429"]}}},
    "dify": {"main": {"api": "http://api:5001", "web": "http://web:3000", "plugin_daemon": "http://plugin:5002",
        "apps": {"support": {"key": "$APP", "limits": [{"requests": 1, "per": "1s"}]}}}},
    "routes": [
        {"name": "llm", "path": "/v1", "host": "*.Example.com", "method": ["GET", "POST"], "serve": "models"},
        {"name": "support", "path": "/agents/", "headers": {"app-id": "support"}, "method": "POST", "serve": "dify.main/support"},
        {"name": "dify", "path": "/", "serve": "dify.main", "access": "public", "limits": [{"requests": 1, "per": "30d"}]}]
}"#;

fn build(json: &str) -> Result<Config, Vec<String>> {
    let document = serde_json::from_str(json).unwrap();
    let secrets =
        ["WEB_KEY", "OPENAI", "APP"].map(|name| (name.to_owned(), format!("value-of-{name}")));
    Config::build(&document, Some(&secrets), Runtime::Native)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn every_name_that_is_built_is_read() {
    let config = build(FULL).unwrap();
    assert_eq!(config.max_body.get(), 10_000_000);
    assert_eq!(config.on_ledger_failure, OnLedgerFailure::Allow);
    assert_eq!(config.limits.len(), 1);
    assert_eq!(config.routes.len(), 3);
    assert_eq!(config.routes[1].matches.path, "/agents");
    assert_eq!(config.routes[2].matches.path, "");
    let model = config.models.get("smart").unwrap();
    assert_eq!(
        model
            .targets
            .iter()
            .map(|target| &*target.model)
            .collect::<Vec<_>>(),
        ["gpt-4.1", "qwen/3"]
    );
    assert_eq!(
        (model.retry.attempts.get(), &*model.retry.on),
        (
            2,
            &[
                Reason::Connect,
                Reason::Status(StatusCode::TOO_MANY_REQUESTS)
            ][..]
        )
    );
    let key = &model.targets[0].origin.keys[0].authorization;
    assert_eq!(
        (key.to_str().unwrap(), key.is_sensitive()),
        ("Bearer value-of-OPENAI", true)
    );
    assert_eq!(config.default_provider.unwrap().name.as_ref(), "openai");
}

#[test]
fn secrets_are_listed_and_need_not_be_there_for_a_check() {
    let document = serde_json::from_str(FULL).unwrap();
    assert_eq!(Config::secrets(&document), ["APP", "OPENAI", "WEB_KEY"]);
    assert!(Config::build(&document, None, Runtime::Spin).is_ok());
    let problems = Config::build(&document, Some(&[]), Runtime::Native).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].message.contains("is not set"));
}

#[test]
fn each_problem_is_named() {
    let table = [
        (
            r#"{"gatway": {}}"#,
            "gatway: unknown key; did you mean `gateway`?",
        ),
        (
            r#"{"gateway": {"max_body": "10 parsecs"}}"#,
            "gateway.max_body: expected a size such as",
        ),
        (
            r#"{"gateway": {"max_body": 0}}"#,
            "gateway.max_body: expected a whole number of one or more, found 0",
        ),
        (
            r#"{"gateway": {"store": "$WEB_KEY"}}"#,
            "gateway.store: expected `embedded` or a URL such as `redis://127.0.0.1:6379`",
        ),
        (
            r#"{"gateway": {"store": "$NOT_SET"}}"#,
            "gateway.store: the secret `NOT_SET` is not set",
        ),
        (
            r#"{"gateway": {"store": "sqlite"}}"#,
            "gateway.store: expected `embedded` or a URL",
        ),
        (
            r#"{"gateway": {"admin_key": "hunter2"}}"#,
            "gateway.admin_key: expected a reference to a secret",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": 0, "per": "1m"}]}}"#,
            "gateway.limits[0].tokens: expected a whole number of one or more, found 0",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": 1, "per": "1m", "strict": "no"}]}}"#,
            "gateway.limits[0].strict: expected true or false, found a text",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1, "per": "1m", "strict": false}]}}"#,
            "gateway.limits[0].strict: unknown key",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1, "concurrent": 1, "per": "1m"}]}}"#,
            "gateway.limits[0]: a limit is on `requests`, `tokens` or `concurrent`: write one for each",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1, "per": "1m", "by": "colour"}]}}"#,
            "gateway.limits[0].by: expected `consumer`, `ip`, `user` or `header:<name>`, found `colour`",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1, "per": "1m", "by": "header:a b"}]}}"#,
            "gateway.limits[0].by: expected the name of a header",
        ),
        (
            r#"{"gateway": {"limits": [{"concurrent": 1, "per": "1m"}]}}"#,
            "gateway.limits[0].per: unknown key",
        ),
        (
            r#"{"gateway": {"limits": [{"concurrent": 0}]}}"#,
            "gateway.limits[0].concurrent: expected a whole number of one or more, found 0",
        ),
        (
            r#"{"gateway": {"limits": [{"concurrent": 1, "queue": 129}]}}"#,
            "gateway.limits[0].queue: expected a queue for at most 128",
        ),
        (
            r#"{"gateway": {"limits": [{"concurrent": 1, "queue": 9, "wait": "1h"}]}}"#,
            "gateway.limits[0].wait: expected to wait for at most 10m",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1, "per": "1m", "queue": 9}]}}"#,
            "gateway.limits[0].queue: unknown key",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 9223372036854775807, "per": "1m"}]}}"#,
            "gateway.limits[0].requests: expected at most 9007199254740992",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": 9223372036854775807, "per": "1m"}]}}"#,
            "gateway.limits[0].tokens: expected at most 9007199254740992",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": "1000", "per": "1m"}]}}"#,
            "gateway.limits[0].tokens: expected a whole number",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": 1}]}}"#,
            "gateway.limits[0]: `per` is missing",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": 1, "per": "1m", "strct": true}]}}"#,
            "did you mean `strict`?",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": 1, "per": "1m", "queue": 3}]}}"#,
            "gateway.limits[0].queue: unknown",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": 1, "per": "1m"}, {"tokens": 2, "per": "60s", "strict": false}]}}"#,
            "gateway.limits[1]: another limit here counts the same in the same window",
        ),
        (
            r#"{"gateway": {"limits": [{"tokens": 1, "per": "1m", "by": "users"}]}}"#,
            "gateway.limits[0].by: expected `consumer`, `ip`, `user` or `header:<name>`, found `users`",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1}]}}"#,
            "gateway.limits[0]: `per` is missing",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": -1, "per": "1m"}]}}"#,
            "gateway.limits[0].requests: expected a whole number",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1.5, "per": "1m"}]}}"#,
            "gateway.limits[0].requests: expected a whole number",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1, "per": "31d"}]}}"#,
            "gateway.limits[0].per: expected a window between",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1, "per": "999ms"}]}}"#,
            "gateway.limits[0].per: expected a window between",
        ),
        (
            r#"{"gateway": {"limits": [{"requests": 1, "per": "60s"}, {"requests": 2, "per": "1m"}]}}"#,
            "gateway.limits[1]: another limit here counts the same in the same window",
        ),
        (
            r#"{"consumers": [{"keys": ["$WEB_KEY"]}]}"#,
            "consumers[0]: `name` is missing",
        ),
        (
            r#"{"consumers": [{"name": "a", "keys": ["sk-real"]}]}"#,
            "consumers[0].keys[0]: expected a reference to a secret",
        ),
        (
            r#"{"consumers": [{"name": "a", "keys": ["sha256:12"]}]}"#,
            "consumers[0].keys[0]: expected 64 hexadecimal digits",
        ),
        (
            r#"{"consumers": [{"name": "a", "keys": ["$APP"]}, {"name": "b", "keys": ["$APP"]}]}"#,
            "consumers[1].keys[0]: this key is another consumer's already",
        ),
        (
            r#"{"consumers": [{"name": "a", "keys": []}, {"name": "a", "keys": []}]}"#,
            "consumers[1].name: another consumer is named `a` already",
        ),
        (
            r#"{"providers": {"p": {"dialect": "anthropic", "base_url": "http://h"}}}"#,
            "providers.p.dialect: `dialect = \"anthropic\"` is not available yet",
        ),
        (
            r#"{"providers": {"p": {"dialect": "opnai", "base_url": "http://h"}}}"#,
            "providers.p.dialect: expected one of `openai`",
        ),
        (
            r#"{"providers": {"p": {"dialect": "openai"}}}"#,
            "providers.p: `base_url` is missing",
        ),
        (
            r#"{"providers": {"p": {"dialect": "openai", "base_url": "ftp://user:pass@h"}}}"#,
            "providers.p.base_url: expected an address such as",
        ),
        (
            r#"{"models": {"m": {"targets": ["opnai/x"]}}, "providers": {"openai": {"dialect": "openai", "base_url": "http://h"}}}"#,
            "models.m.targets[0]: no provider is named `opnai`; did you mean `openai`?",
        ),
        (
            r#"{"models": {"m": {"targets": []}}}"#,
            "models.m.targets: a model needs at least one target",
        ),
        (
            r#"{"models": {"m": {"targets": ["x"]}}}"#,
            "models.m.targets[0]: expected a provider and its model",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "dify.main"}]}"#,
            "routes[0].serve: no dify is named `main`",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "model"}]}"#,
            "did you mean `models`?",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "dify.m/suport"}], "dify": {"m": {"api": "http://h", "apps": {"support": {"key": "$APP"}}}}}"#,
            "routes[0].serve: `dify.m` has no app named `suport`; did you mean `support`?",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "path": "v1"}]}"#,
            "routes[0].path: expected a path such as",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "path": "/a/../b"}]}"#,
            "routes[0].path: expected a path such as",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "path": "/ré"}]}"#,
            "routes[0].path: expected a path as it is sent, with `%C3%A9` for `é`",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "path": "/_tidegate/x"}]}"#,
            "routes[0].path: `/_tidegate` is the gateway's",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "host": "a.example:80"}]}"#,
            "routes[0].host: expected a host",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "cache": {"ttl": "1m"}}]}"#,
            "routes[0].cache: `cache` is not available yet",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "method": "POTS"}]}"#,
            "did you mean `POST`?",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "consumers": ["webb"]}], "consumers": [{"name": "web", "keys": ["$APP"]}]}"#,
            "routes[0].consumers[0]: no consumer is named `webb`; did you mean `web`?",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "consumers": []}]}"#,
            "routes[0].consumers: a route for certain `consumers` needs at least one",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "consumers": ["web"], "access": "public"}], "consumers": [{"name": "web", "keys": ["$APP"]}]}"#,
            "routes[0].access: a route that is for some `consumers` cannot be `public`",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "headers": {"a b": "x"}}]}"#,
            "`a b` cannot be the name",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "overload": "always"}}}"#,
            "dify.m.overload: expected one of `auto`",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "overload": {"start": 3, "least": 5}}}}"#,
            "dify.m.overload: expected `least` to be at most `start`",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "overload": {"most": 10001}}}}"#,
            "dify.m.overload.most: expected at most 10000",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "overload": {"queue": 1001}}}}"#,
            "dify.m.overload.queue: expected at most 1000",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "overload": {"wait": "61s"}}}}"#,
            "dify.m.overload.wait: expected to wait for at most 60s",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "overload": {"over": "430"}}}}"#,
            "dify.m.overload.over: expected one of `429`, `503`",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP", "overload": {"limit": 3}}}}}}"#,
            "dify.m.apps.a.overload.limit: unknown key",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "permits": {"consle": 3}}}}"#,
            "dify.m.permits.consle: unknown key; did you mean `console`?",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "permits": {"files": 0}}}}"#,
            "dify.m.permits.files: expected a whole number of one or more",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "apps": {"a": {}}}}}"#,
            "dify.m.apps.a: `key` is missing",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "apps": {"a": {"keys": []}}}}}"#,
            "dify.m.apps.a.keys: an app needs at least one key",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP", "keys": ["$OPENAI"]}}}}}"#,
            "dify.m.apps.a.keys: an app has either a `key` or `keys`",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "apps": {"a": {"keys": ["$APP", "$APP"]}}}}}"#,
            "dify.m.apps.a.keys[1]: this key stands here twice",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": []}]}"#,
            "routes[0].serve: a route needs at least one app",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": ["dify.m/a", "models"]}], "dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP"}}}}}"#,
            "routes[0].serve[1]: only apps (`dify.NAME/APP`) can step in for each other",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": ["dify.m/a", "dify.m"]}], "dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP"}}}}}"#,
            "routes[0].serve[1]: only apps (`dify.NAME/APP`) can step in for each other",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": ["dify.m/a", ["dify.m/a"]]}], "dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP"}}}}}"#,
            "routes[0].serve[1]: expected a text, found a list",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": ["dify.m/a", "dify.m/a"]}], "dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP"}}}}}"#,
            "routes[0].serve[1]: this app stands here twice",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": ["dify.m/a", "dify.m/b"]}], "dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP"}, "b": {"key": "$APP", "limits": [{"concurrent": 1}]}}}}}"#,
            "routes[0].serve[1]: an app that steps in for another one cannot have `limits`",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": ["dify.m/a"], "balance": "spread"}], "dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP"}}}}}"#,
            "routes[0].balance: `balance` wants several apps in `serve`",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "balance": "order"}]}"#,
            "routes[0].balance: `balance` wants several apps in `serve`",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": ["dify.m/a", "dify.m/b"], "balance": "spraed"}], "dify": {"m": {"api": "http://h", "apps": {"a": {"key": "$APP"}, "b": {"key": "$APP"}}}}}"#,
            "routes[0].balance: expected one of `order`, `spread`, found `spraed`; did you mean `spread`?",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "health": {"path": "/health"}}}}"#,
            "dify.m.health: `every` is missing",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "health": {"every": "500ms"}}}}"#,
            "dify.m.health.every: expected to ask every 1s to 10m",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "health": {"every": "10s", "path": "health"}}}}"#,
            "dify.m.health.path: expected a path such as `/health`, found `health`",
        ),
        (
            r#"{"dify": {"m": {"api": "http://h", "health": {"every": "10s", "app": "suport"}, "apps": {"support": {"key": "$APP"}}}}}"#,
            "dify.m.health.app: no app is named `suport`; did you mean `support`?",
        ),
        (
            r#"{"routes": [{"name": "r", "serve": "models", "priority": "higher"}]}"#,
            "routes[0].priority: expected one of `high`",
        ),
        (
            r#"{"telemetry": {"prompts": false}}"#,
            "telemetry: `telemetry` is not available yet",
        ),
        (
            r#"{"routes": {}}"#,
            "routes: expected a list, found a table",
        ),
        ("{}", "`routes` is missing"),
        (
            r#"{"gateway": {"listen": "nonsense"}}"#,
            "gateway.listen: expected a host and a port",
        ),
        (
            r#"{"consumers": [{"name": "a", "keys": []}]}"#,
            "consumers[0].keys: a consumer needs at least one key",
        ),
        (
            r#"{"providers": {"p": {"dialect": "openai", "base_url": "http://h:70000/v1"}}}"#,
            "providers.p.base_url: expected an address such as",
        ),
        (
            r#"{"providers": {"p": {"dialect": "openai", "base_url": "http://h:0/v1"}}}"#,
            "providers.p.base_url: expected an address such as",
        ),
        (
            r#"{"providers": {"p": {"dialect": "openai", "base_url": "http://h/v1#x"}}}"#,
            "providers.p.base_url: expected an address such as",
        ),
        (r#"[]"#, "expected a table, found a list"),
    ];
    for (document, expected) in table {
        let problems = build(document).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{expected}\n{problems:#?}"
        );
    }
}

#[test]
fn all_problems_come_at_once() {
    let problems = build(
        r#"{"gateway": {"max_bdy": 1}, "providers": {"p": {"dialect": "openai", "base_url": "nowhere"}},
            "models": {"m": {"targets": ["p/x", "q/x"], "strategy": "latency"}}, "routes": [{"name": "r", "serve": "dify"}]}"#,
    )
    .unwrap_err();
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn what_a_runtime_cannot_give_is_refused_for_it_alone() {
    for store in ["redis://127.0.0.1", "rediss://127.0.0.1", "$REDIS_URL"] {
        let document = format!(r#"{{"gateway": {{"store": "{store}"}}, "routes": []}}"#);
        let document = serde_json::from_str(&document).unwrap();
        for (runtime, fine) in [
            (Runtime::Native, true),
            (Runtime::Cloudflare, false),
            (Runtime::Spin, true),
        ] {
            assert_eq!(
                Config::build(&document, None, runtime).is_ok(),
                fine,
                "{store} on {runtime:?}"
            );
        }
    }
}

#[test]
fn how_long_a_connection_may_take_is_no_matter_of_workers() {
    let document = serde_json::from_str(
        r#"{"providers": {"a": {"dialect": "openai", "base_url": "http://a"}}, "routes": [],
            "models": {"m": {"targets": ["a/x"], "timeouts": {"connect": "2s", "idle": "9s"}}}}"#,
    )
    .unwrap();
    for runtime in [Runtime::Native, Runtime::Spin] {
        let config = Config::build(&document, None, runtime).unwrap();
        assert_eq!(
            config.models.get("m").unwrap().timeouts.connect,
            Duration::from_secs(2),
            "{runtime:?}"
        );
    }
    let problems = Config::build(&document, None, Runtime::Cloudflare).unwrap_err();
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("models.m.timeouts.connect: `connect` is not available on Workers"),
        "{told:?}"
    );
}

#[test]
fn a_certificate_is_shown_by_the_binary_alone() {
    let build = |tls: &str, runtime| {
        let document = format!(r#"{{"gateway": {{"tls": {tls}}}, "routes": []}}"#);
        let document = serde_json::from_str(&document).unwrap();
        Config::build(&document, None, runtime).map_err(|problems| {
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            told.join("; ")
        })
    };
    let both = r#"{"certificate": "a.pem", "key": "b.pem"}"#;
    let tls = build(both, Runtime::Native).unwrap().tls.unwrap();
    assert_eq!((&*tls.certificate, &*tls.key), ("a.pem", "b.pem"));
    for runtime in [Runtime::Cloudflare, Runtime::Spin] {
        let problem = build(both, runtime).unwrap_err();
        assert!(
            problem.starts_with("gateway.tls: `tls` is not available on the edge"),
            "{problem}"
        );
    }
    for (tls, expected) in [
        (r#"{"key": "b"}"#, "gateway.tls: `certificate` is missing"),
        (r#"{"certificate": "b"}"#, "gateway.tls: `key` is missing"),
        ("true", "gateway.tls: "),
    ] {
        let problem = build(tls, Runtime::Native).unwrap_err();
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn websockets_are_none_of_spin() {
    let document = serde_json::from_str(
        r#"{"dify": {"main": {"api": "http://a", "websocket": "http://b"}},
            "routes": [{"name": "r", "path": "/", "serve": "dify.main"}]}"#,
    )
    .unwrap();
    for (runtime, switches) in [
        (Runtime::Native, true),
        (Runtime::Cloudflare, true),
        (Runtime::Spin, false),
    ] {
        let built = Config::build(&document, None, runtime);
        assert_eq!(built.is_ok(), switches, "{runtime:?}");
        for problem in built.err().into_iter().flatten() {
            let problem = problem.to_string();
            let start = "dify.main.websocket: WebSocket is not available on Spin";
            assert!(problem.starts_with(start), "{problem}");
        }
    }
}

#[test]
fn nobody_is_asked_how_he_does_where_nothing_runs_between_requests() {
    let document = serde_json::from_str(
        r#"{"dify": {"main": {"api": "http://a", "health": {"every": "10s"}}},
            "routes": [{"name": "r", "path": "/", "serve": "dify.main"}]}"#,
    )
    .unwrap();
    for (runtime, asks) in [
        (Runtime::Native, true),
        (Runtime::Cloudflare, false),
        (Runtime::Spin, false),
    ] {
        let built = Config::build(&document, None, runtime);
        assert_eq!(built.is_ok(), asks, "{runtime:?}");
        for problem in built.err().into_iter().flatten() {
            let problem = problem.to_string();
            let start = "dify.main.health: `health` is not available on the edge";
            assert!(problem.starts_with(start), "{problem}");
        }
    }
}

#[test]
fn apps_that_step_in_for_each_other_are_known_by_name() {
    let config = build(
        r#"{"dify": {"m": {"api": "http://h", "health": {"every": "10s", "app": "b"}, "apps": {"a": {"key": "$APP"}, "b": {"keys": ["$OPENAI", "$APP"]}}}},
            "routes": [{"name": "r", "serve": ["dify.m/a", "dify.m/b"], "balance": "spread"}]}"#,
    )
    .unwrap();
    let Service::App(places) = &config.routes[0].service else {
        panic!("it serves apps");
    };
    assert!(places.spread);
    let names: Vec<&str> = places.all().map(|place| &*place.app.name).collect();
    assert_eq!(names, ["dify.m/a", "dify.m/b"]);
    assert_eq!(places.others[0].app.origin.keys.len(), 2);
    // Who is known by name is remembered when the configuration is replaced by one in which he is.
    let (targets, origins) = config.all_targets();
    for name in ["dify.m/a", "dify.m/b", "dify.m:api"] {
        assert!(targets.iter().any(|known| **known == *name), "{name}");
        assert!(origins.iter().any(|known| **known == *name), "{name}");
    }
    let checks = places.first.installation.checks.as_ref().unwrap();
    assert_eq!(
        (&*checks.path, checks.every.as_secs()),
        ("/v1/parameters", 10)
    );
}

#[test]
fn the_url_of_a_store_may_be_a_secret_and_is_never_printed() {
    let url = "redis://:open-sesame@127.0.0.1";
    let secrets = [("REDIS_URL".to_owned(), url.to_owned())];
    let document =
        serde_json::from_str(r#"{"gateway": {"store": "$REDIS_URL"}, "routes": []}"#).unwrap();
    let config = Config::build(&document, Some(&secrets), Runtime::Native).unwrap();
    assert_eq!(config.store, Store::Redis(url.into()));
    assert!(!format!("{:?}", config.store).contains("sesame"));
    let slip = r#"{"gateway": {"store": "http://:open-sesame@127.0.0.1"}, "routes": []}"#;
    let document = serde_json::from_str(slip).unwrap();
    let problems = Config::build(&document, None, Runtime::Native).err();
    assert!(!format!("{:?}", problems.unwrap()).contains("sesame"));
}

#[test]
fn the_url_of_a_store_leads_somewhere() {
    for (url, leads) in [
        ("redis://127.0.0.1", true),
        ("redis://redis:6379/3", true),
        (
            "rediss://user:p%40ss@redis.test:6380/0?protocol=resp3",
            true,
        ),
        ("redis://:secret@[::1]:6379", true),
        ("redis://[::1]", true),
        ("redis://redis/", true),
        ("redis://", false),
        ("redis://:secret@", false),
        ("redis://:6379", false),
        ("redis://redis:0", false),
        ("redis://redis:99999", false),
        ("redis://redis:", false),
        ("redis://redis/abc", false),
        ("http://redis", false),
    ] {
        let built = build(&format!(
            r#"{{"gateway": {{"store": "{url}"}}, "routes": []}}"#
        ));
        let problems = built.err().unwrap_or_default().join("\n");
        assert_eq!(
            !problems.contains("gateway.store"),
            leads,
            "{url}: {problems}"
        );
    }
}

#[test]
fn no_secret_and_no_address_is_repeated() {
    let told = build(
        r#"{"consumers": [{"name": "a", "keys": ["sk-live-1"]}], "providers": {"p": {"dialect": "openai", "base_url": "x://u:hunter2@h"}}}"#,
    )
    .unwrap_err()
    .join("\n");
    assert!(
        !told.contains("sk-live-1") && !told.contains("hunter2"),
        "{told}"
    );
}

/// A document whose models are these.
fn with_models(models: &str) -> Result<Config, Vec<String>> {
    build(&format!(
        r#"{{"providers": {{"a": {{"dialect": "openai", "base_url": "http://a/v1"}}}}, "models": {{{models}}},
            "routes": [{{"name": "llm", "path": "/v1", "serve": "models"}}]}}"#
    ))
}

#[test]
fn a_target_may_be_another_model() {
    let config = with_models(
        r#""one": {"targets": ["a/1", "two", "a/4"]}, "two": {"targets": ["a/2", "three", "three"]}, "three": {"targets": ["a/3", "a/1"]},
           "slash/ed": {"targets": ["a/5", "a/5"]}, "four": {"targets": ["slash/ed"], "retry": {"attempts": 3}}"#,
    )
    .unwrap();
    for (name, targets, attempts) in [
        ("one", &["a/1", "a/2", "a/3", "a/4"][..], 4),
        ("two", &["a/2", "a/3", "a/1"], 3),
        ("slash/ed", &["a/5", "a/5"], 2),
        ("four", &["a/5"], 3),
    ] {
        let model = config.models.get(name).unwrap();
        let found: Vec<_> = model.targets.iter().map(|target| &*target.name).collect();
        assert_eq!(found, targets, "{name}");
        assert_eq!(model.retry.attempts.get(), attempts, "{name}");
    }
}

#[test]
fn targets_that_come_back_to_themselves_are_refused() {
    for (models, expected) in [
        (
            r#""one": {"targets": ["one"]}"#,
            "models.one: its targets come back to themselves: one -> one",
        ),
        (
            r#""one": {"targets": ["two"]}, "two": {"targets": ["a/1", "three"]}, "three": {"targets": ["two"]}"#,
            "models.one: its targets come back to themselves: one -> two -> three -> two",
        ),
        (
            r#""one": {"targets": ["twoo"]}, "two": {"targets": ["a/1"]}"#,
            "models.one.targets[0]: expected a provider and its model such as `openai/gpt-4.1`, or another model of this file, found `twoo`; did you mean `two`?",
        ),
    ] {
        let problems = with_models(models).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem == expected),
            "{problems:?}"
        );
    }
}

#[test]
fn timeouts_and_reasons_are_read_and_what_makes_no_sense_is_refused() {
    let config = with_models(
        r#""one": {"targets": ["a/1"], "timeouts": {"connect": "2s", "first_token": "15s", "idle": "30s"},
            "retry": {"on": ["timeout", "404", "context_length", "content_filter", "5xx"]}}"#,
    )
    .unwrap();
    let model = config.models.get("one").unwrap();
    let expected = Timeouts {
        connect: Duration::from_secs(2),
        first_token: Duration::from_secs(15),
        idle: Duration::from_secs(30),
        ..Timeouts::MODEL
    };
    assert_eq!(model.timeouts, expected);
    assert_eq!(
        *model.retry.on,
        [
            Reason::Timeout,
            Reason::Status(StatusCode::NOT_FOUND),
            Reason::Complaint(Complaint::ContextLength),
            Reason::Complaint(Complaint::ContentFilter),
            Reason::Failing,
        ]
    );
    for (of_model, expected) in [
        (
            r#""timeouts": {"connect": "3m", "total": "2m"}"#,
            "`connect` is longer than `total`",
        ),
        (
            r#""timeouts": {"connect": "0s"}"#,
            "models.one.timeouts.connect",
        ),
        (r#""timeouts": {"idle": "0s"}"#, "models.one.timeouts.idle"),
        (
            r#""timeouts": {"total": "25h"}"#,
            "a timeout is at most a day",
        ),
        (
            r#""timeouts": {"first_token": "2m", "total": "1m"}"#,
            "`first_token` is longer than `total`",
        ),
        (
            r#""retry": {"on": ["200"]}"#,
            "`200` is not the status of a failure",
        ),
        (r#""retry": {"on": ["conect"]}"#, "did you mean `connect`?"),
    ] {
        let problems =
            with_models(&format!(r#""one": {{"targets": ["a/1"], {of_model}}}"#)).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{problems:?}"
        );
    }
}

#[test]
fn what_is_not_said_of_overload_keeps_to_what_is() {
    use crate::overload::{Bounds, Settings};
    for (said, start, least, most) in [
        (r#""auto""#, 16, 4, 1_000),
        ("{}", 16, 4, 1_000),
        (r#"{"start": 2}"#, 2, 2, 1_000),
        (r#"{"start": 2000}"#, 2_000, 4, 2_000),
        (r#"{"least": 50}"#, 50, 50, 1_000),
        (r#"{"least": 5000}"#, 5_000, 5_000, 5_000),
        (r#"{"most": 3}"#, 3, 3, 3),
        (r#"{"most": 10}"#, 10, 4, 10),
    ] {
        let config = build(&format!(
            r#"{{"dify": {{"m": {{"api": "http://h", "overload": {said}, "apps": {{"a": {{"key": "$APP"}}}}}}}},
                "routes": [{{"name": "r", "serve": "dify.m/a"}}]}}"#
        ))
        .unwrap();
        let Service::App(places) = &config.routes[0].service else {
            panic!("it serves an app");
        };
        let (installation, app) = (&places.first.installation, &places.first.app);
        let bounds = Bounds { start, least, most };
        let expected = Settings {
            bounds,
            ..Settings::AUTO
        };
        let way = app.runs.as_ref().unwrap();
        assert_eq!(way.valves[0].settings, expected, "{said}");
        assert_eq!(&*way.gate, "dify.m");
        let files = installation.part("/files/x").unwrap();
        assert_eq!(files.valves[0].settings.bounds, Bounds::fixed(128));
        assert_eq!(&*files.gate, "dify.m:files");
        assert!(installation.part("/").is_none());
    }
}

#[test]
fn parts_are_held_apart_where_it_is_said_and_not_where_nothing_is() {
    for (said, runs, parts) in [("", false, 0), (r#", "permits": {"files": 3}"#, false, 6)] {
        let config = build(&format!(
            r#"{{"dify": {{"m": {{"api": "http://h"{said}}}}}, "routes": [{{"name": "r", "serve": "dify.m"}}]}}"#
        ))
        .unwrap();
        let Service::Dify(installation) = &config.routes[0].service else {
            panic!("it serves all of it");
        };
        assert_eq!(installation.runs.is_some(), runs);
        assert_eq!(installation.parts.len(), parts);
    }
}

#[test]
fn an_app_of_dify_s_can_stand_for_a_model() {
    let with = |fields: &str| {
        let provider = format!(r#"{{"dialect": "dify", "base_url": "http://h/v1", {fields}}}"#);
        build(&format!(
            r#"{{"providers": {{"d": {provider}}}, "models": {{"m": {{"targets": ["d/app"]}}}}, "routes": [{{"name": "r", "serve": "models"}}]}}"#
        ))
    };
    let named = |name: &str| Box::<str>::from(name);
    for (fields, expected) in [
        (r#""app": "chat""#, Form::Chat),
        (r#""app": "agent""#, Form::Chat),
        (r#""app": "completion""#, Form::Completion(named("query"))),
        (
            r#""app": "completion", "input": "topic""#,
            Form::Completion(named("topic")),
        ),
        (
            r#""app": "workflow", "input": "text", "output": "result""#,
            Form::Workflow {
                input: named("text"),
                output: named("result"),
            },
        ),
    ] {
        let config = with(&format!(r#""keys": ["$APP"], {fields}"#)).unwrap();
        let origin = &config.models.get("m").unwrap().targets[0].origin;
        assert_eq!(origin.app.as_ref(), Some(&expected), "{fields}");
        // What is no model's own is asked of somebody who speaks OpenAI's language.
        assert!(config.default_provider.is_none());
    }
    for (fields, expected) in [
        (r#""keys": ["$APP"]"#, "providers.d: `app` is missing"),
        (
            r#""keys": ["$APP"], "app": "chatflow""#,
            "providers.d.app: expected one of `chat`, `agent`, `completion`, `workflow`",
        ),
        (
            r#""app": "chat""#,
            "providers.d: `keys` is missing: Dify knows an app by its key alone",
        ),
        (
            r#""app": "chat", "keys": []"#,
            "providers.d.keys: Dify knows an app by its key alone",
        ),
        (
            r#""keys": ["$APP"], "app": "chat", "input": "query""#,
            "providers.d.input: unknown key",
        ),
        (
            r#""keys": ["$APP"], "app": "completion", "output": "text""#,
            "providers.d.output: unknown key",
        ),
        (
            r#""keys": ["$APP"], "app": "workflow", "input": "text""#,
            "providers.d: a workflow needs `input` and `output`",
        ),
        (
            r#""keys": ["$APP"], "app": "workflow", "input": "", "output": "text""#,
            "providers.d.input: expected the name of a variable",
        ),
        (
            r#""keys": ["$APP"], "app": "chat", "on_abort": "never""#,
            "providers.d.on_abort: expected one of `stop`, `drain`",
        ),
        (
            r#""keys": ["$APP"], "app": "chat", "prefill": true"#,
            "providers.d.prefill: an app of Dify cannot go on behind",
        ),
    ] {
        let problems = with(fields).unwrap_err();
        let [problem] = &*problems else {
            panic!("{fields}: {problems:?}");
        };
        assert!(problem.starts_with(expected), "{problem}");
    }
    let openai =
        r#"{"providers": {"d": {"dialect": "openai", "base_url": "http://h", "app": "chat"}}}"#;
    assert!(build(openai).unwrap_err()[0].starts_with("providers.d.app: unknown key"));
    for (fields, target, expected) in [
        (
            "",
            "dify.main/a",
            Some("`dify.main/a` can stand for a model once its `app` is said"),
        ),
        (r#", "app": "chat""#, "dify.main/a", None),
        (
            r#", "app": "chat""#,
            "dify.main/b",
            Some("no app is named `b`"),
        ),
        (
            r#", "app": "chat""#,
            "dify.mian/a",
            Some("no Dify is named `mian`; did you mean `main`?"),
        ),
        (
            r#", "app": "chat", "on_abort": "stop""#,
            "dify.main/a",
            None,
        ),
        (
            r#", "app": "chat", "limits": [{"requests": 1, "per": "1m"}]"#,
            "dify.main/a",
            None,
        ),
    ] {
        let built = build(&format!(
            r#"{{"dify": {{"main": {{"api": "http://h/x/", "apps": {{"a": {{"key": "$APP"{fields}}}}}}}}}, "models": {{"m": {{"targets": ["{target}"]}}}}, "routes": [{{"name": "r", "path": "/", "serve": "models"}}]}}"#
        ));
        match (built, expected) {
            (Ok(config), None) => {
                let model = config.models.get("m").unwrap();
                let target = &model.targets[0];
                assert_eq!(target.origin.base.to_string(), "http://h/x/v1");
                assert_eq!(model.limits.len(), usize::from(fields.contains("limits")));
            }
            (Err(problems), Some(expected)) => {
                let expected = format!("models.m.targets[0]: {expected}");
                assert!(problems[0].starts_with(&expected), "{problems:?}");
            }
            (built, _) => panic!("{fields} {target}: {built:?}"),
        }
    }
}
