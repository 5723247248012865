//! What a caller asks for, before anybody has looked at its body.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};

use crate::body::Body;

/// How long a WebSocket's key is: sixteen bytes, in base64.
const KEY: usize = 24;

/// A request's head.
#[derive(Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// `http` or `https`, as far as the platform can tell.
    pub scheme: String,
    /// The host that was asked, in lower case, without its port; empty if it was not said.
    pub host: String,
    /// The host with its port, as it was written.
    pub authority: String,
    /// The path, as it was written, never decoded.
    pub path: String,
    /// What stands behind the question mark.
    pub query: Option<String>,
    /// The headers, as they came.
    pub headers: HeaderMap,
    /// Where the call came from, as the platform vouches for it.
    pub peer: Option<IpAddr>,
    /// It asks that its connection become a WebSocket.
    pub switches: bool,
}

impl Call {
    /// Reads the head of a request. The scheme of its URI, where it has one, is the platform's word.
    pub fn read(head: Parts, peer: Option<IpAddr>) -> Self {
        let switches = asks_for_websocket(&head);
        let Parts {
            method,
            uri,
            headers,
            ..
        } = head;
        // Some platforms put the address that they listen on into the URI.
        let written = headers.get(HOST).and_then(|value| value.to_str().ok());
        let authority = written
            .or_else(|| uri.authority().map(http::uri::Authority::as_str))
            .unwrap_or_default()
            .to_owned();
        Self {
            method,
            scheme: uri.scheme_str().unwrap_or("http").to_owned(),
            host: host(&authority).to_ascii_lowercase(),
            authority,
            path: path(&uri),
            query: uri.query().map(str::to_owned),
            headers,
            peer,
            switches,
        }
    }

    /// What of `body` belongs to the call itself: of one that asks to switch nothing, since that is what comes afterwards.
    pub(crate) fn content(&self, body: Body) -> Body {
        if self.switches { Body::empty() } else { body }
    }

    /// Says what is wrong with it, if it could be read in two ways.
    ///
    /// A path must mean the same to everybody who reads it: no empty, `.` or `..` segment, no encoded slash, backslash or
    /// control character. Otherwise what a route allows and what an upstream serves could differ.
    pub fn check(&self) -> Result<(), &'static str> {
        let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if self.headers.get_all(HOST).iter().count() > 1 || !self.authority.bytes().all(of_host) {
            return Err("the host is not one host");
        }
        safe(&self.path)
    }
}

/// Whether a request asks, in so many words, that its connection become a WebSocket.
///
/// What is only half of that is an ordinary request, in which `upgrade` is an offer that may be left alone: if one between here
/// and Dify read it otherwise than another, it could be made to pass on what nobody has looked at.
pub fn asks_for_websocket(head: &Parts) -> bool {
    let only = |name: HeaderName| {
        let mut values = head.headers.get_all(name).iter();
        let first = values.next().filter(|_| values.next().is_none());
        first.map_or(&b""[..], HeaderValue::as_bytes)
    };
    let mut connection = head.headers.get_all(CONNECTION).iter();
    head.method == Method::GET
        && head.version == Version::HTTP_11
        && connection.any(|value| names(value.as_bytes(), b"upgrade"))
        && only(UPGRADE).eq_ignore_ascii_case(b"websocket")
        && only(SEC_WEBSOCKET_VERSION) == b"13"
        && only(SEC_WEBSOCKET_KEY).len() == KEY
        && !head.headers.contains_key(CONTENT_LENGTH)
        && !head.headers.contains_key(TRANSFER_ENCODING)
}

/// Whether `name` stands in a `list`.
fn names(list: &[u8], name: &[u8]) -> bool {
    let mut names = list.split(|byte| *byte == b',');
    names.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(name))
}

/// Whether `path` is `prefix` or lies below it, with a border between segments between them.
pub(crate) fn below(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn path(uri: &Uri) -> String {
    if uri.path().is_empty() {
        "/".into()
    } else {
        uri.path().into()
    }
}

/// The host of `host:port` or `[v6]:port`.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Says what is wrong with a path that could be read in two ways.
pub(crate) fn safe(path: &str) -> Result<(), &'static str> {
    if path
        .bytes()
        .any(|byte| byte == b'\\' || byte.is_ascii_control())
    {
        return Err("the path contains a backslash or a control character");
    }
    if path.split('%').skip(1).any(is_unsafe_escape) {
        return Err(
            "the path contains an encoded slash, backslash or control character, or a broken escape",
        );
    }
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err("the path contains an empty segment");
        }
        if is_dots(segment) {
            return Err("the path contains a segment of dots");
        }
    }
    Ok(())
}

/// Whether what follows a percent sign is no escape, or one that a decoder would make part of the path's structure.
fn is_unsafe_escape(rest: &str) -> bool {
    match rest.as_bytes() {
        [b'2', b'f' | b'F', ..]
        | [b'5', b'c' | b'C', ..]
        | [b'7', b'f' | b'F', ..]
        | [b'0' | b'1', _, ..] => true,
        [high, low, ..] => !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit(),
        _ => true,
    }
}

/// Whether a segment is `.` or `..`, however its dots are written.
fn is_dots(segment: &str) -> bool {
    let mut rest = segment.as_bytes();
    let mut dots = 0;
    while let [b'.', after @ ..] | [b'%', b'2', b'e' | b'E', after @ ..] = rest {
        rest = after;
        dots += 1;
    }
    rest.is_empty() && (1..=2).contains(&dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_the_same_to_everybody_or_is_refused() {
        for fine in [
            "/",
            "",
            "/v1",
            "/v1/",
            "/v1/a.b/..c",
            "/v1/%20%C3%A4",
            "/a:b@c",
            "/...",
            "/%252f",
        ] {
            assert_eq!(safe(fine), Ok(()), "{fine}");
        }
        let wrong = [
            "//",
            "//v1",
            "/v1//x",
            "/..",
            "/../x",
            "/v1/..",
            "/v1/./x",
            "/%2e%2E/x",
            "/.%2e",
            "/%2e",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00b",
            "/a%0ab",
            "/a%7Fb",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%1",
        ];
        for wrong in wrong {
            assert!(safe(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_is_matched_on_segment_borders() {
        let table = [
            ("", "/", true),
            ("", "/anything", true),
            ("/v1", "/v1", true),
            ("/v1", "/v1/", true),
            ("/v1", "/v1/chat", true),
            ("/v1", "/v10", false),
            ("/v1", "/V1", false),
            ("/a/b", "/a/b/c", true),
            ("/a/b", "/a", false),
        ];
        for (prefix, path, expected) in table {
            assert_eq!(below(prefix, path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn a_host_is_compared_without_its_port() {
        for (authority, expected) in [
            ("a.example", "a.example"),
            ("a.example:80", "a.example"),
            ("[::1]:80", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(host(authority), expected);
        }
    }
}
