//! Who waits before an account: first come, first served.

use serde::{Deserialize, Serialize};

use super::entry::Place;
use crate::time::Timestamp;

/// After how many milliseconds without asking again somebody has left.
const LEFT: u64 = 3_000;

/// How soon the first in the queue asks again, and anybody, in milliseconds.
const SOONEST: u64 = 25;
const LATEST: u64 = 500;

/// How many may wait at most, whatever is configured: it bounds the size of the account.
pub const LONGEST_QUEUE: u32 = 128;

/// The queue, first in front.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Queue(Vec<(u32, Timestamp)>);

impl Queue {
    /// Lets those go who have not asked for a while.
    pub(super) fn roll(&mut self, now: Timestamp) {
        self.0
            .retain(|(_, asked)| now.0.saturating_sub(asked.0) <= LEFT);
    }

    /// How many stand before whoever has this place, or before somebody who comes now.
    pub(super) fn before(&self, place: Option<Place>) -> usize {
        place
            .and_then(|place| self.find(place.ticket))
            .unwrap_or(self.0.len())
    }

    /// Takes the place, or keeps it. How many stand before it, and when to ask again; nothing, if there is no room.
    pub(super) fn wait(&mut self, place: Place, now: Timestamp) -> Option<(u32, Timestamp)> {
        let before = match self.find(place.ticket) {
            Some(before) => {
                if let Some((_, asked)) = self.0.get_mut(before) {
                    *asked = now;
                }
                before
            }
            None if self.0.len() < place.room.min(LONGEST_QUEUE) as usize => {
                self.0.push((place.ticket, now));
                self.0.len() - 1
            }
            None => return None,
        };
        let pause = (SOONEST * (before as u64 + 1)).min(LATEST);
        Some((before as u32, Timestamp(now.0.saturating_add(pause))))
    }

    /// Gives up the place.
    pub(super) fn leave(&mut self, ticket: u32) {
        self.0.retain(|(waiting, _)| *waiting != ticket);
    }

    fn find(&self, ticket: u32) -> Option<usize> {
        self.0.iter().position(|(waiting, _)| *waiting == ticket)
    }
}
