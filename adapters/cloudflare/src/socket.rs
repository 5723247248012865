//! WebSockets, which the runtime carries by itself: what it has opened to an upstream goes into the answer to the caller.

use std::any::Any;

use http::{Response, StatusCode};
use tidegate_core::{
    Body,
    body::{Arriving, Foreign},
};
use wasm_bindgen::prelude::*;

use crate::exchange::Exchange;

/// The end of a WebSocket that leads to an upstream.
pub(crate) struct Socket {
    answer: JsValue,
    /// What is aborted when nobody takes it.
    exchange: Exchange,
}

impl Socket {
    /// The one that an upstream's `answer` has, in the place of a body.
    pub(crate) fn of(answer: JsValue, exchange: Exchange) -> Body {
        Body::foreign(Self { answer, exchange })
    }

    /// What `response` has of the runtime's own, if it switches.
    pub(crate) fn taken(response: Response<Body>) -> Result<JsValue, Response<Body>> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(response);
        }
        let (head, body) = response.into_parts();
        match body.into_foreign::<Self>() {
            Ok(socket) => {
                socket.exchange.over();
                Ok(socket.answer)
            }
            Err(body) => Err(Response::from_parts(head, body)),
        }
    }
}

impl Foreign for Socket {
    fn open(self: Box<Self>) -> Arriving {
        Box::pin(Body::empty())
    }

    fn size(&self) -> Option<u64> {
        None
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
