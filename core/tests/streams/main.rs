//! Many streams at once against a strict limit on tokens, counted by who spends them.
//!
//! Everything is simulated but the gateway: providers that work at their own pace and count what they spend, callers that leave
//! when they like, a ledger that is some way off, several isolates. In no window is more spent than the limit allows.
//!
//! `cargo test -p tidegate-core --test streams -- --nocapture` prints how much of each limit was used. `TIDEGATE_SEEDS=200`
//! plays so many worlds of each kind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test tells what went wrong by failing"
)]

mod clock;
mod provider;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use http::Request;
use serde_json::json;
use tidegate_core::{
    Body, Config, Gateway, Platform,
    config::Runtime,
    dice::Dice,
    limit::{Account, Balance, Posting},
    platform::{Fault, Journal, Ledger, Tasks},
    record::Record,
};

use clock::{Face, Time};
use provider::{Provider, Spent};

/// A number between both, both counted.
fn between(dice: &mut Dice, low: u64, high: u64) -> u64 {
    low + dice.roll() % (high - low + 1)
}

fn chance(dice: &mut Dice, per_cent: u64) -> bool {
    between(dice, 0, 99) < per_cent
}

/// A world to play in.
#[derive(Clone, Copy)]
struct World {
    name: &'static str,
    /// Tokens in a window, and the window in seconds.
    limit: u64,
    per: u64,
    callers: u64,
    isolates: usize,
    /// One way to the ledger at most, in milliseconds.
    trip: u64,
    seconds: u64,
    /// Whether providers do the worst they can.
    harsh: bool,
}

const WORLD: World = World {
    name: "20,000/min, 40 callers",
    limit: 20_000,
    per: 60,
    callers: 40,
    isolates: 1,
    trip: 20,
    seconds: 300,
    harsh: false,
};

const WORLDS: [World; 7] = [
    WORLD,
    World {
        name: "the same, 2 isolates",
        isolates: 2,
        ..WORLD
    },
    World {
        name: "the same, 5 isolates far away",
        isolates: 5,
        trip: 100,
        ..WORLD
    },
    World {
        name: "the same, harsh, 2 isolates",
        harsh: true,
        isolates: 2,
        ..WORLD
    },
    World {
        name: "200,000/min, 40 callers, 2 isolates",
        limit: 200_000,
        isolates: 2,
        ..WORLD
    },
    World {
        name: "5,000/10 s, 10 callers",
        limit: 5_000,
        per: 10,
        callers: 10,
        seconds: 120,
        ..WORLD
    },
    World {
        name: "100,000/h, 10 callers, 2 isolates",
        limit: 100_000,
        per: 3_600,
        callers: 10,
        isolates: 2,
        seconds: 5_400,
        ..WORLD
    },
];

/// What came of it.
#[derive(Default)]
struct Outcome {
    /// The most that was spent in any window.
    worst: u64,
    /// All that was spent.
    spent: u64,
    /// Answers by status.
    answers: BTreeMap<u16, u64>,
    /// Streams that the limit has ended.
    cut: u64,
}

#[test]
fn no_window_has_more_tokens_than_the_limit() {
    let seeds = std::env::var("TIDEGATE_SEEDS").map_or(3, |seeds| seeds.parse().unwrap());
    let mut wrong = Vec::new();
    for world in WORLDS {
        let (mut worst, mut used) = (0, 0.0);
        let (mut cut, mut answers) = (0, BTreeMap::<u16, u64>::new());
        for seed in 1..=seeds {
            let outcome = play(world, seed);
            worst = worst.max(outcome.worst);
            let possible = world.limit * world.seconds / world.per;
            used += outcome.spent as f64 / possible as f64 / seeds as f64;
            cut += outcome.cut;
            for (status, count) in outcome.answers {
                *answers.entry(status).or_default() += count;
            }
            if outcome.worst > world.limit {
                wrong.push(format!("{}: seed {seed}: {}", world.name, outcome.worst));
            }
        }
        println!(
            "{:38} used {:5.1} %, worst window {:5.1} %, {cut} cut, {answers:?}",
            world.name,
            used * 100.0,
            worst as f64 * 100.0 / world.limit as f64,
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn play(world: World, seed: u64) -> Outcome {
    let time = Time::at(1_800_000_000_000);
    let dice = |salt: u64| {
        let seed = u128::from(seed) << 64 | u128::from(salt);
        Rc::new(RefCell::new(Dice::new(seed.to_le_bytes())))
    };
    let spent = Spent::default();
    let outcome: Rc<RefCell<Outcome>> = Rc::default();
    let config = Rc::new(config(world));
    let ledger = Rc::new(Far {
        accounts: RefCell::default(),
        time: time.clone(),
        dice: dice(1),
        trip: world.trip,
    });
    let gateways: Vec<Gateway> = (0..world.isolates as u64)
        .map(|isolate| {
            let platform = Platform {
                upstream: Rc::new(Provider {
                    time: time.clone(),
                    dice: dice(100 + isolate),
                    spent: spent.clone(),
                    harsh: world.harsh,
                }),
                ledger: ledger.clone(),
                clock: Rc::new(Face(time.clone())),
                tasks: Rc::new(Face(time.clone())),
                journal: Rc::new(Silent),
                dice: dice(200 + isolate),
            };
            Gateway::new(config.clone(), platform)
        })
        .collect();
    let end = time.ms() + world.seconds * 1_000;
    for number in 0..world.callers {
        let caller = Caller {
            gateway: gateways[number as usize % gateways.len()].clone(),
            time: time.clone(),
            dice: Dice::new((u128::from(seed) << 64 | u128::from(1_000 + number)).to_le_bytes()),
            outcome: outcome.clone(),
        };
        Face(time.clone()).spawn(Box::pin(caller.call_until(end)));
    }
    time.run();
    let mut outcome = outcome.take();
    let mut spent = spent.take();
    spent.sort_unstable();
    outcome.worst = worst(&spent, world.per * 1_000);
    outcome.spent = spent.iter().map(|(_, tokens)| tokens).sum();
    outcome
}

fn config(world: World) -> Config {
    let document = json!({
        "consumers": [{
            "name": "web",
            "keys": ["$KEY"],
            "limits": [{"tokens": world.limit, "per": format!("{}s", world.per)}]
        }],
        "providers": {"p": {"dialect": "openai", "base_url": "http://p/v1"}},
        "models": {"m": {"targets": ["p/m", "p/m2"], "retry": {"attempts": 2, "on": ["connect", "429", "5xx"]}}},
        "routes": [{"name": "llm", "serve": "models"}]
    });
    let secrets = [("KEY".into(), "k".into())];
    let document = serde_json::from_value(document).unwrap();
    Config::build(&document, Some(&secrets), Runtime::Native).unwrap()
}

/// The most that was spent in any window, both ends counted.
fn worst(spent: &[(u64, u64)], per: u64) -> u64 {
    let (mut since, mut sum, mut most) = (0, 0, 0);
    for (at, tokens) in spent {
        sum += tokens;
        while spent[since].0 + per < *at {
            sum -= spent[since].1;
            since += 1;
        }
        most = most.max(sum);
    }
    most
}

struct Caller {
    gateway: Gateway,
    time: Rc<Time>,
    dice: Dice,
    outcome: Rc<RefCell<Outcome>>,
}

impl Caller {
    async fn call_until(mut self, end: u64) {
        while self.time.ms() < end {
            let pause = between(&mut self.dice, 0, 2_000);
            self.time.until(self.time.ms() + pause).await;
            let patience = if chance(&mut self.dice, 20) {
                between(&mut self.dice, 10, 20_000)
            } else {
                600_000
            };
            let leaves = self.time.until(self.time.ms() + patience);
            let wait = or(self.call(), leaves).await.unwrap_or(0);
            self.time.until((self.time.ms() + wait).min(end)).await;
        }
    }

    /// Says for how long not to come again, in milliseconds.
    fn call(&mut self) -> impl Future<Output = u64> + use<> {
        let dice = &mut self.dice;
        let size = [10, 100, 500, 1_500][between(dice, 0, 3) as usize];
        let mut body = json!({
            "model": "m",
            "messages": [{"role": "user", "content": "x".repeat(between(dice, 1, size) as usize)}],
        });
        if chance(dice, 60) {
            body["stream"] = true.into();
        }
        if chance(dice, 40) {
            body["max_tokens"] = between(dice, 1, 2_000).into();
        }
        if chance(dice, 10) {
            body["n"] = between(dice, 1, 3).into();
        }
        let request = Request::post("/v1/chat/completions")
            .header("authorization", "Bearer k")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        let (gateway, outcome) = (self.gateway.clone(), self.outcome.clone());
        async move {
            let answer = gateway.serve(request.unwrap(), None).await;
            let status = answer.status().as_u16();
            *outcome.borrow_mut().answers.entry(status).or_default() += 1;
            let wait = answer.headers().get("retry-after");
            let wait = wait.map_or(0, |wait| wait.to_str().unwrap().parse().unwrap());
            let mut body = answer.into_body();
            let mut text = Vec::new();
            while let Some(frame) =
                poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await
            {
                if let Some(data) = frame.unwrap().data_ref() {
                    text.extend_from_slice(data);
                }
            }
            let text = String::from_utf8(text).unwrap();
            outcome.borrow_mut().cut += u64::from(text.contains("\"tidegate\":{\"limit\""));
            // Sooner than it says, where that is long: others may give back what they held.
            (wait * 1_000).min(20_000_u64)
        }
    }
}

/// What `work` comes to, unless `end` is first.
async fn or<T>(work: impl Future<Output = T>, end: impl Future<Output = ()>) -> Option<T> {
    let (mut work, mut end) = (pin!(work), pin!(end));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// A ledger that is some way off.
struct Far {
    accounts: RefCell<BTreeMap<Rc<str>, Account>>,
    time: Rc<Time>,
    dice: Rc<RefCell<Dice>>,
    trip: u64,
}

impl Far {
    async fn travel(&self) {
        let trip = between(&mut self.dice.borrow_mut(), 0, self.trip);
        self.time.until(self.time.ms() + trip).await;
    }
}

#[async_trait(?Send)]
impl Ledger for Far {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        self.travel().await;
        let now = tidegate_core::time::Timestamp(self.time.ms());
        let balances = {
            let mut accounts = self.accounts.borrow_mut();
            let names = || postings.iter().map(|posting| &posting.account);
            let found = names().map(|name| Ok(accounts.remove(name).unwrap_or_default()));
            let changed = Account::apply_all(found, postings, now);
            let changed = changed.into_iter().zip(names());
            changed
                .map(|(changed, name)| {
                    let (account, balance) = changed?;
                    accounts.insert(name.clone(), account);
                    Ok(balance)
                })
                .collect()
        };
        self.travel().await;
        balances
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn longest_lease(&self) -> Duration {
        Duration::from_secs(10)
    }
}

struct Silent;

impl Journal for Silent {
    fn write(&self, _: &Record) {}
}
