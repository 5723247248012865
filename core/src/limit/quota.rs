//! What is allowed, and how time is divided to count it.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How many buckets a window is divided into.
const BUCKETS: u64 = 60;

/// The grid for units that are held, in milliseconds: it bounds how many buckets can lie ahead.
const GRID: u64 = 1_000;

/// The longest that units are held without word from their holder, in milliseconds.
pub const LONGEST_HOLD: u64 = 60_000;

/// What is allowed: so many units in any window of this length, or so many at the same time.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// Units.
    pub limit: NonZeroU64,
    /// The window's length in milliseconds. Zero: units count only as long as they are held.
    pub per: u64,
}

impl Quota {
    /// The length of a bucket in milliseconds.
    pub(super) fn width(&self) -> u64 {
        if self.per == 0 {
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
        let step = (GRID / self.width()).max(1);
        if hold <= self.width() {
            bucket
        } else {
            bucket.div_ceil(step).saturating_mul(step)
        }
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
