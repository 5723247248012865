//! What is known of a request when it is over: one line of JSON, with never a key and never a prompt in it.

use serde::Serialize;

use crate::{
    time::{Timestamp, millis},
    usage::Usage,
};

/// The record of one request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// The request's name, as `x-tidegate-request` gave it to the caller.
    pub id: String,
    /// When it came.
    pub time: Timestamp,
    /// The method it asked with.
    pub method: String,
    /// The path it asked for, without its query.
    pub path: String,
    /// The route that took it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Who asked, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// The model that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The target that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// Everyone who was asked, in order.
    pub attempts: Vec<Attempt>,
    /// The status that the caller got.
    pub status: u16,
    /// The code of the refusal, if the answer was the gateway's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<&'static str>,
    /// For how many milliseconds it has waited until the upstream had room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    /// Whether the answer was a stream.
    pub stream: bool,
    /// Milliseconds until the first byte of the answer's body, or its end if it had none.
    pub first_byte_ms: u64,
    /// Milliseconds until the end.
    pub total_ms: u64,
    /// What it cost.
    #[serde(flatten)]
    pub usage: Usage,
    /// How far that can be relied on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
    /// What an operator has done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// How the answer ended.
    pub ended: Ending,
    /// What went wrong besides: the ledger's complaint, say; or that a run of Dify's has failed, by its own word, though it was answered:
    /// `run: failed`, or `partial-succeeded`, `stopped`, or `paused`, which is to say that it waits for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Record {
    /// The record of a request that came at `time`, and of which nothing else is known yet.
    pub fn begin(id: String, time: Timestamp, method: &str, path: &str) -> Self {
        Self {
            id,
            time,
            method: method.into(),
            path: path.into(),
            route: None,
            consumer: None,
            model: None,
            served_by: None,
            attempts: Vec::new(),
            status: 0,
            refusal: None,
            waited_ms: None,
            stream: false,
            first_byte_ms: 0,
            total_ms: 0,
            usage: Usage::default(),
            counted: None,
            admin: None,
            ended: Ending::PassedOn,
            fault: None,
        }
    }

    /// Completes the record of an answer that ended at `now` as `ended`.
    pub fn close(&mut self, ended: Ending, first_byte: Timestamp, now: Timestamp) {
        self.ended = ended;
        self.first_byte_ms = millis(first_byte.since(self.time));
        self.total_ms = millis(now.since(self.time));
    }
}

/// One upstream that was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attempt {
    /// Which.
    pub target: String,
    /// What it did: a status, or `connect`, `broken`, `timeout`, `garbled`; or that nobody waited for it: `outpaced` by somebody
    /// else, or `abandoned` by the caller.
    pub outcome: String,
    /// Milliseconds until that was known.
    pub ms: u64,
    /// What the platform said of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How a stream went.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    pub(crate) ended: Ending,
    pub(crate) usage: Usage,
    /// How far the usage can be relied on.
    pub(crate) counted: Counted,
    /// When the first byte went to the caller, if one did.
    pub(crate) first_byte: Option<Timestamp>,
    /// Who has answered in the end, if that was not known when it began.
    pub(crate) served_by: Option<String>,
    /// The code of the refusal, if nobody has.
    pub(crate) refusal: Option<&'static str>,
    /// For the operator.
    pub(crate) detail: Option<String>,
}

/// Who has counted what an answer cost.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// The provider.
    Measured,
    /// The gateway, from the bytes that passed: a limit was charged so many tokens at least.
    Estimated,
    /// Nobody.
    Unknown,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The caller got all of it.
    Whole,
    /// An upstream broke off, another one went on, and the caller got all of it.
    Rescued,
    /// The upstream broke off, and the caller was told.
    Truncated,
    /// The caller left before the end.
    Abandoned,
    /// A limit on tokens had no more room, and the caller was told.
    Limited,
    /// The gateway refused.
    Refused,
    /// The platform carried the upstream's answer through; its end was not watched.
    PassedOn,
}
