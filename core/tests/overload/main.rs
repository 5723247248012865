//! What comes out of a Dify that is asked for more than it can do, with and without a gate before it.
//!
//! A call is of use if its answer begins within two seconds and ends within thirty. What the machine does beyond that is work for
//! nobody.
//!
//! `cargo test -p tidegate-core --test overload -- --nocapture` prints the table.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test tells what went wrong by failing"
)]

#[path = "../streams/clock.rs"]
mod clock;
mod gateway;
mod machine;
mod sharing;
mod world;

use tidegate_core::overload::{Bounds, Priority};
use world::{Crowd, Door, Load, Outcome, play};

/// What the machine does without a crowd: four cores, and 0.4 seconds of one for each call.
const CAPACITY: f64 = 10.0;

const LOADS: [(&str, Load); 6] = [
    ("6/s", Load::of(6.0, 5.0)),
    ("9/s", Load::of(9.0, 5.0)),
    ("20/s", Load::of(20.0, 5.0)),
    (
        "6 to 40/s and back",
        Load {
            spike: Some(40.0),
            ..Load::of(6.0, 5.0)
        },
    ),
    ("a model of 15 s, 8/s", Load::of(8.0, 15.0)),
    ("a model of 15 s, 20/s", Load::of(20.0, 15.0)),
];

/// Answers of use in a second, of each load.
fn row(name: &str, door: impl Fn() -> Door) -> Vec<f64> {
    let row: Vec<f64> = LOADS
        .iter()
        .map(|(_, load)| play(*load, door(), 1).useful)
        .collect();
    let cells: String = row.iter().map(|useful| format!("{useful:8.2}")).collect();
    println!("{name:38}{cells}");
    row
}

#[test]
fn most_of_what_the_machine_can_do_comes_out_of_it() {
    for (place, (name, _)) in LOADS.iter().enumerate() {
        println!("{:38}{place:>8}: {name}", "");
    }
    let none = row("no gate", || Door::Open);
    row("54, first come first served", || Door::line(54));
    let right = row("54, newest first", || Door::gates(1, Bounds::fixed(54)));
    row("150, newest first", || Door::gates(1, Bounds::fixed(150)));
    let ours = row("learnt", || Door::gates(1, Bounds::AUTO));
    let four = row("learnt by four who do not know", || {
        Door::gates(4, Bounds::AUTO)
    });
    let many = row("learnt by forty who do not know", || {
        Door::gates(40, Bounds::AUTO)
    });
    let shared = [1, 4, 40].map(|count| {
        row(&format!("learnt by {count} who share it"), || {
            Door::sharing(count, Bounds::AUTO)
        })
    });

    assert!(none[2] < 0.05 * CAPACITY, "without a gate: {}", none[2]);
    assert!(ours[2] >= 0.8 * CAPACITY, "with one: {}", ours[2]);
    assert!(four[2] >= 0.8 * CAPACITY, "with four: {}", four[2]);
    assert!(
        many[2] < 0.5 * CAPACITY,
        "with forty, who cannot all have few enough: {}",
        many[2]
    );
    for shared in shared {
        assert!(
            shared[2] >= 0.8 * CAPACITY,
            "where it is shared: {}",
            shared[2]
        );
        assert!(shared[0] >= 0.98 * none[0] && shared[1] >= 0.8 * CAPACITY);
    }
    assert!(ours[0] >= 0.98 * none[0], "where there is room for all");
    assert!(ours[1] >= 0.8 * CAPACITY);
    // Whoever chose the number for a model of five seconds has the wrong one for another model.
    assert!(ours[5] > 1.5 * right[5], "{} {}", ours[5], right[5]);
}

#[test]
fn what_is_learnt_stays_right_for_hours() {
    let load = Load {
        seconds: 7_200.0,
        ..Load::of(20.0, 5.0)
    };
    let Outcome {
        useful,
        last_quarter,
        ..
    } = play(load, Door::gates(1, Bounds::AUTO), 1);
    println!("two hours of 20/s: {useful:.2}/s, {last_quarter:.2}/s in the last half hour");
    assert!(useful >= 0.8 * CAPACITY, "{useful}");
    assert!(last_quarter >= 0.8 * CAPACITY, "{last_quarter}");
}

#[test]
fn a_flood_of_one_leaves_the_others_their_share() {
    let crowd = Crowd {
        name: "flood",
        rate: 40.0,
        priority: Priority::Normal,
    };
    let few = Crowd {
        name: "few",
        rate: 1.0,
        priority: Priority::Normal,
    };
    let outcome = play(
        Load::of(0.0, 5.0).with(&[crowd, few]),
        Door::gates(1, Bounds::AUTO),
        1,
    );
    let (asked, useful) = outcome.of["few"];
    println!(
        "of {asked} of a few, {useful}; {:.2}/s in all",
        outcome.useful
    );
    assert!(useful as f64 >= 0.95 * asked as f64, "{useful} of {asked}");
    assert!(outcome.useful >= 0.75 * CAPACITY);
}

#[test]
fn who_matters_more_is_answered_first() {
    let of = |name, rate, priority| Crowd {
        name,
        rate,
        priority,
    };
    let crowds = [
        of("high", 4.0, Priority::High),
        of("normal", 10.0, Priority::Normal),
        of("low", 10.0, Priority::Low),
    ];
    let outcome = play(
        Load::of(0.0, 5.0).with(&crowds),
        Door::gates(1, Bounds::AUTO),
        1,
    );
    let share = |name: &str| {
        let (asked, useful) = outcome.of[name];
        useful as f64 / asked as f64
    };
    let shares = ["high", "normal", "low"].map(share);
    println!("high, normal and low: {shares:.2?}");
    assert!(shares[0] > 0.95);
    assert!(shares[1] > 2.0 * shares[2]);
}
