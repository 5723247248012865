//! A whole answer, out of the events of a run.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{
    answer::{FAILED, outcome},
    open,
    seam::Seam,
};
use crate::{dialect::fields::Fields, sse};

/// What is said of a run besides what it is, in the order in which Dify says it where it is over.
const OUTCOME: [&str; 12] = [
    "id",
    "workflow_id",
    "status",
    "outputs",
    "error",
    "elapsed_time",
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "total_steps",
    "created_at",
    "finished_at",
];

/// What an answer is put together from.
const ANSWER: [&str; 10] = [
    "message",
    "agent_message",
    "message_replace",
    "message_end",
    "text_chunk",
    "text_replace",
    "reasoning_chunk",
    "workflow_finished",
    "workflow_paused",
    "error",
];

/// What Dify says of these errors where it answers at once. In a stream it has other words for them.
const OTHER_WORDS: [(&str, &str); 2] = [
    (
        "internal_server_error",
        "The server encountered an internal error and was unable to complete your request. Either the server is overloaded or there is an error in the application.",
    ),
    (
        "model_currently_not_support",
        "Dify Hosted OpenAI trial currently not support the GPT-4 model.",
    ),
];

/// What the events of a run come to, as Dify would have answered at once.
///
/// It is a message where there is one, with or without a workflow behind it, and else a workflow's outcome.
#[derive(Debug, Default)]
pub struct Whole {
    task: Known,
    message: Known,
    conversation: Known,
    created: Known,
    run: Known,
    workflow: Known,
    text: String,
    seam: Seam,
    /// An agent has done something; or said it, just now.
    is_agent: bool,
    has_spoken: bool,
    /// A piece of the text could not be read.
    lacks: bool,
    /// The run behind a message is over; and has failed, which makes this of the message.
    has_run: bool,
    failed: Option<(StatusCode, String)>,
    said: Option<(StatusCode, String)>,
    is_over: bool,
}

/// What is said with every event, in JSON.
type Known = Option<Box<str>>;

/// An object that is being written.
#[derive(Default)]
struct Object(String);

impl Whole {
    /// Adds an event. Nothing that comes behind the answer changes it.
    pub fn add(&mut self, event: &[u8]) {
        let data = sse::data(event).unwrap_or_default();
        if self.is_over || data.trim_ascii().is_empty() {
            return;
        }
        let Some(event) = Fields::read(&data) else {
            self.lacks |= matters(&data);
            return;
        };
        self.know(&event);
        let name = event.text("event");
        let data = event.object("data");
        // A message and its run may be over one after the other, either of them first.
        let said = match (name.as_deref().unwrap_or_default(), data) {
            ("error", _) => Some(error(&event)),
            ("message_end", _) if self.failed.is_some() => self.failed.take(),
            ("message_end", _) => {
                self.said = self.message(&event);
                self.is_over = self.has_run || self.run.is_none();
                return;
            }
            ("workflow_paused", Some(data)) => self.paused(&data),
            ("workflow_finished", Some(data)) if !self.is_message() => self.outcome(&data),
            ("workflow_finished", Some(data)) => {
                self.has_run = true;
                self.failed = (outcome(&data) == Some(FAILED)).then(|| failed(&data));
                self.is_over = self.said.is_some();
                self.said = self
                    .said
                    .take()
                    .map(|said| self.failed.take().unwrap_or(said));
                return;
            }
            (name, data) => return self.hear(name, &event, data.as_ref()),
        };
        self.is_over = said.is_some();
        self.said = said;
    }

    /// Whether all is there that the answer needs.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it comes to a message.
    fn is_message(&self) -> bool {
        self.message.as_deref().is_some_and(|id| id != "null")
    }

    /// The answer, or the error that there is in its place; nothing, if neither has been said to its end.
    pub fn answer(self) -> Option<(StatusCode, Bytes)> {
        self.said.map(|(status, body)| (status, body.into()))
    }

    fn know(&mut self, event: &Fields<'_>) {
        let know = |known: &mut Known, name| {
            if known.is_none() {
                *known = event.get(name).map(Into::into);
            }
        };
        know(&mut self.task, "task_id");
        know(&mut self.message, "message_id");
        know(&mut self.conversation, "conversation_id");
        know(&mut self.created, "created_at");
        know(&mut self.run, "workflow_run_id");
    }

    fn hear(&mut self, name: &str, event: &Fields<'_>, data: Option<&Fields<'_>>) {
        match name {
            "message" | "agent_message" | "message_replace" => {
                let Some(piece) = event.get("answer").filter(|piece| *piece != "null") else {
                    return;
                };
                let speaks = name == "agent_message";
                // What an agent has said piece by piece, some of them say once more, as a message.
                if name == "message_replace" || name == "message" && self.has_spoken {
                    self.text.clear();
                    self.seam.end();
                }
                match self.seam.join(piece) {
                    Some(piece) => self.text += &piece,
                    None => self.lacks = true,
                }
                self.has_spoken = speaks;
                self.is_agent |= speaks;
            }
            "agent_thought" => self.is_agent = true,
            "workflow_started" => {
                let id = data.and_then(|data| data.get("workflow_id"));
                self.workflow = id.map(Into::into);
            }
            _ => {}
        }
    }

    /// A message whose end this is.
    fn message(&mut self, end: &Fields<'_>) -> Option<(StatusCode, String)> {
        let metadata = end.get("metadata").unwrap_or("{}");
        let message = self.begin("message", metadata)?;
        Some((StatusCode::OK, message.end()))
    }

    /// A message as far as it goes, and what is known of it; nothing, if something of it is missing.
    fn begin(&mut self, event: &str, metadata: &str) -> Option<Object> {
        if self.lacks {
            return None;
        }
        self.text += self.seam.end();
        let mut message = Object::default();
        message.text("event", event);
        message.put("task_id", known(&self.task));
        self.identify(&mut message);
        message.text("answer", &self.text);
        message.put("metadata", metadata);
        message.put("created_at", known(&self.created));
        Some(message)
    }

    fn identify(&self, message: &mut Object) {
        message.put("id", known(&self.message));
        message.put("message_id", known(&self.message));
        if self.conversation.is_some() {
            message.put("conversation_id", known(&self.conversation));
        }
        message.text(
            "mode",
            match (&self.conversation, &self.run) {
                (None, _) => "completion",
                (_, Some(_)) => "advanced-chat",
                _ if self.is_agent => "agent-chat",
                _ => "chat",
            },
        );
    }

    /// What a workflow has come to.
    fn outcome(&self, data: &Fields<'_>) -> Option<(StatusCode, String)> {
        let mut outcome = Object::default();
        for name in OUTCOME {
            match data.get(name) {
                // Only the newest say how the tokens are split.
                None if matches!(name, "prompt_tokens" | "completion_tokens") => {}
                field => outcome.put(name, field.unwrap_or("null")),
            }
        }
        Some(self.workflow(data.get("id"), outcome))
    }

    fn workflow(&self, run: Option<&str>, data: Object) -> (StatusCode, String) {
        let mut workflow = Object::default();
        workflow.put("task_id", known(&self.task));
        workflow.put("workflow_run_id", run.unwrap_or_else(|| known(&self.run)));
        workflow.put("data", &data.end());
        (StatusCode::OK, workflow.end())
    }

    /// A run that waits for somebody.
    fn paused(&mut self, data: &Fields<'_>) -> Option<(StatusCode, String)> {
        let field = |name| data.get(name).unwrap_or("null");
        let run = data.get("workflow_run_id");
        let mut pause = Object::default();
        if !self.is_message() {
            pause.put("id", run.unwrap_or_else(|| known(&self.run)));
            pause.put("workflow_id", known(&self.workflow));
            pause.put("status", field("status"));
            pause.put(
                "outputs",
                Some(field("outputs"))
                    .filter(|outputs| *outputs != "null")
                    .unwrap_or("{}"),
            );
            pause.put("error", "null");
            for name in ["elapsed_time", "total_tokens", "total_steps", "created_at"] {
                pause.put(name, field(name));
            }
            pause.put("finished_at", "null");
            pause.put("paused_nodes", field("paused_nodes"));
            pause.put("reasons", field("reasons"));
            return Some(self.workflow(run, pause));
        }
        // What it has cost so far, a stream does not say.
        let mut message = self.begin("workflow_paused", "{}")?;
        let run = run.unwrap_or_else(|| known(&self.run));
        message.put("workflow_run_id", run);
        self.identify(&mut pause);
        pause.put("workflow_run_id", run);
        pause.text("answer", &self.text);
        pause.put("metadata", "{}");
        pause.put("created_at", known(&self.created));
        for name in [
            "paused_nodes",
            "reasons",
            "status",
            "elapsed_time",
            "total_tokens",
            "total_steps",
        ] {
            pause.put(name, field(name));
        }
        message.put("data", &pause.end());
        Some((StatusCode::OK, message.end()))
    }
}

/// Whether an event that cannot be read may be a part of the answer.
pub(super) fn matters(event: &[u8]) -> bool {
    if event.trim_ascii() == b"null" {
        return false;
    }
    let kind = open::text(event, b"event");
    kind.is_none_or(|kind| ANSWER.iter().any(|part| part.as_bytes() == kind))
}

/// The error that a message is whose run has failed, in Dify's own words.
fn failed(run: &Fields<'_>) -> (StatusCode, String) {
    let why = run.text("error").unwrap_or_default();
    let mut error = Object::default();
    error.text("code", "invalid_param");
    error.text("message", &["Run failed: ", &why].concat());
    error.put("status", "400");
    (StatusCode::BAD_REQUEST, error.end())
}

/// An error of a stream, as it is told to whoever waits for an answer.
fn error(event: &Fields<'_>) -> (StatusCode, String) {
    let status = event.get("status").and_then(|raw| raw.parse().ok());
    let status = status.and_then(|status: u16| StatusCode::from_u16(status).ok());
    let is_error = |status: &StatusCode| status.is_client_error() || status.is_server_error();
    let status = status
        .filter(is_error)
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = event.text("code").unwrap_or_default();
    let mut error = Object::default();
    error.text("code", &code);
    match OTHER_WORDS.iter().find(|(of, _)| *of == code) {
        Some((_, words)) => error.text("message", words),
        // A text goes on as it is written, and anything else as the text that it is.
        None => match event.get("message") {
            None | Some("null") => error.text("message", ""),
            Some(text) if text.starts_with('"') => error.put("message", text),
            Some(other) => error.text("message", other),
        },
    }
    error.put("status", status.as_str());
    (status, error.end())
}

fn known(known: &Known) -> &str {
    known.as_deref().unwrap_or("null")
}

impl Object {
    fn put(&mut self, name: &str, value: &str) {
        for part in [
            if self.0.is_empty() { "{\"" } else { ",\"" },
            name,
            "\":",
            value,
        ] {
            self.0 += part;
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        self.put(name, &Value::from(text).to_string());
    }

    fn end(mut self) -> String {
        self.0 += "}";
        self.0
    }
}

#[cfg(test)]
mod tests;
