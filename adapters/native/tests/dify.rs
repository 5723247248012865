//! Callers who want Dify's answer at once: out of a stream they get what Dify would have told them itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on is over"
)]

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::{net::TcpListener, runtime::Builder};

/// How the simulated Dify behaves.
const MODES: [&str; 10] = [
    "ok",
    "rich+pings",
    "moderated",
    "finished-first",
    "fail-midway",
    "unicode+split-chars",
    "split+tts",
    "big+pairs",
    "crlf+no-space",
    "429",
];

const KINDS: [(&str, &str); 6] = [
    ("chat", "chat-messages"),
    ("chatflow", "chat-messages"),
    ("chatflow-pause", "chat-messages"),
    ("completion", "completion-messages"),
    ("workflow", "workflows/run"),
    ("pause", "workflows/7c3e33d4/run"),
];

const AGENTS: [&str; 2] = ["agent", "new-agent"];

#[test]
fn it_is_what_dify_says_itself() {
    let dify = simulate();
    let dir = tempdir().unwrap();
    let file = dir.path().join("tidegate.toml");
    fs::write(&file, configuration(dify)).unwrap();
    let gateway = Gateway::start(&file);
    for (number, mode) in MODES.iter().enumerate() {
        for (kind, path) in KINDS {
            for asks in [
                json!({"response_mode": "blocking"}),
                json!({"response_mode": null}),
                json!({}),
            ] {
                let body = request(&asks);
                let own = ask(
                    dify,
                    &format!("/dify/{mode}/v1/{path}"),
                    &format!("app-{kind}"),
                    &body,
                );
                let ours = ask(
                    gateway.address,
                    &format!("/{number}/{kind}/v1/{path}"),
                    "k",
                    &body,
                );
                let expected = match (*mode, kind) {
                    ("429", _) => 429,
                    // A workflow that has failed is an answer.
                    ("fail-midway", "chat" | "completion" | "chatflow" | "chatflow-pause") => 400,
                    _ => 200,
                };
                assert_eq!(own.status, expected, "{mode} {kind} {asks}");
                assert_eq!(ours.status, own.status, "{mode} {kind} {asks}");
                assert_eq!(ours.media, own.media, "{mode} {kind} {asks}");
                assert_eq!(alike(&ours.body), alike(&own.body), "{mode} {kind} {asks}");
            }
        }
    }
}

#[test]
fn agents_answer_at_once_though_dify_lets_them_only_stream() {
    let dify = simulate();
    let dir = tempdir().unwrap();
    let file = dir.path().join("tidegate.toml");
    fs::write(&file, configuration(dify)).unwrap();
    let gateway = Gateway::start(&file);
    for kind in AGENTS {
        let path = format!("/0/{kind}/v1/chat-messages");
        let answer = ask(
            gateway.address,
            &path,
            "k",
            &request(&json!({"response_mode": "blocking"})),
        );
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (
                answer.status,
                &said["event"],
                &said["mode"],
                &said["answer"]
            ),
            (
                200,
                &json!("message"),
                &json!("agent-chat"),
                &json!("You said: Hi")
            )
        );
        // The newest of them stream for whoever does not say how.
        let answer = ask(gateway.address, &path, "k", &request(&json!({})));
        assert_eq!(answer.media, "text/event-stream; charset=utf-8");
        assert!(answer.body.contains("agent_message") && answer.body.contains("message_end"));
    }
}

#[test]
fn a_run_whose_caller_does_not_wait_for_its_answer_is_stopped_or_heard_to_its_end() {
    let dify = simulate();
    let dir = tempdir().unwrap();
    let file = dir.path().join("tidegate.toml");
    let mut text = configuration(dify);
    writeln!(text, "[dify.slow]\napi = \"http://{dify}/dify/slow-200ms\"").unwrap();
    for on_abort in ["stop", "drain"] {
        writeln!(
            text,
            "[dify.slow.apps.{on_abort}]\nkey = \"$CHAT\"\non_abort = \"{on_abort}\"\n\
             [[routes]]\nname = \"{on_abort}\"\npath = \"/{on_abort}\"\nserve = \"dify.slow/{on_abort}\""
        )
        .unwrap();
    }
    fs::write(&file, text).unwrap();
    let gateway = Gateway::start(&file);
    let body = request(&json!({"response_mode": "blocking"}));
    for (on_abort, attempts) in [("stop", 2), ("drain", 1)] {
        let caller = send(
            gateway.address,
            &format!("/{on_abort}/v1/chat-messages"),
            "k",
            &body,
        );
        thread::sleep(Duration::from_millis(300));
        drop(caller);
        let record = gateway.record();
        assert_eq!(
            (&record["route"], &record["status"], &record["ended"]),
            (&json!(on_abort), &json!(499), &json!("abandoned")),
            "{record}"
        );
        let asked = record["attempts"].as_array().unwrap();
        assert_eq!(asked.len(), attempts, "{record}");
        assert!(
            asked.iter().all(|attempt| attempt["outcome"] == "200"),
            "{record}"
        );
        // What Dify has counted is known where it was heard to its end.
        assert_eq!(
            record["tokens_out"].is_u64(),
            on_abort == "drain",
            "{record}"
        );
    }
}

fn request(asks: &Value) -> String {
    let mut body = json!({"query": "Hi", "inputs": {"query": "Hi"}, "user": "u"});
    let fields = body.as_object_mut().unwrap();
    fields.extend(asks.as_object().unwrap().clone());
    body.to_string()
}

/// The answer, of which each id counts on from the last, and without what only Dify itself knows: what a run that waits has cost.
fn alike(body: &str) -> Value {
    let mut alike = String::new();
    for (place, part) in body.split("-4000-8000-").enumerate() {
        alike += if place == 0 { part } else { &part[12..] };
    }
    let mut alike: Value = serde_json::from_str(&alike).unwrap();
    if alike["event"] == "workflow_paused" {
        alike["metadata"] = Value::Null;
        alike["data"]["metadata"] = Value::Null;
    }
    alike
}

fn configuration(dify: SocketAddr) -> String {
    let mut text = String::from("[[consumers]]\nname = \"c\"\nkeys = [\"$TEST_KEY\"]\n");
    for (number, mode) in MODES.iter().enumerate() {
        writeln!(
            text,
            "[dify.d{number}]\napi = \"http://{dify}/dify/{mode}\""
        )
        .unwrap();
        for kind in KINDS.map(|(kind, _)| kind).into_iter().chain(AGENTS) {
            let app = format!("d{number}.apps.{kind}");
            writeln!(text, "[dify.{app}]\nkey = \"${}\"", secret(kind)).unwrap();
            writeln!(
                text,
                "[[routes]]\nname = \"{number}-{kind}\"\npath = \"/{number}/{kind}\"\nserve = \"dify.d{number}/{kind}\""
            )
            .unwrap();
        }
    }
    text
}

fn secret(kind: &str) -> String {
    kind.to_uppercase().replace('-', "_")
}

/// Starts a simulated Dify, which ends with the tests.
fn simulate() -> SocketAddr {
    let (tell, told) = channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            tidegate_fakes::serve(listener).await.unwrap();
        });
    });
    told.recv().unwrap()
}

struct Answer {
    status: u16,
    media: String,
    body: String,
}

/// Asks in words that nobody answers in chunks.
fn send(address: SocketAddr, path: &str, key: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    stream
}

fn ask(address: SocketAddr, path: &str, key: &str, body: &str) -> Answer {
    let mut answer = String::new();
    let mut stream = send(address, path, key, body);
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    let media = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "));
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        media: media.unwrap_or_default().into(),
        body: body.into(),
    }
}

struct Gateway {
    process: Child,
    address: SocketAddr,
    records: Receiver<String>,
}

impl Gateway {
    fn start(file: &std::path::Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(file);
        for kind in KINDS.map(|(kind, _)| kind).into_iter().chain(AGENTS) {
            command.env(secret(kind), format!("app-{kind}"));
        }
        let mut process = command
            .env("TEST_KEY", "k")
            .env_remove("TIDEGATE_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut complaints = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        complaints.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.expect(&line).parse().unwrap();
        let (tell, records) = channel();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // Nobody may wait for them, and a pipe holds only so many.
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| tell.send(line))
        });
        Self {
            process,
            address,
            records,
        }
    }

    /// What the next request has come to.
    fn record(&self) -> Value {
        let line = self.records.recv_timeout(Duration::from_secs(20)).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
