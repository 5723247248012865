//! The upstreams, which are never the bottleneck: what they answer is the same for every contestant.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use super::{
    Scratch,
    case::{Upstream, answer},
    nginx,
    process::Server,
};

/// One of each kind.
pub(super) struct Upstreams {
    quick: Server,
    reader: SocketAddr,
    streamer: SocketAddr,
}

impl Upstreams {
    /// Starts them; they end with this program.
    pub(super) fn start(scratch: &Scratch) -> Result<Self, String> {
        let answer = answer();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
        let whole = format!("{head} {}\r\n\r\n{answer}", answer.len()).into_bytes();
        Ok(Self {
            quick: nginx::upstream(scratch)?,
            reader: listen(vec![whole])?,
            streamer: listen(stream())?,
        })
    }

    /// Where the one called `upstream` listens.
    pub(super) const fn address(&self, upstream: Upstream) -> SocketAddr {
        match upstream {
            Upstream::Quick => self.quick.address,
            Upstream::Reader => self.reader,
            Upstream::Streamer => self.streamer,
        }
    }
}

/// Answers every request, once it is read to its end, with `pieces`, each written by itself.
fn listen(pieces: Vec<Vec<u8>>) -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let pieces = Arc::new(pieces);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let pieces = Arc::clone(&pieces);
            // A connection that breaks is the business of whoever broke it.
            thread::spawn(move || drop(serve(connection, &pieces)));
        }
    });
    Ok(address)
}

fn serve(connection: TcpStream, pieces: &[Vec<u8>]) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::with_capacity(64 * 1024, connection);
    while let Some(last) = take_request(&mut reader)? {
        for piece in pieces {
            writer.write_all(piece)?;
        }
        if last {
            break;
        }
    }
    Ok(())
}

/// Reads a request and tells whether it is the last; nothing at the end of the connection.
fn take_request(reader: &mut impl BufRead) -> std::io::Result<Option<bool>> {
    let mut last = false;
    let mut length = 0;
    let mut chunked = false;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
        last |= header == "connection: close";
        chunked |= header.starts_with("transfer-encoding:");
    }
    while chunked {
        line.clear();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).unwrap_or_default();
        std::io::copy(&mut reader.by_ref().take(size + 2), &mut std::io::sink())?;
        chunked = size > 0;
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    Ok(Some(last))
}

/// A stream of 200 chunks, and its usage.
fn stream() -> Vec<Vec<u8>> {
    let head = "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"stream\"";
    let event = |rest: &str| format!("{head},{rest}}}\n\n");
    let mut events: Vec<String> = (0..199)
        .map(|n| event(&format!("\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" tide {n}\"}},\"finish_reason\":null}}]")))
        .collect();
    events.push(event(
        "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]",
    ));
    events.push(event(
        "\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":200,\"total_tokens\":300}",
    ));
    events.push("data: [DONE]\n\n".to_owned());
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = events
        .iter()
        .map(|event| format!("{:x}\r\n{event}\r\n", event.len()));
    [head.to_owned()]
        .into_iter()
        .chain(chunks)
        .chain(["0\r\n\r\n".to_owned()])
        .map(String::into_bytes)
        .collect()
}
