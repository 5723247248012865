//! Carries a stream to the caller event by event, and tells afterwards how it went.
//!
//! No event waits for another one; those that have arrived together go on together.
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
use http_body::{Body as _, Frame};

use crate::{
    admission::Denial,
    body::{Body, BoxError, join},
    budget::Budget,
    dialect::{Dialect, Meter, Verdict},
    platform::Clock,
    record::{Counted, Ending},
    refusal::Refusal,
    sse::{self, Framer},
    time::Timestamp,
    usage::Usage,
    vigil::{Alarm, Vigil},
};

/// No more events are joined once so many bytes were taken, so that a fast upstream does not fill the memory of a slow caller.
const AT_ONCE: usize = 64 << 10;

/// Splits a stream into what the caller reads and what is known of it when it is over.
pub(crate) fn watch(
    body: Body,
    meter: Meter,
    dialect: Dialect,
    clock: Rc<dyn Clock>,
    vigil: Vigil,
    budget: Budget,
) -> (Body, Receipt) {
    let slip = Rc::new(RefCell::new(Slip::default()));
    let relay = Relay {
        body: Some(body),
        framer: Framer::default(),
        meter,
        dialect,
        clock,
        vigil,
        budget,
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
    /// How far the usage can be relied on.
    pub(crate) counted: Counted,
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
    vigil: Vigil,
    budget: Budget,
    first_byte: Option<Timestamp>,
    slip: Rc<RefCell<Slip>>,
}

impl Relay {
    /// What a chunk of the upstream's is to the caller: the events that it completed.
    fn chunk(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        if self.budget.has_lapsed(self.clock.now()) {
            out.push(self.truncated("its place within a limit could not be kept".into()));
            return;
        }
        let last = &mut self.budget.last;
        let meter = &mut self.meter;
        let pushed = self.framer.push(chunk, |event| {
            // A comment between two events says nothing of the stream.
            if let Some(last) = last.as_mut().filter(|_| sse::data(&event).is_some()) {
                *last = event.clone();
            }
            if meter.read(&event) == Verdict::Pass {
                out.push(event);
            }
        });
        if let Err(oversized) = pushed {
            out.push(self.truncated(oversized.to_string()));
        }
    }

    /// What the end of the upstream's is to the caller.
    fn end(&mut self, out: &mut Vec<Bytes>) {
        // The blank line behind the last event is sometimes forgotten.
        let rest = self.framer.finish();
        let passes = self.meter.read(&rest) == Verdict::Pass;
        if !self.meter.is_over() {
            out.push(self.truncated("the stream ended before it was whole".into()));
            return;
        }
        self.close(self.ending(), None);
        if passes && !rest.is_empty() {
            out.push(rest);
        }
    }

    /// How a stream has ended that is over.
    fn ending(&self) -> Ending {
        if self.meter.has_failed() {
            Ending::Truncated
        } else {
            Ending::Whole
        }
    }

    /// What the upstream's breaking off is to the caller; nothing, if it had said everything.
    fn broken(&mut self, error: &BoxError, out: &mut Vec<Bytes>) {
        if self.meter.is_over() {
            self.close(self.ending(), Some(error.to_string()));
        } else {
            out.push(self.truncated(error.to_string()));
        }
    }

    /// Takes what comes next, if it may come and is there.
    fn step(&mut self, cx: &mut Context<'_>, taken: &mut usize, out: &mut Vec<Bytes>) -> Poll<()> {
        match self.budget.poll(&self.meter, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(denial)) => {
                out.push(self.limited(denial));
                return Poll::Ready(());
            }
            Poll::Pending => return Poll::Pending,
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(());
        };
        match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    *taken += chunk.len();
                    self.vigil.heard();
                    self.chunk(chunk, out);
                }
            }
            Some(Err(error)) => self.broken(&error, out),
            None => self.end(out),
        }
        Poll::Ready(())
    }

    /// What is to be said where nothing comes; nothing yet, perhaps.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.vigil.poll(cx).map(|alarm| match alarm {
            Alarm::Ping => self.dialect.ping(),
            Alarm::Idle => self.truncated("nothing came for too long".into()),
            Alarm::Over => self.truncated("it took too long in all".into()),
        })
    }

    fn truncated(&mut self, detail: String) -> Bytes {
        self.close(Ending::Truncated, Some(detail));
        Refusal::Truncated.event(self.dialect)
    }

    /// The end of a stream for which no more tokens can be had.
    fn limited(&mut self, denial: Denial) -> Bytes {
        let last = self.budget.last.take().unwrap_or_default();
        self.close(Ending::Limited, Some(denial.to_string()));
        let why = denial.to_string();
        self.meter
            .cut(&last, &why)
            .unwrap_or_else(|| Refusal::from(denial).event(self.dialect))
    }

    /// Writes the receipt, if it is not written yet.
    fn close(&mut self, ended: Ending, detail: Option<String>) {
        if self.body.take().is_none() {
            return;
        }
        let counted = self.budget.close(ended, &self.meter);
        let mut slip = self.slip.borrow_mut();
        slip.closing = Some(Closing {
            ended,
            usage: self.meter.usage(),
            counted,
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
        let mut out = Vec::new();
        let mut taken = 0;
        // What has arrived goes on together: to write each event by itself costs more than all that is done to it here.
        while (out.is_empty() || taken < AT_ONCE) && self.body.is_some() {
            if self.step(cx, &mut taken, &mut out).is_ready() {
                continue;
            }
            if out.is_empty() {
                match self.wait(cx) {
                    Poll::Ready(said) => out.push(said),
                    Poll::Pending => return Poll::Pending,
                }
            }
            break;
        }
        if out.is_empty() {
            return Poll::Ready(None);
        }
        self.vigil.said();
        if self.first_byte.is_none() {
            self.first_byte = Some(self.clock.now());
        }
        Poll::Ready(Some(Ok(Frame::data(join(out)))))
    }
}
