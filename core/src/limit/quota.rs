//! What is allowed, and how time is divided to count it.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How many buckets a window is divided into.
const BUCKETS: u64 = 60;

/// The length of a bucket of units that count as long as they are held, in milliseconds; and how far at most a holding is rounded up.
const GRID: u64 = 1_000;

/// The longest that units are held without word from their holder, in milliseconds.
pub const LONGEST_HOLD: u64 = 60_000;

/// How long units are held that were promised, from when they came, in milliseconds.
const INHERITED: u64 = 8_000;

/// What is allowed: so many units in any window of this length, or so many at the same time.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// Units.
    pub limit: NonZeroU64,
    /// The window's length in milliseconds. Zero: units count only as long as they are held.
    pub per: u64,
}

impl Quota {
    /// Whether it is on what goes on at the same time: then what counts ends with whoever holds it.
    pub fn is_concurrent(&self) -> bool {
        self.per == 0
    }

    /// The length of a bucket in milliseconds.
    pub(super) fn width(&self) -> u64 {
        if self.is_concurrent() {
            GRID
        } else {
            self.per.div_ceil(BUCKETS)
        }
    }

    /// The bucket that `at` lies in.
    pub(super) fn bucket(&self, at: Timestamp) -> u64 {
        at.0 / self.width()
    }

    /// The bucket for units that are held for `hold` milliseconds from `now`: they are surely spent when it ends.
    pub(super) fn bucket_ahead(&self, now: Timestamp, hold: u64) -> u64 {
        let bucket = self.bucket(Timestamp(now.0.saturating_add(hold)));
        // Rounded up by an eighth, and a second, at most: it bounds how many buckets can lie ahead.
        let step = ((hold / 8).min(GRID) / self.width()).max(1);
        bucket.div_ceil(step).saturating_mul(step)
    }

    /// The bucket for units that are promised of another: they are held for a while after that has left the window.
    pub(super) fn heir(&self, bucket: u64) -> u64 {
        self.bucket_ahead(self.expiry(bucket), INHERITED.min(self.per / 4))
    }

    /// The last instant of a bucket.
    pub(super) fn end(&self, bucket: u64) -> Timestamp {
        Timestamp(bucket.saturating_add(1).saturating_mul(self.width()) - 1)
    }

    /// When a bucket has left every window that it was in.
    pub(super) fn expiry(&self, bucket: u64) -> Timestamp {
        Timestamp(
            self.end(bucket)
                .0
                .saturating_add(1)
                .saturating_add(self.per),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(per: u64) -> Quota {
        Quota {
            limit: NonZeroU64::MIN,
            per,
        }
    }

    #[test]
    fn time_is_divided_by_the_window() {
        // per, width; now, hold: the bucket, and its last instant
        let table = [
            (60_000, 1_000, (5_000, 0), (5, 5_999)),
            (60_000, 1_000, (5_000, 1_000), (6, 6_999)),
            (60_000, 1_000, (5_999, 1_500), (7, 7_999)),
            (60_000, 1_000, (5_000, 60_000), (65, 65_999)),
            // The further ahead, the fewer buckets there are.
            (1_000, 17, (5_000, 17), (295, 5_031)),
            (1_000, 17, (5_000, 32), (296, 5_048)),
            (1_000, 17, (5_000, 1_000), (357, 6_085)),
            (30_060, 501, (5_000, 1_100), (12, 6_512)),
            // What is in use at the same time counts as long as it is held.
            (0, 1_000, (5_000, 45_000), (50, 50_999)),
            (2_592_000_000, 43_200_000, (5_000, 60_000), (0, 43_199_999)),
        ];
        for (per, width, (now, hold), (bucket, end)) in table {
            let quota = quota(per);
            assert_eq!(quota.width(), width);
            let found = quota.bucket_ahead(Timestamp(now), hold);
            assert_eq!(
                (found, quota.end(found).0),
                (bucket, end),
                "{per} {now} {hold}"
            );
            assert!(quota.end(found).0 >= now + hold);
            assert_eq!(quota.expiry(found).0, end + 1 + per);
        }
    }

    #[test]
    fn an_heir_outlives_whom_it_inherits() {
        for per in [1, 17, 1_000, 60_000, 3_600_000, 2_592_000_000] {
            let quota = quota(per);
            for bucket in [0, 1, 59, 1_000_000] {
                assert!(quota.heir(bucket) > bucket);
                assert!(quota.end(quota.heir(bucket)) >= quota.expiry(bucket));
            }
        }
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        for per in [0, 1, 60_000, u64::MAX] {
            let quota = quota(per);
            let last = quota.bucket_ahead(Timestamp(u64::MAX), LONGEST_HOLD);
            assert!(quota.expiry(last) >= Timestamp(u64::MAX - 1));
            assert!(quota.expiry(quota.heir(last)) >= Timestamp(u64::MAX - 1));
        }
    }
}
