//! The buckets of an account: what was spent in the window that is over, and what is held for the time ahead.

use serde::{Deserialize, Serialize};

use super::quota::Quota;
use crate::time::Timestamp;

/// How many promises are kept at most.
const PROMISES: usize = 96;

/// Units by bucket.
///
/// A unit that is held lies in the bucket by whose end it is surely spent, which may lie ahead; a unit that was spent
/// lies in a bucket that is not before the instant it was spent. So whoever forgets to settle is charged in full.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Ring {
    /// Buckets that still count, oldest first: number and units.
    buckets: Vec<(u64, u64)>,
    /// What becomes of units that leave the window, by bucket.
    promises: Vec<Promised>,
}

/// Units that move on when their bucket leaves the window, instead of becoming free.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Promised {
    from: u64,
    to: u64,
    units: u64,
}

impl Ring {
    /// Lets go of what has left the window at `now`; what was promised of it is held from then on.
    pub(super) fn roll(&mut self, quota: &Quota, now: Timestamp) {
        while let Some(&(bucket, _)) = self.buckets.first()
            && quota.expiry(bucket) <= now
        {
            self.buckets.remove(0);
            let mut kept = Vec::with_capacity(self.promises.len());
            for promise in std::mem::take(&mut self.promises) {
                if promise.from != bucket {
                    kept.push(promise);
                } else if quota.expiry(promise.to) > now {
                    self.add(promise.to, promise.units);
                }
            }
            self.promises = kept;
        }
    }

    /// Everything that counts.
    pub(super) fn used(&self) -> u64 {
        sum(self.buckets.iter().map(|(_, units)| *units))
    }

    /// What counts and lies ahead of `now`: it may come back.
    pub(super) fn ahead(&self, quota: &Quota, now: Timestamp) -> u64 {
        let current = quota.bucket(now);
        let held = self.buckets.iter().filter(|(bucket, _)| *bucket > current);
        sum(held.map(|(_, units)| *units))
    }

    /// What was promised and is not held yet.
    pub(super) fn promised(&self) -> u64 {
        sum(self.promises.iter().map(|promise| promise.units))
    }

    /// When nothing counts any more.
    pub(super) fn empty_at(&self, quota: &Quota, now: Timestamp) -> Timestamp {
        let last = self.buckets.last().map(|(bucket, _)| *bucket);
        let promised = self.promises.iter().map(|promise| promise.to).max();
        last.max(promised)
            .map_or(now, |bucket| quota.expiry(bucket))
    }

    /// Counts `units` in `bucket`.
    pub(super) fn add(&mut self, bucket: u64, units: u64) {
        if units == 0 {
            return;
        }
        match self
            .buckets
            .binary_search_by_key(&bucket, |(number, _)| *number)
        {
            Ok(place) => {
                if let Some((_, held)) = self.buckets.get_mut(place) {
                    *held = held.saturating_add(units);
                }
            }
            Err(place) => self.buckets.insert(place, (bucket, units)),
        }
    }

    /// Takes up to `units` out of `bucket`, but never what was promised of it; says how many.
    ///
    /// A promise stands on the units of its bucket: without them it would be units out of nothing.
    pub(super) fn remove(&mut self, bucket: u64, units: u64) -> u64 {
        let promised = self.promised_of(bucket);
        let Ok(place) = self
            .buckets
            .binary_search_by_key(&bucket, |(number, _)| *number)
        else {
            return 0;
        };
        let Some((_, held)) = self.buckets.get_mut(place) else {
            return 0;
        };
        let removed = units.min(held.saturating_sub(promised));
        *held -= removed;
        if *held == 0 {
            self.buckets.remove(place);
        }
        removed
    }

    /// Buckets that have not been promised in full and leave the window by `horizon`, with what is left of them.
    pub(super) fn leaving(
        &self,
        quota: &Quota,
        horizon: Timestamp,
    ) -> impl Iterator<Item = (u64, u64, u64)> {
        self.buckets
            .iter()
            .take_while(move |(bucket, _)| quota.expiry(*bucket) <= horizon)
            .map(|(bucket, units)| {
                let free = units.saturating_sub(self.promised_of(*bucket));
                (*bucket, *units, free)
            })
    }

    /// Promises `units` of the bucket `from`: when they leave the window they are held in `to`. Says how many it were.
    pub(super) fn promise(&mut self, from: u64, to: u64, units: u64) -> u64 {
        let held = self
            .buckets
            .binary_search_by_key(&from, |(number, _)| *number)
            .ok()
            .and_then(|place| self.buckets.get(place))
            .map_or(0, |(_, units)| *units);
        let units = units.min(held.saturating_sub(self.promised_of(from)));
        if units == 0 {
            return 0;
        }
        let same = self
            .promises
            .iter_mut()
            .find(|promise| promise.from == from && promise.to == to);
        if let Some(promise) = same {
            promise.units += units;
        } else if self.promises.len() < PROMISES {
            self.promises.push(Promised { from, to, units });
        } else {
            return 0;
        }
        units
    }

    /// The first instant at which `units` fit into `quota` if nobody takes more and nothing comes back; never, if
    /// the quota is smaller than that.
    pub(super) fn room_at(&self, quota: &Quota, units: u64, now: Timestamp) -> Timestamp {
        if units > quota.limit.get() {
            return Timestamp(u64::MAX);
        }
        let mut later = self.clone();
        while later.used().saturating_add(units) > quota.limit.get() {
            let Some(&(bucket, _)) = later.buckets.first() else {
                break;
            };
            let at = quota.expiry(bucket);
            later.roll(quota, at);
            if later.used().saturating_add(units) <= quota.limit.get() {
                return at.max(now);
            }
        }
        now
    }

    fn promised_of(&self, bucket: u64) -> u64 {
        let of = self
            .promises
            .iter()
            .filter(|promise| promise.from == bucket);
        sum(of.map(|promise| promise.units))
    }
}

fn sum(units: impl Iterator<Item = u64>) -> u64 {
    units.fold(0, u64::saturating_add)
}
