//! Connections that become WebSockets: what passes, what does not, and what is on record.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on is over"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::tempdir;

const WAIT: Duration = Duration::from_secs(10);

/// What a browser says; `EXTRA` are more headers.
const ASK: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: dify.example.com\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: chat\r\nOrigin: https://dify.example.com\r\nCookie: session=s\r\n";

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\nX-Version: 1.9.0\r\n\r\n";

#[test]
fn what_either_end_sends_arrives_at_the_other() {
    let dir = tempdir().unwrap();
    let (upstream, seen) = upstream(|mut stream, _| {
        stream.write_all(SWITCHED.as_bytes()).unwrap();
        stream.write_all(b"first").unwrap();
        // As an echo does, until nothing more comes.
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..read]).unwrap();
            if piece[..read].ends_with(b"bye") {
                return;
            }
        }
    });
    let mut gateway = Gateway::start(dir.path(), upstream, "", "public");
    let mut caller = gateway.connect();
    // What is sent before the answer is there is the WebSocket's.
    let ask = format!("{ASK}X-Forwarded-For: 6.6.6.6\r\nCf-Connecting-Ip: 6.6.6.6\r\n\r\nearly");
    caller.write_all(ask.as_bytes()).unwrap();
    let head = head(&mut caller);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let said = head.to_lowercase();
    for line in [
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
        "sec-websocket-protocol: chat\r\n",
        "x-tidegate-route: dify\r\n",
        "x-tidegate-served-by: dify.main:websocket\r\n",
    ] {
        assert!(said.contains(line), "{line} in {head}");
    }
    for name in ["x-version", "content-length", "transfer-encoding"] {
        assert!(!said.contains(name), "{name} in {head}");
    }
    assert_eq!(take(&mut caller, 10), b"firstearly");
    let asked = seen.recv_timeout(WAIT).unwrap().to_lowercase();
    assert!(asked.starts_with("get /socket.io/?eio=4&transport=websocket http/1.1\r\n"));
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n",
        "cookie: session=s\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-host: dify.example.com\r\n",
    ] {
        assert!(asked.contains(line), "{line} in {asked}");
    }
    for name in ["6.6.6.6", "content-length", "transfer-encoding"] {
        assert!(!asked.contains(name), "{name} in {asked}");
    }

    // More than lies in any buffer between, both ways at once.
    let bytes: Vec<u8> = (0..8_000_000_u32).map(|number| number as u8).collect();
    let mut writer = caller.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.write_all(b"bye").unwrap();
    });
    assert!(take(&mut caller, bytes.len()) == bytes);
    assert_eq!(take(&mut caller, 3), b"bye");
    writing.join().unwrap();
    assert_eq!(
        caller.read(&mut [0; 1]).unwrap(),
        0,
        "the upstream has left"
    );
    let record = gateway.record();
    assert_eq!(
        (
            &record["status"],
            &record["ended"],
            &record["served_by"],
            &record["attempts"][0]["outcome"]
        ),
        (
            &101.into(),
            &"whole".into(),
            &"dify.main:websocket".into(),
            &"101".into()
        ),
        "{record}"
    );
    assert_eq!(gateway.stop(), "", "there is one record");
}

#[test]
fn a_place_is_kept_as_long_as_it_lasts() {
    let dir = tempdir().unwrap();
    let (left, leaving) = mpsc::channel();
    let (upstream, _seen) = upstream(move |mut stream, _| {
        stream.write_all(SWITCHED.as_bytes()).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        left.send(rest).unwrap();
    });
    let mut gateway = Gateway::start(
        dir.path(),
        upstream,
        "limits = [{ concurrent = 1 }]",
        "public",
    );
    let mut caller = gateway.connect();
    caller.write_all(format!("{ASK}\r\n").as_bytes()).unwrap();
    assert!(head(&mut caller).starts_with("HTTP/1.1 101 "));
    let refused = gateway.ask(&format!("{ASK}\r\n"));
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert_eq!(gateway.record()["refusal"], "limit_exceeded");

    caller.write_all(b"last words").unwrap();
    drop(caller);
    assert_eq!(leaving.recv_timeout(WAIT).unwrap(), b"last words");
    let record = gateway.record();
    assert_eq!(
        (&record["status"], &record["ended"]),
        (&101.into(), &"abandoned".into()),
        "{record}"
    );
    let mut another = gateway.connect();
    another.write_all(format!("{ASK}\r\n").as_bytes()).unwrap();
    assert!(head(&mut another).starts_with("HTTP/1.1 101 "));

    // The gateway leaves as well, when it has to.
    gateway.hang_up();
    let mut rest = Vec::new();
    another.set_read_timeout(Some(3 * WAIT)).unwrap();
    another.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    assert_eq!(gateway.record()["ended"], "abandoned");
}

#[test]
fn whoever_is_not_let_in_does_not_switch() {
    let dir = tempdir().unwrap();
    let (upstream, seen) = upstream(|_, _| ());
    let mut gateway = Gateway::start(dir.path(), upstream, "", "consumers");
    let answer = gateway.ask(&format!("{ASK}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("\"code\":\"unauthorized\""), "{answer}");
    assert_eq!(gateway.record()["ended"], "refused");
    assert!(seen.try_recv().is_err(), "nobody was asked");
}

#[test]
fn an_upstream_that_does_not_switch_answers_as_to_any_other_request() {
    let dir = tempdir().unwrap();
    let (upstream, seen) = upstream(|mut stream, asked| {
        let said = if asked.contains("/socket.io/") {
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"
        } else {
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nnext"
        };
        stream.write_all(said.as_bytes()).unwrap();
    });
    let mut gateway = Gateway::start(dir.path(), upstream, "", "public");
    // What looks like the WebSocket's is a request of its own, which goes through every stage.
    let next = "GET /threads HTTP/1.1\r\nhost: a\r\n\r\nGET /api/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answers = gateway.say(&format!("{ASK}\r\n{next}"));
    assert!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
    assert_eq!(gateway.record()["status"], 400);
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(statuses.len(), 3, "{answers}");
    assert!(statuses[1].starts_with("404 "), "{answers}");
    assert!(statuses[2].starts_with("200 "), "{answers}");
    while let Ok(asked) = seen.try_recv() {
        assert!(!asked.contains("/threads"), "{asked}");
    }
}

#[test]
fn what_is_only_half_asked_for_or_elsewhere_is_an_ordinary_request() {
    let dir = tempdir().unwrap();
    let (upstream, seen) = upstream(|mut stream, _| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    });
    let gateway = Gateway::start(dir.path(), upstream, "", "public");
    let ask = format!("{ASK}\r\n").replace("keep-alive, Upgrade", "close, Upgrade");
    for (from, to) in [
        ("/socket.io/", "/api/socket.io/"),
        ("/socket.io/", "/socket.iox/"),
        ("/socket.io/", "/v1/info"),
        ("/socket.io/", "/apps"),
        ("Version: 13", "Version: 1337"),
        (
            "Version: 13\r\n",
            "Version: 13\r\nSec-WebSocket-Version: 13\r\n",
        ),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Upgrade: websocket", "Upgrade: websocket, h2c"),
        (
            "Upgrade: websocket\r\n",
            "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        ),
        ("close, Upgrade", "close"),
        ("GET ", "POST "),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Cookie: session=s\r\n", "Content-Length: 0\r\n"),
        ("Cookie: session=s\r\n\r\n", "Content-Length: 3\r\n\r\nabc"),
        (
            "Cookie: session=s\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        assert!(ask.contains(from), "{from}");
        let answer = gateway.ask(&ask.replace(from, to));
        assert!(answer.contains(" 200 OK\r\n"), "{to}: {answer}");
        let asked = seen.recv_timeout(WAIT).unwrap().to_lowercase();
        let names: Vec<_> = asked
            .lines()
            .skip(1)
            .filter_map(|line| line.split(':').next())
            .collect();
        assert!(
            !names.contains(&"upgrade") && !names.contains(&"connection"),
            "{to}: {asked}"
        );
        if !to.contains("Content") && !to.contains("Transfer") {
            assert!(!names.contains(&"transfer-encoding"), "{to}: {asked}");
        }
    }
}

#[test]
fn a_caller_who_says_no_more_is_taken_to_have_left() {
    let dir = tempdir().unwrap();
    let (left, leaving) = mpsc::channel();
    let (upstream, _seen) = upstream(move |mut stream, _| {
        stream.write_all(SWITCHED.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        left.send(()).unwrap();
    });
    let mut gateway = Gateway::start(dir.path(), upstream, "", "public");
    let mut caller = gateway.connect();
    caller.write_all(format!("{ASK}\r\n").as_bytes()).unwrap();
    head(&mut caller);
    caller.shutdown(Shutdown::Write).unwrap();
    leaving.recv_timeout(WAIT).unwrap();
    assert_eq!(caller.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(gateway.record()["ended"], "abandoned");
}

/// Reads a head, and not a byte more.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn take(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// An upstream that does this with each request, and what it was asked.
fn upstream(
    serve: impl Fn(TcpStream, &str) + Clone + Send + 'static,
) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = mpsc::channel();
    // It ends with the tests.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (serve, sender) = (serve.clone(), sender.clone());
            thread::spawn(move || {
                let asked = head(&mut stream);
                let _ = sender.send(asked.clone());
                serve(stream, &asked);
            });
        }
    });
    (address, seen)
}

struct Gateway {
    process: Child,
    address: SocketAddr,
    records: BufReader<ChildStdout>,
}

impl Gateway {
    /// A gateway before a Dify at `upstream`, with `more` said of its route.
    fn start(dir: &Path, upstream: SocketAddr, more: &str, access: &str) -> Self {
        let file = dir.join("tidegate.toml");
        let text = format!(
            "[gateway]\ndata_dir = \"data\"\n\n[dify.main]\napi = \"http://{upstream}\"\nweb = \"http://{upstream}\"\n\
             websocket = \"http://{upstream}\"\n\n[[routes]]\nname = \"dify\"\npath = \"/\"\nserve = \"dify.main\"\n\
             access = \"{access}\"\n{more}\n"
        );
        fs::write(&file, text).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--until-stdin-closes"])
            .arg("--config")
            .arg(&file)
            .env("TIDEGATE_LOG", "json")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        Self {
            address: address.expect(&line).parse().unwrap(),
            records: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream
    }

    /// The answer to `request`, which may leave the connection open.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let head = head(&mut stream);
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        head + &String::from_utf8(take(&mut stream, length)).unwrap()
    }

    /// All that is answered to `requests`, the last of which closes the connection.
    fn say(&self, requests: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        answers
    }

    fn record(&mut self) -> Value {
        let mut line = String::new();
        self.records.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect(&line)
    }

    fn hang_up(&mut self) {
        drop(self.process.stdin.take());
    }

    /// What it has still to say.
    fn stop(&mut self) -> String {
        self.hang_up();
        let mut rest = String::new();
        self.records.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
