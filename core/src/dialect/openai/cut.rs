//! The end of a stream that the gateway ends itself, because a limit on tokens has no more room.

use bytes::Bytes;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{dialect::json, sse};

/// The events that end a stream of which `last` was the last event, `choices` the choices that have not finished, and `begun` the
/// response, if it is one; `owed` comes before its last word.
///
/// It ends as a stream does whose tokens the caller has limited, and says why in a field that no other API has.
pub(super) fn cut(
    last: &[u8],
    choices: &[u64],
    begun: Option<&RawValue>,
    why: &str,
    owed: &str,
) -> Bytes {
    let data = sse::data(last);
    let event: Map<String, Value> = data
        .and_then(|data| json::read(&data).ok())
        .unwrap_or_default();
    let kind = event.get("type").and_then(Value::as_str);
    if kind.is_some_and(|kind| kind.starts_with("response.")) {
        return incomplete(&event, begun, why);
    }
    let object = event.get("object").cloned();
    let object = object.unwrap_or_else(|| "chat.completion.chunk".into());
    let choice = |index: &u64| {
        if object == "text_completion" {
            json!({ "index": index, "text": "", "logprobs": null, "finish_reason": "length" })
        } else {
            json!({ "index": index, "delta": {}, "finish_reason": "length" })
        }
    };
    let chunk = json!({
        "id": event.get("id"),
        "object": object,
        "created": event.get("created"),
        "model": event.get("model"),
        "choices": choices.iter().map(choice).collect::<Vec<_>>(),
        "tidegate": { "limit": why },
    });
    format!("data: {chunk}\n\n{owed}data: [DONE]\n\n").into()
}

/// The end of a stream of the Responses API.
fn incomplete(event: &Map<String, Value>, begun: Option<&RawValue>, why: &str) -> Bytes {
    let begun = begun.and_then(|begun| serde_json::from_str(begun.get()).ok());
    let mut response: Map<String, Value> = begun.unwrap_or_default();
    response.insert("object".into(), "response".into());
    response.insert("status".into(), "incomplete".into());
    response.insert(
        "incomplete_details".into(),
        json!({ "reason": "max_output_tokens" }),
    );
    let number = event.get("sequence_number").and_then(Value::as_u64);
    let event = json!({
        "type": "response.incomplete",
        "sequence_number": number.map(|number| number.saturating_add(1)),
        "response": response,
        "tidegate": { "limit": why },
    });
    format!("event: response.incomplete\ndata: {event}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_ends_in_its_own_words() {
        let table = [
            (
                r#"data: {"id":"c-1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"x"}}]}"#,
                vec![0],
                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\",\"index\":0}],\"created\":7,\"id\":\"c-1\",\"model\":\"m\",\"object\":\"chat.completion.chunk\",\"tidegate\":{\"limit\":\"w\"}}\n\ndata: [DONE]\n\n",
            ),
            (
                r#"data: {"id":"c-1","object":"text_completion","created":7,"model":"m","choices":[]}"#,
                vec![1],
                "data: {\"choices\":[{\"finish_reason\":\"length\",\"index\":1,\"logprobs\":null,\"text\":\"\"}],\"created\":7,\"id\":\"c-1\",\"model\":\"m\",\"object\":\"text_completion\",\"tidegate\":{\"limit\":\"w\"}}\n\ndata: [DONE]\n\n",
            ),
            (
                "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":4,\"delta\":\"x\"}",
                vec![],
                "event: response.incomplete\ndata: {\"response\":{\"id\":\"r-1\",\"incomplete_details\":{\"reason\":\"max_output_tokens\"},\"object\":\"response\",\"status\":\"incomplete\"},\"sequence_number\":5,\"tidegate\":{\"limit\":\"w\"},\"type\":\"response.incomplete\"}\n\n",
            ),
        ];
        for (last, choices, expected) in table {
            let begun = serde_json::from_str(r#"{"id":"r-1","status":"in_progress"}"#).unwrap();
            assert_eq!(
                cut(last.as_bytes(), &choices, Some(begun), "w", ""),
                expected
            );
        }
    }
}
