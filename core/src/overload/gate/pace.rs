//! When there will be room again.

use std::time::Duration;

use crate::time::{Timestamp, millis};

/// The longest that anybody is told to wait before coming again. Nobody knows what will be by then.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// How often it is looked at how many leave.
const WINDOW: Duration = Duration::from_secs(1);

/// How fast calls come to their end, and when the next place will be free that was promised to nobody.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    since: Option<Timestamp>,
    pub(super) ended: u32,
    /// Calls that end in a second, as far as that is known.
    rate: Option<f64>,
    promised: Timestamp,
}

impl Pace {
    pub(super) fn roll(&mut self, now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        let passed = now.since(since);
        if now < since {
            self.since = Some(now);
        } else if passed >= WINDOW {
            let rate = f64::from(self.ended) / passed.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |before| 0.7 * before + 0.3 * rate));
            (self.ended, self.since) = (0, Some(now));
        }
    }

    /// In how long the next place is free. Each who is sent away is told of another one, so that they do not all come back at once.
    pub(super) fn next_place(&mut self, now: Timestamp) -> Duration {
        let rate = self.rate.unwrap_or(1.0);
        let each = 1_000.0 / rate.max(1e-3);
        let each = Duration::from_millis(each as u64).min(LONGEST);
        let latest = now.after(LONGEST);
        self.promised = self.promised.clamp(now, latest).after(each).min(latest);
        Duration::from_millis(millis(self.promised.since(now)).max(1))
    }
}
