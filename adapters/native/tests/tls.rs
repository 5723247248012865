//! Upstreams behind TLS: those whom the machine believes are asked, others are not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on is over"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use tempfile::tempdir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

#[test]
fn an_upstream_is_asked_if_its_certificate_is_believed() {
    let dir = tempdir().unwrap();
    let (upstream, certificate) = upstream();
    let believed = dir.path().join("believed.pem");
    fs::write(&believed, certificate).unwrap();
    let answer = ask(dir.path(), upstream, &believed);
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n")
            && answer.ends_with("{\"choices\":[{}],\"alpn\":\"http/1.1\"}"),
        "{answer}"
    );

    let other = dir.path().join("other.pem");
    fs::write(&other, self_signed().0).unwrap();
    let answer = ask(dir.path(), upstream, &other);
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

/// What a gateway answers that has one provider, at `upstream`, and believes the certificates in `believed`.
fn ask(dir: &Path, upstream: SocketAddr, believed: &Path) -> String {
    let file = dir.join("tidegate.toml");
    let text = format!(
        "[providers.p]\ndialect = \"openai\"\nbase_url = \"https://localhost:{}/v1\"\n\n[models.m]\ntargets = [\"p/m\"]\n\n\
         [[routes]]\nname = \"llm\"\npath = \"/v1\"\nserve = \"models\"\naccess = \"public\"\n",
        upstream.port()
    );
    fs::write(&file, text).unwrap();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--until-stdin-closes",
            "--config",
        ])
        .arg(&file)
        .env("SSL_CERT_FILE", believed)
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(gateway.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .strip_prefix("listening on http://")
        .expect(&line);
    let mut caller = TcpStream::connect(address).unwrap();
    caller
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let chat = "{\"model\":\"m\",\"messages\":[]}";
    write!(
        caller,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{chat}",
        chat.len()
    )
    .unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    drop(gateway.stdin.take());
    gateway.wait().unwrap();
    answer
}

/// An upstream behind TLS that tells which protocol was agreed on, and its certificate as PEM.
fn upstream() -> (SocketAddr, String) {
    let (certificate, config) = self_signed();
    let (sender, receiver) = std::sync::mpsc::channel();
    // It ends with the tests.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Who does not believe the certificate ends it here.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let agreed = stream.get_ref().1.alpn_protocol().map(String::from_utf8_lossy).unwrap_or_default();
                let body = format!("{{\"choices\":[{{}}],\"alpn\":\"{agreed}\"}}");
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
                let answer = format!("{head} {}\r\n\r\n{body}", body.len());
                let _ = stream.read(&mut [0; 16 << 10]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
    });
    (receiver.recv().unwrap(), certificate)
}

fn self_signed() -> (String, ServerConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (made.cert.pem(), config)
}
