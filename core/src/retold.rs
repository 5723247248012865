//! An answer in other words than the caller's, as it would have been in those.
//!
//! Whoever takes the answer does not see where it came from: what an app of Dify's says is told as a model of OpenAI's would say it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Frame;

use crate::{
    answer::Miss,
    body::{Body, BoxError, join},
    dialect::dify::{self, Retelling, Retold},
    dispatch::is_for_caller,
    headers::{CONVERSATION, is_encoded, is_type},
    patience::within,
    platform::Clock,
    upstream::{FailureReason, Outcome},
};

/// The longest error that is read, in bytes.
const LONGEST_ERROR: u64 = 1 << 20;

/// The longest stream that is told at once, in bytes.
const LONGEST: usize = 64 << 20;

/// Tells `response`, which is an app's, in the words of the caller, by `retelling`. Of one that is told at once something must come every
/// `idle`.
pub(crate) async fn retold(
    mut retelling: Retelling,
    response: Response<Body>,
    clock: &dyn Clock,
    idle: Duration,
) -> Result<Response<Body>, Miss> {
    let (mut head, mut body) = response.into_parts();
    let says = |kind| is_type(&head.headers, kind) && !is_encoded(&head.headers);
    if !head.status.is_success() {
        // Of all others the status is enough.
        if is_for_caller(head.status) && says("application/json") {
            let said = body.read(LONGEST_ERROR).await.map_err(Miss::broken)?;
            let (status, error) = retelling.fault(&dify::read(&said), head.status);
            (head.status, body) = (status, error.into());
            head.headers.remove(header::CONTENT_LENGTH);
        }
        return Ok(Response::from_parts(head, body));
    }
    if !says("text/event-stream") {
        return Err(Miss::garbled("the answer is not a stream of events"));
    }
    head.headers.remove(header::CONTENT_LENGTH);
    let mut told = Vec::new();
    let mut taken = 0;
    while !retelling.is_known() || retelling.is_at_once() && !retelling.is_over() {
        let silence = if retelling.is_at_once() {
            idle
        } else {
            Duration::MAX
        };
        let piece = match within(clock, silence, body.piece()).await {
            Some(Some(Ok(piece))) => piece,
            None if !retelling.is_said() => {
                return Err(Outcome::Failed(FailureReason::Timeout).into());
            }
            Some(Some(Err(error))) if !retelling.is_said() => return Err(Miss::broken(error)),
            _ => {
                told.push(retelling.finish());
                break;
            }
        };
        taken += piece.len();
        if taken > LONGEST {
            return Err(Miss::garbled("the answer is too long"));
        }
        let piece = retelling.push(piece);
        told.extend((!piece.is_empty()).then_some(piece));
        if let Some(wrong) = retelling.wrong()
            && (retelling.is_at_once() || !retelling.is_known())
        {
            return Err(Miss::garbled(wrong));
        }
    }
    head.headers.remove(CONVERSATION);
    let conversation = retelling.conversation();
    if let Some(id) = conversation.and_then(|id| HeaderValue::from_str(id).ok()) {
        head.headers.insert(CONVERSATION, id);
    }
    if !retelling.is_at_once() {
        let rest = Body::arriving(Rest {
            body,
            retelling: Some(retelling),
        });
        return Ok(Response::from_parts(head, rest.behind(join(told))));
    }
    let json = HeaderValue::from_static("application/json");
    head.headers.insert(header::CONTENT_TYPE, json);
    let answer = match retelling.retold() {
        Retold::Open => return Err(Miss::garbled("the stream ended before it was whole")),
        Retold::Whole(answer) => answer,
        Retold::Failed(status, error) => {
            head.status = status;
            error
        }
    };
    Ok(Response::from_parts(head, answer.into()))
}

/// The rest of a stream.
struct Rest {
    body: Body,
    /// Nothing, once it has ended.
    retelling: Option<Retelling>,
}

impl http_body::Body for Rest {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(retelling) = &self.retelling else {
            return Poll::Ready(None);
        };
        if let Some(wrong) = retelling.wrong().map(BoxError::from) {
            self.retelling = None;
            return Poll::Ready(Some(Err(wrong)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let chunk = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(chunk))) => chunk,
            Some(Ok(Err(_))) => Bytes::new(),
            Some(Err(error)) => {
                self.retelling = None;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                let last = self.retelling.take().map(|mut told| told.finish());
                return Poll::Ready(last.map(|last| Ok(Frame::data(last))));
            }
        };
        let told = self.retelling.as_mut().map(|told| told.push(chunk));
        // What says nothing of the answer shows that somebody is at work on it all the same: a piece of nothing.
        Poll::Ready(told.map(|told| Ok(Frame::data(told))))
    }
}
