//! One account, some isolates, and messages that come late, twice, in another order, or never.

use std::{collections::BTreeMap, num::NonZeroU64};

use tidegate_core::{
    limit::{Account, Balance, Draw, Entry, Held, Purse, Quota, Want},
    time::Timestamp,
};

/// When all begins by the account's clock.
const BEGIN: u64 = 1_800_000_000_000;

/// How many messages of a speaker are told apart.
const WINDOW: u32 = 32;

/// What can happen.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// Time passes.
    Wait(u64),
    /// So many requests come to an isolate, of so many units each. They are spent at once, or held.
    Draw(usize, u64, u64, bool),
    /// So many times: some time passes, so many units are asked of every isolate, and all messages arrive.
    Rush(u64, u64, u64),
    /// A message that is on its way arrives; and perhaps it will arrive once more.
    Deliver(usize, bool),
    /// All messages arrive, those that were sent last first.
    DeliverAll,
    Lose(usize),
    /// Of something that is held, a part is spent, and the rest put back.
    Finish(usize, u64),
    /// Something that is held is to be held for longer.
    Renew(usize),
    /// An isolate settles; or it gives back what it has, if it was idle.
    Settle(usize),
    GiveBack(usize),
    Die(usize),
    /// So many others speak to the account.
    Strangers(u32),
    /// The account is read again from what was kept.
    Restart,
    /// The account's clock is set back.
    SetBack(u64),
}

/// An isolate. Its clock has nothing to do with any other, and runs wrong by so many millionths.
struct Isolate {
    me: u32,
    purse: Purse,
    offset: u64,
    drift: i64,
}

/// A call, from when it is sent until it is answered.
struct Call {
    isolate: usize,
    me: u32,
    units: u64,
    sent: Timestamp,
    /// What happens to what is granted.
    purpose: Purpose,
}

#[derive(Clone, Copy)]
enum Purpose {
    Spend,
    Hold,
    Renew(usize),
}

#[derive(Clone)]
enum Mail {
    Post(Entry, Option<usize>),
    Answer(Balance, usize),
}

/// Units that are held by somebody for a while.
struct Tenure {
    isolate: usize,
    me: u32,
    held: Held,
    units: u64,
    until: Timestamp,
}

pub(crate) struct World {
    quota: Quota,
    lease: u64,
    account: Account,
    kept: Vec<u8>,
    now: u64,
    set_back: u64,
    isolates: Vec<Isolate>,
    mail: Vec<Mail>,
    calls: BTreeMap<usize, Call>,
    tenures: BTreeMap<usize, Tenure>,
    /// What was spent, and when.
    spent: Vec<(u64, u64)>,
    names: u32,
    /// The highest number of a message that was heard, by speaker.
    highest: BTreeMap<u32, u32>,
}

impl World {
    pub(crate) fn new(limit: u64, per: u64, lease: u64, clocks: &[(u64, i64)]) -> Self {
        let limit = NonZeroU64::new(limit).unwrap();
        let quota = Quota { limit, per };
        let account = Account::default();
        let mut world = Self {
            quota,
            lease,
            kept: account.to_bytes(),
            account,
            now: 0,
            set_back: 0,
            isolates: Vec::new(),
            mail: Vec::new(),
            calls: BTreeMap::new(),
            tenures: BTreeMap::new(),
            spent: Vec::new(),
            names: 0,
            highest: BTreeMap::new(),
        };
        for (offset, drift) in clocks {
            let me = world.name();
            world.isolates.push(Isolate {
                me,
                purse: Purse::new(quota, Timestamp(*offset)),
                offset: *offset,
                drift: *drift,
            });
        }
        world
    }

    pub(crate) fn spent(&self) -> u64 {
        self.spent.iter().map(|(_, units)| units).sum()
    }

    pub(crate) fn happen(&mut self, deed: &Deed) {
        match *deed {
            Deed::Wait(by) => self.now += by,
            Deed::Draw(isolate, units, times, hold) => {
                for _ in 0..times {
                    self.draw(isolate % self.isolates.len(), units, hold);
                }
            }
            Deed::Rush(times, pause, units) => {
                for _ in 0..times {
                    self.now += pause;
                    for isolate in 0..self.isolates.len() {
                        self.draw(isolate, units, false);
                        self.deliver_all();
                    }
                }
            }
            Deed::Deliver(which, again) if !self.mail.is_empty() => {
                let which = which % self.mail.len();
                let mail = if again {
                    self.mail[which].clone()
                } else {
                    self.mail.remove(which)
                };
                self.deliver(mail);
            }
            Deed::DeliverAll => self.deliver_all(),
            Deed::Lose(which) if !self.mail.is_empty() => {
                self.mail.remove(which % self.mail.len());
            }
            Deed::Finish(which, part) => self.finish(which, part),
            Deed::Renew(which) => self.renew(which),
            Deed::Settle(isolate) => {
                let (isolate, now) = self.isolate(isolate);
                let entry = isolate.purse.settle(isolate.me, now);
                self.mail.push(Mail::Post(entry, None));
            }
            Deed::GiveBack(isolate) => {
                let (isolate, now) = self.isolate(isolate);
                if let Some(entry) = isolate.purse.give_back(isolate.me, now) {
                    self.mail.push(Mail::Post(entry, None));
                }
            }
            Deed::Die(isolate) => {
                let (me, quota) = (self.name(), self.quota);
                let (isolate, now) = self.isolate(isolate);
                isolate.me = me;
                isolate.purse = Purse::new(quota, now);
            }
            Deed::Strangers(many) => {
                for _ in 0..many {
                    let from = self.name();
                    let entry = Purse::new(self.quota, Timestamp(0)).settle(from, Timestamp(0));
                    self.account.apply(&entry, self.time());
                }
            }
            Deed::Restart => {
                self.account = Account::from_bytes(&self.kept).unwrap();
                assert_eq!(self.account.to_bytes(), self.kept);
            }
            Deed::SetBack(by) => self.set_back += by,
            Deed::Deliver(..) | Deed::Lose(_) => {}
        }
        self.nobody_has_too_much();
    }

    fn draw(&mut self, which: usize, units: u64, hold: bool) {
        let hold = hold || self.quota.per == 0;
        let lease = self.lease;
        let (isolate, now) = self.isolate(which);
        match isolate.purse.draw(units, 0, now) {
            Draw::Held(held) if hold => self.tenure(which, held),
            Draw::Held(held) => self.spend(which, held),
            Draw::Denied => {}
            Draw::Ask => {
                let length = if hold { 20_000 } else { 200 };
                let entry = isolate
                    .purse
                    .ask(isolate.me, want(units, length), lease, now);
                let purpose = if hold { Purpose::Hold } else { Purpose::Spend };
                self.call(which, entry, units, purpose);
            }
        }
    }

    fn deliver_all(&mut self) {
        while let Some(mail) = self.mail.pop() {
            self.deliver(mail);
        }
    }

    fn call(&mut self, which: usize, entry: Entry, units: u64, purpose: Purpose) {
        let number = self.name() as usize;
        let (isolate, sent) = self.isolate(which);
        let me = isolate.me;
        let call = Call {
            isolate: which,
            me,
            units,
            sent,
            purpose,
        };
        self.calls.insert(number, call);
        self.mail.push(Mail::Post(entry, Some(number)));
    }

    fn deliver(&mut self, mail: Mail) {
        match mail {
            Mail::Post(entry, call) => {
                let now = self.time();
                let balance = self.account.apply(&entry, now);
                if entry.is_kept(&balance) {
                    self.kept = self.account.to_bytes();
                }
                assert!(self.account.to_bytes().len() <= 4096);
                self.heard_twice(&entry);
                self.refused_until(&entry, &balance);
                self.told_right(&balance);
                if let Some(call) = call {
                    self.mail.push(Mail::Answer(balance, call));
                }
            }
            Mail::Answer(balance, call) => {
                if let Some(call) = self.calls.remove(&call) {
                    self.hear(&balance, &call);
                }
            }
        }
    }

    /// The same message changes nothing when it comes again, but if it is so late that nobody knows.
    fn heard_twice(&mut self, entry: &Entry) {
        let highest = self.highest.entry(entry.from).or_default();
        *highest = entry.number.max(*highest);
        if entry.number + WINDOW <= *highest {
            return;
        }
        let mut again = self.account.clone();
        let second = again.apply(entry, self.time());
        assert_eq!(again, self.account, "heard twice");
        assert!(second.parcel.is_none() && second.promises.is_empty());
    }

    /// A refusal says the very first instant at which the same is granted.
    fn refused_until(&mut self, entry: &Entry, balance: &Balance) {
        let name = self.name();
        let Some(take) = entry.take.as_ref().filter(|_| !balance.granted) else {
            return;
        };
        let ask = |at| {
            let mut entry = Purse::new(self.quota, at).ask(name, want(take.units, 0), 0, at);
            entry.number = name;
            self.account.clone().apply(&entry, at).granted
        };
        if !take.instead_of.is_empty() || ask(balance.at) {
            return; // It was heard before, or asked for something else too.
        }
        if balance.until.0 == u64::MAX {
            assert!(take.units > self.quota.limit.get(), "refused for ever");
            return;
        }
        assert!(balance.until > balance.at);
        assert!(ask(balance.until), "refused when it was told to come");
        assert!(!ask(Timestamp(balance.until.0 - 1)), "granted before");
    }

    /// What is said to be left is granted, and one more is not.
    fn told_right(&mut self, balance: &Balance) {
        let name = self.name();
        let ask = |units| {
            let mut purse = Purse::new(self.quota, balance.at);
            let entry = purse.ask(name, want(units, 0), 0, balance.at);
            self.account.clone().apply(&entry, balance.at).granted
        };
        assert!(ask(balance.remaining) && !ask(balance.remaining + 1));
    }

    fn hear(&mut self, balance: &Balance, call: &Call) {
        let (isolate, now) = self.isolate(call.isolate);
        if isolate.me != call.me {
            return;
        }
        let taken = isolate.purse.hear(balance, call.units, call.sent, now);
        match (call.purpose, taken) {
            (Purpose::Renew(tenure), taken) => {
                if let (Some(_), Some(held), Some(tenure)) =
                    (balance.parcel, taken, self.tenures.get_mut(&tenure))
                {
                    tenure.until = held.until().unwrap();
                    tenure.held = held;
                }
            }
            (Purpose::Spend, Some(held)) => self.spend(call.isolate, held),
            (Purpose::Hold, Some(held)) => self.tenure(call.isolate, held),
            (_, None) => {}
        }
    }

    fn spend(&mut self, which: usize, held: Held) {
        let units = held.units();
        let (isolate, now) = self.isolate(which);
        assert!(held.until().is_none_or(|until| now <= until));
        isolate.purse.spend(held, now);
        self.spent.push((self.now, units));
        let (limit, per) = (self.quota.limit.get(), self.quota.per);
        let since = self.now.saturating_sub(per);
        let within = self.spent.iter().rev().take_while(|(at, _)| *at >= since);
        let sum: u64 = within.map(|(_, units)| units).sum();
        assert!(sum <= limit, "{sum} of {limit} within a window");
    }

    fn tenure(&mut self, which: usize, held: Held) {
        let Some(until) = held.until() else { return };
        let me = self.isolates[which].me;
        let units = held.units();
        let name = self.name() as usize;
        let tenure = Tenure {
            isolate: which,
            me,
            held,
            units,
            until,
        };
        self.tenures.insert(name, tenure);
    }

    fn finish(&mut self, which: usize, part: u64) {
        let Some(name) = nth(&self.tenures, which) else {
            return;
        };
        let mut tenure = self.tenures.remove(&name).unwrap();
        let per = self.quota.per;
        let (isolate, now) = self.isolate(tenure.isolate);
        if isolate.me != tenure.me {
            return;
        }
        let part = part.min(tenure.held.units());
        if per > 0 && part > 0 && now <= tenure.held.until().unwrap() {
            let spent = tenure.held.split(part);
            self.spend(tenure.isolate, spent);
        }
        let (isolate, now) = self.isolate(tenure.isolate);
        isolate.purse.put_back(tenure.held, now);
        if isolate.purse.owes() {
            let entry = isolate.purse.settle(isolate.me, now);
            self.mail.push(Mail::Post(entry, None));
        }
    }

    fn renew(&mut self, which: usize) {
        let Some(name) = nth(&self.tenures, which) else {
            return;
        };
        let tenure = self.tenures.get_mut(&name).unwrap();
        let held = std::mem::take(&mut tenure.held);
        let (units, which, me) = (tenure.units, tenure.isolate, tenure.me);
        let (isolate, now) = self.isolate(which);
        if isolate.me == me {
            let entry = isolate.purse.renew(me, &held, want(units, 20_000), now);
            self.call(which, entry, units, Purpose::Renew(name));
        }
    }

    /// What goes on at the same time is at most the limit.
    fn nobody_has_too_much(&mut self) {
        let mut tenures = std::mem::take(&mut self.tenures);
        tenures.retain(|_, tenure| {
            let (isolate, _) = self.isolate(tenure.isolate);
            isolate.me == tenure.me
        });
        let mut sum = 0;
        for tenure in tenures.values() {
            let (_, now) = self.isolate(tenure.isolate);
            if now <= tenure.until {
                sum += tenure.units;
            }
        }
        self.tenures = tenures;
        let limit = self.quota.limit.get();
        assert!(
            self.quota.per > 0 || sum <= limit,
            "{sum} of {limit} in use"
        );
    }

    /// The account's time.
    fn time(&self) -> Timestamp {
        Timestamp(BEGIN + self.now - self.set_back.min(BEGIN))
    }

    /// An isolate, and its time.
    fn isolate(&mut self, which: usize) -> (&mut Isolate, Timestamp) {
        let many = self.isolates.len();
        let isolate = &mut self.isolates[which % many];
        let wrong = i64::try_from(self.now).unwrap() * isolate.drift / 1_000_000;
        let now = (isolate.offset + self.now).saturating_add_signed(wrong);
        (isolate, Timestamp(now))
    }

    fn name(&mut self) -> u32 {
        self.names += 1;
        self.names
    }
}

fn nth<T>(map: &BTreeMap<usize, T>, which: usize) -> Option<usize> {
    let which = which % map.len().max(1);
    map.keys().nth(which).copied()
}

fn want(units: u64, hold: u64) -> Want {
    Want {
        units,
        hold,
        ..Want::default()
    }
}
