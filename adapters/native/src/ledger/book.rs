//! The accounts that are in memory, and which of them the disk does not know yet.

use std::{collections::HashMap, mem};

use tidegate_core::{
    limit::{Account, Balance, Entry},
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
    /// How many changes there have been, and how many of them are on disk.
    changes: u64,
    written: u64,
}

struct Held {
    account: Account,
    expires: Timestamp,
    unwritten: bool,
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
            changes: 0,
            written: 0,
        }
    }

    /// Changes the account named `name`, in memory; gives the number of the change for [`Self::write_until`].
    pub(super) fn apply(
        &mut self,
        name: &str,
        entry: Entry,
        now: Timestamp,
    ) -> Result<(Balance, u64), Fault> {
        let (Entry::Hold { quota, .. } | Entry::Release { quota, .. }) = entry;
        let held = fetch(
            &mut self.recent,
            &mut self.older,
            name,
            &mut self.recent_names,
            &self.store,
        )?;
        let balance = held.account.apply(entry, now);
        held.expires = held.account.empty_at(&quota, balance.at);
        if balance.granted {
            self.changes += 1;
            if !held.unwritten {
                held.unwritten = true;
                self.unwritten.push(name.into());
            }
        }
        let change = self.changes;
        if self.recent.len() >= ACCOUNTS || self.recent_names >= NAMES {
            self.turn()?;
        }
        Ok((balance, change))
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
            Some((&**name, &held.account, held.expires))
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

    /// The recent accounts become the older ones.
    fn turn(&mut self) -> Result<(), Fault> {
        self.write()?;
        self.older = mem::take(&mut self.recent);
        self.recent_names = 0;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

fn fetch<'b>(
    recent: &'b mut HashMap<Box<str>, Held>,
    older: &mut HashMap<Box<str>, Held>,
    name: &str,
    names: &mut usize,
    store: &Store,
) -> Result<&'b mut Held, Fault> {
    if !recent.contains_key(name) {
        let held = match older.remove(name) {
            Some(held) => held,
            None => {
                let account = store.load(name)?.unwrap_or_default();
                Held {
                    account,
                    expires: Timestamp(u64::MAX),
                    unwritten: false,
                }
            }
        };
        *names += name.len();
        recent.insert(name.into(), held);
    }
    recent
        .get_mut(name)
        .ok_or_else(|| Fault("an account is gone".into()))
}
