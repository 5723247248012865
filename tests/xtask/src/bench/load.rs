//! Load, made by wrk.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use super::{Scratch, case::Case};
use crate::command::run;

/// What one measurement gave.
#[derive(Clone, Copy, Default)]
pub(super) struct Sample {
    /// Requests answered in a second.
    pub(super) rate: f64,
    /// How many were answered.
    pub(super) requests: f64,
    /// The median time of an answer, in microseconds.
    pub(super) p50: f64,
    /// The time within which 99 of 100 were answered, in microseconds.
    pub(super) p99: f64,
}

/// The script by which wrk asks what `case` asks.
pub(super) fn script(scratch: &Scratch, case: &Case, key: &str) -> Result<PathBuf, String> {
    let name = format!("{:?}-{}-{}", case.upstream, case.prompt, case.connections);
    let body = scratch.write(&format!("{name}.json"), &case.body())?;
    scratch.write(
        &format!("{name}.lua"),
        &format!(
            r#"local file = io.open("{}", "rb")
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.body = file:read("*a")
file:close()
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {key}"
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("measured %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"#,
            body.display()
        ),
    )
}

/// Loads the server at `address` for `seconds`; an answer that is an error, or none, is not a measurement.
pub(super) fn measure(
    address: SocketAddr,
    script: &PathBuf,
    case: &Case,
    seconds: u64,
) -> Result<Sample, String> {
    let output = run("wrk")
        .words(&format!(
            "-t1 -c{} -d{seconds}s --timeout 10s -s",
            case.connections
        ))
        .arg(script)
        .arg(format!("http://{address}/v1/chat/completions"))
        .output()?;
    let numbers: Vec<f64> = output
        .lines()
        .find_map(|line| line.strip_prefix("measured "))
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|number| number.parse().ok())
        .collect();
    let [requests, micros, p50, p99, refused, broken] = *numbers.as_slice() else {
        return Err(format!("wrk said: {output}"));
    };
    if refused > 0.0 || broken > 0.0 || requests == 0.0 {
        return Err(format!(
            "{} at {address}: {requests} answered, {refused} of them with an error, {broken} connections broke",
            case.name
        ));
    }
    Ok(Sample {
        rate: requests * 1e6 / micros,
        requests,
        p50,
        p99,
    })
}

/// Asks once and looks at the whole answer, so that nothing wrong is measured.
pub(super) fn try_once(address: SocketAddr, case: &Case, key: &str) -> Result<(), String> {
    let say = |error: std::io::Error| format!("{} at {address}: {error}", case.name);
    let mut stream = TcpStream::connect(address).map_err(say)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .map_err(say)?;
    stream
        .write_all(request(address, case, key, "close").as_bytes())
        .map_err(say)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(say)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body)
    } else {
        body.to_owned()
    };
    let whole = if case.stream() {
        "data: [DONE]"
    } else {
        "\"completion_tokens\""
    };
    let chunks = body.matches("\"object\":\"chat.completion.chunk\"").count();
    if !head.starts_with("HTTP/1.1 200") || !body.contains(whole) || (case.stream() && chunks < 200)
    {
        let body: String = body.chars().take(1000).collect();
        return Err(format!(
            "{} at {address} is not answered in full, with {chunks} chunks: {head}\n\n{body}",
            case.name
        ));
    }
    Ok(())
}

/// What `case` asks, as it goes over the wire; then the `connection` is closed, or kept.
pub(super) fn request(address: SocketAddr, case: &Case, key: &str, connection: &str) -> String {
    let body = case.body();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         authorization: Bearer {key}\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n{body}",
        body.len()
    )
}

/// The content of a body that was sent in chunks, as far as it came.
fn unchunk(mut rest: &str) -> String {
    let mut content = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or_default();
        let (Some(chunk), Some(next)) = (after.get(..size), after.get(size + 2..)) else {
            break;
        };
        content.push_str(chunk);
        rest = next;
    }
    content
}
