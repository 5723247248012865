//! What an upstream's answer is worth: something for the caller, or a reason to ask somebody else.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header, response::Parts};

use crate::{
    body::Body,
    dialect::{Meter, dify, openai},
    dispatch::is_for_caller,
    exchange::Reading,
    headers::{from_dify, from_provider, is_encoded, is_type},
    upstream::{Failure, FailureReason, Outcome},
    usage::Usage,
};

/// The longest answer that is read whole, in bytes.
const LONGEST_ANSWER: u64 = 64 << 20;

/// The longest wait that an upstream can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Something for the caller.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
}

/// How the answer's body goes on.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it is here.
    Whole(Bytes, Usage),
    /// It goes on event by event.
    Stream(Body, Meter),
    /// It goes on as it comes.
    Untouched(Body),
}

/// Nothing for the caller.
#[derive(Debug)]
pub(crate) struct Miss {
    pub(crate) outcome: Outcome,
    /// How long the upstream wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// For the operator.
    pub(crate) detail: Option<String>,
}

/// Takes an answer as `reading` says.
pub(crate) async fn take(reading: &Reading, response: Response<Body>) -> Result<Reply, Miss> {
    let (head, body) = response.into_parts();
    match reading {
        Reading::Model { hide_usage } => {
            check_provider(&head)?;
            let is_stream = head.status.is_success() && is_stream(&head.headers);
            let content = if is_stream {
                Content::Stream(body, Meter::OpenAi(openai::Meter::new(*hide_usage)))
            } else {
                read_whole(&head, body, openai::usage).await?
            };
            Ok(Reply {
                status: head.status,
                headers: from_provider(&head.headers),
                content,
            })
        }
        Reading::Provider => {
            check_provider(&head)?;
            Ok(Reply {
                status: head.status,
                headers: from_provider(&head.headers),
                content: Content::Untouched(body),
            })
        }
        Reading::Run | Reading::Service => {
            check_dify(&head)?;
            let content = if is_stream(&head.headers) {
                Content::Stream(body, Meter::Dify(dify::Meter::default()))
            } else if *reading == Reading::Run
                && head.status.is_success()
                && !is_encoded(&head.headers)
            {
                read_whole(&head, body, dify::usage).await?
            } else {
                Content::Untouched(body)
            };
            let mut headers = from_dify(&head.headers, false);
            if !matches!(content, Content::Untouched(_)) {
                headers.remove(header::CONTENT_LENGTH);
            }
            Ok(Reply {
                status: head.status,
                headers,
                content,
            })
        }
        Reading::Untouched { cookies } => {
            let headers = from_dify(&head.headers, *cookies);
            Ok(Reply {
                status: head.status,
                headers,
                content: Content::Untouched(body),
            })
        }
    }
}

impl Miss {
    fn garbled(why: &str) -> Self {
        Self {
            outcome: Outcome::Garbled,
            retry_after: None,
            detail: Some(why.into()),
        }
    }
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Self {
            outcome: Outcome::Failed(failure.reason),
            retry_after: None,
            detail: Some(failure.detail),
        }
    }
}

/// A provider's failure is not for the caller; neither is what nobody asked for, such as a redirect.
fn check_provider(head: &Parts) -> Result<(), Miss> {
    if is_for_caller(head.status) {
        return Ok(());
    }
    if head.status.is_redirection() || head.status.is_informational() {
        return Err(Miss::garbled("neither an answer nor an error"));
    }
    Err(failed(head))
}

/// What Dify says of its own failures is for the caller; what a proxy before it says is not.
fn check_dify(head: &Parts) -> Result<(), Miss> {
    if head.status.is_server_error() && !is_type(&head.headers, "application/json") {
        Err(failed(head))
    } else {
        Ok(())
    }
}

fn failed(head: &Parts) -> Miss {
    let wait = head
        .headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Miss {
        outcome: Outcome::Status(head.status),
        retry_after: wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT)),
        detail: None,
    }
}

async fn read_whole(
    head: &Parts,
    body: Body,
    usage: impl FnOnce(&[u8]) -> Result<Usage, serde_json::Error>,
) -> Result<Content, Miss> {
    let bytes = body.read(LONGEST_ANSWER).await.map_err(|error| Miss {
        outcome: Outcome::Failed(FailureReason::Broken),
        retry_after: None,
        detail: Some(error.to_string()),
    })?;
    if !head.status.is_success() {
        return Ok(Content::Whole(bytes, Usage::default()));
    }
    match usage(&bytes) {
        Ok(usage) => Ok(Content::Whole(bytes, usage)),
        Err(_) if is_encoded(&head.headers) => Err(Miss::garbled(
            "the answer is compressed, which nobody asked for",
        )),
        Err(_) => Err(Miss::garbled("the answer is not a JSON object")),
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    is_type(headers, "text/event-stream") && !is_encoded(headers)
}
