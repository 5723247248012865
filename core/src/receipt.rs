//! What is known of a stream when it is over.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::record::Closing;

/// Resolves once the stream is over, however it ended.
pub(crate) struct Receipt(Rc<RefCell<Slip>>);

/// Where it is written, exactly once: when the stream ends, when it breaks, or when the caller leaves.
#[derive(Clone)]
pub(crate) struct Pen(Rc<RefCell<Slip>>);

#[derive(Default)]
struct Slip {
    closing: Option<Closing>,
    waker: Option<Waker>,
}

/// A receipt, and what it is written with.
pub(crate) fn receipt() -> (Pen, Receipt) {
    let slip = Rc::default();
    (Pen(Rc::clone(&slip)), Receipt(slip))
}

impl Pen {
    /// Writes the receipt.
    pub(crate) fn write(&self, closing: Closing) {
        let mut slip = self.0.borrow_mut();
        slip.closing = Some(closing);
        if let Some(waker) = slip.waker.take() {
            waker.wake();
        }
    }
}

impl Future for Receipt {
    type Output = Closing;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closing> {
        let mut slip = self.0.borrow_mut();
        match slip.closing.take() {
            Some(closing) => Poll::Ready(closing),
            None => {
                slip.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
