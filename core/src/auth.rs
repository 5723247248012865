//! Who is calling: keys, known only by their hashes.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

use crate::{limit::Limit, overload::Priority};

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
    pub limits: Vec<Rc<Limit>>,
    /// Before whom it goes where not all can; if it is not said, the route says.
    pub priority: Option<Priority>,
}

/// Whether one of the keys in the headers is the one with this hash; nothing, if there is no key.
pub fn opens(lock: &Digest, headers: &HeaderMap) -> Option<bool> {
    keys(headers).fold(None, |opened, (_, key)| {
        Some(lock.equals(&Digest::of(key)) || opened.unwrap_or(false))
    })
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
    /// One of the consumers.
    Known(Rc<Consumer>),
    /// There is a key, and it is nobody's.
    Unknown,
    /// There is no key.
    Anonymous,
}

impl Caller {
    /// The name of the consumer, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Known(consumer) => Some(&consumer.name),
            Self::Unknown | Self::Anonymous => None,
        }
    }
}

impl Digest {
    /// The hash of `key`.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// The first bytes of it, as a number.
    pub fn number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
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

    /// Those who have a key, each once for every key.
    pub fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.0.iter().map(|(_, consumer)| &**consumer)
    }

    /// Whether somebody has the key with this hash already.
    pub fn has(&self, key: &Digest) -> bool {
        self.0.iter().any(|(known, _)| known.equals(key))
    }

    /// Who is calling. A key that is known wins over one that is not, whichever header it stands in.
    pub fn identify(&self, headers: &HeaderMap) -> Caller {
        let mut caller = Caller::Anonymous;
        for key in keys(headers).map(|(_, key)| key) {
            match self.find(key) {
                Some(consumer) => return Caller::Known(consumer),
                None => caller = Caller::Unknown,
            }
        }
        caller
    }

    /// Takes out every header that carries a key of ours; others may carry an upstream's.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let ours = keys(headers).filter(|(_, key)| self.find(key).is_some());
        let names: Vec<_> = ours.map(|(name, _)| name).collect();
        for name in names {
            headers.remove(name);
        }
    }

    /// Looks at every key, so that the time tells nothing of which one it was.
    fn find(&self, key: &[u8]) -> Option<Rc<Consumer>> {
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

/// Every key in the headers, and where it stands. An empty header is what a client sends that has no key to send.
fn keys(headers: &HeaderMap) -> impl Iterator<Item = (HeaderName, &[u8])> {
    KEY_HEADERS.into_iter().flat_map(|name| {
        headers.get_all(&name).iter().filter_map(move |value| {
            let value = value.as_bytes();
            let key = if name == AUTHORIZATION {
                bearer(value)?
            } else {
                value
            };
            let key = key.trim_ascii();
            (!key.is_empty()).then(|| (name.clone(), key))
        })
    })
}

/// The token of `Bearer <token>`; the scheme in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
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
                priority: None,
            });
            ring.add(Digest::of(format!("key-of-{name}").as_bytes()), consumer);
        }
        ring
    }

    fn who(headers: &[(&'static str, &'static str)]) -> String {
        let map = headers
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect();
        match ring().identify(&map) {
            Caller::Known(consumer) => consumer.name.to_string(),
            Caller::Unknown => "unknown".into(),
            Caller::Anonymous => "anonymous".into(),
        }
    }

    #[test]
    fn a_key_is_taken_from_three_headers() {
        let table: [(&[(&str, &str)], &str); 9] = [
            (&[("authorization", "Bearer key-of-ann")], "ann"),
            (&[("authorization", "bEARER  key-of-ann ")], "ann"),
            (&[("x-api-key", "key-of-bob")], "bob"),
            (&[("api-key", "key-of-bob")], "bob"),
            (
                &[
                    ("authorization", "Bearer theirs"),
                    ("x-api-key", "key-of-bob"),
                ],
                "bob",
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
    fn every_key_of_ours_is_taken_out_and_no_other() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer app-1"));
        headers.insert("x-api-key", HeaderValue::from_static("key-of-ann"));
        headers.insert("api-key", HeaderValue::from_static("key-of-bob"));
        ring().strip(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["authorization"], "Bearer app-1");
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
                .equals(&Digest::of(b"key-of-ann"))
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
