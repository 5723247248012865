//! Who is calling: keys, known only by their hashes.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

use crate::limit::Limit;

/// The headers that may carry a key, in the order in which they are looked at. `authorization` carries it after `Bearer`.
pub const KEY_HEADERS: [HeaderName; 3] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
];

/// Somebody who may call.
#[derive(Debug)]
pub struct Consumer {
    /// The name in the configuration.
    pub name: Rc<str>,
    /// What holds for everything that this consumer asks.
    pub limits: Vec<Limit>,
}

/// The hash of a key.
#[derive(Clone, Copy, Debug)]
pub struct Digest([u8; 32]);

/// Whose key opens what.
#[derive(Debug, Default)]
pub struct Keyring(Vec<(Digest, Rc<Consumer>)>);

/// What the headers of a request say about its caller.
#[derive(Clone, Debug)]
pub enum Caller {
    /// One of the consumers, by the key in this header.
    Known(Rc<Consumer>, HeaderName),
    /// There is a key, and it is nobody's.
    Unknown,
    /// There is no key.
    Anonymous,
}

impl Digest {
    /// The hash of `key`.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// A hash that is written as 64 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    fn equals(&self, other: &Self) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl Keyring {
    /// Gives `consumer` the key with this hash.
    pub fn add(&mut self, key: Digest, consumer: Rc<Consumer>) {
        self.0.push((key, consumer));
    }

    /// Whether somebody has the key with this hash already.
    pub fn has(&self, key: &Digest) -> bool {
        self.0.iter().any(|(known, _)| known.equals(key))
    }

    /// Who is calling. A key that is known wins over one that is not, whichever header it stands in.
    pub fn identify(&self, headers: &HeaderMap) -> Caller {
        let mut caller = Caller::Anonymous;
        for name in KEY_HEADERS {
            for value in headers.get_all(&name) {
                let key = value.to_str().ok().and_then(|text| {
                    if name == AUTHORIZATION {
                        bearer(text)
                    } else {
                        Some(text)
                    }
                });
                // An empty header is what a client sends that has no key to send.
                let Some(key) = key.map(str::trim).filter(|key| !key.is_empty()) else {
                    continue;
                };
                match self.find(key) {
                    Some(consumer) => return Caller::Known(consumer, name),
                    None => caller = Caller::Unknown,
                }
            }
        }
        caller
    }

    /// Looks at every key, so that the time tells nothing of which one it was.
    fn find(&self, key: &str) -> Option<Rc<Consumer>> {
        let digest = Digest::of(key);
        let found = self.0.iter().fold(None, |found, (known, consumer)| {
            if known.equals(&digest) {
                Some(consumer)
            } else {
                found
            }
        });
        found.cloned()
    }
}

/// The token of `Bearer <token>`; the scheme in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ring() -> Keyring {
        let mut ring = Keyring::default();
        for name in ["ann", "bob"] {
            let consumer = Rc::new(Consumer {
                name: name.into(),
                limits: Vec::new(),
            });
            ring.add(Digest::of(&format!("key-of-{name}")), consumer);
        }
        ring
    }

    fn who(headers: &[(&'static str, &'static str)]) -> String {
        let map = headers
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect();
        match ring().identify(&map) {
            Caller::Known(consumer, header) => format!("{} by {header}", consumer.name),
            Caller::Unknown => "unknown".into(),
            Caller::Anonymous => "anonymous".into(),
        }
    }

    #[test]
    fn a_key_is_taken_from_three_headers() {
        let table: [(&[(&str, &str)], &str); 9] = [
            (
                &[("authorization", "Bearer key-of-ann")],
                "ann by authorization",
            ),
            (
                &[("authorization", "bEARER  key-of-ann ")],
                "ann by authorization",
            ),
            (&[("x-api-key", "key-of-bob")], "bob by x-api-key"),
            (&[("api-key", "key-of-bob")], "bob by api-key"),
            (
                &[
                    ("authorization", "Bearer theirs"),
                    ("x-api-key", "key-of-bob"),
                ],
                "bob by x-api-key",
            ),
            (&[("authorization", "Bearer key-of-anna")], "unknown"),
            (&[("authorization", "Basic key-of-ann")], "anonymous"),
            (&[("authorization", ""), ("x-api-key", " ")], "anonymous"),
            (&[], "anonymous"),
        ];
        for (headers, expected) in table {
            assert_eq!(who(headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_hash_is_64_hexadecimal_digits() {
        let hex: String = Sha256::digest("key-of-ann")
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        assert!(
            Digest::parse(&hex)
                .unwrap()
                .equals(&Digest::of("key-of-ann"))
        );
        for wrong in [
            "",
            "00",
            &hex[1..],
            &format!("{}g", &hex[1..]),
            &"ä".repeat(32),
        ] {
            assert!(Digest::parse(wrong).is_none(), "{wrong}");
        }
    }
}
