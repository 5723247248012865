//! An answer, of which only what it cost, how it went, and whether it is whole is read.

use super::abort;
use crate::{dialect::fields::Fields, sse, usage::Usage};

/// What is said of a run that has failed.
pub(super) const FAILED: &str = "run: failed";

/// How a run has gone that has not gone well, by what it says of itself: that it was answered says nothing of that.
pub(super) fn outcome(run: &Fields<'_>) -> Option<&'static str> {
    let status = run.get("status").filter(|status| *status != "null")?;
    match serde_json::from_str(status).unwrap_or("") {
        "succeeded" => None,
        "partial-succeeded" => Some("run: partial-succeeded"),
        "stopped" => Some("run: stopped"),
        "paused" => Some("run: paused"),
        _ => Some(FAILED),
    }
}

/// The same of a blocking answer.
pub(crate) fn fault(answer: &[u8]) -> Option<&'static str> {
    outcome(&Fields::read(answer)?.object("data")?)
}

/// What a blocking answer cost; nothing if it is not a JSON object.
pub fn usage(answer: &[u8]) -> Option<Usage> {
    let answer = Fields::read(answer)?;
    let run = answer.object("data").map(|data| counts(&data));
    Some(run.unwrap_or_default().or_more(of_message(&answer)))
}

/// Whether an event brings something that is no object.
pub(in crate::dialect) fn is_half(event: &[u8]) -> bool {
    sse::data(event).is_some_and(|data| Fields::read(&data).is_none())
}

/// Reads the events of a stream.
#[derive(Debug, Default)]
pub struct Meter {
    /// What a run has cost, as it says itself; and the message that it comes to, which is the same again.
    run: Usage,
    message: Usage,
    /// The tokens of what is done of a workflow: it has cost so much, even if it does not come to its end.
    nodes: Option<u64>,
    /// Something has been said.
    pub(super) begun: bool,
    pub(in crate::dialect) over: bool,
    /// How its run has gone, if not well.
    pub(in crate::dialect) fault: Option<&'static str>,
    /// It is a message that it comes to, with or without a run behind it.
    is_message: bool,
    /// It has said that it failed.
    pub(in crate::dialect) failed: bool,
    /// It is an agent's, who streams it to whoever does not say otherwise.
    pub(in crate::dialect) unasked: bool,
    /// Bytes of text that have passed.
    pub(in crate::dialect) passed: u64,
    /// The name of what Dify is doing, by which it can be stopped.
    pub(super) task: Option<Box<str>>,
}

impl Meter {
    /// Of a stream that is to be handed on though nobody has asked for one, if it is that of an agent who is not asked.
    pub(crate) fn of_agent(unasked: bool) -> Self {
        Self {
            unasked,
            ..Self::default()
        }
    }

    /// What the run has cost so far.
    pub(in crate::dialect) fn usage(&self) -> Usage {
        let said = self.run.or_more(self.message);
        if said.total() > Some(0) {
            return said;
        }
        Usage {
            tokens: self.nodes.or(said.tokens),
            ..said
        }
    }

    pub(in crate::dialect) fn read(&mut self, event: &[u8]) {
        let Some(data) = sse::data(event) else { return };
        let Some(event) = Fields::read(&data) else {
            return;
        };
        self.begun = true;
        if self.task.is_none() {
            self.task = event.get("task_id").and_then(abort::task).map(Into::into);
        }
        self.is_message |= event.get("message_id").is_some_and(|id| id != "null");
        let name = event.text("event");
        let name = name.as_deref().unwrap_or_default();
        match name {
            "message" | "agent_message" => {
                self.passed = self.passed.saturating_add(length(&event, "answer"));
                return;
            }
            "text_chunk" => {
                let text = event.object("data").map(|data| length(&data, "text"));
                self.passed = self.passed.saturating_add(text.unwrap_or(0));
                return;
            }
            "node_finished" => {
                let node = event.object("data");
                let node = node.and_then(|data| data.object("execution_metadata"));
                if let Some(tokens) = node.and_then(|told| told.number("total_tokens")) {
                    self.nodes = Some(self.nodes.unwrap_or(0).saturating_add(tokens));
                }
                return;
            }
            "workflow_finished" | "workflow_paused" => {
                let data = event.object("data");
                self.run = data.as_ref().map(counts).unwrap_or_default();
                self.fault = data.as_ref().and_then(outcome);
                // What comes between its run and its message may take back what was said.
                if self.is_message && name == "workflow_finished" {
                    return;
                }
            }
            "message_end" => self.message = of_message(&event),
            "error" => self.failed = true,
            _ => return,
        }
        self.over = true;
    }
}
/// The tokens that an object tells of.
pub(super) fn counts(told: &Fields<'_>) -> Usage {
    Usage {
        tokens_in: told.number("prompt_tokens"),
        tokens_out: told.number("completion_tokens"),
        tokens: told.number("total_tokens"),
    }
}

/// What a message has cost, by its metadata.
pub(super) fn of_message(event: &Fields<'_>) -> Usage {
    let usage = event
        .object("metadata")
        .and_then(|told| told.object("usage"));
    usage.as_ref().map(counts).unwrap_or_default()
}

/// How many bytes a text has.
fn length(fields: &Fields<'_>, name: &str) -> u64 {
    let written = fields.get(name).filter(|text| text.starts_with('"'));
    let written = written.unwrap_or("\"\"");
    let read = written.contains('\\').then(|| fields.text(name)).flatten();
    let between_quotes = written.len().saturating_sub(2);
    read.map_or(between_quotes, |text| text.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(events: &[&str]) -> Meter {
        let mut meter = Meter::default();
        events.iter().for_each(|event| meter.read(event.as_bytes()));
        meter
    }

    const MESSAGE_END: &str = "data: {\"event\": \"message_end\", \"metadata\": {\"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 4, \"total_tokens\": 7, \"currency\": \"USD\"}}}\n\n";
    const FINISHED: &str = "data:{\"event\":\"workflow_finished\",\"data\":{\"status\":\"succeeded\",\"total_tokens\":7}}\n\n";
    const FINISHED_FREE: &str = "data:{\"event\":\"workflow_finished\",\"data\":{\"status\":\"failed\",\"total_tokens\":0}}\n\n";
    const NODE: &str = "data: {\"event\":\"node_finished\",\"data\":{\"outputs\":{\"usage\":{\"total_tokens\":1}},\"execution_metadata\":{\"total_tokens\":63,\"total_price\":0.1,\"currency\":\"USD\"}}}\n\n";
    const IDLE: &str =
        "data: {\"event\":\"node_finished\",\"data\":{\"execution_metadata\":null}}\n\n";
    const CHAT: &str = "data: {\"event\":\"message\",\"message_id\":\"m\"}\n\n";
    const MESSAGE: &str = "data: {\"event\":\"message\",\"answer\":\"x\"}\n\n";

    #[test]
    fn a_chatflow_is_counted_once_whichever_end_comes_first() {
        let both = Usage {
            tokens_in: Some(3),
            tokens_out: Some(4),
            tokens: Some(7),
        };
        assert_eq!(meter(&[MESSAGE, MESSAGE_END, FINISHED]).usage(), both);
        assert_eq!(meter(&[MESSAGE, FINISHED, MESSAGE_END]).usage(), both);
        assert_eq!(meter(&[NODE, MESSAGE_END, FINISHED]).usage(), both);
        let zeros = &MESSAGE_END.replace(": 3", ": 0").replace(": 4", ": 0");
        let zeros = &zeros.replace(": 7", ": 0");
        let bare =
            "data: {\"event\":\"message_end\",\"metadata\":{\"retriever_resources\":[]}}\n\n";
        let unsaid = FINISHED.replace('7', "0");
        let less = Usage {
            tokens: Some(7),
            ..Usage::default()
        };
        for (events, expected) in [
            (&[MESSAGE, FINISHED, bare][..], less),
            (&[MESSAGE, bare, FINISHED], less),
            (&[MESSAGE, FINISHED, zeros], less),
            (&[MESSAGE, zeros, FINISHED], less),
            (&[MESSAGE, unsaid.as_str(), MESSAGE_END], both),
            (&[MESSAGE, MESSAGE_END, unsaid.as_str()], both),
            (&[MESSAGE, zeros], Usage::default()),
        ] {
            assert_eq!(meter(events).usage(), expected, "{events:?}");
        }
    }

    #[test]
    fn a_run_is_counted_as_a_whole_or_else_by_what_is_done_of_it() {
        let paused = FINISHED.replace("finished", "paused");
        for (events, tokens) in [
            (&[FINISHED][..], Some(7)),
            (&[NODE, FINISHED], Some(7)),
            (&[&paused], Some(7)),
            (&[NODE, MESSAGE, IDLE, NODE], Some(126)),
            (&[NODE, "data: {\"event\":\"error\"}\n\n"], Some(63)),
            (&[NODE, "data: {\"event\":\"message_end\"}\n\n"], Some(63)),
            (&[NODE, FINISHED_FREE], Some(63)),
            (&[IDLE, FINISHED_FREE], Some(0)),
            (&[IDLE, MESSAGE], None),
        ] {
            let expected = Usage {
                tokens,
                ..Usage::default()
            };
            assert_eq!(meter(events).usage(), expected, "{events:?}");
        }
    }

    #[test]
    fn a_stream_is_whole_once_it_says_so() {
        let of_flow = FINISHED.replacen('{', "{\"message_id\":\"m\",", 1);
        for (events, whole) in [
            (&[MESSAGE][..], false),
            (&["event: ping\n\n", "data: nonsense\n\n", ": x\n\n"], false),
            (&[MESSAGE_END], true),
            (
                &["data: {\"event\":\"message_end\",\"metadata\":{\"score\":NaN}}\n\n"],
                true,
            ),
            (&[FINISHED], true),
            // A chatflow is over with its message.
            (&[&of_flow], false),
            (&[CHAT, FINISHED], false),
            (&[&of_flow, MESSAGE_END], true),
            (&[MESSAGE_END, &of_flow], true),
            (&[&of_flow, "data: {\"event\":\"error\"}\n\n"], true),
            (&[CHAT, "data: {\"event\":\"workflow_paused\"}\n\n"], true),
            (
                &["data: {\"message_id\":null,\"event\":\"workflow_finished\"}\n\n"],
                true,
            ),
            (&["data: {\"event\":\"error\",\"status\":400}\n\n"], true),
            (
                &["data: {\"event\":\"workflow_paused\",\"data\":{}}\n\n"],
                true,
            ),
        ] {
            assert_eq!(meter(events).over, whole, "{events:?}");
        }
    }

    #[test]
    fn a_run_that_did_not_go_well_says_so() {
        for (status, fault) in [
            ("\"succeeded\"", None),
            ("null", None),
            ("\"partial-succeeded\"", Some("run: partial-succeeded")),
            ("\"stopped\"", Some("run: stopped")),
            ("\"paused\"", Some("run: paused")),
            ("\"failed\"", Some("run: failed")),
            ("\"running\"", Some("run: failed")),
            ("\"\\ud83d\"", Some("run: failed")),
            ("5", Some("run: failed")),
        ] {
            for name in ["workflow_finished", "workflow_paused"] {
                let answer = format!(r#"{{"event":"{name}","data":{{"status":{status}}}}}"#);
                assert_eq!(super::fault(answer.as_bytes()), fault, "{answer}");
                let event = format!("data: {answer}\n\n");
                assert_eq!(meter(&[MESSAGE, &event]).fault, fault, "{event}");
            }
        }
        assert_eq!(fault(b"{\"event\":\"message\"}"), None);
    }

    #[test]
    fn what_has_passed_is_counted_as_it_is_read() {
        for (event, passed) in [
            (r#"{"event":"message","answer":"abc"}"#, 3),
            (r#"{"event":"agent_message","answer":"\u4f60\n"}"#, 4),
            (r#"{"event":"message","answer":"\ud83d"}"#, 6),
            (r#"{"event":"text_chunk","data":{"text":"é","x":NaN}}"#, 2),
            (r#"{"event":"text_chunk","data":null}"#, 0),
            (r#"{"event":"message","answer":null}"#, 0),
            (r#"{"event":"message","answer":[1,2]}"#, 0),
        ] {
            let event = format!("data: {event}\n\n");
            assert_eq!(meter(&[&event]).passed, passed, "{event}");
        }
    }

    #[test]
    fn a_blocking_answer_tells_its_usage() {
        assert_eq!(
            usage(br#"{"event":"message","metadata":{"usage":{"prompt_tokens":3}}}"#)
                .unwrap()
                .tokens_in,
            Some(3)
        );
        assert_eq!(
            usage(br#"{"data":{"status":"failed","total_tokens":9}}"#)
                .unwrap()
                .tokens,
            Some(9)
        );
        let zeros = br#"{"event":"message","metadata":{"usage":{"total_tokens":0}}}"#;
        assert_eq!(usage(zeros), Some(Usage::default()));
        assert_eq!(usage(b"<html>"), None);
    }
}
