//! The process as operators and callers meet it: starting, stopping, reloading, dying, and callers who leave.

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
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::tempdir;

const WAIT: Duration = Duration::from_secs(10);

#[test]
fn it_serves_records_and_stops_when_standard_input_closes() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(FINE);
    let mut gateway = Gateway::start(
        &write(dir.path(), upstream.address, 100),
        &["--until-stdin-closes"],
    );
    let answer = gateway.ask("/v1/models");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop(gateway.process.stdin.take());
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
    let mut records = String::new();
    gateway.records.read_to_string(&mut records).unwrap();
    let lines: Vec<_> = records.lines().collect();
    assert_eq!(lines.len(), 1, "{records}");
    let record: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(
        (&record["route"], &record["status"]),
        (&"llm".into(), &200.into())
    );
}

#[test]
fn a_limit_outlives_a_kill() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(FINE);
    let file = write(dir.path(), upstream.address, 3);
    let gateway = Gateway::start(&file, &[]);
    for _ in 0..3 {
        assert_eq!(status(&gateway.chat()), 200);
    }
    // Dropping it kills it, with no time to tidy up.
    drop(gateway);
    let gateway = Gateway::start(&file, &[]);
    assert_eq!(status(&gateway.chat()), 429);
}

#[test]
fn an_answer_that_runs_is_finished_when_the_process_is_to_stop() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering_after(Duration::from_millis(700), FINE);
    let mut gateway = Gateway::start(&write(dir.path(), upstream.address, 100), &[]);
    let mut caller = gateway.connect();
    caller.write_all(CHAT.as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(200));
    signal(&gateway, "TERM");
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stream_that_does_not_end_is_cut_off_and_on_record() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n",
    );
    let mut gateway = Gateway::start(&write(dir.path(), upstream.address, 100), &[]);
    let mut caller = gateway.connect();
    caller.set_read_timeout(Some(2 * WAIT)).unwrap();
    let chat = CHAT.replace("\"messages\": []", "\"stream\": true");
    caller.write_all(chat.as_bytes()).unwrap();
    caller.read_exact(&mut [0; 12]).unwrap();
    thread::sleep(Duration::from_millis(200));
    signal(&gateway, "TERM");
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
    let mut records = String::new();
    gateway.records.read_to_string(&mut records).unwrap();
    let record: serde_json::Value = serde_json::from_str(&records).unwrap();
    assert_eq!(record["ended"], "abandoned", "{records}");
    // What it had cost by then is on it.
    assert_eq!(record["tokens_out"], 4, "{records}");
}

#[test]
fn it_goes_on_when_nobody_hears_what_it_says() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(FINE);
    let file = write(dir.path(), upstream.address, 100);
    let mut gateway = Gateway::start(&file, &[]);
    // The end that reads what it writes is closed by that.
    gateway.complaints = BufReader::new(Box::new(std::io::empty()));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("path = \"/v1\"", "path = \"/v2\"")).unwrap();
    signal(&gateway, "HUP");
    for _ in 0..100 {
        if status(&gateway.ask("/v2/models")) == 200 {
            signal(&gateway, "TERM");
            assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("it was never read again");
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(FINE);
    let file = write(dir.path(), upstream.address, 100);
    let mut gateway = Gateway::start(&file, &[]);
    let text = fs::read_to_string(&file).unwrap();
    let new = text.replace("path = \"/v1\"", "path = \"/v2\"");
    // An editor that is slower than the looks: whatever is there at one of them is cut off.
    for cut in 1..16 {
        fs::write(&file, new.get(..new.len() / 16 * cut).unwrap()).unwrap();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(status(&gateway.ask("/v1/models")), 200);
    }
    fs::write(&file, &new).unwrap();
    let mut line = String::new();
    gateway.complaints.read_line(&mut line).unwrap();
    assert!(line.contains("was read again"), "{line}");
    assert_eq!(status(&gateway.ask("/v2/models")), 200);
}

#[test]
fn a_target_in_absolute_form_is_served_as_a_path() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(FINE);
    let gateway = Gateway::start(&write(dir.path(), upstream.address, 100), &[]);
    let answer = gateway.say(
        "GET https://somewhere/v1/models HTTP/1.1\r\nhost: a b\r\nconnection: close\r\nauthorization: Bearer k\r\n\r\n",
    );
    assert_eq!(status(&answer), 200, "{answer}");
}

#[test]
fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(FINE);
    let file = write(dir.path(), upstream.address, 100);
    let mut gateway = Gateway::start(&file, &[]);
    assert_eq!(status(&gateway.ask("/v2/models")), 404);

    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("path = \"/v1\"", "path = \"/v2\"")).unwrap();
    gateway.says("was read again");
    assert_eq!(status(&gateway.ask("/v2/models")), 200);
    assert_eq!(status(&gateway.ask("/v1/models")), 404);

    fs::write(&file, "[gateway").unwrap();
    gateway.says("what was read before stays");
    assert_eq!(status(&gateway.ask("/v2/models")), 200);

    fs::write(&file, &text).unwrap();
    gateway.says("was read again");
    signal(&gateway, "HUP");
    gateway.says("was read again");
    assert_eq!(status(&gateway.ask("/v1/models")), 200);
}

#[test]
fn a_second_process_takes_neither_the_data_nor_the_port() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(FINE);
    let file = write(dir.path(), upstream.address, 100);
    let gateway = Gateway::start(&file, &[]);
    let output = command(&file)
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use by another tidegate"));

    let other = tempdir().unwrap();
    let file = write(other.path(), upstream.address, 100);
    let output = command(&file)
        .args(["--listen", &gateway.address.to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot listen on"));
}

#[test]
fn a_caller_who_leaves_ends_what_it_asked_for() {
    let dir = tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(
        &write(dir.path(), listener.local_addr().unwrap(), 1000),
        &[],
    );
    let streamed = CHAT.replace("\"messages\": []", "\"stream\": true");
    let begun = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let role = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{";
    for (when, chat, said) in [
        ("before the head of an answer", CHAT, ""),
        ("before the head of a stream", &streamed, ""),
        ("before the first content", &streamed, role),
        ("in the middle of an answer", CHAT, half),
        ("in the middle of a stream", &streamed, begun),
    ] {
        let mut heard: Vec<_> = (0..9)
            .map(|_| heard_that_nobody_waits(&listener, &gateway, chat, said))
            .collect();
        heard.sort();
        let median = heard[heard.len() / 2];
        println!("a caller left {when}: the upstream heard it after {median:?}, in the median");
        // It is a matter of milliseconds; the machine may have other things to do.
        assert!(median < Duration::from_secs(1), "{when}: {heard:?}");
    }
}

/// Asks `chat` of an upstream that falls silent once it has `said` something, leaves, and tells how long the upstream did not know.
fn heard_that_nobody_waits(
    listener: &TcpListener,
    gateway: &Gateway,
    chat: &str,
    said: &str,
) -> Duration {
    let mut caller = gateway.connect();
    caller.write_all(chat.as_bytes()).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.set_read_timeout(Some(WAIT)).unwrap();
    read_request(&mut upstream);
    upstream.write_all(said.as_bytes()).unwrap();
    if said.contains("content\"") {
        caller.read_exact(&mut [0; 12]).unwrap();
    }
    // All that was said is read.
    thread::sleep(Duration::from_millis(50));
    let left = Instant::now();
    drop(caller);
    let heard = upstream.read(&mut [0; 64]);
    let after = left.elapsed();
    assert!(
        matches!(heard, Ok(0))
            || heard.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    after
}

#[test]
fn bad_requests_are_refused_and_the_next_one_is_answered() {
    let dir = tempdir().unwrap();
    let upstream = Upstream::answering(FINE);
    let gateway = Gateway::start(&write(dir.path(), upstream.address, 100), &[]);
    let long = format!(
        "GET /v1/models HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n",
        "b".repeat(200_000)
    );
    let many = format!(
        "GET /v1/models HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    let lengths =
        "POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab";
    for (request, expected) in [
        (long.as_str(), 431),
        (&many, 431),
        (lengths, 400),
        ("\0\0\0\0\r\n\r\n", 400),
    ] {
        let mut caller = gateway.connect();
        // It may be refused before all of it is written.
        let _ = caller.write_all(request.as_bytes());
        let mut answer = vec![0; 12];
        caller.read_exact(&mut answer).unwrap();
        assert_eq!(status(&String::from_utf8(answer).unwrap()), expected);
        assert_eq!(status(&gateway.ask("/v1/models")), 200);
    }
}

const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{\"choices\":[{}]}";

const CHAT: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer k\r\n\
    content-type: application/json\r\ncontent-length: 29\r\n\r\n{\"model\":\"m\", \"messages\": []}";

/// A configuration in `dir` with one provider at `upstream` and a limit on its route.
fn write(dir: &Path, upstream: SocketAddr, limit: u32) -> std::path::PathBuf {
    let file = dir.join("tidegate.toml");
    let text = format!(
        "[gateway]\ndata_dir = \"data\"\n\n[[consumers]]\nname = \"c\"\nkeys = [\"$TEST_KEY\"]\n\n\
         [providers.p]\ndialect = \"openai\"\nbase_url = \"http://{upstream}/v1\"\n\n[models.m]\ntargets = [\"p/m\"]\n\n\
         [[routes]]\nname = \"llm\"\npath = \"/v1\"\nserve = \"models\"\nlimits = [{{ requests = {limit}, per = \"1h\" }}]\n"
    );
    fs::write(&file, text).unwrap();
    file
}

/// An upstream that says the same to everybody.
struct Upstream {
    address: SocketAddr,
}

impl Upstream {
    fn answering(answer: &'static str) -> Self {
        Self::answering_after(Duration::ZERO, answer)
    }

    fn answering_after(pause: Duration, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    while read_request(&mut stream) {
                        thread::sleep(pause);
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        Self { address }
    }
}

/// Reads a head and the body that its length declares.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    stream.read_exact(&mut vec![0; length]).is_ok()
}

struct Gateway {
    process: Child,
    address: SocketAddr,
    records: BufReader<ChildStdout>,
    complaints: BufReader<Box<dyn Read>>,
}

impl Gateway {
    fn start(file: &Path, arguments: &[&str]) -> Self {
        let mut process = command(file)
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let records = BufReader::new(process.stdout.take().unwrap());
        let complaints: Box<dyn Read> = Box::new(process.stderr.take().unwrap());
        let mut complaints = BufReader::new(complaints);
        let mut line = String::new();
        complaints.read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .expect(&line)
            .parse()
            .unwrap();
        Self {
            process,
            address,
            records,
            complaints,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream
    }

    fn say(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn ask(&self, path: &str) -> String {
        self.say(&format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer k\r\n\r\n"
        ))
    }

    fn chat(&self) -> String {
        self.say(CHAT)
    }

    /// Reads what it complains of until that is said.
    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        while !line.contains(expected) {
            line.clear();
            assert_ne!(
                self.complaints.read_line(&mut line).unwrap(),
                0,
                "it ended and never said: {expected}"
            );
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .args(["serve", "--config"])
        .arg(file)
        .env("TEST_KEY", "k")
        .env_remove("TIDEGATE_LOG");
    command
}

fn signal(gateway: &Gateway, name: &str) {
    let done = Command::new("kill")
        .args([&format!("-{name}"), &gateway.process.id().to_string()])
        .status()
        .unwrap();
    assert!(done.success());
}

fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.get(..3))
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}
