//! What is asked of the nodes, and how far they are from the ledger: the same for every scheme, as the seed says.

use tidegate_core::dice::Dice;

/// A place to try a scheme in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Units in a window.
    pub(crate) limit: u64,
    /// The window, in seconds.
    pub(crate) per: u64,
    pub(crate) nodes: usize,
    /// Whether some nodes are asked more than others: the n-th in proportion to 1/n.
    pub(crate) skewed: bool,
    /// Requests a second, of all nodes together.
    pub(crate) rate: f64,
    /// Whether they come in bursts: for two seconds of ten, four times as many; else a quarter.
    pub(crate) bursty: bool,
    /// One way to the ledger, in milliseconds: each node has its own, between these.
    pub(crate) delay: (u64, u64),
    /// How many seconds a node lives in the mean; for ever, if zero. Another takes its place at once.
    pub(crate) life: u64,
    /// How many milliseconds a node counts on living: how long a lease is of use to it.
    pub(crate) lease: u64,
    /// For how many seconds it is watched.
    pub(crate) seconds: u64,
}

/// All that comes from outside.
pub(crate) struct Load {
    /// When a request comes, and to which node, in order.
    pub(crate) requests: Vec<(u64, usize)>,
    /// When a node dies.
    pub(crate) deaths: Vec<(u64, usize)>,
    /// One way to the ledger, by node.
    pub(crate) delays: Vec<u64>,
}

impl Scenario {
    /// Any scenario, as the seed says: few nodes or many, near or far, quiet or wild, and nodes that die.
    pub(crate) fn any(seed: u64) -> Self {
        let dice = &mut Dice::new(u128::from(seed).to_be_bytes());
        let per = [1, 10, 60][between(dice, (0, 2)) as usize];
        let limit = (10_000.0_f64.powf(fraction(dice)) * 1.5) as u64;
        let load = 0.3 + 3.0 * fraction(dice);
        let near = between(dice, (1, 125));
        let far = between(dice, (near, 125));
        let life = [0, 5, 20, 60][between(dice, (0, 3)) as usize];
        Self {
            name: "any",
            limit,
            per,
            nodes: between(dice, (1, 50)) as usize,
            skewed: dice.roll() % 2 == 0,
            rate: (load * limit as f64 / per as f64).min(250.0),
            bursty: dice.roll() % 2 == 0,
            delay: (near, far),
            life,
            lease: [1_000, 30_000][between(dice, (0, 1)) as usize],
            seconds: (per * 3).max(20),
        }
    }
}

/// A number from 0 up to 1, without 1.
pub(crate) fn fraction(dice: &mut Dice) -> f64 {
    (dice.roll() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A whole number between both, both counted.
pub(crate) fn between(dice: &mut Dice, (low, high): (u64, u64)) -> u64 {
    low + dice.roll() % (high - low + 1)
}

/// The time until the next event of a Poisson process, in milliseconds.
fn pause(dice: &mut Dice, per_second: f64) -> f64 {
    -(1.0 - fraction(dice)).ln() * 1_000.0 / per_second
}

impl Load {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let dice = &mut Dice::new(u128::from(seed).to_le_bytes());
        let end = (scenario.seconds * 1_000) as f64;
        let weight = |node: usize| {
            if scenario.skewed {
                1.0 / (node + 1) as f64
            } else {
                1.0
            }
        };
        let all: f64 = (0..scenario.nodes).map(weight).sum();
        let mut requests = Vec::new();
        let mut deaths = Vec::new();
        for node in 0..scenario.nodes {
            let rate = scenario.rate * weight(node) / all;
            let phase = if scenario.bursty {
                fraction(dice) * 10_000.0
            } else {
                0.0
            };
            let factor = |at: f64| match scenario.bursty {
                true if (at + phase) % 10_000.0 < 2_000.0 => 4.0,
                true => 0.25,
                false => 1.0,
            };
            // Thinned: drawn at the highest rate, of which a part is kept.
            let highest = if scenario.bursty { 4.0 } else { 1.0 };
            let mut at = pause(dice, rate * highest);
            while at < end {
                if fraction(dice) < factor(at) / highest {
                    requests.push((at as u64, node));
                }
                at += pause(dice, rate * highest);
            }
            if scenario.life > 0 {
                let mut at = pause(dice, 1.0 / scenario.life as f64);
                while at < end {
                    deaths.push((at as u64, node));
                    at += pause(dice, 1.0 / scenario.life as f64);
                }
            }
        }
        requests.sort_unstable();
        deaths.sort_unstable();
        let delays = (0..scenario.nodes)
            .map(|_| between(dice, scenario.delay))
            .collect();
        Self {
            requests,
            deaths,
            delays,
        }
    }
}
