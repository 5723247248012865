//! The whole gateway before a Dify that bears only so much, in simulated time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{Either, poll_fn, select};
use http::{Request, Response};
use http_body::Body as _;
use serde_json::{Value, json};
use tidegate_core::{
    Body, Config, Gateway, Holdings, Platform,
    config::Runtime,
    dice::Dice,
    limit::{Balance, Posting},
    overload,
    platform::{Fault, Journal, Ledger, Tasks, Upstream},
    record::Record,
    upstream::Failure,
};

use crate::clock::{Face, Time};

/// When everything begins, in milliseconds.
const START: u64 = 1_800_000_000_000;

const RUN: &str = "/agents/v1/chat-messages";

/// How long Dify takes until its first event, and from there to the end, in milliseconds.
struct Dify {
    time: Rc<Time>,
    opens: Cell<u64>,
    runs: Cell<u64>,
    inside: Rc<Cell<usize>>,
    most: Cell<usize>,
    /// Which calls it got, by the consumer who made them.
    order: RefCell<Vec<String>>,
}

/// One call inside; it is counted until this is dropped.
struct Inside(Rc<Cell<usize>>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[async_trait(?Send)]
impl Upstream for Dify {
    async fn send(&self, request: Request<Body>, _: Duration) -> Result<Response<Body>, Failure> {
        let who = request.headers().get("x-who");
        let who = who.map_or_else(String::new, |who| who.to_str().unwrap().to_owned());
        self.order.borrow_mut().push(who);
        self.inside.set(self.inside.get() + 1);
        self.most.set(self.most.get().max(self.inside.get()));
        let inside = Inside(self.inside.clone());
        self.time.until(self.time.ms() + self.opens.get()).await;
        let (time, over) = (self.time.clone(), self.time.ms() + self.runs.get());
        let events = [
            "data: {\"event\":\"workflow_started\"}\n\n",
            "data: {\"event\":\"workflow_finished\",\"data\":{\"status\":\"succeeded\"}}\n\n",
        ];
        let (sender, body) = pipe();
        sender.push(events[0]);
        Face(self.time.clone()).spawn(Box::pin(async move {
            time.until(over).await;
            sender.push(events[1]);
            drop((sender, inside));
        }));
        let response = Response::builder().header("content-type", "text/event-stream");
        Ok(response.body(Body::arriving(body)).unwrap())
    }
}

/// A body that is said piece by piece.
fn pipe() -> (Sender, Receiver) {
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    (Sender(sender), Receiver(receiver))
}

struct Sender(futures::channel::mpsc::UnboundedSender<Bytes>);

struct Receiver(futures::channel::mpsc::UnboundedReceiver<Bytes>);

impl Sender {
    fn push(&self, event: &'static str) {
        let _ = self.0.unbounded_send(Bytes::from_static(event.as_bytes()));
    }
}

impl http_body::Body for Receiver {
    type Data = Bytes;
    type Error = tidegate_core::body::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        use futures::StreamExt;
        let next = self.0.poll_next_unpin(cx);
        next.map(|piece| piece.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// A gateway, or several in one process, before one Dify.
struct Stage {
    time: Rc<Time>,
    dify: Rc<Dify>,
    gateways: Vec<Gateway>,
    records: Rc<Records>,
    answers: Rc<RefCell<Vec<Answer>>>,
}

/// What somebody got.
#[derive(Clone, Debug)]
struct Answer {
    who: String,
    status: u16,
    retry_after: Option<String>,
    body: String,
    /// When it came and when it was there, in milliseconds since the beginning.
    came: u64,
    at: u64,
}

#[derive(Default)]
struct Records(RefCell<Vec<Value>>);

impl Journal for Records {
    fn write(&self, record: &Record) {
        let record = serde_json::to_value(record).unwrap();
        self.0.borrow_mut().push(record);
    }
}

struct NoLedger;

#[async_trait(?Send)]
impl Ledger for NoLedger {
    async fn post(&self, _: &[Posting]) -> Vec<Result<Balance, Fault>> {
        panic!("nobody has a limit")
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn longest_lease(&self) -> Duration {
        Duration::ZERO
    }
}

/// One that others share, and that fails after so many milliseconds.
struct Broken(Rc<Time>, u64);

#[async_trait(?Send)]
impl Ledger for Broken {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        self.0.until(self.0.ms() + self.1).await;
        let fail = |_: &Posting| Err(Fault("it is broken".into()));
        postings.iter().map(fail).collect()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn longest_lease(&self) -> Duration {
        Duration::ZERO
    }
}

impl Stage {
    fn of(installation: &Value, threads: u64) -> Self {
        Self::with(installation, threads, |_| Rc::new(NoLedger))
    }

    fn with(
        installation: &Value,
        threads: u64,
        ledger: impl Fn(&Rc<Time>) -> Rc<dyn Ledger>,
    ) -> Self {
        let time = Time::at(START);
        let dify = Rc::new(Dify {
            time: time.clone(),
            opens: Cell::new(50),
            runs: Cell::new(5_000),
            inside: Rc::default(),
            most: Cell::default(),
            order: RefCell::default(),
        });
        let config = Rc::new(config(installation));
        let records = Rc::<Records>::default();
        let gates = overload::Shared::default();
        let gateways = (0..threads).map(|thread| {
            let platform = Platform {
                upstream: dify.clone(),
                ledger: ledger(&time),
                clock: Rc::new(Face(time.clone())),
                tasks: Rc::new(Face(time.clone())),
                journal: records.clone(),
                dice: Rc::new(RefCell::new(Dice::new(u128::from(thread).to_le_bytes()))),
            };
            let health = tidegate_core::health::Shared::default();
            let dice = platform.dice.clone();
            let holdings = Holdings::knowing(health, gates.clone(), &mut dice.borrow_mut());
            Gateway::with(config.clone(), platform, holdings)
        });
        Self {
            gateways: gateways.collect(),
            dify,
            records,
            answers: Rc::default(),
            time,
        }
    }

    /// `who` calls `path` after so many milliseconds, and leaves after `patience` of them.
    fn call(&self, who: &str, path: &str, after: u64, patience: u64) {
        let number = self.dify.order.borrow().len() + after as usize;
        let gateway = self.gateways[number % self.gateways.len()].clone();
        let (time, answers) = (self.time.clone(), self.answers.clone());
        let (who, path) = (who.to_owned(), path.to_owned());
        Face(time.clone()).spawn(Box::pin(async move {
            time.until(START + after).await;
            let mut request = Request::builder().uri(&path).header("x-who", &who);
            request = request.header("x-api-key", format!("key-{who}"));
            let body = if path.ends_with("messages") {
                request = request
                    .method("POST")
                    .header("content-type", "application/json");
                Body::from(String::from(r#"{"user":"u","response_mode":"streaming"}"#))
            } else {
                Body::empty()
            };
            let came = time.ms() - START;
            let asked = Box::pin(async {
                let answer = gateway.serve(request.body(body).unwrap(), None).await;
                let (head, mut body) = answer.into_parts();
                let mut text = Vec::new();
                while let Some(frame) =
                    poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
                {
                    text.extend_from_slice(&frame.unwrap().into_data().unwrap());
                }
                let retry_after = head.headers.get("retry-after");
                Answer {
                    who: who.clone(),
                    status: head.status.as_u16(),
                    retry_after: retry_after.map(|value| value.to_str().unwrap().to_owned()),
                    body: String::from_utf8(text).unwrap(),
                    came,
                    at: time.ms() - START,
                }
            });
            if let Either::Left((answer, _)) =
                select(asked, time.until(START + after + patience)).await
            {
                answers.borrow_mut().push(answer);
            }
        }));
    }

    /// What everybody got, in the order in which it was there.
    fn run(&self) -> Vec<Answer> {
        self.time.run();
        self.answers.take()
    }
}

fn config(installation: &Value) -> Config {
    let consumers = [("low", "low"), ("normal", "normal"), ("high", "high")];
    let consumers = consumers.map(|(name, priority)| {
        json!({"name": name, "keys": [format!("sha256:{}", hash(name))], "priority": priority})
    });
    let document = json!({
        "consumers": consumers,
        "dify": {"main": installation},
        "routes": [
            {"name": "agents", "path": "/agents", "serve": "dify.main/support", "access": "public"},
            {"name": "all", "serve": "dify.main", "access": "public"}]
    });
    let document = serde_json::from_value(document).unwrap();
    let secrets = [("KEY".to_owned(), "app-1".to_owned())];
    Config::build(&document, Some(&secrets), Runtime::Native).unwrap()
}

/// The SHA-256 of `key-NAME`.
fn hash(name: &str) -> &'static str {
    match name {
        "low" => "698a58d8ff923ef671067e3746c513d6ad271149fed20b99f75a02154bef184d",
        "normal" => "929fbfb15faab5fc34aa7084342e18eff99b29551b26de1afa5dbab2e831fed5",
        _ => "36d80234109d4b6939d882c226391035da45e913b1852da4af7bf8d9f8583000",
    }
}

fn installation(overload: &Value, permits: &Value) -> Value {
    json!({"api": "http://api", "overload": overload, "permits": permits,
        "apps": {"support": {"key": "$KEY"}}})
}

/// One at a time.
fn one(wait: &str) -> Value {
    let overload = json!({"start": 1, "least": 1, "most": 1, "wait": wait});
    installation(&overload, &json!({"service": 1}))
}

#[test]
fn who_is_sent_away_hears_it_in_difys_words_and_is_recorded() {
    let stage = Stage::of(&one("200ms"), 1);
    stage.call("normal", RUN, 0, 60_000);
    stage.call("normal", RUN, 10, 60_000);
    let answers = stage.run();
    let shed = &answers[0];
    assert_eq!((shed.status, shed.at), (429, 210));
    assert_eq!(shed.retry_after.as_deref(), Some("1"));
    let body: Value = serde_json::from_str(&shed.body).unwrap();
    assert_eq!(body["code"], "too_many_requests");
    assert_eq!(body["status"], 429);
    let record = &stage.records.0.borrow()[0];
    assert_eq!(record["refusal"], "shed");
    assert_eq!(record["waited_ms"], 200);
    assert_eq!(record["attempts"], json!([]));
    assert_eq!(answers[1].status, 200);
    assert!(stage.records.0.borrow()[1].get("waited_ms").is_none());
}

#[test]
fn where_the_ledger_fails_each_goes_by_what_it_knows() {
    for (fails_after, waits) in [(0, 0..10), (300, 280..320), (1_000_000, 980..1_050)] {
        let broken =
            |time: &Rc<Time>| -> Rc<dyn Ledger> { Rc::new(Broken(time.clone(), fails_after)) };
        let stage = Stage::with(&one("3s"), 1, broken);
        for after in [0, 10, 20] {
            stage.call("normal", RUN, after, 60_000);
        }
        let answers = stage.run();
        let of = |status| answers.iter().filter(move |one| one.status == status);
        // One at a time, of five seconds; nobody waits for as long.
        assert_eq!((of(200).count(), of(429).count()), (1, 2), "{answers:?}");
        let first = of(200).next().unwrap();
        let waited = first.at - first.came - 5_050;
        assert!(waits.contains(&waited), "{waited} {answers:?}");
        let faults = stage.records.0.borrow();
        let faults = faults.iter().map(|record| record["fault"].as_str());
        let why = if fails_after < 1_000 {
            "ledger: it is broken"
        } else {
            "ledger: no answer in time"
        };
        assert!(
            faults.clone().all(|fault| fault == Some(why)),
            "{:?}",
            faults.collect::<Vec<_>>()
        );
    }
}

#[test]
fn no_part_waits_behind_another_one() {
    let stage = Stage::of(&one("200ms"), 1);
    stage.call("normal", RUN, 0, 60_000);
    for (after, path) in [
        (100, "/console/api/apps"),
        (101, "/files/a/preview"),
        (102, "/api/parameters"),
        (103, "/agents/v1/parameters"),
    ] {
        stage.call("normal", path, after, 60_000);
    }
    // Its part is as full as it may be.
    stage.call("normal", "/v1/parameters", 200, 60_000);
    let answers = stage.run();
    let refused: Vec<_> = answers.iter().filter(|one| one.status != 200).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].came, refused[0].at), (200, 400));
    for answer in answers.iter().filter(|one| one.status == 200) {
        assert_eq!(answer.at - answer.came, 5_050, "{answer:?}");
    }
}

#[test]
fn a_caller_who_leaves_leaves_no_trace() {
    let stage = Stage::of(&one("8s"), 1);
    stage.call("normal", RUN, 0, 60_000);
    // Before there is room, when there is, and in the middle of an answer.
    stage.call("normal", RUN, 10, 1_000);
    stage.call("normal", RUN, 20, 5_040);
    stage.call("normal", RUN, 30, 5_200);
    stage.call("normal", RUN, 20_000, 60_000);
    let answers = stage.run();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[1].at, 25_050, "it has not waited");
    assert!(stage.dify.most.get() <= 2, "Dify itself goes on");
    let records = stage.records.0.borrow();
    let left = records.iter().filter(|one| one["ended"] == "abandoned");
    assert_eq!(left.count(), 3);
}

#[test]
fn who_matters_more_goes_first() {
    let stage = Stage::of(&one("60s"), 1);
    for (after, who) in (0..).zip(["normal", "low", "normal", "high", "low", "high"]) {
        stage.call(who, RUN, after, 600_000);
    }
    let answers = stage.run();
    let order: Vec<_> = answers.iter().map(|one| one.who.as_str()).collect();
    assert_eq!(order, ["normal", "high", "high", "normal", "low", "low"]);
}

#[test]
fn how_many_dify_bears_is_learnt_from_how_soon_it_begins() {
    for (opens, threads) in [(50, 1), (50, 3), (2_000, 1)] {
        let stage = Stage::of(&installation(&json!("auto"), &json!({})), threads);
        for number in 0..600 {
            stage.call("normal", RUN, number * 100, 600_000);
        }
        // It becomes slow when it is known.
        let (dify, time) = (stage.dify.clone(), stage.time.clone());
        Face(time.clone()).spawn(Box::pin(async move {
            time.until(START + 20_000).await;
            dify.opens.set(opens);
            time.until(START + 50_000).await;
            dify.most.set(dify.inside.get());
        }));
        let answers = stage.run();
        let most = stage.dify.most.get();
        let served = answers.iter().filter(|one| one.status == 200).count();
        println!("{opens} ms, {threads} threads: {most} at once in the end, {served} served");
        if opens == 50 {
            assert!(
                (35..=60).contains(&most),
                "ten a second, of five seconds: {most}"
            );
            assert!(served > 400, "{served}");
        } else {
            assert!(most <= 10, "{most}");
        }
    }
}
