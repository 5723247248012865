//! What a decision costs that asks nobody: units out of a purse with a live lease, in this process.
//!
//! `cargo run --profile native -p tidegate-core --example local_decision` prints nanoseconds a request. The account is named,
//! and its purse found, as for a real request; what is asked of the account now and then is not in it.

// It is all about this machine's clock.
#![allow(clippy::disallowed_methods)]

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use http::HeaderMap;
use tidegate_core::{
    limit::{Account, Asker, By, Draw, Held, Limit, Overrun, Purse, Purses, Quota, Unit, Want},
    time::Timestamp,
};

/// How many requests are measured of each kind.
const REQUESTS: u32 = 1_000_000;

/// How many come in a millisecond.
const AT_ONCE: u32 = 20;

/// For how long a purse is lent units, and for how long tokens are held and must be good, in milliseconds: as on a thread that
/// lives as long as its process.
const LEASE: u64 = 30_000;
const HOLD: u64 = 45_000;
const GOOD: u64 = HOLD / 2;

/// A prompt with the first step of its answer, the next step, and what both have come to.
const FIRST: u64 = 3_048;
const STEP: u64 = 2_048;
const SPENT: u64 = 4_000;

fn main() {
    let requests = Isolate::new(Unit::Requests).measure(Isolate::request);
    let tokens = Isolate::new(Unit::Tokens(Overrun::Cut)).measure(Isolate::answer);
    println!("a decision that asks nobody, of at most 2,000 ns a request:");
    for (name, cost) in [
        ("requests: draw, spend", requests),
        ("tokens: draw, extend, settle", tokens),
    ] {
        let Cost { nanos, between } = cost;
        println!("  {name:<30} {nanos:>6} ns; one call in {between} requests");
    }
}

/// What was measured.
struct Cost {
    /// Nanoseconds a request.
    nanos: u128,
    /// How many requests were served for each time that the account was asked.
    between: u32,
}

/// An isolate, and the one account that it asks.
struct Isolate {
    limit: Limit,
    purses: Purses,
    account: Account,
    now: Timestamp,
}

impl Isolate {
    fn new(unit: Unit) -> Self {
        let quota = Quota {
            limit: NonZeroU64::MIN.saturating_add(1 << 40),
            per: 60_000,
        };
        Self {
            limit: Limit::new("route llm", unit, quota, By::Consumer, None),
            purses: Purses::new(7),
            account: Account::default(),
            now: Timestamp(1_800_000_000_000),
        }
    }

    /// What each of many requests costs, where `serve` says that it was served out of what is in hand.
    fn measure(mut self, serve: impl Fn(&mut Self) -> bool) -> Cost {
        let (mut took, mut served, mut asked) = (Duration::ZERO, 0, 0);
        while served < REQUESTS {
            let start = Instant::now();
            let local = (0..AT_ONCE).take_while(|_| serve(&mut self)).count() as u32;
            took += start.elapsed();
            served += local;
            if local < AT_ONCE {
                self.ask();
                asked += 1;
            }
            self.now = Timestamp(self.now.0 + 1);
        }
        Cost {
            nanos: took.as_nanos() / u128::from(served),
            between: served / asked.max(1),
        }
    }

    /// A request of its own: nothing more becomes of it.
    fn request(&mut self) -> bool {
        let now = self.now;
        let purse = self.purse();
        let Draw::Held(held) = purse.draw(1, 0, now) else {
            return false;
        };
        purse.spend(held, now);
        true
    }

    /// An answer in pieces, which takes another step, and does not use all of it.
    fn answer(&mut self) -> bool {
        let now = self.now;
        let Some(mut held) = self.tokens(FIRST) else {
            return false;
        };
        let Some(more) = self.tokens(STEP) else {
            self.purse().put_back(held, now);
            return false;
        };
        held.join(more);
        let purse = self.purse();
        purse.spend(held.split(SPENT), now);
        purse.put_back(held, now);
        !purse.owes()
    }

    fn tokens(&mut self, units: u64) -> Option<Held> {
        let now = self.now;
        match self.purse().draw(units, GOOD, now) {
            Draw::Held(held) => Some(held),
            Draw::Denied | Draw::Ask => None,
        }
    }

    /// The purse of whom the request is from.
    fn purse(&mut self) -> &mut Purse {
        let account = self.limit.account_of(Asker {
            consumer: Some("web"),
            address: None,
            headers: &HeaderMap::new(),
            user: None,
        });
        self.purses.of(&account, self.limit.quota, self.now)
    }

    /// Settles what was spent, and has more lent.
    fn ask(&mut self) {
        let now = self.now;
        let want = Want {
            units: FIRST,
            hold: HOLD,
            ..Want::default()
        };
        let entry = self.purse().ask(1, want, LEASE, now);
        let balance = self.account.apply(&entry, now);
        let purse = self.purse();
        if let Some(held) = purse.hear(&balance, FIRST, now, now) {
            purse.put_back(held, now);
        }
    }
}
