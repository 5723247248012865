//! Upstreams that answer what a script says, without a wire.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::Frame;
use tidegate_core::{
    Body,
    body::BoxError,
    platform::{Clock, Upstream},
    upstream::{Failure, FailureReason},
};

use super::clock::{Sleep, StillClock};
use crate::{
    scenario::{Answer, Framing},
    upstream::{Request, Script},
    wire::{self, Head},
};

/// A script, played.
pub(super) struct ScriptedUpstream {
    pub(super) script: Rc<Script>,
    pub(super) clock: StillClock,
}

#[async_trait(?Send)]
impl Upstream for ScriptedUpstream {
    async fn send(
        &self,
        request: http::Request<Body>,
        connect: Duration,
    ) -> Result<http::Response<Body>, Failure> {
        let failure = |reason, detail: &str| Failure {
            reason,
            detail: detail.into(),
        };
        let (parts, body) = request.into_parts();
        if parts.uri.host() == Some("silent.test") {
            self.clock.sleep(connect).await;
            return Err(failure(FailureReason::Connect, "no connection in time"));
        }
        if parts.uri.host() != Some("upstream.test") {
            return Err(failure(FailureReason::Connect, "connection refused"));
        }
        // Half a request was never asked.
        let Ok(body) = body.read(u64::MAX).await else {
            return Err(failure(FailureReason::Broken, "the request broke off"));
        };
        let headers = parts.headers.iter().map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        });
        let request = Request {
            method: parts.method.to_string(),
            path: String::new(),
            headers: headers.collect(),
            body: body.to_vec(),
        };
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        let Some(answer) = self.script.take(target, request) else {
            return Ok(http::Response::builder()
                .status(599)
                .body(Body::empty())
                .unwrap());
        };
        self.clock
            .sleep(Duration::from_millis(answer.delay_ms))
            .await;
        self.answer(&answer, &parts.method).await
    }
}

impl ScriptedUpstream {
    async fn answer(
        &self,
        answer: &Answer,
        method: &http::Method,
    ) -> Result<http::Response<Body>, Failure> {
        let pieces = self.script.pieces(answer);
        if answer.stall && answer.status.is_none() && (pieces.is_empty() || answer.raw.is_some()) {
            std::future::pending::<()>().await;
        }
        let (head, pieces, broken) = match &answer.raw {
            None => (
                head(answer, pieces.iter().map(Vec::len).sum()),
                pieces,
                answer.cut,
            ),
            Some(_) => {
                let bytes = pieces.concat();
                let mut reader = bytes.as_slice();
                let Ok(Some(head)) = wire::read_answer(&mut reader) else {
                    return Err(Failure {
                        reason: FailureReason::Broken,
                        detail: "no HTTP".into(),
                    });
                };
                let content = wire::read_body(
                    &mut reader,
                    &head,
                    Some(method.as_str()),
                    Instant::now(),
                    || true,
                );
                (head, vec![content.bytes], content.broken || answer.cut)
            }
        };
        let mut builder = http::Response::builder().status(head.status);
        for (name, value) in &head.headers {
            builder = builder.header(name, value);
        }
        let pieces = if method == http::Method::HEAD {
            Vec::new()
        } else {
            pieces
        };
        let body = ScriptedBody {
            pieces: pieces
                .into_iter()
                .filter(|piece| !piece.is_empty())
                .map(Bytes::from)
                .collect(),
            pause: Duration::from_millis(answer.pause_ms),
            end: if answer.stall {
                End::Never
            } else if broken {
                End::Broken
            } else {
                End::Whole
            },
            clock: self.clock.clone(),
            sleeping: None,
            begun: false,
        };
        let body = if body.pieces.is_empty() && body.end == End::Whole {
            Body::empty()
        } else {
            Body::arriving(body)
        };
        builder.body(body).map_err(|error| Failure {
            reason: FailureReason::Broken,
            detail: error.to_string(),
        })
    }
}

fn head(answer: &Answer, length: usize) -> Head {
    let mut headers = answer.headers();
    match answer.framing() {
        Framing::Length if answer.cut || answer.stall => {
            headers.push(("content-length".into(), (length + 100).to_string()));
        }
        Framing::Length => headers.push(("content-length".into(), length.to_string())),
        // A platform's HTTP client takes the framing off.
        Framing::Chunked | Framing::Close => {}
    }
    Head {
        status: answer.status.unwrap_or(200),
        headers,
        ..Head::default()
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum End {
    Whole,
    Broken,
    Never,
}

struct ScriptedBody {
    pieces: VecDeque<Bytes>,
    pause: Duration,
    end: End,
    clock: StillClock,
    sleeping: Option<Sleep>,
    begun: bool,
}

impl http_body::Body for ScriptedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.begun && !self.pieces.is_empty() && !self.pause.is_zero() {
            let (clock, pause) = (self.clock.clone(), self.pause);
            let sleeping = self
                .sleeping
                .get_or_insert_with(|| Sleep::new(clock, pause));
            std::task::ready!(Pin::new(sleeping).poll(cx));
            self.sleeping = None;
        }
        self.begun = true;
        match (self.pieces.pop_front(), self.end) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Broken) => Poll::Ready(Some(Err("the connection was reset".into()))),
            (None, End::Never) => Poll::Pending,
        }
    }
}
