//! How much is asked of an account here.

use crate::time::Timestamp;

/// The time over which demand is measured, in milliseconds.
pub(super) const SPAN: u64 = 5_000;

/// How many units are asked for a second: what came in the span before this one, as far as it is not over, and in this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    began: Timestamp,
    before: u64,
    current: u64,
}

impl Meter {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            began: now,
            before: 0,
            current: 0,
        }
    }

    pub(super) fn add(&mut self, units: u64, now: Timestamp) {
        self.turn(now);
        self.current = self.current.saturating_add(units);
    }

    /// Thousandths of a unit a second.
    pub(super) fn rate(&mut self, now: Timestamp) -> u64 {
        self.turn(now);
        let rest = SPAN - now.0.saturating_sub(self.began.0).min(SPAN);
        let before = self.before.saturating_mul(rest) / SPAN;
        self.current
            .saturating_add(before)
            .saturating_mul(1_000_000)
            / SPAN
    }

    fn turn(&mut self, now: Timestamp) {
        let spans = now.0.saturating_sub(self.began.0) / SPAN;
        if spans > 0 {
            self.before = if spans == 1 { self.current } else { 0 };
            self.current = 0;
            self.began = Timestamp(self.began.0 + spans * SPAN);
        }
    }
}
