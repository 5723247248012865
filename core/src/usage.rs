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

    /// What counts of two tellings of the same: the larger one, and of equal ones that which has parts. Zeros are nothing said.
    pub fn or_more(self, other: Self) -> Self {
        let said = |usage: Self| usage.total().filter(|total| *total > 0);
        let worth = |usage: Self| said(usage).map(|total| (total, usage.tokens_in.is_some()));
        if worth(other) > worth(self) {
            other
        } else {
            self
        }
    }

    /// What this and `other` have cost together, as far as it is known.
    pub(crate) fn with(self, other: Self) -> Self {
        match (self.total(), other.total()) {
            (_, None) => self,
            (None, _) => other,
            _ => self.and(other),
        }
    }

    /// The same with what is likely in place of what is absent.
    pub fn guessed(self, prompt: u64, answer: u64) -> Self {
        let rest = |part: Option<u64>| Some(self.tokens?.saturating_sub(part?));
        let likely = prompt.min(self.tokens.unwrap_or(u64::MAX));
        let tokens_in = self.tokens_in.or_else(|| rest(self.tokens_out));
        let tokens_in = tokens_in.or(Some(likely));
        Self {
            tokens_in,
            tokens_out: self.tokens_out.or_else(|| rest(tokens_in)).or(Some(answer)),
            tokens: self.tokens,
        }
    }

    /// What this has cost, and whatever is known of `other`.
    pub fn with_known(self, other: Self) -> Self {
        let sum =
            |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other.unwrap_or(0)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(tokens_in: Option<u64>, tokens_out: Option<u64>, tokens: Option<u64>) -> Usage {
        Usage {
            tokens_in,
            tokens_out,
            tokens,
        }
    }

    #[test]
    fn of_what_is_told_twice_the_larger_telling_counts() {
        let nothing = Usage::default();
        let zeros = usage(Some(0), Some(0), Some(0));
        let split = usage(Some(3), Some(4), Some(7));
        let halves = usage(Some(3), Some(4), None);
        let whole = |tokens| usage(None, None, Some(tokens));
        for (one, other, expected) in [
            (split, whole(150), whole(150)),
            (split, whole(7), split),
            (halves, whole(7), halves),
            (split, whole(6), split),
            (split, zeros, split),
            (split, nothing, split),
            (nothing, zeros, nothing),
            (whole(0), nothing, whole(0)),
        ] {
            assert_eq!(one.or_more(other), expected, "{one:?} {other:?}");
            if expected.total() > Some(0) {
                assert_eq!(other.or_more(one), expected, "{other:?} {one:?}");
            }
        }
    }
}
