//! Callers who leave before their answer has ended.
//!
//! The runtime only says so by the `abort` event of the request's signal. Then what is being done for the caller is
//! dropped, as a native server drops the future of a connection that broke.
//!
//! A signal costs the runtime as much as a tenth of a call, so most calls that are answered at once, refusals above all, go
//! without: a caller is watched from when somebody has waited for a while, or begins to stream. The context is kept
//! meanwhile, so nothing is lost if he leaves before.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use wasm_bindgen::prelude::*;

use crate::promised::{Promised, Settled};

/// Somebody who waits for an answer.
pub(crate) struct Caller {
    pub(crate) request: JsValue,
    /// The `ExecutionContext` of the call.
    pub(crate) context: JsValue,
    leaves: RefCell<Option<Promised>>,
    waker: RefCell<Option<Waker>>,
}

impl Caller {
    /// Who sent `request`.
    pub(crate) fn new(request: JsValue, context: JsValue) -> Rc<Self> {
        Rc::new(Self {
            request,
            context,
            leaves: RefCell::default(),
            waker: RefCell::default(),
        })
    }

    /// Whether it would be known that he leaves.
    pub(crate) fn is_watched(&self) -> bool {
        self.leaves.borrow().is_some()
    }

    /// Sees to it that it is known when he leaves.
    pub(crate) fn watch(&self) {
        if self.is_watched() {
            return;
        }
        let (leaves, ()) = Promised::begin(|id, settled| watch(&self.request, id, settled));
        self.leaves.replace(Some(leaves));
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What `work` comes to, or nothing, and `work` dropped, if the caller leaves before.
    pub(crate) async fn stays_for<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.has_left(cx) {
                return Poll::Ready(None);
            }
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if !self.is_watched() {
                self.waker.replace(Some(cx.waker().clone()));
            }
            Poll::Pending
        })
        .await
    }

    fn has_left(&self, cx: &mut Context<'_>) -> bool {
        self.leaves
            .borrow_mut()
            .as_mut()
            .is_some_and(|leaves| Pin::new(leaves).poll(cx).is_ready())
    }
}

#[wasm_bindgen(module = "/src/caller.js")]
extern "C" {
    fn watch(request: &JsValue, id: u32, left: &Settled);
}
