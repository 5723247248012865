//! A machine with a few cores that are shared by all who have something to compute.

use std::{cmp::Reverse, collections::BinaryHeap};

/// How many cores.
const CORES: f64 = 4.0;

/// With so many calls in progress it does half of what it does without.
const CROWDED: f64 = 150.0;

/// The machine. Everybody who computes gets the same part of it.
#[derive(Default)]
pub(crate) struct Machine {
    now: f64,
    /// How much each has got who has computed from the beginning.
    done: f64,
    computing: BinaryHeap<Reverse<Work>>,
    /// How many calls are in progress, whether they compute or not.
    pub(crate) crowd: usize,
}

#[derive(PartialEq)]
struct Work {
    until: f64,
    call: usize,
}

impl Eq for Work {}

impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Work {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until
            .total_cmp(&other.until)
            .then(self.call.cmp(&other.call))
    }
}

impl Machine {
    /// A call has so many seconds of a core to compute.
    pub(crate) fn compute(&mut self, call: usize, seconds: f64) {
        let until = self.done + seconds;
        self.computing.push(Reverse(Work { until, call }));
    }

    /// When the next call has computed what it had to, if nobody comes meanwhile.
    pub(crate) fn next(&self) -> Option<f64> {
        let Reverse(first) = self.computing.peek()?;
        Some(self.now + (first.until - self.done).max(0.0) / self.speed())
    }

    /// Time passes until `now`.
    pub(crate) fn pass(&mut self, now: f64) {
        self.done += (now - self.now) * self.speed();
        self.now = now;
    }

    /// The call that has computed what it had to.
    pub(crate) fn take(&mut self) -> usize {
        let Reverse(work) = self.computing.pop().unwrap();
        self.done = self.done.max(work.until);
        work.call
    }

    fn speed(&self) -> f64 {
        let each = (CORES / self.computing.len().max(1) as f64).min(1.0);
        each / (1.0 + (self.crowd as f64 / CROWDED).powi(2))
    }
}
