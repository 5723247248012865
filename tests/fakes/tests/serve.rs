//! The fakes as a caller meets them: over TCP, byte by byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What came back, down to the end of the connection.
struct Answer {
    status: u16,
    head: String,
    body: String,
    /// Whether the body came to its end.
    whole: bool,
}

fn start() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            tidegate_fakes::serve(listener).await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn send(port: SocketAddr, method: &str, path: &str, key: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(port).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: fakes\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
    );
    write!(
        stream,
        "{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    stream
}

fn call(port: SocketAddr, method: &str, path: &str, key: &str, body: &str) -> Answer {
    let mut bytes = Vec::new();
    send(port, method, path, key, body)
        .read_to_end(&mut bytes)
        .unwrap();
    let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer {
            status: 0,
            head: String::from_utf8(bytes).unwrap(),
            body: String::new(),
            whole: false,
        };
    };
    let head = String::from_utf8(bytes[..at].to_vec())
        .unwrap()
        .to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = &bytes[at + 4..];
    let length = head
        .split("content-length: ")
        .nth(1)
        .map(|rest| rest.lines().next().unwrap().parse::<usize>().unwrap());
    let (body, whole) = match length {
        Some(length) => (rest.to_vec(), rest.len() == length),
        None if status == 204 => (Vec::new(), true),
        None => {
            let mut body = Vec::new();
            loop {
                let Some(at) = rest.windows(2).position(|window| window == b"\r\n") else {
                    break (body, false);
                };
                let size =
                    usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
                if size == 0 {
                    break (body, true);
                }
                body.extend_from_slice(&rest[at + 2..at + 2 + size]);
                rest = &rest[at + 4 + size..];
            }
        }
    };
    Answer {
        status,
        head,
        body: String::from_utf8_lossy(&body).into_owned(),
        whole,
    }
}

fn chat(port: SocketAddr, mode: &str, stream: bool) -> Answer {
    let body =
        json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "ping"}]})
            .to_string();
    call(
        port,
        "POST",
        &format!("/openai/{mode}/v1/chat/completions"),
        "sk-fake-a",
        &body,
    )
}

fn ask(port: SocketAddr, mode: &str, app: &str, body: &Value) -> Answer {
    let path = match app {
        "workflow" | "pause" => "workflows/run",
        "completion" => "completion-messages",
        _ => "chat-messages",
    };
    call(
        port,
        "POST",
        &format!("/dify/{mode}/v1/{path}"),
        &format!("app-{app}"),
        &body.to_string(),
    )
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body)
        .unwrap_or_else(|problem| panic!("{problem}: {}", answer.body))
}

#[test]
fn every_mode_does_what_it_says() {
    let port = start();
    // The mode, whether a stream is asked for, the status, what the body has in it, and whether it comes to its end.
    let table = [
        ("ok", false, 200, "You said: ping", true),
        ("ok", true, 200, "data: [DONE]\n\n", true),
        ("400", false, 400, "invalid_request_error", true),
        ("429", true, 429, "rate_limit_exceeded", true),
        ("503", false, 503, "server_error", true),
        ("html", false, 502, "<center>nginx</center>", true),
        ("html-200", true, 200, "<center>nginx</center>", true),
        ("empty", false, 200, "", true),
        ("garbage", false, 200, "{\"id\": \"half", true),
        ("closed", false, 0, "", false),
        ("half-header", true, 0, "", false),
        ("cut-after-2", true, 200, "\"The \"", false),
        ("cut-after-0", true, 200, "", false),
        ("cut-mid-2", true, 200, "\"The \"", false),
        ("cut-after-2", false, 200, "choices", false),
        ("stall-after-2-50ms", true, 200, "[DONE]", true),
        ("late-50ms", false, 200, "choices", true),
        ("error-chunk", true, 200, "\"error\"", true),
        ("error-chunk", false, 500, "\"error\"", true),
        ("split", true, 200, "\"tide \"", true),
        ("crlf", true, 200, "data: [DONE]\r\n\r\n", true),
        ("no-space", true, 200, "data:[DONE]\n\n", true),
        ("big", true, 200, "xxxxxxxxxx", true),
        ("unicode+split-chars", true, 200, "🌊🌙", true),
        ("chunks-200", true, 200, "\"w199 \"", true),
        ("tools", true, 200, "\"finish_reason\":\"tool_calls\"", true),
        ("raw", false, 200, "\"content\":\"ok\"", true),
        ("raw-3", true, 200, "data: [DONE]\n\n", true),
        ("okay", false, 501, "no mode has the word", true),
    ];
    for (mode, stream, status, part, whole) in table {
        let answer = chat(port, mode, stream);
        let seen = (answer.status, answer.body.contains(part), answer.whole);
        assert_eq!(
            seen,
            (status, true, whole),
            "{mode}: {}\n{}",
            answer.head,
            answer.body
        );
        assert!(
            answer.status != 429 || answer.head.contains("retry-after: 7"),
            "{mode}: {}",
            answer.head
        );
    }
    assert!(
        chat(port, "half-header", false)
            .head
            .ends_with("Content-Ty")
    );
    assert!(
        chat(port, "two-lengths", false)
            .head
            .contains("content-length: 2\r\ncontent-length: 4")
    );
    assert!(!chat(port, "no-done", true).body.contains("[DONE]"));
    let statuses: Vec<u16> = (0..6)
        .map(|_| chat(port, "flaky-2of3", false).status)
        .collect();
    assert_eq!(statuses, [503, 503, 200, 503, 503, 200]);
}

#[test]
fn every_kind_of_app_answers_both_ways() {
    let port = start();
    let body = |mode: &str| json!({"query": "Hi", "inputs": {"query": "Hi"}, "user": "u", "response_mode": mode});
    for (app, name) in [
        ("chat", "chat"),
        ("chatflow", "advanced-chat"),
        ("completion", "completion"),
    ] {
        let answer = parsed(&ask(port, "ok", app, &body("blocking")));
        assert_eq!(
            (&answer["answer"], &answer["mode"]),
            (&json!("You said: Hi"), &json!(name)),
            "{app}"
        );
    }
    for (app, status) in [("workflow", "succeeded"), ("pause", "paused")] {
        assert_eq!(
            parsed(&ask(port, "ok", app, &body("blocking")))["data"]["status"],
            status
        );
    }
    for (app, code) in [("agent", "invalid_param"), ("new-agent", "bad_request")] {
        assert_eq!(
            parsed(&ask(port, "ok", app, &body("blocking")))["code"],
            code
        );
    }
    let paused = parsed(&ask(port, "ok", "chatflow-pause", &body("blocking")));
    assert_eq!(
        (&paused["event"], &paused["data"]["status"]),
        (&json!("workflow_paused"), &json!("paused"))
    );
    let unsaid = json!({"query": "Hi", "inputs": {}, "user": "u"});
    let streams = ask(port, "ok", "new-agent", &unsaid);
    assert!(streams.head.contains("text/event-stream"));
    for app in [
        "chat",
        "chatflow",
        "completion",
        "workflow",
        "pause",
        "chatflow-pause",
        "agent",
        "new-agent",
    ] {
        for mode in ["ok", "pings", "split", "pairs", "rich", "slow-1ms"] {
            let answer = ask(port, mode, app, &body("streaming"));
            assert_eq!((answer.status, answer.whole), (200, true), "{app} {mode}");
            for block in answer
                .body
                .split_terminator("\n\n")
                .filter(|block| *block != "event: ping")
            {
                let data = block
                    .strip_prefix("data: ")
                    .unwrap_or_else(|| panic!("{app} {mode}: {block}"));
                assert!(serde_json::from_str::<Value>(data).unwrap()["event"].is_string());
            }
        }
    }
    assert!(
        ask(port, "pings", "chat", &body("streaming"))
            .body
            .starts_with("event: ping\n\n")
    );
    assert!(!ask(port, "cut-mid-1", "chat", &body("streaming")).whole);
    assert_eq!(
        parsed(&ask(port, "fail-midway", "workflow", &body("blocking")))["data"]["status"],
        "failed"
    );
}

#[test]
fn dify_refuses_in_its_own_shape() {
    let port = start();
    let good = json!({"query": "Hi", "inputs": {}, "user": "u"});
    let table = [
        ("ok", "nobody", good.clone(), 401, "unauthorized"),
        (
            "ok",
            "chat",
            json!({"query": "Hi", "inputs": {}}),
            400,
            "invalid_param",
        ),
        (
            "ok",
            "chat",
            json!({"inputs": {}, "user": "u"}),
            400,
            "invalid_param",
        ),
        ("ok", "chat", json!([]), 400, "bad_request"),
        (
            "ok",
            "chat",
            json!({"query": "Hi", "inputs": {}, "user": "u", "conversation_id": "x"}),
            404,
            "not_found",
        ),
        (
            "fail-rate_limit_error",
            "chat",
            good.clone(),
            429,
            "rate_limit_error",
        ),
        (
            "fail-provider_quota_exceeded",
            "chat",
            good.clone(),
            400,
            "provider_quota_exceeded",
        ),
        ("429", "chat", good.clone(), 429, "too_many_requests"),
        ("500", "chat", good.clone(), 500, "internal_server_error"),
        ("cap-0", "chat", good.clone(), 429, "too_many_requests"),
        ("fail-midway", "chat", good, 400, "completion_request_error"),
    ];
    for (mode, app, body, status, code) in table {
        let answer = ask(port, mode, app, &body);
        assert_eq!(
            (answer.status, &parsed(&answer)["code"]),
            (status, &json!(code)),
            "{mode} {app} {body}"
        );
        assert_eq!(parsed(&answer)["status"], status);
    }
}

#[test]
fn dify_remembers_a_conversation_of_one_user() {
    let port = start();
    let first = parsed(&ask(
        port,
        "ok",
        "chat",
        &json!({"query": "one", "inputs": {}, "user": "u"}),
    ));
    let id = first["conversation_id"].as_str().unwrap();
    let mut again = json!({"query": "two", "inputs": {}, "user": "u", "conversation_id": id});
    assert_eq!(
        parsed(&ask(port, "ok", "chat", &again))["answer"],
        "You said: two (turn 2, after: one)"
    );
    again["user"] = json!("somebody else");
    assert_eq!(ask(port, "ok", "chat", &again).status, 404);
}

#[test]
fn a_stream_can_be_stopped_by_its_user() {
    let port = start();
    let body =
        json!({"inputs": {"text": "Hi"}, "user": "u", "response_mode": "streaming"}).to_string();
    let mut stream = send(
        port,
        "POST",
        "/dify/stall-30s/v1/workflows/run",
        "app-workflow",
        &body,
    );
    let mut begun = String::new();
    while !begun.contains("\n\n\r\n") {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "{begun}");
        begun.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    let task = begun
        .split("\"task_id\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let stop = |user: &str| {
        let path = format!("/dify/stall-30s/v1/workflows/tasks/{task}/stop");
        call(
            port,
            "POST",
            &path,
            "app-workflow",
            &json!({"user": user}).to_string(),
        )
        .body
    };
    assert_eq!(stop("somebody else"), r#"{"result":"success"}"#);
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(
        stream.read(&mut [0; 64]).is_err(),
        "nothing is stopped by somebody else"
    );
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(stop("u"), r#"{"result":"success"}"#);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains(r#""status":"stopped""#), "{rest}");
}

#[test]
fn what_was_seen_is_counted() {
    let port = start();
    let counts = |name: &str| parsed(&call(port, "GET", &format!("/_counts/{name}"), "", ""));
    chat(port, "ok@a", false);
    chat(port, "ok@b", false);
    chat(port, "ok@b", true);
    let b = counts("openai/ok@b");
    assert_eq!(
        (
            &counts("openai/ok@a")["calls"],
            &b["calls"],
            &b["aborted"],
            &b["active"]
        ),
        (&json!(1), &json!(2), &json!(0), &json!(0))
    );
    assert_eq!(b["keys"], json!({"sk-fake-a": 2}));
    assert_eq!(b["paths"], json!({"POST /v1/chat/completions": 2}));
    assert_eq!(b["last"]["headers"]["authorization"], "Bearer sk-fake-a");
    assert!(b["last"]["body"].as_str().unwrap().contains("ping"));

    let body = r#"{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}"#;
    let pending: Vec<TcpStream> = (0..3)
        .map(|_| {
            send(
                port,
                "POST",
                "/openai/stall/v1/chat/completions",
                "sk-fake-a",
                body,
            )
        })
        .collect();
    let until = |field: &str, value: u64| {
        for _ in 0..200 {
            if counts("openai/stall")[field] == value {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{field} is not {value}: {}", counts("openai/stall"));
    };
    until("active", 3);
    drop(pending);
    until("aborted", 3);
    assert_eq!(
        (
            &counts("openai/stall")["peak"],
            &counts("openai/stall")["active"]
        ),
        (&json!(3), &json!(0))
    );

    call(port, "POST", "/_reset", "", "");
    assert_eq!(parsed(&call(port, "GET", "/_counts", "", "")), json!({}));
}

#[test]
fn the_services_of_dify_are_told_apart() {
    let port = start();
    let service = |path: &str| call(port, "GET", &format!("/dify/ok{path}"), "", "");
    for (path, name) in [
        ("/console/api/apps", "api"),
        ("/files/a.png", "api"),
        ("/e/hook", "plugin_daemon"),
    ] {
        assert_eq!(parsed(&service(path))["service"], name, "{path}");
    }
    assert!(service("/").body.contains("<title>Dify</title>"));
    assert!(service("/explore").head.contains("text/html"));
    assert_eq!(parsed(&service("/health"))["status"], "ok");
    assert!(service("/v1/info").head.contains("x-version"));
}
