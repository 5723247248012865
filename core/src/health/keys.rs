//! Whose turn among the keys of an origin it is.

use std::time::Duration;

use super::rest::Rest;
use crate::time::Timestamp;

/// How many keys of an origin are remembered to be at rest; the one that is back soonest is forgotten for another.
const KEYS: usize = 256;

/// What is known of the keys of an origin. Which keys it has is said each time, so that keys come and go as they are configured.
#[derive(Debug, Default)]
pub(super) struct Keys {
    last: Option<u64>,
    resting: Vec<(u64, Rest)>,
}

impl Keys {
    /// The place of the next key among `keys` that is not at rest.
    pub(super) fn next(&mut self, keys: &[u64], now: Timestamp) -> Option<usize> {
        let last = keys.iter().rposition(|key| Some(*key) == self.last);
        let start = last.map_or(0, |place| place + 1);
        let (earlier, later) = keys.split_at_checked(start)?;
        let in_turn = (start..).zip(later).chain((0..).zip(earlier));
        let (place, key) = in_turn
            .into_iter()
            .find(|(_, key)| self.left(**key, now).is_zero())?;
        self.last = Some(*key);
        Some(place)
    }

    /// A key is left alone for so long.
    pub(super) fn rest(&mut self, key: u64, lasts: Duration, now: Timestamp) {
        self.resting.retain(|(_, rest)| !rest.left(now).is_zero());
        if let Some((_, rest)) = self.resting.iter_mut().find(|(other, _)| *other == key) {
            rest.take(lasts, now);
            return;
        }
        if self.resting.len() >= KEYS {
            let back = |(_, (_, rest)): &(usize, &(u64, Rest))| rest.left(now);
            if let Some((soonest, _)) = self.resting.iter().enumerate().min_by_key(back) {
                self.resting.swap_remove(soonest);
            }
        }
        let mut rest = Rest::default();
        rest.take(lasts, now);
        self.resting.push((key, rest));
    }

    /// How long until one of `keys` can be used.
    pub(super) fn back_in(&self, keys: &[u64], now: Timestamp) -> Option<Duration> {
        keys.iter().map(|key| self.left(*key, now)).min()
    }

    /// How long this one is still left alone.
    fn left(&self, key: u64, now: Timestamp) -> Duration {
        let found = self.resting.iter().find(|(other, _)| *other == key);
        found.map_or(Duration::ZERO, |(_, rest)| rest.left(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keys_take_turns_and_come_and_go() {
        let mut keys = Keys::default();
        for (of, place) in [
            (&[7, 8, 9][..], Some(0)),
            (&[7, 8, 9], Some(1)),
            (&[8, 9, 6], Some(1)),
            (&[8, 9, 6], Some(2)),
            (&[8, 9, 6], Some(0)),
            // The last one is withdrawn.
            (&[9, 6], Some(0)),
            (&[], None),
            (&[9], Some(0)),
            (&[9], Some(0)),
            // The same key twice does not keep the others from their turn.
            (&[9, 9, 6], Some(2)),
            (&[9, 9, 6], Some(0)),
            (&[9, 9, 6], Some(2)),
        ] {
            assert_eq!(keys.next(of, Timestamp(0)), place, "of {of:?}");
        }
    }

    #[test]
    fn keys_at_rest_are_left_out_until_they_are_back() {
        let mut keys = Keys::default();
        keys.rest(7, SECOND, Timestamp(0));
        keys.rest(8, SECOND * 3, Timestamp(0));
        keys.rest(8, SECOND, Timestamp(500));
        for (of, at, place, back_in) in [
            (&[7, 8][..], 999, None, Some(1)),
            (&[8], 999, None, Some(2_001)),
            (&[7, 8], 1_000, Some(0), Some(0)),
            (&[7, 8], 1_001, Some(0), Some(0)),
            (&[7, 8], 3_000, Some(1), Some(0)),
            (&[], 3_000, None, None),
        ] {
            let now = Timestamp(at);
            let back_in = back_in.map(Duration::from_millis);
            assert_eq!(keys.back_in(of, now), back_in, "{of:?} at {at}");
            assert_eq!(keys.next(of, now), place, "{of:?} at {at}");
        }
    }

    #[test]
    fn those_at_rest_are_bounded() {
        let mut keys = Keys::default();
        let now = Timestamp(0);
        keys.rest(0, SECOND, now);
        for key in 1..2 * KEYS as u64 {
            keys.rest(key, SECOND * 2, now);
        }
        assert_eq!(keys.resting.len(), KEYS);
        assert_eq!(keys.next(&[0], now), Some(0), "it was back soonest");
        assert_eq!(keys.next(&[2 * KEYS as u64 - 1], now), None);
        keys.rest(1, SECOND, Timestamp(2_000));
        assert_eq!(keys.resting.len(), 1);
    }
}
