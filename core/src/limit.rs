//! Limits that are never exceeded: what an account holds, and how an entry changes it.
//!
//! The one limiter of the project. Every platform stores an [`Account`], hands it an [`Entry`] and the time, and
//! keeps what comes out; none of them counts.
//!
//! The account is a ring of buckets (a sliding window in steps of a sixtieth). A bucket leaves the window only when the
//! latest instant that it can hold is a whole window old, so what is spent within *any* window of the given
//! length, wherever it begins, stays within the limit. The price is at most one sixtieth of the limit's use.

use std::{num::NonZeroU64, rc::Rc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How many buckets a window is divided into.
const BUCKETS: u64 = 60;

/// What is allowed: so many units in any window of this length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// Units.
    pub limit: NonZeroU64,
    /// The window's length in milliseconds.
    pub per: NonZeroU64,
}

impl Quota {
    /// The length of a bucket in milliseconds.
    fn width(&self) -> u64 {
        self.per.get().div_ceil(BUCKETS)
    }

    /// When a bucket has left every window that it was in.
    fn expiry(&self, bucket: u64) -> Timestamp {
        Timestamp(
            bucket
                .saturating_add(1)
                .saturating_mul(self.width())
                .saturating_add(self.per.get()),
        )
    }
}

/// A change to an account.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Hold these units, if the quota has room for them.
    Hold {
        /// What is allowed.
        quota: Quota,
        /// How many units are asked for.
        units: u64,
    },
    /// Give back units that were held and surely not spent.
    Release {
        /// What is allowed.
        quota: Quota,
        /// How many units come back.
        units: u64,
        /// When they were held, as the [`Balance`] said.
        held: Timestamp,
    },
}

/// What an account says to an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// Whether the units are held, or were released.
    pub granted: bool,
    /// When the account was asked, by its own clock.
    pub at: Timestamp,
    /// Units that are left.
    pub remaining: u64,
    /// When granted, the instant by which the whole quota is free again if nobody takes more. When refused, the first
    /// instant at which the same entry is granted if nobody comes in between.
    pub until: Timestamp,
}

/// What has been spent against one quota; nothing, at first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Buckets that still count, oldest first: number and units. A bucket's number is its time divided by its width,
    /// rounded down. At most [`BUCKETS`] and two of them.
    buckets: Vec<(u64, u64)>,
    /// The latest instant that the account has seen: a clock that is set back does not bring units back.
    latest: Timestamp,
}

impl Account {
    /// Changes the account by `entry` at `now`.
    pub fn apply(&mut self, entry: Entry, now: Timestamp) -> Balance {
        let now = self.latest.max(now);
        self.latest = now;
        match entry {
            Entry::Hold { quota, units } => {
                self.forget(&quota, now);
                let granted = self.used().saturating_add(units) <= quota.limit.get();
                if granted {
                    self.add(&quota, units, now);
                }
                Balance {
                    granted,
                    at: now,
                    remaining: quota.limit.get().saturating_sub(self.used()),
                    until: if granted {
                        self.empty_at(&quota, now)
                    } else {
                        self.room_at(&quota, units, now)
                    },
                }
            }
            Entry::Release { quota, units, held } => {
                self.forget(&quota, now);
                self.subtract(&quota, units, held);
                Balance {
                    granted: true,
                    at: now,
                    remaining: quota.limit.get().saturating_sub(self.used()),
                    until: self.empty_at(&quota, now),
                }
            }
        }
    }

    /// When nothing in the account counts any more, so that it may be forgotten.
    pub fn empty_at(&self, quota: &Quota, now: Timestamp) -> Timestamp {
        self.buckets
            .last()
            .map_or(now, |(bucket, _)| quota.expiry(*bucket))
    }

    fn used(&self) -> u64 {
        self.buckets
            .iter()
            .fold(0, |sum, (_, units)| sum.saturating_add(*units))
    }

    fn forget(&mut self, quota: &Quota, now: Timestamp) {
        self.buckets
            .retain(|(bucket, _)| quota.expiry(*bucket) > now);
    }

    fn add(&mut self, quota: &Quota, units: u64, now: Timestamp) {
        if units == 0 {
            return;
        }
        let bucket = now.0 / quota.width();
        match self.buckets.last_mut() {
            Some((last, held)) if *last >= bucket => *held = held.saturating_add(units),
            _ => self.buckets.push((bucket, units)),
        }
    }

    fn subtract(&mut self, quota: &Quota, units: u64, held: Timestamp) {
        let bucket = held.0 / quota.width();
        // Not there: it has left the window already, and so have its units.
        if let Some(entry) = self
            .buckets
            .iter_mut()
            .find(|(number, _)| *number == bucket)
        {
            entry.1 = entry.1.saturating_sub(units);
        }
        self.buckets.retain(|(_, units)| *units > 0);
    }

    /// The first instant at which `units` fit, if nobody takes more; never, if the quota is smaller than that.
    fn room_at(&self, quota: &Quota, units: u64, now: Timestamp) -> Timestamp {
        let Some(room) = quota.limit.get().checked_sub(units) else {
            return Timestamp(u64::MAX);
        };
        let mut used = self.used();
        for (bucket, held) in &self.buckets {
            if used <= room {
                break;
            }
            used = used.saturating_sub(*held);
            if used <= room {
                return quota.expiry(*bucket);
            }
        }
        now
    }
}

/// What the configuration says of one limit, and the account that it is counted on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Whose it is, for the caller to read: `route llm`.
    pub scope: Rc<str>,
    /// The name of the account, the same on every node: `route llm requests 60000`.
    pub account: String,
    /// What is allowed.
    pub quota: Quota,
}

impl Limit {
    /// A limit on requests, counted for `scope`.
    pub fn requests(scope: &str, limit: NonZeroU64, per: NonZeroU64) -> Self {
        Self {
            scope: scope.into(),
            account: format!("{scope} requests {per}"),
            quota: Quota { limit, per },
        }
    }
}

/// What a caller is told of the limits that it has passed: those of the tightest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Units that are allowed in a window.
    pub limit: u64,
    /// Units that are left.
    pub remaining: u64,
    /// How long until the whole limit is free again; for a refusal, until there is room.
    pub reset: Duration,
}

impl Standing {
    /// Where `limit` stands after `balance`.
    pub fn of(limit: &Limit, balance: &Balance) -> Self {
        let reset = balance.until.since(balance.at);
        Self {
            limit: limit.quota.limit.get(),
            remaining: balance.remaining,
            reset,
        }
    }

    /// The tighter of both: the one with less left, then the one that takes longer.
    pub fn tighter(self, other: Self) -> Self {
        if (other.remaining, std::cmp::Reverse(other.reset))
            < (self.remaining, std::cmp::Reverse(self.reset))
        {
            other
        } else {
            self
        }
    }
}
