//! Time that passes only when nobody can go on without it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use tidegate_core::{platform::Clock, time::Timestamp};

/// A clock that stands still until somebody skips ahead.
#[derive(Clone)]
pub(super) struct StillClock(Rc<Face>);

struct Face {
    now: Cell<Timestamp>,
    sleepers: RefCell<BTreeMap<(Timestamp, u64), Waker>>,
    names: Cell<u64>,
}

impl Default for StillClock {
    fn default() -> Self {
        let now = Cell::new(Timestamp(1_800_000_000_000));
        Self(Rc::new(Face {
            now,
            sleepers: RefCell::default(),
            names: Cell::default(),
        }))
    }
}

impl StillClock {
    /// The next instant that somebody waits for.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0
            .sleepers
            .borrow()
            .first_key_value()
            .map(|((until, _), _)| *until)
    }

    /// Goes on to the next instant that somebody waits for.
    pub(super) fn skip_ahead(&self) -> bool {
        let Some(next) = self.next() else {
            return false;
        };
        self.set(next);
        let mut sleepers = self.0.sleepers.borrow_mut();
        while let Some(first) = sleepers.first_entry()
            && first.key().0 <= next
        {
            first.remove().wake();
        }
        true
    }

    /// Goes on to `now`, and never back.
    pub(super) fn set(&self, now: Timestamp) {
        self.0.now.set(self.0.now.get().max(now));
    }
}

#[async_trait(?Send)]
impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        self.0.now.get()
    }

    async fn sleep(&self, duration: Duration) {
        Sleep::new(self.clone(), duration).await;
    }
}

/// Waiting for an instant.
pub(super) struct Sleep {
    clock: StillClock,
    key: (Timestamp, u64),
}

impl Sleep {
    /// Waits for `duration` from now.
    pub(super) fn new(clock: StillClock, duration: Duration) -> Self {
        let name = clock.0.names.get();
        clock.0.names.set(name + 1);
        let key = (clock.now().after(duration), name);
        Self { clock, key }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.key.0 {
            return Poll::Ready(());
        }
        let mut sleepers = self.clock.0.sleepers.borrow_mut();
        sleepers.insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // Whoever stopped waiting does not make time pass.
        if self.clock.now() < self.key.0 {
            self.clock.0.sleepers.borrow_mut().remove(&self.key);
        }
    }
}
