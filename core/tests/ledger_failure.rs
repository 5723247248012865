//! What becomes of a request whose limits cannot be checked.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    num::NonZeroU64,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use tidegate_core::{
    Body, Config, Gateway, Platform,
    config::Runtime,
    dice::Dice,
    limit::{Account, Balance, Posting, Quota},
    platform::{Clock, Fault, Journal, Ledger, Task, Tasks, Upstream},
    record::Record,
    time::Timestamp,
    upstream::Failure,
};

/// The account of this scope cannot be reached.
const LOST: &str = "route llm";

/// A platform whose ledger has lost one account, and of which everything else works.
#[derive(Default)]
struct Half {
    accounts: RefCell<BTreeMap<String, Account>>,
    records: RefCell<Vec<Record>>,
    asked: RefCell<u32>,
}

#[async_trait(?Send)]
impl Ledger for Half {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let mut accounts = self.accounts.borrow_mut();
        let answer = |posting: &Posting| {
            if posting.account.starts_with(LOST) {
                return Err(Fault("nobody is there".into()));
            }
            let account = accounts.entry(posting.account.to_string()).or_default();
            Ok(account.apply(&posting.entry, self.now()))
        };
        postings.iter().map(answer).collect()
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
        *self.asked.borrow_mut() += 1;
        Ok(Response::new(Body::from(String::from(
            r#"{"choices":[{}]}"#,
        ))))
    }
}

#[async_trait(?Send)]
impl Clock for Half {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000)
    }

    async fn sleep(&self, _: Duration) {}
}

impl Tasks for Half {
    fn spawn(&self, _: Task) {}
}

impl Journal for Half {
    fn write(&self, record: &Record) {
        self.records.borrow_mut().push(record.clone());
    }
}

fn call(on_ledger_failure: &str) -> (Response<Body>, Rc<Half>) {
    let document = format!(
        r#"{{
            "gateway": {{"on_ledger_failure": "{on_ledger_failure}"}},
            "consumers": [{{"name": "web", "keys": ["$KEY"], "limits": [{{"requests": 1, "per": "1m"}}]}}],
            "providers": {{"p": {{"dialect": "openai", "base_url": "http://p/v1"}}}},
            "models": {{"m": {{"targets": ["p/m"]}}}},
            "routes": [{{"name": "llm", "serve": "models", "limits": [{{"requests": 9, "per": "1m"}}]}}]
        }}"#
    );
    let secrets = [("KEY".into(), "k".into())];
    let config = Config::build(
        &serde_json::from_str(&document).unwrap(),
        Some(&secrets),
        Runtime::Native,
    );
    let half = Rc::new(Half::default());
    let platform = Platform {
        upstream: half.clone(),
        ledger: half.clone(),
        clock: half.clone(),
        tasks: half.clone(),
        journal: half.clone(),
        dice: Rc::new(RefCell::new(Dice::new([7; 16]))),
    };
    let gateway = Gateway::new(Rc::new(config.unwrap()), platform);
    let request = Request::post("/v1/chat/completions")
        .header("authorization", "Bearer k")
        .body(Body::from(String::from(r#"{"model":"m"}"#)));
    (now_or_never(gateway.serve(request.unwrap(), None)), half)
}

#[test]
fn it_is_refused_and_what_was_held_is_given_back() {
    let (answer, half) = call("refuse");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(*half.asked.borrow(), 0);
    let record = &half.records.borrow()[0];
    assert_eq!(record.refusal, Some("ledger_unavailable"));
    assert_eq!(record.fault.as_deref(), Some("ledger: nobody is there"));
    let accounts = half.accounts.borrow();
    assert_eq!(accounts.len(), 1);
    let minute = Quota {
        limit: NonZeroU64::MIN,
        per: 60_000,
    };
    let account = &accounts["consumer web requests 60000"];
    assert_eq!(account.empty_at(&minute, half.now()), half.now());
}

#[test]
fn it_is_let_in_and_the_answer_says_so() {
    let (answer, half) = call("allow");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-tidegate-degraded"], "ledger");
    // The limit that could be checked is told.
    assert_eq!(answer.headers()["x-ratelimit-limit"], "1");
    assert_eq!(*half.asked.borrow(), 1);
    assert_eq!(
        half.records.borrow()[0].fault.as_deref(),
        Some("ledger: nobody is there")
    );
}

/// What a future comes to that waits for nobody.
fn now_or_never<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for somebody"),
    }
}
