//! How many may be in progress at an upstream, and how many are.

use std::time::Duration;

use super::{Allotment, Bounds, Learner, Report, roster::USED_FOR};
use crate::time::{Timestamp, millis};

/// How long an answer took that did not come, in milliseconds.
const NEVER: u64 = 600_000;

/// How many delays are kept until the others hear of them.
const UNSAID: usize = 64;

/// How often the others hear for how long answers are awaited: it is about as often that it is thought over.
const COMPLAINS: Duration = Duration::from_secs(1);

/// For how long somebody who cannot hear what the others do goes by what it sees itself.
const ALONE: Duration = Duration::from_secs(5);

/// Decides whether one more may be in progress: by what it has learnt of the upstream itself, or by what is allotted to it by all who
/// share that upstream.
#[derive(Clone, Debug)]
pub struct Controller {
    bounds: Bounds,
    /// How many may wait, here and at all others together; and here, if those have a say.
    room: u32,
    allotted_room: u32,
    /// How many would have been in progress when the others were told; and whether they have allotted fewer.
    wanted: u32,
    is_short: bool,
    learner: Learner,
    ration: Ration,
    /// How many shared the upstream when that was heard last.
    sharers: u32,
    in_progress: u32,
    /// When those were sent who have no answer yet.
    awaited: Vec<Timestamp>,
    /// How soon answers have begun since it was last said, in milliseconds; and the most in progress since.
    unsaid: Vec<u32>,
    peak: u32,
    /// When it was last said for how long answers are awaited.
    complained: Timestamp,
}

/// Whose word says how many may be in progress here.
#[derive(Clone, Copy, Debug)]
enum Ration {
    /// Its own: nobody else asks this upstream, or it is not known until then what the others do, and each has an equal part.
    Own(Timestamp),
    /// That of all together: so many, until then.
    Allotted(u32, Timestamp),
}

impl Controller {
    /// One that knows nothing yet, and decides by itself.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            room: 0,
            allotted_room: 0,
            wanted: 0,
            is_short: false,
            learner: Learner::new(bounds),
            ration: Ration::Own(Timestamp(u64::MAX)),
            sharers: 1,
            in_progress: 0,
            awaited: Vec::new(),
            unsaid: Vec::new(),
            peak: 0,
            complained: Timestamp(0),
        }
    }

    /// One that knows nothing yet, and shares its upstream with others.
    pub fn shared(bounds: Bounds) -> Self {
        Self {
            ration: Ration::Allotted(0, Timestamp(0)),
            ..Self::new(bounds)
        }
    }

    /// From now on the limit keeps to `bounds`, and `room` may wait.
    pub fn keep_to(&mut self, bounds: Bounds, room: u32) {
        (self.bounds, self.room) = (bounds, room);
    }

    /// How many may wait here.
    pub fn room(&self) -> usize {
        let room = match self.ration {
            Ration::Own(_) => self.room,
            Ration::Allotted(..) => self.room.min(self.allotted_room),
        };
        room as usize
    }

    /// How many may be in progress, here and at all others together.
    pub fn limit(&self) -> u32 {
        self.learner.limit(self.bounds)
    }

    /// How many are, here.
    pub fn in_progress(&self) -> u32 {
        self.in_progress
    }

    /// How many more may be; nothing, if the others must be asked.
    pub fn free(&self, now: Timestamp) -> Option<u32> {
        let (places, until) = match self.ration {
            Ration::Own(until) => (self.limit().div_ceil(self.sharers), until),
            Ration::Allotted(places, until) => (places, until),
        };
        (now < until).then(|| places.saturating_sub(self.in_progress))
    }

    /// How many of those who wait would find room here soon, be it that others agree: as many as there is room for, if they did not the
    /// last time.
    pub(super) fn may_let_in(&self, now: Timestamp) -> u32 {
        let free = self.free(now).filter(|_| self.is_short);
        free.unwrap_or(u32::MAX)
    }

    /// Whether it has anything that others could use, or they still count what it had.
    pub(super) fn has_places(&self, now: Timestamp) -> bool {
        self.wanted > 0
            || matches!(self.ration, Ration::Allotted(places, until) if places > 0 && now < until)
    }

    /// What the others are told, when `waiting` more would like to be in progress. Until they answer nobody is let in but for somebody who
    /// leaves: they may have what is in nobody's use.
    pub(super) fn report(&mut self, waiting: u32, now: Timestamp) -> Report {
        if let Ration::Allotted(places, _) = &mut self.ration {
            *places = self.in_progress.min(*places);
        }
        self.wanted = self.in_progress.saturating_add(waiting);
        let mut delays = std::mem::take(&mut self.unsaid);
        if !(self.complained..self.complained.after(COMPLAINS)).contains(&now) {
            self.complained = now;
            let late = self.learner.late();
            let ages = self.ages(now);
            delays.extend(
                ages.into_iter()
                    .filter(|age| f64::from(*age) > late)
                    .take(UNSAID),
            );
        }
        Report {
            bounds: self.bounds,
            in_progress: self.in_progress,
            peak: std::mem::replace(&mut self.peak, self.in_progress),
            waiting,
            room: self.room,
            delays,
        }
    }

    /// Hears what is allotted to it on what was said at `sent`.
    pub(super) fn hear(&mut self, allotment: &Allotment, sent: Timestamp) {
        self.learner.follow(allotment.limit);
        self.allotted_room = allotment.room;
        self.sharers = allotment.sharers.max(1);
        self.is_short = allotment.places < self.wanted;
        // What was given back is asked for again when somebody comes.
        let until = if allotment.pause > 0 {
            sent.after(USED_FOR)
        } else {
            sent
        };
        self.ration = Ration::Allotted(allotment.places, until);
    }

    /// Nobody hears it.
    pub(super) fn goes_alone(&mut self, now: Timestamp) {
        self.ration = Ration::Own(now.after(ALONE));
    }

    /// One more is in progress.
    pub fn enter(&mut self) {
        self.in_progress += 1;
        self.peak = self.peak.max(self.in_progress);
        self.learner.saw(self.in_progress);
    }

    /// It was sent, and something is to come of it soon, if all is well.
    pub fn began(&mut self, now: Timestamp) {
        self.awaited.push(now);
        self.think(now);
    }

    /// The first of the answer to what was sent at `began` is there.
    pub fn first_event(&mut self, began: Timestamp, now: Timestamp) {
        self.forget(began);
        self.learn(now.since(began));
        self.think(now);
    }

    /// There will be no answer since the upstream has too much to do: it says so, or nothing.
    pub fn overloaded(&mut self, began: Timestamp, now: Timestamp) {
        self.forget(began);
        self.learn(Duration::from_millis(NEVER));
        self.think(now);
    }

    /// Nobody waits any more for the answer to what was sent at `began`; this says something only if it was late already.
    pub fn given_up(&mut self, began: Timestamp, now: Timestamp) {
        let took = now.since(began);
        if self.forget(began) && f64::from(short(took)) > self.learner.late() {
            self.learn(took);
        }
    }

    /// One is over.
    pub fn ended(&mut self, now: Timestamp) {
        self.in_progress = self.in_progress.saturating_sub(1);
        self.think(now);
    }

    fn forget(&mut self, began: Timestamp) -> bool {
        let place = self.awaited.iter().position(|other| *other == began);
        place.map(|place| self.awaited.swap_remove(place)).is_some()
    }

    fn learn(&mut self, delay: Duration) {
        self.learner.learn(short(delay));
        if self.unsaid.len() < UNSAID {
            self.unsaid.push(short(delay));
        }
    }

    fn think(&mut self, now: Timestamp) {
        let ages = self.ages(now);
        self.learner
            .think(self.bounds, self.in_progress, &ages, now);
    }

    /// For how long each of those is awaited who have no answer yet.
    fn ages(&self, now: Timestamp) -> Vec<u32> {
        let ages = self.awaited.iter().map(|sent| short(now.since(*sent)));
        ages.collect()
    }
}

/// In milliseconds; none is longer than that of an answer that never came.
fn short(delay: Duration) -> u32 {
    millis(delay).min(NEVER) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::learner::{ENOUGH, KEPT};

    /// A second in which `count` are sent and begin to answer after `delay`, and `peak` are in progress.
    fn second(controller: &mut Controller, now: &mut u64, count: u32, delay: u64, peak: u32) {
        let sent = Timestamp(*now);
        (0..peak).for_each(|_| controller.enter());
        (0..count).for_each(|_| controller.began(sent));
        let heard = sent.after(Duration::from_millis(delay));
        (0..count).for_each(|_| controller.first_event(sent, heard));
        *now += delay.max(1_000);
        (0..peak).for_each(|_| controller.ended(Timestamp(*now)));
    }

    fn known(now: &mut u64) -> Controller {
        let mut controller = Controller::new(Bounds::AUTO);
        for _ in 0..5 {
            second(&mut controller, now, 5, 50, 16);
        }
        controller
    }

    #[test]
    fn it_grows_where_it_is_in_use_and_in_time_and_shrinks_where_answers_are_late() {
        for (delay, peak, expected) in [
            (50, 100, 1),
            (50, 5, 0),
            (190, 100, 1),
            (210, 100, -1),
            (5_000, 100, -1),
            (5_000, 1, -1),
        ] {
            let mut now = 1_000;
            let mut controller = known(&mut now);
            let before = controller.learner.limit;
            second(&mut controller, &mut now, 9, delay, peak);
            let change = controller.learner.limit - before;
            assert!(
                change.abs() < 1e-9 && expected == 0 || change * f64::from(expected) > 0.0,
                "{delay} ms, {peak} in progress: {change}"
            );
            assert!(change >= -0.25 * before, "by a quarter at most");
        }
    }

    #[test]
    fn a_few_answers_say_nothing_yet() {
        let mut now = 1_000;
        let mut controller = known(&mut now);
        let before = controller.learner.limit;
        for _ in 0..ENOUGH - 1 {
            second(&mut controller, &mut now, 1, 9_000, 100);
        }
        assert_eq!(controller.learner.limit, before);
        second(&mut controller, &mut now, 1, 9_000, 100);
        assert!(controller.learner.limit < before);
    }

    #[test]
    fn an_answer_that_does_not_come_is_a_late_one() {
        let mut now = 1_000;
        let mut controller = known(&mut now);
        let before = controller.learner.limit;
        (0..9).for_each(|_| controller.began(Timestamp(now)));
        controller.enter();
        controller.ended(Timestamp(now + 100));
        assert!(controller.learner.limit >= before, "not yet");
        controller.ended(Timestamp(now + 1_500));
        assert!(controller.learner.limit < before);

        let mut now = 1_000;
        let mut controller = known(&mut now);
        for _ in 0..9 {
            controller.began(Timestamp(now));
            controller.overloaded(Timestamp(now), Timestamp(now + 1));
        }
        controller.ended(Timestamp(now + 1_500));
        assert!(
            controller.learner.limit < before,
            "it says itself that it is busy"
        );
    }

    #[test]
    fn who_leaves_early_says_nothing_and_who_leaves_late_does() {
        for (left, is_heard) in [(100, false), (300, true)] {
            let mut now = 1_000;
            let mut controller = known(&mut now);
            controller.began(Timestamp(now));
            let heard = controller.learner.delays.len();
            controller.given_up(Timestamp(now), Timestamp(now + left));
            assert_eq!(
                controller.learner.delays.len() - heard,
                usize::from(is_heard)
            );
            controller.given_up(Timestamp(now), Timestamp(now + 9_000));
            assert_eq!(
                controller.learner.delays.len() - heard,
                usize::from(is_heard),
                "but once"
            );
        }
    }

    #[test]
    fn a_crowd_that_stays_does_not_become_what_is_usual() {
        let mut now = 1_000;
        let mut controller = known(&mut now);
        for _ in 0..3_600 {
            let peak = controller.limit();
            second(&mut controller, &mut now, 10, 199, peak);
        }
        assert!(
            controller.learner.late() < 210.0,
            "{}",
            controller.learner.late()
        );
        // An upstream that has become slower for good is given way to at first, and then known as it is.
        for _ in 0..120 {
            let peak = controller.limit();
            second(&mut controller, &mut now, 10, 900, peak);
        }
        assert!(
            controller.learner.late() > 900.0,
            "{}",
            controller.learner.late()
        );
        assert!(controller.limit() > Bounds::AUTO.least);
    }

    #[test]
    fn it_keeps_to_its_bounds() {
        let bounds = Bounds {
            start: 10,
            least: 8,
            most: 12,
        };
        for (delay, expected) in [(50, 12), (5_000, 8)] {
            let mut now = 1_000;
            let mut controller = Controller::new(bounds);
            second(&mut controller, &mut now, 9, 50, 12);
            for _ in 0..50 {
                second(&mut controller, &mut now, 9, delay, 12);
            }
            assert_eq!(controller.limit(), expected);
            controller.keep_to(Bounds::fixed(3), 0);
            assert_eq!(controller.limit(), 3, "and to others, once they are others");
        }
        let mut now = 1_000;
        let mut controller = Controller::new(Bounds::fixed(7));
        for delay in [50, 9_000, 50] {
            second(&mut controller, &mut now, 9, delay, 9);
            assert_eq!(controller.limit(), 7);
        }
    }

    #[test]
    fn it_goes_on_when_the_clock_was_set_back_and_remembers_no_more_than_it_needs() {
        let mut now = 9_000_000;
        let mut controller = known(&mut now);
        let before = controller.learner.limit;
        now = 1_000;
        for _ in 0..5 {
            second(&mut controller, &mut now, 9, 50, 100);
        }
        assert!(controller.learner.limit > before);
        for _ in 0..10 * KEPT {
            controller.first_event(Timestamp(now), Timestamp(now));
        }
        assert_eq!(controller.learner.delays.len(), KEPT);
    }
}
