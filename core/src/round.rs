//! One request's round through its targets: whom it asks next, with which key, and what the isolate learns from it.

use std::{rc::Rc, time::Duration};

use http::{HeaderValue, StatusCode};

use crate::{
    answer::{Content, Miss, Reply},
    dialect::dify::{Deed, Open},
    dispatch::{Attempts, Hedge, Target, refuses_gateway},
    exchange::Exchange,
    health::{Health, Sign},
    holdings::Holdings,
    platform::Platform,
    time::Timestamp,
    upstream::{Complaint, Outcome},
};

/// How long a key is left alone that its provider does not take, where that does not say for how long.
const REFUSED: Duration = Duration::from_secs(300);

/// How long a key is left alone that is used up for the moment, where its provider does not say for how long.
const USED_UP: Duration = Duration::from_secs(10);

/// The way of one request through its targets.
pub(crate) struct Round {
    platform: Platform,
    holdings: Holdings,
    targets: Vec<Target>,
    attempts: Attempts,
    /// The question can be put more than once.
    is_repeatable: bool,
    /// What it has to do with what was begun before, if it is put to apps of Dify's.
    open: Option<Rc<Open>>,
    /// The origins that were asked already.
    asked: Vec<Rc<str>>,
    turn: Option<Turn>,
    /// Whoever is asked at the same time.
    other: Option<Turn>,
}

/// Whose turn it is.
struct Turn {
    /// The number of the target among all of them.
    place: usize,
    target: Target,
    /// The number of the key that is used, and how many were before it.
    key: Option<u64>,
    before: usize,
    began: Timestamp,
    is_noted: bool,
    /// It is an app of Dify's that has begun with it, or may have.
    has_begun: bool,
}

/// Whom to ask.
pub(crate) struct Question {
    pub(crate) target: Target,
    /// What opens the target's origin, if it asks for something.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Round {
    pub(crate) fn new(platform: Platform, holdings: Holdings, exchange: &Exchange) -> Self {
        let targets = exchange.targets.clone();
        let names: Vec<Rc<str>> = targets.iter().map(|target| target.name.clone()).collect();
        let open = exchange.open.clone();
        let grounds: Vec<_> = targets.iter().map(Target::stands_on).collect();
        let mut order = {
            let mut health = holdings.health();
            health.order_on(
                &names,
                &grounds,
                platform.clock.now(),
                &mut platform.dice.borrow_mut(),
            )
        };
        if let Some(lead) = exchange.lead {
            order.retain(|place| *place != lead);
            order.insert(0, lead);
        }
        Self {
            platform,
            holdings,
            targets,
            attempts: Attempts::new(order, exchange.retry.clone()),
            is_repeatable: exchange.is_repeatable(),
            open,
            asked: Vec::new(),
            turn: None,
            other: None,
        }
    }

    /// Whom to ask, given what the last one did; nobody, if it is enough.
    ///
    /// Where a key was refused, or is used up, the same target is asked with the next one: that is no other attempt.
    pub(crate) fn next(&mut self, last: Option<&Miss>) -> Option<Question> {
        let now = self.platform.clock.now();
        let has_key = last.is_some_and(|last| self.has_next_key(last.outcome, now));
        if let Some(turn) = self.turn.take().filter(|_| has_key) {
            return Some(self.question(turn.place, turn.target, turn.before + 1, now));
        }
        let last = last.map(|miss| miss.outcome);
        self.pass_by(now);
        let place = self.attempts.next(last)?;
        self.ask(place, now)
    }

    /// Whether it is an app of Dify's that was asked last.
    pub(crate) fn is_with_app(&self) -> bool {
        let turn = self.turn.as_ref();
        turn.is_some_and(|turn| turn.target.origin.app.is_some())
    }

    /// Whom to ask to go on with an answer that has broken off.
    pub(crate) fn rescue(&mut self) -> Option<Question> {
        let now = self.platform.clock.now();
        self.pass_by(now);
        let place = self.attempts.rescue()?;
        self.ask(place, now)
    }

    /// After how long without a word from whoever was asked somebody else is to be asked as well; nothing, if nobody is to be.
    pub(crate) fn hedge_after(&self, hedge: Hedge) -> Option<Duration> {
        let target = &self.turn.as_ref()?.target.name;
        let learnt = self.holdings.health().slow(target, hedge.share);
        let beside = self.attempts.following();
        let is_open = beside.is_some_and(|place| self.is_open(place));
        hedge.after.or(learnt).filter(|_| is_open)
    }

    /// Whether everybody is let in there: nobody waits for room where somebody else is asked already.
    fn is_open(&self, place: usize) -> bool {
        let target = self.targets.get(place);
        target.is_some_and(|target| target.way.is_none())
    }

    /// Whether somebody else may be asked beside whoever was asked; it is counted, if so.
    pub(crate) fn may_hedge(&self) -> bool {
        let turn = self.turn.as_ref();
        turn.is_some_and(|turn| self.holdings.health().may_hedge(&turn.target.name))
    }

    /// Whom to ask beside whoever was asked.
    pub(crate) fn hedge(&mut self) -> Option<Question> {
        let now = self.platform.clock.now();
        let first = self.turn.take();
        self.never_again(first.as_ref());
        self.pass_by(now);
        let question = match self.attempts.rescue() {
            Some(place) if self.is_open(place) => self.ask(place, now),
            Some(place) => {
                self.attempts.give_back(place);
                None
            }
            None => None,
        };
        self.other = first;
        if question.is_none() {
            self.swap();
        }
        question
    }

    /// What is noted from now on is of the other one who was asked.
    pub(crate) fn swap(&mut self) {
        std::mem::swap(&mut self.turn, &mut self.other);
    }

    /// The other one who was asked is left before anything is known of it.
    pub(crate) fn leave_other(&mut self) {
        if let Some(turn) = self.other.take() {
            self.unheard(&turn);
            self.attempts.give_back(turn.place);
            self.never_again(Some(&turn));
            let waited = self.platform.clock.now().since(turn.began);
            let mut health = self.holdings.health();
            health.waited(&turn.target.name, waited);
        }
    }

    fn unheard(&self, turn: &Turn) {
        if !turn.is_noted {
            let now = self.platform.clock.now();
            leave_unheard(&mut self.holdings.health(), turn, now);
        }
    }

    /// To ask the same one with the same key once more, in other words: that is no other attempt.
    pub(crate) fn again(&mut self) -> Option<Question> {
        let turn = self.turn.take()?;
        let now = self.platform.clock.now();
        Some(self.question(turn.place, turn.target, turn.before, now))
    }

    /// Those are left out of whom too much was asked again already: others may be asked in their place.
    fn pass_by(&mut self, now: Timestamp) {
        while let Some(target) = self
            .attempts
            .following()
            .and_then(|place| self.targets.get(place))
        {
            let origin = target.origin.name.clone();
            let is_again = self.asked.contains(&origin);
            if !is_again || self.holdings.health().may_retry(&origin, now) {
                return;
            }
            self.keep_from(&origin);
        }
    }

    /// Asks no app of Dify's again that may have begun: what it does it would do twice.
    fn never_again(&mut self, turn: Option<&Turn>) {
        if let Some(turn) = turn.filter(|turn| turn.target.origin.app.is_some()) {
            self.keep_from(&turn.target.origin.name);
        }
    }

    /// Asks `origin` nothing more.
    fn keep_from(&mut self, origin: &Rc<str>) {
        let is_other = |target: &Target| target.origin.name != *origin;
        self.attempts
            .keep(|place| self.targets.get(place).is_some_and(is_other));
    }

    fn ask(&mut self, place: usize, now: Timestamp) -> Option<Question> {
        let target = self.targets.get(place)?.clone();
        let origin = &target.origin.name;
        let mut health = self.holdings.health();
        if !self.asked.contains(origin) {
            health.asked(origin, now);
            self.asked.push(origin.clone());
        }
        drop(health);
        Some(self.question(place, target, 0, now))
    }

    /// Whether somebody else could be asked if this one fails.
    pub(crate) fn has_more(&self) -> bool {
        self.attempts.has_more()
    }

    /// Whether somebody else could be asked after the silence of whoever was asked.
    pub(crate) fn has_others(&self) -> bool {
        let is_other = |turn: &Turn| {
            let is_other = |target: &Target| target.origin.name != turn.target.origin.name;
            turn.target.origin.app.is_none() || self.targets.iter().any(is_other)
        };
        self.has_more() && self.turn.as_ref().is_none_or(is_other)
    }

    /// Whether somebody else is to be asked after `reply`.
    pub(crate) fn goes_on(&self, reply: &Reply) -> bool {
        let now = self.platform.clock.now();
        self.attempts.goes_on(reply.outcome()) || self.has_next_key(reply.outcome(), now)
    }

    /// Takes down what came of asking; and whether an app of Dify's `has_begun`, as far as it has said so.
    pub(crate) fn note(&mut self, taken: &Result<Reply, Miss>, has_begun: bool) {
        let outcome = taken
            .as_ref()
            .map_or_else(|miss| miss.outcome, Reply::outcome);
        if let Some(mut turn) = self.turn.take() {
            turn.has_begun = has_begun || outcome.may_have_begun();
            self.never_again(Some(&turn).filter(|turn| turn.has_begun));
            self.turn = Some(turn);
        }
        let Some(turn) = &mut self.turn else { return };
        turn.is_noted = true;
        match outcome {
            Outcome::Complained(Complaint::ContextLength) => {
                let fits = |target: &Target| target.takes_more_than(&turn.target);
                self.attempts
                    .keep(|place| self.targets.get(place).is_some_and(fits));
            }
            Outcome::Complained(Complaint::ContentFilter) => {
                self.attempts.keep(|place| place != turn.place);
            }
            Outcome::Complained(Complaint::Stopped) => self.attempts.keep(|_| false),
            _ => {}
        }
        let now = self.platform.clock.now();
        let mut health = self.holdings.health();
        if taken.as_ref().is_err_and(|miss| miss.is_no_sign) {
            leave_unheard(&mut health, turn, now);
            return;
        }
        let (sign, rest) = match taken {
            // What an app says of a failure is for its caller, too.
            Ok(_) if self.open.is_some() && is_failure(outcome) => (sign(outcome), None),
            Ok(reply) if matches!(reply.content, Content::Stream(..)) => (Sign::Begun, None),
            Ok(_) => (Sign::Well, None),
            Err(miss) => (sign(miss.outcome), miss.retry_after),
        };
        let dice = &mut self.platform.dice.borrow_mut();
        if let Some(ground) = turn.target.stands_on() {
            // What Dify itself says of an app is no word on the installation.
            let is_dify = taken.as_ref().is_err_and(|miss| miss.said.is_some());
            let sign = if is_of_ground(outcome) && !is_dify {
                Sign::Ill
            } else {
                Sign::Well
            };
            health.note(ground, sign, None, turn.began, now, dice);
        }
        if let Some(open) = &self.open
            && taken.as_ref().is_ok_and(|reply| reply.status.is_success())
        {
            let has = turn.target.number();
            health.has(has, &open.made.take());
            match open.deed {
                Deed::Run { .. } | Deed::Upload => {
                    health.has(has, &open.names);
                    health.has(has, open.user.as_slice());
                }
                Deed::Repeatable | Deed::Other => health.has(has, &open.names),
                // It says so of whatever it is asked.
                Deed::Stop => {}
            }
        }
        let is_app = self.open.is_some();
        let blamed = blames_key(outcome, is_app) && (is_app || taken.is_err());
        let origin = &turn.target.origin;
        if let (true, Some(key), true) = (blamed, turn.key, origin.keys.len() > 1) {
            let usual = if sign == Sign::Busy { USED_UP } else { REFUSED };
            let lasts = rest.unwrap_or(usual);
            health.rest_key(&origin.name, key, lasts, now);
            // It is the key's fault, as long as there is another one.
            let numbers = origin.numbers();
            if health.key_back_in(&origin.name, &numbers, now) == Some(Duration::ZERO) {
                health.unheard(&turn.target.name, turn.began, now);
                return;
            }
        }
        health.note(&turn.target.name, sign, rest, turn.began, now, dice);
    }

    /// Takes down how a stream has ended.
    pub(crate) fn ended(&mut self, well: bool) {
        let Some(turn) = &self.turn else { return };
        let now = self.platform.clock.now();
        let mut health = self.holdings.health();
        let dice = &mut self.platform.dice.borrow_mut();
        health.ended(&turn.target.name, well, turn.began, now, dice);
    }

    /// Whether whoever did this is to be asked with another key.
    fn has_next_key(&self, outcome: Outcome, now: Timestamp) -> bool {
        self.turn.as_ref().is_some_and(|turn| {
            self.is_repeatable
                && !(turn.has_begun && turn.target.origin.app.is_some())
                && blames_key(outcome, self.open.is_some())
                && turn.before + 1 < turn.target.origin.keys.len()
                && self.has_fresh_key(&turn.target, now)
        })
    }

    fn has_fresh_key(&self, target: &Target, now: Timestamp) -> bool {
        let origin = &target.origin;
        let health = self.holdings.health();
        health.key_back_in(&origin.name, &origin.numbers(), now) == Some(Duration::ZERO)
    }

    fn question(
        &mut self,
        place: usize,
        target: Target,
        before: usize,
        now: Timestamp,
    ) -> Question {
        let origin = &target.origin;
        let number = if origin.keys.len() > 1 {
            let mut health = self.holdings.health();
            // If all of them rest, one is tried nevertheless: nobody else is better.
            health
                .key(&origin.name, &origin.numbers(), now)
                .unwrap_or(0)
        } else {
            0
        };
        let key = origin.keys.get(number);
        let question = Question {
            target: target.clone(),
            authorization: key.map(|key| key.authorization.clone()),
        };
        let key = key.map(|key| key.number);
        self.turn = Some(Turn {
            place,
            target,
            key,
            before,
            began: now,
            is_noted: false,
            has_begun: false,
        });
        question
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        // The caller has left: of whoever was still being asked nobody will learn anything.
        for turn in [self.turn.take(), self.other.take()].into_iter().flatten() {
            self.unheard(&turn);
        }
    }
}

/// Of whoever was asked, and of what it stands on, nobody will learn anything.
fn leave_unheard(health: &mut Health, turn: &Turn, now: Timestamp) {
    let names = [Some(&*turn.target.name), turn.target.stands_on()];
    for name in names.into_iter().flatten() {
        health.unheard(name, turn.began, now);
    }
}

/// Whether it is the key that the upstream does not take, or no more of. To Dify all keys are names of one app: it may not know one of
/// them any more, and whatever else it says is meant for the app.
fn blames_key(outcome: Outcome, is_app: bool) -> bool {
    let busy = StatusCode::TOO_MANY_REQUESTS;
    outcome.status().is_some_and(|status| {
        if is_app {
            status == StatusCode::UNAUTHORIZED
        } else {
            status == busy || refuses_gateway(status)
        }
    })
}

/// Whether an app that says this could not do what it was asked for, and might another time.
fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Complained(complaint) => complaint == Complaint::Plugins,
        outcome => outcome.status().is_some_and(|status| {
            status.is_server_error()
                || status == StatusCode::TOO_MANY_REQUESTS
                || refuses_gateway(status)
        }),
    }
}

/// Whether it is the fault of the whole installation.
fn is_of_ground(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed(_) | Outcome::Garbled => true,
        Outcome::Complained(complaint) => complaint == Complaint::Plugins,
        outcome => outcome
            .status()
            .is_some_and(|status| matches!(status.as_u16(), 502..=504 | 520..=530)),
    }
}

fn sign(outcome: Outcome) -> Sign {
    match outcome {
        Outcome::Complained(Complaint::Plugins) => Sign::Ill,
        Outcome::Complained(_) => Sign::Well,
        outcome if outcome.status() == Some(StatusCode::TOO_MANY_REQUESTS) => Sign::Busy,
        _ => Sign::Ill,
    }
}
