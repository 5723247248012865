//! Bodies: the runtime's own, kept closed until a stage of the gateway has to see the bytes.

use std::any::Any;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, header};
use js_sys::{Promise, Uint8Array};
use tidegate_core::{
    Body,
    body::{Arriving, BodyError, Foreign},
};
use wasm_bindgen::prelude::*;

use crate::{exchange::Exchange, promised::promised, stream::Incoming, text};

/// The body of a `Request` or a `Response` that nobody has opened.
pub(crate) struct WorkersBody {
    source: JsValue,
    size: Option<u64>,
    /// What is aborted when the body is dropped before its end.
    exchange: Option<Exchange>,
}

impl WorkersBody {
    /// The body of `source`, whose head had these `headers`, if it has one.
    pub(crate) fn of(
        source: JsValue,
        headers: &HeaderMap,
        exchange: Option<Exchange>,
    ) -> Option<Self> {
        let size = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|size| size.to_str().ok()?.parse().ok());
        if size == Some(0) || body(&source).is_null() {
            if let Some(exchange) = exchange {
                exchange.over();
            }
            return None;
        }
        Some(Self {
            source,
            size,
            exchange,
        })
    }

    /// The stream itself, for JavaScript to read; from here on the runtime cancels it when its reader goes.
    fn surrender(self) -> JsValue {
        if let Some(exchange) = self.exchange {
            exchange.over();
        }
        body(&self.source)
    }
}

#[async_trait(?Send)]
impl Foreign for WorkersBody {
    fn open(self: Box<Self>) -> Arriving {
        Box::pin(Incoming::new(&body(&self.source), self.size, self.exchange))
    }

    async fn read(self: Box<Self>, limit: u64) -> Result<Bytes, BodyError> {
        if self.size.is_some_and(|size| size > limit) {
            return Err(BodyError::TooLarge);
        }
        // A declared size is held to by the runtime, so one crossing brings all of it.
        let bytes = promised(&collect(&self.source, limit as f64, self.size.is_some()))
            .await
            .map_err(|error| BodyError::Broken(text(&error).into()))?;
        if bytes.is_undefined() {
            return Err(BodyError::TooLarge);
        }
        if let Some(exchange) = self.exchange {
            exchange.over();
        }
        Ok(Uint8Array::unchecked_from_js(bytes).to_vec().into())
    }

    fn size(&self) -> Option<u64> {
        self.size
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// What JavaScript sends for `body`: nothing, bytes, the runtime's own stream, or what `stream` makes of one of Rust's.
pub(crate) fn outgoing(body: Body, stream: impl FnOnce(Body) -> JsValue) -> JsValue {
    let body = match body.into_foreign::<WorkersBody>() {
        Ok(body) => return body.surrender(),
        Err(body) => body,
    };
    match body.into_whole() {
        Ok(bytes) if bytes.is_empty() => JsValue::NULL,
        Ok(bytes) => Uint8Array::from(&*bytes).into(),
        Err(body) => stream(body),
    }
}

#[wasm_bindgen(module = "/src/body.js")]
extern "C" {
    fn body(source: &JsValue) -> JsValue;

    fn collect(source: &JsValue, limit: f64, declared: bool) -> Promise;
}
