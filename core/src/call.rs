//! What a caller asks for, before anybody has looked at its body.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
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
    /// The path as it was written, but for escapes of what needs none.
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
            path: if uri.path().is_empty() {
                "/".into()
            } else {
                plain(uri.path())
            },
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

/// `path` as it was written, but for escapes of what needs none: letters, digits, `-`, `.`, `_` and `~` (RFC 3986, 6.2.2.2). Whoever
/// serves it takes `/v1/chat%2Dmessages` for `/v1/chat-messages`, so that it is this here as well, for what is looked for and for what
/// is sent on. A path with a broken escape stays what it is: of its rest a new escape could come.
pub(crate) fn plain(path: &str) -> String {
    let mut parts = path.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((byte, rest)) = escaped(part) else {
            return path.into();
        };
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            plain.push(char::from(byte));
            plain.push_str(rest);
        } else {
            plain.push('%');
            plain.push_str(part);
        }
    }
    plain
}

/// The byte that is meant by what follows a percent sign, and what is behind it.
fn escaped(part: &str) -> Option<(u8, &str)> {
    let (digits, rest) = part.split_at_checked(2)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
    Some((byte, rest))
}

/// The host of `host:port` or `[v6]:port`.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Says what is wrong with a plain path that could be read in two ways.
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
        if matches!(segment, "." | "..") {
            return Err("the path contains a segment of dots");
        }
    }
    Ok(())
}

/// Whether what follows a percent sign is no escape, or one that a decoder would make part of the path's structure.
fn is_unsafe_escape(part: &str) -> bool {
    escaped(part).is_none_or(|(byte, _)| matches!(byte, b'/' | b'\\') || byte.is_ascii_control())
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
            assert_eq!(safe(&plain(fine)), Ok(()), "{fine}");
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
            "/%%36%31",
            "/%2%66x",
        ];
        for wrong in wrong {
            assert!(safe(&plain(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_needs_no_escape_has_none() {
        for (path, expected) in [
            ("/v1/chat%2Dmessages", "/v1/chat-messages"),
            ("/v1/chat%2dm%65ssages", "/v1/chat-messages"),
            ("/%74hreads", "/threads"),
            ("/%76%31/%7Ea%2E%5f", "/v1/~a._"),
            // What means something else, or may, stays as it was written.
            ("/a%20b%C3%a4%3A%40%2B+", "/a%20b%C3%a4%3A%40%2B+"),
            ("/chat%252Dmessages", "/chat%252Dmessages"),
            ("/%25%36%31", "/%2561"),
            // Nothing comes of what is broken, so that it can be refused.
            ("/%%36%31", "/%%36%31"),
            ("/%2%66x", "/%2%66x"),
            ("/%61%+1", "/%61%+1"),
            ("/%61%2ä", "/%61%2ä"),
            ("/%61%", "/%61%"),
        ] {
            assert_eq!(plain(path), expected, "{path}");
            assert_eq!(plain(expected), expected, "{path}");
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
