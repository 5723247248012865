//! What a request holds as long as it is in progress: its places within limits on what goes on at the same time, and the tokens
//! that it may spend.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use crate::{
    admission::{Bill, Denial, Desk},
    claim::Claim,
    limit::Held,
    patience::within,
    time::Timestamp,
};

/// How often an isolate says that a request is still in progress.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What one request holds. When this is dropped, however the request ends, places are given back and tokens are settled.
#[derive(Default)]
pub(crate) struct Tenure(Option<Rc<Inside>>);

/// Seen from both sides: by the request, and by the task that keeps it up.
struct Inside {
    desk: Desk,
    held: RefCell<Vec<(Claim, Held)>>,
    /// The limits on tokens that are kept strictly, and how many may be spent.
    strict: Vec<Claim>,
    tokens: Cell<Option<u64>>,
    bill: Cell<Bill>,
    is_over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Until when what is held is surely the request's.
    until: Cell<Timestamp>,
}

/// More tokens on their way; a denial if there are none.
pub(crate) type Extension = Pin<Box<dyn Future<Output = Result<(), Denial>>>>;

impl Tenure {
    /// Keeps up what is `held` until this is dropped.
    pub(crate) fn keep(desk: Desk, held: Vec<(Claim, Held)>) -> Self {
        let Some(until) = first_end(&held) else {
            return Self::default();
        };
        let tasks = desk.platform().tasks.clone();
        let claims = held.iter().map(|(claim, _)| claim);
        let inside = Rc::new(Inside {
            desk,
            strict: claims.filter(|claim| claim.is_strict()).cloned().collect(),
            tokens: Cell::new(least_tokens(&held)),
            held: RefCell::new(held),
            bill: Cell::new(Bill::Exactly(0)),
            is_over: Cell::new(false),
            waker: RefCell::default(),
            until: Cell::new(until),
        });
        tasks.spawn(Box::pin(inside.clone().keep_up()));
        Self(Some(inside))
    }

    /// Whether nothing is held.
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Whether what was held may be somebody else's by now: the ledger could not be told in time that it is still in use.
    pub(crate) fn is_lost(&self, now: Timestamp) -> bool {
        let lost = |inside: &Rc<Inside>| now > inside.until.get();
        self.0.as_ref().is_some_and(lost)
    }

    /// How many tokens may be spent, where a limit on them is kept strictly.
    pub(crate) fn tokens(&self) -> Option<u64> {
        self.0.as_ref()?.tokens.get()
    }

    /// Holds `tokens` more on every limit on them that is kept strictly, on all or on none; and up to `more` beyond, as far as
    /// there is room. `forgiving`: a ledger that fails lets it be.
    pub(crate) fn extend(&self, tokens: u64, more: u64, forgiving: bool) -> Extension {
        let inside = self.0.clone();
        Box::pin(async move {
            let Some(inside) = inside else { return Ok(()) };
            let claims: Vec<Claim> = inside
                .strict
                .iter()
                .map(|claim| claim.for_units(tokens, more))
                .collect();
            let admission = inside.desk.admit(&claims, forgiving).await?;
            // What no ledger could hold is forgiven.
            let added = least_tokens(&admission.held).unwrap_or(tokens);
            let held = inside.tokens.get().map(|held| held.saturating_add(added));
            inside.tokens.set(held);
            inside.join(admission.held);
            Ok(())
        })
    }

    /// Says what was spent; until it is said, nothing was.
    pub(crate) fn bill(&self, bill: Bill) {
        if let Some(inside) = &self.0 {
            inside.bill.set(bill);
        }
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if let Some(inside) = &self.0 {
            inside.is_over.set(true);
            if let Some(waker) = inside.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Inside {
    async fn keep_up(self: Rc<Self>) {
        let clock = self.desk.platform().clock.clone();
        while within(&*clock, HEARTBEAT, self.over()).await.is_none() {
            let mut held = self.held.take();
            let renewed = self.desk.renew(&mut held).await;
            // What could not be renewed is the request's until its holding ends.
            if let Some(until) = first_end(&held).filter(|_| renewed) {
                self.until.set(until);
            }
            self.join(held);
        }
        let held = self.held.take();
        self.desk.settle(held, self.bill.get()).await;
    }

    /// Adds what is held from now on.
    fn join(&self, more: Vec<(Claim, Held)>) {
        let mut held = self.held.borrow_mut();
        for (claim, units) in more {
            match held
                .iter_mut()
                .find(|(other, _)| other.account == claim.account)
            {
                Some((_, held)) => held.join(units),
                None => held.push((claim, units)),
            }
        }
    }

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

fn least_tokens(held: &[(Claim, Held)]) -> Option<u64> {
    let strict = held.iter().filter(|(claim, _)| claim.is_strict());
    strict.map(|(_, held)| held.units()).min()
}

fn first_end(held: &[(Claim, Held)]) -> Option<Timestamp> {
    held.iter().filter_map(|(_, held)| held.until()).min()
}
