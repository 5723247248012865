//! What docs/dify.md says is what comes: its example, before simulated upstreams.

// A test tells what went wrong by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fakes;

use std::{collections::BTreeMap, fs};

use tidegate_tests::{
    process::{Process, workspace},
    scenario::{Call, Runtime},
    stage::{Reply, Stage},
};

const RUN: &str = r#"{"query":"Hello","inputs":{},"user":"u-1","response_mode":"blocking"}"#;
const PING: &str =
    r#"{"model":"smart","max_tokens":5,"messages":[{"role":"user","content":"ping"}]}"#;

/// The page, and the gateway that it is about.
struct Page {
    text: String,
    gateway: Process,
}

#[test]
fn what_the_page_shows_is_what_comes() {
    if !Runtime::asked_for().unwrap().contains(&Runtime::Native) {
        eprintln!("TIDEGATE_RUNTIMES does not ask for native");
        return;
    }
    let page = Page::open("app-chat-support");
    for (path, part) in [
        ("/console/api/setup", "api"),
        ("/signin", "web"),
        ("/e/hook", "plugin_daemon"),
    ] {
        let reply = page.get(path, None);
        let served = format!("dify.main:{part}");
        page.shows(&reply, 200, Some(&served));
    }
    page.says(&page.get("/threads", None), 404);
    let info = "/agents/support/v1/parameters?user=u-7";
    page.says(&page.get(info, None), 401);
    page.says(&page.get(info, Some("DIFY_MODELS_KEY")), 403);
    let run = page.run();
    page.shows(&run, 200, Some("dify.main/support"));
    for shown in [
        r#"{"event":"message","#,
        r#""conversation_id":"c0000000-0000-4000-8000-000000000001","mode":"chat","answer":"You said: Hello","#,
    ] {
        assert!(
            text(&run).contains(shown) && page.text.contains(shown),
            "{shown}"
        );
    }
    let ping = page.post("/models/v1/chat/completions", "DIFY_MODELS_KEY", PING);
    assert_eq!(ping.status(), 200);
    assert!(text(&ping).contains(r#""object":"chat.completion""#));
    for _ in 0..20 {
        assert_eq!(page.get(info, Some("SHOP_KEY")).status(), 200);
    }
    page.says(&page.get(info, Some("SHOP_KEY")), 429);
    let limits = page.get("/_tidegate/limits?consumer=shop", Some("ADMIN_KEY"));
    assert_eq!(limits.status(), 200);
}

#[test]
fn another_app_steps_in_where_the_page_says_so() {
    if !Runtime::asked_for().unwrap().contains(&Runtime::Native) {
        return;
    }
    let page = Page::open("app-wrong");
    let run = page.run();
    page.shows(&run, 200, Some("dify.main/support_small"));
    assert_eq!(run.header("x-tidegate-attempts"), Some("2"));
    let record = page
        .gateway
        .record(run.header("x-tidegate-request").unwrap())
        .unwrap();
    assert_eq!(record["attempts"][0]["outcome"], "401");
}

#[test]
fn a_run_that_has_failed_says_so_as_the_page_has_it() {
    if !Runtime::asked_for().unwrap().contains(&Runtime::Native) {
        return;
    }
    for (mode, app, fault) in [
        ("fail-midway", "app-workflow", "run: failed"),
        ("fail-midway", "app-chatflow", "run: failed"),
        ("ok", "app-pause", "run: paused"),
    ] {
        let page = Page::before(mode, app);
        let run = if app == "app-chatflow" {
            page.run()
        } else {
            let path = "/agents/support/v1/workflows/run";
            let inputs = r#"{"inputs":{},"user":"u-1","response_mode":"blocking"}"#;
            let run = page.post(path, "SHOP_KEY", inputs);
            page.shows(&run, 200, Some("dify.main/support"));
            run
        };
        let record = page
            .gateway
            .record(run.header("x-tidegate-request").unwrap())
            .unwrap();
        assert_eq!(record["fault"], fault, "{app}");
        assert!(page.text.contains(fault), "{fault}");
    }
}

impl Page {
    fn open(support: &str) -> Self {
        Self::before("ok", support)
    }

    /// Before simulated upstreams that do as `dify` says, and as the key of the first app.
    fn before(dify: &str, support: &str) -> Self {
        let text = fs::read_to_string(workspace().join("docs/dify.md")).unwrap();
        let example = workspace().join("examples/dify/tidegate.toml");
        let mut config = fs::read_to_string(example).unwrap();
        let fakes = format!("http://{}", fakes::start());
        for (there, here) in [
            ("http://api:5001", &*format!("/dify/{dify}")),
            ("http://web:3000", "/dify/ok"),
            ("http://plugin_daemon:5002", "/dify/ok"),
            ("https://api.openai.com", "/openai/ok"),
            ("https://api.mistral.ai", "/openai/ok"),
            (r#"listen = "0.0.0.0:80""#, ""),
            (r#"data_dir = "/data""#, ""),
        ] {
            assert!(config.contains(there), "{there}");
            let here = if here.is_empty() {
                String::new()
            } else {
                format!("{fakes}{here}")
            };
            config = config.replace(there, &here);
        }
        let secrets = [
            ("ADMIN_KEY", "admin-4be1"),
            ("SHOP_KEY", "shop-7d1f"),
            ("DIFY_MODELS_KEY", "models-93c0"),
            ("SUPPORT_APP_KEY", support),
            ("SUPPORT_SMALL_APP_KEY", "app-chat-small"),
            ("REPORT_APP_KEY", "app-workflow-report"),
            ("OPENAI_KEY", "sk-fake-openai"),
            ("MISTRAL_KEY", "sk-fake-mistral"),
        ];
        let secrets = secrets.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let gateway = Process::start(Runtime::Native, &config, &BTreeMap::from(secrets)).unwrap();
        Self { text, gateway }
    }

    fn get(&self, path: &str, key: Option<&str>) -> Reply {
        self.call(&Call {
            path: path.into(),
            key: key.map(Into::into),
            ..Call::default()
        })
    }

    fn post(&self, path: &str, key: &str, body: &str) -> Reply {
        self.call(&Call {
            path: path.into(),
            key: Some(key.into()),
            body: Some(body.into()),
            ..Call::default()
        })
    }

    fn call(&self, call: &Call) -> Reply {
        self.gateway.calls(call, 1).remove(0)
    }

    /// The call of step 3, as it stands there.
    fn run(&self) -> Reply {
        assert!(self.text.contains(RUN));
        self.post("/agents/support/v1/chat-messages", "SHOP_KEY", RUN)
    }

    /// It has this status, and was served by somebody whom the page names.
    fn shows(&self, reply: &Reply, status: u16, served: Option<&str>) {
        assert_eq!(reply.status(), status, "{}", text(reply));
        assert_eq!(reply.header("x-tidegate-served-by"), served);
        let served = served.unwrap_or_default();
        assert!(self.text.contains(served), "{served}");
    }

    /// It has this status, and its body stands on the page.
    fn says(&self, reply: &Reply, status: u16) {
        assert_eq!(reply.status(), status, "{}", text(reply));
        let body = text(reply);
        assert!(self.text.contains(&body), "the page does not show {body}");
    }
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.content.bytes).into_owned()
}
