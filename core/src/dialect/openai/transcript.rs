//! What a stream has said so far, so that somebody else can go on with it.

use serde_json::value::RawValue;

use super::event::{Choice, Delta, is_empty};

/// More than this is not kept, in bytes: the answers of most models are a tenth of it at most.
const LONGEST: usize = 1 << 20;

/// How many calls of tools are kept.
const MOST_CALLS: usize = 128;

/// What the one choice of a stream has said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transcript {
    /// The first event: whatever follows is a piece of the same answer.
    pub(super) first: Box<[u8]>,
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
}

/// What has been said of a call of a tool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Call {
    /// By which its result is told from those of others; of the same call, everybody says another one.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
}

impl Call {
    /// What it says, by whatever id.
    pub(super) fn said(&self) -> (&str, &str) {
        (&self.name, &self.arguments)
    }
}

impl Transcript {
    /// What somebody has said who goes on behind this text: the text is theirs too.
    pub(super) fn behind(text: &str) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// The text that an answer can be continued behind, if it is all that has been said of it.
    pub fn text(&self) -> Option<&str> {
        let is_all = self.calls.is_empty() && !self.text.is_empty();
        is_all.then_some(&*self.text)
    }

    /// How much has been said, in bytes.
    pub fn length(&self) -> usize {
        let calls = self.calls.iter();
        let calls = calls.map(|call| call.name.len() + call.arguments.len());
        self.text.len() + calls.sum::<usize>()
    }

    /// Adds what an event says of `choice`; `delta` is that of a chat. Nothing if it cannot be kept: nobody can go on with it.
    pub(super) fn follow(&mut self, choice: &Choice<'_>, delta: Option<&Delta<'_>>) -> Option<()> {
        if choice.index() != 0 || self.length() > LONGEST {
            return None;
        }
        add(&mut self.text, choice.text)?;
        let Some(delta) = delta else { return Some(()) };
        let others = [delta.refusal, delta.function_call, delta.audio];
        if delta.more > 0 || others.into_iter().flatten().any(|raw| !is_empty(raw)) {
            return None;
        }
        // What a model thinks is no part of what it says: who goes on may think otherwise.
        add(&mut self.text, delta.content)?;
        for call in delta.tool_calls.iter().flatten() {
            let place = usize::try_from(call.index()).ok()?;
            if place == self.calls.len() && place < MOST_CALLS {
                self.calls.push(Call::default());
            }
            let known = self.calls.get_mut(place)?;
            // Where providers leave the index out, several calls come in one place, and cannot be told apart.
            add_once(&mut known.id, call.id)?;
            add_once(&mut known.name, call.function.name)?;
            add(&mut known.arguments, call.function.arguments)?;
        }
        // Of several calls the caller knows those without an id by another one.
        let lacks = |call: &Call| call.id.is_empty();
        (self.calls.len() < 2 || !self.calls.iter().any(lacks)).then_some(())
    }
}

/// Adds a text of JSON that some say with every piece, and some once; nothing if it is another one than before.
fn add_once(said: &mut String, raw: Option<&RawValue>) -> Option<()> {
    let mut again = String::new();
    add(&mut again, raw)?;
    if said.is_empty() {
        *said = again;
        return Some(());
    }
    (again.is_empty() || *said == again).then_some(())
}

/// Adds a text of JSON. What it escapes may be half of a character, which is no text.
fn add(said: &mut String, raw: Option<&RawValue>) -> Option<()> {
    let Some(raw) = raw.map(RawValue::get).filter(|raw| *raw != "null") else {
        return Some(());
    };
    match raw.strip_prefix('"')?.strip_suffix('"')? {
        plain if !plain.contains('\\') => said.push_str(plain),
        _ => said.push_str(&serde_json::from_str::<String>(raw).ok()?),
    }
    Some(())
}
