//! The events of a stream, and of a whole answer the same fields.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The longest name that costs nothing, in bytes.
pub(super) const LONGEST_NAME: usize = 64;

/// An event of a stream; of all that it says, what the gateway acts on.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow, default)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
    /// Of the Responses API: which event it is, and what it is about.
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) message: Option<&'a RawValue>,
    /// What it is.
    #[serde(borrow, default)]
    pub(super) object: Option<&'a RawValue>,
    /// Of embeddings, and of responses: the answer.
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) output: Option<&'a RawValue>,
}

/// What an event says of one of the answers that were asked for, be it of each that it is nothing.
#[derive(Default)]
pub(super) struct Choice<'a> {
    pub(super) index: Option<&'a RawValue>,
    pub(super) finish_reason: Option<&'a RawValue>,
    /// What it adds.
    pub(super) delta: Option<&'a RawValue>,
    pub(super) text: Option<&'a RawValue>,
    pub(super) error: Option<&'a RawValue>,
    /// Where an answer comes at once.
    pub(super) message: Option<&'a RawValue>,
    /// What is said about what it adds, in bytes; and what it says besides, which is not known here.
    pub(super) about: u64,
    pub(super) more: u64,
}

/// What a chunk adds.
#[derive(Default)]
pub(super) struct Delta<'a> {
    pub(super) content: Option<&'a RawValue>,
    pub(super) reasoning_content: Option<&'a RawValue>,
    pub(super) reasoning: Option<&'a RawValue>,
    pub(super) refusal: Option<&'a RawValue>,
    pub(super) function_call: Option<&'a RawValue>,
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
    pub(super) audio: Option<&'a RawValue>,
    /// What it thinks, once more and in more detail.
    pub(super) details: Option<&'a RawValue>,
    /// What it says besides, which is not known here, in bytes.
    pub(super) more: u64,
}

/// A piece of a call of a tool.
#[derive(Default)]
pub(super) struct ToolCall<'a> {
    pub(super) index: Option<&'a RawValue>,
    pub(super) id: Option<&'a RawValue>,
    pub(super) function: Function<'a>,
    /// What is written in place of the function, and the last thing that is said of the call.
    pub(super) written: Option<&'a RawValue>,
    pub(super) last: Option<&'a RawValue>,
    more: u64,
}

#[derive(Default)]
pub(super) struct Function<'a> {
    pub(super) name: Option<&'a RawValue>,
    pub(super) arguments: Option<&'a RawValue>,
    more: u64,
}

/// Something that is told field by field.
trait Told<'a>: Default {
    /// Takes a field; says whether it is known.
    fn take(&mut self, name: &str, value: &'a RawValue) -> bool;

    /// What is not known, in bytes.
    fn more(&mut self) -> &mut u64;
}

impl<'a> Told<'a> for Choice<'a> {
    fn take(&mut self, name: &str, value: &'a RawValue) -> bool {
        let field = match name {
            "index" => &mut self.index,
            "finish_reason" => &mut self.finish_reason,
            "delta" => &mut self.delta,
            "text" => &mut self.text,
            "error" => &mut self.error,
            "message" => &mut self.message,
            // They say the same once more, or what somebody thinks of it.
            "logprobs" | "content_filter_results" => {
                self.about += length(value);
                return true;
            }
            _ => return false,
        };
        *field = Some(value);
        !matches!(name, "index" | "finish_reason") || is_short(value)
    }

    fn more(&mut self) -> &mut u64 {
        &mut self.more
    }
}

impl<'a> Told<'a> for Delta<'a> {
    fn take(&mut self, name: &str, value: &'a RawValue) -> bool {
        let field = match name {
            "content" => &mut self.content,
            "reasoning_content" => &mut self.reasoning_content,
            "reasoning" => &mut self.reasoning,
            "refusal" => &mut self.refusal,
            "function_call" => &mut self.function_call,
            "audio" => &mut self.audio,
            "tool_calls" => {
                let calls: Option<Vec<ToolCall<'a>>> = serde_json::from_str(value.get()).ok();
                self.more += calls.iter().flatten().map(ToolCall::more).sum::<u64>();
                let is_read = calls.is_some();
                self.tool_calls = calls;
                return is_read;
            }
            "reasoning_details" => &mut self.details,
            "role" => return is_short(value),
            _ => return false,
        };
        *field = Some(value);
        true
    }

    fn more(&mut self) -> &mut u64 {
        &mut self.more
    }
}

impl<'a> Told<'a> for ToolCall<'a> {
    fn take(&mut self, name: &str, value: &'a RawValue) -> bool {
        self.last = Some(value);
        match name {
            "index" => {
                self.index = Some(value);
                return is_short(value);
            }
            "id" => self.id = Some(value),
            "type" => return value.get() == "\"function\"",
            "function" => {
                self.written = Some(value);
                match serde_json::from_str(value.get()) {
                    Ok(function) => self.function = function,
                    Err(_) => return false,
                }
            }
            _ => return false,
        }
        true
    }

    fn more(&mut self) -> &mut u64 {
        &mut self.more
    }
}

impl<'a> Told<'a> for Function<'a> {
    fn take(&mut self, name: &str, value: &'a RawValue) -> bool {
        match name {
            "name" => self.name = Some(value),
            "arguments" => self.arguments = Some(value),
            _ => return false,
        }
        true
    }

    fn more(&mut self) -> &mut u64 {
        &mut self.more
    }
}

/// Reads something that is told field by field.
fn told<'de, T: Told<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Told<'de>> Visitor<'de> for Fields<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
            let mut told = T::default();
            while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                if !told.take(&name, value) {
                    *told.more() += length(value);
                }
            }
            Ok(told)
        }
    }

    deserializer.deserialize_map(Fields(PhantomData))
}

impl<'de: 'a, 'a> Deserialize<'de> for Choice<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        told::<Choice<'de>, D>(deserializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Delta<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        told::<Delta<'de>, D>(deserializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ToolCall<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        told::<ToolCall<'de>, D>(deserializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Function<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        told::<Function<'de>, D>(deserializer)
    }
}

impl Choice<'_> {
    pub(super) fn index(&self) -> u64 {
        number(self.index)
    }

    /// Whether it says of this answer whether it is over.
    pub(super) fn tells_end(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Whether it says that this answer is over.
    pub(super) fn is_finished(&self) -> bool {
        self.finish_reason.is_some_and(|raw| !is_empty(raw))
    }

    /// Whether it says that this answer has failed.
    pub(super) fn has_failed(&self) -> bool {
        let reason = self.finish_reason.map(RawValue::get);
        matches!(
            reason,
            Some("\"error\"" | "\"insufficient_system_resource\"")
        ) || self.error.is_some_and(|error| !is_nothing(error.get()))
    }

    /// Whether it says that its provider did not want to go on.
    pub(super) fn is_filtered(&self) -> bool {
        let reason = self.finish_reason.map(RawValue::get);
        reason == Some("\"content_filter\"")
    }
}

impl Event<'_> {
    /// Whether it has choices.
    pub(super) fn has_choices(&self) -> bool {
        self.choices
            .as_ref()
            .is_some_and(|choices| !choices.is_empty())
    }

    /// Which event it is of those that have names, as the Responses API has them. What comes in choices may have any name, and a sign of
    /// life is no event.
    pub(super) fn name(&self) -> Option<&str> {
        let name = self.kind.as_deref().filter(|_| self.choices.is_none())?;
        (!is_life(name.as_bytes())).then_some(name)
    }

    /// Whether it is none, but a sign of life.
    pub(super) fn is_life(&self) -> bool {
        let name = self.kind.as_deref().filter(|_| self.choices.is_none());
        name.is_some_and(|name| is_life(name.as_bytes()))
    }

    /// Whether it is nothing but an error: as those servers say it that do not say it inside of another object.
    pub(super) fn is_error(&self) -> bool {
        self.object.map(RawValue::get) == Some("\"error\"")
    }
}

impl ToolCall<'_> {
    fn more(&self) -> u64 {
        self.more + self.function.more
    }

    pub(super) fn index(&self) -> u64 {
        number(self.index)
    }
}

/// Whether what has this name is no event, but a sign of life.
pub(super) fn is_life(name: &[u8]) -> bool {
    matches!(name, b"ping" | b"keepalive" | b"keep-alive" | b"heartbeat")
}

/// The bytes of something that may be anything; none, if it says nothing.
pub(super) fn length(raw: &RawValue) -> u64 {
    if is_empty(raw) {
        0
    } else {
        raw.get().len() as u64
    }
}

/// Whether it is no longer than a name or a number, of which nobody makes a text.
fn is_short(raw: &RawValue) -> bool {
    raw.get().len() <= LONGEST_NAME
}

/// Whether it says nothing.
pub(super) fn is_empty(raw: &RawValue) -> bool {
    matches!(raw.get(), "null" | "\"\"" | "[]" | "{}")
}

/// Where providers leave a number out, there is only one thing to count. Some write it as a text, or as a fraction.
fn number(raw: Option<&RawValue>) -> u64 {
    let text = raw.map_or("", RawValue::get).trim_matches('"');
    text.strip_suffix(".0").unwrap_or(text).parse().unwrap_or(0)
}

/// Whether it says that there is nothing, as some do of an error.
pub(super) fn is_nothing(said: &str) -> bool {
    matches!(said, "null" | "\"\"" | "[]" | "{}" | "false")
}
