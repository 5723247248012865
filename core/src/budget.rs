//! What a request may cost, and what it has cost so far.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::{
    admission::{Bill, Denial},
    claim::{AHEAD, STEP},
    dialect::{Meter, openai::Estimate},
    dispatch::Target,
    passage::{Passage, Sign},
    record::{Counted, Ending},
    tenure::{Extension, Tenure},
    time::Timestamp,
    usage::Usage,
};

/// The budget of one request.
///
/// What passes is counted by its bytes, which are at least as many as its tokens; what the provider counts in the end is
/// what is settled.
#[derive(Default)]
pub(crate) struct Budget {
    pub(crate) tenure: Tenure,
    /// What the prompt comes to.
    pub(crate) prompt: Estimate,
    /// What prompt and answer can come to at most, where the caller says so.
    pub(crate) ceiling: Option<u64>,
    /// A ledger that fails lets it be.
    pub(crate) forgiving: bool,
    /// What was held for upstreams that have broken off: nobody knows what that has cost, so all of it is spent.
    lost: Vec<Tenure>,
    /// The upstream that was asked last is one of those.
    is_lost: bool,
    /// What attempts have cost that came to nothing, as far as they have said so.
    pub(crate) spent: Usage,
    /// The last event, where the stream may have to be ended for it.
    pub(crate) last: Option<Bytes>,
    pub(crate) extension: Option<Extension>,
    /// Its place among those whom the upstream bears.
    pub(crate) passage: Option<Passage>,
}

impl Budget {
    /// Sees to it that what has passed is held, and something ahead of it.
    pub(crate) fn poll(&mut self, meter: &Meter, cx: &mut Context<'_>) -> Poll<Result<(), Denial>> {
        loop {
            let Some(held) = self.tenure.tokens() else {
                return Poll::Ready(Ok(()));
            };
            if meter.is_over() {
                // What comes now is what it has cost.
                return Poll::Ready(Ok(()));
            }
            let passed = self.prompt.bound.saturating_add(meter.passed());
            let ceiling = self.ceiling.unwrap_or(u64::MAX);
            let needed = passed.saturating_add(AHEAD).min(ceiling);
            if needed <= held {
                return Poll::Ready(Ok(()));
            }
            let extension = self.extension.get_or_insert_with(|| {
                let step = passed.saturating_add(STEP).min(ceiling);
                let (least, more) = (needed - held, step.saturating_sub(needed));
                self.tenure.extend(least, more, self.forgiving)
            });
            match extension.as_mut().poll(cx) {
                Poll::Ready(extended) => {
                    self.extension = None;
                    extended?;
                }
                Poll::Pending if passed <= held => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes down what has come of asking `target`, as far as it says something of the crowd there.
    pub(crate) fn heard(&mut self, target: &Target, sign: Sign) {
        if let (Some(passage), Some(way)) = (&mut self.passage, &target.way)
            && passage.is_through(way)
        {
            passage.answered(sign);
        }
    }

    /// Whether nothing is held.
    pub(crate) fn is_none(&self) -> bool {
        self.tenure.is_none() && self.passage.is_none()
    }

    /// The request has begun to cost something: until more is known, all that it holds.
    pub(crate) fn begin(&self) {
        self.tenure.bill(Bill::AtLeast(0));
    }

    /// An attempt has failed, and has `said` what it has cost, or not. What certainly cost nothing is not charged.
    pub(crate) fn failed(&mut self, may_have_cost: bool, said: Usage) {
        self.spent = self.spent.with(said);
        self.is_lost = may_have_cost || said.total().is_some();
        match said.total() {
            None if may_have_cost => {}
            tokens => self.tenure.bill(Bill::Exactly(tokens.unwrap_or(0))),
        }
    }

    /// A stream has broken off: what was heard of it is spent.
    pub(crate) fn broke_off(&mut self, meter: &Meter) -> Counted {
        self.extension = None;
        self.is_lost = true;
        self.settle(meter.usage().total(), meter.passed(), meter.has_counted())
    }

    /// Whether the next attempt needs another holding than the last one had.
    pub(crate) fn needs_another(&self) -> bool {
        self.is_lost
    }

    /// Goes on with another holding. What else the first one keeps, such as a place, is kept to the end.
    pub(crate) fn go_on_with(&mut self, tenure: Tenure) {
        self.lost.push(std::mem::replace(&mut self.tenure, tenure));
        self.is_lost = false;
    }

    /// What was held for an upstream that was asked beside another one: the other one answers.
    pub(crate) fn also_lost(&mut self, tenure: Tenure) {
        self.lost.push(tenure);
    }

    /// Whether what was held may be somebody else's by now.
    pub(crate) fn has_lapsed(&self, now: Timestamp) -> bool {
        self.tenure.is_lost(now) || self.lost.iter().any(|tenure| tenure.is_lost(now))
    }

    /// An answer of `bytes` that is whole. It is a failure, which has cost what it says, or it has cost something.
    pub(crate) fn answered(&mut self, usage: Usage, bytes: u64, is_failure: bool) -> Counted {
        let counted = if is_failure {
            self.settle(usage.total().or(Some(0)), 0, true)
        } else {
            self.settle(usage.total(), bytes, true)
        };
        self.release();
        counted
    }

    /// A stream that has ended.
    pub(crate) fn close(&mut self, ended: Ending, meter: &Meter) -> Counted {
        let is_counted = !meter.has_failed() || meter.has_counted();
        let is_whole = ended == Ending::Whole || meter.is_over() && is_counted;
        let counted = self.settle(meter.usage().total(), meter.passed(), is_whole);
        self.release();
        counted
    }

    fn release(&mut self) {
        self.extension = None;
        self.tenure = Tenure::default();
        self.lost.clear();
        self.passage = None;
    }

    fn settle(&self, measured: Option<u64>, passed: u64, is_whole: bool) -> Counted {
        let estimated = self.prompt.bound.saturating_add(passed);
        let estimated = estimated.min(self.ceiling.unwrap_or(u64::MAX));
        let (spent, counted) = match measured {
            Some(tokens) if is_whole => (tokens, Counted::Measured),
            _ if self.tenure.is_none() => (0, Counted::Unknown),
            measured => (measured.unwrap_or(0).max(estimated), Counted::Estimated),
        };
        self.tenure.bill(if is_whole {
            Bill::Exactly(spent)
        } else {
            Bill::Heard(spent)
        });
        counted
    }
}
