//! What a caller sends, as the core sees it: closed until somebody has to look into it.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Arriving, Body, BoxError, Foreign};

/// A request's body as it comes from the caller's connection.
pub(crate) struct Inbound(Incoming);

impl Inbound {
    /// The body of a request; one that is over before it begins is none.
    pub(crate) fn body(incoming: Incoming) -> Body {
        if incoming.is_end_stream() {
            Body::empty()
        } else {
            Body::foreign(Self(incoming))
        }
    }
}

impl Foreign for Inbound {
    fn open(self: Box<Self>) -> Arriving {
        Box::into_pin(self)
    }

    fn size(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A body on its way to an upstream: the caller's own as it came, or what the core made.
pub(crate) enum Outbound {
    /// Nobody looked into it.
    Inbound(Box<Inbound>),
    /// Anything else.
    Core(Body),
}

impl From<Body> for Outbound {
    fn from(body: Body) -> Self {
        body.into_foreign().map_or_else(Self::Core, Self::Inbound)
    }
}

impl http_body::Body for Outbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Inbound(body) => Pin::new(body.as_mut()).poll_frame(cx),
            Self::Core(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Inbound(body) => body.is_end_stream(),
            Self::Core(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Inbound(body) => body.size_hint(),
            Self::Core(body) => http_body::Body::size_hint(body),
        }
    }
}
