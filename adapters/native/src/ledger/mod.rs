//! The accounts behind limits: in memory, one process's worth, and on disk before anybody is answered.
//!
//! Whoever changes an account lets the other requests of its thread have their turn once before it writes; the first to
//! come back writes for all of them, in one transaction. Under load a write is so shared by everything that is in
//! flight, and alone it waits for nobody.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tidegate_core::{
    limit::{Balance, Posting},
    platform::{self, Fault},
};
use tokio::task::yield_now;

use crate::clock;

mod book;
mod keeper;
mod store;

use book::{Book, Posted};
pub(crate) use keeper::Keeper;
use store::Store;

/// The one ledger of the process; every thread has this handle on it.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

#[async_trait(?Send)]
impl platform::Ledger for Ledger {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let posted = self.book().post(postings, clock::now());
        // Most refusals add nothing to an account that must outlive the process.
        if let Some(change) = posted.change {
            yield_now().await;
            let written = self.book().write_until(change);
            if let Err(fault) = written {
                return posted.unwritten(postings, &fault);
            }
        }
        posted.balances
    }

    fn longest_lease(&self) -> Duration {
        LONGEST_LEASE
    }
}

/// A thread lives as long as the process.
const LONGEST_LEASE: Duration = Duration::from_secs(30);

impl Posted {
    /// What is said when the disk has failed: `fault`, where something is to be kept.
    fn unwritten(self, postings: &[Posting], fault: &Fault) -> Vec<Result<Balance, Fault>> {
        let answers = postings.iter().zip(self.balances);
        answers
            .map(|(posting, answer)| match answer {
                Ok(balance) if posting.entry.is_kept(&balance) => Err(fault.clone()),
                answer => answer,
            })
            .collect()
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
