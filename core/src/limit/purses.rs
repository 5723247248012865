//! The purses of an isolate, by account.

use std::{collections::HashMap, mem, rc::Rc};

use foldhash::fast::FixedState;

use super::{purse::Purse, quota::Quota};
use crate::time::Timestamp;

/// How many purses are kept in each of two generations. Those that nobody used for that long are forgotten, and what was in them
/// is charged when its holding ends.
const PURSES: usize = 4096;

/// Purses by the names of their accounts.
///
/// They are looked up a dozen times for each request. The names are in part the callers' to choose: nobody outside knows the seed of
/// their hashes, and they are few.
#[derive(Debug)]
pub struct Purses {
    recent: HashMap<Rc<str>, Purse, FixedState>,
    older: HashMap<Rc<str>, Purse, FixedState>,
    /// The highest number of a message from a purse that was forgotten: what another says to the same account comes after it.
    number: u32,
}

impl Purses {
    /// None, whose names are to be hashed with `seed`.
    pub fn new(seed: u64) -> Self {
        let hasher = || FixedState::with_seed(seed);
        Self {
            recent: HashMap::with_hasher(hasher()),
            older: HashMap::with_hasher(hasher()),
            number: 0,
        }
    }

    /// The purse for `account`, which keeps to `quota`; an empty one, if there is none yet.
    pub fn of(&mut self, account: &Rc<str>, quota: Quota, now: Timestamp) -> &mut Purse {
        if self.recent.len() >= PURSES && !self.recent.contains_key(account) {
            let empty = HashMap::with_hasher(self.recent.hasher().clone());
            let recent = mem::replace(&mut self.recent, empty);
            let forgotten = mem::replace(&mut self.older, recent);
            let numbers = forgotten.values().map(Purse::number);
            self.number = numbers.fold(self.number, u32::max);
        }
        let purse = self.recent.entry(account.clone()).or_insert_with(|| {
            self.older
                .remove(account)
                .unwrap_or_else(|| Purse::numbered(quota, self.number, now))
        });
        purse.keep_to(quota);
        purse
    }

    /// The purse for `account`, if there is one.
    pub fn find(&mut self, account: &str) -> Option<&mut Purse> {
        match self.recent.get_mut(account) {
            Some(purse) => Some(purse),
            None => self.older.get_mut(account),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn a_million_accounts_take_the_room_of_a_few_thousand() {
        let quota = Quota {
            limit: NonZeroU64::MIN,
            per: 60_000,
        };
        let mut purses = Purses::new(7);
        for number in 0..1_000_000 {
            purses.of(&format!("account {number}").into(), quota, Timestamp(1));
        }
        assert!(purses.recent.len() + purses.older.len() <= 2 * PURSES);
        assert!(purses.find("account 0").is_none());
        assert!(purses.find("account 999999").is_some());
    }
}
