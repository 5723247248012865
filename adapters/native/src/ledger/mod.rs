//! The accounts behind limits: in memory, one process's worth, and on disk before anybody is answered; or in a Redis ([`redis`]).
//!
//! Whoever changes an account lets the other requests of its thread have their turn once before it writes; the first to
//! come back writes for all of them, in one transaction. Under load a write is so shared by everything that is in
//! flight, and alone it waits for nobody.

use std::{
    cell::RefCell,
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tidegate_core::{
    config,
    dice::Dice,
    ledger::Accounts,
    limit::{Balance, Posting},
    platform::{self, Clock, Fault, Tasks},
};
use tidegate_redis::Redis;
use tokio::task::yield_now;

use crate::clock;

mod book;
mod keeper;
mod mark;
mod redis;
mod store;

use book::{Book, Posted};
pub(crate) use keeper::Keeper;
use redis::{Server, Wire};
use store::Store;

/// Where the process has its accounts, and every thread its ledger from.
#[derive(Clone)]
pub(crate) enum Place {
    /// Here.
    Embedded(Ledger),
    /// In a Redis, which others may share.
    Redis(Arc<Server>),
}

impl Place {
    /// Where `store` says; if that is here, in `directory`.
    pub(crate) fn open(store: &config::Store, directory: &Path) -> Result<Self, String> {
        Ok(match store {
            config::Store::Embedded => Self::Embedded(Ledger::open(directory)?),
            config::Store::Redis(url) => Self::Redis(Arc::new(Server::at(url)?)),
        })
    }

    /// The ledger of one thread.
    pub(crate) fn ledger(
        &self,
        clock: Rc<dyn Clock>,
        tasks: Rc<dyn Tasks>,
        dice: Rc<RefCell<Dice>>,
    ) -> Rc<dyn platform::Ledger> {
        match self {
            Self::Embedded(ledger) => Rc::new(ledger.clone()),
            Self::Redis(server) => {
                let redis = Redis::new(Wire::to(Arc::clone(server)), Rc::clone(&clock));
                Rc::new(Accounts::new(redis, LONGEST_LEASE, clock, tasks, dice))
            }
        }
    }

    /// Starts what is to be done beside the requests, if there is anything.
    pub(crate) fn keeper(&self) -> Result<Option<Keeper>, String> {
        match self {
            Self::Embedded(ledger) => Keeper::start(ledger).map(Some),
            Self::Redis(_) => Ok(None),
        }
    }

    /// Tells the operator what is wrong with the place, if it is one that may be out of reach.
    pub(crate) async fn look(self) {
        if let Self::Redis(server) = self {
            server.look().await;
        }
    }
}

/// The one ledger of a process that has its accounts here; every thread has this handle on it.
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

    fn is_shared(&self) -> bool {
        false
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
