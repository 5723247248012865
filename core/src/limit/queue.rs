//! Who waits before an account: first come, first served.

use serde::{Deserialize, Serialize};

use super::entry::Place;

/// After how many milliseconds without asking again somebody has left.
const LEFT: u16 = 3_000;

/// How soon the first in the queue asks again, and anybody, in milliseconds.
const SOONEST: u64 = 25;
const LATEST: u64 = 500;

/// How many may wait at most, whatever is configured: it bounds the size of the account.
pub const LONGEST_QUEUE: u32 = 128;

/// The queue, first in front.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Queue(Vec<Waiting>);

/// Somebody in the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Waiting {
    ticket: u32,
    /// How many milliseconds ago it has asked.
    asked: u16,
}

impl Queue {
    /// Lets those go who have not asked for a while, now that `passed` milliseconds more are over.
    pub(super) fn roll(&mut self, passed: u64) {
        let passed = u16::try_from(passed).unwrap_or(u16::MAX);
        self.0.retain_mut(|waiting| {
            waiting.asked = waiting.asked.saturating_add(passed);
            waiting.asked <= LEFT
        });
    }

    /// In how many milliseconds the next one leaves, if nobody asks again.
    pub(super) fn next(&self) -> Option<u64> {
        let last = self.0.iter().map(|waiting| waiting.asked).max()?;
        Some(u64::from(LEFT.saturating_sub(last)) + 1)
    }

    /// How many stand before whoever has this place, or before somebody who comes now.
    pub(super) fn before(&self, place: Option<Place>) -> usize {
        place
            .and_then(|place| self.find(place.ticket))
            .unwrap_or(self.0.len())
    }

    /// Takes the place, or keeps it. How many stand before it, and in how many milliseconds to ask again; nothing, if there
    /// is no room.
    pub(super) fn wait(&mut self, place: Place) -> Option<(u32, u64)> {
        let before = match self.find(place.ticket) {
            Some(before) => {
                if let Some(waiting) = self.0.get_mut(before) {
                    waiting.asked = 0;
                }
                before
            }
            None if self.0.len() < place.room.min(LONGEST_QUEUE) as usize => {
                self.0.push(Waiting {
                    ticket: place.ticket,
                    asked: 0,
                });
                self.0.len() - 1
            }
            None => return None,
        };
        let pause = (SOONEST * (before as u64 + 1)).min(LATEST);
        Some((before as u32, pause))
    }

    /// How many bytes it takes at most where it is stored.
    pub(super) fn size(&self) -> usize {
        8 * self.0.len()
    }

    /// Gives up the place.
    pub(super) fn leave(&mut self, ticket: u32) {
        self.0.retain(|waiting| waiting.ticket != ticket);
    }

    fn find(&self, ticket: u32) -> Option<usize> {
        self.0.iter().position(|waiting| waiting.ticket == ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(ticket: u32, room: u32) -> Place {
        Place { ticket, room }
    }

    #[test]
    fn who_comes_first_stands_in_front_however_often_anybody_asks() {
        let mut queue = Queue::default();
        assert_eq!(queue.wait(place(7, 3)), Some((0, 25)));
        assert_eq!(queue.wait(place(8, 3)), Some((1, 50)));
        assert_eq!(queue.wait(place(7, 3)), Some((0, 25)));
        assert_eq!(queue.wait(place(9, 2)), None, "two wait, and more may not");
        assert_eq!(queue.wait(place(9, 3)), Some((2, 75)));
        assert_eq!(
            queue.wait(place(8, 0)),
            Some((1, 50)),
            "who waits keeps its place"
        );
        assert_eq!(queue.before(Some(place(8, 3))), 1);
        assert_eq!(queue.before(Some(place(1, 3))), 3);
        assert_eq!(queue.before(None), 3);
        queue.leave(7);
        assert_eq!(queue.before(Some(place(8, 3))), 0);
        assert_eq!(
            queue.wait(place(7, 3)),
            Some((2, 75)),
            "who left stands at the end"
        );
    }

    #[test]
    fn who_asks_no_more_has_left() {
        let mut queue = Queue::default();
        assert_eq!(queue.next(), None);
        queue.wait(place(7, 9));
        queue.roll(1_000);
        queue.wait(place(8, 9));
        assert_eq!(queue.next(), Some(2_001));
        queue.roll(2_000);
        assert_eq!(queue.before(None), 2);
        queue.roll(1);
        assert_eq!(queue.before(None), 1);
        queue.roll(u64::MAX);
        assert_eq!(queue, Queue::default());
    }

    #[test]
    fn no_queue_is_longer_than_an_account_can_hold() {
        let mut queue = Queue::default();
        for ticket in 0..LONGEST_QUEUE {
            assert!(queue.wait(place(ticket, u32::MAX)).is_some());
        }
        assert_eq!(queue.wait(place(u32::MAX, u32::MAX)), None);
        assert_eq!(queue.wait(place(100, u32::MAX)), Some((100, LATEST)));
    }
}
