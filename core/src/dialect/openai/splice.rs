//! The rest of a stream that somebody else had begun, for a caller who takes it for one.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    is_done,
    transcript::{Call, Transcript},
};
use crate::{dialect::json, sse, usage::Usage};

/// What every event of one answer says alike.
pub(super) const ALIKE: [&str; 5] = ["id", "object", "created", "model", "system_fingerprint"];

/// What makes one answer of two.
///
/// Whoever goes on says the whole answer anew, or goes on behind what was said; of both, what the caller has heard already is
/// left out. So what the caller has in the end is all of one answer, or the same text continued; where the new answer is another
/// one, there is no such end.
#[derive(Debug)]
pub struct Splice {
    /// What the caller has heard.
    heard: Transcript,
    /// How many bytes of its text have been said anew.
    said: usize,
    /// What it has cost before.
    lost: Usage,
}

/// What becomes of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spliced {
    /// This goes to the caller in its place.
    Event(Bytes),
    /// The caller has heard it.
    Nothing,
    /// It is another answer.
    Differs,
}

impl Splice {
    /// For a caller who has heard `heard`, which has cost `lost`.
    pub fn new(heard: Transcript, lost: Usage) -> Self {
        Self {
            heard,
            said: 0,
            lost,
        }
    }

    /// What the caller has heard.
    pub fn heard(&self) -> &Transcript {
        &self.heard
    }

    /// What it has cost before.
    pub fn lost(&self) -> Usage {
        self.lost
    }

    /// Takes an event of whoever goes on, who has said `said` with it.
    pub fn read(&mut self, event: &Bytes, said: Option<&Transcript>) -> Spliced {
        let Some(data) = sse::data(event) else {
            return Spliced::Event(event.clone());
        };
        if is_done(&data) {
            return if said.is_some_and(|said| self.is_heard_out(said)) {
                Spliced::Event(event.clone())
            } else {
                Spliced::Differs
            };
        }
        let (Some(said), Ok(event)) = (said, json::read::<Map<String, Value>>(&data)) else {
            return Spliced::Differs;
        };
        let Some((text, calls)) = self.catch_up(said) else {
            return Spliced::Differs;
        };
        let is_finished = finishes(&event).next().is_some();
        if is_finished && !self.is_heard_out(said) {
            return Spliced::Differs;
        }
        let has_usage = event.get("usage").is_some_and(Value::is_object);
        if text.is_empty() && calls.is_empty() && !is_finished && !has_usage {
            return Spliced::Nothing;
        }
        Spliced::Event(self.rewritten(event, &text, calls))
    }

    /// What is new in `said`: text, and pieces of calls. Nothing if it is another answer than the caller has heard.
    fn catch_up(&mut self, said: &Transcript) -> Option<(String, Vec<Value>)> {
        let heard = &mut self.heard;
        let both = heard.text.len().min(said.text.len());
        if heard.text.as_bytes().get(self.said..both) != said.text.as_bytes().get(self.said..both) {
            return None;
        }
        self.said = both;
        let text = said.text.get(both..)?.to_owned();
        heard.text.push_str(&text);
        self.said += text.len();
        let mut pieces = Vec::new();
        for (place, call) in said.calls.iter().enumerate() {
            if place == heard.calls.len() {
                heard.calls.push(Call::default());
            }
            let is_last = place + 1 == heard.calls.len();
            let known = heard.calls.get_mut(place)?;
            let arguments = match call.arguments.strip_prefix(&*known.arguments) {
                Some(rest) => rest.to_owned(),
                None if known.arguments.starts_with(&call.arguments) => String::new(),
                None => return None,
            };
            known.arguments.push_str(&arguments);
            if known.name.is_empty() && !call.name.is_empty() {
                known.name.clone_from(&call.name);
                known.id.clone_from(&call.id);
                pieces.push(json!({
                    "index": place,
                    "id": call.id,
                    "type": "function",
                    "function": { "name": call.name, "arguments": arguments },
                }));
            } else if known.name != call.name {
                return None;
            } else if !arguments.is_empty() {
                let mut piece = json!({ "index": place, "function": { "arguments": arguments } });
                let is_named = !is_last && !known.id.is_empty();
                if let Some(fields) = piece.as_object_mut().filter(|_| is_named) {
                    // There are readers who count without numbers.
                    fields.insert("id".into(), (&*known.id).into());
                }
                pieces.push(piece);
            }
        }
        Some((text, pieces))
    }

    /// Whether all that the caller has heard is in `said`.
    fn is_heard_out(&self, said: &Transcript) -> bool {
        let heard = self.heard.calls.iter().map(Call::said);
        self.heard.text == said.text && heard.eq(said.calls.iter().map(Call::said))
    }

    /// The event as a piece of the answer that the caller knows, with this to say.
    fn rewritten(&self, mut event: Map<String, Value>, text: &str, calls: Vec<Value>) -> Bytes {
        let first: Map<String, Value> = json::read(&self.heard.first).unwrap_or_default();
        for name in ALIKE {
            match first.get(name) {
                Some(value) => event.insert(name.into(), value.clone()),
                None => json::take(&mut event, name),
            };
        }
        // Several pieces may have come in one event.
        let finish = finishes(&event).next().cloned();
        if let Some(choice) = only_choice(&mut event) {
            json::take(choice, "logprobs");
            if let Some(finish) = finish {
                choice.insert("finish_reason".into(), finish);
            }
            if choice.contains_key("text") {
                choice.insert("text".into(), text.into());
            } else {
                let mut delta = Map::new();
                if !text.is_empty() {
                    delta.insert("content".into(), text.into());
                }
                if !calls.is_empty() {
                    delta.insert("tool_calls".into(), calls.into());
                }
                choice.insert("delta".into(), delta.into());
            }
        }
        if let Some(Value::Object(usage)) = event.get_mut("usage") {
            let lost = [
                ("prompt_tokens", self.lost.tokens_in),
                ("completion_tokens", self.lost.tokens_out),
                ("total_tokens", self.lost.total()),
            ];
            for (name, lost) in lost {
                if let Some(count) = usage.get(name).and_then(Value::as_u64) {
                    usage.insert(name.into(), count.saturating_add(lost.unwrap_or(0)).into());
                }
            }
        }
        format!("data: {}\n\n", Value::Object(event)).into()
    }
}

/// The first of the choices, of which there is no other then.
fn only_choice(event: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    let choices = event.get_mut("choices")?.as_array_mut()?;
    choices.truncate(1);
    choices.first_mut()?.as_object_mut()
}

/// Why the choice is over, as often as it is said.
fn finishes(event: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let choices = event.get("choices").and_then(Value::as_array);
    let reasons = choices
        .into_iter()
        .flatten()
        .filter_map(|choice| choice.get("finish_reason"));
    reasons.filter(|reason| !reason.is_null() && reason.as_str() != Some(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dialect::openai::Meter, dice::Dice};

    const TEXT: &str = "Hé, \"world\" 😀\n and all the rest of it";
    const ARGUMENTS: &str = r#"{"city":"Zürich","days":[1,2]}"#;

    /// A stream of one answer, cut into pieces at random.
    fn stream(id: &str, text: &str, arguments: &str, dice: &mut Dice) -> Vec<Bytes> {
        let chunk = |delta: Value, finish: Value| {
            let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
            let event = json!({ "id": id, "choices": [choice] });
            Bytes::from(format!("data: {event}\n\n"))
        };
        let mut events = Vec::new();
        for piece in pieces(text, dice) {
            events.push(chunk(json!({ "content": piece }), Value::Null));
        }
        for (place, piece) in pieces(arguments, dice).into_iter().enumerate() {
            let mut call = json!({ "index": 0, "function": { "arguments": piece } });
            if place == 0 {
                call["id"] = json!(format!("call_{id}"));
                call["function"]["name"] = json!("look_up");
            }
            events.push(chunk(json!({ "tool_calls": [call] }), Value::Null));
        }
        events.push(chunk(json!({}), json!("stop")));
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }

    fn pieces(text: &str, dice: &mut Dice) -> Vec<String> {
        let mut pieces = vec![String::new()];
        for one in text.chars() {
            pieces.last_mut().unwrap().push(one);
            if dice.chance(0.3) {
                pieces.push(String::new());
            }
        }
        pieces
    }

    /// What a caller makes of events: the text, the arguments, and how often he was told that it is over.
    fn read(events: &[Bytes]) -> (String, String, usize) {
        let mut meter = Meter::new(false, false).keeping();
        let mut ends = 0;
        for event in events {
            meter.read(event);
            ends += usize::from(event.starts_with(b"data: [DONE]"));
        }
        let told = meter.told().unwrap();
        let arguments = told.calls.first().map(|call| call.arguments.clone());
        (told.text.clone(), arguments.unwrap_or_default(), ends)
    }

    #[test]
    fn wherever_it_breaks_off_the_same_answer_goes_on_as_one() {
        for seed in 0..400 {
            let dice = &mut Dice::new([seed as u8; 16]);
            for _ in 0..=seed / 256 {
                dice.roll();
            }
            let first = stream("a", TEXT, ARGUMENTS, dice);
            let kept = dice.between(1, first.len() as u64 - 2) as usize;
            let mut heard: Vec<Bytes> = first[..kept].to_vec();
            let mut meter = Meter::new(false, false).keeping();
            for event in &heard {
                meter.read(event);
            }
            let told = meter.told().unwrap().clone();
            let mut splice = Splice::new(told, Usage::default());
            let mut meter = Meter::new(false, false).keeping();
            for event in stream("b", TEXT, ARGUMENTS, dice) {
                meter.read(&event);
                match splice.read(&event, meter.told()) {
                    Spliced::Event(event) => {
                        assert!(!event.windows(8).any(|part| part == b"\"id\":\"b\""));
                        heard.push(event);
                    }
                    Spliced::Nothing => {}
                    Spliced::Differs => panic!("seed {seed}: it is the same answer"),
                }
            }
            let expected = (TEXT.to_owned(), ARGUMENTS.to_owned(), 1);
            assert_eq!(read(&heard), expected, "seed {seed}");
        }
    }

    #[test]
    fn whatever_differs_never_ends_as_if_it_were_whole() {
        let table = [
            ("Hé, \"World\"", ARGUMENTS),
            ("", ARGUMENTS),
            ("Hé", ""),
            (TEXT, r#"{"city":"Bern"}"#),
            (TEXT, ""),
        ];
        for (number, (text, arguments)) in table.into_iter().enumerate() {
            let dice = &mut Dice::new([number as u8; 16]);
            let mut meter = Meter::new(false, false).keeping();
            for event in stream("a", TEXT, ARGUMENTS, dice)
                .iter()
                .rev()
                .skip(2)
                .rev()
            {
                meter.read(event);
            }
            let told = meter.told().unwrap().clone();
            let mut splice = Splice::new(told, Usage::default());
            let mut meter = Meter::new(false, false).keeping();
            let read = |event: Bytes| {
                meter.read(&event);
                splice.read(&event, meter.told())
            };
            let events = stream("b", text, arguments, dice).into_iter().map(read);
            let mut events = events.take_while(|spliced| *spliced != Spliced::Differs);
            let is_end = |spliced: Spliced| matches!(spliced, Spliced::Event(event) if event.starts_with(b"data: [DONE]"));
            assert!(!events.any(is_end), "{text} {arguments}");
        }
    }
}
