//! A time that never goes back, made of a clock that may.

use std::time::Duration;

use crate::time::{Timestamp, millis};

/// A clock that is behind what it said before by no more than this has not been set back: somebody looked at it earlier and tells
/// of it later.
const HICCUP: Duration = Duration::from_secs(10);

/// A clock that is ahead by more than this has been set.
const LEAP: Duration = Duration::from_secs(86_400);

/// The time that has gone by since the clock was first looked at. While the clock is set back, none goes by; so nothing lasts
/// longer for that than [`HICCUP`].
#[derive(Clone, Debug, Default)]
pub(super) struct Steady {
    clock: Option<Timestamp>,
    now: Timestamp,
}

impl Steady {
    /// The steady time when the clock says `clock`.
    pub(super) fn at(&mut self, clock: Timestamp) -> Timestamp {
        let last = self.clock.unwrap_or(clock);
        if clock >= last {
            self.now = self.now.after(clock.since(last).min(LEAP));
            self.clock = Some(clock);
        } else if last.since(clock) > HICCUP {
            self.clock = Some(clock);
        }
        self.now
    }

    /// The steady time when the clock said `earlier`; never one that is ahead.
    pub(super) fn then(&self, earlier: Timestamp) -> Timestamp {
        let ago = self.clock.unwrap_or(earlier).since(earlier);
        Timestamp(self.now.0.saturating_sub(millis(ago)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_with_the_clock_and_never_back() {
        let mut time = Steady::default();
        for (clock, now) in [
            (1_000_000, 0),
            (1_000_500, 500),
            (1_000_400, 500),
            (1_000_501, 501),
            // Set back by ten minutes: it goes on from there.
            (400_000, 501),
            (400_100, 601),
            (u64::MAX, 86_400_601),
            (0, 86_400_601),
            (1, 86_400_602),
        ] {
            assert_eq!(time.at(Timestamp(clock)), Timestamp(now), "at {clock}");
        }
    }

    #[test]
    fn what_was_earlier_on_the_clock_was_earlier() {
        let mut time = Steady::default();
        time.at(Timestamp(1_000));
        time.at(Timestamp(6_000));
        for (clock, then) in [(6_000, 5_000), (4_000, 3_000), (0, 0), (u64::MAX, 5_000)] {
            assert_eq!(time.then(Timestamp(clock)), Timestamp(then), "at {clock}");
        }
    }
}
