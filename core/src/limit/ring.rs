//! The buckets of an account: what was spent in the window that is over, and what is held for the time ahead.

use serde::{Deserialize, Serialize};

use super::{quota::Quota, stored::length};
use crate::time::Timestamp;

/// Units by bucket, oldest first.
///
/// A unit that is held lies in the bucket by whose end it is surely spent, which may lie ahead; a unit that was spent
/// lies in a bucket that does not end before it was spent. So whoever forgets to settle is charged in full.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Ring(#[serde(with = "super::stored::steps")] Vec<Bucket>);

/// A bucket that still counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Bucket {
    pub(super) number: u64,
    pub(super) units: u64,
    /// How many of them move on to the heir when the bucket leaves the window, instead of becoming free.
    pub(super) promised: u64,
    /// How many of them at most were lent, to be spent by whoever comes to the holder.
    pub(super) lent: u64,
}

impl Bucket {
    /// Units that become free when the bucket leaves the window.
    pub(super) fn unpromised(&self) -> u64 {
        self.units.saturating_sub(self.promised)
    }
}

impl Ring {
    /// Lets go of what has left the window at `now`; what was promised of it is held from then on.
    pub(super) fn roll(&mut self, quota: &Quota, now: Timestamp) {
        while let Some(&bucket) = self.0.first()
            && quota.expiry(bucket.number) <= now
        {
            self.0.remove(0);
            let heir = quota.heir(bucket.number);
            if quota.expiry(heir) > now {
                self.add(heir, bucket.promised);
                self.lend(heir, bucket.promised);
            }
        }
    }

    /// Lets go of what was spent up to `now`; what is held stays, and so does what was promised of what was spent.
    pub(super) fn forget(&mut self, quota: &Quota, now: Timestamp) {
        let current = quota.bucket(now);
        for bucket in self.0.iter_mut().filter(|bucket| bucket.number <= current) {
            bucket.units = bucket.promised;
            bucket.lent = bucket.lent.min(bucket.units);
        }
        self.0.retain(|bucket| bucket.units > 0);
    }

    /// Everything that counts.
    pub(super) fn used(&self) -> u64 {
        sum(self.0.iter().map(|bucket| bucket.units))
    }

    /// What counts and lies ahead of `now`: it may come back.
    pub(super) fn ahead(&self, quota: &Quota, now: Timestamp) -> u64 {
        self.since(quota.bucket(now).saturating_add(1))
    }

    /// What of it was lent.
    pub(super) fn lent(&self, quota: &Quota, now: Timestamp) -> u64 {
        let current = quota.bucket(now);
        let ahead = self.0.iter().filter(|bucket| bucket.number > current);
        sum(ahead.map(|bucket| bucket.lent))
    }

    /// What counts and lies ahead of `now`, or in the bucket that runs.
    pub(super) fn recent(&self, quota: &Quota, now: Timestamp) -> u64 {
        self.since(quota.bucket(now))
    }

    fn since(&self, first: u64) -> u64 {
        let held = self.0.iter().filter(|bucket| bucket.number >= first);
        sum(held.map(|bucket| bucket.units))
    }

    /// What was promised and is not held yet.
    pub(super) fn promised(&self) -> u64 {
        sum(self.0.iter().map(|bucket| bucket.promised))
    }

    /// When nothing counts any more.
    pub(super) fn empty_at(&self, quota: &Quota, now: Timestamp) -> Timestamp {
        let last = self.0.last().map(|bucket| bucket.number);
        let promised = self.0.iter().rev().find(|bucket| bucket.promised > 0);
        last.max(promised.map(|bucket| quota.heir(bucket.number)))
            .map_or(now, |bucket| quota.expiry(bucket))
    }

    /// When the next bucket leaves the window.
    pub(super) fn next(&self, quota: &Quota) -> Option<Timestamp> {
        self.0.first().map(|bucket| quota.expiry(bucket.number))
    }

    /// How many bytes it takes at most where it is stored.
    pub(super) fn size(&self) -> usize {
        let mut size = 0;
        let mut before = 0;
        for bucket in &self.0 {
            size += length(bucket.number - before) + length(bucket.units);
            size += length(bucket.promised) + length(bucket.lent);
            before = bucket.number;
        }
        size
    }

    /// Counts `units` in the bucket `number`.
    pub(super) fn add(&mut self, number: u64, units: u64) {
        if units == 0 {
            return;
        }
        match self.place(number) {
            Ok(place) => {
                if let Some(bucket) = self.0.get_mut(place) {
                    bucket.units = bucket.units.saturating_add(units);
                }
            }
            Err(place) => self.0.insert(
                place,
                Bucket {
                    number,
                    units,
                    promised: 0,
                    lent: 0,
                },
            ),
        }
    }

    /// Notes that `units` in the bucket `number` are lent.
    pub(super) fn lend(&mut self, number: u64, units: u64) {
        if let Some((_, bucket)) = self.find(number) {
            bucket.lent = bucket.lent.saturating_add(units).min(bucket.units);
        }
    }

    /// Takes up to `units` out of the bucket `number`, but never what was promised of it; says how many.
    ///
    /// A promise stands on the units of its bucket: without them it would be units out of nothing.
    pub(super) fn remove(&mut self, number: u64, units: u64) -> u64 {
        let Some((place, bucket)) = self.find(number) else {
            return 0;
        };
        let removed = units.min(bucket.unpromised());
        bucket.units -= removed;
        // What was asked for comes back before what was lent: nobody says which it is.
        bucket.lent = bucket.lent.min(bucket.units);
        if bucket.units == 0 {
            self.0.remove(place);
        }
        removed
    }

    /// The buckets that leave the window by `horizon`.
    pub(super) fn leaving(
        &self,
        quota: &Quota,
        horizon: Timestamp,
    ) -> impl Iterator<Item = &Bucket> {
        self.0
            .iter()
            .take_while(move |bucket| quota.expiry(bucket.number) <= horizon)
    }

    /// Promises up to `units` of the bucket `number`: when it leaves the window they are held in its heir. Says how many.
    pub(super) fn promise(&mut self, number: u64, units: u64) -> u64 {
        let Some((_, bucket)) = self.find(number) else {
            return 0;
        };
        let units = units.min(bucket.unpromised());
        bucket.promised += units;
        units
    }

    fn find(&mut self, number: u64) -> Option<(usize, &mut Bucket)> {
        let place = self.place(number).ok()?;
        self.0.get_mut(place).map(|bucket| (place, bucket))
    }

    fn place(&self, number: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&number, |bucket| bucket.number)
    }
}

fn sum(units: impl Iterator<Item = u64>) -> u64 {
    units.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    /// A minute: its buckets are seconds.
    fn minute() -> Quota {
        Quota {
            limit: NonZeroU64::MAX,
            per: 60_000,
        }
    }

    fn ring(buckets: &[(u64, u64)]) -> Ring {
        let mut ring = Ring::default();
        for (number, units) in buckets {
            ring.add(*number, *units);
        }
        ring
    }

    #[test]
    fn what_was_promised_moves_on_and_the_rest_becomes_free() {
        let quota = minute();
        let mut ring = ring(&[(100, 10), (101, 5)]);
        assert_eq!(ring.promise(100, 4), 4);
        assert_eq!(ring.promise(100, 9), 6, "no more than there is");
        assert_eq!(ring.promise(99, 1), 0);
        assert_eq!((ring.used(), ring.promised()), (15, 10));
        ring.roll(&quota, Timestamp(160_999));
        assert_eq!(ring.used(), 15, "its last instant is not a minute old");
        ring.roll(&quota, Timestamp(161_000));
        assert_eq!((ring.used(), ring.promised()), (15, 0));
        assert_eq!(ring.remove(quota.heir(100), 99), 10);
        ring.roll(&quota, Timestamp(162_000));
        assert_eq!(ring, Ring::default());
    }

    #[test]
    fn what_was_promised_cannot_be_taken_away() {
        let mut ring = ring(&[(100, 10)]);
        ring.promise(100, 7);
        assert_eq!(ring.remove(100, 10), 3);
        assert_eq!(ring.remove(100, 10), 0);
        assert_eq!(ring.remove(101, 1), 0);
        assert_eq!(ring.used(), 7);
    }

    #[test]
    fn after_a_long_silence_nothing_is_left() {
        let mut ring = ring(&[(100, 10), (130, 3)]);
        ring.promise(100, 5);
        let quota = minute();
        assert_eq!(
            ring.empty_at(&quota, Timestamp(0)),
            quota.expiry(quota.heir(100))
        );
        ring.roll(&quota, Timestamp(u64::MAX));
        assert_eq!(ring, Ring::default());
        assert_eq!(ring.empty_at(&quota, Timestamp(7)), Timestamp(7));
    }
}
