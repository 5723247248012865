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

    /// The same with what is likely in place of what is absent; of what is known as a whole, as large a part.
    pub fn guessed(self, prompt: u64, answer: u64) -> Self {
        let rest = |part: u64| self.tokens.map(|all| all.saturating_sub(part));
        let both = prompt.saturating_add(answer).max(1);
        let share = self.tokens.map(|all| all.saturating_mul(prompt) / both);
        let of_answer = self.tokens_out.map(|part| rest(part).unwrap_or(prompt));
        let tokens_in = self.tokens_in.or(of_answer).or(share).unwrap_or(prompt);
        let tokens_out = self.tokens_out.or_else(|| rest(tokens_in));
        let is_known = self.tokens_in.and(self.tokens_out).is_some();
        Self {
            tokens_in: Some(tokens_in),
            tokens_out: tokens_out.or(Some(answer)),
            // What was said of the whole may be less than a part of it.
            tokens: self.tokens.filter(|_| is_known),
        }
    }

    /// All tokens together: no fewer than in its parts, whatever was said. What a provider read from its own cache, thought without showing
    /// it, saw or heard is among them.
    pub fn total(&self) -> Option<u64> {
        let of_answer = self.tokens_out.unwrap_or(0);
        let parts = self.tokens_in.map(|part| part.saturating_add(of_answer));
        self.tokens.max(parts)
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

    #[test]
    fn what_is_absent_is_what_is_left_or_what_is_likely() {
        let none = Usage::default();
        for (said, expected, total) in [
            (none, (20, 5), 25),
            (usage(Some(3), None, None), (3, 5), 8),
            (usage(None, Some(4), None), (20, 4), 24),
            (usage(Some(3), None, Some(9)), (3, 6), 9),
            (usage(None, Some(4), Some(9)), (5, 4), 9),
            (usage(None, None, Some(9)), (7, 2), 9),
            (usage(None, None, Some(29)), (23, 6), 29),
            (usage(Some(9), None, Some(3)), (9, 0), 9),
            (usage(Some(9), Some(4), Some(0)), (9, 4), 13),
            (usage(Some(3), Some(4), Some(9)), (3, 4), 9),
        ] {
            let guessed = said.guessed(20, 5);
            let (tokens_in, tokens_out) = (guessed.tokens_in, guessed.tokens_out);
            assert_eq!(tokens_in.zip(tokens_out), Some(expected), "{said:?}");
            assert_eq!(guessed.total(), Some(total), "{said:?}");
            assert_eq!(guessed.with(none.guessed(0, 0)).total(), Some(total));
            // What is known of another one has its parts, too.
            let more = guessed.with(usage(Some(1), None, Some(7)).guessed(0, 0));
            assert_eq!(more.tokens_in, tokens_in.map(|tokens| tokens + 1));
            assert_eq!(more.tokens_out, tokens_out.map(|tokens| tokens + 6));
            assert_eq!(more.total(), Some(total + 7));
        }
    }
}
