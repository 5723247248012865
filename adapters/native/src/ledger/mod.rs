//! The accounts behind limits: in memory, one process's worth, and on disk before anybody is answered.
//!
//! Whoever changes an account lets the other requests of its thread have their turn once before it writes; the first to
//! come back writes for all of them, in one transaction. Under load a write is so shared by everything that is in
//! flight, and alone it waits for nobody.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tidegate_core::{
    limit::{Balance, Entry},
    platform::{self, Fault},
};
use tokio::task::yield_now;

use crate::clock;

mod book;
mod keeper;
mod store;

use book::Book;
pub(crate) use keeper::Keeper;
use store::Store;

/// The one ledger of the process; every thread has this handle on it.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

#[async_trait(?Send)]
impl platform::Ledger for Ledger {
    async fn apply(&self, account: &str, entry: Entry) -> Result<Balance, Fault> {
        let (balance, change) = self.book().apply(account, entry, clock::now())?;
        // A refusal adds nothing to the account that must outlive the process.
        if balance.granted {
            yield_now().await;
            self.book().write_until(change)?;
        }
        Ok(balance)
    }
}

impl Ledger {
    /// The ledger that lies in `directory`, which is made if it is not there.
    pub(crate) fn open(directory: &Path) -> Result<Self, String> {
        Ok(Self(Arc::new(Mutex::new(Book::new(Store::open(
            directory,
        )?)))))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic in between leaves at worst a change that is in memory and not written: it counts as spent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
