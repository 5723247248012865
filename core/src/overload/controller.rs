//! How many may be in progress at an upstream that says nothing of it but by how soon it begins to answer.

use std::time::Duration;

use crate::time::{Timestamp, millis};

/// How often the limit is thought over.
const WINDOW: Duration = Duration::from_secs(1);

/// How many answers must have begun until it is.
const ENOUGH: usize = 5;

/// Of how many of them it is remembered how soon, until then: the last ones.
const KEPT: usize = 256;

/// An answer is late that takes so many times as long as one without a crowd, and so many milliseconds at least.
const LATE: f64 = 4.0;
const SOON: f64 = 200.0;

/// How much of its limit is in use if it is to grow. Who does not need more does not get more.
const USED: f64 = 0.8;

/// How far what is known of an upstream without a crowd follows one that has become slower, in each window: while there is no
/// crowd; and once the limit is as low as it may be, so that there cannot be one. With a crowd it does not follow, or a crowd that
/// stays would become what is usual.
const DRIFT: f64 = 1.003;
const DRIFT_AT_LEAST: f64 = 1.03;

/// How long an answer took that did not come, in milliseconds.
const NEVER: u64 = 600_000;

/// Between what the limit is learnt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// What it is at first.
    pub start: u32,
    /// What it never falls below.
    pub least: u32,
    /// What it never rises above.
    pub most: u32,
}

impl Bounds {
    /// Where the configuration does not say otherwise.
    pub const AUTO: Self = Self {
        start: 16,
        least: 4,
        most: 1_000,
    };

    /// A limit that stays what it is.
    pub const fn fixed(limit: u32) -> Self {
        Self {
            start: limit,
            least: limit,
            most: limit,
        }
    }
}

/// Learns how many may be in progress.
///
/// As long as half of the answers begin in time the limit grows, if it is in use; else it shrinks, the more the later they are.
/// In time is measured by the upstream itself as it was without a crowd. An answer that is awaited for longer than that counts
/// though it has not begun.
#[derive(Clone, Debug)]
pub struct Controller {
    bounds: Bounds,
    limit: f64,
    /// How soon an answer begins where there is no crowd, in milliseconds.
    usual: f64,
    /// When it was last thought over.
    since: Option<Timestamp>,
    /// How soon answers have begun since, in milliseconds; the next one goes to `next` where there are many.
    delays: Vec<u64>,
    next: usize,
    in_progress: u32,
    /// The most since.
    peak: u32,
    /// When those were sent who have no answer yet.
    awaited: Vec<Timestamp>,
}

impl Controller {
    /// One that knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.start),
            usual: f64::INFINITY,
            since: None,
            delays: Vec::new(),
            next: 0,
            in_progress: 0,
            peak: 0,
            awaited: Vec::new(),
        }
    }

    /// From now on the limit keeps to `bounds`.
    pub fn keep_to(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// How many may be in progress.
    pub fn limit(&self) -> u32 {
        (self.limit as u32).clamp(self.bounds.least, self.bounds.most.max(self.bounds.least))
    }

    /// How many are.
    pub fn in_progress(&self) -> u32 {
        self.in_progress
    }

    /// Whether one more may be.
    pub fn has_room(&self) -> bool {
        self.in_progress < self.limit()
    }

    /// One more is in progress.
    pub fn enter(&mut self) {
        self.in_progress += 1;
        self.peak = self.peak.max(self.in_progress);
    }

    /// It was sent, and something is to come of it soon, if all is well.
    pub fn began(&mut self, now: Timestamp) {
        self.awaited.push(now);
        self.think(now);
    }

    /// The first of the answer to what was sent at `began` is there.
    pub fn first_event(&mut self, began: Timestamp, now: Timestamp) {
        self.forget(began);
        self.learn(millis(now.since(began)));
        self.think(now);
    }

    /// There will be no answer since the upstream has too much to do: it says so, or nothing.
    pub fn overloaded(&mut self, began: Timestamp, now: Timestamp) {
        self.forget(began);
        self.learn(NEVER);
        self.think(now);
    }

    /// Nobody waits any more for the answer to what was sent at `began`; this says something only if it was late already.
    pub fn given_up(&mut self, began: Timestamp, now: Timestamp) {
        let took = millis(now.since(began));
        if self.forget(began) && took as f64 > self.late() {
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

    fn learn(&mut self, delay: u64) {
        match self.delays.get_mut(self.next) {
            Some(oldest) => *oldest = delay,
            None => self.delays.push(delay),
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// From how many milliseconds on an answer is late.
    fn late(&self) -> f64 {
        (LATE * self.usual).max(SOON)
    }

    fn think(&mut self, now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        if now < since {
            // The clock was set back.
            self.since = Some(now);
        }
        if now.since(since) < WINDOW {
            return;
        }
        let late = self.late();
        let mut delays = Vec::new();
        let ages = self.awaited.iter().map(|sent| millis(now.since(*sent)));
        let overdue = ages.filter(|age| *age as f64 > late);
        for delay in self.delays.iter().copied().chain(overdue) {
            delays.insert(delays.partition_point(|other| *other < delay), delay);
        }
        if delays.len() < ENOUGH {
            return;
        }
        if let Some(median) = delays.get(delays.len() / 2) {
            self.adjust(*median as f64);
        }
        self.delays.clear();
        self.next = 0;
        self.since = Some(now);
        self.peak = self.in_progress;
    }

    fn adjust(&mut self, median: f64) {
        let is_used = f64::from(self.peak) >= USED * self.limit;
        let drift = match is_used {
            _ if self.limit() <= self.bounds.least => DRIFT_AT_LEAST,
            true => 1.0,
            false => DRIFT,
        };
        self.usual = median.min(self.usual * drift).max(1.0);
        let late = self.late();
        let spare = (late - median) / late;
        if spare < 0.0 {
            self.limit *= 1.0 + (0.15 * spare).max(-0.25);
        } else if is_used {
            self.limit = self.limit * (1.0 + 0.06 * spare) + 0.5;
        }
        // Not `clamp`: it can print its bounds, and what prints floating numbers weighs nine kilobytes on the edge.
        let (least, most) = (f64::from(self.bounds.least), f64::from(self.bounds.most));
        self.limit = self.limit.min(most).max(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let before = controller.limit;
            second(&mut controller, &mut now, 9, delay, peak);
            let change = controller.limit - before;
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
        let before = controller.limit;
        for _ in 0..ENOUGH - 1 {
            second(&mut controller, &mut now, 1, 9_000, 100);
        }
        assert_eq!(controller.limit, before);
        second(&mut controller, &mut now, 1, 9_000, 100);
        assert!(controller.limit < before);
    }

    #[test]
    fn an_answer_that_does_not_come_is_a_late_one() {
        let mut now = 1_000;
        let mut controller = known(&mut now);
        let before = controller.limit;
        (0..9).for_each(|_| controller.began(Timestamp(now)));
        controller.enter();
        controller.ended(Timestamp(now + 100));
        assert!(controller.limit >= before, "not yet");
        controller.ended(Timestamp(now + 1_500));
        assert!(controller.limit < before);

        let mut now = 1_000;
        let mut controller = known(&mut now);
        for _ in 0..9 {
            controller.began(Timestamp(now));
            controller.overloaded(Timestamp(now), Timestamp(now + 1));
        }
        controller.ended(Timestamp(now + 1_500));
        assert!(controller.limit < before, "it says itself that it is busy");
    }

    #[test]
    fn who_leaves_early_says_nothing_and_who_leaves_late_does() {
        for (left, is_heard) in [(100, false), (300, true)] {
            let mut now = 1_000;
            let mut controller = known(&mut now);
            controller.began(Timestamp(now));
            let heard = controller.delays.len();
            controller.given_up(Timestamp(now), Timestamp(now + left));
            assert_eq!(controller.delays.len() - heard, usize::from(is_heard));
            controller.given_up(Timestamp(now), Timestamp(now + 9_000));
            assert_eq!(
                controller.delays.len() - heard,
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
        assert!(controller.late() < 210.0, "{}", controller.late());
        // An upstream that has become slower for good is given way to at first, and then known as it is.
        for _ in 0..120 {
            let peak = controller.limit();
            second(&mut controller, &mut now, 10, 900, peak);
        }
        assert!(controller.late() > 900.0, "{}", controller.late());
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
            controller.keep_to(Bounds::fixed(3));
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
        let before = controller.limit;
        now = 1_000;
        for _ in 0..5 {
            second(&mut controller, &mut now, 9, 50, 100);
        }
        assert!(controller.limit > before);
        for _ in 0..10 * KEPT {
            controller.first_event(Timestamp(now), Timestamp(now));
        }
        assert_eq!(controller.delays.len(), KEPT);
    }
}
