//! The one limiter of the project: what an account holds, and how an entry changes it.

use serde::{Deserialize, Serialize};

use super::{
    entry::{Balance, Entry, Parcel, Promise, Settled, Take},
    lease::{self, Situation, Terms},
    peers::{Hearing, Peers},
    queue::Queue,
    quota::{LONGEST_HOLD, Quota},
    ring::Ring,
};
use crate::time::Timestamp;

/// What has been spent against one quota, and what is held; nothing, at first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Account {
    ring: Ring,
    peers: Peers,
    queue: Queue,
    /// The latest instant that the account has seen: a clock that is set back does not bring units back.
    latest: Timestamp,
}

impl Account {
    /// Changes the account by `entry` at `now`.
    pub fn apply(&mut self, entry: &Entry, now: Timestamp) -> Balance {
        let quota = &entry.quota;
        let now = self.advance(quota, now);
        let hearing = self.peers.hear(entry.from, entry.number, now);
        let mut freed = 0;
        if hearing == Hearing::New {
            for settled in &entry.settled {
                freed += self.settle(quota, *settled, now);
            }
        }
        if hearing != Hearing::Repeated {
            self.ring.add(quota.bucket(now), entry.owed);
        }
        if let Some(ticket) = entry.left {
            self.queue.leave(ticket);
        }
        match entry.take {
            // Its sender has heard already what became of it, or will not listen any more.
            Some(take) if hearing == Hearing::Repeated => self.refuse(quota, take, now),
            Some(take) => self.take(quota, take, entry.from, freed, now),
            None => self.balance(quota, true, now),
        }
    }

    /// Changes several accounts at once, each by its entry: all that is asked for is held, or nothing. What was to be settled
    /// is settled in any case.
    pub fn apply_all<'a>(
        changes: impl IntoIterator<Item = (&'a mut Self, &'a Entry)>,
        now: Timestamp,
    ) -> Vec<Balance> {
        let mut changed: Vec<_> = changes
            .into_iter()
            .map(|(account, entry)| {
                let before = account.clone();
                let balance = account.apply(entry, now);
                (account, before, entry, balance)
            })
            .collect();
        if changed.iter().any(|(.., balance)| !balance.granted) {
            for (account, before, entry, balance) in &mut changed {
                if balance.granted && entry.take.is_some() {
                    **account = before.clone();
                    let settled = Entry {
                        take: None,
                        ..(*entry).clone()
                    };
                    *balance = account.apply(&settled, now);
                }
            }
        }
        changed.into_iter().map(|(.., balance)| balance).collect()
    }

    /// When nothing in the account counts any more, so that it may be forgotten.
    pub fn empty_at(&self, quota: &Quota, now: Timestamp) -> Timestamp {
        self.ring.empty_at(quota, now)
    }

    /// Units that lie ahead at `now`: held, and not known to be spent.
    pub fn held(&self, quota: &Quota, now: Timestamp) -> u64 {
        self.ring.ahead(quota, now)
    }

    fn advance(&mut self, quota: &Quota, now: Timestamp) -> Timestamp {
        self.latest = self.latest.max(now);
        self.ring.roll(quota, self.latest);
        self.queue.roll(self.latest);
        self.latest
    }

    /// Moves what was spent to when it was spent, and frees what was not; says how much that was.
    ///
    /// It was spent `ago` before the message was sent, so not later than `ago` before now.
    fn settle(&mut self, quota: &Quota, settled: Settled, now: Timestamp) -> u64 {
        let then = quota.bucket(Timestamp(now.0.saturating_sub(settled.ago)));
        if then < settled.bucket {
            let spent = self.ring.remove(settled.bucket, settled.spent);
            if quota.expiry(then) > now {
                self.ring.add(then, spent);
            }
        }
        self.ring.remove(settled.bucket, settled.unspent)
    }

    /// `freed` is what the same message has given back.
    fn take(
        &mut self,
        quota: &Quota,
        take: Take,
        from: u32,
        freed: u64,
        now: Timestamp,
    ) -> Balance {
        let room = quota.limit.get().saturating_sub(self.ring.used());
        // Who waits has the first claim, each to one unit; but whoever only holds for longer what it holds takes it from nobody.
        let before = if freed >= take.units {
            0
        } else {
            self.queue.before(take.place) as u64
        };
        let granted = take.units.saturating_add(before) <= room;
        let more = take.more.min(room.saturating_sub(take.units));
        // Whoever does not get all of what it asks for gets no lease beyond it.
        let free = (granted && more == take.more).then(|| room - take.units - more);
        let terms = self.terms(quota, take, from, free, now);
        let promises = self.promise(quota, take, terms, now);
        if !granted {
            let mut balance = self.refuse(quota, take, now);
            if let Some(last) = promises.last() {
                balance.again = Timestamp(now.0.saturating_add(last.after));
            }
            balance.promises = promises;
            return balance;
        }
        if let Some(place) = take.place {
            self.queue.leave(place.ticket);
        }
        let hold = if terms.lump > 0 {
            terms.hold.max(take.hold)
        } else {
            take.hold
        };
        let bucket = quota.bucket_ahead(now, hold.min(LONGEST_HOLD));
        let parcel = Parcel {
            bucket,
            units: take.units.saturating_add(more).saturating_add(terms.lump),
            lasts: quota.end(bucket).0.saturating_sub(now.0),
        };
        self.ring.add(bucket, parcel.units);
        Balance {
            parcel: Some(parcel),
            promises,
            ..self.balance(quota, true, now)
        }
    }

    /// What is given beyond what is asked for; nothing where no lease is asked for, or none is worthwhile.
    fn terms(
        &mut self,
        quota: &Quota,
        take: Take,
        from: u32,
        free: Option<u64>,
        now: Timestamp,
    ) -> Terms {
        let Some(demand) = take.demand else {
            return Terms::default();
        };
        let (share, holders) = self.peers.share(from, demand.rate, now);
        let situation = Situation {
            quota: *quota,
            free: free.unwrap_or(0),
            units: take.units.saturating_add(take.more),
            demand,
            share,
            holders,
        };
        if !lease::worthwhile(&situation) {
            return Terms::default();
        }
        let terms = lease::terms(&situation);
        Terms {
            lump: if free.is_some() { terms.lump } else { 0 },
            ..terms
        }
    }

    /// Promises the holder its share of what leaves the window soon.
    fn promise(&mut self, quota: &Quota, take: Take, terms: Terms, now: Timestamp) -> Vec<Promise> {
        let (Some(demand), true) = (take.demand, terms.horizon > 0) else {
            return Vec::new();
        };
        let horizon = Timestamp(now.0.saturating_add(terms.horizon));
        let to = quota.bucket_ahead(now, (2 * terms.horizon).min(LONGEST_HOLD));
        let mut due = 0.0;
        let mut given = 0;
        let planned: Vec<(u64, u64)> = self
            .ring
            .leaving(quota, horizon)
            .filter(|(bucket, ..)| *bucket > demand.promised && *bucket < to)
            .filter_map(|(bucket, units, free)| {
                due += units as f64 * terms.share;
                let units = (due as u64).saturating_sub(given).min(free);
                given += units;
                (units > 0).then_some((bucket, units))
            })
            .collect();
        planned
            .into_iter()
            .filter_map(|(from, units)| {
                let units = self.ring.promise(from, to, units);
                let after = quota.expiry(from).0.saturating_sub(now.0);
                let lasts = quota.end(to).0.saturating_sub(now.0);
                (units > 0).then_some(Promise {
                    from,
                    after,
                    parcel: Parcel {
                        bucket: to,
                        units,
                        lasts,
                    },
                })
            })
            .collect()
    }

    fn refuse(&mut self, quota: &Quota, take: Take, now: Timestamp) -> Balance {
        let mut balance = self.balance(quota, false, now);
        balance.until = self.ring.room_at(quota, take.units, now);
        balance.again = self.worth_asking_at(quota, balance.until, now);
        if let Some((before, again)) = take.place.and_then(|place| self.queue.wait(place, now)) {
            balance.queued = Some(before);
            balance.again = again;
        }
        balance
    }

    /// When it is worth asking again: what is held may come back sooner than it leaves the window.
    fn worth_asking_at(&self, quota: &Quota, until: Timestamp, now: Timestamp) -> Timestamp {
        if quota.per == 0 {
            return now;
        }
        let coming_back = self.ring.ahead(quota, now) > 0 || self.ring.promised() > 0;
        if coming_back {
            until.min(Timestamp(now.0.saturating_add(RETURNS)))
        } else {
            until
        }
    }

    fn balance(&self, quota: &Quota, granted: bool, now: Timestamp) -> Balance {
        Balance {
            granted,
            at: now,
            remaining: quota.limit.get().saturating_sub(self.ring.used()),
            until: self.ring.empty_at(quota, now),
            again: now,
            parcel: None,
            promises: Vec::new(),
            queued: None,
        }
    }
}

/// How soon to ask again where others hold units that may come back, in milliseconds.
const RETURNS: u64 = 1_000;
