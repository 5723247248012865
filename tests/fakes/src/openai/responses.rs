//! The Responses API.

use serde_json::{Value, json};

use super::{CREATED, Call, Failure, chat::pieces, words};
use crate::{play::Reply, wire::Event};

/// `POST /v1/responses`
pub(super) fn respond(call: &Call<'_>) -> Result<Reply, Failure> {
    let said = match &call.body["input"] {
        Value::Null => {
            return Err(Failure::missing(
                "input",
                "Missing required parameter: 'input'.",
            ));
        }
        Value::Array(items) => items
            .last()
            .map(|item| text_of(&item["content"]))
            .unwrap_or_default(),
        input => text_of(input),
    };
    let pieces = pieces(call, &said);
    let text = pieces.concat();
    let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let item = item(call, "completed", &json!([part]));
    let mut done = response(call, "completed", &json!([item]));
    if !call.mode.no_usage {
        let (input, output) = (words(&said), pieces.len());
        done["usage"] = json!({
            "input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input + output,
        });
    }
    if !call.streams() {
        return call.whole(pieces.len(), &done);
    }

    let begun = response(call, "in_progress", &json!([]));
    let empty = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
    let place = |more: Value| {
        let mut body = json!({"item_id": item["id"], "output_index": 0, "content_index": 0});
        merge(&mut body, &more);
        body
    };
    let mut all = vec![
        ("response.created", json!({"response": begun})),
        ("response.in_progress", json!({"response": begun})),
        (
            "response.output_item.added",
            json!({"output_index": 0, "item": self::item(call, "in_progress", &json!([]))}),
        ),
        ("response.content_part.added", place(json!({"part": empty}))),
    ];
    all.extend(pieces.iter().map(|piece| {
        (
            "response.output_text.delta",
            place(json!({"delta": piece, "logprobs": []})),
        )
    }));
    all.extend([
        (
            "response.output_text.done",
            place(json!({"text": text, "logprobs": []})),
        ),
        ("response.content_part.done", place(json!({"part": part}))),
        (
            "response.output_item.done",
            json!({"output_index": 0, "item": item}),
        ),
        ("response.completed", json!({"response": done})),
    ]);
    let events = all
        .into_iter()
        .enumerate()
        .map(|(number, (name, body))| event(name, number, body))
        .collect();
    let midway =
        json!({"code": "server_error", "message": Failure::midway().message, "param": null});
    Ok(call.stream(events, event("error", 2, midway), false))
}

fn event(name: &str, number: usize, mut body: Value) -> Event {
    merge(&mut body, &json!({"type": name, "sequence_number": number}));
    Event::Named(name.into(), body.to_string())
}

fn response(call: &Call<'_>, status: &str, output: &Value) -> Value {
    json!({
        "id": format!("resp_{:012}", call.number), "object": "response", "created_at": CREATED, "status": status,
        "background": false, "error": null, "incomplete_details": null, "instructions": call.body["instructions"],
        "max_output_tokens": null, "model": call.model(), "output": output, "parallel_tool_calls": true,
        "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": false, "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled",
        "usage": null, "user": null, "metadata": {},
    })
}

fn item(call: &Call<'_>, status: &str, content: &Value) -> Value {
    json!({"id": format!("msg_{:012}", call.number), "type": "message", "status": status, "role": "assistant", "content": content})
}

fn text_of(content: &Value) -> String {
    let parts = content
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|part| part["text"].as_str());
    content
        .as_str()
        .map_or_else(|| parts.collect(), str::to_owned)
}

fn merge(body: &mut Value, more: &Value) {
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(
            more.iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
}
