//! Whatever happens in whatever order, with whatever numbers.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use proptest::prelude::*;
use tidegate_core::{
    dice::Dice,
    health::{Health, LONGEST_REST, Sign},
    time::Timestamp,
};

/// Something that happens to an isolate. Names are numbers.
#[derive(Clone, Debug)]
enum Deed {
    Order(Vec<u8>),
    Note(u8, Sign, Option<Duration>, u64),
    Unheard(u8, u64),
    Asked(u8),
    MayRetry(u8),
    Key(u8, Vec<u64>),
    RestKey(u8, u64, Duration),
    KeepOnly(Vec<u8>),
}

fn sign() -> impl Strategy<Value = Sign> {
    prop_oneof![Just(Sign::Well), Just(Sign::Ill), Just(Sign::Busy)]
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..100_000u64).prop_map(Duration::from_millis),
        1 => any::<Duration>(),
        1 => Just(Duration::MAX),
    ]
}

/// An instant, or how long ago it was.
fn instant() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..100_000u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn deed() -> impl Strategy<Value = Deed> {
    let names = || prop::collection::vec(0..5u8, 0..6);
    let keys = prop::collection::vec(0..6u64, 0..6);
    prop_oneof![
        4 => names().prop_map(Deed::Order),
        8 => (0..5u8, sign(), prop::option::of(span()), instant())
            .prop_map(|(name, sign, rest, began)| Deed::Note(name, sign, rest, began)),
        1 => (0..5u8, instant()).prop_map(|(name, began)| Deed::Unheard(name, began)),
        1 => (0..5u8).prop_map(Deed::Asked),
        2 => (0..5u8).prop_map(Deed::MayRetry),
        3 => (0..5u8, keys).prop_map(|(origin, keys)| Deed::Key(origin, keys)),
        3 => (0..5u8, 0..6u64, span()).prop_map(|(origin, key, lasts)| Deed::RestKey(origin, key, lasts)),
        1 => names().prop_map(Deed::KeepOnly),
    ]
}

fn name(number: u8) -> Rc<str> {
    number.to_string().into()
}

fn names(numbers: &[u8]) -> Vec<Rc<str>> {
    numbers.iter().copied().map(name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Clocks that jump anywhere, and reports of anything: an order has everybody in it once, a key that is given is one of the
    /// keys, there is one exactly if none has to be waited for, and nobody waits for longer than the longest rest.
    #[test]
    fn no_number_does_harm(
        deeds in prop::collection::vec((instant(), any::<bool>(), deed()), 1..200),
        seed in any::<[u8; 16]>(),
    ) {
        let (mut health, mut dice) = (Health::default(), Dice::new(seed));
        let mut clock = 0_u64;
        for (step, jumps, deed) in deeds {
            clock = if jumps { step } else { clock.saturating_add(step % 5_000) };
            let now = Timestamp(clock);
            match deed {
                Deed::Order(targets) => {
                    let mut order = health.order(&names(&targets), now, &mut dice);
                    order.sort_unstable();
                    prop_assert_eq!(order, (0..targets.len()).collect::<Vec<_>>());
                }
                Deed::Note(target, sign, rest, began) => {
                    health.note(&name(target), sign, rest, Timestamp(began), now, &mut dice);
                }
                Deed::Unheard(target, began) => health.unheard(&name(target), Timestamp(began), now),
                Deed::Asked(origin) => health.asked(&name(origin), now),
                Deed::MayRetry(origin) => {
                    health.may_retry(&name(origin), now);
                }
                Deed::Key(origin, keys) => {
                    let back_in = health.key_back_in(&name(origin), &keys, now);
                    let key = health.key(&name(origin), &keys, now);
                    prop_assert!(key.is_none_or(|place| place < keys.len()));
                    prop_assert_eq!(key.is_some(), back_in == Some(Duration::ZERO));
                    prop_assert_eq!(back_in.is_none(), keys.is_empty());
                    prop_assert!(back_in.is_none_or(|left| left <= LONGEST_REST));
                }
                Deed::RestKey(origin, key, lasts) => health.rest_key(&name(origin), key, lasts, now),
                Deed::KeepOnly(kept) => health.keep_only(&names(&kept), &names(&kept)),
            }
        }
    }

    /// A key that is given is not at rest, and if none is given all are; those that are not at rest take turns.
    #[test]
    fn only_keys_that_are_not_at_rest_are_given(
        deeds in prop::collection::vec((0..3_000u64, 0..6u64, 0..20_000u64, 0..8usize), 1..100),
        keys in prop::collection::btree_set(0..6u64, 1..6),
    ) {
        let keys: Vec<_> = keys.into_iter().collect();
        let (mut health, origin) = (Health::default(), Rc::from("o"));
        let mut until = BTreeMap::new();
        let mut clock = 0;
        for (pause, key, lasts, uses) in deeds {
            clock += pause;
            let now = Timestamp(clock);
            health.rest_key(&origin, key, Duration::from_millis(lasts), now);
            let rests = until.entry(key).or_insert(0);
            *rests = (clock + lasts).max(*rests);
            let free: Vec<_> = keys.iter().filter(|key| until.get(*key).is_none_or(|at| *at <= clock)).collect();
            let mut used = BTreeMap::new();
            for _ in 0..uses {
                let given = health.key(&origin, &keys, now).map(|place| keys[place]);
                prop_assert_eq!(given.is_some(), !free.is_empty());
                if let Some(given) = given {
                    prop_assert!(free.contains(&&given));
                    *used.entry(given).or_insert(0) += 1;
                }
            }
            let counts: Vec<_> = free.iter().map(|key| used.get(*key).copied().unwrap_or(0)).collect();
            let (least, most) = (counts.iter().min(), counts.iter().max());
            prop_assert!(least.zip(most).is_none_or(|(least, most)| most - least <= 1), "{counts:?}");
        }
    }

    /// While a target is open, whoever finds it in front is its probe; between two of them somebody has said what became of the
    /// first, or half a minute has gone by.
    #[test]
    fn one_probe_at_a_time(
        deeds in prop::collection::vec((0..4_000u64, 0..10u8), 1..300),
        seed in any::<[u8; 16]>(),
    ) {
        let targets = names(&[0, 1]);
        let (mut health, mut dice) = (Health::default(), Dice::new(seed));
        for _ in 0..5 {
            health.note(&targets[0], Sign::Ill, None, Timestamp(0), Timestamp(0), &mut dice);
        }
        let mut clock = 0;
        let mut probe = None;
        for (pause, deed) in deeds {
            clock += pause;
            let now = Timestamp(clock);
            // Reports of the probe, or of one that was asked just before it.
            let began = probe.unwrap_or(clock);
            let early = Timestamp(began.saturating_sub(1));
            let mut note = |sign, rest, began| health.note(&targets[0], sign, rest, began, now, &mut dice);
            match deed {
                0 => note(Sign::Ill, None, Timestamp(began)),
                1 => note(Sign::Busy, Some(Duration::ZERO), Timestamp(began)),
                2 => health.unheard(&targets[0], Timestamp(began), now),
                3 => note(Sign::Ill, None, early),
                4 => health.unheard(&targets[0], early, now),
                _ => {
                    if health.order(&targets, now, &mut dice)[0] == 0 {
                        prop_assert!(probe.is_none_or(|began| clock - began >= 30_000), "{probe:?} and {clock}");
                        probe = Some(clock);
                    }
                    continue;
                }
            }
            if deed < 3 {
                probe = None;
            }
        }
    }
}
