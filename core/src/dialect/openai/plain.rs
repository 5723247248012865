//! What a stream of choices lacks for the plainest of its readers, who know of events no more than that each is one line of JSON.

use std::{borrow::Cow, ops::Range};

use serde_json::{Map, Value, json, value::RawValue};

use super::{
    edit::place,
    event::{Delta, is_empty},
    splice::ALIKE,
};
use crate::{
    dialect::{fields::Fields, json},
    usage::Usage,
};

/// How much is kept of calls of tools, to tell them apart, and what each comes to besides its name; in bytes.
const MOST_HELD: usize = 1 << 16;
const CALL: usize = 64;

/// What is written in place of what.
pub(super) type Edits<'a> = Vec<(Range<usize>, Cow<'a, str>)>;

/// Whether a block without data says no more than that somebody is there, in the one way that all readers know.
pub(super) fn is_comment(block: &[u8]) -> bool {
    let mut lines = block.split(|byte| *byte == b'\n');
    lines.all(|line| line.is_empty() || line.starts_with(b":")) && !block.contains(&b'\r')
}

/// How `data`, which is an event without choices, comes to have some: none. Nothing if it is no object.
pub(super) fn choices(data: &[u8]) -> Option<(Range<usize>, Cow<'static, str>)> {
    let inside = data.trim_ascii_start().strip_prefix(b"{")?;
    if let Some(choices) = Fields::read(data)?.get("choices") {
        return Some((place(choices, data)?, "[]".into()));
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

/// Has `message` be told as a piece, in place of a `delta` that says nothing: each by the other's name.
pub(super) fn rename<'a>(
    message: &RawValue,
    delta: Option<&RawValue>,
    data: &[u8],
    edits: &mut Edits<'a>,
) {
    let names = [
        (Some(message), "\"message\"", "\"delta\""),
        (delta, "\"delta\"", "\"message\""),
    ];
    for (raw, name, other) in names {
        let place = raw.and_then(|raw| place(raw.get(), data));
        let before = place.and_then(|place| data.get(..place.start));
        let named = before.and_then(|before| before.trim_ascii_end().strip_suffix(b":"));
        let named = named.map(<[u8]>::trim_ascii_end);
        // What spells the name in another way is left as it is.
        let Some(before) = named.and_then(|named| named.strip_suffix(name.as_bytes())) else {
            return;
        };
        edits.push((before.len()..before.len() + name.len(), other.into()));
    }
}

/// Has `raw` be the whole number that it means, where it is a text or a fraction.
pub(super) fn count(raw: Option<&RawValue>, number: u64, data: &[u8], edits: &mut Edits<'_>) {
    let odd = raw.filter(|raw| !is_empty(raw) && raw.get().parse::<u64>().is_err());
    let place = odd.and_then(|raw| place(raw.get(), data));
    edits.extend(place.map(|place| (place, number.to_string().into())));
}

/// The calls of tools that have begun: the last one has begun last.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

/// A call by its number, and by its name, in JSON.
#[derive(Debug)]
struct Call {
    number: u64,
    name: Box<str>,
    /// It was named here, since nobody else has.
    is_made_up: bool,
}

impl Calls {
    /// Has each piece in `data` of a call say by name of which it is, unless it is of the last one: there are readers who count without
    /// numbers. They look for its function in each, too, be it that nothing is said of that. Nothing, if there are too many to tell them
    /// apart.
    pub(super) fn name(
        &mut self,
        delta: &Delta<'_>,
        data: &[u8],
        edits: &mut Edits<'_>,
    ) -> Option<()> {
        let of = |raw: Option<&RawValue>| place(raw?.get(), data);
        for call in delta.tool_calls.iter().flatten() {
            let number = call.index();
            count(call.index, number, data, edits);
            if call.written.is_none() {
                let behind = of(call.last).map(|last| last.end..last.end);
                edits.extend(behind.map(|place| (place, r#","function":{}"#.into())));
            } else if let Some(written) = call.written.filter(|raw| raw.get() == "null") {
                edits.extend(place(written.get(), data).map(|place| (place, "{}".into())));
            }
            let id = call.id.filter(|id| !is_empty(id)).map(RawValue::get);
            let known = self.0.iter().rfind(|known| known.number == number);
            let is_last = self.0.last().is_some_and(|last| last.number == number);
            // What has a name of a function is taken for a new call otherwise.
            let is_named = call.function.name.is_some_and(|name| !is_empty(name));
            let is_new = match (id, known) {
                (Some(id), _) => {
                    let is_same = |known: &Call| known.number == number && *known.name == *id;
                    !self.0.iter().any(is_same)
                }
                // Some number all calls alike, and name none.
                (None, known) => is_named && known.is_none_or(|known| known.is_made_up),
            };
            let name = match (id, known) {
                (None, _) if is_new => format!("\"call_{}\"", self.0.len()).into(),
                (None, Some(known)) if !is_last || is_named => known.name.clone(),
                (id, _) => id.unwrap_or_default().into(),
            };
            if id.is_none() && !name.is_empty() {
                if let Some(place) = of(call.id) {
                    edits.push((place, name.to_string().into()));
                } else if let Some(number) = of(call.index) {
                    edits.push((number.end..number.end, format!(r#","id":{name}"#).into()));
                }
            }
            if is_new {
                let held = self.0.iter().map(|known| known.name.len() + CALL);
                if held.sum::<usize>() > MOST_HELD {
                    return None;
                }
                self.0.push(Call {
                    number,
                    name,
                    is_made_up: id.is_none(),
                });
            }
        }
        Some(())
    }
}

/// The event that tells what an answer has cost of which `first` was one event.
pub(super) fn usage(first: &[u8], usage: Usage) -> String {
    let first: Map<String, Value> = json::read(first).unwrap_or_default();
    let alike = first
        .into_iter()
        .filter(|(name, _)| ALIKE.contains(&name.as_str()));
    let mut event = Map::new();
    for (name, value) in alike {
        event.insert(name, value);
    }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::{
        dialect::{Verdict, openai::Meter},
        sse::Framer,
    };

    /// What a caller hears of `stream`, who has asked for so many choices.
    fn heard(stream: &str, choices: u64) -> String {
        let mut meter = Meter::new(false, false).expecting(choices);
        let mut heard = Vec::new();
        let mut each = |event: Bytes| match meter.read(&event) {
            Verdict::Pass => heard.push(event),
            Verdict::Anew(event) => heard.push(event),
            Verdict::Keep => {}
            verdict => heard.push(format!("{verdict:?}").into()),
        };
        let mut framer = Framer::default();
        framer
            .push(Bytes::copy_from_slice(stream.as_bytes()), &mut each)
            .unwrap();
        each(framer.finish());
        String::from_utf8(heard.concat()).unwrap()
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let same = "data: {\"choices\":[]}\n\n";
        for (stream, expected) in [
            (same, same),
            ("data:{\"choices\":[]}\n\n", same),
            ("data: {\"choices\":[]}\r\n\r\n", same),
            ("data: {\"choices\":[]}\r\r", same),
            ("data: {\"choices\":[]}", same),
            ("\u{feff}data: {\"choices\":[]}\n\n", same),
            ("\n\n\ndata: {\"choices\":[]}\n\n\n", same),
            ("event: message\ndata: {\"choices\":[]}\n\n", same),
            ("id: 7\nretry: 1\ndata: {\"choices\":[]}\n\n", same),
            (": x\ndata: {\"choices\":[]}\n\n", same),
            ("data: {\"choices\":[]}\n: x\n\n", same),
            (
                "data: {\ndata:  \"choices\":[\ndata: ]}\n\n",
                "data: {  \"choices\":[ ]}\n\n",
            ),
            (
                "data: \"x\"\n\ndata: [DONE]\r\n\r\n",
                "Garbleddata: [DONE]\n\n",
            ),
            // What says only that somebody is there.
            (": x\n\n", ": x\n\n"),
            (": x\n: y\n\n", ": x\n: y\n\n"),
            (": x\r\n\r\n", ": ping\n\n"),
            (": x\nevent: y\n\n", ": ping\n\n"),
            ("retry: 7\n\n", ": ping\n\n"),
            ("data:\n\n", ": ping\n\n"),
            ("event: ping\n\n", ": ping\n\n"),
            ("event: ping\ndata: now\n\n", ": ping\n\n"),
            ("event: keepalive\ndata: {}\n\n", ": ping\n\n"),
            ("data: {\"type\":\"ping\"}\n\n", ": ping\n\n"),
        ] {
            assert_eq!(heard(stream, 1), expected, "{stream:?}");
        }
        let named =
            "event: response.created\r\ndata: {\"type\":\"response.created\"}\r\n\r\n\n: x\r\r";
        assert_eq!(heard(named, 0), named);
    }

    #[test]
    fn an_event_has_choices_and_a_choice_something_to_add() {
        for (event, expected) in [
            ("{}", r#"{"choices":[]}"#),
            (r#" { "id":1.0e-0}"#, r#" {"choices":[], "id":1.0e-0}"#),
            (
                r#"{"id":1,"choices": null,"x":"choices"}"#,
                r#"{"id":1,"choices": [],"x":"choices"}"#,
            ),
            (
                r#"{"choices":[{"index":0,"delta":null,"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            ),
            (
                r#"{"choices":[{"text":"x"}]}"#,
                r#"{"choices":[{"text":"x"}]}"#,
            ),
            (
                r#"{"choices":[{"message":{"content":"message"}}]}"#,
                r#"{"choices":[{"delta":{"content":"message"}}]}"#,
            ),
            (
                r#"{"choices":[{"message" : {"content":"x"},"delta": null,"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"delta" : {"content":"x"},"message": null,"finish_reason":"stop"}]}"#,
            ),
            (
                r#"{"choices":[{"delta":{},"message":{"tool_calls":[{"id":"a"}]}}]}"#,
                r#"{"choices":[{"message":{},"delta":{"tool_calls":[{"id":"a","function":{}}]}}]}"#,
            ),
            (
                r#"{"choices":[{"message":"x"},{"delta":{"content":"a"},"message":{"content":"b"}}]}"#,
                r#"{"choices":[{"message":"x"},{"delta":{"content":"a"},"message":{"content":"b"}}]}"#,
            ),
        ] {
            let expected = format!("data: {expected}\n\n");
            assert_eq!(heard(&format!("data: {event}\n\n"), 1), expected);
        }
        assert_eq!(heard("data: [{}]\n\n", 1), "Garbled");
    }

    #[test]
    fn what_has_come_in_pieces_is_not_told_again() {
        let event = |choice: &str| format!("data: {{\"choices\":[{{{choice}}}]}}\n\n");
        let all = event(r#""message":{"content":"ab"},"finish_reason":"stop""#);
        let told = all.replace("message", "delta");
        for (before, is_told) in [
            (r#""delta":{"role":"assistant","content":""}"#, true),
            (r#""index":1,"delta":{"content":"ab"}"#, true),
            (r#""delta":{"content":"ab"}"#, false),
        ] {
            let before = event(before);
            let expected = if is_told { &told } else { &all };
            assert_eq!(heard(&(before.clone() + &all), 1), before + expected);
        }
        let piece = event(r#""message":{"content":"a"}"#);
        let expected = [&piece, &piece, &all].map(|event| event.replace("message", "delta"));
        assert_eq!(
            heard(&[&*piece, &piece, &all].concat(), 1),
            expected.concat()
        );
    }

    #[test]
    fn of_several_calls_a_piece_says_of_which_it_is() {
        let mut meter = Meter::new(false, false).expecting(1);
        for (calls, expected) in [
            (r#"{"index":0,"id":"a","function":{}}"#, None),
            (r#"{"index":0,"function":{}}"#, None),
            (r#"{"index":1,"id":"b","function":{}}"#, None),
            (r#"{"index":1,"function":{}}"#, None),
            (
                r#"{"index":0,"function":{}},{"id":null,"index":0},{"index":1}"#,
                Some(
                    r#"{"index":0,"id":"a","function":{}},{"id":"a","index":0,"function":{}},{"index":1,"function":{}}"#,
                ),
            ),
            (
                r#"{"index":1,"function": null},{"function":null,"index":0},{"index":0,"type":"function"},{"index":0}"#,
                Some(
                    r#"{"index":1,"function": {}},{"function":{},"index":0,"id":"a"},{"index":0,"id":"a","type":"function","function":{}},{"index":0,"function":{},"id":"a"}"#,
                ),
            ),
            (
                r#"{"index":1,"function":{"name":"g"}}"#,
                Some(r#"{"index":1,"id":"b","function":{"name":"g"}}"#),
            ),
            (r#"{"index":0,"id":"a","function":{}}"#, None),
            // Some number all calls alike.
            (r#"{"index":1,"id":"c","function":{}}"#, None),
            (r#"{"index":1,"function":{}}"#, None),
            (r#"{"index":2,"function":{}}"#, None),
            (r#"{"function":{}}"#, None),
            // Numbers that are none, and calls that nobody has named.
            (
                r#"{"index":"3","id":"d","function":{}},{"index":4.0,"id":"e","function":{}},{"index":"3","function":{}}"#,
                Some(
                    r#"{"index":3,"id":"d","function":{}},{"index":4,"id":"e","function":{}},{"index":3,"id":"d","function":{}}"#,
                ),
            ),
            (
                r#"{"index":5,"function":{"name":"f"}},{"index":6,"id":"","function":{"name":"g"}},{"index":5,"function":{}},{"index":6,"function":{}}"#,
                Some(
                    r#"{"index":5,"id":"call_5","function":{"name":"f"}},{"index":6,"id":"call_6","function":{"name":"g"}},{"index":5,"id":"call_5","function":{}},{"index":6,"function":{}}"#,
                ),
            ),
            (
                r#"{"index":6,"function":{"name":"g"}},{"index":6,"function":{}},{"index":5,"function":{}}"#,
                Some(
                    r#"{"index":6,"id":"call_7","function":{"name":"g"}},{"index":6,"function":{}},{"index":5,"id":"call_5","function":{}}"#,
                ),
            ),
        ] {
            let event = |calls| {
                format!(r#"data: {{"choices":[{{"delta":{{"tool_calls":[{calls}]}}}}]}}"#) + "\n\n"
            };
            let expected =
                expected.map_or(Verdict::Pass, |calls| Verdict::Anew(event(calls).into()));
            assert_eq!(meter.read(event(calls).as_bytes()), expected, "{calls}");
        }
    }

    #[test]
    fn more_calls_than_can_be_told_apart_are_an_error() {
        let mut meter = Meter::new(false, false).expecting(1);
        let mut say = |call: String| {
            let event = format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{call}]}}}}]}}"#);
            meter.read(&crate::sse::event(event.as_bytes()))
        };
        let begin = |number| format!(r#"{{"index":{number},"id":"c{number}","function":{{}}}}"#);
        for number in 0..500 {
            assert_eq!(say(begin(number)), Verdict::Pass);
        }
        let Verdict::Anew(piece) = say(r#"{"index":400,"function":{}}"#.into()) else {
            panic!("it is not the last one");
        };
        assert!(piece.windows(11).any(|part| part == br#""id":"c400""#));
        let last = (500..2000).find(|number| say(begin(*number)) == Verdict::Garbled);
        assert!(last.is_some());
        let long = format!(
            r#"{{"index":0,"id":"{}","function":{{}}}}"#,
            "x".repeat(1 << 16)
        );
        let mut one = Meter::new(false, false).expecting(1);
        let event =
            format!(r#"data: {{"choices":[{{"delta":{{"tool_calls":[{long}]}}}}]}}"#) + "\n\n";
        assert_eq!(one.read(event.as_bytes()), Verdict::Pass);
    }
}
