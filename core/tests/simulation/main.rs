//! Leases against what else is done: how much is let in too many, how much too few, what it costs and how long it takes.
//!
//! `cargo test -p tidegate-core --test simulation -- --nocapture` prints the table. `TIDEGATE_SEEDS=2000` plays so many
//! more random scenarios.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod escrow;
mod load;
mod result;
mod rivals;

use load::{Load, Scenario};
use result::{Figures, Outcome};

/// For how long a node counts on living where it lives for long, in milliseconds.
const LEASE: u64 = 30_000;

const STEADY: Scenario = Scenario {
    name: "",
    limit: 1_000,
    per: 60,
    nodes: 20,
    skewed: false,
    rate: 25.0,
    bursty: false,
    delay: (2, 30),
    life: 0,
    seconds: 730,
};

const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: "1,000/min, 20 nodes, load 1.5",
        ..STEADY
    },
    Scenario {
        name: "the same, skewed",
        skewed: true,
        ..STEADY
    },
    Scenario {
        name: "the same, far away",
        delay: (60, 125),
        ..STEADY
    },
    Scenario {
        name: "6,000/min, 20 nodes, load 1.5",
        limit: 6_000,
        rate: 150.0,
        ..STEADY
    },
    Scenario {
        name: "the same, skewed",
        limit: 6_000,
        rate: 150.0,
        skewed: true,
        ..STEADY
    },
    Scenario {
        name: "6,000/min, load 0.9, skewed",
        limit: 6_000,
        rate: 90.0,
        skewed: true,
        ..STEADY
    },
    Scenario {
        name: "6,000/min, load 3, bursty",
        limit: 6_000,
        rate: 300.0,
        skewed: true,
        bursty: true,
        ..STEADY
    },
    Scenario {
        name: "6,000/min, 1 node, load 1.5",
        limit: 6_000,
        nodes: 1,
        rate: 150.0,
        ..STEADY
    },
    Scenario {
        name: "6,000/min, 50 nodes far away",
        limit: 6_000,
        nodes: 50,
        rate: 150.0,
        delay: (50, 75),
        ..STEADY
    },
    Scenario {
        name: "60,000/min, 50 nodes, load 1.5",
        limit: 60_000,
        nodes: 50,
        rate: 1_500.0,
        seconds: 200,
        ..STEADY
    },
    Scenario {
        name: "300/min, 50 nodes, load 1.5",
        limit: 300,
        nodes: 50,
        rate: 7.5,
        ..STEADY
    },
    Scenario {
        name: "200/min, 20 nodes, load 1.5",
        limit: 200,
        rate: 5.0,
        ..STEADY
    },
    Scenario {
        name: "6,000/min, load 1.5, lives of 60 s",
        limit: 6_000,
        rate: 150.0,
        skewed: true,
        life: 60,
        ..STEADY
    },
    Scenario {
        name: "hot key, 100/s, 0.3 of the limit",
        limit: 20_000,
        rate: 100.0,
        ..STEADY
    },
    Scenario {
        name: "the same, skewed",
        limit: 20_000,
        rate: 100.0,
        skewed: true,
        ..STEADY
    },
    Scenario {
        name: "hot key, 1000/s, 0.3 of the limit",
        limit: 200_000,
        rate: 1_000.0,
        seconds: 200,
        ..STEADY
    },
];

type Scheme = (&'static str, fn(&Scenario, &Load, u64) -> Outcome);

const SCHEMES: [Scheme; 6] = [
    ("leases", |scenario, load, seed| {
        escrow::play(scenario, load, LEASE, seed)
    }),
    ("a call a request", |scenario, load, seed| {
        escrow::play(scenario, load, 0, seed)
    }),
    ("local share", |scenario, load, _| {
        rivals::share(scenario, load)
    }),
    ("sync every 0.1 s", |scenario, load, _| {
        rivals::sync(scenario, load, 100)
    }),
    ("sync every 1 s", |scenario, load, _| {
        rivals::sync(scenario, load, 1_000)
    }),
    ("sync every 5 s", |scenario, load, _| {
        rivals::sync(scenario, load, 5_000)
    }),
];

#[test]
fn leases_keep_every_limit_and_cost_little() {
    let only = std::env::var("ONLY").ok();
    for scenario in SCENARIOS {
        let load = Load::new(&scenario, 1);
        println!("{}", scenario.name);
        for (name, play) in SCHEMES {
            if only
                .as_ref()
                .is_some_and(|only| !name.contains(only.as_str()))
            {
                continue;
            }
            let outcome = play(&scenario, &load, 1);
            let Figures {
                over,
                under,
                calls,
                p50,
                p99,
            } = Figures::of(&scenario, &load, &outcome);
            println!(
                "    {name:18} over {over:5.1} %  under {under:5.1} %  calls {calls:6.3}  added {p50:4}/{p99:4} ms {:?}",
                outcome
                    .kinds
                    .map(|k| (k as f64 / load.requests.len() as f64 * 1000.0).round())
            );
        }
    }
}
