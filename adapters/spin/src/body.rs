//! Bodies that the host holds.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, header::CONTENT_LENGTH};
use http_body::{Frame, SizeHint};
use spin_sdk::wasip3::http_compat::{
    IncomingBody, IncomingMessage, IncomingRequestBody, IncomingResponseBody,
};
use tidegate_core::body::{Arriving, Body, BoxError, Foreign};

use crate::wire;

/// A request that has arrived, its body still with the host.
pub(crate) fn arrived(request: Request<IncomingRequestBody>) -> Request<Body> {
    let (parts, body) = request.into_parts();
    let size = declared(&parts.headers);
    // The host does not tell "no body" from "a body to come": these methods have none unless they say how long it is.
    let bare = matches!(
        parts.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    ) && size.is_none();
    let body = if bare || size == Some(0) {
        Body::empty()
    } else {
        Body::foreign(Incoming { body, size })
    };
    Request::from_parts(parts, body)
}

/// What an upstream answered to a request of `method`, its body still with the host.
pub(crate) fn answered(
    method: &Method,
    response: Response<IncomingResponseBody>,
) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let size = declared(&parts.headers);
    let bare = wire::is_bare(method, parts.status) || size == Some(0);
    let body = if bare {
        Body::empty()
    } else {
        Body::foreign(Incoming { body, size })
    };
    Response::from_parts(parts, body)
}

struct Incoming<T> {
    body: IncomingBody<T>,
    size: Option<u64>,
}

impl<T: IncomingMessage + 'static> Foreign for Incoming<T> {
    fn open(self: Box<Self>) -> Arriving {
        Box::pin(*self)
    }

    fn size(&self) -> Option<u64> {
        self.size
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl<T: IncomingMessage> http_body::Body for Incoming<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map_err(|code| wire::describe(&code).into())
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What is left is not known once reading has begun.
        self.body.size_hint()
    }
}

fn declared(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
