//! How a run of Dify's is ended that nobody wants any more: Dify does not notice who has left.

use std::{rc::Rc, time::Duration};

use http::{HeaderMap, header};

use crate::{
    dialect::{
        Meter,
        dify::{Parting, Run, Trace},
    },
    dispatch::Target,
    exchange::{join, post},
    patience::within,
    platform::Platform,
    record::Attempt,
    time::millis,
    trail::Trail,
    upstream::{FailureReason, OnAbort, Outcome},
};

/// How long Dify may take to say that it ends a run.
const LONGEST: Duration = Duration::from_secs(5);

/// A run that was asked for, and all that it takes to end it: it is stopped where it was begun, with the same user and key.
pub(crate) struct Cancel {
    pub(crate) run: Run,
    /// What is left of it, where it is told in other words.
    pub(crate) trace: Option<Rc<Trace>>,
    pub(crate) target: Target,
    /// What it was asked for with.
    pub(crate) headers: HeaderMap,
    pub(crate) connect: Duration,
    pub(crate) platform: Platform,
    pub(crate) trail: Trail,
}

impl Cancel {
    /// What is to be done now that its caller has left, of whose stream so much has been `seen`.
    pub(crate) fn parting(&self, seen: &Meter) -> Option<Parting> {
        self.run.parting(seen, self.trace.as_deref())
    }

    /// Whether it can be ended: it has begun, is not over, and has said its name.
    pub(crate) fn can_be_stopped(&self) -> bool {
        self.given_up().is_some()
    }

    /// Whether it may come to that: it may yet begin, and say its name.
    pub(crate) fn may_be_stopped(&self) -> bool {
        let is_open = |trace: &Rc<Trace>| !trace.is_over.get() && trace.task.borrow().is_none();
        self.run.on_abort == OnAbort::Stop && self.trace.as_ref().is_some_and(is_open)
    }

    fn given_up(&self) -> Option<Parting> {
        self.run.given_up(self.trace.as_deref()?)
    }

    /// Ends it by posting `body` to `path`. Says what is wrong if it may go on all the same.
    pub(crate) async fn stop(&self, path: &str, body: String) -> Option<String> {
        if let Some(trace) = &self.trace {
            trace.is_over.set(true);
        }
        let clock = &*self.platform.clock;
        let began = clock.now();
        let mut headers = self.headers.clone();
        for told in [header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
            headers.remove(told);
        }
        let request = post(join(&self.target.origin.base, path)?, headers, body.into());
        let sent = self.platform.upstream.send(request, self.connect);
        let outcome = match within(clock, LONGEST, sent).await {
            Some(Ok(response)) => Outcome::Status(response.status()),
            Some(Err(failure)) => Outcome::Failed(failure.reason),
            None => Outcome::Failed(FailureReason::Timeout),
        };
        self.trail.aside(Attempt {
            target: [&*self.target.name, ":stop"].concat(),
            outcome: outcome.to_string(),
            ms: millis(clock.now().since(began)),
            detail: None,
        });
        let has_stopped = outcome.status().is_some_and(|status| status.is_success());
        (!has_stopped).then(|| format!("the run could not be stopped: {outcome}"))
    }

    /// Ends it if it goes on. Says what is wrong if it may go on all the same.
    pub(crate) async fn end(&self) -> Option<String> {
        match self.given_up() {
            Some(Parting::Stop { path, body }) => self.stop(&path, body).await,
            _ => None,
        }
    }

    /// Has it ended, if it goes on. Nobody waits for that.
    pub(crate) fn give_up(self: Rc<Self>) {
        if self.can_be_stopped() {
            let tasks = self.platform.tasks.clone();
            tasks.spawn(Box::pin(async move {
                self.end().await;
            }));
        }
    }
}
