//! Everything that a platform provides, on one page.
//!
//! A struct of small ports, so that a test or an adapter replaces one field. An adapter implements these and
//! decides nothing.

use std::{cell::RefCell, fmt, future::Future, pin::Pin, rc::Rc, time::Duration};

use async_trait::async_trait;

use crate::{
    body::Body,
    dice::Dice,
    limit::{Balance, Posting},
    record::Record,
    time::Timestamp,
    upstream::Failure,
};

/// What one isolate runs on: a Workers isolate, a Spin instance, a native thread, or a test.
#[derive(Clone)]
pub struct Platform {
    /// HTTP out.
    pub upstream: Rc<dyn Upstream>,
    /// Accounts, each changed by one entry at a time wherever the gateway runs.
    pub ledger: Rc<dyn Ledger>,
    /// Now, and patience.
    pub clock: Rc<dyn Clock>,
    /// Work that may finish after the answer has left.
    pub tasks: Rc<dyn Tasks>,
    /// Where the record of a request goes.
    pub journal: Rc<dyn Journal>,
    /// Randomness, seeded by the adapter.
    pub dice: Rc<RefCell<Dice>>,
}

/// HTTP out, streaming both ways.
#[async_trait(?Send)]
pub trait Upstream {
    /// Sends `request`, whose URI is absolute, and returns once the head of the answer is there.
    ///
    /// A new connection may take as long as `connect` says, where the platform can be told so. If it takes longer, that is a
    /// [`FailureReason::Connect`](crate::upstream::FailureReason::Connect): the upstream has seen nothing.
    ///
    /// With `upgrade` it asks to switch the connection: its body is then what is sent once that has happened, after the answer
    /// 101, whose body is what comes. The end of either is the end of both.
    ///
    /// Redirects are answers, never followed. Dropping the future or the answer's body ends the exchange. The
    /// answer's body fails if the upstream breaks off; it never ends as if it were whole.
    async fn send(
        &self,
        request: http::Request<Body>,
        connect: Duration,
    ) -> Result<http::Response<Body>, Failure>;
}

/// The accounts behind limits.
#[async_trait(?Send)]
pub trait Ledger {
    /// Changes the accounts named by [`Account::apply_all`](crate::limit::Account::apply_all), at the ledger's own `now`,
    /// alone: nothing else sees or changes one of them in between. What is returned is already kept.
    ///
    /// A ledger whose accounts lie apart changes each by [`Account::apply`](crate::limit::Account::apply) instead; then
    /// what is granted is held though another entry was refused, and it is the core that gives it back. An account
    /// that cannot be reached or read is a fault of its own.
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>>;

    /// Whether other isolates may ask it as well, so that it is where they can agree on something.
    fn is_shared(&self) -> bool;

    /// How long an isolate here can count on living, so that a lease is of use to it; nothing, where it cannot.
    fn longest_lease(&self) -> Duration;
}

/// Time.
#[async_trait(?Send)]
pub trait Clock {
    /// This instant.
    fn now(&self) -> Timestamp;

    /// Returns once `duration` has passed.
    async fn sleep(&self, duration: Duration);
}

/// Work that outlives the answer.
pub trait Tasks {
    /// Runs `task` to its end, even if the caller leaves.
    fn spawn(&self, task: Task);
}

/// A piece of work for [`Tasks`].
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What has happened, one record a request.
pub trait Journal {
    /// Writes `record`; never waits for it.
    fn write(&self, record: &Record);
}

/// A platform failed: opaque, for the operator's eyes only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}
