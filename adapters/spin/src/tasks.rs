//! Work beside the request, which the host lets finish; it keeps the instance for that long.
//!
//! The runtime below takes up what is spawned only with its next turn, and by itself has none before something else happens: a
//! request that waits for what it has spawned would wait for ever. So whoever spawns has itself woken.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use spin_sdk::wasip3;
use tidegate_core::platform::{self, Task};

thread_local! {
    /// Wakes the work that runs at this moment.
    static RUNNING: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// Work that the host finishes after the answer has left.
pub(crate) struct Tasks;

impl platform::Tasks for Tasks {
    fn spawn(&self, task: Task) {
        spawn(task);
    }
}

/// Runs `work` beside the request, beginning with the next turn.
pub(crate) fn spawn(work: impl Future<Output = ()> + 'static) {
    wasip3::spawn(woken(work));
    RUNNING.with_borrow(|running| {
        if let Some(waker) = running {
            waker.wake_by_ref();
        }
    });
}

/// The same work, of which is known what to wake when it spawns.
pub(crate) fn woken<F: Future>(work: F) -> impl Future<Output = F::Output> {
    Woken(Box::pin(work))
}

struct Woken<F>(Pin<Box<F>>);

impl<F: Future> Future for Woken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let outer = RUNNING.replace(Some(cx.waker().clone()));
        let poll = self.0.as_mut().poll(cx);
        RUNNING.set(outer);
        poll
    }
}
