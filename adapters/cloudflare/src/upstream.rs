//! HTTP out, by `fetch`.
//!
//! # What a failure was
//!
//! `fetch` rejects with an error that has only a text. [`reason`] knows those that workerd writes. An error with an
//! unknown text counts as a broken connection: then the upstream may have begun to work, which is the careful answer.

use std::fmt::Write;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use js_sys::Promise;
use tidegate_core::{
    Body,
    platform::Upstream,
    upstream::{Failure, FailureReason},
};
use wasm_bindgen::prelude::*;
use web_sys::{AbortController, AbortSignal};

use crate::{
    body::{WorkersBody, outgoing},
    head,
    head::Lines,
    promised::promised,
    stream::Outgoing,
    text,
};

/// The runtime's `fetch`. It follows no redirect and decodes no body.
pub(crate) struct Fetch;

#[async_trait(?Send)]
impl Upstream for Fetch {
    async fn send(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Failure> {
        let (parts, body) = request.into_parts();
        let mut text = String::with_capacity(1024);
        let _ = write!(text, "{}\n{}", parts.method, parts.uri);
        head::write(&parts.headers, &mut text);
        let exchange = Exchange::begin()?;
        let body = outgoing(body, |body| {
            Outgoing::to_upstream(body, &exchange.controller)
        });
        let answer =
            send(&text, &body, &exchange.controller.signal()).map_err(|error| failure(&error))?;
        let answer = promised(&answer).await.map_err(|error| failure(&error))?;
        let Some((status, headers)) = answer_head(&answer) else {
            return Err(Failure {
                reason: FailureReason::Broken,
                detail: "the head of the answer is malformed".into(),
            });
        };
        let body = WorkersBody::of(answer, &headers, Some(exchange))
            .map_or_else(Body::empty, Body::foreign);
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// An exchange with an upstream, which is broken off when it is dropped before it is over.
pub(crate) struct Exchange {
    controller: AbortController,
    over: bool,
}

impl Exchange {
    fn begin() -> Result<Self, Failure> {
        let controller = AbortController::new().map_err(|error| failure(&error))?;
        Ok(Self {
            controller,
            over: false,
        })
    }

    /// It is over, or the runtime takes care of it.
    pub(crate) fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.over {
            self.controller.abort();
        }
    }
}

fn answer_head(answer: &JsValue) -> Option<(StatusCode, HeaderMap)> {
    let mut lines = Lines::new(response_head(answer));
    let status = StatusCode::from_bytes(&lines.next()?).ok()?;
    Some((status, lines.headers()?))
}

fn failure(error: &JsValue) -> Failure {
    let detail = text(error);
    Failure {
        reason: reason(&detail),
        detail,
    }
}

/// How far the request came whose `fetch` failed with `message`.
fn reason(message: &str) -> FailureReason {
    const UNSEEN: [&str; 1] = ["ECONNREFUSED"];
    if UNSEEN.iter().any(|text| message.contains(text)) {
        FailureReason::Connect
    } else {
        FailureReason::Broken
    }
}

#[wasm_bindgen(module = "/src/upstream.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    fn send(head: &str, body: &JsValue, signal: &AbortSignal) -> Result<Promise, JsValue>;

    #[wasm_bindgen(js_name = responseHead)]
    fn response_head(response: &JsValue) -> String;
}
