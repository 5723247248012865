//! Upstreams that fail in every way.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use serde_json::{Value, json};
use tidegate_core::{
    Body,
    body::BoxError,
    dice::Dice,
    platform::{Clock, Upstream},
    upstream::{Failure, FailureReason},
};

/// What can be answered to a question: most give the first of these, of which the last is a part.
pub(crate) fn answers(question: &str) -> [String; 3] {
    let part = format!("The answer to \"{question}\" is 42");
    let rest = "x".repeat(50);
    let one = format!("{part}, and here is why: é 😀\n{rest}");
    [
        one,
        format!("The answer to \"{question}\" is unknown."),
        part,
    ]
}

/// Any number of them, by their hosts.
pub(crate) struct Faulty {
    pub(crate) clock: RefCell<Option<Rc<dyn Clock>>>,
    dice: Rc<RefCell<Dice>>,
}

/// What comes next of a body.
enum Piece {
    Data(Bytes),
    Pause(u64),
    Reset,
    Stall,
}

impl Faulty {
    pub(crate) fn new(dice: Rc<RefCell<Dice>>) -> Self {
        Self {
            clock: RefCell::default(),
            dice,
        }
    }

    fn roll(&self, low: u64, high: u64) -> u64 {
        self.dice.borrow_mut().between(low, high)
    }

    fn chance(&self, probability: f64) -> bool {
        self.dice.borrow_mut().chance(probability)
    }

    fn clock(&self) -> Rc<dyn Clock> {
        self.clock.borrow().clone().unwrap()
    }

    fn stream(&self, answer: &str) -> VecDeque<Piece> {
        let id = self.roll(0, 1_000_000);
        let event = |delta: Value, finish: Value| {
            let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
            let event = json!({ "id": format!("c{id}"), "choices": [choice] });
            Piece::Data(format!("data: {event}\n\n").into())
        };
        let mut pieces = VecDeque::new();
        pieces.push_back(event(
            json!({ "role": "assistant", "content": "" }),
            Value::Null,
        ));
        let mut piece = String::new();
        for one in answer.chars() {
            piece.push(one);
            if self.chance(0.15) {
                let content = std::mem::take(&mut piece);
                pieces.push_back(event(json!({ "content": content }), Value::Null));
                if self.chance(0.2) {
                    pieces.push_back(Piece::Pause(self.roll(1, 400)));
                }
            }
        }
        pieces.push_back(event(json!({ "content": piece }), Value::Null));
        pieces.push_back(event(json!({}), json!("stop")));
        let usage = json!({ "prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50 });
        let usage = json!({ "id": format!("c{id}"), "choices": [], "usage": usage });
        pieces.push_back(Piece::Data(format!("data: {usage}\n\n").into()));
        pieces.push_back(Piece::Data(Bytes::from_static(b"data: [DONE]\n\n")));
        let place = self.roll(0, pieces.len() as u64) as usize;
        match self.roll(0, 12) {
            0 => {
                pieces.truncate(place);
                pieces.push_back(Piece::Reset);
            }
            1 => {
                pieces.truncate(place);
                pieces.push_back(Piece::Stall);
            }
            2 => pieces.truncate(place),
            3 => {
                pieces.truncate(place);
                pieces.push_back(Piece::Data(Bytes::from_static(b"data: <html>\n\n")));
                pieces.push_back(Piece::Stall);
            }
            4 => {
                pieces.truncate(place);
                let error = json!({ "error": { "message": "x", "type": "server_error" } });
                pieces.push_back(Piece::Data(format!("data: {error}\n\n").into()));
            }
            5 => pieces.insert(place, Piece::Data(Bytes::from_static(b"data: {\"id"))),
            6 => pieces.insert(0, Piece::Pause(self.roll(1, 4_000))),
            7 => pieces.insert(place, Piece::Data(Bytes::from_static(b": still at it\n\n"))),
            _ => {}
        }
        pieces
    }
}

#[async_trait(?Send)]
impl Upstream for Faulty {
    async fn send(&self, request: Request<Body>, _: Duration) -> Result<Response<Body>, Failure> {
        let body = request.into_body().read(u64::MAX).await.unwrap();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let question = asked["messages"][0]["content"].as_str().unwrap();
        let all = answers(question);
        let begun = asked["messages"][1]["content"].as_str().unwrap_or_default();
        let which = if self.chance(0.2) { self.roll(1, 2) } else { 0 };
        // Whoever goes on behind a beginning goes on with what it is the beginning of.
        let answer = all
            .iter()
            .find(|answer| !begun.is_empty() && answer.starts_with(begun));
        let answer = answer.unwrap_or(&all[which as usize]);
        let failure = |reason| Failure {
            reason,
            detail: "as the dice fell".into(),
        };
        let clock = self.clock();
        clock.sleep(Duration::from_millis(self.roll(1, 300))).await;
        let status = match self.roll(0, 19) {
            0 => return Err(failure(FailureReason::Connect)),
            1 => return Err(failure(FailureReason::Broken)),
            2 => {
                clock.sleep(Duration::from_secs(1_000_000)).await;
                500
            }
            3 => 500,
            4 => 429,
            5 => 401,
            6 if !begun.is_empty() => 400,
            7 => return Ok(response(200, "text/html", Body::from("<html>".to_owned()))),
            8 => return Ok(response(200, "application/json", Body::empty())),
            9 => {
                let error = json!({ "error": { "message": "x", "type": "overloaded_error" } });
                return Ok(response(
                    200,
                    "application/json",
                    Body::from(error.to_string()),
                ));
            }
            _ => 200,
        };
        if status != 200 {
            let error = json!({ "error": { "message": "x", "type": "x" } });
            return Ok(response(
                status,
                "application/json",
                Body::from(error.to_string()),
            ));
        }
        let answer = &answer[begun.len()..];
        if asked["stream"] == true {
            let pieces = self.stream(answer);
            let body = Body::arriving(Script {
                pieces,
                clock,
                pause: None,
            });
            return Ok(response(200, "text/event-stream", body));
        }
        let message = json!({ "role": "assistant", "content": answer });
        let answer = json!({
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50 },
        });
        let answer = answer.to_string();
        let cut = self.roll(0, answer.len() as u64 * 4) as usize;
        let mut pieces = VecDeque::new();
        pieces.push_back(Piece::Pause(self.roll(1, 2_000)));
        let half = answer.as_bytes().get(..cut).unwrap_or(answer.as_bytes());
        pieces.push_back(Piece::Data(Bytes::copy_from_slice(half)));
        if half.len() < answer.len() && self.chance(0.5) {
            pieces.push_back(Piece::Reset);
        }
        let body = Body::arriving(Script {
            pieces,
            clock,
            pause: None,
        });
        Ok(response(200, "application/json", body))
    }
}

fn response(status: u16, kind: &str, body: Body) -> Response<Body> {
    let builder = Response::builder().status(status);
    builder.header("content-type", kind).body(body).unwrap()
}

/// A body that comes as it is written.
struct Script {
    pieces: VecDeque<Piece>,
    clock: Rc<dyn Clock>,
    pause: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let pause = match self.pieces.pop_front() {
                None => return Poll::Ready(None),
                Some(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::Reset) => return Poll::Ready(Some(Err("reset".into()))),
                Some(Piece::Pause(pause)) => pause,
                Some(Piece::Stall) => 1_000_000_000,
            };
            let clock = self.clock.clone();
            self.pause = Some(Box::pin(async move {
                clock.sleep(Duration::from_millis(pause)).await;
            }));
        }
    }
}
