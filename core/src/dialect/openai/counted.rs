//! What an answer has cost, as far as it says so, and as far as it can be told without.

use bytes::Bytes;
use serde_json::{Map, Value, value::RawValue};

use super::{
    cost::Estimate,
    edit::{edited, place},
    event::{Delta, Event, LONGEST_NAME, length},
};
use crate::{
    dialect::{fields::Fields, json},
    usage::Usage,
};

/// Tokens around a call of a tool that no text shows.
const CALL: u64 = 16;

/// Bytes around the details of a thought that is told in words too.
const DETAIL: u64 = 128;

/// What a whole answer cost, which comes in choices or does not; nothing if it says nothing that an answer says, or an error.
pub fn usage(answer: &[u8], in_choices: bool) -> Option<Usage> {
    let answer: Event<'_> = json::read(answer).ok()?;
    let is_answer = if in_choices {
        answer.has_choices()
    } else {
        [answer.object, answer.data, answer.output, answer.usage]
            .iter()
            .any(Option::is_some)
    };
    let is_answer = is_answer || answer.error.is_some() || answer.is_error();
    is_answer.then(|| answer.usage.map(counted).unwrap_or_default().0)
}

/// The same answer with both parts of its usage, without which some readers make nothing of it, guessed where they are missing;
/// nothing, if it has them, or tells none at all.
pub(crate) fn completed(answer: &[u8], prompt: u64) -> Option<Bytes> {
    let event: Event<'_> = json::read(answer).ok()?;
    let raw = event.usage?;
    let (usage, is_told) = counted(raw);
    if is_told {
        return None;
    }
    let choices = event.choices.iter().flatten();
    let texts = choices.flat_map(|choice| [choice.message, choice.text].into_iter().flatten());
    let bytes = texts.map(length).sum();
    let usage = usage.guessed(prompt, Estimate::of_bytes(bytes).likely);
    let mut said: Map<String, Value> = serde_json::from_str(raw.get()).unwrap_or_default();
    for (name, tokens) in [
        ("prompt_tokens", usage.tokens_in),
        ("completion_tokens", usage.tokens_out),
        ("total_tokens", usage.total()),
    ] {
        said.insert(name.into(), tokens.into());
    }
    let said = Value::Object(said).to_string();
    Some(edited(answer, &mut [(place(raw.get(), answer)?, said)]))
}

/// How many tokens of text a piece of a chat brings at most.
pub(super) fn tokens(delta: &Delta<'_>) -> u64 {
    let calls = delta.tool_calls.iter().flatten().map(|call| {
        let long = |id| bytes(Some(id)).saturating_sub(LONGEST_NAME as u64);
        let named = call.id.map_or(0, |id| CALL + long(id));
        named + bytes(call.function.name) + bytes(call.function.arguments)
    });
    let thought = bytes(delta.reasoning_content) + bytes(delta.reasoning);
    let details = delta.details.map_or(0, length);
    let around = if thought > 0 { DETAIL } else { 0 };
    bytes(delta.content)
        + thought.max(details.saturating_sub(around))
        + bytes(delta.refusal)
        + bytes(delta.function_call)
        + bytes(delta.audio)
        + delta.more
        + calls.sum::<u64>()
}

/// The bytes of a text, as it is written in JSON: as many as it has, or more.
pub(super) fn bytes(raw: Option<&RawValue>) -> u64 {
    match raw.map(RawValue::get) {
        None | Some("null") => 0,
        Some(text) => (text.len() as u64).saturating_sub(2),
    }
}

/// What was counted, and whether a reader of choices finds both parts of it.
pub(super) fn counted(raw: &RawValue) -> (Usage, bool) {
    // Both of OpenAI's APIs have names of their own. Whatever is no whole number counts as not given.
    let counts = Fields::read(raw.get().as_bytes()).unwrap_or_default();
    let count = |name| counts.number(name);
    let (prompt, answer) = (count("prompt_tokens"), count("completion_tokens"));
    let is_told = prompt.and(answer).is_some();
    let usage = Usage {
        tokens_in: prompt.or_else(|| count("input_tokens")),
        tokens_out: answer.or_else(|| count("output_tokens")),
        tokens: count("total_tokens"),
    };
    (usage, is_told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_has_both_parts_or_is_completed() {
        let message = r#""choices":[{"message":{"role":"assistant","content":"twelve bytes"}}]"#;
        for (usage, expected) in [
            (r#"{"prompt_tokens":3,"completion_tokens":4}"#, None),
            ("null", None),
            (
                r#"{"total_tokens":9}"#,
                Some(r#"{"completion_tokens":5,"prompt_tokens":4,"total_tokens":9}"#),
            ),
            (
                r#"{"prompt_tokens":null,"completion_tokens":4,"x":[1]}"#,
                Some(r#"{"completion_tokens":4,"prompt_tokens":20,"total_tokens":24,"x":[1]}"#),
            ),
            (
                r#"{"prompt_tokens":-3,"completion_tokens":4,"total_tokens":1}"#,
                Some(r#"{"completion_tokens":4,"prompt_tokens":0,"total_tokens":4}"#),
            ),
            (
                r#"{"prompt_tokens":3.0,"completion_tokens":4.5,"total_tokens":"7"}"#,
                Some(r#"{"completion_tokens":23,"prompt_tokens":20,"total_tokens":43}"#),
            ),
            (
                r#"{"prompt_tokens":1e300,"completion_tokens":4,"total_tokens":1e300}"#,
                Some(r#"{"completion_tokens":4,"prompt_tokens":20,"total_tokens":24}"#),
            ),
            (
                "{}",
                Some(r#"{"completion_tokens":23,"prompt_tokens":20,"total_tokens":43}"#),
            ),
            (
                "[]",
                Some(r#"{"completion_tokens":23,"prompt_tokens":20,"total_tokens":43}"#),
            ),
        ] {
            let answer = |usage: &str| format!("{{ \"usage\": {usage} , {message}}}");
            let completed = completed(answer(usage).as_bytes(), 20);
            assert_eq!(
                completed,
                expected.map(|usage| answer(usage).into()),
                "{usage}"
            );
        }
        let silent = format!("{{{message}}}");
        assert_eq!(completed(silent.as_bytes(), 20), None);
    }

    #[test]
    fn a_whole_answer_is_a_json_object_that_says_something() {
        let cost = |answer: &[u8]| usage(answer, false);
        let tokens = cost(br#"{"usage":{"prompt_tokens":1,"x":[]}}"#).unwrap();
        assert_eq!(tokens.tokens_in, Some(1));
        assert_eq!(
            cost(br#"{"usage":{"prompt_tokens":"1"}}"#),
            Some(Usage::default())
        );
        assert_eq!(cost(br#"{"data":[]}"#), Some(Usage::default()));
        for broken in [&b""[..], b"{}", b"<html>", b"{", b"\"x\"", b"null"] {
            assert_eq!(cost(broken), None);
        }
        for (answer, is_one) in [
            (&br#"{"choices":[{}]}"#[..], true),
            (br#"{"error":{}}"#, true),
            (br#"{"choices":[],"usage":{}}"#, false),
            (br#"{"object":"error","message":"x"}"#, true),
            (br#"{"choices":null}"#, false),
            (br#"{"detail":"busy"}"#, false),
            (b"{}", false),
        ] {
            assert_eq!(usage(answer, true).is_some(), is_one);
        }
    }
}
