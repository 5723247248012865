//! What is said to an account, and what it says.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::quota::Quota;
use crate::{
    overload::{Allotment, Report},
    time::{Timestamp, millis},
};

/// An entry, and the name of the account that it is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Posting {
    /// The name, the same on every node.
    pub account: Rc<str>,
    /// What is said to it.
    pub entry: Entry,
}

/// A message to an account: what became of units that were held, and what is asked for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What is allowed.
    pub quota: Quota,
    /// Who speaks: a number that an isolate draws at random for itself. Two that draw the same are heard less, never more.
    pub from: u32,
    /// The number of this message among those of the same speaker to this account; every one has another.
    pub number: u32,
    /// What became of units that were held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Settled>,
    /// Units that were spent though nobody held them: they count from now on, and what comes after waits for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub owed: u64,
    /// What an operator does to the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjust: Option<Adjustment>,
    /// The ticket of somebody who waits no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u32>,
    /// What is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<Take>,
    /// How its sender does with an upstream that others ask as well. Then nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// What became of some of the units that were held in a bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// The bucket, as the [`Parcel`] said.
    pub bucket: u64,
    /// Units that were spent.
    pub spent: u64,
    /// How long ago, in milliseconds before this was said.
    pub ago: u64,
    /// Units that were not spent, and will not be.
    pub unspent: u64,
}

/// Units that are asked for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Take {
    /// How many: all of them, or none.
    pub units: u64,
    /// How many more, as far as there is room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// For how long they are held, in milliseconds. Whoever takes them spends them by then, or never.
    pub hold: u64,
    /// Units that are held already, by bucket, and given back for these; where these are refused, those stay held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instead_of: Vec<(u64, u64)>,
    /// What else could be used, where more is worth a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,
    /// A place in the queue, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// What a holder could use of an account beyond the request at hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// Thousandths of a unit a second that are asked of the holder.
    pub rate: u64,
    /// The longest that the holder can count on living, in milliseconds.
    pub longest: u64,
    /// The last bucket whose room was promised to the holder already.
    pub promised: u64,
}

/// What an operator does to an account.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adjustment {
    /// What was spent counts no more. What is held ahead still does; what is held in the bucket that runs cannot be told from what
    /// was spent in it.
    Reset,
    /// So many more units are allowed for a while.
    Raise {
        /// How many.
        units: u64,
        /// For how many milliseconds.
        lasts: u64,
    },
}

/// A place in the queue before an account.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Who waits: a number drawn at random.
    pub ticket: u32,
    /// How many may wait.
    pub room: u32,
}

impl Entry {
    /// Whether the account has changed in a way that must be kept, if this is what it says.
    pub fn is_kept(&self, balance: &Balance) -> bool {
        balance.parcel.is_some()
            || !self.settled.is_empty()
            || self.owed > 0
            || self.adjust.is_some()
            || self.left.is_some()
            || !balance.promises.is_empty()
            || balance.queued.is_some()
            || self.report.is_some()
    }
}

fn is_zero(units: &u64) -> bool {
    *units == 0
}

/// What an account says to an entry.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// Whether the units are held that were asked for; true where none were.
    pub granted: bool,
    /// When the account was asked, by its own clock.
    pub at: Timestamp,
    /// Units that were spent in the window that is over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub used: u64,
    /// Units that are held for requests, and not known to be spent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held: u64,
    /// Units that are lent: their holders may have spent them, or not yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub leased: u64,
    /// Units that are left.
    pub remaining: u64,
    /// Units that an operator allows beyond the quota just now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub raised: u64,
    /// When granted, the instant by which the whole quota is free again if nobody takes more. When refused, the first
    /// instant at which the same is granted if nobody comes in between and nothing comes back.
    pub until: Timestamp,
    /// When refused, the instant before which asking again is in vain or worth little.
    pub again: Timestamp,
    /// The units that are held now: those asked for, and perhaps more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parcel: Option<Parcel>,
    /// Units that the holder will have without asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promises: Vec<Promise>,
    /// How many stand before this one in the queue, where it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u32>,
    /// What it may have in progress who has said how it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allotment: Option<Allotment>,
}

/// For how long after it was held a unit may come back that was not spent, in milliseconds; and how soon to ask again for it.
pub(super) const RETURNS: u64 = 1_000;

impl Balance {
    /// Whether what is refused will not be had soon, whatever others give back.
    pub(crate) fn is_certain(&self) -> bool {
        !self.granted && millis(self.again.since(self.at)) > RETURNS
    }

    /// Units that are held now, or will be, because of what was asked.
    pub(super) fn taken(&self) -> u64 {
        let parcels = self.promises.iter().map(|promise| &promise.parcel);
        let units = parcels.chain(&self.parcel).map(|parcel| parcel.units);
        units.fold(0, u64::saturating_add)
    }
}

/// Units that are held.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Parcel {
    /// The bucket that they are counted in until they are settled.
    pub bucket: u64,
    /// How many.
    pub units: u64,
    /// For how long they can be spent, in milliseconds, counted from when the entry was *sent*.
    pub lasts: u64,
}

/// Units that will be held once others have left the window.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// The bucket whose room it is.
    pub from: u64,
    /// In how many milliseconds it has left the window, counted from when the balance was *received*.
    pub after: u64,
    /// The units, as they are then.
    pub parcel: Parcel,
}
