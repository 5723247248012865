//! Chats, and the completions that were before them.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{CREATED, Call, Failure, words};
use crate::{
    mode::Text,
    play::{Reply, Step},
    wire::Event,
};

/// `POST /v1/chat/completions`
pub(super) fn chat(call: &Call<'_>) -> Result<Reply, Failure> {
    let messages = call.body["messages"]
        .as_array()
        .filter(|messages| !messages.is_empty());
    let messages = messages
        .ok_or_else(|| Failure::missing("messages", "Missing required parameter: 'messages'."))?;
    let prompt: Vec<String> = messages
        .iter()
        .map(|message| text_of(&message["content"]))
        .collect();
    let said = messages
        .iter()
        .rev()
        .find(|message| message["role"] == "user");
    let said = said
        .map(|message| text_of(&message["content"]))
        .unwrap_or_default();
    let tools = tools_to_call(call, messages);
    let (pieces, finish) = if tools.is_empty() {
        limited(call, pieces(call, &said))
    } else {
        (Vec::new(), "tool_calls")
    };
    let usage = usage(
        prompt.iter().map(|text| words(text)).sum(),
        pieces.len() + tools.len() * 5,
    );
    let id = format!("chatcmpl-{:012}", call.number);
    if !call.streams() {
        let message = if tools.is_empty() {
            json!({"role": "assistant", "content": pieces.concat(), "refusal": null, "annotations": []})
        } else {
            let calls: Vec<Value> = tools
                .iter()
                .map(|tool| json!({"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": tool.arguments}}))
                .collect();
            json!({"role": "assistant", "content": null, "refusal": null, "annotations": [], "tool_calls": calls})
        };
        let mut body = json!({
            "id": id, "object": "chat.completion", "created": CREATED, "model": call.model(),
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
            "service_tier": "default", "system_fingerprint": "fp_fake",
        });
        if !call.mode.no_usage {
            body["usage"] = usage;
        }
        return call.whole(pieces.len(), &body);
    }

    let tells_usage = call.body["stream_options"]["include_usage"] == true && !call.mode.no_usage;
    let chunk = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        chunk(
            "chat.completion.chunk",
            &id,
            call,
            &json!([choice]),
            if tells_usage {
                Some(&Value::Null)
            } else {
                None
            },
        )
    };
    let first = if tools.is_empty() {
        json!("")
    } else {
        Value::Null
    };
    let mut events = vec![chunk(
        json!({"role": "assistant", "content": first, "refusal": null}),
        None,
    )];
    events.extend(
        pieces
            .iter()
            .map(|piece| chunk(json!({"content": piece}), None)),
    );
    for (index, tool) in tools.iter().enumerate() {
        let function = json!({"name": tool.name, "arguments": ""});
        let begin =
            json!({"index": index, "id": tool.id, "type": "function", "function": function});
        events.push(chunk(json!({"tool_calls": [begin]}), None));
        for part in thirds(&tool.arguments) {
            events.push(chunk(
                json!({"tool_calls": [{"index": index, "function": {"arguments": part}}]}),
                None,
            ));
        }
    }
    events.push(chunk(json!({}), Some(finish)));
    if tells_usage {
        events.push(self::chunk(
            "chat.completion.chunk",
            &id,
            call,
            &json!([]),
            Some(&usage),
        ));
    }
    Ok(call.stream(
        events,
        Event::Data(Failure::midway().body().to_string()),
        true,
    ))
}

/// `POST /v1/completions`
pub(super) fn completion(call: &Call<'_>) -> Result<Reply, Failure> {
    let prompt = match &call.body["prompt"] {
        Value::Null => {
            return Err(Failure::missing(
                "prompt",
                "Missing required parameter: 'prompt'.",
            ));
        }
        Value::Array(prompts) => prompts.first().map(text_of).unwrap_or_default(),
        prompt => text_of(prompt),
    };
    let (pieces, finish) = limited(call, pieces(call, &prompt));
    let usage = usage(words(&prompt), pieces.len());
    let id = format!("cmpl-{:012}", call.number);
    if !call.streams() {
        let mut body = json!({
            "id": id, "object": "text_completion", "created": CREATED, "model": call.model(),
            "choices": [{"text": pieces.concat(), "index": 0, "logprobs": null, "finish_reason": finish}],
        });
        if !call.mode.no_usage {
            body["usage"] = usage;
        }
        return call.whole(pieces.len(), &body);
    }
    let tells_usage = call.body["stream_options"]["include_usage"] == true && !call.mode.no_usage;
    let null = tells_usage.then_some(&Value::Null);
    let piece = |text: &str, finish: Option<&str>| {
        let choice = json!({"text": text, "index": 0, "logprobs": null, "finish_reason": finish});
        chunk("text_completion", &id, call, &json!([choice]), null)
    };
    let mut events: Vec<Event> = pieces.iter().map(|text| piece(text, None)).collect();
    events.push(piece("", Some(finish)));
    if tells_usage {
        events.push(chunk(
            "text_completion",
            &id,
            call,
            &json!([]),
            Some(&usage),
        ));
    }
    Ok(call.stream(
        events,
        Event::Data(Failure::midway().body().to_string()),
        true,
    ))
}

/// The answer of a provider that costs nothing.
pub(super) fn raw() -> Reply {
    Reply::whole(
        200,
        "application/json",
        r#"{"id":"chatcmpl-raw","object":"chat.completion","created":1700000000,"model":"raw","choices":[{"index":0,"message":{"role":"assistant","content":"ok","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#,
    )
}

/// The same as a stream of `count` pieces.
pub(super) fn raw_stream(count: usize) -> Reply {
    const PIECE: &str = "data: {\"id\":\"chatcmpl-raw\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"raw\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ok \"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";
    const END: &str = "data: {\"id\":\"chatcmpl-raw\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"raw\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}\n\ndata: {\"id\":\"chatcmpl-raw\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"raw\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}\n\ndata: [DONE]\n\n";
    let write = |text: &'static str| Step::Write(bytes::Bytes::from_static(text.as_bytes()));
    let steps = std::iter::repeat_n(write(PIECE), count)
        .chain(std::iter::once(write(END)))
        .collect();
    Reply::new(200, "text/event-stream; charset=utf-8", steps)
}

/// What is answered to `said`, a piece an event.
pub(super) fn pieces(call: &Call<'_>, said: &str) -> Vec<String> {
    let in_words = |text: &str| text.split_inclusive(' ').map(str::to_owned).collect();
    match call.mode.text {
        Text::Echo => in_words(&format!("The tide is in. You said: {said}")),
        Text::Unicode => in_words("die Flut: été, 潮が満ちる, море, 🌊🌙 и всё"),
        Text::Letters(count) => vec!["The ".into(), "x".repeat(count), " end".into()],
        Text::Pieces(count) => (0..count).map(|index| format!("w{index} ")).collect(),
    }
}

/// `pieces` up to what the caller allows, and why they ended.
fn limited(call: &Call<'_>, mut pieces: Vec<String>) -> (Vec<String>, &'static str) {
    let most = call.body["max_completion_tokens"]
        .as_u64()
        .or_else(|| call.body["max_tokens"].as_u64());
    match most.and_then(|most| usize::try_from(most).ok()) {
        Some(most) if most < pieces.len() => {
            pieces.truncate(most);
            (pieces, "length")
        }
        _ => (pieces, "stop"),
    }
}

struct Tool {
    id: String,
    name: String,
    arguments: String,
}

fn tools_to_call(call: &Call<'_>, messages: &[Value]) -> Vec<Tool> {
    let offered: Vec<&str> = call.body["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tool| tool["function"]["name"].as_str())
        .collect();
    let wanted = call.body["tool_choice"]["function"]["name"].as_str();
    let answered = messages
        .last()
        .is_some_and(|message| message["role"] == "tool");
    let names: Vec<&str> = match (wanted, offered.first()) {
        _ if call.mode.tools => vec![
            offered.first().copied().unwrap_or("tide"),
            offered.get(1).copied().unwrap_or("moon"),
        ],
        _ if answered || call.body["tool_choice"] == "none" => Vec::new(),
        (Some(wanted), _) => vec![wanted],
        (None, first) => first.copied().into_iter().collect(),
    };
    let tool = |(index, name): (usize, &&str)| Tool {
        id: format!("call_{:012}_{index}", call.number),
        name: (*name).to_owned(),
        arguments: r#"{"city": "Saint-Malo", "hour": 6}"#.into(),
    };
    names.iter().enumerate().map(tool).collect()
}

/// The text of a message's content, or of a prompt.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).fold(
            String::new(),
            |mut all, text| {
                let _ = write!(all, "{text}");
                all
            },
        ),
        _ => String::new(),
    }
}

/// A chunk, its fields in the order in which OpenAI says them.
fn chunk(object: &str, id: &str, call: &Call<'_>, choices: &Value, usage: Option<&Value>) -> Event {
    let model = json!(call.model());
    let usage = usage
        .map(|usage| format!(r#","usage":{usage}"#))
        .unwrap_or_default();
    Event::Data(format!(
        r#"{{"id":"{id}","object":"{object}","created":{CREATED},"model":{model},"service_tier":"default","system_fingerprint":"fp_fake","choices":{choices}{usage}}}"#
    ))
}

pub(super) fn usage(input: usize, output: usize) -> Value {
    json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}

fn thirds(text: &str) -> impl Iterator<Item = &str> {
    let size = text.len().div_ceil(3).max(1);
    (0..3).filter_map(move |part| text.get(part * size..((part + 1) * size).min(text.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::Mode;

    fn datas(words: &str, body: Value) -> Vec<String> {
        let mode = Mode::parse(words).unwrap();
        let reply = chat(&Call {
            mode: &mode,
            number: 1,
            body,
        })
        .ok()
        .unwrap();
        let bytes: Vec<u8> = reply
            .steps
            .iter()
            .flat_map(|step| {
                if let Step::Write(bytes) = step {
                    bytes.to_vec()
                } else {
                    Vec::new()
                }
            })
            .collect();
        let text = String::from_utf8(bytes).unwrap();
        text.split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .map(str::to_owned)
            .collect()
    }

    fn request(more: &Value) -> Value {
        let mut body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi there"}]});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    #[test]
    fn usage_comes_when_asked_and_only_then() {
        let silent = datas("ok", request(&json!({})));
        assert!(
            silent.iter().all(|data| !data.contains("usage")),
            "{silent:?}"
        );
        let telling = datas(
            "ok",
            request(&json!({"stream_options": {"include_usage": true}})),
        );
        let chunks: Vec<Value> = telling
            .iter()
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect();
        let (last, before) = chunks.split_last().unwrap();
        assert!(before.iter().all(
            |chunk| chunk.get("usage") == Some(&Value::Null) && chunk["choices"][0].is_object()
        ));
        assert_eq!(
            (&last["choices"], &last["usage"]["total_tokens"]),
            (&json!([]), &json!(10))
        );
        assert_eq!(telling.last().unwrap(), "[DONE]");
        assert!(
            !datas(
                "no-usage",
                request(&json!({"stream_options": {"include_usage": true}}))
            )
            .concat()
            .contains("usage")
        );
        assert!(
            !datas("no-done", request(&json!({})))
                .concat()
                .contains("[DONE]")
        );
    }

    #[test]
    fn the_pieces_are_the_answer() {
        let text: String = datas("ok", request(&json!({})))
            .iter()
            .filter_map(|data| serde_json::from_str::<Value>(data).ok())
            .filter_map(|chunk| {
                chunk["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(text, "The tide is in. You said: Hi there");
    }

    #[test]
    fn a_tool_is_called_piece_by_piece() {
        let tools = json!([{"type": "function", "function": {"name": "tide"}}]);
        let all = datas("ok", request(&json!({"tools": tools})));
        let arguments: String = all
            .iter()
            .filter_map(|data| serde_json::from_str::<Value>(data).ok())
            .filter_map(|chunk| {
                chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(
            serde_json::from_str::<Value>(&arguments).unwrap(),
            json!({"city": "Saint-Malo", "hour": 6})
        );
        assert!(
            all.iter()
                .any(|data| data.contains(r#""finish_reason":"tool_calls""#))
        );
        assert!(
            !datas(
                "ok",
                request(&json!({"tools": tools, "tool_choice": "none"}))
            )
            .concat()
            .contains("tool_calls")
        );
    }

    #[test]
    fn an_error_in_the_middle_is_the_last_thing_said() {
        let all = datas("error-chunk", request(&json!({})));
        assert_eq!(all.len(), 3);
        assert!(serde_json::from_str::<Value>(&all[2]).unwrap()["error"]["message"].is_string());
    }
}
