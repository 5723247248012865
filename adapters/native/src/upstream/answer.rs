//! An upstream's answer, and the connection that it comes over.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Body, BoxError};

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
        Body::arriving(Self {
            incoming,
            lease: Some(lease),
        })
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(lease) = &mut this.lease
        {
            lease.drive(cx);
            polled = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        let frame = ready!(polled);
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
