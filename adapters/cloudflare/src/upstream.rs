//! HTTP out, by `fetch`.
//!
//! # What a failure was
//!
//! workerd does not say how far a request came. A port that refuses, a connection that is reset or closed, and an answer that
//! is no HTTP are all `Network connection lost.`; a name that nobody knows and a certificate that nobody trusts are an
//! `internal error`, as is everything else. Only a `TypeError` means for sure that nothing was sent. All others count as a
//! broken connection, after which the upstream may have begun to work: that is the careful answer. At Cloudflare's
//! edge an upstream that cannot be reached mostly answers with a status from 520 to 530, and is no failure here.
//!
//! # How long a connection may take
//!
//! `fetch` does not tell a connection that is being made from an answer that is being waited for, and takes no bound on the
//! first. So nothing is done about it here: a configuration for Workers that has `timeouts.connect` is refused when it is checked,
//! and whoever cannot be reached is given up when the attempt is.

use std::{fmt::Write, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, StatusCode, header::HOST};
use js_sys::Promise;
use tidegate_core::{
    Body,
    platform::Upstream,
    upstream::{Failure, FailureReason},
};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::{
    body::{WorkersBody, outgoing},
    exchange::Exchange,
    head,
    head::Lines,
    promised::promised,
    socket::Socket,
    stream::Outgoing,
    text,
};

/// The runtime's `fetch`. It follows no redirect and decodes no body.
pub(crate) struct Fetch;

#[async_trait(?Send)]
impl Upstream for Fetch {
    async fn send(
        &self,
        request: http::Request<Body>,
        _: Duration,
    ) -> Result<http::Response<Body>, Failure> {
        let (mut parts, body) = request.into_parts();
        // The runtime says itself whom it calls.
        parts.headers.remove(HOST);
        let mut text = String::with_capacity(1024);
        let _ = write!(text, "{}\n{}", parts.method, parts.uri);
        head::write(&parts.headers, &mut text);
        let exchange = Exchange::begin().map_err(|error| failure(&error))?;
        let body = outgoing(body, |body| {
            Outgoing::to_upstream(body, exchange.controller())
        });
        let answer =
            send(&text, &body, &exchange.controller().signal()).map_err(|error| failure(&error))?;
        let answer = promised(&answer).await.map_err(|error| failure(&error))?;
        let Some((status, headers)) = answer_head(&answer) else {
            return Err(Failure {
                reason: FailureReason::Broken,
                detail: "the head of the answer is malformed".into(),
            });
        };
        let body = if status == StatusCode::SWITCHING_PROTOCOLS {
            Socket::of(answer, exchange)
        } else {
            WorkersBody::of(answer, &headers, Some(exchange))
                .map_or_else(Body::empty, Body::foreign)
        };
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn answer_head(answer: &JsValue) -> Option<(StatusCode, HeaderMap)> {
    let mut lines = Lines::new(response_head(answer));
    let status = StatusCode::from_bytes(&lines.next()?).ok()?;
    Some((status, lines.headers()?))
}

fn failure(error: &JsValue) -> Failure {
    let unsent = error.is_instance_of::<js_sys::TypeError>();
    Failure {
        reason: if unsent {
            FailureReason::Connect
        } else {
            FailureReason::Broken
        },
        detail: text(error),
    }
}

#[wasm_bindgen(module = "/src/upstream.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    fn send(head: &str, body: &JsValue, signal: &AbortSignal) -> Result<Promise, JsValue>;

    #[wasm_bindgen(js_name = responseHead)]
    fn response_head(response: &JsValue) -> String;
}
