//! Two targets at once: the second one where the first is late with its first word.

use std::{future::poll_fn, task::Poll, time::Duration};

use super::{Loss, Pursuit, Sent, Taken};
use crate::{
    admission::Bill, budget::Budget, claim::Claim, patience::within, round::Question,
    tenure::Tenure, usage::Usage,
};

impl Pursuit {
    /// Puts the question to one target, and to another one too where nothing has come after so long: the first who has something for
    /// the caller answers, and the other one is left.
    pub(super) async fn hedged(
        &mut self,
        after: Duration,
        question: Question,
        budget: &mut Budget,
    ) -> Result<Taken, Loss> {
        let came = self.now();
        if let Err(miss) = self.pass(&question.target, budget).await {
            return Ok(self.turned_away(question, came, miss));
        }
        budget.begin();
        let mut first = self.send(question, None);
        let clock = self.keeper.desk().platform().clock.clone();
        if let Some(taken) = within(&*clock, after, first.answer.as_mut()).await {
            return self.take(first, taken, budget);
        }
        let is_heard_on = self.is_heard_on.get();
        let Some((mut second, spare)) = self.second(budget.ceiling).await else {
            let taken = first.answer.as_mut().await;
            return self.take(first, taken, budget);
        };
        self.is_heard_on.set(is_heard_on || self.is_heard_on.get());
        let race = poll_fn(|cx| {
            if let Poll::Ready(taken) = first.answer.as_mut().poll(cx) {
                return Poll::Ready((true, taken));
            }
            let second = second.answer.as_mut().poll(cx);
            second.map(|taken| (false, taken))
        });
        let (is_first, taken) = race.await;
        let answers = matches!(&taken, Ok(reply) if !self.round.goes_on(reply));
        // A refusal does not win over whoever may still have something to say.
        let has_won = answers && matches!(&taken, Ok(reply) if reply.status.is_success());
        let cost = match &taken {
            Ok(_) => has_won,
            Err(miss) => miss.outcome.may_have_cost(),
        };
        let asked = if is_first { &first } else { &second };
        let said = match &taken {
            Err(_) => asked.cost(),
            Ok(_) => Usage::default(),
        };
        let (one, mut other) = if is_first {
            // The round is about whoever was asked last.
            self.round.swap();
            (first, second)
        } else {
            (second, first)
        };
        // Each is charged for what it was asked: whoever is left may have done all of it.
        match (is_first, has_won) {
            _ if spare.is_none() => budget.spent = budget.spent.with(said),
            (true, true) => budget.also_lost(spare),
            (true, false) => {
                budget.failed(cost, said);
                budget.go_on_with(spare);
            }
            (false, true) => budget.go_on_with(spare),
            (false, false) => {
                spare.bill(match said.total() {
                    Some(tokens) => Bill::Exactly(tokens),
                    None if cost => Bill::AtLeast(0),
                    None => Bill::Exactly(0),
                });
                budget.spent = budget.spent.with(said);
                budget.also_lost(spare);
            }
        }
        if has_won {
            other.tell("outpaced".into(), None);
            other.passage = budget.passage.take_if(|_| !is_first);
            drop(other);
            self.round.leave_other();
            return self.take(one, taken, budget);
        }
        let refused = self.take(one, taken, budget)?;
        // Whoever was asked first has passed a gate, if somebody has.
        budget.passage = budget.passage.take().filter(|_| !is_first);
        if self.is_left.get() {
            return Ok(refused);
        }
        let run = other.cancel.as_ref();
        self.is_heard_on
            .set(run.is_some_and(|run| run.run.is_heard_on()));
        self.round.swap();
        let taken = other.answer.as_mut().await;
        let taken = self.take(other, taken, budget)?;
        Ok(match &taken.1 {
            Err(miss) if answers => {
                budget.failed(miss.outcome.may_have_cost(), miss.cost);
                budget.go_on_with(Tenure::default());
                refused
            }
            _ => taken,
        })
    }

    /// Puts the question to somebody else too, if that may be done and its tokens can be held.
    ///
    /// It is the question that the first one has, with the same bound on its answer: all of what that may come to is held, up to the
    /// `ceiling`, and not as much as there happens to be room for.
    async fn second(&mut self, ceiling: Option<u64>) -> Option<(Sent, Tenure)> {
        if self.is_left.get() || !self.round.may_hedge() {
            return None;
        }
        let all = |claim: Claim| {
            let most = claim.most().min(ceiling.unwrap_or(u64::MAX));
            claim.for_units(claim.units.max(most), 0)
        };
        let claims: Vec<Claim> = self.on_tokens(0).into_iter().map(all).collect();
        let admission = self
            .keeper
            .desk()
            .admit(&claims, self.forgiving)
            .await
            .ok()?;
        let spare = self.keeper.keep(admission.held);
        if self.is_left.get() {
            return None;
        }
        // Whoever is not asked has spent nothing of it.
        let question = self.round.hedge()?;
        spare.bill(Bill::AtLeast(0));
        Some((self.send(question, None), spare))
    }
}
