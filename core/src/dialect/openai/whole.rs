//! A whole answer, out of the events of a stream.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::is_done;
use crate::{dialect::json, sse};

/// The names of which every piece says the same, if it says it again.
const SAID_ONCE: [&str; 5] = ["role", "type", "id", "name", "finish_reason"];

/// What the events of a stream come to, as they would have been answered at once.
#[derive(Debug, Default)]
pub struct Whole {
    answer: Map<String, Value>,
    choices: Vec<Value>,
    /// An event could not be read, so that something may be missing.
    lacks: bool,
}

impl Whole {
    /// Adds an event.
    pub fn add(&mut self, event: &[u8]) {
        let data = sse::data(event).unwrap_or_default();
        if data.trim_ascii().is_empty() || is_done(&data) {
            return;
        }
        // Half of a character, which some escape, is JSON for whoever passes it on, and no text.
        let Ok(event) = json::read::<Map<String, Value>>(&data) else {
            self.lacks = true;
            return;
        };
        for (name, value) in event {
            match (name.as_str(), value) {
                ("choices", Value::Array(choices)) => {
                    for mut choice in choices {
                        // Where the number is left out, there is only one.
                        let fields = choice.as_object_mut();
                        if let Some(fields) = fields
                            && !fields.get("index").is_some_and(Value::is_u64)
                        {
                            fields.insert("index".into(), 0.into());
                        }
                        join_in(&mut self.choices, choice);
                    }
                }
                ("usage", usage) => {
                    if usage.is_object() {
                        self.answer.insert(name, usage);
                    }
                }
                (_, value) => {
                    self.answer.entry(name).or_insert(value);
                }
            }
        }
    }

    /// The answer; nothing, if it is not known to be whole.
    pub fn answer(mut self) -> Option<Bytes> {
        if self.lacks {
            return None;
        }
        let is_chat = self.answer.get("object").and_then(Value::as_str) != Some("text_completion");
        if is_chat {
            self.answer
                .insert("object".into(), "chat.completion".into());
            for choice in self.choices.iter_mut().filter_map(Value::as_object_mut) {
                let delta = choice.remove("delta").unwrap_or_default();
                choice.insert("message".into(), message(delta));
            }
        }
        self.answer.insert("choices".into(), self.choices.into());
        Some(Value::Object(self.answer).to_string().into())
    }
}

fn message(delta: Value) -> Value {
    let mut message = match delta {
        Value::Object(message) => message,
        _ => Map::new(),
    };
    message.entry("role").or_insert("assistant".into());
    message.entry("content").or_insert(Value::Null);
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        for call in calls.iter_mut().filter_map(Value::as_object_mut) {
            // Only pieces need it.
            call.remove("index");
        }
    }
    Value::Object(message)
}

/// Adds an item of a list: to the one with the same index, if it has one, or in its place.
fn join_in(list: &mut Vec<Value>, item: Value) {
    let index = |item: &Value| item.get("index").and_then(Value::as_u64);
    let number = index(&item);
    if number.is_none() {
        list.push(item);
        return;
    }
    let is_same = |other: &&mut Value| index(other) == number;
    if let Some(known) = list.iter_mut().find(is_same) {
        join(known, item);
        return;
    }
    // Its own lists may hold several pieces of one thing.
    let mut new = Value::Object(Map::new());
    join(&mut new, item);
    let is_behind = |other: &Value| index(other) > number;
    let place = list.iter().position(is_behind);
    list.insert(place.unwrap_or(list.len()), new);
}

/// Adds a piece to what it is a piece of: texts and lists grow, of anything else the last word counts.
fn join(known: &mut Value, piece: Value) {
    match (known, piece) {
        (_, Value::Null) => {}
        (Value::Object(known), Value::Object(piece)) => {
            for (name, value) in piece {
                let is_known = known.get(&name).and_then(Value::as_str);
                let is_known = is_known.is_some_and(|known| !known.is_empty());
                if is_known && SAID_ONCE.contains(&name.as_str()) {
                    continue;
                }
                let place = known.entry(name).or_insert(match &value {
                    Value::Object(_) => Value::Object(Map::new()),
                    Value::Array(_) => Value::Array(Vec::new()),
                    _ => Value::Null,
                });
                join(place, value);
            }
        }
        (Value::Array(known), Value::Array(piece)) => {
            for item in piece {
                join_in(known, item);
            }
        }
        (Value::String(known), Value::String(piece)) => known.push_str(&piece),
        (known, piece) => *known = piece,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(events: &[&str]) -> Value {
        let mut whole = Whole::default();
        for event in events {
            whole.add(format!("data: {event}\n\n").as_bytes());
        }
        serde_json::from_slice(&whole.answer().unwrap()).unwrap()
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn pieces_come_to_what_would_have_been_answered_at_once() {
        let table: [(&[&str], &str); 4] = [
            (
                &[
                    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","usage":null,"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}"#,
                    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a"}]},"finish_reason":null}]}"#,
                    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"b"},"logprobs":{"content":[{"token":"b"}]},"finish_reason":null}]}"#,
                    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
                    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"total_tokens":3}}"#,
                    "[DONE]",
                ],
                r#"{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ab","refusal":null},"logprobs":{"content":[{"token":"a"},{"token":"b"}]},"finish_reason":"stop"}],"usage":{"total_tokens":3}}"#,
            ),
            (
                &[
                    r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"x","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x","function":{"arguments":"{"}},{"index":1,"id":"y","function":{"name":"g","arguments":"1"}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"y","function":{"name":"g","arguments":"1"}}]}}]}"#,
            ),
            (
                &[
                    r#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#,
                    r#"{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"a"}},{"index":1,"finish_reason":"stop","message":{"role":"assistant","content":"bb"}}]}"#,
            ),
            (
                &[
                    r#"{"object":"text_completion","choices":[{"index":0,"text":"a","finish_reason":null}]}"#,
                    r#"{"object":"text_completion","choices":[{"index":0,"text":"b","finish_reason":"stop"}]}"#,
                ],
                r#"{"object":"text_completion","choices":[{"index":0,"text":"ab","finish_reason":"stop"}]}"#,
            ),
        ];
        for (events, expected) in table {
            assert_eq!(whole(events), value(expected));
        }
    }
}
