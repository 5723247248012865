//! What an isolate holds of one account, and may spend without asking.

use std::time::Duration;

use super::{
    entry::{Balance, Demand, Entry, Place, Settled, Take},
    lot::{Held, Lot, drift, shorter, sum, withdraw},
    meter::{Meter, SPAN},
    quota::Quota,
};
use crate::time::Timestamp;

/// After how many times the usual time between two requests without one what is in hand is given back; but not before so many
/// milliseconds, nor later than demand is remembered.
const IDLE: u64 = 1_000;
const GAPS: u64 = 4;

/// How long one task is trusted to see to a purse, in milliseconds.
const MINDED: u64 = 5_000;

/// For how long a refusal is remembered at most.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The part of a window by which units may be charged too long without a message for that alone.
const LATE: u64 = 4;

/// From how many places on an isolate keeps some in hand.
const PLENTY: u64 = 64;

/// How many spendings, and what of how many buckets is to be given back, are remembered apart until they are settled.
const SPENDINGS: usize = 48;

/// After how long without an answer a lease is asked for again, in milliseconds.
const ANSWERED: u64 = 3_000;

/// One isolate's part of one account.
///
/// Every duration that an account says is counted from the earlier of two instants where units can be spent until
/// then, and from the later where they can be spent from then on; and each is taken for as much shorter or longer as
/// two clocks may differ over it. So no two clocks need agree.
#[derive(Clone, Debug)]
pub struct Purse {
    quota: Quota,
    number: u32,
    /// Units in hand, those first that end first.
    lots: Vec<Lot>,
    /// Units to come.
    coming: Vec<(Timestamp, Lot)>,
    /// The last bucket whose room was promised.
    promised: u64,
    spent: Vec<Spent>,
    unspent: Vec<(u64, u64)>,
    /// Units that were spent and not held.
    owed: u64,
    demand: Meter,
    /// When a lease was asked for that has not been answered: one is enough.
    asked: Option<Timestamp>,
    denied: Option<Denied>,
    /// When units went back to the account: what it refused before says nothing any more.
    returned: Timestamp,
    known: Known,
    touched: Timestamp,
    /// Until when somebody sees to it that what is in hand is given back.
    minded: Timestamp,
}

/// Units that were spent, and not yet settled.
#[derive(Clone, Copy, Debug)]
struct Spent {
    bucket: u64,
    units: u64,
    /// The first of them and the last.
    since: Timestamp,
    at: Timestamp,
    until: Timestamp,
}

/// What is remembered of an account that has no more than it gave.
#[derive(Clone, Copy, Debug)]
struct Denied {
    /// How many units it has not; fewer may fit.
    units: u64,
    /// Until when asking is in vain.
    again: Timestamp,
    /// When there may be room: what others hold may come back.
    hope: Timestamp,
    /// When there is room.
    until: Timestamp,
    /// Whether it has promised all that will be had of it soon: then only one at a time asks for more.
    promised: bool,
}

/// What the account said last.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    remaining: u64,
    reset: Timestamp,
}

/// What is wanted of an account.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Want {
    /// Units: all of them, or none.
    pub units: u64,
    /// Units beyond them, as far as there is room.
    pub more: u64,
    /// For how long they are held, in milliseconds.
    pub hold: u64,
    /// A place in the queue, where there is one.
    pub place: Option<Place>,
}

/// What a purse says when units are asked of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Draw {
    /// They were in hand.
    Held(Held),
    /// The account has none, and it is in vain to ask it.
    Denied,
    /// The account must be asked.
    Ask,
}

impl Purse {
    /// An empty purse.
    pub fn new(quota: Quota, now: Timestamp) -> Self {
        Self::numbered(quota, 0, now)
    }

    /// An empty purse, whose messages come after the one with this number.
    pub(super) fn numbered(quota: Quota, number: u32, now: Timestamp) -> Self {
        Self {
            quota,
            number,
            lots: Vec::new(),
            coming: Vec::new(),
            promised: 0,
            spent: Vec::new(),
            unspent: Vec::new(),
            owed: 0,
            demand: Meter::new(now),
            asked: None,
            denied: None,
            returned: Timestamp::default(),
            known: Known::default(),
            touched: now,
            minded: now,
        }
    }

    /// The number of its last message.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Takes over a limit that was configured anew. The window is part of the account's name, and stays.
    pub fn keep_to(&mut self, quota: Quota) {
        if self.quota != quota {
            self.quota = quota;
            self.denied = None;
        }
    }

    /// Takes `units` out, if they are in hand and can be spent for `hold` more milliseconds.
    pub fn draw(&mut self, units: u64, hold: u64, now: Timestamp) -> Draw {
        self.touched = now;
        self.demand.add(units, now);
        self.tidy(now);
        let until = Timestamp(now.0.saturating_add(hold));
        let fits = |lot: &Lot| lot.until >= until;
        let in_hand: u64 = self
            .lots
            .iter()
            .filter(|lot| fits(lot))
            .map(|lot| lot.units)
            .sum();
        if in_hand >= units && units > 0 {
            return Draw::Held(Held(withdraw(&mut self.lots, units, fits)));
        }
        if self.is_denied(units, now) {
            Draw::Denied
        } else {
            Draw::Ask
        }
    }

    /// Whether it is known without asking that there is no room for `units`.
    pub fn is_denied(&self, units: u64, now: Timestamp) -> bool {
        self.denied.is_some_and(|denied| {
            let waits = now < denied.again || denied.promised && self.is_asked(now);
            waits && units >= denied.units
        })
    }

    /// The message that asks for what is wanted, with all that is to be settled. `longest` is how many milliseconds the
    /// isolate can count on living: zero where nothing beyond is of use.
    pub fn ask(&mut self, from: u32, want: Want, longest: u64, now: Timestamp) -> Entry {
        let rate = self.demand.rate(now);
        let lease = longest > 0 && !self.quota.is_concurrent() && !self.is_asked(now);
        if lease {
            self.asked = Some(now);
        }
        let mut entry = self.settle(from, now);
        entry.take = Some(Take {
            units: want.units,
            more: want.more,
            hold: want.hold,
            instead_of: Vec::new(),
            demand: lease.then_some(Demand {
                rate,
                longest,
                promised: self.promised,
            }),
            place: want.place,
        });
        entry
    }

    /// The message that asks for `units` in place of what is `held`, to hold them for longer.
    pub fn renew(&mut self, from: u32, held: &Held, want: Want, now: Timestamp) -> Entry {
        let mut entry = self.ask(from, want, 0, now);
        if let Some(take) = &mut entry.take {
            take.instead_of = held.0.iter().map(|lot| (lot.bucket, lot.units)).collect();
        }
        entry
    }

    /// Forgets a refusal: something has changed.
    pub fn forgive(&mut self) {
        self.denied = None;
    }

    /// The message that settles what was spent, and gives back what was not.
    pub fn settle(&mut self, from: u32, now: Timestamp) -> Entry {
        let width = self.quota.width();
        let mut settled: Vec<Settled> = self
            .spent
            .drain(..)
            // What was spent at the end of its holding is charged in the right place already.
            .filter(|spent| spent.until.0.saturating_sub(spent.at.0) > width)
            .map(|spent| Settled {
                bucket: spent.bucket,
                spent: spent.units,
                ago: shorter(now.0.saturating_sub(spent.at.0)),
                unspent: 0,
            })
            .collect();
        settled.extend(self.unspent.drain(..).map(|(bucket, unspent)| Settled {
            bucket,
            spent: 0,
            ago: 0,
            unspent,
        }));
        self.number = self.number.wrapping_add(1);
        Entry {
            quota: self.quota,
            from,
            number: self.number,
            settled,
            owed: std::mem::take(&mut self.owed),
            adjust: None,
            left: None,
            take: None,
            report: None,
        }
    }

    /// Hears what the account says to a message that was sent at `sent` and asked for `units` at most: they are taken
    /// out, as far as it granted them.
    pub fn hear(
        &mut self,
        balance: &Balance,
        units: u64,
        sent: Timestamp,
        now: Timestamp,
    ) -> Option<Held> {
        self.known = Known {
            remaining: balance.remaining,
            reset: now.after(balance.until.since(balance.at)),
        };
        for promise in &balance.promises {
            let after = promise.after.saturating_add(drift(promise.after));
            let at = Timestamp(now.0.saturating_add(after));
            let place = self.coming.partition_point(|(other, _)| *other <= at);
            self.coming
                .insert(place, (at, Lot::of(promise.parcel, sent)));
            self.promised = self.promised.max(promise.from);
        }
        if self.asked == Some(sent) {
            self.asked = None;
        }
        // An operator may change what nothing else would: that is felt after a while.
        let again = sent.after(balance.again.since(balance.at).min(REMEMBERED));
        let outdated = !balance.granted && sent <= self.returned;
        let denied = (!balance.granted || again > now) && !outdated;
        self.denied = denied.then_some(Denied {
            units: if balance.granted { 1 } else { units },
            again,
            hope: if balance.held > 0 || balance.leased > 0 {
                now.after(balance.again.since(balance.at))
            } else {
                self.known.reset
            },
            until: if balance.granted {
                again
            } else {
                self.known.reset
            },
            promised: !self.coming.is_empty(),
        });
        let parcel = balance.parcel.filter(|_| balance.granted);
        let Some(parcel) = parcel else {
            return balance.granted.then(Held::default);
        };
        let mut lot = Lot::of(parcel, sent);
        let mine = Lot {
            units: units.min(lot.units),
            ..lot
        };
        lot.units -= mine.units;
        if lot.units > 0 {
            self.take_in(lot);
        }
        if now > mine.until {
            self.owe(mine);
            return None;
        }
        Some(Held(vec![mine]))
    }

    /// What was held has been spent at `now`.
    pub fn spend(&mut self, held: Held, now: Timestamp) {
        for lot in held.0 {
            let spent = Spent {
                bucket: lot.bucket,
                units: lot.units,
                since: now,
                at: now,
                until: lot.until,
            };
            let near = self.quota.width() / 2;
            let full = self.spent.len() >= SPENDINGS;
            let same = self.spent.iter_mut().rev().find(|other| {
                other.bucket == spent.bucket
                    && (full || now.0.saturating_sub(other.since.0) <= near)
            });
            match same {
                // Said to be later than it was: charged for longer, never for less.
                Some(other) => {
                    other.units = other.units.saturating_add(spent.units);
                    other.at = other.at.max(now);
                }
                // Not settled, it is charged when its holding ends.
                None if full => {}
                None => self.spent.push(spent),
            }
        }
    }

    /// What was held will not be spent, and can be had by somebody else.
    pub fn put_back(&mut self, held: Held, now: Timestamp) {
        for lot in held.0 {
            if self.keeps(lot.units) && now <= lot.until {
                self.take_in(lot);
            } else {
                self.owe(lot);
                self.denied = None;
                self.returned = now;
            }
        }
    }

    /// `units` were spent that nobody held.
    pub fn overspend(&mut self, units: u64) {
        self.owed = self.owed.saturating_add(units);
    }

    /// The message that gives back what is in hand, if nobody has asked for a while; and that tells what would be charged too long,
    /// then or where others are refused for it.
    pub fn give_back(&mut self, from: u32, now: Timestamp) -> Option<Entry> {
        self.tidy(now);
        let gap = 1_000_000 / self.demand.rate(now).max(1);
        let idle = now.0.saturating_sub(self.touched.0);
        let is_idle = idle >= gap.saturating_mul(GAPS).clamp(IDLE, SPAN);
        if is_idle {
            for lot in std::mem::take(&mut self.lots) {
                self.owe(lot);
            }
        }
        let tells = is_idle && self.owes() || (is_idle || self.denied.is_some()) && self.is_late();
        tells.then(|| self.settle(from, now))
    }

    /// Whether there is something that the account must hear soon: units that come back, or that were spent and not held.
    pub fn owes(&self) -> bool {
        !self.unspent.is_empty() || self.owed > 0
    }

    /// Whether units were spent that would be charged long after they left the window.
    fn is_late(&self) -> bool {
        let late = |spent: &Spent| spent.until.0.saturating_sub(spent.at.0) > self.quota.per / LATE;
        self.spent.iter().any(late)
    }

    /// Whether somebody must now see to it that what is in hand is given back in time; once said, for a while nobody else.
    pub fn mind(&mut self, now: Timestamp) -> bool {
        let due = now >= self.minded && (self.has_lease() || self.owes() || self.is_late());
        if due {
            self.minded = Timestamp(now.0.saturating_add(MINDED));
        }
        due
    }

    /// Whether whoever sees to it must go on.
    pub fn mind_on(&mut self, now: Timestamp) -> bool {
        self.minded = now;
        self.mind(now)
    }

    /// Whether there are units in hand or to come.
    fn has_lease(&self) -> bool {
        !self.lots.is_empty() || !self.coming.is_empty()
    }

    /// Units that are left, as far as is known here.
    pub fn remaining(&self) -> u64 {
        self.known.remaining.saturating_add(self.in_hand())
    }

    /// When the whole quota is free again, or when there is room for what was refused.
    pub fn reset(&self) -> Timestamp {
        match (self.denied, self.coming.first()) {
            (Some(denied), Some((at, _))) => denied.until.min(*at),
            (Some(denied), None) => denied.until,
            (None, _) => self.known.reset,
        }
    }

    /// When it is worth asking again for what was refused.
    pub fn hope(&self) -> Timestamp {
        let reset = self.reset();
        self.denied.map_or(reset, |denied| denied.hope.min(reset))
    }

    /// Whether a lease was asked for that may still come.
    fn is_asked(&self, now: Timestamp) -> bool {
        let recent = |asked: Timestamp| now.0.saturating_sub(asked.0) < ANSWERED;
        self.asked.is_some_and(recent)
    }

    fn in_hand(&self) -> u64 {
        sum(&self.lots)
    }

    /// Notes that units are to be given back. Those for which there is no place are charged when their holding ends.
    fn owe(&mut self, lot: Lot) {
        let same = |(bucket, _): &&mut (u64, u64)| *bucket == lot.bucket;
        if let Some((_, units)) = self.unspent.iter_mut().find(same) {
            *units = units.saturating_add(lot.units);
        } else if self.unspent.len() < SPENDINGS {
            self.unspent.push((lot.bucket, lot.units));
        }
    }

    /// Whether units that come back stay in hand for the next request: where they are lent anyway, and of what counts only as
    /// long as it is held, a little, where there is plenty.
    fn keeps(&self, units: u64) -> bool {
        let limit = self.quota.limit.get();
        if !self.quota.is_concurrent() {
            return self.has_lease();
        }
        limit >= PLENTY
            && self.known.remaining >= limit / 2
            && self.in_hand().saturating_add(units) <= limit / 16
    }

    fn take_in(&mut self, lot: Lot) {
        let place = self.lots.partition_point(|other| other.until < lot.until);
        let same = self
            .lots
            .iter_mut()
            .skip(place)
            .take_while(|other| other.until == lot.until)
            .find(|other| other.bucket == lot.bucket);
        match same {
            Some(same) => same.units = same.units.saturating_add(lot.units),
            None => self.lots.insert(place, lot),
        }
    }

    /// Takes in what has come, and lets go of what has ended: until that is given back, the account charges it.
    fn tidy(&mut self, now: Timestamp) {
        while let Some((at, lot)) = self.coming.first().copied()
            && at <= now
        {
            self.coming.remove(0);
            self.take_in(lot);
        }
        let ended = self.lots.partition_point(|lot| lot.until < now);
        let ended: Vec<Lot> = self.lots.drain(..ended).collect();
        for lot in ended {
            self.owe(lot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn purse(per: u64, now: Timestamp) -> Purse {
        let limit = NonZeroU64::MIN;
        let mut purse = Purse::new(Quota { limit, per }, now);
        let lot = Lot {
            bucket: 1,
            units: 5,
            until: now.after(Duration::from_secs(45)),
        };
        purse.spend(Held(vec![lot]), now);
        purse
    }

    /// Whoever else asks the account would be refused for it; and while it has enough, nobody is called for that.
    #[test]
    fn what_would_be_charged_too_long_is_told_when_nobody_asks_any_more() {
        let now = Timestamp(1_000_000);
        for (per, tells) in [
            (1_000, true),
            (60_000, true),
            (179_000, true),
            (181_000, false),
        ] {
            let mut purse = purse(per, now);
            assert!(!purse.owes());
            assert_eq!(purse.mind(now), tells, "{per}");
            let busy = now.after(Duration::from_millis(IDLE - 1));
            assert_eq!(purse.give_back(1, busy), None, "{per}");
            let idle = now.after(Duration::from_millis(SPAN));
            let told = purse.give_back(1, idle).map(|entry| entry.settled.len());
            assert_eq!(told, tells.then_some(1), "{per}");
            assert!(!purse.mind_on(idle));
        }
    }

    #[test]
    fn where_somebody_is_refused_it_is_told_at_once() {
        let now = Timestamp(1_000_000);
        let mut purse = purse(1_000, now);
        purse.denied = Some(Denied {
            units: 1,
            again: now,
            hope: now,
            until: now,
            promised: false,
        });
        assert!(purse.give_back(1, now).is_some());
        assert_eq!(purse.give_back(1, now), None);
    }
}
