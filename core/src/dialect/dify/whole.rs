//! A whole answer, out of the events of a run.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, value::RawValue};

use super::fields::Fields;
use crate::sse;

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
    /// An agent has done something; or said it, just now.
    is_agent: bool,
    has_spoken: bool,
    /// A piece of the text could not be read.
    lacks: bool,
    said: Option<(StatusCode, String)>,
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
        if self.said.is_some() || data.trim_ascii().is_empty() {
            return;
        }
        let Some(event) = Fields::read(&data) else {
            self.lacks = true;
            return;
        };
        self.know(&event);
        let name = event.text("event");
        let data = event
            .get("data")
            .and_then(|raw| Fields::read(raw.get().as_bytes()));
        self.said = match (name.as_deref().unwrap_or_default(), data) {
            ("error", _) => Some(error(&event)),
            ("message_end", _) => self.message(&event),
            ("workflow_paused", Some(data)) => self.paused(&data),
            ("workflow_finished", Some(data)) if self.message.is_none() => self.outcome(&data),
            (name, data) => {
                self.hear(name, &event, data.as_ref());
                None
            }
        };
    }

    /// Whether all is there that the answer needs.
    pub fn is_over(&self) -> bool {
        self.said.is_some()
    }

    /// The answer, or the error that there is in its place; nothing, if neither has been said to its end.
    pub fn answer(self) -> Option<(StatusCode, Bytes)> {
        self.said.map(|(status, body)| (status, body.into()))
    }

    fn know(&mut self, event: &Fields<'_>) {
        let know = |known: &mut Known, name| {
            if known.is_none() {
                *known = event.get(name).map(|raw| raw.get().into());
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
                let Some(piece) = event.get("answer").filter(|raw| raw.get() != "null") else {
                    return;
                };
                // Half of a character, which some escape, is JSON, and no text.
                let Ok(piece) = serde_json::from_str::<String>(piece.get()) else {
                    self.lacks = true;
                    return;
                };
                let speaks = name == "agent_message";
                // What an agent has said piece by piece, some of them say once more, as a message.
                if name == "message_replace" || name == "message" && self.has_spoken {
                    self.text.clear();
                }
                self.text += &piece;
                self.has_spoken = speaks;
                self.is_agent |= speaks;
            }
            "agent_thought" => self.is_agent = true,
            "workflow_started" => {
                let id = data.and_then(|data| data.get("workflow_id"));
                self.workflow = id.map(|raw| raw.get().into());
            }
            _ => {}
        }
    }

    /// A message whose end this is.
    fn message(&self, end: &Fields<'_>) -> Option<(StatusCode, String)> {
        let metadata = end.get("metadata").map_or("{}", RawValue::get);
        let message = self.begin("message", metadata)?;
        Some((StatusCode::OK, message.end()))
    }

    /// A message as far as it goes, and what is known of it; nothing, if something of it is missing.
    fn begin(&self, event: &str, metadata: &str) -> Option<Object> {
        if self.lacks {
            return None;
        }
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
                field => outcome.put(name, field.map_or("null", RawValue::get)),
            }
        }
        Some(self.workflow(data.get("id"), outcome))
    }

    fn workflow(&self, run: Option<&RawValue>, data: Object) -> (StatusCode, String) {
        let mut workflow = Object::default();
        workflow.put("task_id", known(&self.task));
        workflow.put(
            "workflow_run_id",
            run.map_or(known(&self.run), RawValue::get),
        );
        workflow.put("data", &data.end());
        (StatusCode::OK, workflow.end())
    }

    /// A run that waits for somebody.
    fn paused(&self, data: &Fields<'_>) -> Option<(StatusCode, String)> {
        let field = |name| data.get(name).map_or("null", RawValue::get);
        let run = data.get("workflow_run_id");
        let mut pause = Object::default();
        if self.message.is_none() {
            pause.put("id", run.map_or(known(&self.run), RawValue::get));
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
        let run = run.map_or(known(&self.run), RawValue::get);
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

/// An error of a stream, as it is told to whoever waits for an answer.
fn error(event: &Fields<'_>) -> (StatusCode, String) {
    let status = event.get("status").and_then(|raw| raw.get().parse().ok());
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
        None => error.put(
            "message",
            event.get("message").map_or("\"\"", RawValue::get),
        ),
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
mod tests {
    use super::*;

    fn whole(events: &[&str]) -> Option<(u16, String)> {
        let mut whole = Whole::default();
        for event in events {
            assert!(!whole.is_over(), "{event} is too much");
            whole.add(format!("data: {event}\n\n").as_bytes());
        }
        let (status, body) = whole.answer()?;
        Some((status.as_u16(), String::from_utf8(body.to_vec()).unwrap()))
    }

    /// An event of a chat, named `name`.
    fn chat(name: &str, more: &str) -> String {
        format!(
            r#"{{"event": "{name}", "conversation_id": "c", "message_id": "m", "created_at": 7, "task_id": "t", {more}}}"#
        )
    }

    fn flow(name: &str, more: &str) -> String {
        chat(name, &format!(r#""workflow_run_id": "r", {more}"#))
    }

    fn run(name: &str, data: &str) -> String {
        format!(r#"{{"event":"{name}","task_id":"t","workflow_run_id":"r","data":{data}}}"#)
    }

    #[test]
    fn events_come_to_what_dify_would_have_answered_at_once() {
        let message = |text: &str| chat("message", &format!(r#""id": "m", "answer": {text}"#));
        let spoken = |text: &str| chat("agent_message", &format!(r#""id": "m", "answer": {text}"#));
        let end = chat(
            "message_end",
            r#""id": "m", "metadata": {"usage": {"total_tokens": 7, "latency": 1.50}, "retriever_resources": [{"score": 1e-2}]}, "files": []"#,
        );
        let metadata = r#"{"usage": {"total_tokens": 7, "latency": 1.50}, "retriever_resources": [{"score": 1e-2}]}"#;
        let chats = |mode: &str, answer: &str| {
            format!(
                r#"{{"event":"message","task_id":"t","id":"m","message_id":"m","conversation_id":"c","mode":"{mode}","answer":{answer},"metadata":{metadata},"created_at":7}}"#
            )
        };
        let started = flow(
            "workflow_started",
            r#""data": {"id": "r", "workflow_id": "w"}"#,
        );
        let finished = flow(
            "workflow_finished",
            r#""data": {"id": "r", "status": "succeeded", "total_tokens": 7}"#,
        );
        let reasons = r#"[{"TYPE": "human_input_required", "form_token": "f"}]"#;
        let paused = format!(
            r#"{{"workflow_run_id": "r", "paused_nodes": ["n"], "outputs": null, "reasons": {reasons}, "status": "paused", "created_at": 8, "elapsed_time": 0.50, "total_tokens": 3, "total_steps": 1}}"#
        );
        let table: Vec<(&str, Vec<String>, String)> = vec![
            (
                "a chat",
                vec![message(r#""H\u00e9""#), message(r#"" 😀\n""#), message("null"), end.clone()],
                chats("chat", r#""Hé 😀\n""#),
            ),
            ("a chat that says nothing", vec![end.clone()], chats("chat", r#""""#)),
            (
                "a chat whose text is replaced, and goes on",
                vec![
                    message(r#""secret""#),
                    chat("message_replace", r#""answer": "preset", "reason": "output_moderation""#),
                    message(r#"".""#),
                    end.clone(),
                ],
                chats("chat", r#""preset.""#),
            ),
            (
                "a completion",
                vec![
                    r#"{"event":"message","message_id":"m","created_at":7,"task_id":"t","answer":"x"}"#.into(),
                    r#"{"event":"message_end","message_id":"m","created_at":7,"task_id":"t"}"#.into(),
                ],
                r#"{"event":"message","task_id":"t","id":"m","message_id":"m","mode":"completion","answer":"x","metadata":{},"created_at":7}"#.into(),
            ),
            (
                "an agent",
                vec![
                    chat("agent_thought", r#""id": "a", "thought": """#),
                    chat("message_file", r#""id": "f", "url": "u""#),
                    spoken(r#""one ""#),
                    spoken(r#""two""#),
                    end.clone(),
                ],
                chats("agent-chat", r#""one two""#),
            ),
            (
                "an agent that says once more what it has said",
                vec![spoken(r#""one ""#), spoken(r#""tw""#), message(r#""one ""#), message(r#""two""#), end.clone()],
                chats("agent-chat", r#""one two""#),
            ),
            (
                "an agent that says something else than it has thought",
                vec![chat("agent_thought", r#""id": "a""#), message(r#""one ""#), message(r#""two""#), end.clone()],
                chats("agent-chat", r#""one two""#),
            ),
            (
                "a chatflow, which is not over with its workflow",
                vec![started.clone(), message(r#""x""#), finished.clone(), end.clone()],
                chats("advanced-chat", r#""x""#),
            ),
            (
                "a chatflow whose message is there first",
                vec![started.clone(), message(r#""x""#), end.clone()],
                chats("advanced-chat", r#""x""#),
            ),
            (
                "a chatflow that waits for somebody",
                vec![started.clone(), message(r#""x""#), flow("workflow_paused", &format!("\"data\": {paused}"))],
                format!(
                    r#"{{"event":"workflow_paused","task_id":"t","id":"m","message_id":"m","conversation_id":"c","mode":"advanced-chat","answer":"x","metadata":{{}},"created_at":7,"workflow_run_id":"r","data":{{"id":"m","message_id":"m","conversation_id":"c","mode":"advanced-chat","workflow_run_id":"r","answer":"x","metadata":{{}},"created_at":7,"paused_nodes":["n"],"reasons":{reasons},"status":"paused","elapsed_time":0.50,"total_tokens":3,"total_steps":1}}}}"#
                ),
            ),
            (
                "a workflow",
                vec![
                    run("workflow_started", r#"{"id":"r","workflow_id":"w"}"#),
                    run("text_chunk", r#"{"text":"x"}"#),
                    run(
                        "workflow_finished",
                        r#"{"id":"r","workflow_id":"w","status":"partial-succeeded","outputs":{"z": [1.10], "a": "é"},"error":null,"elapsed_time":1.230,"total_tokens":150,"total_steps":3,"created_by":{"id":"u"},"created_at":8,"finished_at":9,"exceptions_count":1,"files":[]}"#,
                    ),
                ],
                r#"{"task_id":"t","workflow_run_id":"r","data":{"id":"r","workflow_id":"w","status":"partial-succeeded","outputs":{"z": [1.10], "a": "é"},"error":null,"elapsed_time":1.230,"total_tokens":150,"total_steps":3,"created_at":8,"finished_at":9}}"#.into(),
            ),
            (
                "a workflow that has failed, and says how its tokens are split",
                vec![run(
                    "workflow_finished",
                    r#"{"prompt_tokens":1,"completion_tokens":2,"id":"r","workflow_id":"w","status":"failed","outputs":{},"error":"no","elapsed_time":1,"total_tokens":3,"total_steps":3,"created_at":8,"finished_at":9}"#,
                )],
                r#"{"task_id":"t","workflow_run_id":"r","data":{"id":"r","workflow_id":"w","status":"failed","outputs":{},"error":"no","elapsed_time":1,"total_tokens":3,"prompt_tokens":1,"completion_tokens":2,"total_steps":3,"created_at":8,"finished_at":9}}"#.into(),
            ),
            (
                "a workflow that waits for somebody",
                vec![
                    run("workflow_started", r#"{"id":"r","workflow_id":"w"}"#),
                    run("human_input_required", r#"{"form_token":"f"}"#),
                    run("workflow_paused", &paused),
                ],
                format!(
                    r#"{{"task_id":"t","workflow_run_id":"r","data":{{"id":"r","workflow_id":"w","status":"paused","outputs":{{}},"error":null,"elapsed_time":0.50,"total_tokens":3,"total_steps":1,"created_at":8,"finished_at":null,"paused_nodes":["n"],"reasons":{reasons}}}}}"#
                ),
            ),
        ];
        for (name, events, expected) in table {
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            assert_eq!(whole(&events), Some((200, expected)), "{name}");
        }
    }

    #[test]
    fn an_error_has_the_status_and_the_words_of_an_answer() {
        let internal = OTHER_WORDS[0].1;
        for (error, expected, words) in [
            (
                r#"{"event":"error","message_id":"m","code":"completion_request_error","message":"[x] n\u00f6","status":400}"#,
                400,
                r#"{"code":"completion_request_error","message":"[x] n\u00f6","status":400}"#
                    .to_owned(),
            ),
            (
                r#"{"event":"error","code":"rate_limit_error","message":"x","status":429}"#,
                429,
                r#"{"code":"rate_limit_error","message":"x","status":429}"#.to_owned(),
            ),
            (
                r#"{"event":"error","code":"internal_server_error","message":"Internal Server Error, please contact support.","status":500}"#,
                500,
                format!(
                    r#"{{"code":"internal_server_error","message":"{internal}","status":500}}"#
                ),
            ),
            (
                r#"{"event":"error","code":7,"status":200}"#,
                500,
                r#"{"code":"","message":"","status":500}"#.to_owned(),
            ),
        ] {
            let begun = chat("message", r#""answer": "x""#);
            assert_eq!(whole(&[&begun, error]), Some((expected, words)), "{error}");
        }
    }

    #[test]
    fn what_is_not_known_to_be_whole_is_no_answer() {
        let end = chat("message_end", r#""metadata": {}"#);
        for events in [
            &[][..],
            &["event: ping"],
            &[&chat("message", r#""answer": "x""#)],
            &[&chat("message", r#""answer": "\ud83d""#), &end],
            &[&chat("message", r#""answer": {}"#), &end],
            &["{\"event\":", &end],
            &["[]", &end],
            &[&flow(
                "workflow_finished",
                r#""data": {"status": "failed"}"#,
            )],
            &[&run("workflow_finished", "null")],
        ] {
            assert_eq!(whole(events), None, "{events:?}");
        }
    }
}
