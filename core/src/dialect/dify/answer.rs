//! An answer, of which only what it cost and whether it is whole is read.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::abort;
use crate::{dialect::json, sse, usage::Usage};

/// What a blocking answer cost; nothing if it is not a JSON object.
pub fn usage(answer: &[u8]) -> Option<Usage> {
    let answer: Answer<'_> = json::read(answer).ok()?;
    Some(answer.usage())
}

/// Reads the events of a stream.
#[derive(Debug, Default)]
pub struct Meter {
    /// What a run has cost, as it says itself; and the message that it comes to, which is the same again.
    run: Usage,
    message: Usage,
    /// The tokens of what is done of a workflow: it has cost so much, even if it does not come to its end.
    nodes: Option<u64>,
    pub(in crate::dialect) over: bool,
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
        let Ok(event) = json::read::<Answer<'_>>(&data) else {
            return;
        };
        if self.task.is_none() {
            let named = event.task_id.and_then(|raw| abort::task(raw.get()));
            self.task = named.map(Into::into);
        }
        match event.event.as_deref() {
            Some("message" | "agent_message" | "text_chunk") => {
                self.passed = self.passed.saturating_add(event.text());
                return;
            }
            Some("message_end") => self.message = event.usage(),
            Some("workflow_finished" | "workflow_paused") => self.run = event.usage(),
            Some("error") => self.failed = true,
            Some("node_finished") => {
                let known = self.nodes.unwrap_or(0);
                let node = event.node();
                self.nodes = node
                    .map(|tokens| known.saturating_add(tokens))
                    .or(self.nodes);
                return;
            }
            _ => return,
        }
        self.over = true;
    }
}

/// An event, or a blocking answer.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    answer: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    task_id: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(alias = "execution_metadata")]
    usage: Option<Counts>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

impl Answer<'_> {
    /// How many bytes of text it brings.
    fn text(&self) -> u64 {
        let piece: Option<Piece<'_>> = self
            .data
            .and_then(|raw| serde_json::from_str(raw.get()).ok());
        let text = self.answer.as_ref().map_or(0, |text| text.len());
        let piece = piece
            .and_then(|piece| piece.text)
            .map_or(0, |text| text.len());
        (text + piece) as u64
    }

    /// What a part of a workflow has cost.
    fn node(&self) -> Option<u64> {
        let data: Metadata = serde_json::from_str(self.data?.get()).ok()?;
        data.usage?.total_tokens
    }

    /// Of a message by its metadata, of a workflow's run by its data.
    fn usage(&self) -> Usage {
        let metadata: Option<Metadata> = self
            .metadata
            .and_then(|raw| serde_json::from_str(raw.get()).ok());
        let data: Option<Counts> = self
            .data
            .and_then(|raw| serde_json::from_str(raw.get()).ok());
        let counts = metadata
            .and_then(|metadata| metadata.usage)
            .or(data)
            .unwrap_or_default();
        Usage {
            tokens_in: counts.prompt_tokens,
            tokens_out: counts.completion_tokens,
            tokens: counts.total_tokens,
        }
    }
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
        for (events, whole) in [
            (&[MESSAGE][..], false),
            (&["event: ping\n\n", "data: nonsense\n\n", ": x\n\n"], false),
            (&[MESSAGE_END], true),
            (&[FINISHED], true),
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
        assert_eq!(usage(b"<html>"), None);
    }
}
