//! A provider that counts what it spends: several bytes a token, and never less than one.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use serde_json::{Value, json};
use tidegate_core::{
    Body,
    body::BoxError,
    dice::Dice,
    platform::Upstream,
    upstream::{Failure, FailureReason},
};

use crate::{
    between, chance,
    clock::{Sleep, Time},
};

/// How long an answer is at most that nobody has limited, in tokens.
const LONGEST: u64 = 3_000;

pub(crate) struct Provider {
    pub(crate) time: Rc<Time>,
    pub(crate) dice: Rc<RefCell<Dice>>,
    pub(crate) spent: Spent,
    /// It spends all that it may, and hangs up on every second caller.
    pub(crate) harsh: bool,
}

/// When, and how many tokens.
pub(crate) type Spent = Rc<RefCell<Vec<(u64, u64)>>>;

#[async_trait(?Send)]
impl Upstream for Provider {
    async fn send(&self, request: Request<Body>, _: Duration) -> Result<Response<Body>, Failure> {
        let failure = |reason, detail: &str| Failure {
            reason,
            detail: detail.into(),
        };
        let body = request.into_body().read(1 << 20).await.unwrap();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let (delay, fate) = {
            let dice = &mut self.dice.borrow_mut();
            (between(dice, 5, 400), between(dice, 0, 99))
        };
        self.time.until(self.time.ms() + delay).await;
        let fate = match fate {
            _ if !self.harsh => fate,
            0..50 => 11,
            _ => 99,
        };
        match fate {
            0..4 => return Err(failure(FailureReason::Connect, "refused")),
            4..8 => return Ok(answer(StatusCode::TOO_MANY_REQUESTS, "{}".into())),
            8..11 => return Ok(answer(StatusCode::BAD_REQUEST, "{}".into())),
            _ => {}
        }
        let choices = asked["n"].as_u64().unwrap_or(1);
        let most = asked["max_tokens"].as_u64().unwrap_or(LONGEST);
        let prompt = {
            let dice = &mut self.dice.borrow_mut();
            // Nobody's tokenizer makes more tokens of a text than it has bytes.
            let least = if self.harsh { 1 } else { 6 };
            between(dice, body.len() as u64 / least, body.len() as u64)
        };
        self.spend(prompt);
        let streams = asked["stream"] == true;
        if fate < 20 {
            // It has worked, and nobody hears of it. A stream that has not begun has not come far.
            let most = if streams { most.min(100) } else { most };
            let least = if self.harsh { most } else { 0 };
            self.spend(between(&mut self.dice.borrow_mut(), least, most) * choices);
            let outcome = failure(FailureReason::Broken, "reset");
            return if fate < 16 {
                Err(outcome)
            } else {
                Ok(answer(StatusCode::OK, "<html>".into()))
            };
        }
        if streams {
            return Ok(self.stream(prompt, most, choices));
        }
        let length = self.length(most);
        let work = between(&mut self.dice.borrow_mut(), 1, 20) * length;
        self.time.until(self.time.ms() + work).await;
        self.spend(length * choices);
        let mut said = json!({"choices": [{"message": {"content": "x".repeat(length as usize)}}]});
        if !chance(&mut self.dice.borrow_mut(), 20) {
            said["usage"] = json!({"prompt_tokens": prompt, "completion_tokens": length * choices});
        } else {
            said["choices"] = json!(vec![said["choices"][0].clone(); choices as usize]);
        }
        Ok(answer(StatusCode::OK, said.to_string()))
    }
}

impl Provider {
    fn spend(&self, tokens: u64) {
        self.spent.borrow_mut().push((self.time.ms(), tokens));
    }

    fn length(&self, most: u64) -> u64 {
        let dice = &mut self.dice.borrow_mut();
        // Every fourth answer would be longer than it may.
        if self.harsh || chance(dice, 25) {
            most
        } else {
            between(dice, 1, most.min(LONGEST))
        }
    }

    fn stream(&self, prompt: u64, most: u64, choices: u64) -> Response<Body> {
        let length = self.length(most);
        let dice = &mut self.dice.borrow_mut();
        let at_once = between(dice, 1, 8);
        let stream = Stream {
            time: self.time.clone(),
            spent: self.spent.clone(),
            next: self.time.ms(),
            gap: between(dice, 2, 40),
            prompt,
            choices,
            left: length * choices,
            sent: 0,
            at_once,
            // The letters of a token; some tokenizers have one for each.
            letters: if self.harsh {
                1
            } else {
                [1, 1, 2, 3, 4, 4, 5, 8][between(dice, 0, 7) as usize]
            },
            breaks: chance(dice, 10).then(|| between(dice, 0, length)),
            tells: between(dice, 0, 3),
            ended: false,
            sleep: None,
        };
        let mut response = Response::new(Body::arriving(stream));
        let kind = "text/event-stream".parse().unwrap();
        response.headers_mut().insert("content-type", kind);
        response
    }
}

fn answer(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = "application/json".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}

/// Works at its own pace, whether or not anybody reads.
struct Stream {
    time: Rc<Time>,
    spent: Spent,
    next: u64,
    gap: u64,
    prompt: u64,
    choices: u64,
    left: u64,
    sent: u64,
    at_once: u64,
    letters: usize,
    breaks: Option<u64>,
    /// The usage: never, in every chunk, or at the end.
    tells: u64,
    ended: bool,
    sleep: Option<Sleep>,
}

impl Stream {
    /// Makes the next tokens; nothing, if that is all.
    fn work(&mut self) -> Option<u64> {
        let tokens = self.at_once.min(self.left);
        if tokens == 0 {
            return None;
        }
        self.spent.borrow_mut().push((self.next, tokens));
        self.left -= tokens;
        self.sent += tokens;
        self.next += self.gap;
        Some(tokens)
    }

    fn usage(&self) -> Value {
        json!({"prompt_tokens": self.prompt, "completion_tokens": self.sent})
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let (time, next) = (this.time.clone(), this.next);
        let sleep = this.sleep.get_or_insert_with(|| time.until(next));
        ready!(Pin::new(sleep).poll(cx));
        this.sleep = None;
        if this
            .breaks
            .is_some_and(|breaks| this.sent >= breaks && this.sent > 0)
        {
            this.left = 0;
            this.ended = true;
            return Poll::Ready(Some(Err("reset".into())));
        }
        // What was made while nobody read comes at once.
        let mut events = String::new();
        while this.next <= this.time.ms() {
            let choice = this.sent % this.choices;
            let Some(tokens) = this.work() else { break };
            let text = "x".repeat(tokens as usize * this.letters);
            let mut event = json!({"choices": [{"index": choice, "delta": {"content": text}}]});
            if this.tells == 1 {
                event["usage"] = this.usage();
            }
            events += &format!("data: {event}\n\n");
        }
        if this.left == 0 {
            this.ended = true;
            for choice in 0..this.choices {
                let event =
                    json!({"choices": [{"index": choice, "delta": {}, "finish_reason": "stop"}]});
                events += &format!("data: {event}\n\n");
            }
            if this.tells > 0 {
                let event = json!({"choices": [], "usage": this.usage()});
                events += &format!("data: {event}\n\n");
            }
            events += "data: [DONE]\n\n";
        }
        Poll::Ready(Some(Ok(Frame::data(events.into()))))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Until it hears that nobody listens it goes on.
        while self.next <= self.time.ms() && self.work().is_some() {}
    }
}
