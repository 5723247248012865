//! Tokens.

use serde::{Deserialize, Serialize};

/// What an answer cost, as the provider counted it. A figure that the provider did not give is absent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<u64>,
    /// Tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<u64>,
    /// Both together, where a provider gives only the sum or gives it as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

impl Usage {
    /// What this and `other` have cost together, where both are known.
    pub fn and(self, other: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
        Self {
            tokens_in: sum(self.tokens_in, other.tokens_in),
            tokens_out: sum(self.tokens_out, other.tokens_out),
            tokens: sum(self.total(), other.total()),
        }
    }

    /// All tokens together. What a provider read from its own cache, thought without showing it, saw or heard is among them.
    pub fn total(&self) -> Option<u64> {
        self.tokens.or_else(|| {
            self.tokens_in
                .map(|tokens| tokens.saturating_add(self.tokens_out.unwrap_or(0)))
        })
    }
}
