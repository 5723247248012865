//! The events of a run, in the orders in which each kind of app says them.

use serde_json::{Value, json};

use super::{CREATED, Kind, errors};
use crate::{mode::Mode, wire::Event};

/// One run of an app.
pub(super) struct Run {
    pub(super) kind: Kind,
    pub(super) task: String,
    pub(super) message: String,
    pub(super) conversation: String,
    pub(super) run: String,
    pub(super) user: String,
    /// The inputs of a workflow, or of a chatflow's start.
    pub(super) inputs: Value,
    pub(super) pieces: Vec<String>,
    pub(super) prompt_tokens: usize,
}

impl Run {
    /// All that a stream of it says.
    pub(super) fn events(&self, mode: &Mode) -> Vec<Event> {
        let events = match self.kind {
            Kind::Chat => self.chat(mode),
            Kind::Agent => self.agent(),
            Kind::NewAgent => self.new_agent(),
            Kind::Completion => self.completion(mode),
            Kind::Chatflow => self.chatflow(mode),
            Kind::Workflow => self.workflow(mode),
            Kind::Pause | Kind::ChatPause => self.pause(),
        };
        if mode.fail_midway {
            self.fail(events)
        } else {
            events
        }
    }

    /// What is said instead of the rest when somebody stops it.
    pub(super) fn stopped(&self) -> Vec<Event> {
        match self.kind {
            Kind::Workflow | Kind::Pause => {
                vec![self.workflow_finished("stopped", None)]
            }
            Kind::Chatflow | Kind::ChatPause => {
                vec![self.workflow_finished("stopped", None), self.message_end()]
            }
            _ => vec![self.message_end()],
        }
    }

    /// What follows when somebody has filled in the form of a paused run.
    pub(super) fn resumed(&self) -> Vec<Event> {
        let filled = json!({
            "node_id": "1713", "node_title": "Approval", "rendered_content": "Approve?", "action_id": "approve",
            "action_text": "Approve", "submitted_data": {},
        });
        vec![
            self.flow("human_input_form_filled", filled),
            self.workflow_finished("succeeded", None),
        ]
    }

    /// What is told of a run's end.
    pub(super) fn outcome(&self, status: &str, error: Option<&str>) -> Value {
        let outputs = if status == "succeeded" {
            json!({"result": self.text()})
        } else {
            json!({})
        };
        json!({
            "id": self.run, "workflow_id": WORKFLOW, "status": status, "outputs": outputs, "error": error,
            "elapsed_time": 1.23, "total_tokens": self.prompt_tokens + self.pieces.len(), "total_steps": 3,
            "created_at": CREATED, "finished_at": CREATED + 1,
        })
    }

    /// What a paused run says instead.
    pub(super) fn paused(&self) -> Value {
        json!({
            "workflow_run_id": self.run, "paused_nodes": ["1713"], "outputs": {}, "reasons": [self.form()], "status": "paused",
            "created_at": CREATED, "elapsed_time": 0.5, "total_tokens": 0, "total_steps": 1,
        })
    }

    /// What whoever waits for its answer is told of a workflow that has paused.
    pub(super) fn paused_at_once(&self) -> Value {
        let mut paused = self.paused();
        let more =
            json!({"id": self.run, "workflow_id": WORKFLOW, "error": null, "finished_at": null});
        if let Some(paused) = paused.as_object_mut() {
            paused.remove("workflow_run_id");
        }
        merge(paused, more)
    }

    /// How it says that it has failed midway.
    pub(super) fn failure(&self) -> errors::Failure {
        match self.kind {
            Kind::Chatflow | Kind::ChatPause => errors::RUN_FAILED,
            _ => errors::MIDWAY,
        }
    }

    pub(super) fn text(&self) -> String {
        self.pieces.concat()
    }

    pub(super) fn metadata(&self) -> Value {
        json!({"usage": self.usage(), "retriever_resources": [], "annotation_reply": null})
    }

    fn chat(&self, mode: &Mode) -> Vec<Event> {
        let mut events = self.messages("message");
        if mode.moderated {
            events.push(self.talk(
                "message_replace",
                json!({"answer": "preset reply", "reason": "output_moderation"}),
            ));
        }
        events.push(self.message_end());
        if mode.tts {
            events.push(self.talk(
                "tts_message",
                json!({"audio": "//uQxAAAAAAAAAAAAAAAAAAAAAAA"}),
            ));
            events.push(self.talk("tts_message_end", json!({"audio": ""})));
        }
        events
    }

    fn agent(&self) -> Vec<Event> {
        let mut events = vec![
            self.thought(1, "", "dalle3"),
            self.thought(1, "{\"dalle3\": \"done\"}", "dalle3"),
        ];
        events.push(self.talk(
            "message_file",
            json!({"id": FILE, "type": "image", "belongs_to": "assistant", "url": "https://dify.example/files/tide.png"}),
        ));
        events.push(self.thought(2, "", ""));
        events.extend(self.messages("agent_message"));
        events.push(self.thought(2, "", ""));
        events.push(self.message_end());
        events
    }

    fn new_agent(&self) -> Vec<Event> {
        let mut events = vec![self.thought(1, "", "")];
        events.extend(self.messages("agent_message"));
        events.push(self.talk(
            "message",
            json!({"id": self.message, "answer": self.text()}),
        ));
        events.push(self.message_end());
        events
    }

    fn completion(&self, mode: &Mode) -> Vec<Event> {
        let mut events = self.messages("message");
        if mode.moderated {
            events.push(self.talk(
                "message_replace",
                json!({"answer": "preset reply", "reason": "output_moderation"}),
            ));
        }
        events.push(self.message_end());
        events
    }

    fn chatflow(&self, mode: &Mode) -> Vec<Event> {
        let mut events = vec![
            self.workflow_started(),
            self.node_started(1, "start"),
            self.node_finished(1, "start"),
        ];
        if mode.rich {
            events.extend(self.everything_else());
        }
        events.push(self.node_started(2, "llm"));
        events.extend(self.pieces.iter().map(|piece| {
            self.talk("message", json!({"id": self.message, "answer": piece, "from_variable_selector": ["1712", "text"]}))
        }));
        events.extend([
            self.node_finished(2, "llm"),
            self.node_started(3, "answer"),
            self.node_finished(3, "answer"),
        ]);
        if mode.moderated {
            events.push(self.talk(
                "message_replace",
                json!({"answer": "preset reply", "reason": "output_moderation"}),
            ));
        }
        let (end, finished) = (
            self.message_end(),
            self.workflow_finished("succeeded", None),
        );
        events.extend(if mode.finished_first {
            [finished, end]
        } else {
            [end, finished]
        });
        events
    }

    fn workflow(&self, mode: &Mode) -> Vec<Event> {
        let mut events = vec![
            self.workflow_started(),
            self.node_started(1, "start"),
            self.node_finished(1, "start"),
        ];
        if mode.rich {
            events.extend(self.everything_else());
        }
        events.push(self.node_started(2, "llm"));
        events.extend(self.pieces.iter().map(|piece| {
            self.flow(
                "text_chunk",
                json!({"text": piece, "from_variable_selector": ["1712", "text"]}),
            )
        }));
        if mode.moderated {
            events.push(self.flow("text_replace", json!({"text": "preset reply"})));
        }
        events.extend([
            self.node_finished(2, "llm"),
            self.node_started(3, "end"),
            self.node_finished(3, "end"),
        ]);
        events.push(self.workflow_finished("succeeded", None));
        events
    }

    fn pause(&self) -> Vec<Event> {
        let mut events = vec![
            self.workflow_started(),
            self.node_started(1, "start"),
            self.node_finished(1, "start"),
        ];
        if self.kind == Kind::ChatPause {
            events.extend(self.messages("message"));
        }
        events.extend([
            self.flow("human_input_required", self.form()),
            self.flow("workflow_paused", self.paused()),
        ]);
        events
    }

    /// The first two events of `events`, and how the kind says that it failed.
    fn fail(&self, mut events: Vec<Event>) -> Vec<Event> {
        events.truncate(2);
        if matches!(
            self.kind,
            Kind::Chatflow | Kind::ChatPause | Kind::Workflow | Kind::Pause
        ) {
            events.push(self.workflow_finished("failed", Some(errors::MIDWAY.message)));
        }
        if !matches!(self.kind, Kind::Workflow | Kind::Pause) {
            let errors::Failure {
                status,
                code,
                message,
            } = self.failure();
            let mut body = json!({"message_id": self.message, "created_at": CREATED, "code": code, "message": message, "status": status});
            if self.kind != Kind::Completion {
                body["conversation_id"] = json!(self.conversation);
            }
            events.push(event("error", &body));
        }
        events
    }

    fn everything_else(&self) -> Vec<Event> {
        let iteration = |more: Value| {
            merge(
                json!({"id": "1714", "node_id": "1714", "node_type": "iteration", "title": "Each", "created_at": CREATED, "extras": {}}),
                more,
            )
        };
        let looped = |more: Value| {
            merge(
                iteration(json!({})),
                merge(
                    json!({"id": "1715", "node_id": "1715", "node_type": "loop"}),
                    more,
                ),
            )
        };
        let end = json!({
            "outputs": {}, "status": "succeeded", "error": null, "elapsed_time": 1.1, "total_tokens": 12,
            "execution_metadata": {}, "finished_at": CREATED + 1, "steps": 3,
        });
        let retried = merge(
            self.node(2, "llm"),
            json!({"status": "retry", "retry_index": 1, "error": "connection reset"}),
        );
        let log = json!({
            "node_execution_id": "1716", "id": FILE, "label": "ROUND 1", "parent_id": null, "error": null, "status": "success",
            "data": {}, "metadata": {}, "node_id": "1716",
        });
        let mut events = vec![
            self.flow(
                "iteration_started",
                iteration(json!({"metadata": {"iterator_length": 3}, "inputs": {}})),
            ),
            self.flow("iteration_next", iteration(json!({"index": 1}))),
            self.flow("iteration_completed", iteration(end.clone())),
            self.flow(
                "loop_started",
                looped(json!({"metadata": {"loop_length": 3}, "inputs": {}})),
            ),
            self.flow(
                "loop_next",
                looped(json!({"index": 1, "pre_loop_output": {}})),
            ),
            self.flow("loop_completed", looped(end)),
            self.flow("node_retry", retried),
            self.flow("agent_log", log),
        ];
        if self.kind == Kind::Chatflow {
            let reasoning = |text: &str, is_final: bool| json!({"data": {"message_id": self.message, "reasoning": text, "node_id": "1712", "is_final": is_final}});
            events.push(self.talk("reasoning_chunk", reasoning("The user", false)));
            events.push(self.talk("reasoning_chunk", reasoning("", true)));
        }
        events
    }

    fn messages(&self, name: &str) -> Vec<Event> {
        self.pieces
            .iter()
            .map(|piece| self.talk(name, json!({"id": self.message, "answer": piece})))
            .collect()
    }

    fn thought(&self, position: usize, observation: &str, tool: &str) -> Event {
        let labels = if tool.is_empty() {
            json!({})
        } else {
            json!({tool: {"en_US": "DALL-E 3"}})
        };
        let input = if tool.is_empty() {
            ""
        } else {
            r#"{"dalle3": {"prompt": "a tide"}}"#
        };
        let body = json!({
            "id": format!("{FILE}-{position}"), "position": position, "thought": "", "observation": observation, "tool": tool,
            "tool_labels": labels, "tool_input": input, "message_files": [],
        });
        self.talk("agent_thought", body)
    }

    fn message_end(&self) -> Event {
        self.talk(
            "message_end",
            json!({"id": self.message, "metadata": self.metadata(), "files": []}),
        )
    }

    fn workflow_started(&self) -> Event {
        let data = json!({"id": self.run, "workflow_id": WORKFLOW, "inputs": self.inputs, "created_at": CREATED, "reason": "initial"});
        self.flow("workflow_started", data)
    }

    fn workflow_finished(&self, status: &str, error: Option<&str>) -> Event {
        let more = json!({"created_by": {"id": FILE, "user": self.user}, "exceptions_count": 0, "files": []});
        self.flow(
            "workflow_finished",
            merge(self.outcome(status, error), more),
        )
    }

    fn node_started(&self, index: usize, node: &str) -> Event {
        let data = json!({
            "id": format!("node-{index}"), "node_id": node_id(index), "node_type": node, "title": node, "index": index,
            "predecessor_node_id": (index > 1).then(|| node_id(index - 1)), "inputs": null, "inputs_truncated": false,
            "created_at": CREATED, "extras": {}, "iteration_id": null, "loop_id": null,
        });
        self.flow("node_started", data)
    }

    fn node_finished(&self, index: usize, node: &str) -> Event {
        self.flow("node_finished", self.node(index, node))
    }

    fn node(&self, index: usize, node: &str) -> Value {
        let mut data = json!({
            "id": format!("node-{index}"), "node_id": node_id(index), "node_type": node, "title": node, "index": index,
            "predecessor_node_id": (index > 1).then(|| node_id(index - 1)), "inputs": {}, "process_data": {}, "outputs": {},
            "status": "succeeded", "error": null, "elapsed_time": 0.324, "execution_metadata": {}, "created_at": CREATED,
            "finished_at": CREATED + 1, "files": [], "iteration_id": null, "loop_id": null,
        });
        if node == "llm" {
            data["process_data"] = json!({"usage": self.usage()});
            data["outputs"] =
                json!({"text": self.text(), "usage": self.usage(), "finish_reason": "stop"});
            let total = self.prompt_tokens + self.pieces.len();
            data["execution_metadata"] =
                json!({"total_tokens": total, "total_price": "0.00012", "currency": "USD"});
        }
        data
    }

    fn form(&self) -> Value {
        json!({
            "form_id": FILE, "form_token": format!("form-{}", self.run), "node_id": "1713", "node_title": "Approval",
            "form_content": "Approve?", "inputs": [{"type": "paragraph", "output_variable_name": "comment", "default": null}],
            "actions": [{"id": "approve", "title": "Approve", "button_style": "primary"}], "display_in_ui": false,
            "resolved_default_values": {}, "expiration_time": CREATED + 3600,
        })
    }

    fn usage(&self) -> Value {
        let (input, output) = (self.prompt_tokens, self.pieces.len());
        json!({
            "prompt_tokens": input, "prompt_unit_price": "0.001", "prompt_price_unit": "0.001", "prompt_price": "0.0010330",
            "completion_tokens": output, "completion_unit_price": "0.002", "completion_price_unit": "0.001",
            "completion_price": "0.0002700", "total_tokens": input + output, "total_price": "0.0013030", "currency": "USD",
            "latency": 1.38,
        })
    }

    /// An event of the chat family, or of the completion family, which has no conversation.
    fn talk(&self, name: &str, more: Value) -> Event {
        let mut common =
            json!({"message_id": self.message, "created_at": CREATED, "task_id": self.task});
        if self.kind != Kind::Completion {
            common["conversation_id"] = json!(self.conversation);
        }
        event(name, &merge(common, more))
    }

    /// An event of the workflow family, which a chatflow says too.
    fn flow(&self, name: &str, data: Value) -> Event {
        let mut common = json!({"task_id": self.task, "workflow_run_id": self.run});
        common["data"] = data;
        if matches!(self.kind, Kind::Chatflow | Kind::ChatPause) {
            let talk = json!({"conversation_id": self.conversation, "message_id": self.message, "created_at": CREATED});
            common = merge(common, talk);
        }
        event(name, &common)
    }
}

/// The event's name first, as Dify writes it.
fn event(name: &str, body: &Value) -> Event {
    let body = body.to_string();
    Event::Data(format!(
        r#"{{"event":"{name}",{}"#,
        body.strip_prefix('{').unwrap_or_default()
    ))
}

fn merge(mut body: Value, more: Value) -> Value {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

fn node_id(index: usize) -> String {
    (1710 + index).to_string()
}

pub(super) const WORKFLOW: &str = "7c3e33d4-0000-4000-8000-000000000001";
const FILE: &str = "f11e0000-0000-4000-8000-000000000001";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: Kind, words: &str) -> Vec<String> {
        let run = Run {
            kind,
            task: "t".into(),
            message: "m".into(),
            conversation: "c".into(),
            run: "r".into(),
            user: "u".into(),
            inputs: json!({}),
            pieces: vec!["Hi ".into(), "there".into()],
            prompt_tokens: 2,
        };
        let name = |event: &Event| match event {
            Event::Data(data) => {
                let body: Value = serde_json::from_str(data)
                    .unwrap_or_else(|problem| panic!("{problem}: {data}"));
                let needed: &[&str] = match (kind, body["event"].as_str().unwrap()) {
                    (_, "error") => &["code", "message", "status"],
                    (Kind::Workflow | Kind::Pause, _) => &["task_id", "workflow_run_id"],
                    (Kind::Completion, _) => &["task_id", "message_id", "created_at"],
                    _ => &["task_id", "message_id", "conversation_id", "created_at"],
                };
                assert!(
                    needed.iter().all(|field| body.get(field).is_some()),
                    "{needed:?} in {data}"
                );
                body["event"].as_str().unwrap().to_owned()
            }
            other => panic!("{other:?}"),
        };
        run.events(&Mode::parse(words).unwrap())
            .iter()
            .map(name)
            .collect()
    }

    #[test]
    fn every_order_parses() {
        let flow = |middle: &str, end: &str| {
            format!(
                "workflow_started node_started node_finished node_started {middle} {middle} node_finished node_started node_finished {end}"
            )
        };
        let table: Vec<(Kind, &str, String)> = vec![
            (Kind::Chat, "ok", "message message message_end".into()),
            (Kind::Chat, "tts", "message message message_end tts_message tts_message_end".into()),
            (Kind::Chat, "moderated", "message message message_replace message_end".into()),
            (Kind::Chat, "fail-midway", "message message error".into()),
            (
                Kind::Agent,
                "ok",
                "agent_thought agent_thought message_file agent_thought agent_message agent_message agent_thought message_end".into(),
            ),
            (Kind::NewAgent, "ok", "agent_thought agent_message agent_message message message_end".into()),
            (Kind::Completion, "ok", "message message message_end".into()),
            (Kind::Completion, "fail-midway", "message message error".into()),
            (Kind::Chatflow, "ok", flow("message", "message_end workflow_finished")),
            (Kind::Chatflow, "finished-first", flow("message", "workflow_finished message_end")),
            (Kind::Chatflow, "fail-midway", "workflow_started node_started workflow_finished error".into()),
            (Kind::Workflow, "ok", flow("text_chunk", "workflow_finished")),
            (Kind::Workflow, "fail-midway", "workflow_started node_started workflow_finished".into()),
            (Kind::Pause, "ok", "workflow_started node_started node_finished human_input_required workflow_paused".into()),
            (Kind::ChatPause, "ok", "workflow_started node_started node_finished message message human_input_required workflow_paused".into()),
        ];
        for (kind, words, expected) in table {
            assert_eq!(names(kind, words).join(" "), expected, "{kind:?} {words}");
        }
    }

    #[test]
    fn a_rich_run_has_every_event() {
        for (kind, count) in [(Kind::Workflow, 8), (Kind::Chatflow, 10)] {
            assert_eq!(names(kind, "rich").len(), names(kind, "ok").len() + count);
        }
    }
}
