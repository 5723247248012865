//! Bodies that arrive piece by piece, into Rust and out of it: one crossing a piece, and no copy of a stream between.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use js_sys::{Promise, Uint8Array, futures::future_to_promise};
use tidegate_core::{Body, body::BoxError};
use wasm_bindgen::prelude::*;
use web_sys::AbortController;

use crate::{
    caller::Caller,
    exchange::Exchange,
    promised::{Promised, promised},
    text,
};

/// A stream of JavaScript's, read by Rust.
pub(crate) struct Incoming {
    pieces: Pieces,
    piece: Option<Promised>,
    left: Option<u64>,
    exchange: Option<Exchange>,
    ended: bool,
}

impl Incoming {
    /// The body `stream`, of `size` bytes if that is known.
    pub(crate) fn new(stream: &JsValue, size: Option<u64>, exchange: Option<Exchange>) -> Self {
        Self {
            pieces: Pieces::new(stream),
            piece: None,
            left: size,
            exchange,
            ended: false,
        }
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(exchange) = self.exchange.take() {
            exchange.over();
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let piece = this
            .piece
            .get_or_insert_with(|| promised(&this.pieces.next()));
        let piece = ready!(Pin::new(piece).poll(cx));
        self.piece = None;
        Poll::Ready(match piece {
            Ok(piece) if piece.is_undefined() => {
                self.end();
                None
            }
            Ok(piece) => {
                let piece = Bytes::from(Uint8Array::unchecked_from_js(piece).to_vec());
                self.left = self
                    .left
                    .map(|left| left.saturating_sub(piece.len() as u64));
                Some(Ok(Frame::data(piece)))
            }
            Err(error) => {
                self.end();
                Some(Err(text(&error).into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.ended {
            self.pieces.release();
        }
    }
}

/// A body of Rust's, pulled by JavaScript.
#[wasm_bindgen]
pub struct Outgoing(Rc<Reading>);

impl Outgoing {
    /// A `ReadableStream` of `body` for `caller`. The body is dropped when the stream is cancelled or the caller leaves.
    pub(crate) fn to_caller(body: Body, caller: &Caller) -> JsValue {
        // What the caller is told of the size stands in the head already.
        called(Self(Reading::new(body)), &caller.request, &caller.context)
    }

    /// A `ReadableStream` of `body` for an upstream, with its size declared where it is known.
    ///
    /// Should the body break, `exchange` is aborted first: the runtime ends a request whose stream fails as if it were whole.
    pub(crate) fn to_upstream(body: Body, exchange: &AbortController) -> JsValue {
        let size = body.size().map(|size| size as f64);
        sent(Self(Reading::new(body)), size, exchange)
    }
}

#[wasm_bindgen]
impl Outgoing {
    /// The next piece, nothing at the end, or the promise of either.
    pub fn next(&self) -> Result<JsValue, JsValue> {
        match self.0.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(piece) => piece,
            Poll::Pending => {
                let reading = Rc::clone(&self.0);
                Ok(future_to_promise(poll_fn(move |cx| reading.poll(cx))).into())
            }
        }
    }

    /// Drops the body: nobody reads on.
    pub fn cancel(self) {
        self.0.end();
    }
}

/// A body that is being read, until it is known that nobody reads on.
struct Reading {
    body: RefCell<Option<Body>>,
    waker: RefCell<Option<Waker>>,
}

impl Reading {
    fn new(body: Body) -> Rc<Self> {
        Rc::new(Self {
            body: RefCell::new(Some(body)),
            waker: RefCell::default(),
        })
    }

    /// Drops the body; whoever waits for a piece learns that there is none.
    fn end(&self) {
        // Borrowed only while it is polled, and polling does not come back here.
        let body = self
            .body
            .try_borrow_mut()
            .ok()
            .and_then(|mut body| body.take());
        drop(body);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next piece; a body that is gone has ended.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<JsValue, JsValue>> {
        let Ok(mut slot) = self.body.try_borrow_mut() else {
            return Poll::Ready(Ok(JsValue::UNDEFINED));
        };
        let Some(body) = slot.as_mut() else {
            return Poll::Ready(Ok(JsValue::UNDEFINED));
        };
        loop {
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                self.waker.replace(Some(cx.waker().clone()));
                return Poll::Pending;
            };
            let end = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) if !piece.is_empty() => {
                        return Poll::Ready(Ok(Uint8Array::from(&*piece).into()));
                    }
                    // Trailers have no place in a stream of bytes.
                    _ => continue,
                },
                Some(Err(error)) => Err(js_sys::Error::new(&error.to_string()).into()),
                None => Ok(JsValue::UNDEFINED),
            };
            *slot = None;
            return Poll::Ready(end);
        }
    }
}

#[wasm_bindgen(module = "/src/stream.js")]
extern "C" {
    type Pieces;

    #[wasm_bindgen(constructor)]
    fn new(stream: &JsValue) -> Pieces;

    #[wasm_bindgen(method)]
    fn next(this: &Pieces) -> Promise;

    #[wasm_bindgen(method)]
    fn release(this: &Pieces);

    fn called(body: Outgoing, request: &JsValue, context: &JsValue) -> JsValue;

    fn sent(body: Outgoing, size: Option<f64>, exchange: &AbortController) -> JsValue;
}
