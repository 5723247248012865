//! A request, of which only the fields that the gateway acts on are read, and only their bytes are changed.

use std::{borrow::Cow, fmt, ops::Range};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    cost::{self, Estimate},
    edit::{edited, place},
    fields::{Fields, Options},
    hides_usage,
    length::{self, Length, Most},
};
use crate::{
    dialect::json::{self, is_too_deep},
    upstream::Prefill,
};

/// A request's body, and where in it the fields stand that the gateway acts on.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The model that the caller named, if it named one.
    pub model: Option<String>,
    /// Whether the caller wants a stream.
    pub stream: bool,
    /// Whether the stream's usage is asked for on the gateway's own behalf, so that the caller must not see it.
    pub hide_usage: bool,
    /// The caller's own user, if it named one.
    pub user: Option<String>,
    /// How long its answer may be.
    pub most: Most,
    body: Bytes,
    /// What is written in place of what, so that a target streams an answer that its caller wants at once.
    stream_edits: Vec<(Range<usize>, &'static str)>,
    /// It is to be streamed, though its caller wants it at once.
    streams_upstream: bool,
    /// How many choices its answer comes in; none, if it does not come in choices.
    pub choices: u64,
    /// The choices are texts of any form.
    is_text: bool,
    /// How probable each piece was is wanted too.
    wants_logprobs: bool,
    model_at: Range<usize>,
    conversation_at: Range<usize>,
    /// What the caller has said of how long the answer may be, if it is answered with tokens.
    length: Option<Length>,
    /// How long it may be at most, if the gateway says so.
    cap: Option<u64>,
    /// What is put in, and in place of what: so that the upstream tells the usage of a stream.
    usage_edit: Option<(Range<usize>, &'static str)>,
}

/// What is wrong with a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Malformed {
    /// For the caller to read.
    pub message: String,
    /// The field that it is about.
    pub param: Option<&'static str>,
}

impl Asked {
    /// Reads the body of a request to `endpoint`.
    pub fn read(body: Bytes, endpoint: &str) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(&body).map_err(|error| {
            Malformed::body(format_args!(
                "it is not UTF-8 from byte {} on",
                error.valid_up_to()
            ))
        })?;
        if is_too_deep(text) {
            return Err(Malformed::body("it is nested too deeply"));
        }
        let fields: Fields<'_> =
            serde_json::from_str(text).map_err(|error| Malformed::body(describe(&error)))?;
        let place = |raw: &RawValue| place(raw.get(), &body).unwrap_or_default();
        let model = fields
            .model
            .map(|raw| read::<String>(raw, "model", "a text"))
            .transpose()?;
        if model.as_ref().is_some_and(String::is_empty) {
            return Err(Malformed::field("model", "`model` is empty"));
        }
        let stream = fields
            .stream
            .map(|raw| read::<Option<bool>>(raw, "stream", "a boolean"))
            .transpose()?;
        let stream = stream.flatten().unwrap_or(false);
        let usage_edit = match fields.stream {
            Some(raw) if stream && hides_usage(endpoint) => {
                usage_edit(place(raw).end, fields.stream_options, place)?
            }
            _ => None,
        };
        let model_at = fields.model.map(place).unwrap_or_default();
        let user = fields
            .user
            .and_then(|raw| serde_json::from_str(raw.get()).ok());
        let lengths = [
            ("max_tokens", fields.max_tokens),
            ("max_completion_tokens", fields.max_completion_tokens),
            ("max_output_tokens", fields.max_output_tokens),
        ];
        let length = Length::read(endpoint, lengths, place);
        let choices = |best_of| length::choices(fields.n, best_of, fields.prompt);
        let most = Most {
            tokens: length.as_ref().and_then(Length::tokens),
            choices: choices(fields.best_of),
            hides: choices(fields.best_of) > choices(None)
                || [fields.reasoning, fields.reasoning_effort]
                    .into_iter()
                    .flatten()
                    .any(|raw| !matches!(raw.get(), "null" | r#""none""#)),
        };
        let conversation = fields.messages.or(fields.input);
        let conversation_at = conversation.map(place).unwrap_or_default();
        let stream_edits = if stream || !hides_usage(endpoint) {
            Vec::new()
        } else {
            match (fields.stream.map(place), fields.stream_options.map(place)) {
                (Some(stream), Some(options)) => {
                    vec![(stream, "true"), (options, r#"{"include_usage":true}"#)]
                }
                (Some(stream), None) => {
                    vec![(stream, r#"true,"stream_options":{"include_usage":true}"#)]
                }
                (None, Some(options)) => {
                    vec![(options, r#"{"include_usage":true},"stream":true"#)]
                }
                (None, None) => vec![(
                    model_at.end..model_at.end,
                    r#","stream":true,"stream_options":{"include_usage":true}"#,
                )],
            }
        };
        let is_said = |raw: &&RawValue| !matches!(raw.get(), "null" | "false" | "0");
        let form = fields.response_format.filter(|raw| raw.get() != "null");
        Ok(Self {
            stream_edits,
            streams_upstream: false,
            choices: if hides_usage(endpoint) {
                choices(None)
            } else {
                0
            },
            wants_logprobs: fields.logprobs.as_ref().is_some_and(is_said),
            is_text: !fields.has_grammar
                && form.is_none_or(|raw| cost::kind(raw).is_some_and(|kind| kind == "text")),
            model,
            user,
            most,
            conversation_at,
            cap: None,
            length,
            stream,
            hide_usage: usage_edit.is_some(),
            model_at,
            usage_edit,
            body,
        })
    }

    /// The body as it came.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// What the prompt comes to.
    pub fn estimate(&self) -> Estimate {
        let conversation = self.body.get(self.conversation_at.clone());
        cost::prompt(self.body.len(), conversation.unwrap_or_default())
    }

    /// Whether it is answered with tokens.
    pub fn generates(&self) -> bool {
        self.length.is_some()
    }

    /// Whether an answer to it can be gone on with by somebody else: there is only one, its pieces are known, and nothing stands
    /// beside them that somebody else would say of other pieces.
    pub fn can_go_on(&self) -> bool {
        !self.wants_logprobs && self.choices == 1 && self.is_streamed() && self.most.choices == 1
    }

    /// Lets targets stream an answer that its caller wants at once, if they can.
    pub fn stream_upstream(&mut self) {
        self.streams_upstream = !self.stream_edits.is_empty();
    }

    /// Whether targets stream the answer.
    pub fn is_streamed(&self) -> bool {
        self.stream || self.streams_upstream
    }

    /// Whether a stream of it is to be put together, since its caller wants it at once: some stream what they were not asked to.
    pub fn is_assembled(&self) -> bool {
        !self.stream && self.choices > 0
    }

    /// Whether somebody can be asked to go on behind the beginning of its answer. Where that must be JSON, nobody knows what comes
    /// of two halves; and where the caller has begun the answer itself, that is the beginning.
    pub fn takes_prefill(&self) -> bool {
        let messages = self.body.get(self.conversation_at.clone());
        let messages: Option<Vec<&RawValue>> = messages.and_then(|raw| json::read(raw).ok());
        let last = messages.as_ref().and_then(|messages| messages.last());
        let last: Option<Map<String, Value>> =
            last.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let role = last.as_ref().and_then(|last| last.get("role")?.as_str());
        self.is_text && role.is_some_and(|role| role != "assistant")
    }

    /// Each choice of the answer may be so many tokens long, and no longer; or as long as the caller says.
    pub fn cap(&mut self, tokens: Option<u64>) {
        self.cap = tokens;
    }

    /// The body as it goes to a target that calls the model `model`: every byte as it came, but for that name, for
    /// the wish to be told the usage, and for how long the answer may be. `is_openai`: it is OpenAI itself, which knows the last
    /// of these by another name than everybody else.
    ///
    /// `prefill` is the beginning of the answer, which the target is to go on behind.
    pub fn body_for(
        &self,
        model: &str,
        is_openai: bool,
        prefill: Option<(Prefill, &str)>,
    ) -> Bytes {
        let mut edits: Vec<(Range<usize>, Cow<'_, str>)> = Vec::new();
        if let Some(asked) = &self.model
            && asked != model
        {
            edits.push((self.model_at.clone(), Value::from(model).to_string().into()));
        }
        if let Some((range, text)) = &self.usage_edit {
            edits.push((range.clone(), Cow::Borrowed(text)));
        }
        if self.streams_upstream {
            for (range, text) in &self.stream_edits {
                edits.push((range.clone(), Cow::Borrowed(text)));
            }
        }
        let mut cap = self.cap;
        if let Some((form, text)) = prefill {
            let (message, flags) = beginning(form, text);
            let last = self.conversation_at.end.saturating_sub(1);
            edits.push((last..last, message.into()));
            let behind = self.model_at.end;
            edits.push((behind..behind, Cow::Borrowed(flags)));
            let left = self.most.tokens.map(|most| {
                let said = Estimate::of_bytes(text.len() as u64).likely;
                most.saturating_sub(said).max(1)
            });
            cap = cap.min(left).or(cap).or(left);
        }
        if let (Some(cap), Some(length)) = (cap, &self.length) {
            let capped = length.edits(cap, is_openai, self.model_at.end);
            for (range, text) in capped {
                edits.push((range, text.into()));
            }
        }
        if edits.is_empty() {
            return self.body.clone();
        }
        edited(&self.body, &mut edits)
    }
}

/// The message that is the beginning of an answer, as one more of a list, and what the request must say besides.
fn beginning(form: Prefill, text: &str) -> (String, &'static str) {
    let (mark, flags) = match form {
        Prefill::Plain => ("", ""),
        Prefill::Prefix => (r#","prefix":true"#, ""),
        Prefill::ContinueFinalMessage => (
            "",
            r#","continue_final_message":true,"add_generation_prompt":false"#,
        ),
    };
    let text = Value::from(text);
    (
        format!(r#",{{"role":"assistant","content":{text}{mark}}}"#),
        flags,
    )
}

impl Malformed {
    fn body(what: impl fmt::Display) -> Self {
        Self {
            message: format!("the body cannot be read: {what}"),
            param: None,
        }
    }

    fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: Some(param),
        }
    }
}

/// How to make the upstream tell the usage, if the caller has not asked for it.
fn usage_edit(
    behind_stream: usize,
    options: Option<&RawValue>,
    place: impl Fn(&RawValue) -> Range<usize>,
) -> Result<Option<(Range<usize>, &'static str)>, Malformed> {
    let Some(raw) = options else {
        return Ok(Some((
            behind_stream..behind_stream,
            r#","stream_options":{"include_usage":true}"#,
        )));
    };
    let Some(options) = read::<Option<Options<'_>>>(raw, "stream_options", "an object")? else {
        return Ok(Some((place(raw), r#"{"include_usage":true}"#)));
    };
    Ok(match options.include_usage {
        Some(raw)
            if read::<Option<bool>>(
                raw,
                "stream_options",
                "an object with a boolean `include_usage`",
            )? == Some(true) =>
        {
            None
        }
        Some(raw) => Some((place(raw), "true")),
        None => {
            let inside = place(raw).start + 1;
            Some((
                inside..inside,
                if options.empty {
                    r#""include_usage":true"#
                } else {
                    r#""include_usage":true,"#
                },
            ))
        }
    })
}

fn read<'a, T: Deserialize<'a>>(
    raw: &'a RawValue,
    param: &'static str,
    expected: &str,
) -> Result<T, Malformed> {
    serde_json::from_str(raw.get())
        .map_err(|_| Malformed::field(param, format!("`{param}` must be {expected}")))
}

/// What the parser says, without its own words for what it expected of us.
fn describe(error: &serde_json::Error) -> String {
    if error.is_data() && !error.to_string().contains("stands twice") {
        return format!(
            "it is not a JSON object, at line {} column {}",
            error.line(),
            error.column()
        );
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Asked, Malformed> {
        Asked::read(Bytes::copy_from_slice(body.as_bytes()), "/chat/completions")
    }

    #[test]
    fn only_the_bytes_of_the_fields_change() {
        let options = r#""stream_options":{"include_usage":true}"#;
        let table = [
            (
                r#"{"model":"a","x": [1 , 2]}"#,
                r#"{"model":"b","x": [1 , 2]}"#.to_owned(),
            ),
            (
                r#"{ "x":{"model":"a"},"model" : "\u0061" }"#,
                r#"{ "x":{"model":"a"},"model" : "b" }"#.into(),
            ),
            (
                r#"{"stream":true,"model":"a"}"#,
                format!(r#"{{"stream":true,{options},"model":"b"}}"#),
            ),
            (
                r#"{"model":"a","stream":true}"#,
                format!(r#"{{"model":"b","stream":true,{options}}}"#),
            ),
            (
                r#"{"model":"a","stream":false}"#,
                r#"{"model":"b","stream":false}"#.into(),
            ),
            (
                r#"{"model":"a","x":[1e400,"\ud83d"]}"#,
                r#"{"model":"b","x":[1e400,"\ud83d"]}"#.into(),
            ),
            (
                r#"{"model":"a","stream":null}"#,
                r#"{"model":"b","stream":null}"#.into(),
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":null}"#,
                format!(r#"{{"model":"b","stream":true,{options}}}"#),
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":{}}"#,
                format!(r#"{{"model":"b","stream":true,{options}}}"#),
            ),
            (
                r#"{"stream_options":{"x":1},"model":"a","stream":true}"#,
                r#"{"stream_options":{"include_usage":true,"x":1},"model":"b","stream":true}"#
                    .into(),
            ),
            (
                r#"{"stream_options":{"include_usage":false},"model":"a","stream":true}"#,
                format!(r#"{{{options},"model":"b","stream":true}}"#),
            ),
            (
                r#"{"stream_options":{"include_usage": true },"model":"a","stream":true}"#,
                r#"{"stream_options":{"include_usage": true },"model":"b","stream":true}"#.into(),
            ),
        ];
        for (body, expected) in table {
            assert_eq!(
                read(body).unwrap().body_for("b", false, None),
                expected,
                "{body}"
            );
        }
    }

    #[test]
    fn a_body_that_needs_no_change_is_the_same_bytes() {
        let body = Bytes::from_static(br#"{"model":"a","messages":[]}"#);
        let asked = Asked::read(body.clone(), "/chat/completions").unwrap();
        assert_eq!(asked.body_for("a", false, None).as_ptr(), body.as_ptr());
    }

    #[test]
    fn a_name_is_escaped() {
        assert_eq!(
            read(r#"{"model":"a"}"#)
                .unwrap()
                .body_for("q\"\\\n", false, None),
            r#"{"model":"q\"\\\n"}"#
        );
    }

    #[test]
    fn what_is_malformed_is_said() {
        let deep = format!(
            r#"{{"model":"a","x":{}1{}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        let table = [
            ("", None, "EOF"),
            ("{", None, "EOF"),
            ("[]", None, "not a JSON object"),
            ("\"x\"", None, "not a JSON object"),
            (r#"{"model":"a"} x"#, None, "trailing"),
            (r#"{"model":"a","model":"b"}"#, None, "`model` stands twice"),
            (&deep, None, "nested too deeply"),
            (r#"{"model":1}"#, Some("model"), "must be a text"),
            (r#"{"model":""}"#, Some("model"), "empty"),
            (
                r#"{"model":"a","stream":"yes"}"#,
                Some("stream"),
                "must be a boolean",
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":[]}"#,
                Some("stream_options"),
                "must be an object",
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":{"include_usage":1}}"#,
                Some("stream_options"),
                "boolean",
            ),
        ];
        for (body, param, message) in table {
            let malformed = read(body).unwrap_err();
            assert_eq!(malformed.param, param, "{body}");
            assert!(
                malformed.message.contains(message),
                "{} for {body:.80}",
                malformed.message
            );
        }
        assert!(
            Asked::read(Bytes::from_static(b"{\"model\":\"\xff\"}"), "/x")
                .unwrap_err()
                .message
                .contains("UTF-8")
        );
    }
}
