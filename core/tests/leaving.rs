//! Whoever leaves while the ledger is being asked takes nothing along.

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
use http::{Request, Response};
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

/// A platform whose upstream is silent, and whose ledger does what it is told and may be slow to say so.
#[derive(Default)]
struct Half {
    accounts: RefCell<BTreeMap<String, Account>>,
    left: Cell<u64>,
    allowed: Cell<u64>,
    is_slow: Cell<bool>,
    tasks: RefCell<Vec<Task>>,
}

impl Half {
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
            Ok(balance)
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

    fn longest_lease(&self) -> Duration {
        Duration::ZERO
    }
}

#[async_trait(?Send)]
impl Upstream for Half {
    async fn send(&self, _: Request<Body>) -> Result<Response<Body>, Failure> {
        pending().await
    }
}

#[async_trait(?Send)]
impl Clock for Half {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000)
    }

    async fn sleep(&self, _: Duration) {
        pending().await
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
