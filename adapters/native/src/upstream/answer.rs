//! An upstream's answer, and the connection that it comes over.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Arriving, Body, BoxError, Foreign};

use super::pool::Lease;

/// An answer's body. Read to its end it gives the connection back; dropped before that, it closes it.
pub(super) struct Answer {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl Answer {
    /// The body of an answer that comes over `lease`.
    pub(super) fn body(incoming: Incoming, lease: Lease) -> Body {
        if incoming.is_end_stream() {
            lease.release();
            return Body::empty();
        }
        Body::foreign(Self {
            incoming,
            lease: Some(lease),
        })
    }
}

impl Foreign for Answer {
    fn open(self: Box<Self>) -> Arriving {
        Box::into_pin(self)
    }

    fn size(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !self.incoming.is_end_stream() => {}
            Some(Ok(_)) | None => {
                if let Some(lease) = self.lease.take() {
                    lease.release();
                }
            }
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
