//! How an answer begins: with something for the caller, with nothing yet, or with an error that its head did not tell of.

use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;

use super::{
    counted::tokens,
    event::{Choice, Delta, Event, is_empty, is_life, is_nothing},
    is_done,
};
use crate::{
    dialect::{fields::Fields, json},
    sse,
    upstream::Complaint,
};

/// What an event means to whoever has heard nothing yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opening {
    /// Something for the caller.
    Content,
    /// That its provider does not want to say anything.
    Filtered,
    /// The end.
    End,
    /// Nothing: a comment, a role, an empty text.
    Nothing,
    /// An error, which would have had this status.
    Error(StatusCode),
    /// No event of this dialect.
    Garbled,
}

/// What `event` is, if it is the first, or all before it were nothing.
pub(crate) fn opening(event: &[u8]) -> Opening {
    let Some(data) = sse::data(event) else {
        return Opening::Nothing;
    };
    if data.trim_ascii().is_empty() || sse::name(event).is_some_and(is_life) {
        return Opening::Nothing;
    }
    if is_done(&data) {
        return Opening::End;
    }
    let Ok(event) = json::read::<Event<'_>>(&data) else {
        return Opening::Garbled;
    };
    if let Some(error) = event.error() {
        return Opening::Error(error.status());
    }
    let of_response = match event.name() {
        // These say that something begins, and nothing of it.
        None
        | Some(
            "response.created"
            | "response.queued"
            | "response.in_progress"
            | "response.output_item.added"
            | "response.content_part.added",
        ) => false,
        Some(_) => true,
    };
    let mut choices = event.choices.iter().flatten();
    if of_response || choices.clone().any(Choice::has_words) {
        Opening::Content
    } else if choices.any(Choice::is_filtered) {
        Opening::Filtered
    } else if event.choices.iter().flatten().any(Choice::is_finished) {
        Opening::Content
    } else {
        Opening::Nothing
    }
}

/// The error that `event` is, as it would have been answered instead of a stream. An event of the Responses API says it in its own
/// words, which are for the reader of a stream.
pub(crate) fn refused(event: &[u8]) -> Option<Bytes> {
    let data = sse::data(event)?;
    let read: Event<'_> = json::read(&data).ok()?;
    let is_plain = read.name().is_none() && !read.has_choices() && read.error().is_some();
    is_plain.then(|| Bytes::copy_from_slice(&data))
}

/// The status that a whole answer would have had, if it is an error that came with success.
pub(crate) fn told(answer: &[u8]) -> Option<StatusCode> {
    let answer: Event<'_> = json::read(answer).ok()?;
    answer.error().map(|error| error.status())
}

/// What the error in `answer` says that the request is too much of, if it says so.
pub(crate) fn complaint(answer: &[u8]) -> Option<Complaint> {
    let answer: Event<'_> = json::read(answer).ok()?;
    answer.error()?.complaint()
}

/// Whether `answer` says nothing but that its provider did not want to give one.
pub(crate) fn is_filtered(answer: &[u8]) -> bool {
    let Ok(answer) = json::read::<Event<'_>>(answer) else {
        return false;
    };
    let choices = answer.choices.unwrap_or_default();
    !choices.is_empty()
        && choices
            .iter()
            .all(|choice| choice.is_filtered() && !choice.has_words())
}

/// What providers say of an error; of a code that is a number too, in some.
struct Told {
    words: Vec<String>,
    message: String,
    code: Option<u16>,
}

impl Event<'_> {
    fn error(&self) -> Option<Told> {
        let errors = self.choices.iter().flatten().map(|choice| choice.error);
        let mut errors = [self.error].into_iter().chain(errors).flatten();
        if let Some(error) = errors.find(|raw| !is_nothing(raw.get())) {
            return Some(Told::read(error));
        }
        if self.is_error() {
            return Some(
                Told::of([self.code.map(RawValue::get)]).with(self.message.map(RawValue::get)),
            );
        }
        if self.choices.iter().flatten().any(Choice::has_failed) {
            return Some(Told::of([]));
        }
        match self.name() {
            // The Responses API: the fields of the error are the event's own.
            Some("error") => Some(Told::of([self.code.map(RawValue::get)])),
            Some("response.failed") => {
                let response: Option<Event<'_>> = self
                    .response
                    .and_then(|raw| serde_json::from_str(raw.get()).ok());
                let error = response.and_then(|response| response.error.map(Told::read));
                Some(error.unwrap_or_else(|| Told::of([])))
            }
            _ => None,
        }
    }
}

impl Choice<'_> {
    fn has_words(&self) -> bool {
        // A role is no word.
        let says = |raw: &RawValue| {
            let delta: Result<Delta<'_>, _> = serde_json::from_str(raw.get());
            delta.is_ok_and(|delta| {
                tokens(&delta) > 0 || delta.tool_calls.iter().flatten().count() > 0
            })
        };
        let pieces = [self.delta, self.message].into_iter().flatten();
        pieces.into_iter().any(says) || self.text.is_some_and(|raw| !is_empty(raw))
    }
}

impl Told {
    fn read(error: &RawValue) -> Self {
        let fields = Fields::read(error.get().as_bytes()).unwrap_or_default();
        let said = ["code", "status", "type"].map(|name| fields.get(name));
        Self::of(said).with(fields.get("message"))
    }

    /// What is said for people to read counts only where there is no other word for it.
    fn with(mut self, message: Option<&str>) -> Self {
        self.message = message.map(str::to_ascii_lowercase).unwrap_or_default();
        self
    }

    fn of<'a>(said: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let said: Vec<&str> = said.into_iter().flatten().collect();
        let code = said
            .iter()
            .find_map(|raw| raw.trim_matches('"').parse().ok());
        let words = said
            .iter()
            .map(|raw| raw.trim_matches('"').to_ascii_lowercase());
        Self {
            words: words.collect(),
            message: String::new(),
            code,
        }
    }

    fn says(&self, parts: &[&str]) -> bool {
        let has = |part: &&str| self.words.iter().any(|word| word.contains(*part));
        parts.iter().any(has)
    }

    fn status(&self) -> StatusCode {
        let said = self.code.filter(|code| (400..600).contains(code));
        if let Some(status) = said.and_then(|code| StatusCode::from_u16(code).ok()) {
            return status;
        }
        if self.complaint().is_some() {
            return StatusCode::BAD_REQUEST;
        }
        let table: [(&[&str], StatusCode); 6] = [
            (
                &["rate_limit", "quota", "throttl", "resource_exhausted"],
                StatusCode::TOO_MANY_REQUESTS,
            ),
            (
                &["overloaded", "unavailable"],
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            (
                &["authentication", "invalid_api_key", "unauthenticated"],
                StatusCode::UNAUTHORIZED,
            ),
            (&["permission", "billing"], StatusCode::FORBIDDEN),
            (&["not_found"], StatusCode::NOT_FOUND),
            (
                &[
                    "invalid_request",
                    "invalid_argument",
                    "bad_request",
                    "invalid_prompt",
                ],
                StatusCode::BAD_REQUEST,
            ),
        ];
        let known = table.into_iter().find(|(parts, _)| self.says(parts));
        known.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, status)| status)
    }

    fn complaint(&self) -> Option<Complaint> {
        let too_long = [
            "maximum context length",
            "context size",
            "context window",
            "input token count",
            "prompt is too long",
        ];
        if self.says(&[
            "context_length",
            "string_above_max_length",
            "context_window",
            "exceed_context_size",
        ]) || too_long.iter().any(|part| self.message.contains(part))
        {
            Some(Complaint::ContextLength)
        } else if self.says(&["content_filter", "content_policy", "responsibleai"]) {
            Some(Complaint::ContentFilter)
        } else if self.says(&["workflow_paused", "workflow_stopped"]) {
            Some(Complaint::Stopped)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_told_from_all_that_comes_before_it() {
        use Opening::{Content, End, Error, Garbled, Nothing};
        let status = |code| Error(StatusCode::from_u16(code).unwrap());
        for (event, expected) in [
            (": ping\n\n", Nothing),
            ("event: x\n\n", Nothing),
            ("data:\n\n", Nothing),
            ("data:  \n\n", Nothing),
            ("event: message\ndata: \ndata\n\n", Nothing),
            ("data: {}\n\n", Nothing),
            (r#"data: {"choices":[]}"#, Nothing),
            (r#"data: {"choices":null,"error":null}"#, Nothing),
            (
                r#"data: {"choices":[{"delta":{"role":"assistant"}}]}"#,
                Nothing,
            ),
            (
                r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
                Nothing,
            ),
            (
                r#"data: {"choices":[{"delta":{"content":null},"finish_reason":null}]}"#,
                Nothing,
            ),
            (r#"data: {"choices":[{"delta":{"content":"x"}}]}"#, Content),
            (
                r#"data: {"choices":[{"delta":{"reasoning_content":"x"}}]}"#,
                Content,
            ),
            (
                r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
                Content,
            ),
            (
                r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
                Content,
            ),
            (r#"data: {"choices":[{"text":""}]}"#, Nothing),
            (r#"data: {"choices":[{"text":"x"}]}"#, Content),
            ("data: [DONE]\n\n", End),
            (
                r#"data: {"type":"response.created","response":{"error":null}}"#,
                Nothing,
            ),
            (
                r#"data: {"type":"response.output_item.added","item":{}}"#,
                Nothing,
            ),
            (
                r#"data: {"type":"response.output_text.delta","delta":"x"}"#,
                Content,
            ),
            (
                r#"data: {"type":"response.completed","response":{}}"#,
                Content,
            ),
            (
                r#"data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"}}}"#,
                status(429),
            ),
            (
                r#"data: {"type":"response.failed","response":{}}"#,
                status(500),
            ),
            (
                r#"data: {"type":"error","code":"server_error","message":"x"}"#,
                status(500),
            ),
            (
                r#"data: {"error":{"type":"overloaded_error"}}"#,
                status(503),
            ),
            (
                r#"data: {"error":{"code":"context_length_exceeded"}}"#,
                status(400),
            ),
            (r#"data: {"error":{"code":529}}"#, status(529)),
            (
                r#"data: {"error":{"code":"429","message":"x"}}"#,
                status(429),
            ),
            (r#"data: {"error":{"code":99999999999}}"#, status(500)),
            (r#"data: {"error":"boom"}"#, status(500)),
            ("data: <html>\n\n", Garbled),
            ("data: {\"choices\":[{\"delta\"\n\n", Garbled),
        ] {
            assert_eq!(opening(event.as_bytes()), expected, "{event}");
        }
    }

    #[test]
    fn an_error_that_came_with_success_is_told_from_an_answer() {
        for (answer, expected) in [
            (r#"{"error":{"type":"server_error"}}"#, Some(500)),
            (r#"{"error":{"type":"insufficient_quota"}}"#, Some(429)),
            (r#"{"error":null,"choices":[]}"#, None),
            // The Responses API says it of an answer that is one.
            (r#"{"error":null,"output":[]}"#, None),
            (r#"{"choices":[],"error":{"type":"x"}}"#, Some(500)),
            (
                r#"{"choices":[{"finish_reason":"error","error":{"code":502}}]}"#,
                Some(502),
            ),
            (
                r#"{"choices":[{"message":{"content":"x"},"finish_reason":"error"}]}"#,
                Some(500),
            ),
            (
                r#"{"object":"error","message":"the maximum context length is 4096 tokens","code":400}"#,
                Some(400),
            ),
            (r#"{"choices":[{}],"error":false}"#, None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(
                told(answer.as_bytes()).map(|status| status.as_u16()),
                expected,
                "{answer}"
            );
        }
    }

    #[test]
    fn what_is_too_much_for_one_target_is_known() {
        for (answer, expected) in [
            (
                r#"{"error":{"code":"context_length_exceeded","type":"invalid_request_error"}}"#,
                Some(Complaint::ContextLength),
            ),
            (
                r#"{"error":{"code":"content_filter","status":400}}"#,
                Some(Complaint::ContentFilter),
            ),
            (r#"{"error":{"code":"invalid_value"}}"#, None),
            (r#"{"message":"context_length_exceeded"}"#, None),
        ] {
            assert_eq!(complaint(answer.as_bytes()), expected, "{answer}");
        }
    }
}
