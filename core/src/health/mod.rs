//! What an isolate knows of those whom it asks, and whom it asks therefore.
//!
//! Every isolate learns from its own requests, which costs nobody a message; the threads of one process learn together. Six things are known, each
//! in a file of its own:
//!
//! - of a target, whether it answers at all: `breaker`;
//! - of a target, how long it takes until its first word: `pace`;
//! - of a target or a key, until when it wants to be left alone: `rest`;
//! - of an origin, how often it was asked again of late: `budget`;
//! - of an origin, whose turn among its keys it is: `keys`;
//! - of something that somebody has begun, who has it: `whereabouts`.
//!
//! It is advice. [`Health::order`] drops nobody: who is ill is asked last, and if all are ill, the least ill is asked.
//!
//! Instants are those of the caller's clock, but what is kept stands in a time that never goes back (`steady`).

mod breaker;
mod budget;
mod keys;
mod known;
mod pace;
mod rest;
mod steady;
mod whereabouts;

use std::{
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    dice::Dice,
    time::{Timestamp, millis},
};
use breaker::{Breaker, Standing};
use budget::Budget;
use keys::Keys;
use known::Known;
use pace::Pace;
pub use rest::LONGEST_REST;
use rest::Rest;
use steady::Steady;
use whereabouts::Whereabouts;

/// How long somebody is left alone who is busy and does not say for how long: something from the first to the second, so that
/// not all come back at once.
const BUSY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What an isolate knows of those whom it asks. One an isolate; nothing in it at first.
#[derive(Debug, Default)]
pub struct Health {
    time: Steady,
    targets: Known<Target>,
    origins: Known<Origin>,
    whereabouts: Whereabouts,
}

/// What those know who ask side by side: the threads of a process, or one isolate alone. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Health>>);

impl Shared {
    /// For one question, or one word to take down: nobody waits while it is held.
    pub fn lock(&self) -> MutexGuard<'_, Health> {
        // Whoever left it in the middle of a word has left advice that is a little wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody did when asked, as far as their health goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sign {
    /// It answered, or said what is wrong with the request.
    Well,
    /// It has begun to answer; how that ended is said by [`Health::ended`].
    Begun,
    /// It gave no answer, or none worth having.
    Ill,
    /// It has too much to do (429 and the like): this says nothing of its health, but that it wants to be left alone.
    Busy,
}

/// What is known of a target.
#[derive(Debug, Default)]
struct Target {
    breaker: Breaker,
    rest: Rest,
    pace: Pace,
    /// How often it has said, one time after another, that it is not well.
    checks_failed: u32,
}

/// What is known of an origin.
#[derive(Debug, Default)]
struct Origin {
    budget: Budget,
    keys: Keys,
}

/// When a target is to be asked; the sooner the better.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Turn {
    InPlace,
    /// After all those that are well: it failed too often of late to be asked every time.
    Shed,
    /// After everybody else: it is not to be asked for so long.
    Away(Duration),
}

impl Health {
    /// In which order to ask `targets` (their names, best first) now: whoever is well in the given order, then whoever was
    /// shed, then whoever is open or at rest, the soonest back first. Every one of them is in it, once.
    ///
    /// One that was open and may be tried again keeps its place if it is asked first there, so that this request is its probe;
    /// for the others it stays at the back until somebody says what became of the probe.
    pub fn order(&mut self, targets: &[Rc<str>], now: Timestamp, dice: &mut Dice) -> Vec<usize> {
        self.order_on(targets, &[], now, dice)
    }

    /// The same, where each target stands on one of `grounds` (their names), and is not better than that.
    pub fn order_on(
        &mut self,
        targets: &[Rc<str>],
        grounds: &[Option<&str>],
        now: Timestamp,
        dice: &mut Dice,
    ) -> Vec<usize> {
        let now = self.time.at(now);
        let mut someone_well = false;
        let mut turns: Vec<(Turn, usize)> = Vec::with_capacity(targets.len());
        for (place, name) in targets.iter().enumerate() {
            let ground = grounds.get(place).copied().flatten();
            let of_ground = ground.map_or(Turn::InPlace, |ground| {
                // Whoever is away himself does not try out what he stands on.
                let away = self
                    .targets
                    .get(name)
                    .is_some_and(|target| target.is_away(now));
                let known = self.targets.find(ground).filter(|_| !away);
                known.map_or(Turn::InPlace, |ground| {
                    ground.turn(!someone_well, now, dice)
                })
            });
            let known = self.targets.find(name);
            let turn = known.map_or(Turn::InPlace, |target| {
                let is_first = !someone_well && of_ground == Turn::InPlace;
                target.turn(is_first, now, dice)
            });
            let turn = turn.max(of_ground);
            someone_well |= turn == Turn::InPlace;
            let after = turns.partition_point(|(other, _)| *other <= turn);
            turns.insert(after, (turn, place));
        }
        turns.into_iter().map(|(_, place)| place).collect()
    }

    /// A target was asked at `began`: what it did. `rest` is for how long it wants to be left alone (`Retry-After`), of which
    /// [`LONGEST_REST`] is believed; whoever is busy is left alone anyway.
    ///
    /// Whoever was asked before the target was last found open or closed says nothing of what has come since.
    pub fn note(
        &mut self,
        target: &str,
        sign: Sign,
        rest: Option<Duration>,
        began: Timestamp,
        now: Timestamp,
        dice: &mut Dice,
    ) {
        let now = self.time.at(now);
        let began = self.time.then(began);
        let target = self.targets.of(target);
        match sign {
            Sign::Well => target.breaker.well(began, now),
            Sign::Begun => {
                target.breaker.begun(began, now);
                target.pace.learn(now.since(began));
            }
            Sign::Ill => target.breaker.ill(began, now, dice),
            Sign::Busy => target.breaker.unheard(began),
        }
        let rest = rest.or_else(|| {
            let (least, most) = (millis(BUSY.0), millis(BUSY.1));
            (sign == Sign::Busy).then(|| Duration::from_millis(dice.between(least, most)))
        });
        if let Some(lasts) = rest {
            target.rest.take(lasts, now);
        }
    }

    /// A target that was asked at `began`, and began to answer, has come to the end of it; or it has broken off.
    pub fn ended(
        &mut self,
        target: &str,
        well: bool,
        began: Timestamp,
        now: Timestamp,
        dice: &mut Dice,
    ) {
        let now = self.time.at(now);
        let began = self.time.then(began);
        self.targets
            .of(target)
            .breaker
            .ended(well, began, now, dice);
    }

    /// Whether nothing speaks against asking a target first that stands on `ground`.
    pub fn is_well(&self, target: &str, ground: Option<&str>, now: Timestamp) -> bool {
        let now = self.time.clone().at(now);
        let known = [Some(target), ground].into_iter().flatten();
        let mut known = known.filter_map(|name| self.targets.get(name));
        !known.any(|target| target.is_away(now))
    }

    /// Somebody was asked at `began` how he does, as he is `every` so often: whether he said that he is well. Once he has failed
    /// twice in a row he is asked last, until he says so or is not asked any more.
    pub fn checked(
        &mut self,
        target: &str,
        well: bool,
        every: Duration,
        (began, now): (Timestamp, Timestamp),
        dice: &mut Dice,
    ) {
        let now = self.time.at(now);
        let began = self.time.then(began);
        let target = self.targets.of(target);
        if well {
            target.breaker.well(began, now);
            target.rest = Rest::default();
            target.checks_failed = 0;
            return;
        }
        target.breaker.ill(began, now, dice);
        target.checks_failed = target.checks_failed.saturating_add(1);
        if target.checks_failed > 1 {
            target.rest.take(every.saturating_mul(3), now);
        }
    }

    /// `target` has these `things`, each known by a number that is its own; so much is remembered, and then forgotten for others.
    pub fn has(&mut self, target: u64, things: &[u64]) {
        for thing in things {
            self.whereabouts.put(*thing, target);
        }
    }

    /// Who has the first of these `things` of which that is known.
    pub fn whereabouts(&self, things: &[u64]) -> Option<u64> {
        let mut things = things.iter();
        things.find_map(|thing| self.whereabouts.find(*thing))
    }

    /// `target` is asked for a stream. After how long without a word somebody else is to be asked as well: of all who ask for it, a
    /// `share` may. Nothing, as long as it is not known.
    pub fn slow(&mut self, target: &str, share: f64) -> Option<Duration> {
        let pace = &mut self.targets.of(target).pace;
        pace.asked(share);
        pace.slow()
    }

    /// `target` has taken so long at least until its first word, for which nobody waited.
    pub fn waited(&mut self, target: &str, took: Duration) {
        self.targets.of(target).pace.learn(took);
    }

    /// Whether somebody else may be asked beside `target` now; it is counted, if so.
    pub fn may_hedge(&mut self, target: &str) -> bool {
        self.targets.of(target).pace.hedge()
    }

    /// A target was asked at `began`, and nobody will learn what it did: its caller left. If that was its probe, another may be
    /// made at once.
    pub fn unheard(&mut self, target: &str, began: Timestamp, now: Timestamp) {
        self.time.at(now);
        let began = self.time.then(began);
        if let Some(target) = self.targets.find(target) {
            target.breaker.unheard(began);
        }
    }

    /// For the request of a caller `origin` is asked for the first time, be it after others have failed; it lets some be asked
    /// again. So no origin is asked for more than what callers want and the budget, and whoever steps in for an origin that broke
    /// down can do so for all that were under way there.
    pub fn asked(&mut self, origin: &str, now: Timestamp) {
        let now = self.time.at(now);
        self.origins.of(origin).budget.asked(now);
    }

    /// Whether `origin` may be asked again for the same request of a caller; it is counted, if so.
    pub fn may_retry(&mut self, origin: &str, now: Timestamp) -> bool {
        let now = self.time.at(now);
        self.origins.of(origin).budget.may_retry(now)
    }

    /// Which of the `keys` of `origin` to use now: they take turns, and those at rest are left out. Nothing, if all rest.
    /// A key is known by a number that is its own whatever else is configured, such as a part of its hash.
    pub fn key(&mut self, origin: &str, keys: &[u64], now: Timestamp) -> Option<usize> {
        let now = self.time.at(now);
        self.origins.of(origin).keys.next(keys, now)
    }

    /// A key of `origin` is left alone for so long, but not for longer than [`LONGEST_REST`]. Of two rests the longer counts.
    pub fn rest_key(&mut self, origin: &str, key: u64, lasts: Duration, now: Timestamp) {
        let now = self.time.at(now);
        self.origins.of(origin).keys.rest(key, lasts, now);
    }

    /// How long until one of the `keys` of `origin` can be used: no time at all if one can be now. Nothing, if there are no keys.
    pub fn key_back_in(&self, origin: &str, keys: &[u64], now: Timestamp) -> Option<Duration> {
        let now = self.time.clone().at(now);
        match self.origins.get(origin) {
            Some(origin) => origin.keys.back_in(keys, now),
            None => (!keys.is_empty()).then_some(Duration::ZERO),
        }
    }

    /// Forgets everybody but these, as after the configuration was replaced.
    pub fn keep_only(&mut self, targets: &[Rc<str>], origins: &[Rc<str>]) {
        self.targets.keep_only(targets);
        self.origins.keep_only(origins);
    }
}

impl Target {
    fn is_away(&self, now: Timestamp) -> bool {
        let is_closed = matches!(self.breaker.standing(now), Standing::Closed { .. });
        !is_closed || !self.rest.left(now).is_zero()
    }

    fn turn(&mut self, asked_first: bool, now: Timestamp, dice: &mut Dice) -> Turn {
        let rest = self.rest.left(now);
        match self.breaker.standing(now) {
            Standing::Open(left) => Turn::Away(left.max(rest)),
            _ if !rest.is_zero() => Turn::Away(rest),
            Standing::HalfOpen if asked_first && self.breaker.probe(now) => Turn::InPlace,
            Standing::HalfOpen => Turn::Away(Duration::ZERO),
            Standing::Closed { shed } if shed > 0.0 && dice.chance(shed) => Turn::Shed,
            Standing::Closed { .. } => Turn::InPlace,
        }
    }
}

#[cfg(test)]
mod tests;
