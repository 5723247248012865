//! A connection that has become a WebSocket: what passes between its two ends until one of them leaves.
//!
//! What the caller sends once it has switched is the body of the request, and what the upstream sends is the body of the answer.
//! Nobody here reads any of it. It is one request: it keeps its place within limits as long as it lasts, and is recorded when
//! it is over.
//!
//! A platform that carries both directions by itself hands in a request without a body, and an answer with a body of its own.
//! It is over for the gateway once that is on its way.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::Frame;

use crate::{
    answer::{self, Content, Miss, Reply},
    body::{Body, BoxError},
    entrance::Entrant,
    exchange::{Exchange, Payload, Reading},
    headers::{ask_to_switch, from_dify},
    patience::within,
    record::{Attempt, Ending},
    refusal::Refusal,
    time::{Timestamp, millis},
    upstream::{Failure, FailureReason, Origin, Outcome},
    vigil::{Alarm, Vigil},
    visit::Visit,
};

/// Seen from both directions.
pub(crate) struct Tunnel(Rc<Ends>);

struct Ends {
    vigil: RefCell<Vigil>,
    has_caller_left: Cell<bool>,
    /// Whoever carries what the upstream sends.
    waker: RefCell<Option<Waker>>,
}

/// Asks the one who serves it to switch. It may also answer as it would to any other request.
pub(crate) async fn open(
    entrant: &Entrant,
    visit: &mut Visit,
    mut exchange: Exchange,
) -> Result<(Reply, Option<Tunnel>), Refusal> {
    let platform = &entrant.platform;
    let clock = &platform.clock;
    let target = exchange.targets.first().cloned().ok_or(Refusal::NoRoute)?;
    if let Some(way) = &target.way {
        visit.budget.passage = Some(entrant.pass(way, Duration::MAX).await?);
    }
    let tunnel = Tunnel(Rc::new(Ends {
        vigil: RefCell::new(Vigil::new(
            clock.clone(),
            exchange.timeouts.idle,
            visit.record.time.after(exchange.timeouts.total),
        )),
        has_caller_left: Cell::new(false),
        waker: RefCell::default(),
    }));
    if let Payload::Once(body) = &mut exchange.payload
        && body.size() != Some(0)
    {
        *body = Body::arriving(FromCaller {
            inner: std::mem::take(body),
            ends: tunnel.0.clone(),
        });
    }
    let delivery = exchange.request(&target, None, None);
    let began = clock.now();
    let asked = async {
        let delivery =
            delivery.ok_or_else(|| failed("the path does not fit the target's address"))?;
        let connect = exchange.timeouts.connect;
        let response = platform.upstream.send(delivery.request, connect).await?;
        take(&target.origin, response, clock.now()).await
    };
    let taken = within(&**clock, exchange.timeouts.first_token, asked).await;
    let taken = taken.unwrap_or_else(|| Err(Outcome::Failed(FailureReason::Timeout).into()));
    visit.trail.push(Attempt {
        target: target.name.to_string(),
        outcome: match &taken {
            Ok(reply) => reply.outcome().to_string(),
            Err(miss) => miss.outcome.to_string(),
        },
        ms: millis(clock.now().since(began)),
        detail: taken.as_ref().err().and_then(|miss| miss.detail.clone()),
    });
    match taken {
        Ok(reply) => {
            visit.record.served_by = Some(target.name.to_string());
            let switched = reply.status == StatusCode::SWITCHING_PROTOCOLS;
            Ok((reply, switched.then_some(tunnel)))
        }
        Err(miss) => Err(Refusal::Upstream {
            last: miss.outcome,
            retry_after: miss.retry_after,
            said: None,
        }),
    }
}

async fn take(origin: &Origin, response: Response<Body>, now: Timestamp) -> Result<Reply, Miss> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let reading = Reading::Untouched { cookies: true };
        return answer::take(&reading, origin, response, now).await;
    }
    let (head, body) = response.into_parts();
    let protocol = head.headers.get(header::UPGRADE);
    if protocol.is_some_and(|named| !named.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Err(Outcome::Garbled.into());
    }
    let mut headers = from_dify(&head.headers, &origin.base, true);
    headers.remove(header::CONTENT_LENGTH);
    ask_to_switch(&mut headers);
    Ok(Reply {
        status: head.status,
        headers,
        content: Content::Untouched(body),
        complaint: None,
    })
}

fn failed(detail: &str) -> Failure {
    Failure {
        reason: FailureReason::Connect,
        detail: detail.into(),
    }
}

impl Tunnel {
    /// What the upstream sends, as it goes to the caller of `visit`, which is over with it.
    pub(crate) fn carry(self, mut visit: Visit, body: Body) -> Body {
        if body.is_foreign() {
            visit.close(Ending::PassedOn, None);
            return body;
        }
        self.0.vigil.borrow_mut().heard();
        Body::arriving(ToCaller {
            inner: body,
            ends: self.0,
            switched: visit.clock().now(),
            visit: Some(visit),
        })
    }
}

/// What the caller sends.
struct FromCaller {
    inner: Body,
    ends: Rc<Ends>,
}

/// What the upstream sends, and the request as long as it does.
struct ToCaller {
    inner: Body,
    ends: Rc<Ends>,
    switched: Timestamp,
    visit: Option<Visit>,
}

impl ToCaller {
    fn end(&mut self, ended: Ending, why: Option<String>) {
        self.inner = Body::empty();
        if let Some(mut visit) = self.visit.take() {
            visit.record.fault = visit.record.fault.take().or(why);
            visit.close(ended, Some(self.switched));
        }
    }

    /// Why it is over although neither end has left, once it is.
    fn poll_over(&self, visit: &Visit, cx: &mut Context<'_>) -> Poll<&'static str> {
        self.ends.waker.replace(Some(cx.waker().clone()));
        let mut vigil = self.ends.vigil.borrow_mut();
        loop {
            match ready!(vigil.poll(cx)) {
                Alarm::Idle | Alarm::Over => return Poll::Ready("nothing came for too long"),
                Alarm::Ping if visit.budget.has_lapsed(visit.clock().now()) => {
                    return Poll::Ready("its place within a limit could not be kept");
                }
                // Whether the other one is still there its ends ask each other.
                Alarm::Ping => {}
            }
        }
    }
}

impl http_body::Body for FromCaller {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) => self.ends.vigil.borrow_mut().heard(),
            Poll::Ready(Some(Err(_)) | None) => {
                self.ends.has_caller_left.set(true);
                let waker = self.ends.waker.take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
        polled
    }
}

impl http_body::Body for ToCaller {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.ends.has_caller_left.get() {
            // An upstream that has noticed it leaves as well: whatever it still says goes to nobody.
            this.end(Ending::Abandoned, None);
            return Poll::Ready(None);
        }
        let (ended, why) = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.ends.vigil.borrow_mut().heard();
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(Some(Err(error))) => (Ending::Truncated, Some(error.to_string())),
            Poll::Ready(None) => (Ending::Whole, None),
            Poll::Pending => {
                let Some(visit) = &this.visit else {
                    return Poll::Ready(None);
                };
                let why = ready!(this.poll_over(visit, cx));
                (Ending::Truncated, Some(why.into()))
            }
        };
        this.end(ended, why);
        Poll::Ready(None)
    }
}

impl Drop for ToCaller {
    fn drop(&mut self) {
        self.end(Ending::Abandoned, None);
    }
}
