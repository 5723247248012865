use super::*;

fn dice() -> Dice {
    Dice::new([7; 16])
}

fn fail(breaker: &mut Breaker, times: usize, now: u64) {
    for _ in 0..times {
        breaker.ill(Timestamp(now), Timestamp(now), &mut dice());
    }
}

fn answer(breaker: &mut Breaker, times: usize, now: u64) {
    for _ in 0..times {
        breaker.well(Timestamp(now), Timestamp(now));
    }
}

fn is_closed(breaker: &Breaker, now: u64) -> bool {
    matches!(breaker.standing(Timestamp(now)), Standing::Closed { .. })
}

/// When an open one can be probed.
fn half_open_at(breaker: &Breaker) -> u64 {
    breaker.open.unwrap().until.0
}

#[test]
fn it_opens_after_five_in_a_row_or_when_most_fail() {
    // How many answer and how many fail, alternately; whether it is closed then.
    for (deeds, closed) in [
        (&[0, 4][..], true),
        (&[0, 5], false),
        (&[100, 4], true),
        (&[100, 5], false),
        (&[0, 4, 1, 4, 1], true),
        // 16 of 19; the twentieth makes it known.
        (&[0, 4, 1, 4, 1, 4, 1, 4], true),
        (&[0, 4, 1, 4, 1, 4, 1, 4, 1, 1], false),
        (
            &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            true,
        ),
        (&[10, 4, 1, 4, 1, 2], true),
        (&[10, 4, 1, 4, 1, 4], true),
        (&[10, 4, 1, 4, 1, 4, 1, 2], false),
    ] {
        let mut breaker = Breaker::default();
        for pair in deeds.chunks(2) {
            answer(&mut breaker, pair[0], 1_000);
            fail(&mut breaker, pair.get(1).copied().unwrap_or(0), 1_000);
        }
        assert_eq!(is_closed(&breaker, 1_000), closed, "{deeds:?}");
    }
}

#[test]
fn who_fails_too_often_is_shed_in_part() {
    for (answered, failed, expected) in [
        (0, 0, 0.0),
        (0, 4, 0.0),
        // Too few to say.
        (5, 4, 0.0),
        (7, 3, 1.25 / 11.0),
        (6, 4, 2.5 / 11.0),
        // One in five.
        (12, 3, 0.0),
        (80, 4, 0.0),
    ] {
        let mut breaker = Breaker::default();
        answer(&mut breaker, answered, 0);
        fail(&mut breaker, failed, 0);
        let shed = breaker.shed(Timestamp(0));
        assert!(
            (shed - expected).abs() < 1e-9,
            "{answered} answered, {failed} failed: {shed}"
        );
    }
    let mut breaker = Breaker::default();
    for _ in 0..30 {
        answer(&mut breaker, 7, 0);
        fail(&mut breaker, 3, 0);
    }
    let at = |now| breaker.shed(Timestamp(now));
    assert!((at(0) - 0.125).abs() < 0.001, "{}", at(0));
    assert!((at(30_000) - 0.125).abs() < 0.001, "{}", at(30_000));
    assert_eq!(at(200_000), 0.0, "so long ago it counts for little");
}

#[test]
fn it_is_open_for_longer_the_longer_nothing_helps() {
    let mut breaker = Breaker::default();
    let mut now = 100_000;
    fail(&mut breaker, 5, now);
    for probe in 0..60_u32 {
        let lasts = half_open_at(&breaker) - now;
        let plain = (5_000 << (probe / 5).min(6)).min(300_000);
        assert!(
            lasts >= plain * 8 / 10 && lasts <= plain * 12 / 10,
            "{lasts} ms after {probe} probes"
        );
        let left = Duration::from_millis(lasts - 1);
        assert_eq!(breaker.standing(Timestamp(now + 1)), Standing::Open(left));
        assert!(!breaker.probe(Timestamp(now + lasts - 1)));
        now += lasts;
        assert_eq!(breaker.standing(Timestamp(now)), Standing::HalfOpen);
        assert!(breaker.probe(Timestamp(now)));
        fail(&mut breaker, 1, now);
    }
}

#[test]
fn a_success_closes_it_and_nothing_is_held_against_it() {
    let mut breaker = Breaker::default();
    fail(&mut breaker, 5, 1_000);
    answer(&mut breaker, 1, 999);
    assert!(!is_closed(&breaker, 1_000), "that was asked before");
    breaker.well(Timestamp(1_000), Timestamp(2_000));
    assert!(is_closed(&breaker, 2_000));
    for _ in 0..10 {
        breaker.ill(Timestamp(1_999), Timestamp(9_000), &mut dice());
    }
    assert!(
        is_closed(&breaker, 9_000),
        "that was asked before it closed"
    );
    fail(&mut breaker, 4, 9_000);
    assert!(is_closed(&breaker, 9_000));
    fail(&mut breaker, 1, 9_000);
    assert!(!is_closed(&breaker, 9_000));
}

#[test]
fn a_relapse_goes_on_where_it_was() {
    for (well_for, lasts) in [(60_000, 20_000), (60_001, 5_000)] {
        let mut breaker = Breaker {
            probes_failed: 10,
            ..Breaker::default()
        };
        fail(&mut breaker, 5, 1_000);
        answer(&mut breaker, 1, 50_000);
        let now = 50_000 + well_for;
        fail(&mut breaker, 5, now);
        let until = half_open_at(&breaker) - now;
        assert!(until.abs_diff(lasts) <= lasts / 5, "{until} ms");
    }
}

#[test]
fn one_probe_is_under_way_and_not_for_ever() {
    let open = || {
        let mut breaker = Breaker::default();
        fail(&mut breaker, 5, 0);
        assert!(breaker.probe(Timestamp(10_000)));
        breaker
    };
    for (began, asked, may) in [
        (None, 10_000, false),
        (None, 39_999, false),
        (None, 40_000, true),
        // One that was asked before says nothing of the probe.
        (Some(9_999), 10_001, false),
        (Some(10_000), 10_001, true),
    ] {
        let mut breaker = open();
        if let Some(began) = began {
            breaker.unheard(Timestamp(began));
        }
        assert_eq!(breaker.probe(Timestamp(asked)), may, "{began:?} at {asked}");
    }
    // Who usually takes long is given longer.
    let mut breaker = Breaker {
        usual: 60_000,
        ..open()
    };
    assert!(!breaker.probe(Timestamp(129_999)));
    assert!(breaker.probe(Timestamp(130_000)));
}

#[test]
fn who_is_asked_while_it_is_open_is_no_news_if_it_fails() {
    let mut breaker = Breaker::default();
    fail(&mut breaker, 5, 1_000);
    let until = half_open_at(&breaker);
    fail(&mut breaker, 100, until - 1);
    assert_eq!(half_open_at(&breaker), until);
    assert_eq!(breaker.probes_failed, 0);
    assert!(breaker.probe(Timestamp(until)));
    breaker.ill(Timestamp(until - 1), Timestamp(until + 50), &mut dice());
    assert!(!breaker.probe(Timestamp(until + 50)), "it is under way");
    fail(&mut breaker, 1, until + 60);
    assert_eq!(breaker.probes_failed, 1);
}

#[test]
fn what_is_usual_is_about_the_median() {
    let mut breaker = Breaker::default();
    for turn in 0..2_000 {
        let took = [800, 900, 2_000, 2_100, 600_000][turn % 5];
        breaker.well(Timestamp(0), Timestamp(took));
    }
    assert!(breaker.usual.abs_diff(2_000) < 300, "{}", breaker.usual);
    assert_eq!(breaker.half_life(), SHORTEST_HALF_LIFE);
    breaker.usual = u64::MAX;
    assert_eq!(breaker.half_life(), LONGEST_HALF_LIFE);
}

#[test]
fn who_begins_and_breaks_off_is_as_ill_as_who_does_not_begin() {
    let begin = |breaker: &mut Breaker| breaker.begun(Timestamp(1_000), Timestamp(1_000));
    let end = |breaker: &mut Breaker, well| {
        breaker.ended(well, Timestamp(1_000), Timestamp(1_000), &mut dice());
    };
    // What becomes of each stream; whether it is closed then.
    for (streams, closed) in [
        (&[false; 4][..], true),
        (&[false; 5], false),
        (&[false, false, false, false, true, false], true),
        (&[true; 30], true),
    ] {
        let mut breaker = Breaker::default();
        for well in streams {
            begin(&mut breaker);
            end(&mut breaker, *well);
        }
        assert_eq!(is_closed(&breaker, 1_000), closed, "{streams:?}");
        if closed {
            assert_eq!(breaker.asked, streams.len() as f64, "each is counted once");
        }
    }
    // A probe is over when its answer begins, however long that takes to end.
    let mut breaker = Breaker::default();
    fail(&mut breaker, 5, 1_000);
    let now = half_open_at(&breaker);
    assert!(breaker.probe(Timestamp(now)));
    breaker.begun(Timestamp(now), Timestamp(now + 1));
    assert!(is_closed(&breaker, now + 1));
}

#[test]
fn what_is_left_halves_with_each_half_life() {
    for step in 0..20_000 {
        let half_lives = f64::from(step) / 1_000.0;
        let (is, expected) = (halved(half_lives), (-half_lives).exp2());
        assert!(
            (is / expected - 1.0).abs() < 1e-3,
            "{half_lives}: {is} {expected}"
        );
    }
    assert_eq!(halved(0.0), 1.0);
    assert!(halved(f64::INFINITY) < 1e-300 && halved(f64::NAN) < 1e-300);
}
