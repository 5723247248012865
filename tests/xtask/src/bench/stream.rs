//! An upstream that streams: 200 chunks, each written by itself, as fast as they are taken.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

/// Starts it; it ends with this program.
pub(super) fn start() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A connection that breaks is the business of whoever broke it.
            thread::spawn(move || drop(serve(connection)));
        }
    });
    Ok(address)
}

fn serve(connection: TcpStream) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let chunks = chunks();
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    loop {
        let Some(last) = take_request(&mut reader)? else {
            return Ok(());
        };
        writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for chunk in &chunks {
            writer.write_all(chunk)?;
        }
        if last {
            return Ok(());
        }
    }
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

fn chunks() -> Vec<Vec<u8>> {
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
    let mut chunks: Vec<Vec<u8>> = events
        .iter()
        .map(|event| format!("{:x}\r\n{event}\r\n", event.len()).into_bytes())
        .collect();
    chunks.push(b"0\r\n\r\n".to_vec());
    chunks
}
