//! A stream, of which only what it cost and whether it is whole is read.

use bytes::Bytes;
use serde_json::{Map, Value, value::RawValue};

use super::{
    cost::Estimate,
    counted::{bytes, counted, tokens},
    cut::cut,
    edit::{edited, place},
    event::{Choice, Delta, Event, is_empty, is_life, is_nothing, length},
    failure::failure,
    is_done,
    plain::{self, Calls, Edits},
    splice::Splice,
    transcript::Transcript,
};
use crate::{
    dialect::{Dialect, Verdict, fields::Fields, json},
    sse,
    usage::Usage,
};

/// How many answers a caller can ask for at once.
const MOST_CHOICES: usize = 128;

/// Tokens of a choice that no text shows: where it begins and ends.
const UNSHOWN: u64 = 8;

/// Reads the events of a stream.
#[derive(Debug, Default)]
pub struct Meter {
    /// The caller did not ask for the usage: the event that carries it alone is kept back.
    hide_usage: bool,
    /// What passes is to be counted.
    counts: bool,
    pub(in crate::dialect) usage: Usage,
    /// Bytes of text that have passed, and what is not shown of it.
    pub(in crate::dialect) passed: u64,
    /// The stream has said itself that it is over; with its last word; and that it has failed.
    over: bool,
    done: bool,
    /// It is a response, which says that it is over in an event of its own.
    responds: bool,
    pub(in crate::dialect) failed: bool,
    /// It has said in an event of its own what it has cost, and nothing more of the answer since.
    pub(in crate::dialect) has_counted: bool,
    /// How many choices were asked for, and those that have begun. A stream that comes in choices goes on so that all readers of such
    /// streams understand it.
    asked: usize,
    choices: Vec<Begun>,
    calls: Calls,
    /// The caller has asked for the usage of a prompt that comes to so many tokens, and has not been told all of it.
    owes: Option<u64>,
    is_told: bool,
    /// The first event of the answer, if its usage may have to be told here.
    first: Box<[u8]>,
    /// What a response said of itself when it began, in case it must be ended here.
    begun: Option<Box<RawValue>>,
    /// What has been said so far, in case somebody else must go on with it.
    told: Option<Transcript>,
}

/// A choice that has begun.
#[derive(Debug)]
struct Begun {
    number: u64,
    /// It says in each piece whether it is over; there are those who never do.
    tells_end: bool,
    is_finished: bool,
    /// It has said something piece by piece.
    has_spoken: bool,
}

impl Meter {
    /// A meter that keeps back the event that carries the usage alone, or does not; and that counts what passes, or does not.
    pub fn new(hide_usage: bool, counts: bool) -> Self {
        Self {
            hide_usage,
            counts,
            ..Self::default()
        }
    }

    /// Misses what has not come of so many choices.
    pub fn expecting(mut self, choices: u64) -> Self {
        self.asked = usize::try_from(choices).map_or(MOST_CHOICES, |asked| asked.min(MOST_CHOICES));
        self
    }

    /// Sees to it that the caller is told what it has cost, where the prompt comes to so many tokens; or does not.
    pub fn telling(mut self, prompt: Option<u64>) -> Self {
        self.owes = prompt;
        self.counts |= prompt.is_some();
        self
    }

    /// Keeps what is said, so that somebody else can go on with it.
    pub fn keeping(mut self) -> Self {
        self.told = Some(Transcript::default());
        self
    }

    /// Reads what is said behind this text.
    pub fn behind(mut self, text: &str) -> Self {
        self.told = Some(Transcript::behind(text));
        self
    }

    /// What has been said so far, if it can be gone on with.
    pub(in crate::dialect) fn told(&self) -> Option<&Transcript> {
        self.told.as_ref()
    }

    /// Whether the stream has said that it is over, or each of its choices has finished.
    pub(in crate::dialect) fn is_over(&self) -> bool {
        self.over || self.has_finished()
    }

    /// Whether each of its choices has finished.
    pub(in crate::dialect) fn has_finished(&self) -> bool {
        let all_have_begun = self.choices.len() >= self.asked.max(1);
        all_have_begun && self.choices.iter().all(|choice| choice.is_finished)
    }

    /// The event that tells the caller what it has cost, if he has asked for that and nobody has told all of it. What is not known is
    /// guessed.
    pub(in crate::dialect) fn owed(&mut self, splice: Option<&Splice>) -> Option<String> {
        let prompt = self.owes.take().filter(|_| !self.is_told)?;
        let answer = Estimate::of_bytes(self.passed).likely;
        let (first, lost) = match splice {
            Some(splice) => (&splice.heard().first, splice.lost()),
            None => (&self.first, Usage::default()),
        };
        Some(plain::usage(
            first,
            self.usage.guessed(prompt, answer).with(lost.guessed(0, 0)),
        ))
    }

    /// What the caller is told in place of `said`, by which the upstream has told that it has failed, if there is anything to tell.
    pub(in crate::dialect) fn failure(&self, said: &Bytes) -> Option<Bytes> {
        failure(said, self.asked > 0)
    }

    /// The events that end the stream here, of which `last` was the last event; `owed` is told before the end.
    pub(in crate::dialect) fn cut(&self, last: &[u8], why: &str, owed: &str) -> Bytes {
        let open = self.choices.iter().filter(|choice| !choice.is_finished);
        let open: Vec<u64> = open.map(|choice| choice.number).collect();
        cut(last, &open, self.begun.as_deref(), why, owed)
    }

    pub(in crate::dialect) fn read(&mut self, event: &[u8]) -> Verdict {
        let in_choices = self.asked > 0;
        if let Some(line) = sse::plain(event) {
            return self.read_data(line, false);
        }
        let name = sse::name(event);
        let Some(data) = sse::data(event) else {
            return match in_choices {
                true if event.trim_ascii().is_empty() => Verdict::Keep,
                true if !plain::is_comment(event) => self.life(),
                _ => Verdict::Pass,
            };
        };
        let verdict = match name {
            Some(name) if in_choices && is_life(name) => self.life(),
            name => self.read_data(&data, name == Some(b"error")),
        };
        match verdict {
            Verdict::Pass if in_choices => Verdict::Anew(sse::event(&data)),
            verdict => verdict,
        }
    }

    fn read_data(&mut self, data: &[u8], is_named_error: bool) -> Verdict {
        if self.done {
            // Nothing is said after the last word.
            return Verdict::Keep;
        }
        if is_done(data) {
            // Whoever never says of a choice whether it is over is taken at his word.
            let is_open = |choice: &Begun| choice.tells_end && !choice.is_finished;
            if self.choices.iter().any(is_open) || self.responds && !self.over {
                return Verdict::Unfinished;
            }
            (self.over, self.done) = (true, true);
            return Verdict::Pass;
        }
        let event: Event<'_> = match json::read(data) {
            Ok(event) => event,
            Err(_) if data.trim_ascii().is_empty() => return self.life(),
            Err(error) if error.is_data() && str::from_utf8(data).is_ok() => {
                return self.puzzle(data, is_named_error);
            }
            Err(_) => return Verdict::Garbled,
        };
        self.take(&event, data, is_named_error)
    }

    /// What becomes of an event that only says that somebody is there.
    fn life(&self) -> Verdict {
        match self.asked {
            0 => Verdict::Pass,
            _ => Verdict::Anew(Dialect::OpenAi.ping()),
        }
    }

    /// Reads what is an object, and not one of those that are known here: of a field that stands twice the last one counts, as it does
    /// for most readers.
    fn puzzle(&mut self, data: &[u8], is_named_error: bool) -> Verdict {
        let plain: Option<Map<String, Value>> = json::read(data).ok();
        let again = plain.map(|plain| Value::Object(plain).to_string());
        let event = again
            .as_ref()
            .and_then(|again| json::read::<Event<'_>>(again.as_bytes()).ok());
        if let Some(event) = event {
            return self.take(&event, data, is_named_error);
        }
        if !data.trim_ascii().starts_with(b"{") {
            return Verdict::Garbled;
        }
        let fields = Fields::read(data).unwrap_or_default();
        let error = fields.get("error");
        if is_named_error || error.is_some_and(|error| !is_nothing(error)) {
            (self.failed, self.over) = (true, true);
        } else {
            // What it says is not known here, so nobody can go on behind it.
            self.told = None;
        }
        Verdict::Pass
    }

    fn take(&mut self, event: &Event<'_>, data: &[u8], is_named_error: bool) -> Verdict {
        if self.counts && self.begun.is_none() {
            self.begun = event.response.map(ToOwned::to_owned);
        }
        let of_response = || {
            let response: Event<'_> = serde_json::from_str(event.response?.get()).ok()?;
            response.usage
        };
        let told = event.usage.or_else(of_response);
        if let Some(raw) = told.filter(|raw| raw.get() != "null") {
            (self.usage, self.is_told) = counted(raw);
        }
        let fails = event.error.is_some_and(|error| !is_nothing(error.get()))
            || event.is_error()
            || is_named_error
            || event.choices.iter().flatten().any(Choice::has_failed)
            || matches!(event.name(), Some("response.failed" | "error"));
        // Some say in the same event that a choice has finished: with an error.
        let choices = event.choices.iter().flatten();
        let mut edits = Edits::new();
        for choice in choices.filter(|_| !fails) {
            self.follow(choice);
            if self.hear(choice, data, &mut edits).is_none() {
                return Verdict::Garbled;
            }
        }
        if event.name().is_some() {
            self.responds = true;
            // The pieces of a response have numbers and names of their own, which nobody else can go on with.
            self.told = None;
        }
        if event.name().is_some_and(|name| name.ends_with(".delta")) {
            self.passed = self.passed.saturating_add(bytes(event.delta));
        }
        if event.name() == Some("response.output_item.added") {
            // The name of a tool is said here, and nowhere piece by piece.
            self.passed = self.passed.saturating_add(bytes(event.item));
        }
        let closed = matches!(
            event.name(),
            Some("response.completed" | "response.incomplete")
        );
        self.failed |= fails;
        self.over |= closed || self.failed;
        let has_choices = event.has_choices();
        let alone = event.usage.is_some() && !has_choices;
        self.has_counted = alone || self.has_counted && !has_choices;
        if self.hide_usage && alone && !fails {
            return Verdict::Keep;
        }
        if self.asked == 0 || fails {
            return Verdict::Pass;
        }
        if event.choices.is_none() {
            match plain::choices(data) {
                _ if event.is_life() => return self.life(),
                Some(edit) => edits.push(edit),
                None => return Verdict::Garbled,
            }
        }
        if edits.is_empty() {
            Verdict::Pass
        } else {
            Verdict::Anew(sse::event(&edited(data, &mut edits)))
        }
    }
}

impl Meter {
    /// Counts and keeps what is said, if that is wanted, and has it say all that readers need; nothing, if that cannot be.
    fn hear(&mut self, choice: &Choice<'_>, data: &[u8], edits: &mut Edits<'_>) -> Option<()> {
        let mut begun = self.choices.iter_mut();
        let mut begun = begun.find(|begun| begun.number == choice.index());
        let has_spoken = begun.as_ref().is_none_or(|begun| begun.has_spoken);
        // What some call a message is a piece where there is no other; at the end it may be all that came in pieces.
        let message = choice
            .message
            .filter(|_| choice.delta.is_none_or(is_empty) && !(has_spoken && choice.is_finished()));
        let message = message.filter(|message| message.get().starts_with('{'));
        let mut said = choice.delta.filter(|delta| delta.get() != "null");
        if self.asked > 0 {
            plain::count(choice.index, choice.index(), data, edits);
        }
        if self.asked > 0
            && let Some(message) = message
        {
            plain::rename(message, choice.delta, data, edits);
        } else if self.asked > 0 && said.is_none() {
            let nothing = choice.delta.and_then(|delta| place(delta.get(), data));
            edits.extend(nothing.map(|place| (place, "{}".into())));
        }
        let untold = choice
            .message
            .filter(|_| message.is_none())
            .map_or(0, length);
        said = message.or(said);
        let has_calls = |delta: &RawValue| delta.get().contains("\"tool_calls\"");
        let calls = self.asked > 0 && choice.index() == 0 && said.is_some_and(has_calls);
        if !(calls || self.counts || self.told.is_some() || !has_spoken) {
            return Some(());
        }
        let delta: Option<Delta<'_>> = said.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let piece = delta.as_ref().map_or_else(|| bytes(said), tokens);
        if let Some(begun) = begun.as_mut().filter(|_| message.is_none()) {
            begun.has_spoken |= piece > 0;
        }
        if let Some(delta) = delta.as_ref().filter(|_| calls) {
            self.calls.name(delta, data, edits)?;
        }
        if self.owes.is_some() && self.first.is_empty() {
            self.first = data.into();
        }
        if self.counts {
            let piece = piece + bytes(choice.text) + choice.more + untold;
            // What is said about a piece is longer than the piece, and costs nothing beside it.
            let piece = if piece == 0 { choice.about } else { piece };
            self.passed = self.passed.saturating_add(piece);
        }
        if let Some(told) = &mut self.told {
            if told.first.is_empty() {
                told.first = data.into();
            }
            let is_read = delta.is_some() || said.is_none();
            let is_kept = is_read && told.follow(choice, delta.as_ref()).is_some();
            if !is_kept {
                self.told = None;
            }
        }
        Some(())
    }

    fn follow(&mut self, choice: &Choice<'_>) {
        let (number, is_finished) = (choice.index(), choice.is_finished());
        let known = self.choices.iter_mut().find(|known| known.number == number);
        if let Some(known) = known {
            known.tells_end |= choice.tells_end();
            known.is_finished |= is_finished;
        } else if self.choices.len() < MOST_CHOICES {
            // More than any caller can ask for are not followed, so that nobody fills the memory with their numbers.
            self.choices.push(Begun {
                number,
                tells_end: choice.tells_end(),
                is_finished,
                has_spoken: false,
            });
            self.passed = self.passed.saturating_add(UNSHOWN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(hide_usage: bool, events: &[&str]) -> (Meter, Vec<Verdict>) {
        let mut meter = Meter::new(hide_usage, true);
        let verdicts = events
            .iter()
            .map(|event| meter.read(format!("data: {event}\n\n").as_bytes()))
            .collect();
        (meter, verdicts)
    }

    const CHUNK: &str =
        r#"{"choices":[{"delta":{"content":"x"},"finish_reason":null}],"usage":null}"#;
    const LAST: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const USAGE: &str =
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;

    #[test]
    fn the_usage_is_read_and_kept_back_only_if_nobody_asked() {
        let usage = Usage {
            tokens_in: Some(3),
            tokens_out: Some(4),
            tokens: Some(7),
        };
        for (hide, verdict) in [(true, Verdict::Keep), (false, Verdict::Pass)] {
            let (meter, verdicts) = meter(hide, &[CHUNK, LAST, USAGE, "[DONE]"]);
            assert_eq!(
                verdicts,
                [Verdict::Pass, Verdict::Pass, verdict, Verdict::Pass]
            );
            assert_eq!(meter.usage, usage);
        }
    }

    #[test]
    fn a_stream_is_whole_once_it_says_so() {
        for (events, whole) in [
            (&[CHUNK][..], false),
            (&[CHUNK, LAST], true),
            (
                &[r#"{"choices":[{"index":0,"finish_reason":"stop"},{"index":1}]}"#],
                false,
            ),
            (
                &[
                    r#"{"choices":[{"index":0},{"index":1}]}"#,
                    r#"{"choices":[{"index":1,"finish_reason":"stop"}]}"#,
                    LAST,
                ],
                true,
            ),
            (&[r#"{"choices":[{"finish_reason":""}]}"#], false),
            (&["[DONE]"], true),
            (&[CHUNK, "[DONE]"], false),
            (&[CHUNK, LAST, "[DONE]"], true),
            (
                &[r#"{"choices":[{"delta":{"content":"x"}}]}"#, "[DONE]"],
                true,
            ),
            (
                &[r#"{"type":"response.completed","response":{"usage":{"input_tokens":1}}}"#],
                true,
            ),
            (&[r#"{"error":{"message":"x"}}"#], true),
            (&[r#"{"error":null}"#, "nonsense", "{"], false),
        ] {
            assert_eq!(meter(false, events).0.is_over(), whole, "{events:?}");
        }
    }

    #[test]
    fn what_was_asked_for_and_has_not_begun_is_missing() {
        let other = r#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#;
        for (asked, events, whole) in [
            (1, &[CHUNK, LAST][..], true),
            (2, &[CHUNK, LAST], false),
            (2, &[CHUNK, LAST, other], true),
            // Some give one, whatever they are asked for, and say that this was all.
            (2, &[CHUNK, LAST, "[DONE]"], true),
        ] {
            let mut meter = Meter::new(false, false).expecting(asked);
            for event in events {
                meter.read(format!("data: {event}\n\n").as_bytes());
            }
            assert_eq!(meter.is_over(), whole, "{asked} {events:?}");
        }
    }

    #[test]
    fn whatever_a_piece_says_counts_and_what_is_plain_no_more_than_it_is_long() {
        let passed = |choice: &str| {
            let text = "x".repeat(500);
            let event = format!(r#"{{"choices":[{{{}}}]}}"#, choice.replace('@', &text));
            meter(false, &[&event]).0.passed - UNSHOWN
        };
        for (choice, expected) in [
            (r#""delta":{"role":"assistant","content":"@"}"#, 500),
            (r#""delta":{"content":"@"},"finish_reason":"stop""#, 500),
            (
                r#""index":0,"delta":{"content":"","reasoning_content":"@"}"#,
                500,
            ),
            (
                r#""delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"@"}}]}"#,
                517,
            ),
            (r#""text":"@""#, 500),
            // What stands around a piece, or says it once more, costs nothing beside it.
            (
                r#""delta":{"reasoning":"@","reasoning_details":[{"type":"reasoning.text","text":"@","format":"v1","index":0}]}"#,
                500,
            ),
            (
                r#""delta":{"content":"a"},"logprobs":{"content":[{"token":"@"}]},"content_filter_results":{"hate":{"filtered":false}}"#,
                1,
            ),
        ] {
            assert_eq!(passed(choice), expected, "{choice}");
        }
        for choice in [
            r#""delta":{"thinking":"@"}"#,
            r#""delta":{"c\u006fntent":"@"}"#,
            r#""delta":{"content":[{"type":"text","text":"@"}]}"#,
            r#""delta":{"role":"@"}"#,
            r#""delta":{"reasoning_details":[{"text":"@"}]}"#,
            r#""delta":{"reasoning":"a","reasoning_details":[{"text":"@@"}]}"#,
            r#""delta":{"images":[{"image_url":{"url":"@"}}]}"#,
            r#""delta":{"annotations":[{"x":"@"}],"content":""}"#,
            r#""delta":{"tool_calls":[{"index":0,"type":"custom","custom":{"name":"f","input":"@"}}]}"#,
            r#""delta":{"tool_calls":[{"id":"@@"}]}"#,
            r#""delta":{"tool_calls":[{"index":"@"}]}"#,
            r#""delta":{"tool_calls":[{"type":"@"}]}"#,
            r#""delta":{"tool_calls":[{"function":"@"}]}"#,
            r#""delta":{"tool_calls":[{"function":{"output":"@"}}]}"#,
            r#""delta":{"tool_calls":{"function":{"arguments":"@"}}}"#,
            r#""delta":"@""#,
            r#""delta":["@"]"#,
            r#""delta":{},"message":{"content":"@"}"#,
            r#""message":{"content":"@"}"#,
            r#""delta":{"content":"a"},"message":{"content":"@"}"#,
            r#""delta":{"content":"a"},"content":"@""#,
            r#""delta":{"content":"a"},"finish_reason":"@""#,
            r#""delta":{"content":""},"logprobs":{"content":[{"token":"@"}]}"#,
        ] {
            let passed = passed(choice);
            assert!(passed >= 500, "{passed} {choice}");
        }
    }
}
