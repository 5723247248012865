//! Callers who leave before their answer has ended.
//!
//! The runtime only says so by the `abort` event of the request's signal, which `entry.mjs` hands on. Then what is
//! being done for the caller is dropped, as a native server drops the future of a connection that broke.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

use wasm_bindgen::JsValue;

use crate::stream::Reading;

thread_local! {
    static CALLERS: RefCell<BTreeMap<u32, Weak<Caller>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Drops what is being done for the caller of `call`.
pub(crate) fn leave(call: u32) {
    let caller = CALLERS.with_borrow_mut(|callers| callers.remove(&call));
    if let Some(caller) = caller.and_then(|caller| caller.upgrade()) {
        caller.left.set(true);
        let reading = caller.reading.take();
        if let Some(reading) = reading {
            reading.end();
        }
        let waker = caller.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Somebody who waits for an answer.
pub(crate) struct Caller {
    /// The `ExecutionContext` of the call.
    pub(crate) context: JsValue,
    call: u32,
    left: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    reading: RefCell<Option<Rc<Reading>>>,
}

impl Caller {
    /// The caller of `call`.
    pub(crate) fn new(call: u32, context: JsValue) -> Rc<Self> {
        let caller = Rc::new(Self {
            context,
            call,
            left: Cell::default(),
            waker: RefCell::default(),
            reading: RefCell::default(),
        });
        CALLERS.with_borrow_mut(|callers| callers.insert(call, Rc::downgrade(&caller)));
        caller
    }

    /// What `work` comes to, or nothing, and `work` dropped, if the caller leaves before.
    pub(crate) async fn stays_for<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.left.get() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Notes what the caller reads.
    pub(crate) fn reads(&self, reading: &Rc<Reading>) {
        self.reading.replace(Some(Rc::clone(reading)));
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        CALLERS.with_borrow_mut(|callers| callers.remove(&self.call));
    }
}
