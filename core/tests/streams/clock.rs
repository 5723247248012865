//! Time that passes only when everybody waits for it, and who waits.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use tidegate_core::{
    platform::{Clock, Task, Tasks},
    time::Timestamp,
};

/// The world's clock, and all that goes on in it.
#[derive(Default)]
pub(crate) struct Time {
    now: Cell<u64>,
    sleepers: RefCell<BTreeMap<(u64, u64), Waker>>,
    names: Cell<u64>,
    new: RefCell<Vec<Task>>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Time {
    pub(crate) fn at(now: u64) -> Rc<Self> {
        let time = Self::default();
        time.now.set(now);
        Rc::new(time)
    }

    pub(crate) fn ms(&self) -> u64 {
        self.now.get()
    }

    /// Runs everything until nobody waits for anything any more.
    pub(crate) fn run(&self) {
        let mut running: Vec<(Task, Arc<Flag>)> = Vec::new();
        loop {
            loop {
                let new = self.new.take().into_iter();
                running.extend(new.map(|task| (task, Arc::new(Flag(AtomicBool::new(true))))));
                let before = running.len();
                let mut moved = false;
                running.retain_mut(|(task, flag)| {
                    if !flag.0.swap(false, Ordering::Relaxed) {
                        return true;
                    }
                    moved = true;
                    let waker = Waker::from(flag.clone());
                    let mut cx = Context::from_waker(&waker);
                    task.as_mut().poll(&mut cx).is_pending()
                });
                if !moved && running.len() == before && self.new.borrow().is_empty() {
                    break;
                }
            }
            let Some(next) = self.sleepers.borrow().keys().next().map(|(at, _)| *at) else {
                assert!(running.is_empty(), "somebody waits for nothing");
                return;
            };
            self.now.set(next);
            while let Some(((at, _), waker)) = self.first_due() {
                assert!(at <= next);
                waker.wake();
            }
        }
    }

    fn first_due(&self) -> Option<((u64, u64), Waker)> {
        let mut sleepers = self.sleepers.borrow_mut();
        let first = sleepers.first_entry()?;
        (first.key().0 <= self.now.get()).then(|| first.remove_entry())
    }

    /// Returns at `until`.
    pub(crate) fn until(self: &Rc<Self>, until: u64) -> Sleep {
        let name = self.names.get();
        self.names.set(name + 1);
        Sleep {
            time: self.clone(),
            key: (until, name),
        }
    }
}

/// Waiting for an instant.
pub(crate) struct Sleep {
    time: Rc<Time>,
    key: (u64, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleepers = self.time.sleepers.borrow_mut();
        if self.time.ms() >= self.key.0 {
            sleepers.remove(&self.key);
            return Poll::Ready(());
        }
        sleepers.insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.time.sleepers.borrow_mut().remove(&self.key);
    }
}

/// The port over it.
pub(crate) struct Face(pub(crate) Rc<Time>);

#[async_trait(?Send)]
impl Clock for Face {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.ms())
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.0.ms() + duration.as_millis() as u64;
        self.0.until(until).await;
    }
}

impl Tasks for Face {
    fn spawn(&self, task: Task) {
        self.0.new.borrow_mut().push(task);
    }
}
