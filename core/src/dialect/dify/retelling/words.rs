//! How it is told: the events of a stream, or all of it at once.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Retelling, State, cost};

impl Retelling {
    /// Adds an event with a piece of the answer; the first one says whose it is.
    pub(super) fn piece(&self, name: &str, text: &str, out: &mut String) {
        let text = Value::from(text).to_string();
        let whose = match (self.is_text, self.has_begun) {
            (true, _) => return self.choice(&["\"text\":", &text], "null", out),
            (false, true) => "",
            (false, false) => "\"role\":\"assistant\",",
        };
        let piece = ["\"delta\":{", whose, "\"", name, "\":", &text, "}"];
        self.choice(&piece, "null", out);
    }

    /// Adds an event with a choice.
    fn choice(&self, said: &[&str], finish: &str, out: &mut String) {
        let said = said.concat();
        let end = ["\"finish_reason\":", finish, "}]"].concat();
        self.add(&["[{\"index\":0,", &said, ",", &end], out);
    }

    /// Adds an event with these choices, and whatever else.
    fn add(&self, choices: &[&str], out: &mut String) {
        let choices = choices.concat();
        for part in ["data: ", &self.head, ",\"choices\":", &choices, "}\n\n"] {
            out.push_str(part);
        }
    }

    /// Says that all of it has been said, if that is not said yet.
    pub(super) fn stop(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.is_said, true) || self.at_once {
            return;
        }
        let nothing = if self.is_text {
            "\"text\":\"\""
        } else {
            "\"delta\":{}"
        };
        let reason = if self.is_taken_back {
            "\"content_filter\""
        } else {
            "\"stop\""
        };
        self.choice(&[nothing], reason, out);
    }

    /// Says that it is whole, and what it has cost.
    pub(super) fn end(&mut self, out: &mut String) {
        self.state = State::Whole;
        self.stop(out);
        if self.at_once {
            return;
        }
        self.count(out);
        out.push_str("data: [DONE]\n\n");
    }

    /// Says what it has cost, if that is known.
    pub(super) fn count(&self, out: &mut String) {
        if let Some(usage) = cost::told(self.usage).filter(|_| !self.at_once) {
            self.add(&["[],\"usage\":", &usage], out);
        }
    }

    /// Says that it has failed.
    pub(super) fn fail(&mut self, said: &Value, out: &mut String) {
        // What its nodes have cost it has cost at least.
        self.usage = self.usage.or_more(self.nodes);
        let status = said.get("status").and_then(Value::as_u64);
        let status =
            status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
        let (status, error) = self.fault(said, status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        if !self.at_once {
            self.count(out);
            for part in ["data: ", &error, "\n\n"] {
                out.push_str(part);
            }
        }
        self.state = State::Failed(status, error);
    }

    /// The whole answer.
    pub(super) fn whole(self) -> String {
        let said = if self.is_text {
            ["\"text\":", &Value::from(self.text).to_string()].concat()
        } else {
            let mut message = json!({ "role": "assistant", "content": self.text });
            if let Some(message) = message.as_object_mut()
                && !self.thought.is_empty()
            {
                message.insert("reasoning_content".into(), self.thought.into());
            }
            ["\"message\":", &message.to_string()].concat()
        };
        let usage = cost::told(self.usage).unwrap_or_else(|| "null".into());
        [
            &self.head,
            ",\"choices\":[{\"index\":0,",
            &said,
            ",\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":",
            &usage,
            "}",
        ]
        .concat()
    }
}
