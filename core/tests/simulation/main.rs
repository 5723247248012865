//! Leases against what else is done: how much is let in too many, how much too few, what it costs and how long it takes.
//!
//! `cargo test --release -p tidegate-core --test simulation -- --ignored --nocapture` prints the table;
//! `TIDEGATE_SEEDS=5000`, without `--ignored`, plays so many seeds of each.

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

const STEADY: Scenario = Scenario {
    name: "1,000 a minute, 20 nodes, load 1.5",
    limit: 1_000,
    per: 60,
    nodes: 20,
    skewed: false,
    rate: 25.0,
    bursty: false,
    delay: (2, 30),
    life: 0,
    lease: 30_000,
    seconds: 484,
};

const TENFOLD: Scenario = Scenario {
    name: "6,000 a minute, 20 nodes, load 1.5",
    limit: 6_000,
    rate: 150.0,
    ..STEADY
};

const HOT: Scenario = Scenario {
    name: "a hot key: 100 a second over 20 nodes, 0.3 of the limit",
    limit: 20_000,
    rate: 100.0,
    ..STEADY
};

const SKEWED: &str = "    the same, skewed";

/// A limit of 1,000 a minute and more, and half as much again as it allows: what is let in too few, and what it costs.
const BUSY: [Scenario; 6] = [
    STEADY,
    Scenario {
        name: SKEWED,
        skewed: true,
        ..STEADY
    },
    Scenario {
        name: "    the same, far away",
        delay: (60, 125),
        ..STEADY
    },
    TENFOLD,
    Scenario {
        name: SKEWED,
        skewed: true,
        ..TENFOLD
    },
    Scenario {
        name: "    the same, skewed and far away",
        skewed: true,
        delay: (60, 125),
        ..TENFOLD
    },
];

/// A hot key far below its limit.
const EASY: [Scenario; 3] = [
    HOT,
    Scenario {
        name: SKEWED,
        skewed: true,
        ..HOT
    },
    Scenario {
        name: "a hot key: 1,000 a second over 20 nodes, 0.3 of the limit",
        limit: 200_000,
        rate: 1_000.0,
        seconds: 180,
        ..HOT
    },
];

/// What else there is: nothing is promised but that no limit is overrun.
const OTHER: [Scenario; 10] = [
    Scenario {
        name: "6,000 a minute, 20 nodes, skewed, load 0.9",
        rate: 90.0,
        skewed: true,
        ..TENFOLD
    },
    Scenario {
        name: "6,000 a minute, 20 nodes, skewed, bursty, load 3",
        rate: 300.0,
        skewed: true,
        bursty: true,
        ..TENFOLD
    },
    Scenario {
        name: "6,000 a minute, 1 node, load 1.5",
        nodes: 1,
        ..TENFOLD
    },
    Scenario {
        name: "6,000 a minute, 50 nodes far away, load 1.5",
        nodes: 50,
        delay: (50, 75),
        ..TENFOLD
    },
    Scenario {
        name: "60,000 a minute, 50 nodes, load 1.5",
        limit: 60_000,
        nodes: 50,
        rate: 1_500.0,
        seconds: 180,
        ..TENFOLD
    },
    Scenario {
        name: "6,000 a minute, nodes live 60 s, load 1.5",
        skewed: true,
        life: 60,
        ..TENFOLD
    },
    Scenario {
        name: "6,000 a minute, leases of 1 s at most, load 1.5",
        lease: 1_000,
        ..TENFOLD
    },
    Scenario {
        name: "300 a minute, 50 nodes, load 1.5",
        limit: 300,
        nodes: 50,
        rate: 7.5,
        ..STEADY
    },
    Scenario {
        name: "200 a minute, 20 nodes, load 1.5",
        limit: 200,
        rate: 5.0,
        ..STEADY
    },
    Scenario {
        name: "a key that is not hot: 10 a second over 20 nodes, 0.3 of the limit",
        limit: 2_000,
        rate: 10.0,
        ..HOT
    },
];

type Scheme = (&'static str, fn(&Scenario, &Load, u64) -> Outcome);

const LEASES: Scheme = ("leases", |scenario, load, seed| {
    escrow::play(scenario, load, scenario.lease, seed)
});

const RIVALS: [Scheme; 5] = [
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

/// How many seeds are played: `TIDEGATE_SEEDS`, or as many as are worth waiting for.
fn seeds(few: u64) -> std::ops::RangeInclusive<u64> {
    let many = std::env::var("TIDEGATE_SEEDS").ok();
    1..=many.map_or(few, |many| many.parse().unwrap())
}

fn figures(scenario: &Scenario, (name, play): Scheme, seed: u64) -> Figures {
    let load = Load::new(scenario, seed);
    let outcome = play(scenario, &load, seed);
    let figures = Figures::of(scenario, &load, &outcome);
    println!("    {name:17} {figures}");
    figures
}

#[test]
fn a_busy_limit_is_used_up_without_asking_for_every_request() {
    for scenario in BUSY {
        println!("{}", scenario.name);
        for seed in seeds(1) {
            let figures = figures(&scenario, LEASES, seed);
            assert!(figures.over == 0.0, "{scenario:?} {figures}");
            assert!(figures.under <= 5.0, "{scenario:?} {figures}");
            assert!(figures.calls <= 0.15, "{scenario:?} {figures}");
        }
    }
}

#[test]
fn a_hot_key_far_below_its_limit_costs_nearly_nothing() {
    for scenario in EASY {
        println!("{}", scenario.name);
        for seed in seeds(1) {
            let figures = figures(&scenario, LEASES, seed);
            assert!(figures.over == 0.0, "{scenario:?} {figures}");
            assert!(figures.under == 0.0, "{scenario:?} {figures}");
            assert!(figures.calls <= 0.02, "{scenario:?} {figures}");
        }
    }
}

#[test]
fn no_limit_is_overrun_anywhere() {
    for scenario in OTHER {
        println!("{}", scenario.name);
        let figures = figures(&scenario, LEASES, 1);
        assert!(figures.over == 0.0, "{scenario:?} {figures}");
    }
    for seed in seeds(60) {
        let scenario = Scenario::any(seed);
        let load = Load::new(&scenario, seed);
        for lease in [0, scenario.lease] {
            let outcome = escrow::play(&scenario, &load, lease, seed);
            let worst = result::worst(&outcome.admitted, scenario.per * 1_000);
            assert!(
                worst <= scenario.limit,
                "{worst} with seed {seed}: {scenario:?}"
            );
        }
    }
}

/// Prints what else is done beside what is done here.
#[test]
#[ignore = "it compares, and asserts nothing that the others do not"]
fn the_table() {
    for scenario in BUSY.into_iter().chain(EASY).chain(OTHER) {
        println!("{}", scenario.name.trim());
        for scheme in std::iter::once(LEASES).chain(RIVALS) {
            figures(&scenario, scheme, 1);
        }
    }
}
