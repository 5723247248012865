//! A whole answer, out of the events of a stream.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    halves::{held, joined},
    is_done,
};
use crate::{dialect::json, sse};

/// The names of which every piece says the same, if it says it again.
const SAID_ONCE: [&str; 6] = [
    "role",
    "type",
    "id",
    "format",
    "finish_reason",
    "native_finish_reason",
];

/// How many things that have a number a list may have: answers, calls of tools, thoughts.
const MOST_NUMBERED: usize = 1024;

/// What the events of a stream come to, as they would have been answered at once.
#[derive(Debug, Default)]
pub struct Whole {
    answer: Map<String, Value>,
    choices: Vec<Value>,
    /// Characters have come in halves.
    has_halves: bool,
    /// An event could not be read, or made no sense, so that something may be missing.
    lacks: bool,
}

impl Whole {
    /// Adds an event.
    pub fn add(&mut self, event: &[u8]) {
        let data = sse::data(event).unwrap_or_default();
        if data.trim_ascii().is_empty() || is_done(&data) {
            return;
        }
        let event = json::read(&data).ok().or_else(|| {
            // Half of a character, which some escape, is JSON for whoever passes it on, and no text.
            self.has_halves = true;
            serde_json::from_str(&held(str::from_utf8(&data).ok()?)).ok()
        });
        let Some(event): Option<Map<String, Value>> = event else {
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
                        self.hear(&mut choice);
                        self.lacks |= join_in(&mut self.choices, choice).is_none();
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

    /// Takes what a choice calls its message for a piece, if it has no other. At its end that may be all of what came in pieces.
    fn hear(&mut self, choice: &mut Value) {
        let is_last = choice
            .get("finish_reason")
            .is_some_and(|raw| !raw.is_null());
        let number = index(choice);
        let Some(fields) = choice.as_object_mut() else {
            return;
        };
        let Some(Value::Object(message)) = json::take(fields, "message") else {
            return;
        };
        let delta = fields.get("delta");
        if delta.is_some_and(|delta| !delta.is_null() && *delta != json!({})) {
            return;
        }
        let mut choices = self.choices.iter_mut();
        let known = choices.find(|known| index(known) == number);
        if let Some(said) = known.and_then(|known| known.get_mut("delta")?.as_object_mut())
            && is_last
        {
            for (name, value) in &message {
                let is_all = match (said.get(name), value) {
                    (Some(Value::String(said)), Value::String(all)) => all.starts_with(said),
                    (Some(Value::Array(_)), Value::Array(all)) => !all.is_empty(),
                    _ => false,
                };
                if is_all {
                    said.insert(name.clone(), Value::Null);
                }
            }
        }
        fields.insert("delta".into(), message.into());
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
                let delta = json::take(choice, "delta").unwrap_or_default();
                choice.insert("message".into(), message(delta));
            }
        }
        self.answer.insert("choices".into(), self.choices.into());
        let answer = Value::Object(self.answer).to_string();
        Some(match self.has_halves {
            true => joined(&answer).into(),
            false => answer.into(),
        })
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
            json::take(call, "index");
        }
    }
    Value::Object(message)
}

/// Adds an item of a list: to the one that it is a piece of, or in its place. Nothing if there are too many of them.
fn join_in(list: &mut Vec<Value>, item: Value) -> Option<()> {
    let number = index(&item);
    if let Some(known) = piece_of(list, &item).and_then(|place| list.get_mut(place)) {
        return join(known, item);
    }
    if number.is_none() {
        list.push(item);
        return Some(());
    }
    if list.len() >= MOST_NUMBERED {
        return None;
    }
    // Its own lists may hold several pieces of one thing.
    let mut new = Value::Object(Map::new());
    join(&mut new, item)?;
    let is_behind = |other: &Value| index(other) > number;
    let place = list.iter().position(is_behind);
    list.insert(place.unwrap_or(list.len()), new);
    Some(())
}

/// Where in the list that stands of which `item` is a piece, if it is one of something.
fn piece_of(list: &[Value], item: &Value) -> Option<usize> {
    let number = index(item);
    let place = match number {
        Some(_) => list.iter().rposition(|other| index(other) == number)?,
        // Some leave out which call it is a piece of; then it is one of the last.
        None if item.get("function").is_some() => list.len().checked_sub(1)?,
        None => return None,
    };
    // Some number all calls alike, or not at all, and tell them apart by their names alone.
    let is_other = match (id(list.get(place)?), id(item)) {
        (Some(known), Some(new)) => known != new,
        (None, Some(_)) => number.is_none(),
        (_, None) => false,
    };
    (!is_other).then_some(place)
}

fn index(item: &Value) -> Option<u64> {
    item.get("index")?.as_u64()
}

fn id(item: &Value) -> Option<&str> {
    item.get("id")?.as_str().filter(|id| !id.is_empty())
}

/// Adds a piece to what it is a piece of: texts and lists grow, of anything else the last word counts.
fn join(known: &mut Value, piece: Value) -> Option<()> {
    match (known, piece) {
        (_, Value::Null) => {}
        (Value::Object(known), Value::Object(piece)) => {
            for (name, value) in piece {
                let said = known.get(&name).and_then(Value::as_str);
                let is_said = said.is_some_and(|said| !said.is_empty());
                // The name of a tool comes in pieces, or all of it again and again.
                let is_again = name == "name" && said == value.as_str();
                if is_said && (is_again || SAID_ONCE.contains(&name.as_str())) {
                    continue;
                }
                let place = known.entry(name).or_insert(match &value {
                    Value::Object(_) => Value::Object(Map::new()),
                    Value::Array(_) => Value::Array(Vec::new()),
                    _ => Value::Null,
                });
                join(place, value)?;
            }
        }
        (Value::Array(known), Value::Array(piece)) => {
            for item in piece {
                join_in(known, item)?;
            }
        }
        (Value::String(known), Value::String(piece)) => known.push_str(&piece),
        // A text can go on as a list of parts, and such a list as a text.
        (known @ Value::String(_), Value::Array(piece)) => {
            let text = known.as_str().filter(|text| !text.is_empty());
            *known = text.map(part).into_iter().chain(piece).collect();
        }
        (Value::Array(known), Value::String(piece)) if !piece.is_empty() => {
            match known.last_mut().and_then(|last| last.get_mut("text")) {
                Some(Value::String(text)) => text.push_str(&piece),
                _ => known.push(part(&piece)),
            }
        }
        (Value::Array(_), Value::String(_)) => {}
        (known, piece) => *known = piece,
    }
    Some(())
}

/// A text as one part of several.
fn part(text: &str) -> Value {
    json!({ "type": "text", "text": text })
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
        let table: [(&[&str], &str); 14] = [
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
            // A text and a list of parts, one after the other.
            (
                &[
                    r#"{"choices":[{"index":0,"delta":{"content":"See "}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"content":[{"type":"reference","reference_ids":[1]}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"content":" the"}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"content":"re"}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":[{"type":"text","text":"See "},{"type":"reference","reference_ids":[1]},{"type":"text","text":" there"}]}}]}"#,
            ),
            (
                &[
                    r#"{"choices":[{"index":0,"delta":{"content":""}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"a"}]},"finish_reason":"stop"}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":[{"type":"text","text":"a"}]}}]}"#,
            ),
            // Two calls with one number.
            (
                &[
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{\"a\":"}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"y","function":{"name":"f","arguments":"{"}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"y","function":{"arguments":"}"}}]},"finish_reason":"tool_calls"}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":[{"id":"x","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"y","function":{"name":"f","arguments":"{}"}}]}}]}"#,
            ),
            // Calls without a number, of which the names come in pieces.
            (
                &[
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"id":"x","function":{"name":"get_","arguments":""}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"weather","arguments":"{"}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"id":"x","function":{"arguments":"}"}},{"id":"y","function":{"name":"g","arguments":"1"}}]}}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"x","function":{"name":"get_weather","arguments":"{}"}},{"id":"y","function":{"name":"g","arguments":"1"}}]}}]}"#,
            ),
            // What is said again and again.
            (
                &[
                    r#"{"choices":[{"index":0,"delta":{"reasoning_details":[{"index":0,"type":"reasoning.text","text":"a","format":"v1"}]},"native_finish_reason":"stop"}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"reasoning_details":[{"index":0,"type":"reasoning.text","text":"b","format":"v1"}]},"native_finish_reason":"stop"}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"f"}}]}}]}"#,
                    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"f"}}]}}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"native_finish_reason":"stop","message":{"role":"assistant","content":null,"reasoning_details":[{"index":0,"type":"reasoning.text","text":"ab","format":"v1"}],"tool_calls":[{"id":"x","function":{"name":"f"}}]}}]}"#,
            ),
            (
                &[
                    r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"a"}]}},{"delta":{"content":"b"}}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":[{"type":"text","text":"ab"}]}}]}"#,
            ),
            (
                &[
                    r#"{"object":"text_completion","choices":[{"index":0,"text":"a","finish_reason":null}]}"#,
                    r#"{"object":"text_completion","choices":[{"index":0,"text":"b","finish_reason":"stop"}]}"#,
                ],
                r#"{"object":"text_completion","choices":[{"index":0,"text":"ab","finish_reason":"stop"}]}"#,
            ),
            // Characters in halves, and halves that stay alone.
            (
                &[
                    r#"{"choices":[{"delta":{"content":"a\\\ud83d","reasoning":"\ud83d"}}]}"#,
                    r#"{"choices":[{"delta":{"content":"\ude00\ud83d\ude01\n","reasoning":"\ud83d"}}]}"#,
                    r#"{"choices":[{"delta":{"content":"\uDE02\\ud83d","reasoning":"\ude00"}}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"a\\😀😁\n\ufffd\\ud83d","reasoning":"\ufffd😀"}}]}"#,
            ),
            // What some call a message, at the end, or in place of all pieces; and what comes beside a piece.
            (
                &[
                    r#"{"choices":[{"message":{"role":"assistant","content":"ab"},"finish_reason":"stop"}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"ab"}}]}"#,
            ),
            (
                &[
                    r#"{"choices":[{"message":{"content":"a"}}]}"#,
                    r#"{"choices":[{"delta":{"content":"a"},"message":{"content":"aa"}}]}"#,
                    r#"{"choices":[{"delta":null,"message":{"content":"b"}}]}"#,
                    r#"{"choices":[{"delta":{},"message":{"content":"c"},"finish_reason":"stop"}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"aabc"}}]}"#,
            ),
            (
                &[
                    r#"{"choices":[{"delta":{"role":"assistant","content":"a","tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{}"}}]}}]}"#,
                    r#"{"choices":[{"delta":{"content":"b"}}]}"#,
                    r#"{"choices":[{"message":{"role":"assistant","content":"ab","tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
                ],
                r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":"ab","tool_calls":[{"id":"x","function":{"name":"f","arguments":"{}"}}]}}]}"#,
            ),
        ];
        for (events, expected) in table {
            assert_eq!(whole(events), value(expected));
        }
    }
    #[test]
    fn more_than_anybody_asks_for_are_no_answer() {
        for (several, is_answer) in [(MOST_NUMBERED, true), (MOST_NUMBERED + 1, false)] {
            let calls: Vec<Value> = (0..several)
                .map(|index| json!({ "index": index }))
                .collect();
            let event = json!({ "choices": [{ "index": 0, "delta": { "tool_calls": calls } }] });
            let mut whole = Whole::default();
            whole.add(format!("data: {event}\n\n").as_bytes());
            assert_eq!(whole.answer().is_some(), is_answer);
        }
    }
}
