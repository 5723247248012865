//! The events of a stream, out of an answer that came at once.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::dialect::json;

/// What `answer` would have been as a stream; nothing, if it has no choices.
pub(crate) fn streamed(answer: &[u8]) -> Option<Bytes> {
    let mut answer: Map<String, Value> = json::read(answer).ok()?;
    let choices = match answer.remove("choices") {
        Some(Value::Array(choices)) if !choices.is_empty() => choices,
        _ => return None,
    };
    let usage = answer.remove("usage");
    if answer.get("object").and_then(Value::as_str) != Some("text_completion") {
        answer.insert("object".into(), "chat.completion.chunk".into());
    }
    let mut events = String::new();
    let mut event = |choices: Value, usage: Option<Value>| {
        let mut event = answer.clone();
        event.insert("choices".into(), choices);
        if let Some(usage) = usage {
            event.insert("usage".into(), usage);
        }
        events += &format!("data: {}\n\n", Value::Object(event));
    };
    for mut choice in choices {
        let fields = choice.as_object_mut()?;
        if let Some(mut message) = fields.remove("message") {
            number(&mut message);
            let finish = fields.insert("finish_reason".into(), Value::Null);
            fields.insert("delta".into(), message);
            let index = fields.get("index").cloned().unwrap_or_else(|| 0.into());
            event(json!([choice]), None);
            let end = json!({ "index": index, "delta": {}, "finish_reason": finish });
            event(json!([end]), None);
        } else {
            event(json!([choice]), None);
        }
    }
    if let Some(usage) = usage {
        event(json!([]), Some(usage));
    }
    events += "data: [DONE]\n\n";
    Some(events.into())
}

/// Says of each call of a tool which one it is, as only pieces do.
fn number(message: &mut Value) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    let calls = calls.into_iter().flatten().filter_map(Value::as_object_mut);
    for (place, call) in calls.enumerate() {
        call.insert("index".into(), place.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dialect::openai::Whole, sse::Framer};

    #[test]
    fn what_is_heard_of_it_comes_to_the_same_answer() {
        for answer in [
            r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ab"},"logprobs":null,"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"total_tokens":3}}"#,
            r#"{"object":"text_completion","choices":[{"index":0,"text":"ab","finish_reason":"stop"}],"usage":{"total_tokens":3}}"#,
        ] {
            let expected: Value = serde_json::from_str(answer).unwrap();
            let stream = streamed(answer.as_bytes()).unwrap();
            assert!(stream.ends_with(b"data: [DONE]\n\n"));
            let mut whole = Whole::default();
            let mut framer = Framer::default();
            framer.push(stream, |event| whole.add(&event)).unwrap();
            let heard: Value = serde_json::from_slice(&whole.answer().unwrap()).unwrap();
            let without = |mut answer: Value| {
                for choice in answer["choices"].as_array_mut().unwrap() {
                    choice.as_object_mut().unwrap().remove("logprobs");
                }
                answer
            };
            assert_eq!(without(heard), without(expected));
        }
        assert_eq!(streamed(br#"{"output":[]}"#), None);
    }
}
