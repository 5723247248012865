//! How often an origin may be asked again.
//!
//! Whoever asks again whatever fails makes of an overload a collapse. So those who are asked again are a share of those who are
//! asked at all, and a few more, so that a quiet gateway may always ask again. The numbers are those that Finagle has used since
//! 2016 (`RetryBudget`: 20 %, ten a second, for ten seconds); Envoy's `retry_budget` has the same share of what goes on at once.
//! Finagle lets a retry be paid for by a request of the ten seconds before and forgets the debt with it; so does this, by the
//! second.

use crate::time::Timestamp;

/// Of so many that are asked, in per cent, one more may be.
const SHARE: u64 = 20;

/// So many more a second may be.
const FLOOR: u64 = 10;

/// How many seconds are looked back on, the present one among them.
const SECONDS: usize = 10;

/// What was asked of an origin of late, and what of it again.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The second in which something was last asked or looked at.
    second: u64,
    /// The seconds up to that one, each in the place of its number.
    ring: [Second; SECONDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    asked: u64,
    again: u64,
}

impl Budget {
    /// It was asked for the first time for somebody's request.
    pub(super) fn asked(&mut self, now: Timestamp) {
        if let Some(second) = self.present(now) {
            second.asked += 1;
        }
    }

    /// Whether it may be asked again for the same request; it is counted, if so.
    pub(super) fn may_retry(&mut self, now: Timestamp) -> bool {
        let Some(present) = self.present(now) else {
            return false;
        };
        present.again += 1;
        let asked: u64 = self.ring.iter().map(|second| second.asked).sum();
        let again: u64 = self.ring.iter().map(|second| second.again).sum();
        let may = again <= FLOOR * SECONDS as u64 + asked * SHARE / 100;
        if !may && let Some(present) = self.present(now) {
            present.again -= 1;
        }
        may
    }

    /// The present second, after those have left that are too long ago.
    fn present(&mut self, now: Timestamp) -> Option<&mut Second> {
        let second = (now.0 / 1_000).max(self.second);
        let gone = (second - self.second).min(SECONDS as u64);
        for later in 0..gone {
            let place = (second - later) as usize % SECONDS;
            if let Some(second) = self.ring.get_mut(place) {
                *second = Second::default();
            }
        }
        self.second = second;
        self.ring.get_mut(second as usize % SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many of `tries` are let through at `now`.
    fn granted(budget: &mut Budget, tries: usize, now: u64) -> usize {
        (0..tries)
            .filter(|_| budget.may_retry(Timestamp(now)))
            .count()
    }

    #[test]
    fn a_share_of_what_is_asked_may_be_asked_again_and_a_few_more() {
        for (asked, tries, may) in [
            (0, 50, 50),
            (0, 1_000, 100),
            (4, 1_000, 100),
            (5, 1_000, 101),
            (1_000, 1_000, 300),
            (10_000, 10_000, 2_100),
        ] {
            let mut budget = Budget::default();
            for _ in 0..asked {
                budget.asked(Timestamp(5_000));
            }
            assert_eq!(granted(&mut budget, tries, 5_999), may, "{asked} asked");
        }
    }

    #[test]
    fn what_was_asked_counts_for_ten_seconds() {
        let mut budget = Budget::default();
        for _ in 0..1_000 {
            budget.asked(Timestamp(0));
        }
        assert_eq!(granted(&mut budget, 250, 3_000), 250);
        assert_eq!(granted(&mut budget, 250, 9_999), 50);
        assert_eq!(granted(&mut budget, 250, 10_000), 0, "the share is gone");
        assert_eq!(granted(&mut budget, 250, 13_000), 50, "50 of 9 s ago count");
        assert_eq!(granted(&mut budget, 250, u64::MAX), 100);
        assert_eq!(granted(&mut budget, 250, 0), 0, "no time has gone by");
    }

    proptest! {
        /// Whatever is asked when: whenever one may be asked again, no more were in nine seconds, which the ten that are looked
        /// back on always cover, than ten seconds pay for; and if nobody was for ten seconds, some may.
        #[test]
        fn a_budget_is_never_exceeded(
            deeds in prop::collection::vec((0..3_000u64, 0..40u64, 0..120usize), 1..80),
        ) {
            let mut budget = Budget::default();
            let (mut now, mut asked, mut again) = (0, Vec::new(), Vec::new());
            for (pause, more, tries) in deeds {
                now += pause;
                for _ in 0..more {
                    budget.asked(Timestamp(now));
                    asked.push(now);
                }
                let idle = again.last().is_none_or(|last| last + 10_000 <= now);
                let may = granted(&mut budget, tries, now);
                prop_assert!(!idle || may >= tries.min(100));
                again.extend(std::iter::repeat_n(now, may));
                let within = |all: &[u64], span: u64| {
                    all.iter().filter(|at| *at + span > now).count() as u64
                };
                prop_assert!(may == 0 || within(&again, 9_000) <= 100 + within(&asked, 10_000) / 5);
            }
        }
    }
}
