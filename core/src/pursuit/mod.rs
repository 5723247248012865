//! One question, put to one target after another until one of them has something for the caller.

mod hedge;

use std::{
    cell::Cell,
    future::{Future, pending, poll_fn},
    mem,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use http::StatusCode;

use crate::{
    admission::Denial,
    answer::{self, ABANDONED, Content, Miss, Reply},
    body::{Body, Course},
    budget::Budget,
    cancel::Cancel,
    claim::Claim,
    delivery::deliver,
    diagnosis::diagnose,
    dialect::{
        Meter,
        dify::{Parting, Retelling, Run, Trace},
        openai::Transcript,
    },
    dispatch::Target,
    entrance::{Entrant, crowd},
    exchange::Exchange,
    passage::Passage,
    patience::within,
    platform::{Clock, Tasks},
    record::Attempt,
    refusal::Refusal,
    retold::retold,
    round::{Question, Round},
    tenure::Keeper,
    time::{Timestamp, millis},
    trail::Trail,
    upstream::{Complaint, Failure, FailureReason, Outcome, Prefill},
    usage::Usage,
};

/// Whoever was to be asked has as much to do as it bears.
const CROWDED: Outcome = Outcome::Failed(FailureReason::Crowded);

/// A question, and whom it can still be put to.
pub(crate) struct Pursuit {
    keeper: Keeper,
    exchange: Exchange,
    /// What the request is held on.
    claims: Vec<Claim>,
    /// A ledger that fails lets it be.
    pub(crate) forgiving: bool,
    round: Round,
    entrant: Entrant,
    /// The gates where there was no room, and what was said at the last one.
    full: Vec<Arc<str>>,
    refusal: Option<Refusal>,
    deadline: Timestamp,
    /// What its caller has heard was said by an app of Dify's, be it in part.
    is_of_app: bool,
    /// He has left, and nobody else is to be asked.
    pub(crate) is_left: Rc<Cell<bool>>,
    /// Whoever is being asked is heard on without him.
    pub(crate) is_heard_on: Rc<Cell<bool>>,
    /// How the run is ended whose stream its caller hears.
    cancel: Option<Rc<Cancel>>,
}

/// Nobody has anything for the caller.
pub(crate) enum Loss {
    /// Whoever was asked has failed, and nothing can be held for the next one.
    Denied(Denial),
    /// The caller is at fault, which showed on the way.
    Refused(Refusal),
    /// There was no time left to ask anybody.
    TooLate,
    /// Everybody has failed who could be asked: the last one so.
    Unanswered(Option<Miss>),
}

/// Who goes on with a stream, and how.
pub(crate) struct Resumed {
    pub(crate) body: Body,
    pub(crate) meter: Meter,
    pub(crate) target: Target,
}

/// A question that is with a target.
struct Sent {
    target: Target,
    clock: Rc<dyn Clock>,
    began: Timestamp,
    answer: Pin<Box<dyn Future<Output = Result<Reply, Miss>>>>,
    trail: Trail,
    /// It has come to its end; and what came of it is told.
    is_over: bool,
    is_told: bool,
    /// What is left of the run that it is, if it is told in other words.
    trace: Option<Rc<Trace>>,
    /// How the run is ended, if nobody hears of it any more.
    cancel: Option<Rc<Cancel>>,
    /// Its place, where it has lost to somebody faster.
    passage: Option<Passage>,
}

/// Who was asked, and what came of it.
type Taken = (Target, Result<Reply, Miss>);

impl Pursuit {
    /// Of `exchange`, by `entrant`, held on `claims`; all of it is to be over at `deadline`.
    pub(crate) fn new(
        keeper: &Keeper,
        entrant: Entrant,
        exchange: Exchange,
        claims: Vec<Claim>,
        deadline: Timestamp,
    ) -> Self {
        let (platform, holdings) = (entrant.platform.clone(), entrant.holdings.clone());
        let round = Round::new(platform, holdings, &exchange);
        Self {
            keeper: keeper.clone(),
            exchange,
            claims,
            forgiving: false,
            round,
            entrant,
            full: Vec::new(),
            refusal: None,
            deadline,
            is_of_app: false,
            is_left: Rc::default(),
            is_heard_on: Rc::default(),
            cancel: None,
        }
    }

    /// Asks until there is something for the caller, and says whose it is.
    pub(crate) async fn answer(&mut self, budget: &mut Budget) -> Result<(Reply, Target), Loss> {
        let mut last: Option<Miss> = None;
        let mut missed: Option<Miss> = None;
        let mut second_best: Option<(Reply, Target)> = None;
        while let Some((target, taken)) = self.next(last.as_ref(), budget).await? {
            match taken {
                Ok(reply) => {
                    let is_last = !self.round.goes_on(&reply);
                    let is_better = |(other, _): &(Reply, Target)| {
                        self.exchange.open.is_none() || other.worth() <= reply.worth()
                    };
                    let is_best = second_best.as_ref().is_none_or(is_better);
                    let has_missed = missed.is_some() && reply.is_ignorant();
                    if is_last && is_best && !has_missed {
                        return Ok((reply, target));
                    }
                    budget.failed(false, reply.cost());
                    last = Some(reply.outcome().into());
                    if is_best {
                        second_best = Some((reply, target));
                    }
                }
                Err(miss) => {
                    budget.failed(miss.outcome.may_have_cost(), miss.cost);
                    last = Some(miss.clone());
                    // Who has failed says more than who was full.
                    missed = missed.filter(|_| miss.outcome == CROWDED).or(Some(miss));
                }
            }
        }
        // Nobody had something better. Whoever does not know a thing says nothing of it where another one, who may, has failed.
        match second_best {
            Some((reply, target)) if missed.is_none() || !reply.is_ignorant() => {
                Ok((reply, target))
            }
            _ => Err(match (&missed, self.refusal.take()) {
                (Some(miss), Some(refusal)) if miss.outcome == CROWDED => Loss::Refused(refusal),
                _ => Loss::Unanswered(missed),
            }),
        }
    }

    /// Sees to it that the answer cannot cost more than is held, or than can be. Its prompt is so much `longer` than it was, in bytes.
    pub(crate) fn bound(&mut self, longer: u64, budget: &mut Budget) {
        let on_tokens = || self.claims.iter().filter(|claim| claim.is_on_tokens());
        let (Some(mut cost), Some(_)) = (self.exchange.cost, on_tokens().next()) else {
            return;
        };
        cost.prompt.bound = cost.prompt.bound.saturating_add(longer);
        budget.prompt = cost.prompt;
        budget.last = Some(Bytes::new());
        let held = budget.tenure.tokens().unwrap_or(u64::MAX);
        let strict = on_tokens().filter(|claim| claim.is_strict());
        let cap = cost.cap(strict.map(|claim| (claim, held)));
        budget.ceiling = cost.ceiling(cap);
        self.exchange.count();
        self.exchange.cap(cap);
    }

    /// Asks the next one, given what became of the `last`; nobody, if it is enough.
    async fn next(
        &mut self,
        last: Option<&Miss>,
        budget: &mut Budget,
    ) -> Result<Option<Taken>, Loss> {
        if self.now() >= self.deadline {
            // Whoever has waited for so long is not asked for anything any more, be it for the first time.
            return last.map_or(Err(Loss::TooLate), |_| Ok(None));
        }
        if last.is_some() && self.is_left.get() {
            return Ok(None);
        }
        let Some(question) = self.round.next(last) else {
            return Ok(None);
        };
        self.exchange.keep(self.round.has_more());
        let may_hedge = last.is_none() && !self.exchange.has_files();
        let hedge = self.exchange.hedge().filter(|_| may_hedge);
        let taken = match hedge.and_then(|hedge| self.round.hedge_after(hedge)) {
            Some(after) => self.hedged(after, question, budget).await,
            None => self.put(question, None, budget).await,
        };
        taken.map(Some)
    }

    /// Waits until `target` has room, where not everybody is let in; what has come of it, if it has none.
    async fn pass(&mut self, target: &Target, budget: &mut Budget) -> Result<(), Miss> {
        let is_through = |passage: &Passage| {
            let way = target.way.as_ref();
            way.is_some_and(|way| passage.is_through(way))
        };
        self.is_heard_on.set(false);
        // Whoever is asked once more has its place still.
        budget.passage = budget.passage.take().filter(is_through);
        if let (Some(way), None) = (&target.way, &budget.passage) {
            // Nobody waits twice at one gate.
            if self.full.contains(&way.gate) && !self.entrant.has_room(way) {
                return Err(Miss::no_sign(CROWDED));
            }
            let left = self.deadline.since(self.now());
            match self.entrant.pass(way, left).await {
                Ok(passage) => budget.passage = Some(passage),
                Err(refusal) => {
                    self.full.push(way.gate.clone());
                    self.refusal = Some(refusal);
                    return Err(Miss::no_sign(CROWDED));
                }
            }
            if self.now() >= self.deadline {
                return Err(Miss::no_sign(Outcome::Failed(FailureReason::Timeout)));
            }
        }
        if let Some(passage) = &mut budget.passage {
            // How long files take to be uploaded says nothing of how much there is to do.
            let is_soon = self.exchange.is_soon || target.origin.app.is_some();
            passage.sent(is_soon && !self.exchange.has_files());
        }
        Ok(())
    }

    /// Nobody was let in to the target of `question`, who has waited there since `came`.
    fn turned_away(&mut self, question: Question, came: Timestamp, miss: Miss) -> Taken {
        let (target, trail) = (question.target, &self.entrant.trail);
        let taken = Err(miss);
        self.round.note(&taken, false);
        // Of one alone it is said in the refusal.
        if trail.len() > 0 || self.round.has_more() {
            trail.push(Attempt {
                target: target.name.to_string(),
                outcome: outcome(&taken).to_string(),
                ms: millis(self.now().since(came)),
                detail: None,
            });
        }
        (target, taken)
    }

    /// Puts the question to one target, which is to go on behind the text of `prefill`, if there is one.
    async fn put(
        &mut self,
        question: Question,
        prefill: Option<(Prefill, &str)>,
        budget: &mut Budget,
    ) -> Result<Taken, Loss> {
        let came = self.now();
        if let Err(miss) = self.pass(&question.target, budget).await {
            return Ok(self.turned_away(question, came, miss));
        }
        if budget.needs_another() {
            let longer = prefill.map_or(0, |(_, text)| text.len() as u64);
            self.admit_again(longer, budget).await?;
        }
        budget.begin();
        let mut sent = self.send(question, prefill);
        let taken = sent.answer.as_mut().await;
        self.take(sent, taken, budget)
    }

    /// Sends the question to a target.
    fn send(&mut self, question: Question, prefill: Option<(Prefill, &str)>) -> Sent {
        let Question {
            target,
            authorization,
        } = question;
        let began = self.now();
        let left = self.deadline.since(began);
        let others = self.round.has_others();
        let patience = self.exchange.patience(left, others);
        // Who is given less than half of what he would have had says nothing by his silence.
        let full = self.exchange.patience(self.exchange.timeouts.total, others);
        let is_hurried = patience < full / 2;
        let connect = self.exchange.timeouts.connect;
        let retelling = self.exchange.retelling(&target, began);
        let trace = retelling.as_ref().map(Retelling::trace);
        let platform = self.keeper.desk().platform().clone();
        let is_left = self.is_left.clone();
        let run = self.exchange.run_at(&target);
        let is_heard_on = run.as_ref().is_some_and(Run::is_heard_on);
        self.is_heard_on.set(is_heard_on);
        let idle = self.exchange.timeouts.idle;
        let delivery = self.exchange.request(&target, authorization, prefill);
        let cancel = run.zip(delivery.as_ref()).map(|(run, delivery)| {
            Rc::new(Cancel {
                run,
                trace: trace.clone(),
                target: target.clone(),
                headers: delivery.request.headers().clone(),
                connect,
                platform: platform.clone(),
                trail: self.entrant.trail.clone(),
            })
        });
        let ends = cancel.clone();
        let (reading, origin) = (self.exchange.reading.clone(), target.origin.clone());
        let open = self.exchange.open.clone();
        let answer = Box::pin(async move {
            let delivery = delivery.ok_or_else(|| Failure {
                reason: FailureReason::Connect,
                detail: "the path does not fit the target's address".into(),
            })?;
            let sent = async {
                let mut response = deliver(delivery, &platform, connect, &is_left).await?;
                if let Some(retelling) = retelling {
                    response = retold(retelling, response, &*platform.clock, idle).await?;
                }
                let reply = answer::take(&reading, &origin, response, platform.clock.now()).await?;
                match open {
                    Some(open) => diagnose(reply, &open).await,
                    None => Ok(reply),
                }
            };
            let mut sent = pin!(sent);
            let sent = poll_fn(|cx| match (sent.as_mut().poll(cx), &ends) {
                (Poll::Pending, Some(run)) if is_left.get() && run.can_be_stopped() => {
                    Poll::Ready(Err(Miss::no_sign(ABANDONED)))
                }
                (polled, _) => polled,
            });
            let answered = within(&*platform.clock, patience, sent).await;
            let mut answered = answered.unwrap_or_else(|| {
                let silent = Failure {
                    reason: FailureReason::Timeout,
                    detail: "no answer in time".into(),
                };
                Err(Miss {
                    is_no_sign: is_hurried,
                    ..silent.into()
                })
            });
            if let (Err(miss), Some(run)) = (&mut answered, &ends)
                && miss.outcome == ABANDONED
            {
                // Until then it is in progress.
                miss.detail = run.end().await;
            }
            answered
        });
        Sent {
            target,
            clock: self.keeper.desk().platform().clock.clone(),
            began,
            answer,
            trail: self.entrant.trail.clone(),
            is_over: false,
            is_told: false,
            trace,
            cancel,
            passage: None,
        }
    }

    /// Takes down what has come of asking.
    fn take(
        &mut self,
        mut sent: Sent,
        mut taken: Result<Reply, Miss>,
        budget: &mut Budget,
    ) -> Result<Taken, Loss> {
        sent.is_over = true;
        let fault = self.fault(&taken);
        match &mut taken {
            Ok(reply) if reply.complaint == Some(Complaint::Plugins) => {
                reply.complaint = reply.complaint.filter(|_| !self.exchange.is_suspect());
            }
            Err(miss) if fault.is_some() => miss.is_no_sign = true,
            // It may be the caller who broke off what was handed through.
            Err(miss) if self.exchange.is_broken_by_either() => miss.is_no_sign |= miss.is_broken(),
            Ok(_) | Err(_) => {}
        }
        let has_begun = sent.leave_trace(&mut taken);
        budget.heard(&sent.target, crowd(&taken));
        self.round.note(&taken, has_begun);
        if let Some(refusal) = fault {
            let detail = taken.err().and_then(|miss| miss.detail);
            sent.tell("abandoned".into(), detail);
            budget.failed(false, Usage::default());
            return Err(Loss::Refused(refusal));
        }
        sent.has_come_to(&taken);
        if let Ok(Reply {
            content: Content::Stream(..),
            ..
        }) = &taken
        {
            self.cancel = sent.cancel.take();
        }
        Ok((sent.target.clone(), taken))
    }

    /// What is wrong with what the caller has sent, if that is why nothing has come of it.
    fn fault(&self, taken: &Result<Reply, Miss>) -> Option<Refusal> {
        let timeout = Outcome::Failed(FailureReason::Timeout);
        match self.exchange.watch.get() {
            Course::Well => None,
            Course::Awaited if outcome(taken) != timeout => None,
            Course::Awaited | Course::Late => Some(Refusal::LateBody),
            Course::Broken => Some(Refusal::BrokenBody),
            Course::TooLong(limit) => Some(Refusal::TooLarge(limit)),
        }
    }

    /// Asks somebody to go on with a stream that has broken off, of which its caller has heard `heard`.
    ///
    /// Whoever can go on behind a text is given it; whoever can not, or does not want to, is asked for the whole answer anew. What an
    /// app of Dify's has begun is gone on with by nobody: it knows what no model has been told.
    pub(crate) async fn go_on(
        &mut self,
        heard: &Transcript,
        budget: &mut Budget,
    ) -> Result<Option<Resumed>, Loss> {
        self.exchange.keep(true);
        self.is_of_app |= self.round.is_with_app();
        let mut refused_prefill = false;
        let mut question = self.round.rescue();
        while let Some(asked) = question.take()
            && self.now() < self.deadline
        {
            let prefill = asked.target.origin.prefill.zip(heard.text());
            let may = !refused_prefill && !self.is_of_app && self.exchange.takes_prefill();
            let prefill = prefill.filter(|_| may);
            let (target, taken) = self.put(asked, prefill, budget).await?;
            refused_prefill = false;
            question = match taken {
                Ok(Reply {
                    content: Content::Stream(body, meter),
                    ..
                }) => {
                    return Ok(Some(Resumed {
                        body,
                        meter: match prefill {
                            Some((_, text)) => meter.behind(text),
                            None => meter,
                        },
                        target,
                    }));
                }
                Ok(reply) if prefill.is_some() && !reply.status.is_success() => {
                    budget.failed(false, reply.cost());
                    refused_prefill = true;
                    self.round.again()
                }
                // Some do not refuse what they do not know, but fail at it, each in its own way.
                Err(miss) if prefill.is_some() && may_be_of_prefill(miss.outcome) => {
                    budget.failed(miss.outcome.may_have_cost(), miss.cost);
                    refused_prefill = true;
                    self.round.again()
                }
                Ok(reply) => {
                    budget.failed(reply.status.is_success(), reply.cost());
                    self.round.rescue()
                }
                Err(miss) => {
                    budget.failed(miss.outcome.may_have_cost(), miss.cost);
                    let next = self.round.next(Some(&miss));
                    next.or_else(|| self.round.rescue())
                }
            };
        }
        Ok(None)
    }

    /// Whether somebody else could go on with a stream that breaks off now.
    pub(crate) fn has_more(&self) -> bool {
        self.round.has_more() && self.now() < self.deadline
    }

    /// Whether a stream of it is put together to one answer, since its caller wants it at once.
    pub(crate) fn is_assembled(&self) -> bool {
        self.exchange.is_assembled()
    }

    /// How many tokens the prompt probably comes to, where the caller is told them.
    pub(crate) fn prompt(&self) -> Option<u64> {
        self.exchange.prompt()
    }

    /// Lets go of the question: nobody will be asked any more.
    pub(crate) fn let_go(&mut self) {
        self.exchange.let_go();
    }

    /// What is to be done now that the caller has left, of whose stream so much has been `seen`.
    pub(crate) fn parting(&self, seen: &Meter) -> Option<Parting> {
        self.cancel.as_ref()?.parting(seen)
    }

    /// Where that is done.
    pub(crate) fn tasks(&self) -> Rc<dyn Tasks> {
        self.keeper.desk().platform().tasks.clone()
    }

    /// Has the run whose stream was heard ended by posting `body` to `path`, once. Says what is wrong if it may go on all the same.
    pub(crate) async fn stop(&mut self, path: &str, body: String) -> Option<String> {
        self.cancel.take()?.stop(path, body).await
    }

    /// Nobody hears any more of the run whose stream was heard.
    pub(crate) fn give_up(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel.give_up();
        }
    }

    /// Takes down how a stream of whoever was asked last has ended.
    pub(crate) fn ended(&mut self, well: bool) {
        self.round.ended(well);
    }

    /// What has been spent on a stream of which so many bytes were heard, as far as can be guessed.
    pub(crate) fn guess(&self, heard: usize) -> Usage {
        self.exchange.guess(heard)
    }

    /// Holds the tokens of the request once more: whoever was asked before may have spent all that was held.
    /// Its prompt is so much `longer` now, in bytes.
    async fn admit_again(&mut self, longer: u64, budget: &mut Budget) -> Result<(), Loss> {
        let claims = self.on_tokens(longer);
        if claims.is_empty() {
            return Ok(());
        }
        let admitted = self.keeper.desk().admit(&claims, self.forgiving).await;
        let admission = admitted.map_err(Loss::Denied)?;
        budget.go_on_with(self.keeper.keep(admission.held));
        self.bound(longer, budget);
        Ok(())
    }

    /// What a question is held on, each time it is put, whose prompt is so much `longer`: its tokens.
    fn on_tokens(&self, longer: u64) -> Vec<Claim> {
        let on_tokens = self.claims.iter().filter(|claim| claim.is_on_tokens());
        on_tokens
            .map(|claim| claim.for_units(claim.units.saturating_add(longer), claim.more))
            .collect()
    }

    fn now(&self) -> Timestamp {
        self.keeper.desk().platform().clock.now()
    }
}

impl From<Loss> for Refusal {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Denied(denial) => denial.into(),
            Loss::Refused(refusal) => refusal,
            Loss::TooLate => Self::Upstream {
                last: Outcome::Failed(FailureReason::Timeout),
                retry_after: None,
                said: None,
            },
            Loss::Unanswered(None) => Self::NoRoute,
            Loss::Unanswered(Some(last)) => Self::Upstream {
                last: last.outcome,
                retry_after: last.retry_after,
                said: last.said,
            },
        }
    }
}

impl Sent {
    /// What it has cost, as far as it has said so.
    fn cost(&self) -> Usage {
        let trace = self.trace.as_ref();
        trace.map(|trace| trace.usage.get()).unwrap_or_default()
    }

    /// Adds to what came of it what is left of a run that has come to nothing. Whether that was begun.
    fn leave_trace(&self, taken: &mut Result<Reply, Miss>) -> bool {
        let Some(trace) = &self.trace else {
            return false;
        };
        match taken {
            Err(miss) => {
                miss.cost = trace.usage.get();
                miss.said = trace.fault.take().filter(|said| !said.is_empty());
            }
            Ok(reply) if reply.status.is_success() => {}
            Ok(reply) => {
                if let Content::Whole(_, usage) = &mut reply.content {
                    *usage = trace.usage.get();
                }
            }
        }
        trace.has_begun.get()
    }

    /// Takes down what came of it.
    fn has_come_to(&mut self, taken: &Result<Reply, Miss>) {
        let detail = taken.as_ref().err().and_then(|miss| miss.detail.clone());
        self.tell(outcome(taken).to_string(), detail);
    }

    fn tell(&mut self, outcome: String, detail: Option<String>) {
        self.is_told = true;
        self.trail.push(Attempt {
            target: self.target.name.to_string(),
            outcome,
            ms: millis(self.clock.now().since(self.began)),
            detail,
        });
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell("abandoned".into(), None);
        }
        let Some(run) = self.cancel.take() else {
            return;
        };
        if self.is_over || !run.may_be_stopped() {
            run.give_up();
            return;
        }
        // It is heard until it says by what name it can be ended; so long its place is taken.
        let mut answer = mem::replace(&mut self.answer, Box::pin(pending()));
        let passage = self.passage.take();
        let tasks = run.platform.tasks.clone();
        tasks.spawn(Box::pin(async move {
            poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Pending if run.may_be_stopped() => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
            run.end().await;
            drop(passage);
        }));
    }
}

/// Whether this can be what an upstream makes of the beginning of an answer that it was given.
fn may_be_of_prefill(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Garbled => true,
        Outcome::Status(status) | Outcome::Told(status) => matches!(
            status,
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::NOT_IMPLEMENTED
        ),
        Outcome::Complained(_) | Outcome::Failed(_) => false,
    }
}

fn outcome(taken: &Result<Reply, Miss>) -> Outcome {
    taken
        .as_ref()
        .map_or_else(|miss| miss.outcome, Reply::outcome)
}
