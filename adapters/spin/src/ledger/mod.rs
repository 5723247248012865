//! Accounts in a store whose one atomic step is to compare versions and set.
//!
//! What waits in this instance is posted together: one reading, and one step that keeps all of it. Against other instances
//! the step is tried until it wins. So the accounts are exact, wherever the instances run.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use futures_channel::oneshot;
use tidegate_core::{
    dice::Dice,
    limit::{Account, Balance, Posting},
    platform::{Clock, Fault, Ledger, Tasks},
    time::Timestamp,
};

mod redis;
mod sheet;
mod sqlite;
#[cfg(test)]
mod tests;

pub(crate) use redis::Redis;
use sheet::Sheet;
pub(crate) use sqlite::Sqlite;

/// A place for accounts.
#[async_trait(?Send)]
pub(crate) trait Store: 'static {
    /// What is kept of each of the accounts named `ids`, in their order.
    async fn read(&self, ids: &[Rc<str>]) -> Result<Vec<Found>, Fault>;

    /// Keeps all of `changes` under `version`, if each of them expects what is kept now; or none. Says whether.
    async fn write(&self, changes: &[Change<'_>], version: i64) -> Result<bool, Fault>;

    /// Forgets accounts that expired before `now`, where the store does not do that by itself.
    async fn sweep(&self, now: Timestamp) -> Result<(), Fault>;
}

/// What is kept of an account, if anything; or why that cannot be read.
pub(crate) type Found = Result<Option<Kept>, Fault>;

/// An account as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Another after every write.
    pub(crate) version: i64,
    /// The account.
    pub(crate) account: Account,
}

/// An account as it is to be kept.
#[derive(Clone, Debug)]
pub(crate) struct Change<'a> {
    /// Its name.
    pub(crate) id: &'a Rc<str>,
    /// The version that was found; nothing, if none was.
    pub(crate) expected: Option<i64>,
    /// What it has become.
    pub(crate) account: &'a Account,
    /// When nothing counts in it any more.
    pub(crate) expires: Timestamp,
}

/// The ledger over a [`Store`].
pub(crate) struct Accounts<S>(Rc<Inner<S>>);

struct Inner<S> {
    store: S,
    clock: Rc<dyn Clock>,
    tasks: Rc<dyn Tasks>,
    dice: Rc<RefCell<Dice>>,
    waiting: RefCell<Vec<Waiting>>,
    /// Whether somebody sees to those who wait.
    is_served: Cell<bool>,
    /// What was kept when this instance last looked. It saves the reading: if it is out of date, the write loses.
    seen: RefCell<BTreeMap<Rc<str>, Kept>>,
    /// Writes since the last sweep.
    writes: Cell<u32>,
}

struct Waiting {
    postings: Vec<Posting>,
    answer: oneshot::Sender<Answers>,
}

type Answers = Vec<Result<Balance, Fault>>;

impl<S: Store> Accounts<S> {
    pub(crate) fn new(
        store: S,
        clock: Rc<dyn Clock>,
        tasks: Rc<dyn Tasks>,
        dice: Rc<RefCell<Dice>>,
    ) -> Self {
        Self(Rc::new(Inner {
            store,
            clock,
            tasks,
            dice,
            waiting: RefCell::default(),
            is_served: Cell::default(),
            seen: RefCell::default(),
            // The first write of an instance sweeps: many instances live for no more than a few requests.
            writes: Cell::new(SWEEP_EVERY),
        }))
    }
}

#[async_trait(?Send)]
impl<S: Store> Ledger for Accounts<S> {
    async fn post(&self, postings: &[Posting]) -> Answers {
        let (sender, answer) = oneshot::channel();
        self.0.waiting.borrow_mut().push(Waiting {
            postings: postings.to_vec(),
            answer: sender,
        });
        if !self.0.is_served.replace(true) {
            // As work of its own, because those behind must be served even if the one who came first gives up.
            let inner = self.0.clone();
            self.0
                .tasks
                .spawn(Box::pin(async move { inner.serve().await }));
        }
        answer
            .await
            .unwrap_or_else(|_| faults(postings, &Fault("the ledger's queue was dropped".into())))
    }

    fn longest_lease(&self) -> Duration {
        LONGEST_LEASE
    }
}

impl<S: Store> Inner<S> {
    /// Posts what waits until nothing does.
    async fn serve(&self) {
        while let Some(batch) = self.take() {
            let posted = self.post(&batch).await;
            let answers = posted.unwrap_or_else(|fault| {
                let failed = batch.iter();
                failed
                    .map(|waiting| faults(&waiting.postings, &fault))
                    .collect()
            });
            for (waiting, answers) in batch.into_iter().zip(answers) {
                // Nobody there: what was held stays held, and counts as spent.
                let _ = waiting.answer.send(answers);
            }
            if self.writes.get() >= SWEEP_EVERY {
                self.writes.set(0);
                // What is not swept now is swept another time.
                let _ = self.store.sweep(self.clock.now()).await;
            }
        }
    }

    /// What waits, as far as one step goes; or nothing, and then nobody is served any more.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut waiting = self.waiting.borrow_mut();
        self.is_served.set(!waiting.is_empty());
        let mut accounts = 0;
        let more = waiting.iter().skip(1).position(|waiting| {
            accounts += waiting.postings.len();
            accounts > STEP
        });
        let rest = more.map_or_else(Vec::new, |more| waiting.split_off(more + 1));
        let batch = std::mem::replace(&mut *waiting, rest);
        (!batch.is_empty()).then_some(batch)
    }

    /// Changes the accounts by all of `batch`, in order and in one step.
    async fn post(&self, batch: &[Waiting]) -> Result<Vec<Answers>, Fault> {
        let began = self.clock.now();
        for attempt in 1..=ATTEMPTS {
            let (mut sheet, remembered) = self.look_up(batch).await?;
            let now = self.clock.now();
            let posts = batch.iter();
            let answers: Vec<_> = posts
                .map(|waiting| sheet.post(&waiting.postings, now))
                .collect();
            if remembered && answers.iter().any(refuses) {
                // Another instance may have given units back since: refuse only what is refused at this moment.
                continue;
            }
            let version = (self.dice.borrow_mut().roll() >> 12).cast_signed();
            if self.keep(&sheet, version).await? {
                self.remember(sheet.into_kept(version));
                return Ok(answers);
            }
            if self.clock.now().since(began) > PATIENCE {
                break;
            }
            if !remembered {
                self.clock.sleep(self.pause(attempt)).await;
            }
        }
        Err(Fault("it is changed by too many at once".into()))
    }

    /// The accounts of `batch` as this instance has seen them last, which it then forgets, or as the store has them; and whether
    /// any was remembered.
    async fn look_up(&self, batch: &[Waiting]) -> Result<(Sheet, bool), Fault> {
        let mut sheet = Sheet::default();
        let postings = batch.iter().flat_map(|waiting| &waiting.postings);
        let ids: BTreeSet<_> = postings.map(|posting| &posting.account).collect();
        let mut missing = Vec::new();
        let mut remembered = false;
        for id in ids {
            match self.seen.borrow_mut().remove(id) {
                Some(kept) => {
                    remembered = true;
                    sheet.note(id.clone(), Ok(Some(kept)));
                }
                None => missing.push(id.clone()),
            }
        }
        if !missing.is_empty() {
            let found = self.store.read(&missing).await?;
            for (id, found) in missing.into_iter().zip(found) {
                sheet.note(id, found);
            }
        }
        Ok((sheet, remembered))
    }

    /// Keeps what has changed, if nobody else has changed it meanwhile; says whether.
    ///
    /// The version is drawn at random. So a write that was planned before an account expired cannot win against the account of
    /// the same name that came after, and a write whose answer got lost is known again.
    async fn keep(&self, sheet: &Sheet, version: i64) -> Result<bool, Fault> {
        let changes = sheet.changes();
        if changes.is_empty() {
            return Ok(true);
        }
        self.writes.set(self.writes.get().saturating_add(1));
        self.store.write(&changes, version).await
    }

    fn remember(&self, kept: impl Iterator<Item = (Rc<str>, Kept)>) {
        let mut seen = self.seen.borrow_mut();
        if seen.len() >= SEEN {
            seen.clear();
        }
        seen.extend(kept);
    }

    /// Spreads out those that lost, wider with every loss.
    fn pause(&self, attempt: u32) -> Duration {
        let spread = 4 * u64::from(attempt.min(8));
        Duration::from_millis(1 + self.dice.borrow_mut().roll() % spread)
    }
}

fn refuses(answers: &Answers) -> bool {
    let refuses =
        |answer: &Result<Balance, Fault>| matches!(answer, Ok(balance) if !balance.granted);
    answers.iter().any(refuses)
}

/// The same fault for each of `postings`.
fn faults(postings: &[Posting], fault: &Fault) -> Answers {
    let names = postings.iter().map(|posting| &posting.account);
    names
        .map(|name| Err(Fault(format!("the account `{name}`: {fault}"))))
        .collect()
}

/// How often a change is tried, and for how long.
const ATTEMPTS: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(5);

/// How many accounts are changed in one step, unless one post has more.
const STEP: usize = 64;

/// Accounts that an instance remembers.
const SEEN: usize = 1024;

/// Writes of an instance between two sweeps.
const SWEEP_EVERY: u32 = 256;

/// Spin drops an instance that has been idle for this long.
const LONGEST_LEASE: Duration = Duration::from_secs(1);
