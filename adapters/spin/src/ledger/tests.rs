use std::{
    num::NonZeroU64,
    task::{Context, Poll},
};

use futures::{
    executor::{LocalPool, LocalSpawner},
    task::LocalSpawnExt,
};
use tidegate_core::{limit::Quota, platform::Task};

use super::*;

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
            let balance = ledger.apply("a", hold(1)).await.unwrap();
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
        world.start(async move { assert!(ledger.apply("a", hold(1)).await.unwrap().granted) });
    }
    world.run();
    assert_eq!(world.shelf.written.get(), 1);
}

#[test]
fn a_refusal_is_not_made_of_what_is_out_of_date() {
    let mut world = World::default();
    let (here, there) = (world.instance(1), world.instance(2));
    world.start(async move {
        let held = here.apply("a", hold(50)).await.unwrap();
        let release = Entry::Release {
            quota: QUOTA,
            units: 50,
            held: held.at,
        };
        assert!(there.apply("a", release).await.unwrap().granted);
        assert!(here.apply("a", hold(1)).await.unwrap().granted);
    });
    world.run();
}

#[test]
fn whoever_gives_up_does_not_hold_up_those_behind() {
    let mut world = World::default();
    let ledger = world.instance(1);
    let (first, second) = (ledger.clone(), ledger);
    world.start(async move {
        let mut given_up = first.apply("a", hold(1));
        std::future::poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_ready())).await;
        drop(given_up);
    });
    world.start(async move { assert!(second.apply("a", hold(1)).await.unwrap().granted) });
    world.run();
}

#[test]
fn a_store_that_fails_fails_everyone_who_waits_and_no_one_after() {
    let mut world = World::default();
    let ledger = world.instance(1);
    world.shelf.broken.set(true);
    for _ in 0..2 {
        let ledger = ledger.clone();
        world.start(async move { assert!(ledger.apply("a", hold(1)).await.is_err()) });
    }
    world.run();
    world.shelf.broken.set(false);
    world.start(async move { assert!(ledger.apply("a", hold(1)).await.unwrap().granted) });
    world.run();
}

const QUOTA: Quota = Quota {
    limit: NonZeroU64::new(50).unwrap(),
    per: NonZeroU64::new(60_000).unwrap(),
};

fn hold(units: u64) -> Entry {
    Entry::Hold {
        quota: QUOTA,
        units,
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
    fn instance(&self, seed: u8) -> Rc<Accounts<Rc<Shelf>>> {
        let dice = Rc::new(RefCell::new(Dice::new([seed; 16])));
        let tasks = Rc::new(Spawner(self.pool.spawner()));
        Rc::new(Accounts::new(
            self.shelf.clone(),
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
    kept: RefCell<BTreeMap<String, Kept>>,
    written: Cell<u32>,
    lost: Cell<u32>,
    broken: Cell<bool>,
}

#[async_trait(?Send)]
impl Store for Rc<Shelf> {
    async fn read(&self, id: &str) -> Result<Option<Kept>, Fault> {
        yielding().await;
        if self.broken.get() {
            return Err(Fault("broken".into()));
        }
        Ok(self.kept.borrow().get(id).cloned())
    }

    async fn write(
        &self,
        id: &str,
        expected: Option<i64>,
        next: &Kept,
        _expires: Timestamp,
    ) -> Result<bool, Fault> {
        yielding().await;
        let won = self.kept.borrow().get(id).map(|kept| kept.version) == expected;
        if won {
            self.kept.borrow_mut().insert(id.into(), next.clone());
        }
        let count = if won { &self.written } else { &self.lost };
        count.set(count.get() + 1);
        yielding().await;
        Ok(won)
    }

    async fn sweep(&self, _now: Timestamp) -> Result<(), Fault> {
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
