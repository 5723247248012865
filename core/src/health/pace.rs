//! How long somebody takes until the first word, and how often somebody else may be asked meanwhile.

use std::time::Duration;

use crate::time::millis;

/// Nothing is said of the pace of whoever has answered fewer times.
const KNOWN_FROM: u32 = 20;

/// Of so many, one takes longer than what is called slow.
const SLOWEST: f64 = 20.0;

/// How far one answer moves it, of itself.
const STEP: f64 = 0.1;

/// So many hedges can be saved up.
const SAVED: f64 = 5.0;

/// The pace of one target, and the hedges for it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    answers: u32,
    /// The 95th percentile of milliseconds until the first word, about.
    slow: f64,
    /// How many hedges may be made now.
    hedges: f64,
}

impl Pace {
    /// One has taken so long until its first word.
    ///
    /// Each moves the percentile: whoever took longer up, whoever took less down by a nineteenth of that, so that it stays where one
    /// of twenty takes longer (Ma, Muthukrishnan, Sandler 2013, "Frugal Streaming").
    pub(super) fn learn(&mut self, took: Duration) {
        let took = millis(took) as f64;
        self.answers = self.answers.saturating_add(1);
        if self.answers == 1 {
            self.slow = took;
        }
        let step = (self.slow * STEP).max(1.0);
        if took > self.slow {
            self.slow += step;
        } else {
            self.slow -= step / (SLOWEST - 1.0);
        }
    }

    /// After how long without a word it is slow; nothing, as long as that is not known.
    pub(super) fn slow(&self) -> Option<Duration> {
        let is_known = self.answers >= KNOWN_FROM;
        is_known.then(|| Duration::from_millis(self.slow as u64))
    }

    /// One more is asked, for which so much of a hedge may be made.
    pub(super) fn asked(&mut self, share: f64) {
        self.hedges = (self.hedges + share).min(SAVED);
    }

    /// Makes a hedge, if one may be made.
    pub(super) fn hedge(&mut self) -> bool {
        let may = self.hedges >= 1.0;
        if may {
            self.hedges -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn slow_is_what_one_of_twenty_is() {
        let mut dice = Dice::new([3; 16]);
        let mut pace = Pace::default();
        let mut slower = 0;
        for number in 0..4_000 {
            let took = Duration::from_millis(dice.between(100, 1_099));
            if number >= 1_000 && pace.slow().is_some_and(|slow| took > slow) {
                slower += 1;
            }
            assert_eq!(pace.slow().is_some(), number >= KNOWN_FROM);
            pace.learn(took);
        }
        assert!((90..=240).contains(&slower), "{slower} of 3000");
        // Whoever becomes slow for good is not slow any more.
        for _ in 0..200 {
            pace.learn(Duration::from_secs(5));
        }
        assert!(pace.slow() >= Some(Duration::from_secs(4)));
    }

    #[test]
    fn no_more_are_hedged_than_may_be() {
        let mut pace = Pace::default();
        let hedges = (0..1_000).filter(|_| {
            pace.asked(0.05);
            pace.hedge()
        });
        assert!((49..=50).contains(&hedges.count()));
        for _ in 0..10_000 {
            pace.asked(0.05);
        }
        assert_eq!((0..100).filter(|_| pace.hedge()).count(), SAVED as usize);
    }
}
