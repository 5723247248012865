//! What a scenario may expect.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::scenario::OneOrMany;

/// What must come of a call.
///
/// JSON is given as text and held as a part: an object may have more keys than are named, `"*"` stands for any value and
/// `"!absent"` for none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// The status, or those that are right.
    pub status: Option<OneOrMany<u16>>,
    /// The code of the gateway's refusal; its whole shape is checked, in `dialect`.
    pub error: Option<String>,
    /// The code that the caller is told, where the dialect has its own.
    pub says: Option<String>,
    /// Whose shape a refusal has.
    pub dialect: Dialect,
    /// Headers: the exact value, `~` and a part of it, `!` and what is no part of it, or `*`.
    pub headers: BTreeMap<String, String>,
    /// Headers that are not there.
    pub no_headers: Vec<String>,
    /// A part of the body.
    pub json: Option<String>,
    /// The whole body.
    pub body: Option<String>,
    /// The whole body, one byte a character.
    pub bytes: Option<String>,
    /// How many bytes the body has.
    pub size: Option<usize>,
    /// All events of a stream, written as an upstream's are; `~` and JSON holds only a part of the data.
    pub events: Option<Vec<String>>,
    /// Texts that stand in the body.
    pub contains: Vec<String>,
    /// Texts that do not.
    pub lacks: Vec<String>,
    /// The answer breaks off before its end.
    pub broken: bool,
    /// The first byte of the body is there by then.
    pub first_within_ms: Option<u64>,
    /// The whole answer is there by then.
    pub within_ms: Option<u64>,
    /// What each upstream saw, in order: all of it.
    pub upstream: BTreeMap<String, Vec<Seen>>,
    /// A part of the request's record.
    pub record: Option<String>,
    /// The runtime's own HTTP server answers, or hangs up, before the gateway sees a request: no name, no record.
    pub unseen: bool,
}

/// Whose shape a refusal has.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `{"error":{"message","type","code","param"}}`
    #[default]
    OpenAi,
    /// `{"code","message","status"}`
    Dify,
}

/// What an upstream must have seen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seen {
    /// The method.
    pub method: Option<String>,
    /// The target that was asked for, after the upstream's own address.
    pub path: Option<String>,
    /// Headers: the exact value, `~` and a part of it, `!` and what is no part of it, or `*`.
    pub headers: BTreeMap<String, String>,
    /// Headers that are not there.
    pub no_headers: Vec<String>,
    /// A part of the body.
    pub json: Option<String>,
    /// The whole body.
    pub body: Option<String>,
    /// How many bytes the body has.
    pub size: Option<usize>,
    /// Texts that stand in the body.
    pub contains: Vec<String>,
    /// Texts that do not.
    pub lacks: Vec<String>,
}

impl Expect {
    /// Whether nothing at all is expected.
    pub fn is_empty(&self) -> bool {
        self.status.is_none()
            && self.error.is_none()
            && self.headers.is_empty()
            && self.no_headers.is_empty()
            && self.json.is_none()
            && self.body.is_none()
            && self.bytes.is_none()
            && self.size.is_none()
            && self.events.is_none()
            && self.contains.is_empty()
            && self.lacks.is_empty()
            && !self.broken
            && self.first_within_ms.is_none()
            && self.within_ms.is_none()
            && self.upstream.is_empty()
            && self.record.is_none()
            && !self.unseen
    }
}
