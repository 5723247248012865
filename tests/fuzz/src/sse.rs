//! A stream means the same however the network cuts it.

use bytes::Bytes;
use tidegate_core::Body;

use crate::memory::{KEY, Played, play};

/// Streams `bytes` from the upstream: at once, byte by byte, and cut where the first byte says.
pub fn sse(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    for usage in [false, true] {
        let whole = stream_through(usage, &[Bytes::copy_from_slice(stream)]);
        for size in [1, usize::from(*cut).max(1)] {
            let pieces: Vec<Bytes> = stream.chunks(size).map(Bytes::copy_from_slice).collect();
            let cut = stream_through(usage, &pieces);
            assert_eq!(cut.head.status, whole.head.status, "in pieces of {size}");
            assert_eq!(cut.broken, whole.broken, "in pieces of {size}");
            assert_eq!(text(&cut.body), text(&whole.body), "in pieces of {size}");
        }
        for end in ["[DONE]", "finish_reason"] {
            assert!(
                !contains(&whole.body, end) || contains(stream, end),
                "{end} is invented"
            );
        }
    }
}

fn stream_through(usage: bool, pieces: &[Bytes]) -> Played {
    let options = if usage {
        r#","stream_options":{"include_usage":true}"#
    } else {
        ""
    };
    let body = format!(r#"{{"model":"smart","messages":[],"stream":true{options}}}"#);
    let request = http::Request::post("/v1/chat/completions")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    play(request, "text/event-stream", pieces)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
