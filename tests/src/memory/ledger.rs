//! Accounts in a map.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use async_trait::async_trait;
use tidegate_core::{
    limit::{Account, Balance, Posting},
    platform::{Clock, Fault, Ledger},
};

use super::clock::StillClock;

/// A ledger that always answers, and at once.
pub(super) struct MapLedger {
    accounts: RefCell<BTreeMap<Rc<str>, Account>>,
    clock: StillClock,
}

impl MapLedger {
    pub(super) fn new(clock: StillClock) -> Self {
        Self {
            accounts: RefCell::default(),
            clock,
        }
    }
}

#[async_trait(?Send)]
impl Ledger for MapLedger {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let mut accounts = self.accounts.borrow_mut();
        let names = || postings.iter().map(|posting| &posting.account);
        let found = names().map(|name| Ok(accounts.remove(name).unwrap_or_default()));
        let changed = Account::apply_all(found, postings, self.clock.now());
        let changed = changed.into_iter().zip(names());
        changed
            .map(|(changed, name)| {
                let (account, balance) = changed?;
                accounts.insert(name.clone(), account);
                Ok(balance)
            })
            .collect()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn longest_lease(&self) -> Duration {
        Duration::from_secs(10)
    }
}
