//! What a stream of choices lacks for the plainest of its readers, who know of events no more than that each is one line of JSON.

use std::{borrow::Cow, ops::Range};

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    edit::place,
    event::{Delta, is_empty, said},
    splice::ALIKE,
};
use crate::{dialect::json, usage::Usage};

/// How many calls of tools are told apart, and how long a name of one may be, in bytes.
const MOST_CALLS: usize = 128;
const LONGEST_ID: usize = 256;

/// What is written in place of what.
pub(super) type Edits<'a> = Vec<(Range<usize>, Cow<'a, str>)>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bare<'a> {
    #[serde(borrow, deserialize_with = "said")]
    choices: Option<&'a RawValue>,
}

/// Whether a block without data says no more than that somebody is there, in the one way that all readers know.
pub(super) fn is_comment(block: &[u8]) -> bool {
    let mut lines = block.split(|byte| *byte == b'\n');
    lines.all(|line| line.is_empty() || line.starts_with(b":")) && !block.contains(&b'\r')
}

/// How `data`, which is an event without choices, comes to have some: none. Nothing if it is no object.
pub(super) fn choices(data: &[u8]) -> Option<(Range<usize>, Cow<'static, str>)> {
    let inside = data.trim_ascii_start().strip_prefix(b"{")?;
    let bare: Bare<'_> = json::read(data).ok()?;
    if let Some(raw) = bare.choices {
        return Some((place(raw, data)?, "[]".into()));
    }
    let start = data.len() - inside.len();
    let is_all = inside.trim_ascii_start().starts_with(b"}");
    let text = if is_all {
        r#""choices":[]"#
    } else {
        r#""choices":[],"#
    };
    Some((start..start, text.into()))
}

/// The calls of tools that have begun, by their numbers and with their names: the last one has begun last.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<(u64, Box<str>)>);

impl Calls {
    /// Has each piece in `data` of a call say by name of which it is, unless it is of the last one: there are readers who count without
    /// numbers.
    pub(super) fn name(&mut self, delta: &Delta<'_>, data: &[u8], edits: &mut Edits<'_>) {
        for call in delta.tool_calls.iter().flatten() {
            let number = call.index();
            let known = self.0.iter().position(|(other, _)| *other == number);
            match (call.id.filter(|id| !is_empty(id)), known) {
                (Some(id), _) => {
                    let is_same =
                        |(other, name): &(u64, Box<str>)| *other == number && **name == *id.get();
                    if !self.0.iter().any(is_same) {
                        self.0.retain(|(other, _)| *other != number);
                        if self.0.len() < MOST_CALLS && id.get().len() <= LONGEST_ID {
                            self.0.push((number, id.get().into()));
                        }
                    }
                }
                (None, Some(known)) if known + 1 < self.0.len() => {
                    let name = self
                        .0
                        .get(known)
                        .map(|(_, name)| &**name)
                        .unwrap_or_default();
                    let of = |raw: Option<&RawValue>| place(raw?, data);
                    if let Some(place) = of(call.id) {
                        edits.push((place, name.to_owned().into()));
                    } else if let Some(number) = of(call.index) {
                        edits.push((number.end..number.end, format!(r#","id":{name}"#).into()));
                    }
                }
                (None, _) => {}
            }
        }
    }
}

/// The event that tells what an answer has cost of which `first` was one event.
pub(super) fn usage(first: &[u8], usage: Usage) -> String {
    let mut event: Map<String, Value> = json::read(first).unwrap_or_default();
    event.retain(|name, _| ALIKE.contains(&name.as_str()));
    event.insert("choices".into(), json!([]));
    event.insert(
        "usage".into(),
        json!({
            "prompt_tokens": usage.tokens_in,
            "completion_tokens": usage.tokens_out,
            "total_tokens": usage.total(),
        }),
    );
    format!("data: {}\n\n", Value::Object(event))
}
