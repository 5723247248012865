//! The one limiter of the project: what an account holds, and how an entry changes it.

use std::mem;

use serde::{Deserialize, Serialize};

use super::{
    entry::{Adjustment, Balance, Entry, Parcel, Posting, Promise, RETURNS, Settled, Take},
    lease::{self, Situation, Terms},
    peers::{Hearing, Peers},
    queue::Queue,
    quota::{LONGEST_HOLD, Quota},
    ring::Ring,
    stored::{FRAME, LARGEST},
};
use crate::{overload::Roster, time::Timestamp};

/// What has been spent against one quota, and what is held; nothing, at first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    ring: Ring,
    peers: Peers,
    queue: Queue,
    raise: Option<Raise>,
    /// Who shares what an upstream bears, of an account that is kept for that.
    roster: Roster,
    /// The latest instant that the account has seen: a clock that is set back does not bring units back.
    latest: Timestamp,
}

/// Units that an operator allows beyond the quota.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Raise {
    units: u64,
    until: Timestamp,
}

impl Account {
    /// Changes the account by `entry` at `now`.
    pub fn apply(&mut self, entry: &Entry, now: Timestamp) -> Balance {
        let latest = self.advance(&entry.quota, now);
        let mut balance = match &entry.report {
            Some(report) => Balance {
                allotment: Some(self.roster.hear(entry.from, report, latest)),
                ..self.balance(&entry.quota, true, latest)
            },
            None => self.change(entry, latest),
        };
        // A clock that was set back has to come to where it was before anything leaves the window.
        let pause = balance.again.since(balance.at);
        (balance.at, balance.again) = (now, now.after(pause));
        balance
    }

    fn change(&mut self, entry: &Entry, now: Timestamp) -> Balance {
        if let Some(adjustment) = entry.adjust {
            self.adjust(&entry.quota, adjustment, now);
        }
        let quota = &self.raised(entry.quota);
        let hearing = self.peers.hear(entry.from, entry.number);
        let mut back = 0_u64;
        if hearing == Hearing::New {
            for settled in &entry.settled {
                self.settle(quota, *settled, now);
                let units = settled.spent.saturating_add(settled.unspent);
                back = back.saturating_add(units);
            }
        }
        if hearing != Hearing::Repeated {
            self.ring.add(quota.bucket(now), entry.owed);
        }
        if let Some(ticket) = entry.left {
            self.queue.leave(ticket);
        }
        let balance = match &entry.take {
            // Its sender has heard already what became of it, or will not listen any more.
            Some(take) if hearing == Hearing::Repeated => self.refuse(quota, take, now),
            Some(take) => {
                let given = if hearing == Hearing::New {
                    self.give_up(&take.instead_of)
                } else {
                    Vec::new()
                };
                let balance = self.take(quota, take, entry.from, sum(&given), now);
                if balance.granted {
                    back = back.saturating_add(sum(&given));
                } else {
                    for (bucket, units) in given {
                        self.ring.add(bucket, units);
                    }
                }
                balance
            }
            None => self.balance(quota, true, now),
        };
        self.peers.note(balance.taken(), back);
        if self.peers.are_many() {
            let others = FRAME + self.ring.size() + self.queue.size();
            self.peers.fit(LARGEST.saturating_sub(others));
        }
        balance
    }

    /// Changes several accounts at once, each by its posting: all that is asked for is held, or nothing. What was to be settled
    /// is settled in any case.
    ///
    /// Of each posting it takes what was `found` of its account, in their order, and gives what has become of it, with its
    /// balance. An account that was not to be had fails alone.
    pub fn apply_all<F>(
        found: impl IntoIterator<Item = Result<Self, F>>,
        postings: &[Posting],
        now: Timestamp,
    ) -> Vec<Result<(Self, Balance), F>> {
        let mut changed: Vec<_> = found
            .into_iter()
            .zip(postings)
            .map(|(found, Posting { entry, .. })| {
                let mut account = found?;
                let before = account.clone();
                let balance = account.apply(entry, now);
                Ok((account, before, entry, balance))
            })
            .collect();
        let mut there = changed.iter().flatten();
        if there.any(|(.., balance)| !balance.granted) {
            for (account, before, entry, balance) in changed.iter_mut().flatten() {
                if balance.granted && entry.take.is_some() {
                    mem::swap(account, before);
                    let settled = Entry {
                        take: None,
                        ..entry.clone()
                    };
                    *balance = account.apply(&settled, now);
                }
            }
        }
        let changed = changed.into_iter();
        changed
            .map(|changed| changed.map(|(account, .., balance)| (account, balance)))
            .collect()
    }

    fn adjust(&mut self, quota: &Quota, adjustment: Adjustment, now: Timestamp) {
        match adjustment {
            Adjustment::Reset => self.ring.forget(quota, now),
            Adjustment::Raise { units, lasts } => {
                let until = Timestamp(now.0.saturating_add(lasts));
                self.raise = Some(Raise { units, until });
            }
        }
    }

    /// The quota, and what an operator allows beyond it.
    fn raised(&mut self, quota: Quota) -> Quota {
        self.raise = self.raise.filter(|raise| raise.until > self.latest);
        let units = self.raise.map_or(0, |raise| raise.units);
        Quota {
            limit: quota.limit.saturating_add(units),
            ..quota
        }
    }

    /// When nothing in the account counts any more, and nothing holds of it, so that it may be forgotten.
    pub fn empty_at(&self, quota: &Quota, now: Timestamp) -> Timestamp {
        let raised = self.raise.map_or(now, |raise| raise.until);
        let empty = self.ring.empty_at(quota, now.max(self.latest));
        empty.max(raised).max(self.roster.empty_at())
    }

    fn advance(&mut self, quota: &Quota, now: Timestamp) -> Timestamp {
        let before = self.latest;
        self.latest = before.max(now);
        self.ring.roll(quota, self.latest);
        self.queue.roll(self.latest.0 - before.0);
        self.peers.roll(before, self.latest);
        self.latest
    }

    /// Moves what was spent to when it was spent, and frees what was not.
    ///
    /// It was spent `ago` before the message was sent, so not later than `ago` before now.
    fn settle(&mut self, quota: &Quota, settled: Settled, now: Timestamp) {
        let then = quota.bucket(Timestamp(now.0.saturating_sub(settled.ago)));
        if then < settled.bucket {
            let spent = self.ring.remove(settled.bucket, settled.spent);
            if quota.expiry(then) > now {
                self.ring.add(then, spent);
            }
        }
        self.ring.remove(settled.bucket, settled.unspent);
    }

    /// Frees units by bucket, and says what it were.
    fn give_up(&mut self, units: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let free = |(bucket, units): &(u64, u64)| (*bucket, self.ring.remove(*bucket, *units));
        units.iter().map(free).collect()
    }

    /// `given` is what was given up for what is asked.
    fn take(
        &mut self,
        quota: &Quota,
        take: &Take,
        from: u32,
        given: u64,
        now: Timestamp,
    ) -> Balance {
        let room = quota.limit.get().saturating_sub(self.ring.used());
        // Who waits has the first claim, each to one unit; but whoever only holds for longer what it holds takes it from nobody.
        let before = if given > 0 && given >= take.units {
            0
        } else {
            self.queue.before(take.place) as u64
        };
        let granted = take.units.saturating_add(before) <= room;
        let more = take.more.min(room.saturating_sub(take.units));
        // Whoever does not get all of what it asks for gets no lease beyond it.
        let free = (granted && more == take.more).then(|| room - take.units - more);
        let terms = self.terms(quota, take, from, free);
        let promises = self.promise(quota, take, terms, now);
        if !granted {
            let queued = take.place.and_then(|place| self.queue.wait(place));
            let mut balance = self.refuse(quota, take, now);
            balance.again = balance
                .again
                .max(self.dry_until(quota, take, &promises, now));
            if let Some((before, pause)) = queued {
                balance.queued = Some(before);
                balance.again = Timestamp(now.0.saturating_add(pause));
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
        self.ring.lend(bucket, terms.lump);
        let mut balance = self.balance(quota, true, now);
        if terms.horizon > 0 && terms.lump == 0 {
            balance.again = self.dry_until(quota, take, &promises, now);
        }
        balance.parcel = Some(parcel);
        balance.promises = promises;
        balance
    }

    /// What is given beyond what is asked for; nothing where no lease is asked for, or none is worthwhile.
    fn terms(&mut self, quota: &Quota, take: &Take, from: u32, free: Option<u64>) -> Terms {
        let Some(demand) = take.demand else {
            return Terms::default();
        };
        let (share, holders) = self.peers.share(from, demand.rate);
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
    fn promise(
        &mut self,
        quota: &Quota,
        take: &Take,
        terms: Terms,
        now: Timestamp,
    ) -> Vec<Promise> {
        let (Some(demand), true) = (take.demand, terms.horizon > 0) else {
            return Vec::new();
        };
        let horizon = Timestamp(now.0.saturating_add(terms.horizon));
        let mut due = 0.0;
        let mut given = 0;
        let planned: Vec<(u64, u64)> = self
            .ring
            .leaving(quota, horizon)
            .filter(|bucket| bucket.number > demand.promised)
            .map(|bucket| {
                due += bucket.units as f64 * terms.share;
                let units = (due.ceil() as u64)
                    .saturating_sub(given)
                    .min(bucket.unpromised());
                given += units;
                (bucket.number, units)
            })
            .filter(|(_, units)| *units > 0)
            .collect();
        for (bucket, units) in &planned {
            self.ring.promise(*bucket, *units);
        }
        let promise = |(from, units): &(u64, u64)| {
            let heir = quota.heir(*from);
            Promise {
                from: *from,
                after: quota.expiry(*from).0.saturating_sub(now.0),
                parcel: Parcel {
                    bucket: heir,
                    units: *units,
                    lasts: quota.end(heir).0.saturating_sub(now.0),
                },
            }
        };
        planned.iter().map(promise).collect()
    }

    /// Until when there is nothing to be had for a holder but what it was promised.
    fn dry_until(
        &self,
        quota: &Quota,
        take: &Take,
        promises: &[Promise],
        now: Timestamp,
    ) -> Timestamp {
        let before = take.demand.map_or(0, |demand| demand.promised);
        let last = promises.last().map_or(before, |promise| promise.from);
        let comes = quota.expiry(last);
        now.max(comes)
    }

    fn refuse(&self, quota: &Quota, take: &Take, now: Timestamp) -> Balance {
        let mut balance = self.balance(quota, false, now);
        balance.until = self.room_at(quota, take, now);
        balance.again = self.worth_asking_at(quota, balance.until, now);
        balance
    }

    /// The first instant at which the same is granted if nobody comes in between and nothing comes back; never, if the
    /// quota is smaller than that.
    fn room_at(&self, quota: &Quota, take: &Take, now: Timestamp) -> Timestamp {
        let (mut ring, mut queue, mut at) = (self.ring.clone(), self.queue.clone(), now);
        loop {
            let before = queue.before(take.place) as u64;
            let room = self.limit_at(quota, at).saturating_sub(ring.used());
            if take.units.saturating_add(before) <= room {
                return at;
            }
            let leaves = queue.next().map(|after| at.0.saturating_add(after));
            let next = ring
                .next(quota)
                .into_iter()
                .chain(leaves.map(Timestamp))
                .min();
            let Some(next) = next.filter(|next| *next > at) else {
                return Timestamp(u64::MAX);
            };
            ring.roll(quota, next);
            queue.roll(next.0 - at.0);
            at = next;
        }
    }

    /// What is left of `quota` at an instant that is to come: what an operator allows beyond it ends.
    fn limit_at(&self, quota: &Quota, at: Timestamp) -> u64 {
        let ended = self.raise.filter(|raise| raise.until <= at);
        let units = ended.map_or(0, |raise| raise.units);
        quota.limit.get().saturating_sub(units)
    }

    /// When it is worth asking again: what is held may come back sooner than it leaves the window.
    fn worth_asking_at(&self, quota: &Quota, until: Timestamp, now: Timestamp) -> Timestamp {
        if quota.is_concurrent() {
            return now;
        }
        // What was taken just now may come back as well, from whoever was let in here and refused elsewhere; and what has come too
        // late to be used.
        let lately = Timestamp(now.0.saturating_sub(RETURNS));
        let coming_back = self.ring.recent(quota, lately) > 0 || self.ring.promised() > 0;
        if coming_back {
            until.min(Timestamp(now.0.saturating_add(RETURNS)))
        } else {
            until
        }
    }

    fn balance(&self, quota: &Quota, granted: bool, now: Timestamp) -> Balance {
        let ahead = self.ring.ahead(quota, now);
        let leased = self.ring.lent(quota, now);
        Balance {
            granted,
            at: now,
            used: self.ring.used() - ahead,
            held: ahead.saturating_sub(leased),
            leased,
            remaining: quota.limit.get().saturating_sub(self.ring.used()),
            raised: self.raise.map_or(0, |raise| raise.units),
            until: self.ring.empty_at(quota, now),
            again: now,
            parcel: None,
            promises: Vec::new(),
            queued: None,
            allotment: None,
        }
    }
}

fn sum(units: &[(u64, u64)]) -> u64 {
    units
        .iter()
        .fold(0, |sum, (_, units)| sum.saturating_add(*units))
}
