//! What becomes of what a ledger is told, where nobody hears its answer.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, pending, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderValue, Request, Response};
use tidegate_core::{
    Body, Config, Gateway, Platform,
    config::Runtime,
    dice::Dice,
    limit::{Account, Balance, Posting},
    platform::{Clock, Fault, Journal, Ledger, Task, Tasks, Upstream},
    record::Record,
    time::Timestamp,
    upstream::Failure,
};

#[test]
fn what_is_granted_to_somebody_who_has_left_is_given_back() {
    for limit in [
        r#"{"requests": 1, "per": "1h"}"#,
        r#"{"concurrent": 1}"#,
        r#"{"tokens": 10000, "per": "30d"}"#,
        r#"{"tokens": 10000, "per": "1m", "strict": false}"#,
        r#"{"concurrent": 1, "queue": 1}"#,
    ] {
        let stage = Stage::of(limit);
        stage.leave_while_asked();
        assert_eq!(stage.left(), stage.allowed(), "{limit}");
    }
}

#[test]
fn a_place_in_a_queue_is_given_up_by_somebody_who_leaves_while_asking_for_it() {
    let stage = Stage::of(r#"{"concurrent": 1, "queue": 1}"#);
    let mut first = stage.call();
    assert!(
        stage.poll(&mut first).is_pending(),
        "the upstream is silent"
    );
    stage.leave_while_asked();
    let account = stage.half.accounts.borrow().values().next().cloned();
    let account = serde_json::to_value(account.unwrap()).unwrap();
    assert_eq!(account["queue"], serde_json::json!([]));
}

#[test]
fn what_a_request_has_cost_is_said_until_it_is_heard() {
    for (limit, spent) in [
        (r#"{"concurrent": 1}"#, 0),
        (r#"{"tokens": 10000, "per": "30d"}"#, 5_000),
        (r#"{"tokens": 10000, "per": "30d", "strict": false}"#, 5_000),
    ] {
        for failure in [Failing::Unheard, Failing::Unanswered] {
            let stage = Stage::of(limit);
            stage.half.answers.set(true);
            let mut call = stage.call();
            stage.half.fails_after.set(Some((1, failure)));
            assert!(stage.poll(&mut call).is_ready());
            for _ in 0..3 {
                stage.half.pass(Duration::from_secs(2));
            }
            stage.half.fails_after.set(None);
            for _ in 0..10 {
                stage.half.pass(Duration::from_secs(2));
            }
            let left = stage.allowed() - spent;
            assert_eq!(stage.left(), left, "{limit} {failure:?}");
        }
    }
}

struct Stage {
    gateway: Gateway,
    half: Rc<Half>,
}

type Serving = Pin<Box<dyn Future<Output = Response<Body>>>>;

impl Stage {
    /// A gateway with this one limit.
    fn of(limit: &str) -> Self {
        let document = format!(
            r#"{{
                "providers": {{"p": {{"dialect": "openai", "base_url": "http://p/v1"}}}},
                "models": {{"m": {{"targets": ["p/m"]}}}},
                "routes": [{{"name": "llm", "serve": "models", "access": "public", "limits": [{limit}]}}]
            }}"#
        );
        let document = serde_json::from_str(&document).unwrap();
        let config = Config::build(&document, None, Runtime::Native).unwrap();
        let half = Rc::new(Half::default());
        let platform = Platform {
            upstream: half.clone(),
            ledger: half.clone(),
            clock: half.clone(),
            tasks: half.clone(),
            journal: half.clone(),
            dice: Rc::new(RefCell::new(Dice::new([7; 16]))),
        };
        let gateway = Gateway::new(Rc::new(config), platform);
        Self { gateway, half }
    }

    fn call(&self) -> Serving {
        let request = Request::post("/chat/completions")
            .body(Body::from(String::from(r#"{"model":"m"}"#)))
            .unwrap();
        let gateway = self.gateway.clone();
        Box::pin(async move { gateway.serve(request, None).await })
    }

    /// A caller comes, and is gone before the ledger has answered.
    fn leave_while_asked(&self) {
        self.half.is_slow.set(true);
        let mut call = self.call();
        assert!(self.poll(&mut call).is_pending());
        drop(call);
        self.half.is_slow.set(false);
        self.half.work();
    }

    fn poll(&self, serving: &mut Serving) -> Poll<Response<Body>> {
        let polled = serving
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        self.half.work();
        polled
    }

    /// What the ledger has left to give, as it said last.
    fn left(&self) -> u64 {
        self.half.left.get()
    }

    fn allowed(&self) -> u64 {
        self.half.allowed.get()
    }
}

/// What a ledger does that gives no answer.
#[derive(Clone, Copy, Debug)]
enum Failing {
    /// It has not heard.
    Unheard,
    /// It has done what it was told.
    Unanswered,
}

/// A platform whose upstream may be silent, and whose ledger may be slow to answer or fail to.
#[derive(Default)]
struct Half {
    accounts: RefCell<BTreeMap<String, Account>>,
    left: Cell<u64>,
    allowed: Cell<u64>,
    is_slow: Cell<bool>,
    /// After how many messages it fails, and how.
    fails_after: Cell<Option<(u32, Failing)>>,
    /// Whether the upstream answers.
    answers: Cell<bool>,
    passed: Cell<Duration>,
    tasks: RefCell<Vec<Task>>,
}

impl Half {
    fn pass(&self, time: Duration) {
        self.passed.set(self.passed.get() + time);
        self.work();
    }

    /// Lets all that was spawned go as far as it comes.
    fn work(&self) {
        loop {
            let tasks = self.tasks.take();
            let before = tasks.len();
            let mut going = tasks;
            going.retain_mut(|task| {
                let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                polled.is_pending()
            });
            let ended = going.len() < before;
            let is_quiet = self.tasks.borrow().is_empty();
            self.tasks.borrow_mut().append(&mut going);
            if !ended && is_quiet {
                return;
            }
        }
    }
}

#[async_trait(?Send)]
impl Ledger for Half {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let failing = match self.fails_after.get() {
            Some((0, failing)) => Some(failing),
            Some((more, failing)) => {
                self.fails_after.set(Some((more - 1, failing)));
                None
            }
            None => None,
        };
        let fault = || Err(Fault("there is no answer".into()));
        if matches!(failing, Some(Failing::Unheard)) {
            return postings.iter().map(|_| fault()).collect();
        }
        let answers = postings.iter().map(|posting| {
            let mut accounts = self.accounts.borrow_mut();
            let account = accounts
                .entry(posting.account.to_string())
                .or_insert_with(|| {
                    // What a speaker says first is not believed.
                    let mut account = Account::default();
                    let mut first = posting.entry.clone();
                    (first.number, first.take) = (0, None);
                    account.apply(&first, self.now());
                    account
                });
            let balance = account.apply(&posting.entry, self.now());
            self.left.set(balance.remaining);
            self.allowed.set(posting.entry.quota.limit.get());
            failing.map_or(Ok(balance), |_| fault())
        });
        let answers = answers.collect();
        poll_fn(|_| {
            if self.is_slow.get() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        answers
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn longest_lease(&self) -> Duration {
        Duration::ZERO
    }
}

#[async_trait(?Send)]
impl Upstream for Half {
    async fn send(&self, _: Request<Body>, _: Duration) -> Result<Response<Body>, Failure> {
        if !self.answers.get() {
            pending::<()>().await;
        }
        let usage = r#"{"choices":[{}],"usage":{"prompt_tokens":1000,"completion_tokens":4000,"total_tokens":5000}}"#;
        let mut response = Response::new(Body::from(String::from(usage)));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert("content-type", json);
        Ok(response)
    }
}

#[async_trait(?Send)]
impl Clock for Half {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000).after(self.passed.get())
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.passed.get() + duration;
        poll_fn(|_| {
            if self.passed.get() >= until {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Tasks for Half {
    fn spawn(&self, task: Task) {
        self.tasks.borrow_mut().push(task);
    }
}

impl Journal for Half {
    fn write(&self, _: &Record) {}
}
