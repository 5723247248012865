//! A request is understood as any JSON parser would, or refused in the caller's dialect.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde_json::{Value, value::RawValue};
use tidegate_core::Body;
use tidegate_tests::memory::Pieces;

use crate::memory::{KEY, play};

/// Sends `bytes` as the body of a chat request, in pieces; tells whether an upstream was asked.
pub fn request(bytes: &[u8]) -> bool {
    let pieces: VecDeque<Bytes> = bytes.chunks(7).map(Bytes::copy_from_slice).collect();
    let request = http::Request::post("/v1/chat/completions")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(Body::arriving(Pieces(pieces)))
        .unwrap();
    let answer = Bytes::from_static(br#"{"object":"chat.completion","choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let played = play(request, "application/json", &[answer]);

    for asked in &played.asked {
        let asked = fields(asked).expect("what goes on is a JSON object");
        assert_eq!(
            asked["model"].get(),
            "\"served\"",
            "the upstream is asked for its own model"
        );
        let sent = fields(bytes).expect("what is no JSON object goes nowhere");
        // A name that stands twice is read differently by different readers; it must not come this far.
        let model: String = serde_json::from_str(sent["model"].get()).expect("a model is a text");
        assert_eq!(model, "smart", "only a model of the configuration goes on");
        for (name, value) in &sent {
            if !["model", "stream", "stream_options"].contains(&name.as_str()) {
                let on = asked.get(name).map(|value| value.get());
                assert_eq!(on, Some(value.get()), "{name} goes on as it came");
            }
        }
    }
    if played.asked.is_empty() {
        let status = played.head.status;
        assert!(status.is_client_error(), "refused with {status}");
        let body: Value = serde_json::from_slice(&played.body).expect("a refusal is JSON");
        assert!(
            body["error"]["message"].is_string() && body["error"]["type"].is_string(),
            "not OpenAI's shape: {body}"
        );
    }
    assert!(!played.broken, "an answer that was whole is whole");
    !played.asked.is_empty()
}

/// The fields of an object, each as it is written: what JSON allows and no reader has to understand, such as half of a
/// surrogate pair or a number out of every range, is the upstream's to judge.
fn fields(bytes: &[u8]) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_slice(bytes).ok()
}
