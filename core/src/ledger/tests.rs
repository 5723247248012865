use std::{
    collections::BTreeMap,
    task::{Context, Poll},
};

use futures::{
    executor::{LocalPool, LocalSpawner},
    task::LocalSpawnExt,
};

use super::*;
use crate::{limit::Settled, platform::Task};

#[test]
fn no_more_are_granted_than_the_limit_however_many_instances_ask() {
    let mut world = World::default();
    let instances: Vec<_> = (0..5).map(|seed| world.instance(seed)).collect();
    let granted = Rc::new(Cell::new(0));
    for caller in 0..400 {
        let (ledger, granted) = (instances[caller % instances.len()].clone(), granted.clone());
        world.start(async move {
            // Some come later, when desks have been closed and opened again.
            for _ in 0..caller / 40 {
                yielding().await;
            }
            let balance = ask(&ledger, "a", 1).await.unwrap();
            granted.set(granted.get() + u32::from(balance.granted));
        });
    }
    world.run();
    assert_eq!(granted.get(), 50);
    assert!(
        world.shelf.lost.get() > 0,
        "the instances never met, so nothing was proved"
    );
}

#[test]
fn entries_that_wait_together_are_written_together() {
    let mut world = World::default();
    let ledger = world.instance(1);
    for _ in 0..16 {
        let ledger = ledger.clone();
        world.start(async move { assert!(ask(&ledger, "a", 1).await.unwrap().granted) });
    }
    world.run();
    assert_eq!(world.shelf.written.get(), 1);
}

#[test]
fn a_refusal_is_not_made_of_what_is_out_of_date() {
    let mut world = World::default();
    let (here, there) = (world.instance(1), world.instance(2));
    world.start(async move {
        let held = ask(&here, "a", 50).await.unwrap().parcel.unwrap();
        ask(&there, "other", 1).await.unwrap();
        let mut giving_back = posting("a", 1);
        giving_back.entry.settled.push(Settled {
            bucket: held.bucket,
            spent: 0,
            ago: 0,
            unspent: 50,
        });
        giving_back.entry.take = None;
        there.post(&[giving_back]).await.remove(0).unwrap();
        assert!(ask(&here, "a", 1).await.unwrap().granted);
    });
    world.run();
}

#[test]
fn what_is_shown_is_not_out_of_date() {
    let mut world = World::default();
    let (here, there) = (world.instance(1), world.instance(2));
    world.start(async move {
        ask(&here, "a", 10).await.unwrap();
        ask(&here, "own", 1).await.unwrap();
        ask(&there, "a", 30).await.unwrap();
        let mut look = posting("a", 0);
        look.entry.take = None;
        let shown = here.post(&[look.clone()]).await.remove(0).unwrap();
        assert_eq!(shown.remaining, 10);
        ask(&there, "a", 5).await.unwrap();
        // Beside something that is written.
        let shown = here.post(&[look, posting("own", 1)]).await.remove(0);
        assert_eq!(shown.unwrap().remaining, 5);
    });
    world.run();
}

#[test]
fn of_several_accounts_all_are_changed_or_none() {
    let mut world = World::default();
    let (here, there) = (world.instance(1), world.instance(2));
    let shelf = world.shelf.clone();
    world.start(async move {
        ask(&here, "narrow", 50).await.unwrap();
        let answers = there
            .post(&[posting("wide", 1), posting("narrow", 1)])
            .await;
        assert!(!answers[1].as_ref().unwrap().granted);
        assert_eq!(answers[0].as_ref().unwrap().parcel, None);
        assert!(!shelf.kept.borrow().contains_key("wide"));
        let answers = there.post(&[posting("wide", 1), posting("other", 1)]).await;
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().unwrap().granted)
        );
        assert_eq!(ask(&here, "wide", 1).await.unwrap().remaining, 48);
        assert_eq!(ask(&here, "other", 1).await.unwrap().remaining, 48);
    });
    world.run();
}

#[test]
fn posts_that_share_an_account_are_kept_in_one_step() {
    let mut world = World::default();
    let ledger = world.instance(1);
    for caller in 0..16 {
        let ledger = ledger.clone();
        world.start(async move {
            let own = format!("own {caller}");
            for answer in ledger.post(&[posting("all", 1), posting(&own, 1)]).await {
                assert!(answer.unwrap().granted);
            }
        });
    }
    let shelf = world.shelf.clone();
    world.run();
    assert_eq!((shelf.read.get(), shelf.written.get()), (1, 1));
    assert_eq!(shelf.kept.borrow().len(), 17);
}

#[test]
fn more_than_one_step_takes_is_kept_in_several() {
    let mut world = World::default();
    let ledger = world.instance(1);
    for caller in 0..100 {
        let ledger = ledger.clone();
        world.start(async move {
            let own = format!("own {caller}");
            assert!(ask(&ledger, &own, 1).await.unwrap().granted);
        });
    }
    let shelf = world.shelf.clone();
    world.run();
    assert_eq!(shelf.written.get(), 2);
    assert_eq!(shelf.kept.borrow().len(), 100);
}

#[test]
fn an_account_that_cannot_be_read_fails_alone() {
    let mut world = World::default();
    let ledger = world.instance(1);
    world.shelf.unreadable.replace(Some("bad".into()));
    let beside = ledger.clone();
    world.start(async move { assert!(ask(&beside, "good", 1).await.unwrap().granted) });
    let shelf = world.shelf.clone();
    world.start(async move {
        let answers = ledger.post(&[posting("bad", 1), posting("good", 1)]).await;
        assert_eq!(answers[0], Err(Fault("`bad` is not ours".into())));
        assert!(answers[1].as_ref().unwrap().granted);
        assert!(!shelf.kept.borrow().contains_key("bad"));
    });
    world.run();
}

#[test]
fn whoever_gives_up_does_not_hold_up_those_behind() {
    let mut world = World::default();
    let ledger = world.instance(1);
    let (first, second) = (ledger.clone(), ledger);
    world.start(async move {
        let postings = [posting("a", 1)];
        let mut given_up = first.post(&postings);
        std::future::poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_ready())).await;
        drop(given_up);
    });
    world.start(async move { assert!(ask(&second, "a", 1).await.unwrap().granted) });
    world.run();
}

#[test]
fn a_store_that_fails_fails_everyone_who_waits_and_no_one_after() {
    let mut world = World::default();
    let ledger = world.instance(1);
    world.shelf.broken.set(true);
    for _ in 0..2 {
        let ledger = ledger.clone();
        world.start(async move { assert!(ask(&ledger, "a", 1).await.is_err()) });
    }
    world.run();
    world.shelf.broken.set(false);
    world.start(async move { assert!(ask(&ledger, "a", 1).await.unwrap().granted) });
    world.run();
}

/// Who speaks here.
const ME: u32 = 7;

async fn ask(ledger: &Rc<Accounts>, account: &str, units: u64) -> Result<Balance, Fault> {
    ledger.post(&[posting(account, units)]).await.remove(0)
}

fn posting(account: &str, units: u64) -> Posting {
    thread_local! {
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }
    let number = NUMBER.get() + 1;
    NUMBER.set(number);
    let entry = serde_json::json!({
        "quota": { "limit": 50, "per": 60_000 },
        "from": ME,
        "number": number,
        "take": { "units": units, "hold": 20 },
    });
    Posting {
        account: account.into(),
        entry: serde_json::from_value(entry).unwrap(),
    }
}

/// One store, and instances that share nothing else.
#[derive(Default)]
struct World {
    shelf: Rc<Shelf>,
    pool: LocalPool,
    started: u32,
    ended: Rc<Cell<u32>>,
}

impl World {
    fn instance(&self, seed: u8) -> Rc<Accounts> {
        let dice = Rc::new(RefCell::new(Dice::new([seed; 16])));
        let tasks = Rc::new(Spawner(self.pool.spawner()));
        Rc::new(Accounts::new(
            self.shelf.clone(),
            Duration::from_secs(1),
            Rc::new(Still),
            tasks,
            dice,
        ))
    }

    fn start(&mut self, caller: impl Future<Output = ()> + 'static) {
        self.started += 1;
        let ended = self.ended.clone();
        self.pool
            .spawner()
            .spawn_local(async move {
                caller.await;
                ended.set(ended.get() + 1);
            })
            .unwrap();
    }

    fn run(&mut self) {
        self.pool.run();
        assert_eq!(self.ended.get(), self.started);
    }
}

#[derive(Default)]
struct Shelf {
    kept: RefCell<BTreeMap<Rc<str>, Kept>>,
    read: Cell<u32>,
    written: Cell<u32>,
    lost: Cell<u32>,
    broken: Cell<bool>,
    unreadable: RefCell<Option<Rc<str>>>,
}

#[async_trait(?Send)]
impl Store for Rc<Shelf> {
    fn now(&self) -> Option<Timestamp> {
        Some(Still.now())
    }

    async fn read(&self, ids: &[Rc<str>]) -> Result<Reading, Fault> {
        yielding().await;
        if self.broken.get() {
            return Err(Fault("broken".into()));
        }
        self.read.set(self.read.get() + 1);
        let kept = self.kept.borrow();
        let found = ids.iter().map(|id| match &*self.unreadable.borrow() {
            Some(unreadable) if unreadable == id => Err(Fault(format!("`{id}` is not ours"))),
            _ => Ok(kept.get(id).cloned()),
        });
        Ok(Reading {
            now: Still.now(),
            found: found.collect(),
        })
    }

    async fn write(
        &self,
        changes: &[Change<'_>],
        _now: Timestamp,
        version: i64,
    ) -> Result<bool, Fault> {
        yielding().await;
        let version_of = |id| self.kept.borrow().get(id).map(|kept| kept.version);
        let won = changes
            .iter()
            .all(|change| version_of(change.id) == change.expected);
        if won {
            let kept = changes.iter().map(|change| {
                let account = change.account.clone();
                (change.id.clone(), Kept { version, account })
            });
            self.kept.borrow_mut().extend(kept);
        }
        let count = if won { &self.written } else { &self.lost };
        count.set(count.get() + 1);
        yielding().await;
        Ok(won)
    }

    async fn sweep(&self) -> Result<(), Fault> {
        yielding().await;
        Ok(())
    }
}

/// A clock that stands still; whoever sleeps lets the others go first.
struct Still;

#[async_trait(?Send)]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000)
    }

    async fn sleep(&self, _duration: Duration) {
        yielding().await;
    }
}

struct Spawner(LocalSpawner);

impl Tasks for Spawner {
    fn spawn(&self, task: Task) {
        self.0.spawn_local(task).unwrap();
    }
}

async fn yielding() {
    let mut yielded = false;
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
