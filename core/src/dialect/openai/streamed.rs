//! The events of a stream, out of an answer that came at once.

use bytes::Bytes;
use serde_json::{Value, json};

use super::halves::object;
use crate::dialect::json;

/// What `answer` would have been as a stream; nothing, if it has no choices.
pub(crate) fn streamed(answer: &[u8]) -> Option<Bytes> {
    let mut answer = object(answer)?;
    let choices = match json::take(&mut answer, "choices") {
        Some(Value::Array(choices)) if !choices.is_empty() => choices,
        _ => return None,
    };
    let usage = json::take(&mut answer, "usage");
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
    // All choices in one event: what stands beside them may be long, and they may be many.
    let mut pieces = Vec::new();
    let mut ends = Vec::new();
    for mut choice in choices {
        let fields = choice.as_object_mut()?;
        if let Some(mut message) = json::take(fields, "message") {
            number(&mut message);
            fields.insert("delta".into(), message);
            // Who does not say how it ended has said all the same that this is all.
            let finish = json::take(fields, "finish_reason");
            if let Some(finish) = finish.filter(|finish| !finish.is_null()) {
                fields.insert("finish_reason".into(), Value::Null);
                let index = fields.get("index").cloned().unwrap_or_else(|| 0.into());
                ends.push(json!({ "index": index, "delta": {}, "finish_reason": finish }));
            }
        }
        pieces.push(choice);
    }
    event(pieces.into(), None);
    if !ends.is_empty() {
        event(ends.into(), None);
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

    #[test]
    fn half_a_character_does_not_keep_it_from_being_one() {
        let answer = br#"{"choices":[{"message":{"content":"a\ud83d"}}]}"#;
        let stream = streamed(answer).unwrap();
        assert!(str::from_utf8(&stream).unwrap().contains("\"a\u{fffd}\""));
    }

    #[test]
    fn it_is_not_much_longer_than_the_answer() {
        let choices = vec![json!({ "message": {} }); 300];
        let answer = json!({ "pad": "x".repeat(10_000), "choices": choices }).to_string();
        assert!(streamed(answer.as_bytes()).unwrap().len() < 4 * answer.len());
    }

    #[test]
    fn nobody_is_said_to_have_finished_who_has_not_said_so() {
        for choice in [
            r#"{"message":{"content":"a"}}"#,
            r#"{"message":{"content":"a"},"finish_reason":null}"#,
        ] {
            let answer = format!(r#"{{"choices":[{choice}]}}"#);
            let stream = streamed(answer.as_bytes()).unwrap();
            assert_eq!(
                stream,
                "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"object\":\"chat.completion.chunk\"}\n\ndata: [DONE]\n\n"
            );
        }
    }
}
