use std::collections::BTreeSet;

use super::*;

fn names(names: &[&str]) -> Vec<Rc<str>> {
    names.iter().map(|name| Rc::from(*name)).collect()
}

/// A conversation with what is known, at times in milliseconds.
struct Isolate {
    health: Health,
    dice: Dice,
}

impl Isolate {
    fn new() -> Self {
        Self {
            health: Health::default(),
            dice: Dice::new([3; 16]),
        }
    }

    fn order(&mut self, targets: &[&str], now: u64) -> Vec<usize> {
        self.health
            .order(&names(targets), Timestamp(now), &mut self.dice)
    }

    fn note(&mut self, target: &str, sign: Sign, rest: Option<u64>, now: u64) {
        let (rest, now) = (rest.map(Duration::from_millis), Timestamp(now));
        self.health
            .note(target, sign, rest, now, now, &mut self.dice);
    }

    fn break_down(&mut self, target: &str, now: u64) {
        for _ in 0..5 {
            self.note(target, Sign::Ill, None, now);
        }
    }
}

#[test]
fn nobody_is_known_at_first_and_the_given_order_stands() {
    let mut isolate = Isolate::new();
    assert_eq!(isolate.order(&["a", "b", "c"], 5), [0, 1, 2]);
    assert_eq!(isolate.order(&[], 5), [0; 0]);
    isolate.note("b", Sign::Well, None, 5);
    isolate.note("a", Sign::Ill, None, 5);
    assert_eq!(isolate.order(&["a", "b", "c"], 5), [0, 1, 2]);
}

#[test]
fn whoever_is_open_or_at_rest_comes_last_the_soonest_back_first() {
    let mut isolate = Isolate::new();
    isolate.order(&[], 1_000);
    isolate.break_down("a", 1_000);
    isolate.note("b", Sign::Busy, Some(60_000), 1_000);
    isolate.note("c", Sign::Ill, Some(500), 1_000);
    assert_eq!(isolate.order(&["a", "b", "c", "d"], 1_000), [3, 2, 0, 1]);
    assert_eq!(isolate.order(&["b", "a"], 1_000), [1, 0]);
    assert_eq!(isolate.order(&["a", "b", "c", "d"], 1_500), [2, 3, 0, 1]);
    assert_eq!(isolate.order(&["a"], 1_500), [0], "nobody is better");
    assert_eq!(isolate.order(&["b"], 1_500), [0]);
    assert_eq!(isolate.order(&["b"], 61_000), [0]);
}

#[test]
fn one_request_probes_and_the_others_go_elsewhere() {
    let mut isolate = Isolate::new();
    isolate.order(&[], 1_000);
    isolate.break_down("a", 1_000);
    assert_eq!(isolate.order(&["b", "a"], 9_000), [0, 1]);
    assert_eq!(isolate.order(&["a", "b"], 9_000), [0, 1], "the probe");
    assert_eq!(isolate.order(&["a", "b"], 9_000), [1, 0]);
    assert_eq!(isolate.order(&["a", "b"], 38_999), [1, 0]);
    assert_eq!(isolate.order(&["a", "b"], 39_000), [0, 1], "it is lost");
    isolate
        .health
        .unheard("a", Timestamp(39_000), Timestamp(39_500));
    assert_eq!(
        isolate.order(&["a", "b"], 39_500),
        [0, 1],
        "its caller left"
    );
    isolate.note("a", Sign::Busy, Some(1_000), 40_000);
    assert_eq!(isolate.order(&["a", "b"], 40_999), [1, 0]);
    assert_eq!(isolate.order(&["a", "b"], 41_000), [0, 1], "it was busy");
    isolate.note("a", Sign::Well, None, 41_000);
    for _ in 0..100 {
        assert_eq!(isolate.order(&["a", "b"], 41_000), [0, 1]);
    }
}

#[test]
fn two_that_are_half_open_are_not_probed_by_the_same_request() {
    let mut isolate = Isolate::new();
    isolate.order(&[], 1_000);
    isolate.break_down("a", 1_000);
    isolate.break_down("b", 1_000);
    assert_eq!(isolate.order(&["a", "b", "c"], 9_000), [0, 2, 1]);
    assert_eq!(isolate.order(&["a", "b", "c"], 9_000), [1, 2, 0]);
    assert_eq!(isolate.order(&["a", "b", "c"], 9_000), [2, 0, 1]);
    assert_eq!(
        isolate.order(&["a", "b"], 9_000),
        [0, 1],
        "nobody is better"
    );
}

#[test]
fn who_is_busy_is_left_alone_and_not_ill() {
    let mut isolate = Isolate::new();
    isolate.order(&[], 0);
    for (rest, least, most) in [
        (None, 1_000, 30_000),
        (Some(0), 0, 0),
        (Some(2_500), 2_500, 2_500),
        (Some(u64::MAX), 600_000, 600_000),
    ] {
        isolate.health = Health::default();
        for _ in 0..50 {
            isolate.note("a", Sign::Busy, rest, 0);
        }
        let back = (0..700_000)
            .step_by(100)
            .find(|now| isolate.order(&["a", "b"], *now) == [0, 1])
            .unwrap();
        assert!(
            (least..=most).contains(&back),
            "{rest:?}: back after {back} ms"
        );
    }
}

#[test]
fn who_is_shed_goes_before_who_is_open() {
    let mut isolate = Isolate::new();
    isolate.order(&[], 0);
    for turn in 0..100 {
        let sign = [Sign::Ill, Sign::Well][usize::from(turn % 5 < 3)];
        isolate.note("a", sign, None, 0);
    }
    isolate.break_down("c", 0);
    let mut orders = BTreeSet::new();
    for _ in 0..100 {
        orders.insert(isolate.order(&["a", "b", "c"], 0));
        assert_eq!(isolate.order(&["c", "a"], 0), [1, 0]);
    }
    let orders: Vec<_> = orders.into_iter().collect();
    assert_eq!(orders, [[0, 1, 2], [1, 0, 2]]);
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut isolate = Isolate::new();
    let key = |isolate: &mut Isolate, now| isolate.health.key("o", &[1], Timestamp(now));
    isolate.order(&[], 900_000_000);
    isolate.break_down("a", 900_000_000);
    isolate.note("b", Sign::Busy, Some(5_000), 900_000_000);
    let (origin, now) = (Rc::from("o"), Timestamp(900_000_000));
    isolate
        .health
        .rest_key(&origin, 1, Duration::from_secs(5), now);
    while isolate.health.may_retry(&origin, now) {}
    assert_eq!(isolate.order(&["a", "b", "c"], 1_000), [2, 0, 1]);
    assert_eq!(key(&mut isolate, 1_000), None);
    assert_eq!(
        isolate.health.key_back_in(&origin, &[1], Timestamp(1_000)),
        Some(Duration::from_secs(5))
    );
    assert_eq!(isolate.order(&["a", "b", "c"], 7_000), [0, 1, 2]);
    assert_eq!(key(&mut isolate, 7_000), Some(0));
    assert!(isolate.health.may_retry(&origin, Timestamp(11_000)));
}

#[test]
fn who_is_not_kept_is_forgotten() {
    let mut isolate = Isolate::new();
    let (now, secs) = (Timestamp(0), Duration::from_secs);
    for name in ["a", "b"] {
        isolate.break_down(name, 0);
        let origin = Rc::from(name);
        isolate.health.rest_key(&origin, 1, secs(5), now);
    }
    isolate.health.keep_only(&names(&["a"]), &names(&["b"]));
    assert_eq!(isolate.order(&["a", "b"], 0), [1, 0]);
    for (origin, back) in [("a", 0), ("b", 5), ("c", 0)] {
        let back_in = isolate.health.key_back_in(origin, &[1], now);
        assert_eq!(back_in, Some(secs(back)), "{origin}");
    }
}

#[test]
fn whoever_stands_on_an_ill_ground_is_no_better_than_that() {
    let mut isolate = Isolate::new();
    let on = |isolate: &mut Isolate, now| {
        let targets = names(&["app/a", "app/b"]);
        let grounds = [Some("one"), Some("two")];
        let dice = &mut isolate.dice;
        isolate
            .health
            .order_on(&targets, &grounds, Timestamp(now), dice)
    };
    assert_eq!(on(&mut isolate, 0), [0, 1]);
    isolate.break_down("one", 10);
    assert_eq!(on(&mut isolate, 20), [1, 0]);
    assert!(!isolate.health.is_well("app/a", Some("one"), Timestamp(20)));
    assert!(isolate.health.is_well("app/b", Some("two"), Timestamp(20)));
    // One is let through to find out, and no other one until that is known.
    assert_eq!(on(&mut isolate, 7_000), [0, 1]);
    assert_eq!(on(&mut isolate, 7_000), [1, 0]);
    isolate.note("one", Sign::Well, None, 7_001);
    assert_eq!(on(&mut isolate, 7_002), [0, 1]);
}

#[test]
fn whoever_says_twice_that_he_is_not_well_is_asked_last_until_he_is() {
    let every = Duration::from_secs(10);
    let mut isolate = Isolate::new();
    let check = |isolate: &mut Isolate, well, now| {
        let times = (Timestamp(now), Timestamp(now));
        let dice = &mut isolate.dice;
        isolate.health.checked("a", well, every, times, dice);
    };
    check(&mut isolate, false, 0);
    assert_eq!(isolate.order(&["a", "b"], 1), [0, 1]);
    check(&mut isolate, false, 10_000);
    assert_eq!(isolate.order(&["a", "b"], 10_001), [1, 0]);
    check(&mut isolate, true, 20_000);
    assert_eq!(isolate.order(&["a", "b"], 20_001), [0, 1]);
    // Nobody asks any more: what was said last holds for a while.
    check(&mut isolate, false, 30_000);
    check(&mut isolate, false, 40_000);
    assert_eq!(isolate.order(&["a", "b"], 69_999), [1, 0]);
    assert_eq!(isolate.order(&["a", "b"], 70_001), [0, 1]);
}

#[test]
fn who_has_something_is_remembered_and_the_last_who_had_it() {
    let mut health = Health::default();
    assert_eq!(health.whereabouts(&[1, 2]), None);
    health.has(7, &[1]);
    health.has(8, &[2, 3]);
    assert_eq!(health.whereabouts(&[9, 3, 1]), Some(8));
    health.has(7, &[3]);
    assert_eq!(health.whereabouts(&[3]), Some(7));
    assert_eq!(health.whereabouts(&[]), None);
}
