//! The fields of a request: those that mean something here, each where it stands in the body, and once at most.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The fields that the gateway acts on, as they stand in the body.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) model: Option<&'a RawValue>,
    pub(super) stream: Option<&'a RawValue>,
    pub(super) stream_options: Option<&'a RawValue>,
    pub(super) user: Option<&'a RawValue>,
    pub(super) messages: Option<&'a RawValue>,
    pub(super) input: Option<&'a RawValue>,
    pub(super) max_tokens: Option<&'a RawValue>,
    pub(super) max_completion_tokens: Option<&'a RawValue>,
    pub(super) max_output_tokens: Option<&'a RawValue>,
    pub(super) n: Option<&'a RawValue>,
    pub(super) best_of: Option<&'a RawValue>,
    pub(super) prompt: Option<&'a RawValue>,
    pub(super) reasoning: Option<&'a RawValue>,
    pub(super) reasoning_effort: Option<&'a RawValue>,
    pub(super) response_format: Option<&'a RawValue>,
    pub(super) logprobs: Option<&'a RawValue>,
    /// Of those who serve models themselves: what the answer must be like.
    pub(super) has_grammar: bool,
}

/// The fields of `stream_options`.
pub(super) struct Options<'a> {
    pub(super) include_usage: Option<&'a RawValue>,
    pub(super) empty: bool,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    Model,
    Stream,
    StreamOptions,
    User,
    Messages,
    Input,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    N,
    BestOf,
    Prompt,
    Reasoning,
    ReasoningEffort,
    ResponseFormat,
    Logprobs,
    IncludeUsage,
    #[serde(
        alias = "guided_json",
        alias = "guided_regex",
        alias = "guided_choice",
        alias = "guided_grammar",
        alias = "structured_outputs",
        alias = "structural_tag",
        alias = "nvext",
        alias = "json_schema",
        alias = "regex",
        alias = "ebnf"
    )]
    Grammar,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = access.next_key()? {
                    let (field, name) = match name {
                        Name::Model => (&mut fields.model, "model"),
                        Name::Stream => (&mut fields.stream, "stream"),
                        Name::StreamOptions => (&mut fields.stream_options, "stream_options"),
                        Name::User => (&mut fields.user, "user"),
                        Name::Messages => (&mut fields.messages, "messages"),
                        Name::Input => (&mut fields.input, "input"),
                        Name::MaxTokens => (&mut fields.max_tokens, "max_tokens"),
                        Name::MaxCompletionTokens => {
                            (&mut fields.max_completion_tokens, "max_completion_tokens")
                        }
                        Name::MaxOutputTokens => {
                            (&mut fields.max_output_tokens, "max_output_tokens")
                        }
                        Name::N => (&mut fields.n, "n"),
                        Name::BestOf => (&mut fields.best_of, "best_of"),
                        Name::Prompt => (&mut fields.prompt, "prompt"),
                        Name::Reasoning => (&mut fields.reasoning, "reasoning"),
                        Name::ReasoningEffort => (&mut fields.reasoning_effort, "reasoning_effort"),
                        Name::ResponseFormat => (&mut fields.response_format, "response_format"),
                        Name::Logprobs => (&mut fields.logprobs, "logprobs"),
                        Name::Grammar => {
                            let grammar: &RawValue = access.next_value()?;
                            fields.has_grammar |= grammar.get() != "null";
                            continue;
                        }
                        Name::IncludeUsage | Name::Other => {
                            access.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    once(field, name, access.next_value()?)?;
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Options<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Options<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Options<'de>, A::Error> {
                let mut options = Options {
                    include_usage: None,
                    empty: true,
                };
                while let Some(name) = access.next_key()? {
                    options.empty = false;
                    match name {
                        Name::IncludeUsage => once(
                            &mut options.include_usage,
                            "include_usage",
                            access.next_value()?,
                        )?,
                        _ => {
                            access.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(options)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Whoever reads a field that stands twice may take either: what was checked here could differ from what is done there.
fn once<'a, E: Error>(
    field: &mut Option<&'a RawValue>,
    name: &str,
    value: &'a RawValue,
) -> Result<(), E> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom(format_args!("`{name}` stands twice"))),
    }
}
