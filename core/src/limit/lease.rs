//! How much more than asked for is worth giving, so that the holder need not come back for the next request.

use super::{entry::Demand, quota::Quota};

/// The shortest lease, in milliseconds: what a busy limit that is nearly used up gives.
const SHORTEST: u64 = 500;

/// The longest lease, in milliseconds: what a limit gives that is hardly used.
const LONGEST: u64 = 30_000;

/// How far ahead room is promised that is not free yet, in milliseconds: until so many units of it have come to the holder, but not
/// less far than this, nor farther than that.
const ENOUGH: f64 = 16.0;
const NEAREST: u64 = 2_000;
const FARTHEST: u64 = 8_000;

/// A limit of fewer requests in a window than this costs so few calls that none need be saved.
const FEWEST: u64 = 256;

/// How many requests of each holder a limit must have room for, so that what one holds does not starve the others.
const EACH: u64 = 20;

/// What is known of an account and its holders when one asks for more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// What is allowed.
    pub(super) quota: Quota,
    /// Units that are free once those asked for are held.
    pub(super) free: u64,
    /// Units that are asked for.
    pub(super) units: u64,
    /// What the holder could use.
    pub(super) demand: Demand,
    /// Its share of what is asked of all holders: 0 to 1.
    pub(super) share: f64,
    /// How many holders there are.
    pub(super) holders: usize,
}

/// What is given.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Terms {
    /// Units beyond those asked for.
    pub(super) lump: u64,
    /// For how long they are held, in milliseconds.
    pub(super) hold: u64,
    /// How far ahead room is promised, in milliseconds; zero where there is enough free.
    pub(super) horizon: u64,
    /// The holder's share of it: 0 to 1.
    pub(super) share: f64,
}

/// Whether leases save calls here without starving anybody.
pub(super) fn worthwhile(situation: &Situation) -> bool {
    let requests = situation.quota.limit.get() / situation.units.max(1);
    let others = situation.holders as u64;
    !situation.quota.is_concurrent()
        && requests >= FEWEST
        && requests >= EACH.saturating_mul(others)
        && situation
            .demand
            .rate
            .saturating_mul(longest(situation))
            .div_euclid(1_000_000)
            >= 2 * situation.units
}

/// The lease: for a time that shrinks as the limit is used up, and never more than half of the holder's share of what is free.
///
/// After the capacity leases of Doorman and the escrow method (O'Neil 1986): whoever has a lease spends without asking.
pub(super) fn terms(situation: &Situation) -> Terms {
    let limit = situation.quota.limit.get() as f64;
    let free = situation.free as f64;
    let rate = situation.demand.rate as f64 / 1_000_000.0;
    let longest = longest(situation);
    let shortest = SHORTEST.min(longest);
    let fullness = free / limit;
    let hold = shortest + ((longest - shortest) as f64 * fullness) as u64;
    let lump = (rate * hold as f64).min(free * situation.share / 2.0) as u64;
    let fair = limit * situation.share / situation.quota.per as f64;
    let horizon = ((ENOUGH / fair) as u64)
        .clamp(NEAREST, FARTHEST)
        .min(longest);
    let scarce = (lump as f64) < rate * horizon as f64;
    Terms {
        lump,
        hold: if scarce { hold.max(horizon) } else { hold },
        horizon: if scarce { horizon } else { 0 },
        share: situation.share,
    }
}

fn longest(situation: &Situation) -> u64 {
    LONGEST
        .min(situation.demand.longest)
        .min(situation.quota.per / 2)
}
