//! Accounts in a store whose one atomic step is to compare a version and set.
//!
//! Entries of this instance that wait for the same account are posted together, in one step; against other instances
//! the step is tried until it wins. So the accounts are exact, wherever the instances run.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use futures_channel::oneshot;
use tidegate_core::{
    dice::Dice,
    limit::{Account, Balance, Entry},
    platform::{Clock, Fault, Ledger, Tasks},
    time::Timestamp,
};

mod redis;
mod sqlite;
#[cfg(test)]
mod tests;

pub(crate) use redis::Redis;
pub(crate) use sqlite::Sqlite;

/// A place for accounts.
#[async_trait(?Send)]
pub(crate) trait Store: 'static {
    /// What is kept of the account named `id`.
    async fn read(&self, id: &str) -> Result<Option<Kept>, Fault>;

    /// Keeps `next` until `expires`, if what is kept still has the version `expected` (nothing, if none); says whether.
    async fn write(
        &self,
        id: &str,
        expected: Option<i64>,
        next: &Kept,
        expires: Timestamp,
    ) -> Result<bool, Fault>;

    /// Forgets accounts that expired before `now`, where the store does not do that by itself.
    async fn sweep(&self, now: Timestamp) -> Result<(), Fault>;
}

/// An account as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Changes with every write.
    pub(crate) version: i64,
    /// The account.
    pub(crate) account: Account,
}

/// The ledger over a [`Store`].
pub(crate) struct Accounts<S>(Rc<Inner<S>>);

struct Inner<S> {
    store: S,
    clock: Rc<dyn Clock>,
    tasks: Rc<dyn Tasks>,
    dice: Rc<RefCell<Dice>>,
    desks: RefCell<BTreeMap<String, Desk>>,
    /// Writes since the last sweep.
    writes: Cell<u32>,
}

/// Where the entries of this instance for one account wait.
#[derive(Default)]
struct Desk {
    waiting: Vec<Waiting>,
    open: bool,
    /// What was kept when this instance last looked. It saves the reading: if it is out of date, the write loses.
    seen: Option<Kept>,
}

struct Waiting {
    entry: Entry,
    answer: oneshot::Sender<Result<Balance, Fault>>,
}

impl<S: Store> Accounts<S> {
    pub(crate) fn new(
        store: S,
        clock: Rc<dyn Clock>,
        tasks: Rc<dyn Tasks>,
        dice: Rc<RefCell<Dice>>,
    ) -> Self {
        // The first write of an instance sweeps: many instances live for no more than a few requests.
        let writes = Cell::new(SWEEP_EVERY);
        Self(Rc::new(Inner {
            store,
            clock,
            tasks,
            dice,
            desks: RefCell::default(),
            writes,
        }))
    }
}

#[async_trait(?Send)]
impl<S: Store> Ledger for Accounts<S> {
    async fn apply(&self, account: &str, entry: Entry) -> Result<Balance, Fault> {
        let (sender, answer) = oneshot::channel();
        if self.0.wait(
            account,
            Waiting {
                entry,
                answer: sender,
            },
        ) {
            // As work of its own, because those behind must be served even if the one who opened the desk gives up.
            let (inner, id) = (self.0.clone(), account.to_owned());
            self.0
                .tasks
                .spawn(Box::pin(async move { inner.serve(&id).await }));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Fault("the ledger's queue was dropped".into())))
    }
}

impl<S: Store> Inner<S> {
    /// Queues an entry; says whether nobody serves the desk yet.
    fn wait(&self, id: &str, waiting: Waiting) -> bool {
        let mut desks = self.desks.borrow_mut();
        if desks.len() >= DESKS && !desks.contains_key(id) {
            desks.retain(|_, desk| desk.open);
        }
        let desk = desks.entry(id.to_owned()).or_default();
        desk.waiting.push(waiting);
        !std::mem::replace(&mut desk.open, true)
    }

    /// Posts what waits at a desk until nothing does.
    async fn serve(&self, id: &str) {
        while let Some((batch, seen)) = self.take(id) {
            let entries: Vec<_> = batch.iter().map(|waiting| waiting.entry).collect();
            match self.post(id, &entries, seen).await {
                Ok((balances, kept)) => {
                    if let Some(desk) = self.desks.borrow_mut().get_mut(id) {
                        desk.seen = kept;
                    }
                    for (waiting, balance) in batch.into_iter().zip(balances) {
                        // Nobody there: what was held stays held, and counts as spent.
                        let _ = waiting.answer.send(Ok(balance));
                    }
                }
                Err(fault) => {
                    for waiting in batch {
                        let _ = waiting.answer.send(Err(fault.clone()));
                    }
                }
            }
            if self.writes.get() >= SWEEP_EVERY {
                self.writes.set(0);
                // What is not swept now is swept another time.
                let _ = self.store.sweep(self.clock.now()).await;
            }
        }
    }

    /// Everything that waits at a desk, or nothing, and then the desk is closed.
    fn take(&self, id: &str) -> Option<(Vec<Waiting>, Option<Kept>)> {
        let mut desks = self.desks.borrow_mut();
        let desk = desks.get_mut(id)?;
        desk.open = !desk.waiting.is_empty();
        desk.open
            .then(|| (std::mem::take(&mut desk.waiting), desk.seen.take()))
    }

    /// Changes the account by all of `entries`, in order and in one step; gives their balances and what is kept then.
    async fn post(
        &self,
        id: &str,
        entries: &[Entry],
        mut seen: Option<Kept>,
    ) -> Result<(Vec<Balance>, Option<Kept>), Fault> {
        let began = self.clock.now();
        for attempt in 1..=ATTEMPTS {
            let remembered = seen.is_some();
            let kept = match seen.take() {
                Some(kept) => Some(kept),
                None => self.store.read(id).await?,
            };
            let now = self.clock.now();
            let mut account = kept
                .as_ref()
                .map(|kept| kept.account.clone())
                .unwrap_or_default();
            let balances: Vec<_> = entries
                .iter()
                .map(|entry| account.apply(*entry, now))
                .collect();
            if balances.iter().all(|balance| !balance.granted) {
                if remembered {
                    // Another instance may have given units back since: refuse only what is refused at this moment.
                    continue;
                }
                // Nothing has changed, so nothing is to be kept.
                return Ok((balances, kept));
            }
            let expires = entries
                .iter()
                .map(|entry| account.empty_at(quota(entry), now))
                .max()
                .unwrap_or(now);
            let expected = kept.map(|kept| kept.version);
            let next = Kept {
                version: self.version_after(expected),
                account,
            };
            if self.store.write(id, expected, &next, expires).await? {
                self.writes.set(self.writes.get().saturating_add(1));
                return Ok((balances, Some(next)));
            }
            if self.clock.now().since(began) > PATIENCE {
                break;
            }
            if !remembered {
                self.clock.sleep(self.pause(attempt)).await;
            }
        }
        Err(Fault(format!(
            "the account {id} is changed by too many at once"
        )))
    }

    /// A new account begins at a random version. Were it to begin at one, a write that was planned before an account expired
    /// could win against the account of the same name that came after.
    fn version_after(&self, expected: Option<i64>) -> i64 {
        expected.map_or_else(
            || (self.dice.borrow_mut().roll() >> 12).cast_signed(),
            |version| version.wrapping_add(1),
        )
    }

    /// Spreads out those that lost, wider with every loss.
    fn pause(&self, attempt: u32) -> Duration {
        let spread = 4 * u64::from(attempt.min(8));
        Duration::from_millis(1 + self.dice.borrow_mut().roll() % spread)
    }
}

fn quota(entry: &Entry) -> &tidegate_core::limit::Quota {
    match entry {
        Entry::Hold { quota, .. } | Entry::Release { quota, .. } => quota,
    }
}

/// How often a change is tried, and for how long.
const ATTEMPTS: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(5);

/// Accounts that an instance remembers.
const DESKS: usize = 1024;

/// Writes of an instance between two sweeps.
const SWEEP_EVERY: u32 = 256;
