//! What a caller hears when the answer is no, in its own dialect.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    admission::Denial,
    body::Body,
    dialect::{
        Dialect,
        openai::{self, Malformed},
    },
    limit::{Standing, Unit},
    overload::Over,
    upstream::{FailureReason, Outcome},
};

/// A refusal: the gateway's own word, never an upstream's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The path could be read in two ways.
    UnsafePath(&'static str),
    /// The request cannot be read.
    Malformed(Malformed),
    /// The request's body broke off.
    BrokenBody,
    /// Nothing more of the request's body came in time.
    LateBody,
    /// There is no key.
    MissingKey,
    /// There is a key, and it is nobody's.
    InvalidKey,
    /// The key is somebody's who may not come in here.
    Forbidden,
    /// No route takes the request.
    NoRoute,
    /// No model has this name.
    NoModel(String),
    /// The method does not fit the path; these do.
    Method(&'static str),
    /// The connection is to become a WebSocket, and the runtime has none.
    Upgrade,
    /// The body is longer than this many bytes.
    TooLarge(u64),
    /// Too much of others is kept already for the body to be read.
    NoRoom,
    /// A limit has no room.
    LimitExceeded(Standing),
    /// A limit has no room, and neither has the queue before it; or the request has waited there for as long as it may.
    Shed(Standing),
    /// The upstream bears no more, and the queue before it has no room; or the request has waited there for as long as it may.
    Crowded {
        /// Whose calls they are: `dify.main/support`, say.
        scope: Box<str>,
        /// What is said of it.
        over: Over,
        /// After how long there will be room.
        retry_after: Duration,
    },
    /// The request may cost more tokens than a limit allows in all.
    TooCostly {
        /// Whose limit: `consumer web`, say.
        scope: String,
        /// The limit.
        limit: u64,
        /// What it may cost.
        tokens: u64,
    },
    /// The ledger cannot be reached.
    NoLedger,
    /// Nobody could answer.
    Upstream {
        /// What the last one did who was asked.
        last: Outcome,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
        /// What it has said of that itself, if that is for the caller.
        said: Option<String>,
    },
    /// An answer broke off after its beginning had gone out.
    Truncated,
}

/// The longest name that is repeated, in characters.
const LONGEST_NAME: usize = 100;

/// How long a caller shall wait where nobody knows.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Refusal {
    /// No model has this name, of which not more is repeated than can be one.
    pub fn no_model(name: &str) -> Self {
        Self::NoModel(name.chars().take(LONGEST_NAME).collect())
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnsafePath(_) | Self::Malformed(_) | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::LateBody => StatusCode::REQUEST_TIMEOUT,
            Self::Upgrade => StatusCode::NOT_IMPLEMENTED,
            Self::MissingKey | Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NoRoute | Self::NoModel(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) | Self::TooCostly { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::LimitExceeded(_)
            | Self::Crowded {
                over: Over::TooMany,
                ..
            } => StatusCode::TOO_MANY_REQUESTS,
            Self::Crowded { .. } | Self::Shed(_) | Self::NoRoom | Self::NoLedger => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Upstream { last, .. } if last.status() == Some(StatusCode::TOO_MANY_REQUESTS) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Upstream {
                last: Outcome::Failed(FailureReason::Timeout),
                ..
            } => StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream { .. } | Self::Truncated => StatusCode::BAD_GATEWAY,
        }
    }

    /// The code, as records and OpenAI's callers see it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsafePath(_) => "unsafe_path",
            Self::Malformed(_) | Self::BrokenBody => "invalid_request",
            Self::LateBody => "request_timeout",
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::Forbidden => "forbidden",
            Self::NoRoute => "route_not_found",
            Self::NoModel(_) => "model_not_found",
            Self::Method(_) => "method_not_allowed",
            Self::Upgrade => "upgrade_unsupported",
            Self::TooLarge(_) => "body_too_large",
            Self::LimitExceeded(_) => "limit_exceeded",
            Self::Shed(_) | Self::Crowded { .. } | Self::NoRoom => "shed",
            Self::TooCostly { .. } => "too_many_tokens",
            Self::NoLedger => "ledger_unavailable",
            Self::Upstream { last, .. } if last.status() == Some(StatusCode::TOO_MANY_REQUESTS) => {
                "upstream_limited"
            }
            Self::Upstream {
                last: Outcome::Failed(FailureReason::Timeout),
                ..
            } => "upstream_timeout",
            Self::Upstream { .. } => "upstream_failed",
            Self::Truncated => "upstream_truncated",
        }
    }

    /// The code as Dify's own clients know it, where Dify has one for this.
    fn dify_code(&self) -> &'static str {
        match self {
            Self::UnsafePath(_) | Self::Malformed(_) | Self::BrokenBody => "invalid_param",
            Self::MissingKey | Self::InvalidKey => "unauthorized",
            Self::NoRoute => "not_found",
            Self::TooLarge(_) => "file_too_large",
            Self::LimitExceeded(_)
            | Self::Crowded {
                over: Over::TooMany,
                ..
            } => "too_many_requests",
            _ => self.code(),
        }
    }

    fn message(&self) -> Cow<'static, str> {
        match self {
            Self::UnsafePath(why) => (*why).into(),
            Self::Malformed(malformed) => malformed.message.clone().into(),
            Self::BrokenBody => "the body broke off before its end".into(),
            Self::LateBody => "nothing more of the body came in time".into(),
            Self::MissingKey => {
                "a key is needed, in `authorization: Bearer`, `x-api-key` or `api-key`".into()
            }
            Self::InvalidKey => "the key is not known".into(),
            Self::Forbidden => "the key is not for what is served here".into(),
            Self::NoRoute => "nothing is served here".into(),
            Self::NoModel(name) => format!("no model is named `{name}`").into(),
            Self::Method(_) => "this method is not served here".into(),
            Self::Upgrade => "WebSocket is not available on this runtime".into(),
            Self::TooLarge(limit) => format!("the body is longer than {limit} bytes").into(),
            Self::NoRoom => "too many long bodies are read at the moment".into(),
            Self::LimitExceeded(standing) => match standing.unit() {
                Unit::Concurrent => format!(
                    "the {} has {} requests in progress, and no room for more",
                    standing.scope(),
                    standing.allowed()
                ),
                unit => format!(
                    "the limit on {} of the {} is used up",
                    unit.name(),
                    standing.scope()
                ),
            }
            .into(),
            Self::TooCostly {
                scope,
                limit,
                tokens,
            } => {
                format!("the request may cost {tokens} tokens, and the {scope} has {limit} in all")
                    .into()
            }
            Self::Shed(standing) => {
                let scope = standing.scope();
                format!("the {scope} is busy, and so is the queue before it").into()
            }
            Self::Crowded { scope, .. } => {
                format!("{scope} has as much to do as it can, and no room for more").into()
            }
            Self::NoLedger => "limits cannot be checked at the moment".into(),
            Self::Upstream { last, .. } if last.status() == Some(StatusCode::TOO_MANY_REQUESTS) => {
                "the upstream takes no more requests at the moment".into()
            }
            Self::Upstream {
                last: Outcome::Failed(FailureReason::Timeout),
                ..
            } => "the upstream did not answer in time".into(),
            Self::Upstream { last, said, .. } => {
                let words = "no upstream could answer; the last one failed";
                match said {
                    Some(said) => format!("{words}: {last}: {said}").into(),
                    None => format!("{words}: {last}").into(),
                }
            }
            Self::Truncated => "the upstream broke off; the answer is not whole".into(),
        }
    }

    /// How long the caller shall wait; always said with 429 and 503.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            // Nobody knows when a request that is in progress ends.
            Self::Shed(_) => Some(RETRY_AFTER),
            Self::LimitExceeded(standing) if standing.unit() == Unit::Concurrent => {
                Some(RETRY_AFTER)
            }
            Self::LimitExceeded(standing) => Some(standing.reset),
            Self::Crowded { retry_after, .. } => Some(*retry_after),
            Self::Upstream { retry_after, .. } => retry_after.or_else(|| {
                (self.status() == StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_AFTER)
            }),
            Self::NoRoom | Self::NoLedger => Some(RETRY_AFTER),
            _ => None,
        }
    }

    /// The answer, in the dialect of the caller.
    pub fn answer(&self, dialect: Dialect) -> Response<Body> {
        let mut response = Response::new(self.json(dialect).to_string().into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        if let Self::Method(allowed) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"api\""),
            );
        }
        response
    }

    /// The same as the last event of a stream that cannot go on.
    pub fn event(&self, dialect: Dialect) -> Bytes {
        let mut json = self.json(dialect);
        if let (Dialect::Dify, Some(fields)) = (dialect, json.as_object_mut()) {
            fields.insert("event".into(), "error".into());
        }
        format!("data: {json}\n\n").into()
    }

    fn json(&self, dialect: Dialect) -> Value {
        let (message, status) = (self.message(), self.status());
        match dialect {
            Dialect::Dify => {
                json!({ "code": self.dify_code(), "message": message, "status": status.as_u16() })
            }
            Dialect::OpenAi => {
                let param = match self {
                    Self::Malformed(malformed) => malformed.param,
                    Self::NoModel(_) => Some("model"),
                    _ => None,
                };
                let kind = match status {
                    StatusCode::UNAUTHORIZED => "authentication_error",
                    StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
                    status if status.is_server_error() => "server_error",
                    _ => "invalid_request_error",
                };
                openai::error(&message, kind, param, Some(self.code()))
            }
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Limited(standing) => Self::LimitExceeded(standing),
            Denial::Shed(standing) => Self::Shed(standing),
            Denial::Unknown(_) => Self::NoLedger,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// A wait in whole seconds, never shorter than it is, and never none.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
        .max(1)
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, rc::Rc};

    use super::*;
    use crate::limit::{By, Limit, Quota};

    fn text(refusal: &Refusal, dialect: Dialect) -> String {
        String::from_utf8(
            refusal
                .answer(dialect)
                .into_body()
                .into_whole()
                .unwrap()
                .to_vec(),
        )
        .unwrap()
    }

    #[test]
    fn each_dialect_has_its_shape() {
        let refusal = Refusal::NoModel("x\"y".into());
        assert_eq!(
            text(&refusal, Dialect::OpenAi),
            r#"{"error":{"code":"model_not_found","message":"no model is named `x\"y`","param":"model","type":"invalid_request_error"}}"#
        );
        assert_eq!(
            text(&Refusal::MissingKey, Dialect::Dify),
            r#"{"code":"unauthorized","message":"a key is needed, in `authorization: Bearer`, `x-api-key` or `api-key`","status":401}"#
        );
    }

    fn standing(unit: Unit, reset: u64) -> Standing {
        let limit = NonZeroU64::new(3).unwrap();
        let quota = Quota { limit, per: 0 };
        Standing {
            limit: Rc::new(Limit::new("route x", unit, quota, By::Everybody, None)),
            remaining: 0,
            reset: Duration::from_millis(reset),
        }
    }

    #[test]
    fn a_wait_is_said_wherever_it_is_owed() {
        let limited = Outcome::Status(StatusCode::TOO_MANY_REQUESTS);
        let table = [
            (
                Refusal::LimitExceeded(standing(Unit::Requests, 1001)),
                Some("2"),
            ),
            (
                Refusal::LimitExceeded(standing(Unit::Requests, 0)),
                Some("1"),
            ),
            (
                Refusal::LimitExceeded(standing(Unit::Concurrent, 44_000)),
                Some("1"),
            ),
            (Refusal::Shed(standing(Unit::Concurrent, 44_000)), Some("1")),
            (Refusal::NoLedger, Some("1")),
            (Refusal::NoRoom, Some("1")),
            (
                Refusal::Upstream {
                    last: limited,
                    retry_after: None,
                    said: None,
                },
                Some("1"),
            ),
            (
                Refusal::Upstream {
                    last: limited,
                    retry_after: Some(Duration::from_secs(7)),
                    said: None,
                },
                Some("7"),
            ),
            (
                Refusal::Upstream {
                    last: Outcome::Garbled,
                    retry_after: None,
                    said: None,
                },
                None,
            ),
            (Refusal::NoRoute, None),
        ];
        for (refusal, expected) in table {
            let answer = refusal.answer(Dialect::OpenAi);
            assert_eq!(
                answer
                    .headers()
                    .get("retry-after")
                    .map(|value| value.to_str().unwrap()),
                expected,
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn a_stream_ends_with_an_event_of_its_dialect() {
        assert!(
            Refusal::Truncated
                .event(Dialect::OpenAi)
                .starts_with(b"data: {\"error\":{")
        );
        assert!(
            String::from_utf8_lossy(&Refusal::Truncated.event(Dialect::Dify))
                .contains("\"event\":\"error\"")
        );
    }
}
