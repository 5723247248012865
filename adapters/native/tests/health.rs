//! An installation that is asked how it does: whoever says that it is ill is not asked for anything else, before anybody has tried.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on is over"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "how long a real process takes is told by a real clock"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::tempdir;

const WAIT: Duration = Duration::from_secs(20);

#[test]
fn whoever_says_that_it_is_ill_is_stepped_in_for_until_it_is_well() {
    let dir = tempdir().unwrap();
    let (main, backup) = (Upstream::start("main"), Upstream::start("backup"));
    let every = r#"health = { every = "1s" }"#;
    let gateway = Gateway::start(&write(dir.path(), &main, &backup, every));
    gateway.is_served_by("main");
    main.is_ill.store(true, Ordering::Relaxed);
    gateway.is_served_by("backup");
    let asked = main.asked.load(Ordering::Relaxed);
    gateway.is_served_by("backup");
    assert_eq!(main.asked.load(Ordering::Relaxed), asked, "nobody tries");
    main.is_ill.store(false, Ordering::Relaxed);
    gateway.is_served_by("main");
}

#[test]
fn an_app_is_asked_with_its_key_and_a_new_file_asks_anew() {
    let dir = tempdir().unwrap();
    let (main, backup) = (Upstream::start("main"), Upstream::start("backup"));
    let deep = r#"health = { every = "1s", app = "support" }"#;
    main.is_deeply_ill.store(true, Ordering::Relaxed);
    let gateway = Gateway::start(&write(dir.path(), &main, &backup, deep));
    gateway.is_served_by("backup");
    // What is asked of the process alone is answered.
    write(dir.path(), &main, &backup, r#"health = { every = "1s" }"#);
    gateway.is_served_by("main");
}

/// A configuration in `dir` with two installations, of which the first is asked how it does.
fn write(dir: &Path, main: &Upstream, backup: &Upstream, health: &str) -> PathBuf {
    let file = dir.join("tidegate.toml");
    let text = format!(
        "[gateway]\ndata_dir = \"data\"\n\n\
         [dify.main]\napi = \"http://{}\"\n{health}\n[dify.main.apps.support]\nkey = \"$TEST_KEY\"\n\n\
         [dify.backup]\napi = \"http://{}\"\n[dify.backup.apps.support]\nkey = \"$TEST_KEY\"\n\n\
         [[routes]]\nname = \"r\"\nserve = [\"dify.main/support\", \"dify.backup/support\"]\naccess = \"public\"\n",
        main.address, backup.address
    );
    fs::write(&file, text).unwrap();
    file
}

/// An installation that answers everything with its name, and says how it does.
struct Upstream {
    address: SocketAddr,
    is_ill: Arc<AtomicBool>,
    is_deeply_ill: Arc<AtomicBool>,
    /// How often it was asked for anything else.
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            is_ill: Arc::default(),
            is_deeply_ill: Arc::default(),
            asked: Arc::default(),
        };
        let (is_ill, is_deeply_ill) = (upstream.is_ill.clone(), upstream.is_deeply_ill.clone());
        let asked = upstream.asked.clone();
        // It ends with the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = read_head(&mut stream);
                let is_well = if head.starts_with("GET /health ") {
                    !is_ill.load(Ordering::Relaxed)
                } else if head.starts_with("GET /v1/parameters ") {
                    assert!(head.contains("authorization: Bearer app-k"), "{head}");
                    !is_deeply_ill.load(Ordering::Relaxed)
                } else {
                    asked.fetch_add(1, Ordering::Relaxed);
                    true
                };
                let status = if is_well { "200 OK" } else { "503 Ill" };
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n\"{name}\"",
                    name.len() + 2
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        upstream
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

struct Gateway {
    process: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(file: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(file)
            .env("TEST_KEY", "app-k")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(process.stderr.take().unwrap());
        said.read_line(&mut line).unwrap();
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .expect(&line);
        let address = address.parse().unwrap();
        Self { process, address }
    }

    /// Asks until `name` answers.
    fn is_served_by(&self, name: &str) {
        let began = Instant::now();
        loop {
            let answer = self.ask();
            if answer.ends_with(&format!("\"{name}\"")) {
                return;
            }
            assert!(began.elapsed() < WAIT, "not by {name}: {answer}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn ask(&self) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let request = "GET /info HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
