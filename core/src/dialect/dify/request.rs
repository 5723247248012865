//! What a call of the service API asks for, as far as it matters here.

use bytes::{Bytes, BytesMut};

use crate::dialect::fields::Fields;

/// What the caller of a run wants of its answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Wish {
    /// It is handed on as it comes.
    #[default]
    Any,
    /// Events.
    Stream,
    /// All of it at once: Dify says `blocking`.
    AtOnce,
    /// Nothing is said, which is taken for that; only the agents of the newest Dify stream then.
    Unsaid,
}

impl Wish {
    /// Whether the answer is put together, if Dify streams it.
    pub(crate) fn is_at_once(self) -> bool {
        matches!(self, Self::AtOnce | Self::Unsaid)
    }
}

/// What the body of a call says.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// It could be read.
    pub(crate) is_read: bool,
    /// On whose behalf it is.
    pub(crate) user: Option<String>,
    /// What is wanted.
    pub(crate) wish: Wish,
    /// The same body, asking for a stream, where it does not do so itself.
    pub(crate) streamed: Option<Bytes>,
}

const STREAMING: &str = "\"streaming\"";

impl Told {
    /// Reads a body of JSON.
    pub(crate) fn read(body: &[u8]) -> Self {
        let Some(fields) = Fields::read(body) else {
            return Self::default();
        };
        let mode = fields.get("response_mode");
        let wish = match fields.text("response_mode").as_deref() {
            Some("streaming") => Wish::Stream,
            Some("blocking") => Wish::AtOnce,
            None if mode.is_none_or(|mode| mode == "null") => Wish::Unsaid,
            // Dify has a word to say about it.
            _ => Wish::Any,
        };
        let streamed = wish.is_at_once().then(|| streamed(body, mode));
        Self {
            is_read: true,
            user: fields.text("user"),
            wish,
            streamed: streamed.flatten(),
        }
    }
}

/// The body of a request whose `mode` is to be another one: every other byte is as it came. Nothing, if it asks for nothing at all.
fn streamed(body: &[u8], mode: Option<&str>) -> Option<Bytes> {
    let start = match mode {
        Some(mode) => mode.as_ptr().addr().checked_sub(body.as_ptr().addr())?,
        None => body.iter().position(|byte| *byte == b'{')? + 1,
    };
    let (before, rest) = body.split_at_checked(start)?;
    let mut streamed = BytesMut::with_capacity(body.len() + 32);
    streamed.extend_from_slice(before);
    match mode {
        Some(mode) => {
            streamed.extend_from_slice(STREAMING.as_bytes());
            streamed.extend_from_slice(rest.get(mode.len()..)?);
        }
        None if rest.trim_ascii_start().starts_with(b"}") => return None,
        None => {
            streamed.extend_from_slice(b"\"response_mode\":");
            streamed.extend_from_slice(STREAMING.as_bytes());
            streamed.extend_from_slice(b",");
            streamed.extend_from_slice(rest);
        }
    }
    Some(streamed.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_how_it_is_answered_is_asked_otherwise() {
        for (body, wish, streamed) in [
            (
                r#"{ "inputs":{}, "response_mode" : "blocking","user":"u"}"#,
                Wish::AtOnce,
                Some(r#"{ "inputs":{}, "response_mode" : "streaming","user":"u"}"#),
            ),
            (
                r#"{"response_mode":null,"user":"u"}"#,
                Wish::Unsaid,
                Some(r#"{"response_mode":"streaming","user":"u"}"#),
            ),
            (
                "\n { \"inputs\":{\"response_mode\":\"blocking\"},\"user\":\"u\"}",
                Wish::Unsaid,
                Some(
                    "\n {\"response_mode\":\"streaming\", \"inputs\":{\"response_mode\":\"blocking\"},\"user\":\"u\"}",
                ),
            ),
            (
                r#"{"response\u005fmode":"block\u0069ng","user":"u"}"#,
                Wish::AtOnce,
                Some(r#"{"response\u005fmode":"streaming","user":"u"}"#),
            ),
            (
                r#"{"response_mode":"streaming","user":"u","response_mode":"blocking"}"#,
                Wish::AtOnce,
                Some(r#"{"response_mode":"streaming","user":"u","response_mode":"streaming"}"#),
            ),
            (
                r#"{"response_mode":"streaming","user":"u"}"#,
                Wish::Stream,
                None,
            ),
            (r#"{"response_mode":"soon","user":"u"}"#, Wish::Any, None),
            (r#"{"response_mode":7,"user":"u"}"#, Wish::Any, None),
            ("{ }", Wish::Unsaid, None),
            ("[]", Wish::Any, None),
            ("{\"user\":\"u\"", Wish::Any, None),
            ("", Wish::Any, None),
        ] {
            let told = Told::read(body.as_bytes());
            assert_eq!(told.wish, wish, "{body}");
            assert_eq!(
                told.streamed.as_deref(),
                streamed.map(str::as_bytes),
                "{body}"
            );
            let named = Fields::read(body.as_bytes()).is_some() && body.contains("user");
            assert_eq!(told.user.as_deref(), named.then_some("u"), "{body}");
        }
    }

    #[test]
    fn a_user_is_a_text() {
        for body in [r#"{"user":7}"#, r#"{"user":null}"#, "{}"] {
            assert_eq!(Told::read(body.as_bytes()).user, None, "{body}");
        }
    }
}
