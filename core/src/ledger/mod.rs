//! Accounts in a store whose one atomic step is to compare versions and set: a [`Store`].
//!
//! What waits in this isolate is posted together: one reading, and one step that keeps all of it. Against other isolates
//! the step is tried until it wins. So the accounts are exact, wherever the isolates run. An adapter only carries what is read
//! and kept.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use futures_channel::oneshot;

mod sheet;
#[cfg(test)]
mod tests;

use sheet::Sheet;

use crate::{
    dice::Dice,
    flat_map::FlatMap,
    limit::{Account, Balance, Posting},
    platform::{Clock, Fault, Ledger, Tasks},
    time::Timestamp,
};

/// A place for accounts.
#[async_trait(?Send)]
pub trait Store: 'static {
    /// The time by its clock, where that is known without asking it.
    fn now(&self) -> Option<Timestamp>;

    /// What is kept of each of the accounts named `ids`, in their order.
    async fn read(&self, ids: &[Rc<str>]) -> Result<Reading, Fault>;

    /// Keeps all of `changes`, which were made at `now`, under `version`, if each of them expects what is kept; or none.
    /// Says whether.
    async fn write(
        &self,
        changes: &[Change<'_>],
        now: Timestamp,
        version: i64,
    ) -> Result<bool, Fault>;

    /// Forgets accounts that have expired, where the store does not do that by itself.
    async fn sweep(&self) -> Result<(), Fault>;
}

/// What a store says.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When, by the clock that all share who share the store.
    pub now: Timestamp,
    /// What it keeps.
    pub found: Vec<Found>,
}

/// What is kept of an account, if anything; or why that cannot be read.
pub type Found = Result<Option<Kept>, Fault>;

/// An account as it is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Another after every write.
    pub version: i64,
    /// The account.
    pub account: Account,
}

/// An account as it is to be kept.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// Its name.
    pub id: &'a Rc<str>,
    /// The version that was found; nothing, if none was.
    pub expected: Option<i64>,
    /// What it has become.
    pub account: &'a Account,
    /// When nothing counts in it any more.
    pub expires: Timestamp,
}

/// The ledger over a [`Store`].
pub struct Accounts(Rc<Inner>);

struct Inner {
    /// Of whatever kind: what is done with it is long, and a component that knows two kinds has it once.
    store: Box<dyn Store>,
    longest_lease: Duration,
    clock: Rc<dyn Clock>,
    tasks: Rc<dyn Tasks>,
    dice: Rc<RefCell<Dice>>,
    waiting: RefCell<Vec<Waiting>>,
    /// Whether somebody sees to those who wait.
    is_served: Cell<bool>,
    /// What was kept when this isolate last looked. It saves the reading: if it is out of date, the write loses.
    /// What is being changed is nothing meanwhile.
    seen: RefCell<FlatMap<Option<Kept>>>,
    /// Writes since the last sweep.
    writes: Cell<u32>,
}

struct Waiting {
    postings: Vec<Posting>,
    answer: oneshot::Sender<Answers>,
}

type Answers = Vec<Result<Balance, Fault>>;

impl Accounts {
    /// The accounts in `store`, for an isolate that counts on living for `longest_lease`.
    pub fn new(
        store: impl Store,
        longest_lease: Duration,
        clock: Rc<dyn Clock>,
        tasks: Rc<dyn Tasks>,
        dice: Rc<RefCell<Dice>>,
    ) -> Self {
        Self(Rc::new(Inner {
            store: Box::new(store),
            longest_lease,
            clock,
            tasks,
            dice,
            waiting: RefCell::default(),
            is_served: Cell::default(),
            seen: RefCell::default(),
            // The first write of an isolate sweeps: many isolates live for no more than a few requests.
            writes: Cell::new(SWEEP_EVERY),
        }))
    }
}

#[async_trait(?Send)]
impl Ledger for Accounts {
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

    fn is_shared(&self) -> bool {
        true
    }

    fn longest_lease(&self) -> Duration {
        self.0.longest_lease
    }
}

impl Inner {
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
                let _ = self.store.sweep().await;
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
        let postings = batch.iter().flat_map(|waiting| &waiting.postings);
        let mut ids: Vec<Rc<str>> = Vec::new();
        for Posting { account, .. } in postings {
            if let Err(place) = ids.binary_search(account) {
                ids.insert(place, account.clone());
            }
        }
        let began = self.clock.now();
        for attempt in 1..=ATTEMPTS {
            let recalled = self.recall(&ids);
            let is_recalled = recalled.is_some();
            let Reading { now, found } = match recalled {
                Some(reading) => reading,
                None => self.store.read(&ids).await?,
            };
            let mut sheet = Sheet::new(ids.iter().cloned().zip(found));
            let posts = batch.iter();
            let answers: Vec<_> = posts
                .map(|waiting| sheet.post(&waiting.postings, now))
                .collect();
            let shows = sheet.changes().len() < ids.len();
            if is_recalled && (shows || answers.iter().any(refuses)) {
                // Another isolate may have changed the account since, and no write would tell: refuse only what is refused at
                // this moment, and show what is there.
                continue;
            }
            let version = (self.dice.borrow_mut().roll() >> 12).cast_signed();
            if self.keep(&sheet, now, version).await? {
                self.remember(sheet.into_kept(version));
                return Ok(answers);
            }
            if self.clock.now().since(began) > PATIENCE {
                break;
            }
            if !is_recalled {
                self.clock.sleep(self.pause(attempt)).await;
            }
        }
        Err(Fault("it is changed by too many at once".into()))
    }

    /// What this isolate has last seen of the accounts named `ids`, if it has seen them all; it forgets that by it.
    fn recall(&self, ids: &[Rc<str>]) -> Option<Reading> {
        let mut seen = self.seen.borrow_mut();
        let kept: Vec<_> = ids.iter().map(|id| seen.get_mut(id)?.take()).collect();
        let found = kept.into_iter().map(|kept| kept.map(|kept| Ok(Some(kept))));
        Some(Reading {
            found: found.collect::<Option<_>>()?,
            now: self.store.now()?,
        })
    }

    /// Keeps what has changed, if nobody else has changed it meanwhile; says whether.
    ///
    /// The version is drawn at random. So a write that was planned before an account expired cannot win against the account of
    /// the same name that came after, and a write whose answer got lost is known again.
    async fn keep(&self, sheet: &Sheet, now: Timestamp, version: i64) -> Result<bool, Fault> {
        let changes = sheet.changes();
        if changes.is_empty() {
            return Ok(true);
        }
        self.writes.set(self.writes.get().saturating_add(1));
        self.store.write(&changes, now, version).await
    }

    fn remember(&self, kept: impl Iterator<Item = (Rc<str>, Kept)>) {
        let mut seen = self.seen.borrow_mut();
        if seen.len() >= SEEN {
            seen.clear();
        }
        for (id, kept) in kept {
            seen.insert(id, Some(kept));
        }
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

/// How often a change is tried, and for how long: nobody waits any more then.
const ATTEMPTS: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(5);

/// How many accounts are changed in one step, unless one post has more.
const STEP: usize = 64;

/// Accounts that an isolate remembers.
const SEEN: usize = 1024;

/// Writes of an isolate between two sweeps.
const SWEEP_EVERY: u32 = 256;
