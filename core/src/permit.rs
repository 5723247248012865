//! What a request holds as long as it is in progress: a place within each limit on what goes on at the same time.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use crate::{
    admission::{Claim, Desk},
    limit::Held,
    patience::within,
    time::Timestamp,
};

/// How often an isolate says that a request is still in progress.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The places of one request; given back when this is dropped, however the request ends.
#[derive(Debug, Default)]
pub(crate) struct Permits(Option<Rc<Tenure>>);

/// How long the places are held, seen from both sides: the request, and the task that keeps them for it.
#[derive(Debug, Default)]
struct Tenure {
    is_over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Until when the places are surely the request's.
    until: Cell<Timestamp>,
}

impl Permits {
    /// Keeps what is `held` for a request until this is dropped.
    pub(crate) fn keep(desk: Desk, held: Vec<(Claim, Held)>) -> Self {
        let Some(until) = first_end(&held) else {
            return Self::default();
        };
        let tenure = Rc::new(Tenure::default());
        tenure.until.set(until);
        let tasks = desk.platform().tasks.clone();
        tasks.spawn(Box::pin(hold(desk, held, tenure.clone())));
        Self(Some(tenure))
    }

    /// Whether nothing is held.
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the places may be somebody else's by now: the ledger could not be told in time that they are still in use.
    pub(crate) fn are_lost(&self, now: Timestamp) -> bool {
        let lost = |tenure: &Rc<Tenure>| now > tenure.until.get();
        self.0.as_ref().is_some_and(lost)
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        if let Some(tenure) = &self.0 {
            tenure.is_over.set(true);
            if let Some(waker) = tenure.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Tenure {
    async fn over(&self) {
        poll_fn(|cx| {
            if self.is_over.get() {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

async fn hold(desk: Desk, mut held: Vec<(Claim, Held)>, tenure: Rc<Tenure>) {
    let clock = desk.platform().clock.clone();
    while within(&*clock, HEARTBEAT, tenure.over()).await.is_none() {
        desk.renew(&mut held).await;
        // A place that could not be renewed is the request's until its holding ends.
        if held.iter().all(|(_, held)| held.units() > 0)
            && let Some(until) = first_end(&held)
        {
            tenure.until.set(until);
        }
    }
    desk.put_back(held).await;
}

fn first_end(held: &[(Claim, Held)]) -> Option<Timestamp> {
    held.iter().filter_map(|(_, held)| held.until()).min()
}
