//! How long somebody is left alone who said so.

use std::time::Duration;

use crate::time::Timestamp;

/// The longest that anybody is left alone: a `Retry-After` of hours may be a mistake, and to find out costs one request.
pub const LONGEST_REST: Duration = Duration::from_secs(600);

/// The instant until which somebody is left alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest(Timestamp);

impl Rest {
    /// Somebody is left alone for so long; if for longer already, then for that.
    pub(super) fn take(&mut self, lasts: Duration, now: Timestamp) {
        self.0 = self.0.max(now.after(lasts.min(LONGEST_REST)));
    }

    /// How long that still is.
    pub(super) fn left(self, now: Timestamp) -> Duration {
        self.0.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_rest_counts_and_none_is_endless() {
        let mut rest = Rest::default();
        let secs = Duration::from_secs;
        assert_eq!(rest.left(Timestamp(0)), Duration::ZERO);
        for (lasts, at, left) in [
            (secs(5), 0, 5_000),
            (secs(1), 1_000, 4_000),
            (secs(4), 2_000, 4_000),
            (Duration::ZERO, 6_000, 0),
            (Duration::MAX, 7_000, 600_000),
        ] {
            rest.take(lasts, Timestamp(at));
            let left = Duration::from_millis(left);
            assert_eq!(rest.left(Timestamp(at)), left, "{lasts:?} at {at}");
        }
    }
}
