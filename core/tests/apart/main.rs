//! Several limits whose accounts lie apart: who is let in when many come at once.
//!
//! Every account is some way off, and each message to it takes its own time. Whoever is let in is held on all of its limits, so
//! never more come in than the tightest of them allows; and as long as enough come, no fewer.
//!
//! `cargo test -p tidegate-core --test apart -- --nocapture` prints what it costs. `TIDEGATE_SEEDS=2000` plays so many worlds of
//! each kind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test tells what went wrong by failing"
)]

#[path = "../streams/clock.rs"]
mod clock;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use futures::channel::oneshot;
use http::{Request, Response};
use serde_json::{Value, json};
use tidegate_core::{
    Body, Config, Gateway, Platform,
    config::Runtime,
    dice::Dice,
    limit::{Account, Balance, Posting},
    platform::{Fault, Journal, Ledger, Tasks, Upstream},
    record::Record,
    time::Timestamp,
    upstream::Failure,
};

use clock::{Face, Time};

/// A world to play in.
#[derive(Clone, Copy)]
struct World {
    name: &'static str,
    /// What is allowed of requests, in windows of one hour, two hours and so on.
    requests: &'static [u64],
    /// What is allowed at the same time, by limits of their own.
    concurrent: &'static [u64],
    isolates: u64,
    callers: u64,
    /// Over how many milliseconds they come.
    spread: u64,
    /// How long a message is on its way at most, in milliseconds.
    trip: u64,
}

const WORLD: World = World {
    name: "2 and 4, six at once",
    requests: &[2, 4],
    concurrent: &[],
    isolates: 1,
    callers: 6,
    spread: 0,
    trip: 15,
};

const WORLDS: [World; 10] = [
    WORLD,
    World {
        name: "1 and 1",
        requests: &[1, 1],
        ..WORLD
    },
    World {
        name: "2 and 2",
        requests: &[2, 2],
        ..WORLD
    },
    World {
        name: "4 and 2, in 50 ms",
        requests: &[4, 2],
        spread: 50,
        ..WORLD
    },
    World {
        name: "2, 3 and 2",
        requests: &[2, 3, 2],
        ..WORLD
    },
    World {
        name: "2, 3 and 2, ten in 5 isolates",
        requests: &[2, 3, 2],
        isolates: 5,
        callers: 10,
        ..WORLD
    },
    World {
        name: "10 and 10, forty in 4 isolates, far",
        requests: &[10, 10],
        isolates: 4,
        callers: 40,
        trip: 100,
        ..WORLD
    },
    World {
        name: "10 and 10, forty in 20 isolates, in 100 ms",
        requests: &[10, 10],
        isolates: 20,
        callers: 40,
        spread: 100,
        ..WORLD
    },
    World {
        name: "3, and 2 at the same time",
        requests: &[3],
        concurrent: &[2],
        callers: 8,
        ..WORLD
    },
    World {
        name: "200, and 5 at the same time",
        requests: &[200],
        concurrent: &[5],
        callers: 20,
        ..WORLD
    },
];

#[test]
fn as_many_come_in_as_the_tightest_limit_allows() {
    let seeds = seeds();
    let mut wrong = Vec::new();
    for world in WORLDS {
        let limits = world.requests.iter().chain(world.concurrent);
        let allowed = *limits.min().unwrap();
        let (mut fewer, mut asked, mut longest) = (0, 0, 0);
        for seed in 1..=seeds {
            let outcome = play(world, seed);
            fewer += u64::from(outcome.let_in < allowed);
            asked += outcome.asked;
            longest = longest.max(outcome.longest);
            if outcome.let_in != allowed || outcome.unsaid > 0 {
                wrong.push(format!(
                    "{}: seed {seed}: {} of {allowed}",
                    world.name, outcome.let_in
                ));
            }
        }
        println!(
            "{:44} too few in {fewer:4} of {seeds}; {:5.2} messages a caller, {longest} ms at most",
            world.name,
            asked as f64 / (seeds * world.callers) as f64,
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn short_windows_let_in_as_many_one_after_the_other() {
    let limits = json!([{"requests": 2, "per": "2s"}, {"requests": 4, "per": "1h"}]);
    for trip in [5, 15, 50] {
        for seed in 1..=seeds() {
            let stage = Stage::with(World { trip, ..WORLD }, &limits, seed);
            for _ in 0..2 {
                for number in 0..6 {
                    stage.come(number, 2_400);
                }
                stage.time.run();
                let let_in = stage.outcome.take().let_in;
                assert_eq!(let_in, 2, "trip {trip}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_limit_that_is_surely_used_up_is_asked_once() {
    let minutes = 60_000;
    for (requests, concurrent, messages) in [
        // Nobody has taken anything for a while: nothing comes back. One limit refuses, the other one grants, and is given back.
        (&[1, 4][..], &[][..], 3),
        (&[1, 1], &[], 2),
        // What goes on at the same time may end, but not because of a limit that has plenty.
        (&[200], &[1], 3),
    ] {
        let world = World {
            requests,
            concurrent,
            ..WORLD
        };
        let apart = Stage::of(world, 1);
        apart.come(0, 0);
        apart.come(
            0,
            if concurrent.is_empty() {
                5 * minutes
            } else {
                5_000
            },
        );
        apart.time.run();
        assert_eq!(apart.outcome.borrow().let_in, 1);
        let asked = apart.ledger.asked.get();
        let held = concurrent.len() as u64;
        assert_eq!(asked, 2 + held + messages, "{requests:?} {concurrent:?}");
    }
}

#[test]
fn nobody_waits_longer_than_five_seconds_for_the_ledger() {
    for trip in [500, 1_000, 2_000, 5_000] {
        let world = World {
            requests: &[4, 6],
            isolates: 2,
            callers: 12,
            trip,
            ..WORLD
        };
        let (mut let_in, mut unsaid) = (0, 0);
        for seed in 1..=100 {
            let outcome = play(world, seed);
            assert!(outcome.longest <= 5_000, "{trip}: {} ms", outcome.longest);
            assert!(outcome.let_in <= 4, "{trip}: {}", outcome.let_in);
            let_in += outcome.let_in;
            unsaid += outcome.unsaid;
        }
        println!("{trip} ms at most: {let_in} of 400 let in, {unsaid} unsaid");
    }
}

fn seeds() -> u64 {
    std::env::var("TIDEGATE_SEEDS").map_or(100, |seeds| seeds.parse().unwrap())
}

/// What came of it.
#[derive(Default)]
struct Outcome {
    let_in: u64,
    /// Who was told that limits cannot be checked.
    unsaid: u64,
    /// Messages to accounts.
    asked: u64,
    /// The longest that anybody has waited, in milliseconds.
    longest: u64,
}

fn play(world: World, seed: u64) -> Outcome {
    let stage = Stage::of(world, seed);
    let mut dice = Dice::new((u128::from(seed) << 64 | 2).to_le_bytes());
    for number in 0..world.callers {
        stage.come(number, dice.between(0, world.spread));
    }
    stage.time.run();
    let mut outcome = stage.outcome.take();
    outcome.asked = stage.ledger.asked.get();
    outcome
}

/// A world, before anybody has come.
struct Stage {
    time: Rc<Time>,
    ledger: Rc<Apart>,
    gateways: Vec<Gateway>,
    outcome: Rc<RefCell<Outcome>>,
}

impl Stage {
    fn of(world: World, seed: u64) -> Self {
        Self::with(world, &limits(world), seed)
    }

    fn with(world: World, limits: &Value, seed: u64) -> Self {
        let time = Time::at(1_800_000_000_000);
        let dice = |salt: u64| {
            let seed = u128::from(seed) << 64 | u128::from(salt);
            Rc::new(RefCell::new(Dice::new(seed.to_le_bytes())))
        };
        let config = Rc::new(config(limits));
        let ledger = Rc::new(Apart {
            accounts: Rc::default(),
            asked: Cell::new(0),
            time: time.clone(),
            dice: dice(1),
            trip: world.trip,
        });
        let gateways = (0..world.isolates).map(|isolate| {
            let platform = Platform {
                upstream: Rc::new(Slow(time.clone())),
                ledger: ledger.clone(),
                clock: Rc::new(Face(time.clone())),
                tasks: Rc::new(Face(time.clone())),
                journal: Rc::new(Silent),
                dice: dice(100 + isolate),
            };
            Gateway::new(config.clone(), platform)
        });
        Self {
            gateways: gateways.collect(),
            ledger,
            outcome: Rc::default(),
            time,
        }
    }

    /// Somebody comes, in so many milliseconds.
    fn come(&self, number: u64, after: u64) {
        let gateway = self.gateways[number as usize % self.gateways.len()].clone();
        let comes = self.time.ms() + after;
        let (time, outcome) = (self.time.clone(), self.outcome.clone());
        Face(self.time.clone()).spawn(Box::pin(async move {
            time.until(comes).await;
            let request = Request::post("/chat/completions")
                .body(Body::from(String::from(r#"{"model":"m"}"#)));
            let answer = gateway.serve(request.unwrap(), None).await;
            let mut outcome = outcome.borrow_mut();
            if answer.status() == 200 {
                outcome.let_in += 1;
            } else {
                outcome.unsaid += u64::from(answer.status() == 503);
                assert!(matches!(answer.status().as_u16(), 429 | 503));
                outcome.longest = outcome.longest.max(time.ms() - comes);
            }
        }));
    }
}

fn limits(world: World) -> Value {
    let requests = world.requests.iter().zip(1..);
    let mut limits: Vec<_> = requests
        .map(|(limit, hours)| json!({"requests": limit, "per": format!("{hours}h")}))
        .collect();
    limits.extend(
        world
            .concurrent
            .iter()
            .map(|limit| json!({"concurrent": limit})),
    );
    json!(limits)
}

fn config(limits: &Value) -> Config {
    let document = json!({
        "providers": {"p": {"dialect": "openai", "base_url": "http://p/v1"}},
        "models": {"m": {"targets": ["p/m"]}},
        "routes": [{"name": "llm", "serve": "models", "access": "public", "limits": limits}]
    });
    let document = serde_json::from_value(document).unwrap();
    Config::build(&document, None, Runtime::Native).unwrap()
}

/// Accounts that lie apart from each other, some way off.
struct Apart {
    accounts: Rc<RefCell<BTreeMap<Rc<str>, Account>>>,
    asked: Cell<u64>,
    time: Rc<Time>,
    dice: Rc<RefCell<Dice>>,
    trip: u64,
}

impl Apart {
    /// How long a message takes: one in ten is held up.
    fn trip(&self) -> u64 {
        let mut dice = self.dice.borrow_mut();
        let trip = dice.between(1, self.trip);
        if dice.chance(0.1) { 4 * trip } else { trip }
    }
}

#[async_trait(?Send)]
impl Ledger for Apart {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let mut answers = Vec::new();
        for posting in postings.iter().cloned() {
            self.asked.set(self.asked.get() + 1);
            let there = self.time.ms() + self.trip();
            let back = self.trip();
            let (sender, answer) = oneshot::channel();
            answers.push(answer);
            let (accounts, time) = (self.accounts.clone(), self.time.clone());
            // A message is on its way, whether anybody waits for its answer or not.
            Face(self.time.clone()).spawn(Box::pin(async move {
                time.until(there).await;
                let balance = {
                    let mut accounts = accounts.borrow_mut();
                    let account = accounts.entry(posting.account.clone()).or_default();
                    account.apply(&posting.entry, Timestamp(time.ms()))
                };
                time.until(there + back).await;
                let _ = sender.send(Ok(balance));
            }));
        }
        let mut balances = Vec::new();
        for answer in answers {
            balances.push(answer.await.unwrap());
        }
        balances
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn longest_lease(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// An upstream that answers when everybody has come.
struct Slow(Rc<Time>);

#[async_trait(?Send)]
impl Upstream for Slow {
    async fn send(&self, _: Request<Body>, _: Duration) -> Result<Response<Body>, Failure> {
        self.0.until(self.0.ms() + 10_000).await;
        Ok(Response::new(Body::from(String::from(
            r#"{"choices":[{}]}"#,
        ))))
    }
}

struct Silent;

impl Journal for Silent {
    fn write(&self, _: &Record) {}
}
