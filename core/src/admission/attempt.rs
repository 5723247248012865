//! A try to hold a request that nobody can break off.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::{Desk, tally::Try};

/// A try to hold a request. If nobody waits for it any more it goes on as work of its own, and gives back what it gets: a ledger
/// that was asked holds what it granted, whoever has left meanwhile.
pub(super) struct Attempt {
    desk: Desk,
    /// Nothing once it has come to its end.
    work: Option<Pin<Box<dyn Future<Output = Try>>>>,
}

impl Attempt {
    pub(super) fn new(desk: &Desk, work: impl Future<Output = Try> + 'static) -> Self {
        Self {
            desk: desk.clone(),
            work: Some(Box::pin(work)),
        }
    }
}

impl Future for Attempt {
    type Output = Try;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Try> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let tried = ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(tried)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else {
            return;
        };
        let desk = self.desk.clone();
        let tasks = desk.0.platform.tasks.clone();
        tasks.spawn(Box::pin(async move {
            if let Try::In(held, _) = work.await {
                desk.put_back(held).await;
            }
        }));
    }
}
