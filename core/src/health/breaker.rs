//! Whether somebody is worth asking: a circuit breaker (Nygard, "Release It!").
//!
//! Closed, it counts who was asked and who failed, and forgets at a half-life. Of those who fail too often a part is shed, as in
//! the adaptive throttling of "Site Reliability Engineering", chapter 21. Of those who hardly answer at all none is let
//! through: the breaker opens. After a while it lets one probe through; what becomes of it closes the breaker or opens it for
//! longer.

use std::{f64::consts::LN_2, time::Duration};

use crate::{
    dice::Dice,
    time::{Timestamp, millis},
};

/// What was counted weighs half as much after this, or after twice as long as an answer usually takes, if that is longer.
const SHORTEST_HALF_LIFE: Duration = Duration::from_secs(30);

/// But never longer than this.
const LONGEST_HALF_LIFE: Duration = Duration::from_secs(300);

/// Nobody is shed on the word of fewer than so many.
const SHED_FROM: f64 = 10.0;

/// Of those who are asked, so many for each who answers are let through; the rest is shed.
///
/// The book has 2, where who is shed is lost. Here they are asked elsewhere, and with 2 nobody were ever shed: that begins where
/// half fail, and there the breaker opens. This begins where one in five fails, which is as many as may be asked again for
/// long.
const LET_THROUGH: f64 = 1.25;

/// After so many failures in a row it opens.
const IN_A_ROW: u32 = 5;

/// Where so many were asked, it opens if more than half failed.
const HALF_OF: f64 = 20.0;

/// How long it is open the first time.
const OPEN: Duration = Duration::from_secs(5);

/// That is doubled with every so many probes that fail. If every probe doubled it, whoever was away would stay away for as long
/// again after coming back; so it is a fifth of that.
const PROBES_ALIKE: u32 = 5;

/// The longest that it is open, but for the jitter.
const LONGEST_OPEN: Duration = Duration::from_secs(300);

/// How much longer or shorter it is open than that, in per cent, so that isolates do not probe together.
const JITTER: u64 = 20;

/// Who opens again so soon after closing has not recovered, and is not probed as if it were the first time.
const RELAPSE: Duration = Duration::from_secs(60);

/// What is known of somebody's health; well at first.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Since when it is open, or closed. What was asked before says nothing any more.
    since: Timestamp,
    open: Option<Open>,
    /// How many probes failed, one after another.
    probes_failed: u32,
    failed_in_a_row: u32,
    /// How many were asked, and how many of them failed, decayed up to `counted`.
    asked: f64,
    failed: f64,
    counted: Timestamp,
    /// How many milliseconds an answer usually takes: about the median.
    usual: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Timestamp,
    /// When a probe was let through of which nothing is known yet.
    probe: Option<Timestamp>,
}

/// How somebody stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing {
    /// To be asked, but for this share, which is shed.
    Closed {
        /// Between nothing and 1.
        shed: f64,
    },
    /// Not to be asked for so long.
    Open(Duration),
    /// To be asked by one, to find out.
    HalfOpen,
}

impl Breaker {
    /// How it stands now.
    pub(super) fn standing(&self, now: Timestamp) -> Standing {
        match self.open {
            Some(open) if now < open.until => Standing::Open(open.until.since(now)),
            Some(_) => Standing::HalfOpen,
            None => Standing::Closed {
                shed: self.shed(now),
            },
        }
    }

    /// Lets a probe through, if it is half-open and none is under way. One of which nothing was heard for a half-life is not
    /// waited for.
    pub(super) fn probe(&mut self, now: Timestamp) -> bool {
        let patience = self.half_life();
        let Some(open) = &mut self.open else {
            return false;
        };
        let under_way = open.probe.is_some_and(|began| now < began.after(patience));
        let may = now >= open.until && !under_way;
        if may {
            open.probe = Some(now);
        }
        may
    }

    /// One that was asked at `began` has answered.
    pub(super) fn well(&mut self, began: Timestamp, now: Timestamp) {
        if began < self.since {
            return;
        }
        if self.open.is_some() {
            self.close(now);
        }
        self.count(now);
        self.failed_in_a_row = 0;
        self.learn_usual(millis(now.since(began)));
    }

    /// One that was asked at `began` has begun to answer. That counts as an answer, so that no probe takes as long as a stream; but
    /// a row of failures ends only with an answer that comes to its own end.
    pub(super) fn begun(&mut self, began: Timestamp, now: Timestamp) {
        let failed_in_a_row = self.failed_in_a_row;
        let is_closed = self.open.is_none();
        self.well(began, now);
        if is_closed {
            self.failed_in_a_row = failed_in_a_row;
        }
    }

    /// What had begun has come to its end, or broken off, which makes a failure of it.
    pub(super) fn ended(&mut self, well: bool, began: Timestamp, now: Timestamp, dice: &mut Dice) {
        if began < self.since || self.open.is_some() {
            return;
        }
        if well {
            self.failed_in_a_row = 0;
            return;
        }
        // It is counted among those who were asked.
        self.asked = (self.asked - 1.0).max(0.0);
        self.ill(began, now, dice);
    }

    /// One that was asked at `began` has failed.
    pub(super) fn ill(&mut self, began: Timestamp, now: Timestamp, dice: &mut Dice) {
        if began < self.since {
            return;
        }
        match self.open {
            None => {
                self.count(now);
                self.failed += 1.0;
                self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
                if self.is_broken() {
                    if now.since(self.since) > RELAPSE {
                        self.probes_failed = 0;
                    }
                    self.open(now, dice);
                }
            }
            Some(open) if began >= open.probe.unwrap_or(open.until) => {
                self.probes_failed = self.probes_failed.saturating_add(1);
                self.open(now, dice);
            }
            // Asked although it was open, as nobody was better, or before its probe: that is no news.
            Some(_) => {}
        }
    }

    /// Of one that was asked at `began` nothing can be said. If it was the probe, there may be another.
    pub(super) fn unheard(&mut self, began: Timestamp) {
        if let Some(open) = &mut self.open {
            open.probe = open.probe.filter(|probe| began < *probe);
        }
    }

    fn is_broken(&self) -> bool {
        self.failed_in_a_row >= IN_A_ROW
            || (self.asked >= HALF_OF && self.failed * 2.0 > self.asked)
    }

    fn open(&mut self, now: Timestamp, dice: &mut Dice) {
        let doublings = self.probes_failed / PROBES_ALIKE;
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let lasts = millis(OPEN.saturating_mul(factor).min(LONGEST_OPEN));
        let lasts = lasts * dice.between(100 - JITTER, 100 + JITTER) / 100;
        self.since = now;
        self.open = Some(Open {
            until: now.after(Duration::from_millis(lasts)),
            probe: None,
        });
    }

    fn close(&mut self, now: Timestamp) {
        *self = Self {
            since: now,
            counted: now,
            probes_failed: self.probes_failed,
            usual: self.usual,
            ..Self::default()
        };
    }

    /// One more was asked.
    fn count(&mut self, now: Timestamp) {
        let weight = self.weight(now);
        self.asked = self.asked * weight + 1.0;
        self.failed *= weight;
        self.counted = now;
    }

    /// How much of what was counted still counts.
    fn weight(&self, now: Timestamp) -> f64 {
        let half_lives = now.since(self.counted).as_secs_f64() / self.half_life().as_secs_f64();
        halved(half_lives)
    }

    fn shed(&self, now: Timestamp) -> f64 {
        if self.failed == 0.0 {
            return 0.0;
        }
        let weight = self.weight(now);
        let (asked, failed) = (self.asked * weight, self.failed * weight);
        if asked < SHED_FROM {
            return 0.0;
        }
        ((asked - LET_THROUGH * (asked - failed)) / (asked + 1.0)).clamp(0.0, 1.0)
    }

    fn half_life(&self) -> Duration {
        let usual = Duration::from_millis(self.usual);
        usual
            .saturating_mul(2)
            .clamp(SHORTEST_HALF_LIFE, LONGEST_HALF_LIFE)
    }

    /// Every answer pulls towards itself what is usual, by a sixteenth, however far off it is: so half of them stay on either side
    /// (Ma, Muthukrishnan, Sandler 2013, "Frugal Streaming").
    fn learn_usual(&mut self, took: u64) {
        let step = self.usual / 16 + 1;
        self.usual = if self.usual == 0 {
            took
        } else if took > self.usual {
            self.usual.saturating_add(step).min(took)
        } else {
            self.usual.saturating_sub(step).max(took)
        };
    }
}

/// What is left of one after so many half-lives, to the thousandth: by the series of the power, since `exp2` has a table that weighs two
/// kilobytes on the edge.
fn halved(half_lives: f64) -> f64 {
    const SERIES: [f64; 5] = [0.001_333, 0.009_618, 0.055_504, 0.240_227, LN_2];
    let half_lives = half_lives.min(1_000.0);
    let whole = half_lives as u64;
    let part = half_lives - whole as f64;
    let rest = SERIES.iter().fold(0.0, |rest, term| part * (term - rest));
    // One, divided by two so many times.
    f64::from_bits((1_023 - whole) << 52) * (1.0 - rest)
}

#[cfg(test)]
mod tests;
