//! The answer of an app of Dify's, told anew in OpenAI's words.

mod words;

use std::{
    cell::{Cell, RefCell},
    mem,
    rc::Rc,
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::{cost, fault};
use crate::{
    dialect::json,
    sse::{self, Framer},
    upstream::{Form, Origin},
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
    thought: String,
    /// What a workflow has said that may be of another output; and what it is that it has said as this one.
    held: String,
    source: Option<Value>,
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
    /// What it has cost, as it has said when it was over.
    pub usage: Cell<Usage>,
    /// What it has said of its failure.
    pub fault: RefCell<Option<String>>,
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
            _ if self.is_said && !self.is_over() => self.end(&mut out),
            _ => {}
        }
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
        match json::read::<Value>(&data) {
            Ok(event) if event.is_object() => {
                self.begin(&event);
                self.read(&event, out);
                self.trace.usage.set(self.usage);
            }
            _ => self.wrong = Some("an event is not JSON".into()),
        }
    }

    /// Learns what all events of it have in common.
    fn begin(&mut self, event: &Value) {
        if self.is_known() {
            return;
        }
        let text = |name: &str| event.get(name)?.as_str();
        let text = |name: &str| text(name).filter(|id| (1..=LONGEST_ID).contains(&id.len()));
        self.conversation = text("conversation_id").map(Into::into);
        let number = |path| json::at(event, path).and_then(Value::as_u64);
        let created = number("/created_at").or_else(|| number("/data/created_at"));
        self.created = created.unwrap_or(self.created);
        let id = text("message_id").or_else(|| text("workflow_run_id"));
        let id = id.or_else(|| text("task_id"));
        let object = match (self.is_text, self.at_once) {
            (true, _) => "text_completion",
            (false, true) => "chat.completion",
            (false, false) => "chat.completion.chunk",
        };
        let mut head = json!({
            "id": id.unwrap_or("dify"),
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

    fn read(&mut self, event: &Value, out: &mut String) {
        let text = |path| json::at(event, path).and_then(Value::as_str);
        let text = |path| text(path).unwrap_or_default();
        let name = text("/event");
        self.trace
            .has_begun
            .set(self.trace.has_begun.get() || name != "error");
        match name {
            "workflow_started" => self.has_run = true,
            "node_finished" => self.nodes = self.nodes.with(cost::of_node(event)),
            "message_end" => self.message_over(event, out),
            "workflow_finished" => self.run_over(event, out),
            "error" => self.fail(event, out),
            _ if self.is_said => {}
            "agent_message" => {
                self.by_agent = true;
                self.say(text("/answer"), out);
            }
            "message" if text("/answer").is_empty() => {}
            // What an agent has said piece by piece it may say once more, and then it is all of it.
            "message" if mem::take(&mut self.by_agent) => self.amend(text("/answer"), out),
            "message" => self.say(text("/answer"), out),
            "text_chunk" if self.is_of_output(event) => self.say(text("/data/text"), out),
            "text_chunk" => self.hold(text("/data/text")),
            "reasoning_chunk" => self.think(text("/data/reasoning"), out),
            "message_replace" => self.replace(text("/answer"), out),
            "text_replace" => self.replace(text("/data/text"), out),
            "workflow_paused" => self.run_over(event, out),
            _ => {}
        }
    }

    /// A message is over. If there is a run behind it, that may have cost more, or have failed.
    fn message_over(&mut self, event: &Value, out: &mut String) {
        self.usage = cost::read(event, "/metadata/usage").or_more(self.usage);
        match self.run.take() {
            Some(Err(failed)) => self.fail(&failed, out),
            None if self.has_run => self.stop(out),
            _ => self.end(out),
        }
    }

    /// A run is over: that is the end of a workflow, and nearly that of a chatflow.
    fn run_over(&mut self, event: &Value, out: &mut String) {
        let text = |path| json::at(event, path).and_then(Value::as_str);
        let run = cost::split(cost::read(event, "/data"), self.nodes);
        self.usage = self.usage.or_more(run);
        let is_paused = text("/event") == Some("workflow_paused");
        let status = is_paused.then_some("paused").or(text("/data/status"));
        let failed = match status {
            Some("paused") => Some(("workflow_paused", "the workflow waits for a person")),
            None | Some("succeeded" | "partial-succeeded") => None,
            Some("stopped") => Some(("workflow_stopped", "the workflow was stopped")),
            Some(_) => Some(("workflow_failed", "the workflow has failed")),
        };
        let failed = failed.map(|(code, message)| {
            let said = text("/data/error").filter(|said| !said.is_empty());
            json!({ "code": code, "message": said.unwrap_or(message) })
        });
        let origin = self.origin.clone();
        let Some(Form::Workflow { output, .. }) = &origin.app else {
            match failed {
                Some(failed) if self.is_said || is_paused => self.fail(&failed, out),
                Some(failed) => self.run = Some(Err(failed)),
                None if self.is_said => self.end(out),
                None => self.run = Some(Ok(())),
            }
            return;
        };
        if let Some(failed) = failed {
            return self.fail(&failed, out);
        }
        // What stands in place of all outputs is not to be found among them.
        if !self.is_replaced {
            let outputs = json::at(event, "/data/outputs");
            match outputs.and_then(|outputs| outputs.get(&**output)) {
                None | Some(Value::Null) => {
                    let held = mem::take(&mut self.held);
                    if self.text.is_empty() {
                        self.say(&held, out);
                    }
                    if self.text.is_empty() {
                        let message = ["the workflow has no output `", output, "`"].concat();
                        let failed = json!({ "code": "workflow_failed", "message": message });
                        return self.fail(&failed, out);
                    }
                }
                Some(Value::String(text)) => self.amend(text, out),
                Some(other) => self.amend(&other.to_string(), out),
            }
        }
        self.end(out);
    }

    /// Whether a piece of what a workflow says is of the output that is the answer. It says whose variable it is and what that is
    /// called, and not as what it is put out: those which are called alike are taken for the same, and what differs in the end is taken
    /// back.
    fn is_of_output(&mut self, event: &Value) -> bool {
        let Some(Form::Workflow { output, .. }) = &self.origin.app else {
            return true;
        };
        let Some(source) = json::at(event, "/data/from_variable_selector") else {
            return false;
        };
        let called = source.as_array().and_then(|source| source.last()?.as_str());
        called == Some(output) && self.source.get_or_insert_with(|| source.clone()) == source
    }

    /// Keeps a piece of which it is not known whether it is of the answer.
    fn hold(&mut self, text: &str) {
        self.held.push_str(text);
        if self.held.len() > sse::LONGEST_EVENT {
            self.wrong = Some("it says too much beside its answer".into());
        }
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

    /// Says this in place of all that was said.
    fn replace(&mut self, text: &str, out: &mut String) {
        self.is_replaced = true;
        self.amend(text, out);
    }

    /// This is all that was said so far. Who has heard the beginning of it hears the rest; who has heard something else is told that it
    /// does not hold.
    fn amend(&mut self, text: &str, out: &mut String) {
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
