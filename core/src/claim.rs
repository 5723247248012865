//! What a request needs of the accounts behind its limits.

use std::rc::Rc;

use crate::{
    dialect::openai::{Estimate, Most},
    limit::{Asker, Limit, Overrun, Unit},
};

/// How many tokens are held at once for an answer that comes in pieces.
pub(crate) const STEP: u64 = 2_048;

/// How far ahead of what has passed tokens are held, so that an upstream that is not heard for a moment has not spent what
/// nobody held.
pub(crate) const AHEAD: u64 = 512;

/// How long an answer may be that nobody has limited, in tokens, where a limit on tokens is kept strictly.
const ANSWER: u64 = 4_096;

/// What is held at least for each choice of an answer, in tokens: with less it is not worth asking.
const LEAST: u64 = 16;

/// What is held for an answer that may cost more than was held, in tokens.
const LENIENT: u64 = 256;

/// What a request needs of one account.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) limit: Rc<Limit>,
    pub(crate) account: Rc<str>,
    /// What it needs.
    pub(crate) units: u64,
    /// What it could use besides.
    pub(crate) more: u64,
}

/// What a request may cost in tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) prompt: Estimate,
    pub(crate) answer: Answer,
}

/// What is known of the answer to a request before there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// It costs nothing beyond the prompt.
    Free,
    /// It comes whole, or costs more than it shows: its length is the provider's to limit.
    Whole(Most),
    /// It comes in pieces, which can be counted as they pass.
    Stream(Most),
    /// Nobody can limit what it costs.
    Open,
}

impl Claim {
    /// What a request of `asker` needs of each of `limits`; `cost`, if it is counted in tokens.
    pub(crate) fn all<'a>(
        limits: impl IntoIterator<Item = &'a Rc<Limit>>,
        asker: Asker<'_>,
        cost: Option<Cost>,
    ) -> Vec<Self> {
        let claim = |limit: &Rc<Limit>| {
            let (units, more) = match limit.unit {
                Unit::Requests | Unit::Concurrent => (1, 0),
                Unit::Tokens(overrun) => cost?.units(overrun, limit.quota.limit.get()),
            };
            Some(Self {
                limit: limit.clone(),
                account: limit.account_of(asker),
                units,
                more,
            })
        };
        limits.into_iter().filter_map(claim).collect()
    }

    /// The same limit, for other units.
    pub(crate) fn for_units(&self, units: u64, more: u64) -> Self {
        Self {
            units,
            more,
            ..self.clone()
        }
    }

    /// What it could use in all.
    pub(crate) fn most(&self) -> u64 {
        self.units.saturating_add(self.more)
    }

    /// Whether it is counted in tokens.
    pub(crate) fn is_on_tokens(&self) -> bool {
        self.limit.counts_tokens()
    }

    /// Whether an answer ends where the room for it does.
    pub(crate) fn is_strict(&self) -> bool {
        self.limit.is_strict()
    }

    /// Whether there can never be room for it.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.units > self.limit.quota.limit.get()
    }
}

impl Cost {
    /// What must be held before anybody is asked, and what could be used besides, where `limit` is allowed.
    ///
    /// To let in what soon must be cut for want of more is to waste what it has cost. So an answer in pieces needs a step, unless
    /// the limit is smaller than that.
    fn units(self, overrun: Overrun, limit: u64) -> (u64, u64) {
        let step = |first: u64| {
            let room = limit.saturating_sub(self.prompt.bound);
            let first = first.min(room.max(AHEAD));
            (self.prompt.bound.saturating_add(first), 0)
        };
        match (overrun, self.answer) {
            (Overrun::Owe, Answer::Free) => (self.prompt.likely, 0),
            (Overrun::Owe, _) => (self.prompt.likely.saturating_add(LENIENT), 0),
            (Overrun::Cut, Answer::Free) => (self.prompt.bound, 0),
            (Overrun::Cut, Answer::Open) => step(STEP),
            (Overrun::Cut, Answer::Stream(most)) => {
                step((most.in_all(most.tokens)).map_or(STEP, |all| all.min(STEP)))
            }
            (Overrun::Cut, Answer::Whole(most)) => {
                let all = most.in_all(most.tokens);
                let all = all.unwrap_or_else(|| ANSWER.saturating_mul(most.choices));
                let least = all.min(LEAST.saturating_mul(most.choices));
                (self.prompt.bound.saturating_add(least), all - least)
            }
        }
    }

    /// What prompt and answer come to at most, where the caller has said so, or the gateway by this `cap` of each choice.
    pub(crate) fn ceiling(self, cap: Option<u64>) -> Option<u64> {
        let answer = match self.answer {
            Answer::Free => 0,
            Answer::Whole(most) | Answer::Stream(most) => most.in_all(cap.or(most.tokens))?,
            Answer::Open => return None,
        };
        Some(self.prompt.bound.saturating_add(answer))
    }

    /// How many tokens each choice may have, if of each of `strict` claims so many units are held; nothing, where
    /// the caller's own word will do.
    pub(crate) fn cap<'a>(self, strict: impl IntoIterator<Item = (&'a Claim, u64)>) -> Option<u64> {
        let (most, is_whole) = match self.answer {
            Answer::Whole(most) => (most, true),
            Answer::Stream(most) => (most, false),
            Answer::Free | Answer::Open => return None,
        };
        let room = strict
            .into_iter()
            .map(|(claim, held)| {
                let limit = claim.limit.quota.limit.get();
                let room = if is_whole { held } else { limit };
                room.saturating_sub(self.prompt.bound) / most.choices
            })
            .min()?;
        match most.tokens {
            Some(tokens) => (tokens > room).then_some(room),
            None => is_whole.then_some(room),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most(tokens: Option<u64>, choices: u64) -> Most {
        Most {
            tokens,
            choices,
            hides: false,
        }
    }

    #[test]
    fn what_is_held_before_anybody_is_asked() {
        let prompt = Estimate {
            bound: 1_000,
            likely: 300,
        };
        let table = [
            (Overrun::Cut, Answer::Free, (1_000, 0)),
            (Overrun::Cut, Answer::Stream(most(None, 1)), (3_048, 0)),
            (Overrun::Cut, Answer::Stream(most(Some(5), 2)), (1_010, 0)),
            (Overrun::Cut, Answer::Whole(most(Some(5), 1)), (1_005, 0)),
            (
                Overrun::Cut,
                Answer::Whole(most(Some(500), 2)),
                (1_032, 968),
            ),
            (Overrun::Cut, Answer::Whole(most(None, 1)), (1_016, 4_080)),
            (Overrun::Cut, Answer::Open, (3_048, 0)),
            (Overrun::Owe, Answer::Whole(most(Some(9_000), 1)), (556, 0)),
            (Overrun::Owe, Answer::Free, (300, 0)),
        ];
        for (overrun, answer, expected) in table {
            let cost = Cost { prompt, answer };
            assert_eq!(
                cost.units(overrun, 9_000),
                expected,
                "{overrun:?} {answer:?}"
            );
        }
        let answer = Answer::Open;
        for (limit, expected) in [(3_047, 3_047), (1_600, 1_600), (1_100, 1_512)] {
            let cost = Cost { prompt, answer };
            assert_eq!(cost.units(Overrun::Cut, limit), (expected, 0), "{limit}");
        }
    }
}
