//! Who waits before an account, beside a list of who should.

use std::num::NonZeroU64;

use tidegate_core::{
    limit::{Account, Balance, Entry, Parcel, Place, Quota, Settled, Take},
    time::Timestamp,
};

/// After how long without asking again somebody has left.
const LEFT: u64 = 3_000;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Move {
    /// Somebody with this ticket asks for one unit.
    Ask(u32),
    /// Somebody asks who will not wait.
    Pass,
    Leave(u32),
    /// One of those who have a unit gives it back.
    Free(usize),
    Wait(u64),
}

pub(crate) struct Line {
    quota: Quota,
    room: u32,
    account: Account,
    now: u64,
    number: u32,
    in_use: Vec<Parcel>,
    /// Who should wait, and when it asked last.
    waiting: Vec<(u32, u64)>,
}

impl Line {
    pub(crate) fn new(limit: u64, room: u32) -> Self {
        let limit = NonZeroU64::new(limit).unwrap();
        let mut line = Self {
            quota: Quota { limit, per: 0 },
            room,
            account: Account::default(),
            now: 1_000_000,
            number: 0,
            in_use: Vec::new(),
            waiting: Vec::new(),
        };
        // The first of a speaker is not believed.
        line.apply(line.entry());
        line
    }

    pub(crate) fn play(&mut self, step: Move) {
        self.waiting.retain(|(_, asked)| self.now - asked <= LEFT);
        match step {
            Move::Ask(ticket) => self.ask(Some(ticket)),
            Move::Pass => self.ask(None),
            Move::Leave(ticket) => {
                self.waiting.retain(|(waiting, _)| *waiting != ticket);
                self.apply(Entry {
                    left: Some(ticket),
                    ..self.entry()
                });
            }
            Move::Free(which) if !self.in_use.is_empty() => {
                let parcel = self.in_use.swap_remove(which % self.in_use.len());
                self.apply(Entry {
                    settled: vec![Settled {
                        bucket: parcel.bucket,
                        spent: 0,
                        ago: 0,
                        unspent: 1,
                    }],
                    ..self.entry()
                });
            }
            Move::Free(_) => {}
            Move::Wait(by) => self.now += by,
        }
        // Nobody's holding ends while this is played: each is renewed in time, without losing its place to those who wait.
        for place in 0..self.in_use.len() {
            let before = self.in_use[place];
            let mut entry = self.asking(None);
            entry.take.as_mut().unwrap().instead_of = vec![(before.bucket, 1)];
            self.in_use[place] = self.apply(entry).parcel.unwrap();
        }
    }

    fn ask(&mut self, ticket: Option<u32>) {
        let place = self
            .waiting
            .iter()
            .position(|(waiting, _)| Some(*waiting) == ticket);
        let before = place.unwrap_or(self.waiting.len());
        let free = self.quota.limit.get() as usize - self.in_use.len();
        let entry = self.asking(ticket);
        let balance = self.apply(entry.clone());
        assert_eq!(
            balance.granted,
            before < free,
            "{before} before, {free} free"
        );
        if let Some(parcel) = balance.parcel {
            self.in_use.push(parcel);
            self.waiting.retain(|(waiting, _)| Some(*waiting) != ticket);
            return;
        }
        let may = place.is_some() || self.waiting.len() < self.room as usize;
        let queued = ticket.filter(|_| may).map(|_| before as u32);
        assert_eq!(balance.queued, queued);
        match (place, ticket) {
            (Some(place), _) => self.waiting[place].1 = self.now,
            (None, Some(ticket)) if may => self.waiting.push((ticket, self.now)),
            _ => {}
        }
        self.refused_until(entry, &balance);
    }

    /// Whoever asks again at the instant that it was told, and is the only one who does, is served.
    fn refused_until(&self, mut entry: Entry, balance: &Balance) {
        entry.number = self.number + 1;
        let granted = |at| self.account.clone().apply(&entry, at).granted;
        assert!(granted(balance.until));
        assert!(!granted(Timestamp(balance.until.0 - 1)));
    }

    fn apply(&mut self, entry: Entry) -> Balance {
        self.number += 1;
        let entry = Entry {
            number: self.number,
            ..entry
        };
        self.account.apply(&entry, Timestamp(self.now))
    }

    fn asking(&self, ticket: Option<u32>) -> Entry {
        let room = self.room;
        Entry {
            take: Some(Take {
                units: 1,
                more: 0,
                hold: 45_000,
                instead_of: Vec::new(),
                demand: None,
                place: ticket.map(|ticket| Place { ticket, room }),
            }),
            ..self.entry()
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            quota: self.quota,
            from: 1,
            number: 0,
            settled: Vec::new(),
            owed: 0,
            adjust: None,
            left: None,
            take: None,
            report: None,
        }
    }
}
