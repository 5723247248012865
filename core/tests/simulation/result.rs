//! What came of it.

use crate::load::{Load, Scenario};

/// How many windows pass before it is asked whether too few were let in.
const START: u64 = 2;

/// What a scheme did with a load.
#[derive(Default)]
pub(crate) struct Outcome {
    /// When requests were let in, in order.
    pub(crate) admitted: Vec<u64>,
    /// How many messages went to the ledger.
    pub(crate) calls: u64,
    /// For how long each request waited, let in or not, in milliseconds.
    pub(crate) waits: Vec<u64>,
}

/// The figures that are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// The worst window over the limit, in per cent.
    pub(crate) over: f64,
    /// What was let in below what could have been, in per cent.
    pub(crate) under: f64,
    /// Remote calls a request.
    pub(crate) calls: f64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            over,
            under,
            calls,
            p50,
            p99,
        } = self;
        write!(
            f,
            "over {over:6.2} %  under {under:6.2} %  calls {calls:6.4}  added {p50:3}/{p99:3} ms"
        )
    }
}

impl Figures {
    pub(crate) fn of(scenario: &Scenario, load: &Load, outcome: &Outcome) -> Self {
        let per = scenario.per * 1_000;
        let start = START * per;
        let end = scenario.seconds * 1_000;
        let worst = worst(&outcome.admitted, per);
        let over = worst.saturating_sub(scenario.limit) as f64 / scenario.limit as f64;
        let within = |times: &mut dyn Iterator<Item = u64>| {
            times.filter(|at| (start..end).contains(at)).count() as f64
        };
        let offered = within(&mut load.requests.iter().map(|(at, _)| *at));
        let possible = scenario.limit as f64 * (end - start) as f64 / per as f64;
        let admitted = within(&mut outcome.admitted.iter().copied());
        let mut waits = outcome.waits.clone();
        waits.sort_unstable();
        let part = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or(0);
        Self {
            over: over * 100.0,
            under: (1.0 - admitted / offered.min(possible)).max(0.0) * 100.0,
            calls: outcome.calls as f64 / load.requests.len() as f64,
            p50: part(50),
            p99: part(99),
        }
    }
}

/// The most that came in any window, both ends counted.
pub(crate) fn worst(times: &[u64], per: u64) -> u64 {
    assert!(times.is_sorted());
    let mut since = 0;
    let mut most = 0;
    for (place, at) in times.iter().enumerate() {
        while times[since] + per < *at {
            since += 1;
        }
        most = most.max(place + 1 - since);
    }
    most as u64
}
