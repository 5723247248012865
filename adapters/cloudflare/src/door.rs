//! The door: a call comes in as the runtime's own request, and its answer leaves as the runtime's own response.

use std::{fmt::Write, net::IpAddr};

use http::{HeaderValue, Method, Uri, header};
use serde_json::json;
use tidegate_core::{Body, config::Problem};
use wasm_bindgen::prelude::*;
use web_sys::{Request, Response};

use crate::{
    body::{WorkersBody, outgoing},
    caller::Caller,
    head,
    head::Lines,
    socket::Socket,
    stream::Outgoing,
};

/// A call that has come in.
pub(crate) struct Door {
    pub(crate) request: http::Request<Body>,
    /// Whom Cloudflare vouches for.
    pub(crate) peer: Option<IpAddr>,
}

impl Door {
    /// Reads the head of `request`, or nothing if it is none that HTTP knows. The body stays where it is.
    pub(crate) fn open(request: Request) -> Option<Self> {
        let mut lines = Lines::new(request_head(&request));
        let method = Method::from_bytes(&lines.next()?).ok()?;
        let uri = Uri::from_maybe_shared(lines.next()?).ok()?;
        let mut headers = lines.headers()?;
        if headers.contains_key(header::UPGRADE) {
            // It stands for both: whatever a caller has to do with the connection is between him and the runtime.
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        let peer = headers
            .get("cf-connecting-ip")
            .and_then(|peer| peer.to_str().ok()?.parse().ok());
        let bodiless = matches!(method, Method::GET | Method::HEAD)
            && !headers.contains_key(header::CONTENT_LENGTH)
            && !headers.contains_key(header::TRANSFER_ENCODING);
        let body = if bodiless {
            Body::empty()
        } else {
            WorkersBody::of(request.into(), &headers, None).map_or_else(Body::empty, Body::foreign)
        };
        let mut request = http::Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Some(Self { request, peer })
    }
}

/// Turns `response` into the runtime's own; what has to be streamed from Rust ends when `caller` leaves.
pub(crate) fn close(response: http::Response<Body>, caller: &Caller) -> Result<Response, JsValue> {
    let mut text = String::with_capacity(512);
    head::write(response.headers(), &mut text);
    let response = match Socket::taken(response) {
        Ok(answer) => return switched(&answer, &text),
        Err(response) => response,
    };
    let (parts, body) = response.into_parts();
    respond(
        parts.status.as_u16(),
        &text,
        &outgoing(body, |body| Outgoing::to_caller(body, caller)),
    )
}

/// Says that the request cannot be read, which only happens where the runtime is more lenient than HTTP.
pub(crate) fn malformed() -> Result<Response, JsValue> {
    refuse(
        400,
        &json!({ "message": "the head of the request is malformed", "type": "invalid_request_error", "code": "malformed" }),
    )
}

/// What nobody hears.
pub(crate) fn abandoned() -> Result<Response, JsValue> {
    respond(499, "", &JsValue::NULL)
}

/// Says what is wrong with the configuration. No problem names a secret's value.
pub(crate) fn misconfigured(problems: &[Problem]) -> Result<Response, JsValue> {
    let mut message = "the configuration is wrong".to_owned();
    for (index, problem) in problems.iter().enumerate() {
        let _ = write!(message, "{}{problem}", if index == 0 { ": " } else { "; " });
    }
    let problems: Vec<_> = problems
        .iter()
        .map(|problem| json!({ "path": problem.path, "message": problem.message }))
        .collect();
    refuse(
        500,
        &json!({ "message": message, "type": "configuration_error", "code": "misconfigured", "problems": problems }),
    )
}

fn refuse(status: u16, error: &serde_json::Value) -> Result<Response, JsValue> {
    let body = JsValue::from_str(&json!({ "error": error }).to_string());
    respond(status, "\ncontent-type:application/json", &body)
}

#[wasm_bindgen(module = "/src/door.js")]
extern "C" {
    #[wasm_bindgen(js_name = requestHead)]
    fn request_head(request: &Request) -> String;

    #[wasm_bindgen(catch)]
    fn switched(answer: &JsValue, head: &str) -> Result<Response, JsValue>;

    #[wasm_bindgen(catch)]
    fn respond(status: u16, head: &str, body: &JsValue) -> Result<Response, JsValue>;
}
