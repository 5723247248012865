//! The answer of an app of Dify's, told anew in OpenAI's words.

mod run;
mod words;

use std::{
    cell::{Cell, RefCell},
    mem,
    rc::Rc,
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::{abort, cost, fault, seam::Seam, whole::matters};
use crate::{
    dialect::fields::Fields,
    sse::{self, Framer},
    upstream::Origin,
    usage::Usage,
};

/// The longest name of a message or a conversation that is one, in bytes: each event has it.
const LONGEST_ID: usize = 128;

/// Takes the events of a stream of Dify's, and gives those of OpenAI's.
#[derive(Debug)]
pub struct Retelling {
    origin: Rc<Origin>,
    /// What the caller calls it.
    model: String,
    /// It is told as `completions` are.
    is_text: bool,
    /// It is told at the end, all at once.
    at_once: bool,
    /// Its caller is told in which conversation it was.
    keeps: bool,
    /// Its caller may have put words into Dify's mouth by which a failure of its own is known.
    is_suspect: bool,
    /// Since when it is there, in seconds.
    created: u64,
    framer: Framer,
    wrong: Option<String>,
    /// What every event of it begins with.
    head: String,
    /// In which conversation it was said.
    conversation: Option<String>,
    /// What was said of it; and what was thought, where it is told at the end.
    text: String,
    seam: Seam,
    thought: String,
    /// What a workflow has said that may be of another output; and what it is that it has said as this one.
    held: String,
    source: Option<Vec<Value>>,
    /// Something has been told; and an agent has just said something, who may say all of it again.
    has_begun: bool,
    by_agent: bool,
    /// Dify has said what it is in place of all that was said; its caller had heard something else.
    is_replaced: bool,
    is_taken_back: bool,
    /// What the nodes of a workflow have cost, of which they tell how it is split; and what it has cost as a whole.
    nodes: Usage,
    usage: Usage,
    /// A workflow is behind the message; and how that has ended, if it has.
    has_run: bool,
    run: Option<Result<(), Value>>,
    /// All of the message has been said.
    is_said: bool,
    trace: Rc<Trace>,
    state: State,
}

/// What is left of a run whose answer comes to nothing.
#[derive(Debug, Default)]
pub struct Trace {
    /// Dify has begun it.
    pub has_begun: Cell<bool>,
    /// Dify has ended it.
    pub is_over: Cell<bool>,
    /// What it has cost, as it has said when it was over.
    pub usage: Cell<Usage>,
    /// What it has said of its failure.
    pub fault: RefCell<Option<String>>,
    /// The name of what Dify is doing, by which it can be stopped.
    pub task: RefCell<Option<Box<str>>>,
}

/// How far it has come.
#[derive(Debug, Eq, PartialEq)]
enum State {
    Open,
    Whole,
    Failed(StatusCode, String),
}

/// What is to become of a stream in other words.
#[derive(Debug, Eq, PartialEq)]
pub enum Retold {
    /// It has not said its end.
    Open,
    /// This is all of it.
    Whole(String),
    /// It has failed: with this error, which would have had this status.
    Failed(StatusCode, String),
}

impl Retelling {
    /// Of an answer of `origin` to who calls it `model`, from now on.
    pub fn new(origin: Rc<Origin>, model: String, now: u64) -> Self {
        Self {
            origin,
            model,
            is_text: false,
            at_once: false,
            keeps: false,
            is_suspect: false,
            created: now,
            framer: Framer::default(),
            wrong: None,
            head: String::new(),
            conversation: None,
            text: String::new(),
            seam: Seam::default(),
            thought: String::new(),
            held: String::new(),
            source: None,
            has_begun: false,
            by_agent: false,
            is_replaced: false,
            is_taken_back: false,
            nodes: Usage::default(),
            usage: Usage::default(),
            has_run: false,
            run: None,
            is_said: false,
            trace: Rc::default(),
            state: State::Open,
        }
    }

    /// It is told as `completions` are.
    pub fn as_text(mut self, is_text: bool) -> Self {
        self.is_text = is_text;
        self
    }

    /// It is told at the end, all at once.
    pub fn at_once(mut self, at_once: bool) -> Self {
        self.at_once = at_once;
        self
    }

    /// Its caller is told in which conversation it was.
    pub fn keeping(mut self, keeps: bool) -> Self {
        self.keeps = keeps;
        self
    }

    /// Its caller may have put words into Dify's mouth by which a failure of its own is known.
    pub fn suspecting(mut self, is_suspect: bool) -> Self {
        self.is_suspect = is_suspect;
        self
    }

    /// The error that `said` is, and its status, where `status` came with it.
    pub fn fault(&self, said: &Value, status: StatusCode) -> (StatusCode, String) {
        let message = said.get("message").and_then(Value::as_str);
        self.trace.fault.replace(message.map(Into::into));
        fault(said, status, self.is_suspect)
    }

    /// What is left of it, whatever becomes of its answer.
    pub fn trace(&self) -> Rc<Trace> {
        self.trace.clone()
    }

    /// Whether it is told at the end.
    pub fn is_at_once(&self) -> bool {
        self.at_once
    }

    /// In which conversation it was said, if its caller is to know.
    pub fn conversation(&self) -> Option<&str> {
        self.conversation.as_deref().filter(|_| self.keeps)
    }

    /// Whether it is known what every event of it says alike.
    pub fn is_known(&self) -> bool {
        !self.head.is_empty()
    }

    /// Whether all of its message has been said.
    pub fn is_said(&self) -> bool {
        self.is_said
    }

    /// Whether nothing more is to be said.
    pub fn is_over(&self) -> bool {
        self.state != State::Open
    }

    /// What a chunk of Dify's stream is in OpenAI's words, as far as it makes sense.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        let mut framer = mem::take(&mut self.framer);
        let mut out = String::new();
        let pushed = framer.push(chunk, |event| self.event(&event, &mut out));
        self.framer = framer;
        if let Err(oversized) = pushed {
            self.wrong.get_or_insert_with(|| oversized.to_string());
        }
        out.into()
    }

    /// What is wrong with it; nothing that comes behind that is told.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    /// The same of what is left when the stream is over.
    pub fn finish(&mut self) -> Bytes {
        let mut out = String::new();
        let rest = self.framer.finish();
        self.event(&rest, &mut out);
        if self.wrong.is_some() {
            return out.into();
        }
        // An event that is left open is none. What has failed has failed; but a message whose end is missing is not whole.
        match self.run.take().filter(|_| !self.is_over()) {
            Some(Err(said)) => self.fail(&said, &mut out),
            _ if self.is_over() => {}
            _ if self.is_said => self.end(&mut out),
            _ => self.count(&mut out),
        }
        self.trace.usage.set(self.usage);
        let is_over = self.trace.is_over.get() || self.is_over();
        self.trace.is_over.set(is_over);
        out.into()
    }

    /// What it comes to in the end, where it is told at once.
    pub fn retold(mut self) -> Retold {
        match mem::replace(&mut self.state, State::Open) {
            State::Open => Retold::Open,
            State::Failed(status, error) => Retold::Failed(status, error),
            State::Whole => Retold::Whole(self.whole()),
        }
    }

    /// Takes an event.
    fn event(&mut self, event: &[u8], out: &mut String) {
        let data = sse::data(event).unwrap_or_default();
        if data.trim_ascii().is_empty() || self.is_over() || self.wrong.is_some() {
            return;
        }
        match Fields::read(&data) {
            Some(event) => {
                self.begin(&event);
                if let Some(task) = event.get("task_id").and_then(abort::task) {
                    self.trace
                        .task
                        .borrow_mut()
                        .get_or_insert_with(|| task.into());
                }
                self.read(&event, out);
                self.trace.usage.set(self.usage);
                self.trace.is_over.set(self.is_over() || self.run.is_some());
            }
            None if matters(&data) => self.wrong = Some("an event is not JSON".into()),
            None => {}
        }
    }

    /// Learns what all events of it have in common.
    fn begin(&mut self, event: &Fields<'_>) {
        if self.is_known() {
            return;
        }
        let text = |name| event.text(name);
        let text = |name| text(name).filter(|id| (1..=LONGEST_ID).contains(&id.len()));
        self.conversation = text("conversation_id");
        let of_data = || event.object("data")?.number("created_at");
        let created = event.number("created_at").or_else(of_data);
        self.created = created.unwrap_or(self.created);
        let id = text("message_id").or_else(|| text("workflow_run_id"));
        let id = id.or_else(|| text("task_id"));
        let object = match (self.is_text, self.at_once) {
            (true, _) => "text_completion",
            (false, true) => "chat.completion",
            (false, false) => "chat.completion.chunk",
        };
        let mut head = json!({
            "id": id.as_deref().unwrap_or("dify"),
            "object": object,
            "created": self.created,
            "model": self.model,
        });
        if let (Some(id), Some(head)) = (self.conversation(), head.as_object_mut()) {
            head.insert("conversation".into(), json!({ "id": id }));
        }
        self.head = head.to_string();
        self.head.pop();
    }

    fn read(&mut self, event: &Fields<'_>, out: &mut String) {
        let name = event.text("event").unwrap_or_default();
        let data = event.object("data").unwrap_or_default();
        let trace = &self.trace.has_begun;
        trace.set(trace.get() || name != "error");
        match &*name {
            "workflow_started" => self.has_run = true,
            "node_finished" => self.nodes = self.nodes.with(cost::of_node(&data)),
            "message_end" => self.message_over(event, out),
            "workflow_finished" => self.run_over(data.text("status").as_deref(), &data, out),
            "workflow_paused" => self.run_over(Some("paused"), &data, out),
            "error" => {
                let said = json!({
                    "code": event.text("code"),
                    "message": event.text("message"),
                    "status": event.number("status"),
                });
                self.fail(&said, out);
            }
            _ if self.is_said => {}
            "agent_message" => {
                self.by_agent = true;
                let piece = self.join(event.get("answer"));
                self.say(&piece, out);
            }
            "message" if matches!(event.get("answer"), None | Some("\"\"")) => {}
            // What an agent has said piece by piece it may say once more, and then it is all of it.
            "message" if mem::take(&mut self.by_agent) => self.amend(event.get("answer"), out),
            "message" => {
                let piece = self.join(event.get("answer"));
                self.say(&piece, out);
            }
            "text_chunk" => {
                let piece = self.join(data.get("text"));
                if self.is_of_output(&data) {
                    self.say(&piece, out);
                } else {
                    self.hold(&piece);
                }
            }
            "reasoning_chunk" => {
                let mut seam = Seam::default();
                let thought = data.get("reasoning").and_then(|piece| seam.join(piece));
                self.think(&(thought.unwrap_or_default() + seam.end()), out);
            }
            "message_replace" | "text_replace" => {
                self.is_replaced = true;
                let text = event.get("answer").or_else(|| data.get("text"));
                self.amend(text, out);
            }
            _ => {}
        }
    }

    /// What a piece adds to the text, as far as it is one.
    fn join(&mut self, piece: Option<&str>) -> String {
        let joined = piece.and_then(|piece| self.seam.join(piece));
        joined.unwrap_or_default()
    }

    /// Says a piece of the answer.
    fn say(&mut self, text: &str, out: &mut String) {
        if self.is_taken_back || text.is_empty() {
            return;
        }
        // What is longer than any event nobody says again.
        if self.at_once || self.text.len() <= sse::LONGEST_EVENT {
            self.text.push_str(text);
        }
        if !self.at_once {
            self.piece("content", text, out);
            self.has_begun = true;
        }
    }

    /// Says a piece of what was thought, for which a mere text has no place.
    fn think(&mut self, thought: &str, out: &mut String) {
        if thought.is_empty() || self.is_text {
            return;
        }
        if self.at_once {
            self.thought.push_str(thought);
        } else {
            self.piece("reasoning_content", thought, out);
            self.has_begun = true;
        }
    }

    /// A piece says anew all that was said so far.
    fn amend(&mut self, piece: Option<&str>, out: &mut String) {
        self.seam.end();
        let text = self.join(piece);
        self.amend_by(&text, out);
    }

    /// This is all that was said so far. Who has heard the beginning of it hears the rest; who has heard something else is told that it
    /// does not hold.
    fn amend_by(&mut self, text: &str, out: &mut String) {
        if self.at_once {
            self.text.clear();
        }
        match text.strip_prefix(&*self.text) {
            Some(rest) => self.say(rest, out),
            None => self.is_taken_back = true,
        }
    }
}

#[cfg(test)]
mod tests;
