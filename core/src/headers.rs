//! Which headers go where.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::{auth::KEY_HEADERS, call::Call};

/// What a model provider is told of the caller's headers: nothing else is its business.
const TO_PROVIDER: [&str; 7] = [
    "accept",
    "content-type",
    "user-agent",
    "openai-beta",
    "idempotency-key",
    "traceparent",
    "tracestate",
];

/// By what callers of a model name the conversation that an app of Dify's keeps, and are told it.
pub(crate) const CONVERSATION: &str = "x-dify-conversation-id";

/// What a caller is told of a provider's headers.
const FROM_PROVIDER: [&str; 7] = [
    "content-type",
    "content-encoding",
    "content-disposition",
    "cache-control",
    "retry-after",
    "x-request-id",
    CONVERSATION,
];

/// What belongs to one connection, and never goes on.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// By what somebody outside could pretend to be a proxy that is trusted.
const IDENTITY: [&str; 11] = [
    "cf-connecting-ip",
    "client-ip",
    "dify-hook-url",
    "forwarded",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// What Dify says of itself to everybody who asks.
const TELLTALE: [&str; 5] = ["server", "via", "x-powered-by", "x-version", "x-env"];

/// The headers of a request to a model provider, but for its key.
pub(crate) fn to_provider(headers: &HeaderMap) -> HeaderMap {
    only(headers, &TO_PROVIDER)
}

/// The headers of a provider's answer, for the caller.
pub(crate) fn from_provider(headers: &HeaderMap) -> HeaderMap {
    only(headers, &FROM_PROVIDER)
}

/// Takes out every header that can carry a caller's key.
pub(crate) fn strip_keys(headers: &mut HeaderMap) {
    for name in KEY_HEADERS {
        headers.remove(name);
    }
}

/// Whether only the gateway may say this of a request: who asks, and from where.
fn is_identity(name: &str) -> bool {
    // Some servers take `_` for `-`.
    let name = if name.contains('_') {
        Cow::Owned(name.replace('_', "-"))
    } else {
        Cow::Borrowed(name)
    };
    let ours = ["x-tidegate-", "x-forwarded", "x-consumer"];
    ours.iter().any(|prefix| name.starts_with(prefix)) || IDENTITY.contains(&&*name)
}

/// Makes the headers of `call` those of a request to Dify: who asked, and how, is the gateway's word alone.
pub(crate) fn to_dify(call: &Call) -> HeaderMap {
    let mut headers = end_to_end(&call.headers, |name| {
        name == header::HOST || is_identity(name.as_str())
    });
    let mut say = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    say("x-forwarded-proto", &call.scheme);
    if !call.authority.is_empty() {
        say("x-forwarded-host", &call.authority);
        say("x-forwarded-port", port(&call.authority, &call.scheme));
    }
    if let Some(peer) = call.peer {
        say("x-forwarded-for", &peer.to_string());
        say("x-real-ip", &peer.to_string());
    }
    headers
}

/// Makes of `headers` those of a request, or of its answer, by which a connection becomes a WebSocket.
pub(crate) fn ask_to_switch(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn port<'a>(authority: &'a str, scheme: &str) -> &'a str {
    let otherwise = if scheme == "https" { "443" } else { "80" };
    let written = authority
        .rsplit_once(':')
        .map(|(_, port)| port)
        .filter(|port| !port.is_empty());
    written
        .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        .unwrap_or(otherwise)
}

/// The headers of Dify's answer, for the caller. Cookies go on only to those who sign in at Dify itself.
pub(crate) fn from_dify(headers: &HeaderMap, origin: &Uri, cookies: bool) -> HeaderMap {
    let mut headers = end_to_end(headers, |name| {
        TELLTALE.contains(&name.as_str())
            || name.as_str().starts_with("x-tidegate-")
            || (!cookies && name == header::SET_COOKIE)
    });
    if let Some(location) = headers
        .get(header::LOCATION)
        .and_then(|location| outside(location, origin))
    {
        headers.insert(header::LOCATION, location);
    }
    headers
}

/// A location at `origin` as a caller may see it: without the address, which is the gateway's to know.
fn outside(location: &HeaderValue, origin: &Uri) -> Option<HeaderValue> {
    let base = format!("{}://{}", origin.scheme()?, origin.authority()?);
    let path = location.to_str().ok()?.strip_prefix(&base)?;
    match path.bytes().next() {
        Some(b'/') => path.parse().ok(),
        None | Some(b'?' | b'#') => format!("/{path}").parse().ok(),
        // Another host whose name only begins alike.
        Some(_) => None,
    }
}

/// Whether the content is of this type, whatever its parameters.
pub(crate) fn is_type(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(expected)
}

/// Whether Dify takes what a caller sends for JSON, as Flask does: `application/problem+json` is, too. Of several types it believes the
/// last one.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    types.any(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        let essence = essence.to_ascii_lowercase();
        let kind = essence.strip_prefix(b"application/".as_slice());
        kind.is_some_and(|kind| kind == b"json" || kind.ends_with(b"+json"))
    })
}

/// Whether the content is compressed, so that nobody here can read it.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn only(headers: &HeaderMap, names: &[&'static str]) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(names.len() + 8);
    for name in names.iter().copied() {
        if let Some(value) = headers.get(name) {
            kept.insert(HeaderName::from_static(name), value.clone());
        }
    }
    kept
}

/// Without what belongs to the connection, be it named by the protocol or by the `connection` header, and without what
/// is `left_out`.
fn end_to_end(headers: &HeaderMap, left_out: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let named = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = named
        .flat_map(|names| names.split(',').map(str::trim))
        .collect();
    let mut kept = HeaderMap::with_capacity(headers.len() + 8);
    for (name, value) in headers {
        let is_hop = HOP_BY_HOP.contains(&name.as_str())
            || named
                .iter()
                .any(|named| name.as_str().eq_ignore_ascii_case(named));
        if !is_hop && !left_out(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_belongs_to_a_connection_stays_on_it() {
        let headers = map(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ]);
        assert_eq!(end_to_end(&headers, |_| false), map(&[("x-kept", "1")]));
    }

    #[test]
    fn a_provider_learns_only_what_it_needs() {
        let headers = map(&[
            ("content-type", "application/json"),
            ("cookie", "a=b"),
            ("x-user", "ann"),
            ("authorization", "Bearer x"),
            ("host", "h"),
        ]);
        assert_eq!(
            to_provider(&headers),
            map(&[("content-type", "application/json")])
        );
    }

    #[test]
    fn a_location_does_not_tell_the_address() {
        let origin = "http://10.0.0.7:5001".parse().unwrap();
        for (location, expected) in [
            ("http://10.0.0.7:5001/apps?x", "/apps?x"),
            ("http://10.0.0.7:5001", "/"),
            ("http://10.0.0.7:50010/x", "http://10.0.0.7:50010/x"),
            ("https://elsewhere.example/", "https://elsewhere.example/"),
            ("/apps", "/apps"),
        ] {
            let headers =
                HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(location))]);
            assert_eq!(
                from_dify(&headers, &origin, true)["location"],
                expected,
                "{location}"
            );
        }
    }

    #[test]
    fn nobody_outside_says_who_asks() {
        let call = Call::read(
            http::Request::get("https://a.example/")
                .header("x-forwarded-for", "1.1.1.1")
                .header("X_Forwarded_For", "1.1.1.1")
                .header("cf_connecting_ip", "1.1.1.1")
                .header("x-original-url", "/admin")
                .header("x-kept", "1")
                .body(())
                .unwrap()
                .into_parts()
                .0,
            Some([10, 0, 0, 1].into()),
        );
        let expected = map(&[
            ("x-kept", "1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
        ]);
        assert_eq!(to_dify(&call), expected);
    }

    #[test]
    fn json_is_what_flask_takes_for_it() {
        for (values, expected) in [
            (&["application/json"][..], true),
            (&["Application/JSON ; charset=utf-8"], true),
            (&["application/x+json"], true),
            (&["application/vnd.api+json;v=1"], true),
            (&["text/plain", "application/json"], true),
            (&["text/json"], false),
            (&["application/jsonx"], false),
            (&["application/x-json"], false),
            (&["application/x+json, text/plain"], false),
            (&["multipart/form-data; boundary=+json"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_static(value));
            }
            assert_eq!(is_json(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn a_type_is_compared_without_its_parameters() {
        for (value, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            ("text/event-streams", false),
            ("", false),
        ] {
            assert_eq!(
                is_type(&map(&[("content-type", value)]), "text/event-stream"),
                expected,
                "{value}"
            );
        }
    }
}
