//! Callers by TLS: what they are shown, and that a new certificate takes the place of the old one without anybody noticing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on is over"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use tempfile::{TempDir, tempdir};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};

const WAIT: Duration = Duration::from_secs(10);

const ASK: &str = "GET /e/hook?x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n";

type Stream = StreamOwned<ClientConnection, TcpStream>;

#[test]
fn callers_by_tls_are_served() {
    let mut gateway = Gateway::start();
    for version in [&TLS12, &TLS13] {
        let mut caller = gateway.connect(&gateway.shown, &[version]);
        assert!(ask(&mut caller).ends_with("200 OK"), "{version:?}");
        // The next one comes over the same connection.
        assert!(ask(&mut caller).ends_with("200 OK"), "{version:?}");
        assert_eq!(caller.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    let asked = gateway.seen.recv_timeout(WAIT).unwrap().to_lowercase();
    for line in [
        "x-forwarded-proto: https\r\n",
        "x-forwarded-port: 443\r\n",
        "x-forwarded-host: localhost\r\n",
        "dify-hook-url: https://localhost/e/hook?x=1\r\n",
    ] {
        assert!(asked.contains(line), "{line} in {asked}");
    }

    // Whoever believes somebody else, or speaks something else, is not served; and nobody waits for those who say nothing.
    let silent: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(gateway.address).unwrap())
        .collect();
    let (other, _) = certificate();
    let mut caller = gateway.connect(&other, &[&TLS13]);
    assert!(caller.write_all(ASK.as_bytes()).is_err());
    let mut plain = TcpStream::connect(gateway.address).unwrap();
    plain.write_all(ASK.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let mut caller = gateway.connect(&gateway.shown, &[&TLS13]);
    assert!(ask(&mut caller).ends_with("200 OK"));
    drop(silent);

    // One that is told to stop says so to those whom it serves.
    drop(gateway.process.stdin.take());
    let mut rest = Vec::new();
    caller.read_to_end(&mut rest).unwrap();
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_connection_by_tls_becomes_a_websocket() {
    let gateway = Gateway::start();
    let mut caller = gateway.connect(&gateway.shown, &[&TLS13]);
    let ask = "GET /socket.io/ HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    caller.write_all(ask.as_bytes()).unwrap();
    assert!(head(&mut caller).starts_with("HTTP/1.1 101 "));
    for word in ["one", "two"] {
        caller.write_all(word.as_bytes()).unwrap();
        let mut heard = [0; 3];
        caller.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word.as_bytes());
    }
}

#[test]
fn a_new_certificate_is_shown_to_whoever_comes_next() {
    let mut gateway = Gateway::start();
    let mut early = gateway.connect(&gateway.shown, &[&TLS13]);
    assert!(ask(&mut early).ends_with("200 OK"));

    // One after the other, as tools write them: what does not belong together is never shown.
    let (next, key) = certificate();
    fs::write(gateway.file("cert.pem"), &next).unwrap();
    gateway.says("what was read before stays");
    let mut still = gateway.connect(&gateway.shown, &[&TLS13]);
    assert!(ask(&mut still).ends_with("200 OK"));
    fs::write(gateway.file("key.pem"), key).unwrap();
    gateway.says("was read again");
    gateway.shows(&next);

    // At once, where it is asked for.
    let (last, key) = certificate();
    fs::write(gateway.file("cert.pem"), &last).unwrap();
    fs::write(gateway.file("key.pem"), key).unwrap();
    let id = gateway.process.id().to_string();
    let told = Command::new("kill").args(["-HUP", &id]).status();
    assert!(told.unwrap().success());
    gateway.says("was read again");
    gateway.shows(&last);

    // Whoever was there before has noticed nothing.
    assert!(ask(&mut early).ends_with("200 OK"));
    assert!(ask(&mut still).ends_with("200 OK"));
}

#[test]
fn it_does_not_start_with_what_it_cannot_show_and_check_says_so() {
    let (certificate, _) = certificate();
    let (_, key) = self::certificate();
    for (certificate, key, says) in [
        (None, Some(key.as_str()), "cert.pem: No such file"),
        (Some(certificate.as_str()), None, "key.pem: No such file"),
        (Some(&certificate), Some(&key), "cert.pem: "),
        (Some("nonsense"), Some(&key), "cert.pem: "),
        (Some(&certificate), Some("nonsense"), "key.pem: "),
        (Some(&key), Some(&key), "cert.pem: "),
    ] {
        let dir = tempdir().unwrap();
        let file = write(dir.path(), "127.0.0.1:1".parse().unwrap());
        for (name, text) in [("cert.pem", certificate), ("key.pem", key)] {
            if let Some(text) = text {
                fs::write(dir.path().join(name), text).unwrap();
            }
        }
        let mut check = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        check.arg("check").arg(&file);
        for mut command in [command(&file), check] {
            let output = command.stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains(says), "{said}");
            assert!(
                !said.contains("PRIVATE") && !said.contains("nonsense"),
                "{said}"
            );
        }
    }
}

/// A certificate for `localhost` that vouches for itself, and its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// The status line of the answer to one request.
fn ask(caller: &mut Stream) -> String {
    caller.write_all(ASK.as_bytes()).unwrap();
    let head = head(caller);
    caller.read_exact(&mut [0; 2]).unwrap();
    head.lines().next().unwrap_or_default().to_owned()
}

fn head(stream: &mut impl Read) -> String {
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

/// An upstream that answers and switches, and what it was asked.
fn upstream() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = mpsc::channel();
    // It ends with the tests.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let sender = sender.clone();
            thread::spawn(move || {
                let asked = head(&mut stream);
                let _ = sender.send(asked.clone());
                if !asked.contains("upgrade: websocket") {
                    let answer =
                        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                    let _ = stream.write_all(answer.as_bytes());
                    return;
                }
                let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
                stream.write_all(answer.as_bytes()).unwrap();
                let mut piece = [0; 100];
                while let Ok(read @ 1..) = stream.read(&mut piece) {
                    stream.write_all(&piece[..read]).unwrap();
                }
            });
        }
    });
    (address, seen)
}

fn write(dir: &Path, upstream: SocketAddr) -> std::path::PathBuf {
    let file = dir.join("tidegate.toml");
    let text = format!(
        "[gateway]\ndata_dir = \"data\"\ntls = {{ certificate = \"cert.pem\", key = \"key.pem\" }}\n\n[dify.main]\n\
         api = \"http://{upstream}\"\nplugin_daemon = \"http://{upstream}\"\n\n[[routes]]\nname = \"dify\"\npath = \"/\"\n\
         serve = \"dify.main\"\naccess = \"public\"\n"
    );
    fs::write(&file, text).unwrap();
    file
}

fn command(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--until-stdin-closes"])
        .arg("--config")
        .arg(file);
    command
}

struct Gateway {
    dir: TempDir,
    process: Child,
    address: SocketAddr,
    complaints: BufReader<ChildStderr>,
    seen: Receiver<String>,
    /// The certificate that it shows at first.
    shown: String,
}

impl Gateway {
    fn start() -> Self {
        let dir = tempdir().unwrap();
        let (upstream, seen) = upstream();
        let (shown, key) = certificate();
        fs::write(dir.path().join("cert.pem"), &shown).unwrap();
        fs::write(dir.path().join("key.pem"), key).unwrap();
        let mut process = command(&write(dir.path(), upstream))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut complaints = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        complaints.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on https://");
        Self {
            dir,
            address: address.expect(&line).parse().unwrap(),
            process,
            complaints,
            seen,
            shown,
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A caller who believes `certificate`.
    fn connect(
        &self,
        certificate: &str,
        versions: &[&'static tokio_rustls::rustls::SupportedProtocolVersion],
    ) -> Stream {
        use tokio_rustls::rustls::pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        StreamOwned::new(client, stream)
    }

    /// Waits until every thread shows `certificate`.
    fn shows(&self, certificate: &str) {
        let shown = || {
            let mut caller = self.connect(certificate, &[&TLS13]);
            caller.write_all(ASK.as_bytes()).is_ok() && head(&mut caller).contains("200 OK")
        };
        for _ in 0..100 {
            if (0..10).all(|_| shown()) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("it is never shown");
    }

    /// Reads what it complains of until that is said.
    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        while !line.contains(expected) {
            line.clear();
            let read = self.complaints.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "it ended and never said: {expected}");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
