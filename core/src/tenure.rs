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

/// How often an isolate says that a request is still in progress, at least.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How often it looks for those of which it is time to say so.
const BEAT: Duration = Duration::from_secs(5);

/// Keeps up what requests hold, for all of them together: a task and a clock for each would cost as much as to hold them. Cheap to
/// clone.
#[derive(Clone)]
pub(crate) struct Keeper(Rc<Office>);

struct Office {
    desk: Desk,
    /// What is held, each at its place, and the places that are free.
    kept: RefCell<Vec<Option<Rc<Inside>>>>,
    free: RefCell<Vec<usize>>,
    /// Of what the ledger is to hear.
    owing: RefCell<Vec<Claim>>,
    is_at_work: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What one request holds. When this is dropped, however the request ends, places are given back and tokens are settled.
#[derive(Default)]
pub(crate) struct Tenure(Option<Rc<Inside>>);

/// Seen from both sides: by the request, and by whoever keeps it up.
struct Inside {
    keeper: Keeper,
    place: usize,
    held: RefCell<Vec<(Claim, Held)>>,
    /// The limits on tokens that are kept strictly, and how many may be spent.
    strict: Vec<Claim>,
    tokens: Cell<Option<u64>>,
    bill: Cell<Bill>,
    is_over: Cell<bool>,
    /// When it was said last that the request is in progress; and whether that is being said.
    renewed: Cell<Timestamp>,
    is_renewing: Cell<bool>,
    /// Until when what is held is surely the request's.
    until: Cell<Timestamp>,
}

/// More tokens on their way; a denial if there are none.
pub(crate) type Extension = Pin<Box<dyn Future<Output = Result<(), Denial>>>>;

impl Keeper {
    /// Of what is held at `desk`.
    pub(crate) fn new(desk: Desk) -> Self {
        Self(Rc::new(Office {
            desk,
            kept: RefCell::default(),
            free: RefCell::default(),
            owing: RefCell::default(),
            is_at_work: Cell::default(),
            waker: RefCell::default(),
        }))
    }

    /// Where it is held.
    pub(crate) fn desk(&self) -> &Desk {
        &self.0.desk
    }

    /// Keeps up what is `held` until the tenure is dropped.
    pub(crate) fn keep(&self, held: Vec<(Claim, Held)>) -> Tenure {
        let Some(until) = first_end(&held) else {
            return Tenure::default();
        };
        let claims = held.iter().map(|(claim, _)| claim);
        let mut kept = self.0.kept.borrow_mut();
        let place = self.0.free.borrow_mut().pop();
        let place = place.unwrap_or_else(|| {
            kept.push(None);
            kept.len() - 1
        });
        let inside = Rc::new(Inside {
            keeper: self.clone(),
            place,
            strict: claims.filter(|claim| claim.is_strict()).cloned().collect(),
            tokens: Cell::new(least_tokens(&held)),
            held: RefCell::new(held),
            bill: Cell::new(Bill::Exactly(0)),
            is_over: Cell::new(false),
            renewed: Cell::new(self.now()),
            is_renewing: Cell::new(false),
            until: Cell::new(until),
        });
        if let Some(empty) = kept.get_mut(place) {
            *empty = Some(inside.clone());
        }
        drop(kept);
        if !self.0.is_at_work.replace(true) {
            let tasks = &self.0.desk.platform().tasks;
            tasks.spawn(Box::pin(self.clone().work()));
        }
        Tenure(Some(inside))
    }

    /// Sees to everything that is held, until nothing is.
    async fn work(self) {
        let platform = self.0.desk.platform();
        loop {
            within(&*platform.clock, BEAT, self.called()).await;
            let owing = self.0.owing.take();
            if !owing.is_empty() {
                let desk = self.0.desk.clone();
                let told = async move { desk.tell(owing).await };
                platform.tasks.spawn(Box::pin(told));
            }
            if self.is_idle() {
                self.0.is_at_work.set(false);
                return;
            }
            let soon = self.now().after(BEAT);
            let is_due = |inside: &&Rc<Inside>| {
                !inside.is_renewing.get() && inside.renewed.get().after(HEARTBEAT) <= soon
            };
            let kept = self.0.kept.borrow();
            for inside in kept.iter().flatten().filter(is_due) {
                inside.is_renewing.set(true);
                platform.tasks.spawn(Box::pin(inside.clone().renew()));
            }
        }
    }

    /// There is something that cannot wait for the next beat: the ledger is to hear something, or nothing is held any more.
    async fn called(&self) {
        poll_fn(|cx| {
            if self.is_idle() || !self.0.owing.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.0.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn is_idle(&self) -> bool {
        self.0.kept.borrow().len() == self.0.free.borrow().len()
    }

    /// Settles what a request has held that is over.
    fn close(&self, inside: &Inside) {
        inside.is_over.set(true);
        if inside.is_renewing.get() {
            // It is settled once that is known.
            return;
        }
        if let Some(kept) = self.0.kept.borrow_mut().get_mut(inside.place) {
            *kept = None;
            self.0.free.borrow_mut().push(inside.place);
        }
        let held = inside.held.take();
        let owing = self.0.desk.settle(held, inside.bill.get());
        self.0.owing.borrow_mut().extend(owing);
        if (self.is_idle() || !self.0.owing.borrow().is_empty())
            && let Some(waker) = self.0.waker.take()
        {
            waker.wake();
        }
    }

    fn now(&self) -> Timestamp {
        self.0.desk.platform().clock.now()
    }
}

impl Tenure {
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
            let admission = inside.keeper.desk().admit(&claims, forgiving).await?;
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
        if let Some(inside) = self.0.take() {
            inside.keeper.close(&inside);
        }
    }
}

impl Inside {
    /// Says that the request is in progress.
    async fn renew(self: Rc<Self>) {
        let mut held = self.held.take();
        let renewed = self.keeper.desk().renew(&mut held).await;
        // What could not be renewed is the request's until its holding ends.
        if let Some(until) = first_end(&held).filter(|_| renewed) {
            self.until.set(until);
        }
        self.join(held);
        self.renewed.set(self.keeper.now());
        self.is_renewing.set(false);
        if self.is_over.get() {
            self.keeper.close(&self);
        }
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
}

fn least_tokens(held: &[(Claim, Held)]) -> Option<u64> {
    let strict = held.iter().filter(|(claim, _)| claim.is_strict());
    strict.map(|(_, held)| held.units()).min()
}

fn first_end(held: &[(Claim, Held)]) -> Option<Timestamp> {
    held.iter().filter_map(|(_, held)| held.until()).min()
}
