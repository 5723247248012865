//! The end of what an app has to say: of a message, of the run behind it, and which of a run's outputs is the answer.

use std::mem;

use serde_json::{Value, json};

use super::Retelling;
use crate::{
    dialect::{
        dify::{
            answer::{counts, of_message},
            cost,
        },
        fields::Fields,
        json,
    },
    sse,
    upstream::Form,
    usage::Usage,
};

impl Retelling {
    /// A message is over. If there is a run behind it, that may have cost more, or have failed.
    pub(super) fn message_over(&mut self, event: &Fields<'_>, out: &mut String) {
        let rest = self.seam.end();
        self.say(rest, out);
        let message = Usage::default().or_more(of_message(event));
        self.usage = message.or_more(self.usage);
        match self.run.take() {
            Some(Err(failed)) => self.fail(&failed, out),
            None if self.has_run => self.stop(out),
            _ => self.end(out),
        }
    }

    /// A run is over: that is the end of a workflow, and nearly that of a chatflow.
    pub(super) fn run_over(&mut self, status: Option<&str>, data: &Fields<'_>, out: &mut String) {
        let run = cost::split(counts(data), self.nodes);
        self.usage = self.usage.or_more(run);
        let failed = match status {
            None | Some("succeeded" | "partial-succeeded") => None,
            Some("paused") => Some(("workflow_paused", "the workflow waits for a person")),
            Some("stopped") => Some(("workflow_stopped", "the workflow was stopped")),
            Some(_) => Some(("workflow_failed", "the workflow has failed")),
        };
        let is_paused = status == Some("paused");
        let failed = failed.map(|(code, message)| {
            let said = data.text("error").filter(|said| !said.is_empty());
            json!({ "code": code, "message": said.as_deref().unwrap_or(message) })
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
        let rest = self.seam.end();
        self.say(rest, out);
        // What stands in place of all outputs is not to be found among them.
        if !self.is_replaced {
            let outputs = data.get("outputs").unwrap_or_default().as_bytes();
            let outputs: Option<Value> = json::read(outputs)
                .ok()
                .or_else(|| json::read(&json::masked(outputs)?).ok());
            match outputs.and_then(|mut outputs| Some(outputs.get_mut(&**output)?.take())) {
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
                Some(Value::String(text)) => self.amend_by(&text, out),
                Some(other) => self.amend_by(&other.to_string(), out),
            }
        }
        self.end(out);
    }

    /// Whether a piece of what a workflow says is of the output that is the answer. It says whose variable it is and what that is
    /// called, and not as what it is put out: those which are called alike are taken for the same, and what differs in the end is taken
    /// back.
    pub(super) fn is_of_output(&mut self, data: &Fields<'_>) -> bool {
        let Some(Form::Workflow { output, .. }) = &self.origin.app else {
            return true;
        };
        let source = data.get("from_variable_selector").unwrap_or_default();
        let Ok(Value::Array(source)) = json::read(source.as_bytes()) else {
            return false;
        };
        let is_called = source.last().and_then(Value::as_str) == Some(output);
        is_called && *self.source.get_or_insert_with(|| source.clone()) == source
    }

    /// Keeps a piece of which it is not known whether it is of the answer.
    pub(super) fn hold(&mut self, text: &str) {
        self.held.push_str(text);
        if self.held.len() > sse::LONGEST_EVENT {
            self.wrong = Some("it says too much beside its answer".into());
        }
    }
}
