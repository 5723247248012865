//! How many an upstream bears that says nothing of it but by how soon it begins to answer.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::Bounds;
use crate::time::Timestamp;

/// How often the limit is thought over.
const WINDOW: Duration = Duration::from_secs(1);

/// How many answers must have begun until it is.
pub(super) const ENOUGH: usize = 5;

/// Of how many of them it is remembered how soon, until then: the last ones.
pub(super) const KEPT: usize = 256;

/// An answer is late that takes so many times as long as one without a crowd, and so many milliseconds at least.
const LATE: f64 = 4.0;
const SOON: f64 = 200.0;

/// How much of its limit is in use if it is to grow. Who does not need more does not get more.
const USED: f64 = 0.8;

/// How far what is known of an upstream without a crowd follows one that has become slower, in each window: while there is no
/// crowd; and once the limit is as low as it may be, so that there cannot be one. With a crowd it does not follow, or a crowd that
/// stays would become what is usual.
const DRIFT: f64 = 1.003;
const DRIFT_AT_LEAST: f64 = 1.03;

/// Learns how many may be in progress.
///
/// As long as half of the answers begin in time the limit grows, if it is in use; else it shrinks, the more the later they are.
/// In time is measured by the upstream itself as it was without a crowd. An answer that is awaited for longer than that counts
/// though it has not begun.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learner {
    #[serde(deserialize_with = "number")]
    pub(super) limit: f64,
    /// How soon an answer begins where there is no crowd, in milliseconds.
    #[serde(deserialize_with = "number")]
    usual: f64,
    /// When it was last thought over.
    since: Option<Timestamp>,
    /// How soon answers have begun since, in milliseconds; the next one goes to `next` where there are many.
    pub(super) delays: Vec<u32>,
    next: usize,
    /// The most in progress since.
    peak: u32,
}

/// What is stored may be damaged, and nobody comes back from what is no number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    match number >= 0.0 {
        true => Ok(number),
        false => Err(D::Error::custom("it is no number")),
    }
}

impl Learner {
    /// One that knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            limit: f64::from(bounds.start),
            usual: f64::INFINITY,
            since: None,
            delays: Vec::new(),
            next: 0,
            peak: 0,
        }
    }

    /// How many may be in progress.
    pub fn limit(&self, bounds: Bounds) -> u32 {
        (self.limit as u32).clamp(bounds.least, bounds.most.max(bounds.least))
    }

    /// Others have learnt that so many may be.
    pub fn follow(&mut self, limit: u32) {
        self.limit = f64::from(limit);
    }

    /// So many are.
    pub fn saw(&mut self, in_progress: u32) {
        self.peak = self.peak.max(in_progress);
    }

    /// An answer has begun after so many milliseconds, or will not after those.
    pub fn learn(&mut self, delay: u32) {
        match self.delays.get_mut(self.next) {
            Some(oldest) => *oldest = delay,
            None => self.delays.push(delay),
        }
        self.next = self.next.wrapping_add(1) % KEPT;
    }

    /// From how many milliseconds on an answer is late.
    pub fn late(&self) -> f64 {
        (LATE * self.usual).max(SOON)
    }

    /// Thinks it over, if it is time: of those who are in progress some have been `awaited` for so many milliseconds.
    pub fn think(&mut self, bounds: Bounds, in_progress: u32, awaited: &[u32], now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        if now < since {
            // The clock was set back.
            self.since = Some(now);
        }
        if now.since(since) < WINDOW {
            return;
        }
        let late = self.late();
        let mut delays = Vec::new();
        let overdue = awaited.iter().filter(|age| f64::from(**age) > late);
        for &delay in self.delays.iter().chain(overdue) {
            delays.insert(delays.partition_point(|other| *other < delay), delay);
        }
        if delays.len() < ENOUGH {
            return;
        }
        if let Some(median) = delays.get(delays.len() / 2) {
            self.adjust(bounds, f64::from(*median));
        }
        self.delays.clear();
        self.next = 0;
        self.since = Some(now);
        self.peak = in_progress;
    }

    fn adjust(&mut self, bounds: Bounds, median: f64) {
        let is_used = f64::from(self.peak) >= USED * self.limit;
        let drift = match is_used {
            _ if self.limit(bounds) <= bounds.least => DRIFT_AT_LEAST,
            true => 1.0,
            false => DRIFT,
        };
        self.usual = median.min(self.usual * drift).max(1.0);
        let late = self.late();
        let spare = (late - median) / late;
        if spare < 0.0 {
            self.limit *= 1.0 + (0.15 * spare).max(-0.25);
        } else if is_used {
            self.limit = self.limit * (1.0 + 0.06 * spare) + 0.5;
        }
        // Not `clamp`: it can print its bounds, and what prints floating numbers weighs nine kilobytes on the edge.
        let (least, most) = (f64::from(bounds.least), f64::from(bounds.most));
        self.limit = self.limit.min(most).max(least);
    }
}
