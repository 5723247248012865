//! Messages handed to the host, and what its error codes mean.

use std::{future::Future, time::Duration};

use http::{
    HeaderMap, HeaderName, Method, Request, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use spin_sdk::wasip3::{
    http::types::{self, ErrorCode, RequestOptions},
    http_compat::{BodyResult, BodyWriter},
    wit_bindgen::{FutureReader, StreamReader},
    wit_future,
};
use tidegate_core::body::Body;

use crate::tasks;

/// The answer to a request of `method`, for the host to send; its body streams as the caller reads it.
pub(crate) fn answer(
    method: &Method,
    answer: Response<Body>,
) -> Result<types::Response, ErrorCode> {
    let (mut parts, body) = answer.into_parts();
    let bare = is_bare(method, parts.status);
    if !bare {
        declare_size(&mut parts.headers, &body);
    }
    let headers = fields(&parts.headers)?;
    let (contents, end, sending) = contents(if bare { Body::empty() } else { body });
    let (response, _) = types::Response::new(headers, contents, end);
    response
        .set_status_code(parts.status.as_u16())
        .map_err(|()| internal("the status is out of range"))?;
    if let Some(sending) = sending {
        tasks::spawn(sending);
    }
    Ok(response)
}

/// The request for the host to send to `request`'s URI, whatever `Host` it came with, over a connection that may take as long to
/// make as `connect` says.
pub(crate) fn request(
    request: Request<Body>,
    connect: Duration,
) -> Result<types::Request, ErrorCode> {
    let (mut parts, body) = request.into_parts();
    if body.size() != Some(0) || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH)
    {
        declare_size(&mut parts.headers, &body);
    }
    let headers = fields(&parts.headers)?;
    let (contents, end, sending) = contents(body);
    let (request, _) = types::Request::new(headers, contents, end, Some(within(connect)));
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    request
        .set_method(&(&parts.method).into())
        .map_err(|()| ErrorCode::HttpRequestMethodInvalid)?;
    request
        .set_scheme(parts.uri.scheme().map(Into::into).as_ref())
        .and_then(|()| {
            request.set_authority(parts.uri.authority().map(http::uri::Authority::as_str))
        })
        .and_then(|()| request.set_path_with_query(Some(path)))
        .map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    if let Some(sending) = sending {
        tasks::spawn(sending);
    }
    Ok(request)
}

/// How long the host may take to make a connection; for all else it is the gateway that has patience, or none.
fn within(connect: Duration) -> RequestOptions {
    let options = RequestOptions::new();
    // A host that knows no such bound waits as it always does: the attempt's own bound holds.
    let _ = options.set_connect_timeout(Some(nanoseconds(connect)));
    options
}

/// A time as the host takes it; the longest there is for whatever is longer.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether an answer with this status to a request of `method` has no body, whatever its headers say.
pub(crate) fn is_bare(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What `code` says, in a few words.
pub(crate) fn describe(code: &ErrorCode) -> String {
    let words = match code {
        ErrorCode::DnsTimeout => "looking up the name took too long",
        ErrorCode::DnsError(_) => "the name is not known",
        ErrorCode::DestinationNotFound => "there is no such destination",
        ErrorCode::DestinationUnavailable => "the destination is not available",
        ErrorCode::DestinationIpProhibited => "this host may not reach that network",
        ErrorCode::DestinationIpUnroutable => "there is no way to that address",
        ErrorCode::ConnectionRefused => "connection refused",
        ErrorCode::ConnectionTerminated => "the connection was cut",
        ErrorCode::ConnectionTimeout => "connecting took too long",
        ErrorCode::ConnectionReadTimeout => "nothing came in time",
        ErrorCode::ConnectionWriteTimeout => "nothing could be sent in time",
        ErrorCode::HttpRequestDenied => "not among this component's allowed_outbound_hosts",
        ErrorCode::HttpResponseIncomplete => "the answer broke off",
        ErrorCode::HttpResponseTimeout => "no answer came in time",
        ErrorCode::HttpProtocolError => "the connection broke, or what came was not HTTP",
        ErrorCode::ConnectionLimitReached => "this host opens no more connections",
        ErrorCode::TlsProtocolError => "TLS failed",
        ErrorCode::TlsAlertReceived(_) => "TLS was refused by the other end",
        ErrorCode::TlsCertificateError => "the certificate is not to be trusted",
        ErrorCode::HttpUpgradeFailed => "the connection did not become another one",
        ErrorCode::LoopDetected => "it leads back here",
        ErrorCode::ConfigurationError => "this host is not configured for it",
        ErrorCode::HttpResponseHeaderSectionSize(_)
        | ErrorCode::HttpResponseHeaderSize(_)
        | ErrorCode::HttpResponseBodySize(_)
        | ErrorCode::HttpResponseTrailerSectionSize(_)
        | ErrorCode::HttpResponseTrailerSize(_) => {
            "the answer, or its head, is too long for this host"
        }
        ErrorCode::HttpResponseTransferCoding(_) | ErrorCode::HttpResponseContentCoding(_) => {
            "the answer is coded as this host does not know it"
        }
        ErrorCode::InternalError(Some(text)) => text,
        ErrorCode::InternalError(None) => "this host has failed",
        // All that is left is said of what was asked.
        _ => "this host sends no such request",
    };
    words.into()
}

/// A body as the host takes it: the bytes, how they end, and the work that sends them.
fn contents(
    body: Body,
) -> (
    Option<StreamReader<u8>>,
    FutureReader<BodyResult>,
    Option<impl Future<Output = ()> + 'static>,
) {
    if body.size() == Some(0) {
        // Dropping the writer is what writes the end.
        let (_, end) = wit_future::new(|| Ok(None));
        return (None, end, None);
    }
    let (writer, contents, end) = BodyWriter::new();
    let sending = async move {
        let mut body = body;
        // An error here means that the reader has left: the body is dropped with this future, and whoever made it sees that.
        let _ = writer.send_http_body(&mut body).await;
    };
    (Some(contents), end, Some(sending))
}

/// Says how long the body is where that is known and not said; the host would chunk it otherwise.
fn declare_size(headers: &mut HeaderMap, body: &Body) {
    if let (Some(size), false) = (body.size(), headers.contains_key(CONTENT_LENGTH)) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    }
}

/// The headers without those that belong to one connection, which the host refuses to take.
fn fields(headers: &HeaderMap) -> Result<types::Fields, ErrorCode> {
    let kept = headers
        .iter()
        .filter(|(name, _)| !is_the_hosts(name))
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect::<Vec<_>>();
    types::Fields::from_list(&kept).map_err(|_| internal("the host refused the headers"))
}

fn is_the_hosts(name: &HeaderName) -> bool {
    [
        CONNECTION,
        HOST,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
        || ["keep-alive", "proxy-connection", "http2-settings"].contains(&name.as_str())
}

fn internal(text: &str) -> ErrorCode {
    ErrorCode::InternalError(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_to_the_host_in_nanoseconds() {
        for (time, expected) in [
            (Duration::from_millis(300), 300_000_000),
            (Duration::from_secs(86_400), 86_400_000_000_000),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(nanoseconds(time), expected, "{time:?}");
        }
    }
}
