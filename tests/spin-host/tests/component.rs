//! What only several instances of the component, on one database, can show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails, and waits by the clock"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Barrier, OnceLock},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

#[test]
fn exactly_as_many_pass_as_the_limit_says() {
    let state = folder("limit");
    pass_exactly_fifty(&state, &config(&json!([{ "requests": 50, "per": "1h" }])));
}

#[test]
fn exactly_as_many_pass_as_the_limit_says_when_redis_keeps_the_accounts() {
    let state = folder("redis");
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut redis = Command::new("redis-server")
        .args([
            "--save",
            "",
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is there: `cargo xtask setup` installs it");
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err()
        && began.elapsed() < Duration::from_secs(10)
    {
        thread::sleep(Duration::from_millis(20));
    }
    let mut config = config(&json!([{ "requests": 50, "per": "1h" }]));
    config["gateway"] = json!({ "store": format!("redis://127.0.0.1:{port}") });
    let outcome = std::panic::catch_unwind(|| pass_exactly_fifty(&state, &config));
    redis.kill().unwrap();
    redis.wait().unwrap();
    outcome.unwrap();
    assert!(
        !state.join("sqlite_db.db").exists(),
        "the accounts went to SQLite"
    );
}

/// Calls two processes, each with as many instances as it takes, sixteen callers to an instance.
fn pass_exactly_fifty(state: &Path, config: &Value) {
    let hosts = [Host::start(state, config), Host::start(state, config)];
    let ports: Vec<_> = hosts.iter().map(|host| host.port).collect();
    let together = Arc::new(Barrier::new(400));
    let began = Instant::now();
    let callers: Vec<_> = (0..400)
        .map(|caller| {
            let (port, together) = (ports[caller % ports.len()], together.clone());
            thread::spawn(move || {
                together.wait();
                ask(port).0
            })
        })
        .collect();
    let statuses: Vec<_> = callers
        .into_iter()
        .map(|caller| caller.join().unwrap())
        .collect();
    println!("400 callers were answered in {:?}", began.elapsed());
    let count = |status| statuses.iter().filter(|is| **is == status).count();
    assert_eq!((count(200), count(429)), (50, 350), "{statuses:?}");
}

#[test]
fn accounts_that_have_run_out_are_forgotten() {
    let state = folder("sweep");
    let config = config(&json!([{ "requests": 50, "per": "1h" }]));
    {
        let host = Host::start(&state, &config);
        assert_eq!(ask(host.port).0, 200);
    }
    let database = rusqlite::Connection::open(state.join("sqlite_db.db")).unwrap();
    for id in 0..100 {
        let old = "INSERT INTO accounts (id, version, state, expires) VALUES (?, 1, '{}', 1000)";
        database.execute(old, [format!("old-{id}")]).unwrap();
    }
    let host = Host::start(&state, &config);
    assert_eq!(ask(host.port).0, 200);
    let left = || -> u32 {
        database
            .query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))
            .unwrap()
    };
    let began = Instant::now();
    while left() > 1 && began.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(left(), 1, "only the account that is in use is to be kept");
}

#[test]
fn a_wrong_configuration_says_what_is_wrong_and_no_secret() {
    let mut config = config(&json!([{ "requests": 50, "per": "1h" }]));
    config["routes"][0]["serve"] = "modles".into();
    let host = Host::start(&folder("wrong"), &config);
    let (status, answer) = ask(host.port);
    assert_eq!(status, 500);
    assert!(answer.contains("routes[0].serve"), "{answer}");
    assert!(!answer.contains(SECRET), "{answer}");
}

const SECRET: &str = "open-sesame";

fn config(limits: &Value) -> Value {
    json!({
        "consumers": [{ "name": "web", "keys": ["$WEB_KEY"], "limits": limits }],
        "providers": { "fake": { "dialect": "openai", "base_url": format!("http://127.0.0.1:{}/v1", upstream()) } },
        "models": { "m": { "targets": ["fake/m"] } },
        "routes": [{ "name": "llm", "path": "/v1", "serve": "models" }],
    })
}

/// Calls the gateway; gives the status and everything that came.
fn ask(port: u16) -> (u16, String) {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {SECRET}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (status.parse().unwrap(), answer)
}

/// A process of the host; it ends with its standard input.
struct Host {
    port: u16,
    child: Child,
    _stdin: Option<ChildStdin>,
}

impl Host {
    fn start(state: &Path, config: &Value) -> Self {
        let file = state.join("tidegate.json");
        fs::write(&file, config.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate-spin-host"))
            .arg("--component")
            .arg(component())
            .arg("--config")
            .arg(file)
            .arg("--state")
            .arg(state)
            .args(["--listen", "127.0.0.1:0", "--until-stdin-closes"])
            .env("SPIN_VARIABLE_WEB_KEY", SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let port = line
            .trim()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the host did not start: {line}"));
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::stderr()));
        Self {
            port,
            _stdin: child.stdin.take(),
            child,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The component: `TIDEGATE_SPIN_WASM`, or built here.
fn component() -> &'static Path {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        if let Some(path) = std::env::var_os("TIDEGATE_SPIN_WASM") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .unwrap();
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--locked",
                "--release",
                "--target",
                "wasm32-wasip2",
                "-p",
                "tidegate-spin",
            ])
            .current_dir(root)
            .status();
        assert!(built.unwrap().success(), "the component does not build");
        target.join("wasm32-wasip2/release/tidegate_spin.wasm")
    })
}

/// An empty folder.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spin-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A provider that answers everything; gives its port.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(&stream.unwrap()));
        }
    });
    port
}

fn answer(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let answer = r#"{"id":"1","object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hi"}}]}"#;
    loop {
        let mut length = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? <= 2 {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            }
        }
        // A connection that closes has no length, and neither has a body that was cut into pieces needlessly.
        let mut body = vec![0; length?];
        reader.read_exact(&mut body).ok()?;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
        write!(stream, "{head}: {}\r\n\r\n{answer}", answer.len()).ok()?;
    }
}
