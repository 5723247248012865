//! Carries a stream to the caller event by event, and tells afterwards how it went.
//!
//! One stream has two halves: the [`Body`] that the caller reads, and the [`Receipt`] that the record waits for. The
//! receipt is written exactly once: when the stream ends, when it breaks, or when the caller leaves.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::Frame;

use crate::{
    body::{Body, BoxError, join},
    dialect::{Dialect, Meter, Verdict},
    permit::Permits,
    platform::Clock,
    record::Ending,
    refusal::Refusal,
    sse::Framer,
    time::Timestamp,
    usage::Usage,
};

/// Splits a stream into what the caller reads and what is known of it when it is over.
pub(crate) fn watch(
    body: Body,
    meter: Meter,
    dialect: Dialect,
    clock: Rc<dyn Clock>,
    permits: Permits,
) -> (Body, Receipt) {
    let slip = Rc::new(RefCell::new(Slip::default()));
    let relay = Relay {
        body: Some(body),
        framer: Framer::default(),
        meter,
        dialect,
        clock,
        permits,
        first_byte: None,
        slip: slip.clone(),
    };
    (Body::arriving(relay), Receipt(slip))
}

/// How a stream went.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    pub(crate) ended: Ending,
    pub(crate) usage: Usage,
    /// When the first byte went to the caller, if one did.
    pub(crate) first_byte: Option<Timestamp>,
    /// For the operator.
    pub(crate) detail: Option<String>,
}

/// Resolves once the stream is over, however it ended.
pub(crate) struct Receipt(Rc<RefCell<Slip>>);

#[derive(Default)]
struct Slip {
    closing: Option<Closing>,
    waker: Option<Waker>,
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

struct Relay {
    /// The upstream's; gone once the stream is over, and the upstream with it.
    body: Option<Body>,
    framer: Framer,
    meter: Meter,
    dialect: Dialect,
    clock: Rc<dyn Clock>,
    /// What it holds as long as it goes on.
    permits: Permits,
    first_byte: Option<Timestamp>,
    slip: Rc<RefCell<Slip>>,
}

impl Relay {
    /// What a chunk of the upstream's is to the caller; nothing if it completed no event.
    fn chunk(&mut self, chunk: Bytes) -> Option<Bytes> {
        if self.permits.are_lost(self.clock.now()) {
            return Some(self.truncated("its place within a limit could not be kept".into()));
        }
        let mut events = Vec::new();
        let meter = &mut self.meter;
        let pushed = self.framer.push(chunk, |event| {
            if meter.read(&event) == Verdict::Pass {
                events.push(event);
            }
        });
        if let Err(oversized) = pushed {
            events.push(self.truncated(oversized.to_string()));
        }
        Some(join(events)).filter(|bytes| !bytes.is_empty())
    }

    /// What the end of the upstream's is to the caller.
    fn end(&mut self) -> Option<Bytes> {
        // The blank line behind the last event is sometimes forgotten.
        let rest = self.framer.finish();
        let rest = if self.meter.read(&rest) == Verdict::Pass {
            rest
        } else {
            Bytes::new()
        };
        if self.meter.is_whole() {
            self.close(Ending::Whole, None);
            return Some(rest).filter(|bytes| !bytes.is_empty());
        }
        Some(self.truncated("the stream ended before it was whole".into()))
    }

    /// What the upstream's breaking off is to the caller; nothing, if it had said everything.
    fn broken(&mut self, error: &BoxError) -> Option<Bytes> {
        if self.meter.is_whole() {
            self.close(Ending::Whole, Some(error.to_string()));
            return None;
        }
        Some(self.truncated(error.to_string()))
    }

    fn truncated(&mut self, detail: String) -> Bytes {
        self.close(Ending::Truncated, Some(detail));
        Refusal::Truncated.event(self.dialect)
    }

    /// Writes the receipt, if it is not written yet.
    fn close(&mut self, ended: Ending, detail: Option<String>) {
        if self.body.take().is_none() {
            return;
        }
        self.permits = Permits::default();
        let mut slip = self.slip.borrow_mut();
        slip.closing = Some(Closing {
            ended,
            usage: self.meter.usage(),
            first_byte: self.first_byte,
            detail,
        });
        if let Some(waker) = slip.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close(Ending::Abandoned, None);
    }
}

impl http_body::Body for Relay {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            let bytes = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => self.chunk(chunk),
                    Err(_) => continue,
                },
                Some(Err(error)) => self.broken(&error),
                None => self.end(),
            };
            if let Some(bytes) = bytes {
                if self.first_byte.is_none() {
                    self.first_byte = Some(self.clock.now());
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }
}
