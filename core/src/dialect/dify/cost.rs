//! What an answer of Dify's has cost, as OpenAI tells it.

use serde_json::{Value, json};

use crate::dialect::json;

/// Tokens, as far as they are told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    prompt: u64,
    completion: u64,
    total: u64,
}

impl Cost {
    /// What is told at this place.
    pub(super) fn read(event: &Value, path: &str) -> Option<Self> {
        let told = json::at(event, path)?;
        let number = |name: &str| told.get(name).and_then(Value::as_u64);
        let (prompt, completion) = (number("prompt_tokens"), number("completion_tokens"));
        let sum = prompt.unwrap_or(0).saturating_add(completion.unwrap_or(0));
        let total = number("total_tokens").or_else(|| prompt.or(completion).map(|_| sum))?;
        Some(Self {
            prompt: prompt.unwrap_or(0),
            completion: completion.unwrap_or(0),
            total,
        })
    }

    /// Adds what another node has cost.
    pub(super) fn add(&mut self, other: Self) {
        self.completion = self.completion.saturating_add(other.completion);
    }

    /// The same, of which only so much is known to be of answers as its nodes have told.
    pub(super) fn split(self, whole: Self) -> Self {
        let completion = self.completion.min(whole.total);
        Self {
            prompt: whole.total - completion,
            completion,
            total: whole.total,
        }
    }

    /// How OpenAI tells it.
    pub(super) fn told(self) -> String {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.total,
        })
        .to_string()
    }
}
