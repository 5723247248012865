//! A body that comes in pieces.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tidegate_core::body::BoxError;

/// A body that breaks off behind these pieces.
pub(super) struct Garbled(pub(super) Pieces);

impl http_body::Body for Garbled {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let end = Some(Err("what comes is no chunk".into()));
        Pin::new(&mut self.0)
            .poll_frame(cx)
            .map(|frame| frame.or(end))
    }
}

/// A body in these pieces, each as soon as it is asked for.
pub struct Pieces(pub VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}
