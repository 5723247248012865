//! Whom to ask, and whom to ask next.

use std::{collections::VecDeque, num::NonZeroU32, rc::Rc, time::Duration};

use http::StatusCode;

use crate::{
    auth::Digest,
    dialect::dify::Installation,
    limit::Limit,
    overload::Way,
    timeouts::Timeouts,
    upstream::{Complaint, FailureReason, Origin, Outcome},
};

/// A model by the name that callers use, and who can answer for it.
#[derive(Debug)]
pub struct Model {
    /// The name that callers use.
    pub name: Rc<str>,
    /// Who can answer, best first; never empty.
    pub targets: Vec<Target>,
    /// When to ask again.
    pub retry: Retry,
    /// How long they may take.
    pub timeouts: Timeouts,
    /// Whether another target goes on with a stream that breaks off after its caller has heard of it.
    pub rescue: bool,
    /// Whether targets stream an answer that its caller wants at once, so that silence is noticed and a break can be mended.
    pub stream_upstream: bool,
    /// Whether somebody else is asked as well where the first word is late.
    pub hedge: Option<Hedge>,
    /// What is allowed of requests that ask for it by its name, and of those for any of its targets.
    pub limits: Vec<Rc<Limit>>,
}

/// When somebody else is asked beside a target whose first word is late, of whom the faster one answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    /// Of all requests, for how many at most: between nothing and 1.
    pub share: f64,
    /// After how long; where it is not said, after as long as one of twenty takes.
    pub after: Option<Duration>,
}

/// A model of a provider.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name in the configuration: `openai/gpt-4.1`.
    pub name: Rc<str>,
    /// The provider.
    pub origin: Rc<Origin>,
    /// The name that the provider calls the model by.
    pub model: Rc<str>,
    /// How many tokens of a prompt and its answer it can take, where that is known.
    pub context: Option<u64>,
    /// What has to be passed before it is asked; nothing, if everybody is let in.
    pub way: Option<Way>,
    /// The installation that it is a part of, without which it is nothing.
    pub ground: Option<Rc<Installation>>,
}

/// When to ask again, or somebody else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retry {
    /// How many may be asked in all.
    pub attempts: NonZeroU32,
    /// After what.
    pub on: Rc<[Reason]>,
}

/// A reason to ask again, or somebody else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// No connection, or a broken one.
    Connect,
    /// No connection: nobody has seen the request.
    Unsent,
    /// A proxy at the edge says that it had none: Cloudflare's words for refused, unreachable and TLS that fails.
    Unreached,
    /// No answer in time.
    Timeout,
    /// Any status of a server that fails, or an answer that is none.
    Failing,
    /// This status.
    Status(StatusCode),
    /// The target cannot answer this request.
    Complaint(Complaint),
}

/// The way of one request through the targets.
#[derive(Debug)]
pub struct Attempts {
    retry: Retry,
    /// The numbers of the targets, whoever is asked next first.
    order: VecDeque<usize>,
    asked: u32,
}

impl Target {
    /// One that answers by itself, and knows no models.
    pub(crate) fn alone(name: Rc<str>, origin: Rc<Origin>) -> Self {
        Self {
            name,
            origin,
            model: "".into(),
            context: None,
            way: None,
            ground: None,
        }
    }

    /// The name of what it stands on, if that is more than itself.
    pub(crate) fn stands_on(&self) -> Option<&str> {
        self.ground.as_ref().map(|ground| &*ground.api.name)
    }

    /// A number that is its own, whatever else is configured.
    pub(crate) fn number(&self) -> u64 {
        Digest::of(self.name.as_bytes()).number()
    }

    /// Whether it can take what was too long for `other`, as far as that is known.
    pub fn takes_more_than(&self, other: &Self) -> bool {
        match (self.context, other.context) {
            (Some(mine), Some(theirs)) => mine > theirs,
            _ => self.name != other.name,
        }
    }
}

impl Retry {
    /// Never.
    pub fn never() -> Self {
        Self {
            attempts: NonZeroU32::MIN,
            on: Rc::default(),
        }
    }

    fn covers(&self, outcome: Outcome) -> bool {
        let refused = outcome.status().is_some_and(refuses_gateway);
        refused || self.on.iter().any(|reason| reason.covers(outcome))
    }
}

impl Reason {
    /// After what somebody else is asked unless the configuration says otherwise.
    pub const USUAL: [Self; 4] = [
        Self::Connect,
        Self::Timeout,
        Self::Status(StatusCode::TOO_MANY_REQUESTS),
        Self::Failing,
    ];

    fn covers(self, outcome: Outcome) -> bool {
        match (self, outcome) {
            (Self::Complaint(one), Outcome::Complained(other)) => one == other,
            (_, Outcome::Complained(_)) => false,
            (Self::Timeout, Outcome::Failed(reason)) => reason == FailureReason::Timeout,
            (Self::Unsent, Outcome::Failed(reason)) => {
                matches!(reason, FailureReason::Connect | FailureReason::Crowded)
            }
            (Self::Connect, Outcome::Failed(reason)) => reason != FailureReason::Timeout,
            (Self::Failing, Outcome::Garbled) => true,
            // Whoever says that the request took too long means his own patience: it was sent at once.
            // What HTTP does not know of is no answer either.
            (Self::Failing, outcome) => outcome.status().is_some_and(|status| {
                status.as_u16() >= 500 || status == StatusCode::REQUEST_TIMEOUT
            }),
            (Self::Status(one), Outcome::Failed(FailureReason::Crowded)) => {
                one == StatusCode::TOO_MANY_REQUESTS
            }
            (Self::Status(one), outcome) => outcome.status() == Some(one),
            (Self::Unreached, outcome) => outcome
                .status()
                .is_some_and(|status| matches!(status.as_u16(), 521 | 523 | 525 | 526)),
            (Self::Connect | Self::Unsent | Self::Timeout | Self::Complaint(_), _) => false,
        }
    }
}

impl Attempts {
    /// The way through the targets with these numbers, the first of them first.
    pub fn new(order: Vec<usize>, retry: Retry) -> Self {
        Self {
            retry,
            order: order.into(),
            asked: 0,
        }
    }

    /// The number of the target to ask, given what the last one did; nobody, if it is enough. Those who were asked once
    /// are asked again in the same order while attempts are left.
    pub fn next(&mut self, last: Option<Outcome>) -> Option<usize> {
        let target = self.after(last)?;
        Some(self.ask(target))
    }

    /// The number of the target that goes on with an answer that broke off after the caller had heard of it; nobody, if
    /// enough were asked.
    pub fn rescue(&mut self) -> Option<usize> {
        let target = self.after(None).filter(|_| self.has_more())?;
        Some(self.ask(target))
    }

    /// `target` was left before anything was known of it: that was no attempt, and it is the next one to ask.
    pub fn give_back(&mut self, target: usize) {
        self.asked = self.asked.saturating_sub(1);
        let place = self.order.iter().position(|other| *other == target);
        if let Some(target) = place.and_then(|place| self.order.remove(place)) {
            self.order.push_front(target);
        }
    }

    /// Asks nobody any more but those who are `fit`.
    pub fn keep(&mut self, mut fit: impl FnMut(usize) -> bool) {
        self.order.retain(|target| fit(*target));
    }

    /// Whether somebody else could be asked if this one fails.
    pub fn has_more(&self) -> bool {
        self.asked < self.retry.attempts.get() && !self.order.is_empty()
    }

    /// Whether somebody else is to be asked after `last`.
    pub fn goes_on(&self, last: Outcome) -> bool {
        self.after(Some(last)).is_some()
    }

    /// The number of the target that is asked next, if somebody is.
    pub fn following(&self) -> Option<usize> {
        self.order.front().copied().filter(|_| self.has_more())
    }

    fn after(&self, last: Option<Outcome>) -> Option<usize> {
        let go_on = last.is_none_or(|outcome| self.has_more() && self.retry.covers(outcome));
        self.order.front().copied().filter(|_| go_on)
    }

    fn ask(&mut self, target: usize) -> usize {
        self.asked += 1;
        self.order.rotate_left(1);
        target
    }
}

/// Whether the caller should hear this status of a provider as it is: a success, or a fault of the caller's own.
pub fn is_for_caller(status: StatusCode) -> bool {
    status.is_success()
        || (status.is_client_error()
            && !refuses_gateway(status)
            && !matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            ))
}

/// The provider does not refuse the caller, whom it does not know, but the gateway: its key, its account, its region.
pub(crate) fn refuses_gateway(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::FORBIDDEN
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Outcome {
        Outcome::Status(StatusCode::from_u16(code).unwrap())
    }

    fn retry(attempts: u32, on: &[Reason]) -> Retry {
        Retry {
            attempts: NonZeroU32::new(attempts).unwrap(),
            on: on.into(),
        }
    }

    #[test]
    fn targets_are_asked_in_order_and_again_while_attempts_are_left() {
        for (order, attempts, expected) in [
            (vec![0], 1, &[0][..]),
            (vec![0, 1], 2, &[0, 1]),
            (vec![2, 0, 1], 2, &[2, 0]),
            (vec![1, 0], 5, &[1, 0, 1, 0, 1]),
            (vec![], 3, &[]),
        ] {
            let mut way = Attempts::new(order.clone(), retry(attempts, &Reason::USUAL));
            let mut asked = Vec::new();
            let mut last = None;
            while let Some(target) = way.next(last) {
                asked.push(target);
                last = Some(status(503));
            }
            assert_eq!(asked, expected, "{order:?} targets, {attempts} attempts");
        }
    }

    #[test]
    fn whoever_was_left_is_asked_next_and_it_was_no_attempt() {
        let mut way = Attempts::new(vec![0, 1, 2], retry(2, &Reason::USUAL));
        assert_eq!(way.next(None), Some(0));
        assert_eq!(way.rescue(), Some(1));
        assert!(!way.has_more());
        // The second one has answered, and breaks off: the first one may go on.
        way.give_back(0);
        assert_eq!(way.rescue(), Some(0));
        assert_eq!(way.rescue(), None);
    }

    #[test]
    fn whoever_is_not_fit_is_not_asked() {
        let mut way = Attempts::new(vec![0, 1, 2], retry(9, &Reason::USUAL));
        assert_eq!(way.next(None), Some(0));
        way.keep(|target| target == 2);
        assert!(way.goes_on(status(503)));
        assert_eq!(way.next(Some(status(503))), Some(2));
        way.keep(|_| false);
        assert!(!way.has_more());
        assert_eq!(way.next(Some(status(503))), None);
    }

    #[test]
    fn what_goes_on_is_what_the_configuration_names() {
        let broken = Outcome::Failed(FailureReason::Broken);
        let silent = Outcome::Failed(FailureReason::Timeout);
        let told = |code| Outcome::Told(StatusCode::from_u16(code).unwrap());
        let long = Outcome::Complained(Complaint::ContextLength);
        let filtered = Outcome::Complained(Complaint::ContentFilter);
        let only = |code| Reason::Status(StatusCode::from_u16(code).unwrap());
        let table: [(&[Reason], &[Outcome], &[Outcome]); 7] = [
            (
                &Reason::USUAL,
                &[
                    status(500),
                    status(529),
                    status(429),
                    status(408),
                    told(503),
                    told(429),
                    broken,
                    silent,
                    Outcome::Garbled,
                ],
                &[
                    status(400),
                    status(404),
                    status(200),
                    told(400),
                    long,
                    filtered,
                ],
            ),
            // The gateway's own key is no matter of the caller's.
            (
                &[],
                &[status(401), status(402), status(403), told(401)],
                &[status(500), broken],
            ),
            (&[Reason::Connect], &[broken], &[silent, status(500)]),
            (&[Reason::Timeout], &[silent], &[broken, status(504)]),
            (
                &[only(404)],
                &[status(404), told(404)],
                &[status(400), status(500)],
            ),
            (
                &[Reason::Complaint(Complaint::ContextLength)],
                &[long],
                &[filtered, status(400)],
            ),
            (&[only(400)], &[status(400)], &[long, filtered]),
        ];
        for (on, goes_on, does_not) in table {
            let retry = retry(2, on);
            for outcome in goes_on {
                assert!(retry.covers(*outcome), "{on:?} {outcome}");
            }
            for outcome in does_not {
                assert!(!retry.covers(*outcome), "{on:?} {outcome}");
            }
        }
    }
}
