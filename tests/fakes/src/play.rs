//! An answer as the steps that are played on the connection.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::counts::Visit;

/// An answer before it is played.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) before: Duration,
    /// What has to come about before the answer begins.
    pub(crate) opens: Option<Arc<Stop>>,
    pub(crate) steps: Vec<Step>,
    /// How long the body is said to be; nothing for a stream.
    pub(crate) length: Option<u64>,
    /// Ends the steps early, with others in their place.
    pub(crate) stop: Option<(Arc<Stop>, Vec<Step>)>,
}

/// What is done on the connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// One write.
    Write(Bytes),
    Pause(Duration),
    /// Nothing, until this is pressed.
    Await(Arc<Stop>),
    /// The connection is broken.
    Break,
}

/// A button that is pressed once: to stop a task, or to tell that something has come about.
#[derive(Debug, Default)]
pub(crate) struct Stop(Mutex<(bool, Vec<Waker>)>);

/// The body of an answer: its steps, as they are played.
pub(crate) struct Play {
    steps: VecDeque<Step>,
    length: Option<u64>,
    stop: Option<(Arc<Stop>, Vec<Step>)>,
    pause: Option<Pin<Box<Sleep>>>,
    flush: bool,
    visit: Option<Visit>,
}

/// Why the connection broke: a step said so.
#[derive(Debug)]
pub(crate) struct Broken;

impl Reply {
    /// An answer of `steps`.
    pub(crate) fn new(status: u16, content_type: &'static str, steps: Vec<Step>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static(content_type),
        );
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_IMPLEMENTED);
        Self {
            status,
            headers,
            before: Duration::ZERO,
            opens: None,
            steps,
            length: None,
            stop: None,
        }
    }

    /// An answer of `body`, whose length is said.
    pub(crate) fn whole(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let length = Some(body.len() as u64);
        let steps = if body.is_empty() {
            Vec::new()
        } else {
            vec![Step::Write(body)]
        };
        Self {
            length,
            ..Self::new(status, content_type, steps)
        }
    }

    /// An answer of JSON.
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::whole(status, "application/json", body.to_string())
    }

    /// The same answer with one more header.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(HeaderName::from_static(name), value);
        }
        self
    }

    /// Starts to play, watched by `visit`.
    pub(crate) fn play(self, visit: Visit) -> http::Response<Play> {
        let mut response = http::Response::new(Play {
            // What breaks at once has its headers out before.
            flush: self.steps.first() == Some(&Step::Break),
            steps: self.steps.into(),
            length: self.length,
            stop: self.stop,
            pause: None,
            visit: Some(visit),
        });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl Stop {
    /// Presses it.
    pub(crate) fn press(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        state.1.drain(..).for_each(Waker::wake);
    }

    fn pressed(&self, context: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = context.waker();
        if !state.1.iter().any(|other| other.will_wake(waker)) {
            state.1.push(waker.clone());
        }
        state.0
    }

    /// Waits until it is pressed.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| match self.pressed(context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

impl PartialEq for Stop {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Body for Play {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let play = self.get_mut();
        if let Some((stop, instead)) = play.stop.take() {
            if stop.pressed(context) {
                play.steps = instead.into();
                play.pause = None;
            } else {
                play.stop = Some((stop, instead));
            }
        }
        loop {
            if play.flush {
                // The server flushes when the body has nothing: so every write goes out by itself.
                play.flush = false;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(pause) = &mut play.pause {
                std::task::ready!(pause.as_mut().poll(context));
                play.pause = None;
            }
            match play.steps.pop_front() {
                Some(Step::Write(bytes)) => {
                    play.flush = true;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Await(what)) => {
                    if !what.pressed(context) {
                        play.steps.push_front(Step::Await(what));
                        return Poll::Pending;
                    }
                }
                Some(Step::Pause(time)) => play.pause = Some(Box::pin(sleep(time))),
                Some(Step::Break) => return Poll::Ready(Some(Err(Broken))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        if let Some(visit) = self.visit.take() {
            visit.end(self.steps.is_empty() && self.pause.is_none());
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken as the mode says")
    }
}

impl std::error::Error for Broken {}
