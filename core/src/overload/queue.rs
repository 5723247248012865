//! Who waits before a gate, and for how long.

use std::{cmp::Reverse, sync::Arc};

use super::{Priority, Shares, Valve};
use crate::time::Timestamp;

/// As long as fewer wait, whoever came first goes first.
const FEW: usize = 3;

/// Somebody who waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its number: whoever came later has a higher one.
    pub ticket: u64,
    /// Whose call it is.
    pub who: Arc<str>,
    /// Before whom it goes.
    pub priority: Priority,
    /// What it falls under.
    pub valves: Arc<[Valve]>,
    /// When it has waited for long enough.
    pub until: Timestamp,
}

/// Those who wait, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Queue(Vec<Waiting>);

impl Queue {
    /// Somebody waits.
    pub fn join(&mut self, waiting: Waiting) {
        self.0.push(waiting);
    }

    /// Somebody does not wait any more.
    pub fn leave(&mut self, ticket: u64) -> Option<Waiting> {
        // Tickets are in order.
        let place = self.0.binary_search_by_key(&ticket, |one| one.ticket).ok();
        place.map(|place| self.0.remove(place))
    }

    /// Somebody who has waited for long enough.
    pub fn overdue(&self, now: Timestamp) -> Option<u64> {
        let overdue = self.0.iter().find(|one| one.until <= now);
        overdue.map(|one| one.ticket)
    }

    /// Whose turn it is of those who `may`: the highest priority; then who has the least in progress; then who came last, unless
    /// only few wait.
    pub fn next(&self, shares: &Shares, may: impl Fn(&Waiting) -> bool) -> Option<u64> {
        let newest_first = self.0.len() >= FEW;
        let turn = |one: &&Waiting| {
            let held = shares.get(&one.who).held;
            let age = if newest_first {
                one.ticket
            } else {
                !one.ticket
            };
            (one.priority, Reverse(held), age)
        };
        let next = self.0.iter().filter(|one| may(one)).max_by_key(turn);
        next.map(|one| one.ticket)
    }

    /// Who is sent away first of those who fall under the valve `name`, if more than `room` do: the lowest priority; then who has
    /// the most, in progress and waiting; then who came first, and has the least time left.
    pub fn last(&self, name: &str, room: usize, shares: &Shares) -> Option<u64> {
        let under = || {
            let falls = |one: &&Waiting| one.valves.iter().any(|valve| *valve.name == *name);
            self.0.iter().filter(falls)
        };
        if under().count() <= room {
            return None;
        }
        let turn = |one: &&Waiting| {
            let share = shares.get(&one.who);
            let has = u64::from(share.held) + u64::from(share.waiting);
            (one.priority, Reverse(has), one.ticket)
        };
        under().min_by_key(turn).map(|one| one.ticket)
    }

    /// All who wait.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.0.iter()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::Settings;

    fn valves(name: &str) -> Arc<[Valve]> {
        let valve = Valve {
            name: name.into(),
            settings: Settings::AUTO,
        };
        [valve].into()
    }

    fn waiting(ticket: u64, who: &str, priority: Priority) -> Waiting {
        Waiting {
            ticket,
            who: who.into(),
            priority,
            valves: valves("v"),
            until: Timestamp(100 + ticket),
        }
    }

    fn queue(all: &[(&str, Priority)]) -> Queue {
        let mut queue = Queue::default();
        for (ticket, (who, priority)) in (0..).zip(all) {
            queue.join(waiting(ticket, who, *priority));
        }
        queue
    }

    /// In which order they go, if nobody comes back.
    fn order(mut queue: Queue, shares: &mut Shares) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(next) = queue.next(shares, |_| true) {
            let gone = queue.leave(next).unwrap();
            shares.change(&gone.who, |share| share.held += 1);
            order.push(next);
        }
        assert!(queue.is_empty());
        order
    }

    #[test]
    fn who_goes_before_whom() {
        use Priority::{High, Low, Normal};
        for (all, expected) in [
            // A few in the order in which they came; of more, those who came last.
            (&[("a", Normal), ("a", Normal)][..], &[0, 1][..]),
            (&[("a", Normal); 5], &[4, 3, 2, 0, 1]),
            // Each consumer in turn, and nobody before who has a higher priority.
            (
                &[
                    ("a", Normal),
                    ("a", Normal),
                    ("a", Normal),
                    ("b", Normal),
                    ("b", Normal),
                ],
                &[4, 2, 3, 0, 1],
            ),
            (
                &[
                    ("a", Low),
                    ("b", Normal),
                    ("a", High),
                    ("a", High),
                    ("c", Low),
                ],
                &[3, 2, 1, 4, 0],
            ),
        ] {
            let is = order(queue(all), &mut Shares::default());
            assert_eq!(is, expected, "{all:?}");
        }
    }

    #[test]
    fn who_is_sent_away_where_there_is_no_room() {
        use Priority::{High, Low, Normal};
        for (all, expected) in [
            (&[("a", Normal), ("a", Normal), ("a", Normal)][..], 0),
            (&[("a", Normal), ("b", Normal), ("b", Normal)], 1),
            (&[("a", High), ("a", High), ("b", Normal)], 2),
            (&[("a", Normal), ("a", Normal), ("b", Low)], 2),
        ] {
            let mut shares = Shares::default();
            for (who, _) in all {
                shares.change(who, |share| share.waiting += 1);
            }
            let queue = queue(all);
            assert_eq!(queue.last("v", 2, &shares), Some(expected), "{all:?}");
            assert_eq!(queue.last("v", 3, &shares), None);
            assert_eq!(queue.last("other", 0, &shares), None);
        }
    }

    #[test]
    fn who_has_waited_for_long_enough_is_found() {
        let queue = queue(&[("a", Priority::Normal); 2]);
        for (now, expected) in [(99, None), (100, Some(0)), (200, Some(0))] {
            assert_eq!(queue.overdue(Timestamp(now)), expected);
        }
    }
}
