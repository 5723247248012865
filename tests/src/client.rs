//! A caller who sends any bytes he likes, and sees how the answer came.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{scenario::Call, stage::Reply, wire};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes `call` to the gateway at `port`.
pub fn call(port: u16, call: &Call, secrets: &BTreeMap<String, String>) -> Reply {
    match exchange(port, call, secrets) {
        Ok(reply) => reply,
        Err(error) => Reply {
            trouble: error.to_string(),
            ..Reply::default()
        },
    }
}

fn exchange(port: u16, call: &Call, secrets: &BTreeMap<String, String>) -> io::Result<Reply> {
    let start = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let patience = call.leave_after_ms.map_or(PATIENCE, Duration::from_millis);
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = request(port, call, secrets);
    // Written beside the reading: who is refused early hears it while still talking.
    let mut writer = stream.try_clone()?;
    let hang_up = call.hang_up;
    let writing = thread::spawn(move || {
        let _ = writer.write_all(&request);
        if hang_up {
            let _ = writer.shutdown(Shutdown::Write);
        }
    });
    let mut reader = BufReader::new(&stream);
    let mut reply = Reply::default();
    match wire::read_answer(&mut reader) {
        Ok(Some(head)) => {
            reply.content = wire::read_body(&mut reader, &head, Some(call.method()), start, || {
                !call.leave
            });
            reply.head = Some(head);
        }
        Ok(None) => reply.trouble = "the connection was closed without an answer".into(),
        Err(error) => reply.trouble = format!("no answer: {error}"),
    }
    let _ = stream.shutdown(Shutdown::Both);
    let _ = writing.join();
    Ok(reply)
}

fn request(port: u16, call: &Call, secrets: &BTreeMap<String, String>) -> Vec<u8> {
    let body = call
        .payload()
        .expect("payloads were read with the scenario");
    if call.raw.is_some() {
        return body.unwrap_or_default();
    }
    let host = call
        .host
        .clone()
        .unwrap_or_else(|| format!("127.0.0.1:{port}"));
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: {host}\r\n",
        call.method(),
        call.path
    );
    for (name, value) in call.headers(secrets) {
        head += &format!("{name}: {value}\r\n");
    }
    let Some(body) = body else {
        return (head + "\r\n").into_bytes();
    };
    if !call.chunked && !call.garbled {
        head += &format!("content-length: {}\r\n\r\n", body.len());
        return [head.into_bytes(), body].concat();
    }
    let mut bytes = (head + "transfer-encoding: chunked\r\n\r\n").into_bytes();
    for piece in body.chunks(16_000) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(if call.garbled {
        b"no chunk\r\n"
    } else {
        b"0\r\n\r\n"
    });
    bytes
}
