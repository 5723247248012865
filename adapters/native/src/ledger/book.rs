//! The accounts that are in memory, and which of them the disk does not know yet.

use std::{collections::HashMap, mem};

use tidegate_core::{
    limit::{Account, Balance, Posting},
    platform::Fault,
    time::Timestamp,
};

use super::store::Store;

/// How many accounts one generation holds.
const ACCOUNTS: usize = 8192;

/// How many bytes the names of one generation may take.
const NAMES: usize = 2 << 20;

/// Accounts in memory over the store on disk.
///
/// Memory has two generations: when the recent one is full it becomes the older one, and what nobody touched for so long is
/// forgotten; the disk still has it.
pub(super) struct Book {
    store: Store,
    recent: HashMap<Box<str>, Held>,
    recent_names: usize,
    older: HashMap<Box<str>, Held>,
    /// The names of what the disk does not know yet.
    unwritten: Vec<Box<str>>,
    /// How many recent ones stayed because the disk does not know of them.
    volatile: usize,
    /// How many changes there have been, and how many of them are on disk.
    changes: u64,
    written: u64,
}

/// What has come of postings.
pub(super) struct Posted {
    /// What each of the accounts says.
    pub(super) balances: Vec<Result<Balance, Fault>>,
    /// The number of the change for [`Book::write_until`]; nothing, if nothing is to be kept.
    pub(super) change: Option<u64>,
}

struct Held {
    /// Nothing while it is being changed.
    account: Option<Account>,
    expires: Timestamp,
    unwritten: bool,
    /// It counts what is in progress, which ends with the process: the disk never knows of it.
    volatile: bool,
}

impl Held {
    /// An account that lies on disk like this, if at all.
    fn known(account: Account) -> Self {
        Self {
            account: Some(account),
            expires: Timestamp(u64::MAX),
            unwritten: false,
            volatile: false,
        }
    }
}

impl Book {
    /// A book over `store`, with nothing in memory.
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            recent: HashMap::new(),
            recent_names: 0,
            older: HashMap::new(),
            unwritten: Vec::new(),
            volatile: 0,
            changes: 0,
            written: 0,
        }
    }

    /// Changes the accounts of `postings` together, in memory.
    pub(super) fn post(&mut self, postings: &[Posting], now: Timestamp) -> Posted {
        if let Err(fault) = self.make_room(now) {
            let faults = postings.iter().map(|_| Err(fault.clone()));
            return Posted {
                balances: faults.collect(),
                change: None,
            };
        }
        let found = postings.iter();
        let found = found.map(|posting| self.take_out(&posting.account));
        let changed = Account::apply_all(found, postings, now);
        let mut is_kept = false;
        let answers = changed.into_iter().zip(postings);
        let answers = answers.map(|(changed, posting)| {
            let (account, balance) = changed?;
            is_kept |= self.put_in(posting, account, &balance);
            Ok(balance)
        });
        let balances = answers.collect();
        self.changes += u64::from(is_kept);
        Posted {
            balances,
            change: is_kept.then_some(self.changes),
        }
    }

    /// Sees to it that `change` is on disk, with all that came before it and after.
    pub(super) fn write_until(&mut self, change: u64) -> Result<(), Fault> {
        if self.written < change {
            self.write()
        } else {
            Ok(())
        }
    }

    /// Writes what the disk does not know yet. What could not be written is tried again with the next change.
    pub(super) fn write(&mut self) -> Result<(), Fault> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let (recent, older) = (&self.recent, &self.older);
        self.store.save(self.unwritten.iter().filter_map(|name| {
            let held = recent.get(name).or_else(|| older.get(name))?;
            Some((&**name, held.account.as_ref()?, held.expires))
        }))?;
        for name in self.unwritten.drain(..) {
            if let Some(held) = self
                .recent
                .get_mut(&name)
                .or_else(|| self.older.get_mut(&name))
            {
                held.unwritten = false;
            }
        }
        self.written = self.changes;
        Ok(())
    }

    /// Forgets the accounts in memory in which nothing counts any more.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.recent
            .retain(|_, held| held.unwritten || held.expires > now);
        self.older
            .retain(|_, held| held.unwritten || held.expires > now);
        self.recent_names = self.recent.keys().map(|name| name.len()).sum();
    }

    /// Where it is kept.
    pub(super) fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The recent accounts become the older ones, if they are too many.
    fn make_room(&mut self, now: Timestamp) -> Result<(), Fault> {
        let others = self.recent.len().saturating_sub(self.volatile);
        if others < ACCOUNTS && self.recent_names < NAMES {
            return Ok(());
        }
        self.write()?;
        self.older = mem::take(&mut self.recent);
        let volatile = self
            .older
            .extract_if(|_, held| held.volatile && held.expires > now);
        self.recent.extend(volatile);
        self.volatile = self.recent.len();
        self.recent_names = 0;
        Ok(())
    }

    /// The account named `name`, to be changed and put in again; nobody looks in between.
    fn take_out(&mut self, name: &str) -> Result<Account, Fault> {
        if !self.recent.contains_key(name) {
            let held = match self.older.remove(name) {
                Some(held) => held,
                None => Held::known(self.store.load(name)?.unwrap_or_default()),
            };
            self.recent_names += name.len();
            self.recent.insert(name.into(), held);
        }
        let account = self.recent.get_mut(name).map(|held| held.account.take());
        // The core names an account once. Were it out already, what it holds would be unknown here.
        account
            .flatten()
            .ok_or_else(|| Fault(format!("the account `{name}` is being changed already")))
    }

    /// Puts the account of `posting` in again, as it is now; says whether that is to be written.
    fn put_in(&mut self, posting: &Posting, account: Account, balance: &Balance) -> bool {
        let volatile = posting.entry.quota.is_concurrent();
        let is_kept = posting.entry.is_kept(balance) && !volatile;
        let Some(held) = self.recent.get_mut(&*posting.account) else {
            return is_kept;
        };
        held.expires = account.empty_at(&posting.entry.quota, balance.at);
        held.account = Some(account);
        held.volatile = volatile;
        if is_kept && !mem::replace(&mut held.unwritten, true) {
            self.unwritten.push((&*posting.account).into());
        }
        is_kept
    }

    #[cfg(test)]
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}
