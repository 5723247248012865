//! What holds of an account and its purses, whatever happens in whatever order.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod line;
mod world;

use std::{convert::Infallible, num::NonZeroU64};

use line::{Line, Move};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use tidegate_core::{
    dice::Dice,
    limit::{
        Account, Adjustment, Demand, Draw, Entry, Place, Posting, Purse, Quota, Settled, Take, Want,
    },
    time::Timestamp,
};
use world::{Deed, World};

/// As many cases as `PROPTEST_CASES` says, or 256; one in so many, where each takes long.
fn settings(one_in: u32) -> ProptestConfig {
    let file = "tests/limits/main.proptest-regressions";
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases / one_in,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        max_shrink_iters: 20_000,
        ..default
    }
}

fn deeds(limit: u64, per: u64) -> impl Strategy<Value = Vec<Deed>> {
    let each = (limit / 200).max(1);
    let span = if per == 0 { 30_000 } else { per };
    let deed = prop_oneof![
        4 => (0..=50u64).prop_map(Deed::Wait),
        4 => (0..=span / 20).prop_map(Deed::Wait),
        2 => (0..=span / 3).prop_map(Deed::Wait),
        1 => (0..=span * 2).prop_map(Deed::Wait),
        8 => (0..6usize, 1..=each * 2, 1..=30u64, prop::bool::weighted(0.2))
            .prop_map(|(isolate, units, times, hold)| Deed::Draw(isolate, units, times, hold)),
        1 => (0..6usize, 0..=limit + 1).prop_map(|(isolate, units)| Deed::Draw(isolate, units, 1, false)),
        3 => (1..40u64, 1..=span / 40 + 1, 1..=each * 4).prop_map(|(times, pause, units)| Deed::Rush(times, pause, units)),
        6 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(which, again)| Deed::Deliver(which, again)),
        6 => Just(Deed::DeliverAll),
        1 => any::<usize>().prop_map(Deed::Lose),
        4 => (any::<usize>(), 0..=each * 2).prop_map(|(which, part)| Deed::Finish(which, part)),
        3 => any::<usize>().prop_map(Deed::Renew),
        2 => (0..6usize).prop_map(Deed::Settle),
        2 => (0..6usize).prop_map(Deed::GiveBack),
        1 => (0..6usize).prop_map(Deed::Die),
        1 => (1..100u32).prop_map(Deed::Strangers),
        1 => Just(Deed::Restart),
        1 => (0..=span / 4).prop_map(Deed::SetBack),
    ];
    prop::collection::vec(deed, 1..150)
}

type Setting = (u64, u64, u64, Vec<(u64, i64)>, Vec<Deed>);

fn setting() -> impl Strategy<Value = Setting> {
    let limit = prop_oneof![1..40u64, 256..2_000u64, 100_000..1_000_000u64];
    let per = prop_oneof![
        Just(0u64),
        1..5_000u64,
        5_000..120_000u64,
        Just(60_000),
        Just(3_600_000)
    ];
    let lease = prop_oneof![Just(0u64), Just(1_000), Just(30_000)];
    let clocks = prop::collection::vec((0..4_000_000_000_000u64, -10_000..=10_000i64), 1..6);
    (limit, per, lease, clocks).prop_flat_map(|(limit, per, lease, clocks)| {
        (
            Just(limit),
            Just(per),
            Just(lease),
            Just(clocks),
            deeds(limit, per),
        )
    })
}

/// Numbers, the more likely the more harm they may do.
fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0u64),
        1..5u64,
        Just(1 << 53),
        Just(1 << 63),
        (u64::MAX - 5)..=u64::MAX,
        any::<u64>(),
    ]
}

fn settled() -> impl Strategy<Value = Settled> {
    (edge(), edge(), edge(), edge()).prop_map(|(bucket, spent, ago, unspent)| Settled {
        bucket,
        spent,
        ago,
        unspent,
    })
}

fn take() -> impl Strategy<Value = Take> {
    let demand = (edge(), edge(), edge()).prop_map(|(rate, longest, promised)| Demand {
        rate,
        longest,
        promised,
    });
    let place = (0..9u32, 0..9u32).prop_map(|(ticket, room)| Place { ticket, room });
    let instead = prop::collection::vec((edge(), edge()), 0..3);
    (
        (edge(), edge()),
        edge(),
        instead,
        prop::option::of(demand),
        prop::option::weighted(0.2, place),
    )
        .prop_map(|((units, more), hold, instead_of, demand, place)| Take {
            units,
            more,
            hold,
            instead_of,
            demand,
            place,
        })
}

fn quota() -> impl Strategy<Value = Quota> {
    let limit = edge().prop_map(|limit| NonZeroU64::new(limit).unwrap_or(NonZeroU64::MIN));
    let per = prop_oneof![edge(), Just(1_000), Just(30 * 86_400_000)];
    (limit, per).prop_map(|(limit, per)| Quota { limit, per })
}

fn adjustment() -> impl Strategy<Value = Adjustment> {
    let raise = (edge(), edge()).prop_map(|(units, lasts)| Adjustment::Raise { units, lasts });
    prop_oneof![Just(Adjustment::Reset), raise]
}

fn entry(quota: Quota) -> impl Strategy<Value = Entry> {
    (
        prop_oneof![0..3u32, any::<u32>()],
        prop_oneof![0..50u32, any::<u32>()],
        prop::collection::vec(settled(), 0..3),
        prop::option::of(0..9u32),
        prop::option::of(take()),
        (
            prop_oneof![9 => Just(0), 1 => edge()],
            prop::option::weighted(0.1, adjustment()),
        ),
    )
        .prop_map(
            move |(from, number, settled, left, take, (owed, adjust))| Entry {
                quota,
                from,
                number,
                settled,
                owed,
                adjust,
                left,
                take,
                report: None,
            },
        )
}

fn plain(quota: Quota, from: u32, number: u32, units: u64) -> Entry {
    Entry {
        quota,
        from,
        number,
        settled: Vec::new(),
        owed: 0,
        adjust: None,
        left: None,
        take: Some(Take {
            units,
            more: 0,
            hold: 1_000,
            instead_of: Vec::new(),
            demand: None,
            place: None,
        }),
        report: None,
    }
}

#[test]
fn a_raise_outlives_all_that_it_was_used_for() {
    let quota = Quota {
        limit: NonZeroU64::MIN,
        per: 1_000,
    };
    let raise = Adjustment::Raise {
        units: 2,
        lasts: 60_000,
    };
    let mut account = Account::default();
    let mut order = plain(quota, 1, 1, 0);
    (order.adjust, order.take) = (Some(raise), None);
    let balance = account.apply(&order, Timestamp(0));
    assert_eq!((balance.raised, balance.remaining), (2, 3));
    assert_eq!(account.empty_at(&quota, Timestamp(0)), Timestamp(60_000));
    for (now, granted) in [(59_999, true), (60_000, false)] {
        let balance = account
            .clone()
            .apply(&plain(quota, 2, 1, 3), Timestamp(now));
        assert_eq!(balance.granted, granted, "{now}");
    }
}

#[test]
fn a_refusal_knows_when_a_raise_ends() {
    let limit = NonZeroU64::new(10).unwrap();
    let quota = Quota { limit, per: 60_000 };
    let mut account = Account::default();
    let mut number = 0;
    let mut say = |units: u64, raise: Option<u64>, now: u64| {
        number += 1;
        let mut entry = plain(quota, 7, number, units);
        if let Some(units) = raise {
            let lasts = 30_000;
            entry.adjust = Some(Adjustment::Raise { units, lasts });
        }
        account.apply(&entry, Timestamp(now))
    };
    assert!(say(10, None, 1_000_000).granted);
    assert!(say(10, Some(10), 1_020_000).granted);
    let refused = say(1, None, 1_025_000);
    assert!(!refused.granted);
    assert!(!say(1, None, refused.until.0 - 1).granted);
    assert!(say(1, None, refused.until.0).granted);
}

#[test]
fn a_refusal_knows_of_a_clock_that_was_set_back() {
    let limit = NonZeroU64::MIN;
    let quota = Quota { limit, per: 60_000 };
    let mut account = Account::default();
    let hour = 3_600_000;
    let mut number = 0;
    let mut say = |now: u64| {
        number += 1;
        account.apply(&plain(quota, 7, number, 1), Timestamp(now))
    };
    assert!(say(2 * hour).granted);
    let refused = say(hour);
    assert!(!refused.granted);
    let wait = refused.until.since(refused.at).as_millis() as u64;
    assert!(wait > hour, "{wait}");
    assert!(!say(hour + wait - 1).granted);
    assert!(say(hour + wait).granted);
}

#[test]
fn what_nobody_uses_goes_back_within_seconds_however_seldom_it_was_used() {
    let quota = Quota {
        limit: NonZeroU64::new(1_000).unwrap(),
        per: 60_000,
    };
    for requests in [1, 3, 100] {
        used_and_left(quota, requests);
    }
}

#[test]
fn what_is_lent_is_told_from_what_is_held() {
    let quota = Quota {
        limit: NonZeroU64::new(1_000).unwrap(),
        per: 60_000,
    };
    let (mut account, mut purse) = (Account::default(), Purse::new(quota, Timestamp(0)));
    let want = Want {
        units: 1,
        hold: 1_000,
        ..Want::default()
    };
    let mut seen = Timestamp(0);
    for request in 0..200 {
        let at = Timestamp(request * 10);
        let held = match purse.draw(1, 0, at) {
            Draw::Held(held) => held,
            _ => {
                let entry = purse.ask(7, want, 10_000, at);
                let balance = account.apply(&entry, at);
                purse.hear(&balance, 1, at, at).unwrap()
            }
        };
        purse.spend(held, at);
        seen = at;
    }
    let mut look = plain(quota, 8, 1, 5);
    look.take.as_mut().unwrap().hold = 30_000;
    let balance = account.apply(&look, seen);
    let lent = balance.leased;
    assert!(lent > 50, "{balance:?}");
    assert_eq!(
        balance.used + balance.held + lent,
        1_000 - balance.remaining
    );
    assert!((5..15).contains(&balance.held), "{balance:?}");
    let kept = Account::from_bytes(&account.to_bytes()).unwrap();
    assert_eq!(kept, account);
    // What nobody asks for any more is given back; what a request holds is still held.
    let later = Timestamp(seen.0 + 5_500);
    account.apply(&purse.give_back(7, later).unwrap(), later);
    let mut look = plain(quota, 8, 2, 0);
    look.take = None;
    let balance = account.apply(&look, later);
    assert_eq!((balance.held, balance.leased), (5, 0), "{balance:?}");
}

fn used_and_left(quota: Quota, requests: u64) {
    let (mut account, mut purse) = (Account::default(), Purse::new(quota, Timestamp(0)));
    let want = Want {
        units: 1,
        hold: 1_000,
        ..Want::default()
    };
    let mut now = 0;
    for _ in 0..requests {
        let at = Timestamp(now);
        let held = match purse.draw(1, 0, at) {
            Draw::Held(held) => held,
            _ => {
                let entry = purse.ask(7, want, 10_000, at);
                let balance = account.apply(&entry, at);
                purse.hear(&balance, 1, at, at).unwrap()
            }
        };
        purse.spend(held, at);
        now += 50;
    }
    let has_lease = purse.mind(Timestamp(now));
    let idle = (0..100).find_map(|second| {
        let at = Timestamp(now + second * 1_000);
        let entry = purse.give_back(7, at)?;
        account.apply(&entry, at);
        Some(second)
    });
    assert!(
        idle.is_some_and(|seconds| seconds <= 6) || !has_lease,
        "{requests}: {idle:?}"
    );
    let looks = purse.settle(7, Timestamp(now + 6_000));
    let balance = account.apply(&looks, Timestamp(now + 6_000));
    assert_eq!((balance.used, balance.held), (requests, 0));
    assert!(!purse.mind(Timestamp(now + 7_000)));
}

proptest! {
    #![proptest_config(settings(8))]

    /// Where every message arrives at once and more is asked than there is, what leaves too early is spent at once.
    #[test]
    fn nothing_is_let_in_too_early(
        limit in prop_oneof![2..40u64, 256..500u64],
        per in 500..3_000u64,
        lease in prop_oneof![Just(0u64), Just(30_000)],
        fast in prop::collection::vec(prop_oneof![Just(-10_000i64), Just(10_000)], 1..3),
        pause in 1..4u64,
        lulls in prop::collection::vec((1..1_500u64, 0..900u64), 3..8),
    ) {
        let clocks: Vec<_> = fast.into_iter().map(|drift| (500, drift)).collect();
        let mut world = World::new(limit, per, lease, &clocks);
        for (rush, lull) in lulls {
            world.happen(&Deed::Rush(rush, pause, 1));
            world.happen(&Deed::Wait(lull));
        }
    }
}

proptest! {
    #![proptest_config(settings(1))]

    #[test]
    fn no_window_is_ever_overrun((limit, per, lease, clocks, deeds) in setting()) {
        let mut world = World::new(limit, per, lease, &clocks);
        for deed in &deeds {
            world.happen(deed);
        }
    }

    #[test]
    fn numbers_at_their_end_do_no_harm(
        (quota, entries) in quota().prop_flat_map(|quota| {
            (Just(quota), prop::collection::vec((entry(quota), edge()), 1..40))
        })
    ) {
        let mut account = Account::default();
        let mut raised = 0;
        for (entry, now) in entries {
            let now = Timestamp(now);
            if let Some(Adjustment::Raise { units, .. }) = entry.adjust {
                raised = raised.max(units);
            }
            let balance = account.apply(&entry, now);
            prop_assert!(balance.remaining <= quota.limit.get().saturating_add(raised));
            prop_assert!(balance.at >= now);
            prop_assert_eq!(Account::from_bytes(&account.to_bytes()), Ok(account.clone()));
            account.empty_at(&quota, now);
        }
    }

    #[test]
    fn a_purse_stands_any_numbers(
        quota in quota(),
        deeds in prop::collection::vec((edge(), edge(), edge(), edge(), 0..4u8), 1..40),
    ) {
        let mut account = Account::default();
        let mut purse = Purse::new(quota, Timestamp(0));
        for (units, hold, longest, now, deed) in deeds {
            let now = Timestamp(now);
            let entry = match deed {
                0 => purse.settle(7, now),
                1 => match purse.give_back(7, now) {
                    Some(entry) => entry,
                    None => continue,
                },
                _ => match purse.draw(units, 0, now) {
                    Draw::Held(held) if deed == 2 => {
                        purse.spend(held, now);
                        continue;
                    }
                    Draw::Held(held) => {
                        purse.put_back(held, now);
                        continue;
                    }
                    Draw::Denied | Draw::Ask => {
 let want = Want { units, hold, ..Want::default() };
 purse.ask(7, want, longest, now)
 },
                },
            };
            let balance = account.apply(&entry, now);
            if let Some(held) = purse.hear(&balance, units, now, now) {
                purse.spend(held, now);
            }
            purse.mind(now);
            purse.remaining();
            purse.reset();
        }
    }

    #[test]
    fn several_accounts_change_together(
        (changes, now) in (prop::collection::vec(
            (1..6u64, prop_oneof![Just(0u64), Just(60_000)]).prop_flat_map(|(limit, per)| {
                let quota = Quota { limit: NonZeroU64::new(limit).unwrap(), per };
                (Just(quota), 0..6u64, 0..6u64, 0..4u64)
            }), 1..5), 0..1_000_000u64)
    ) {
        let now = Timestamp(now);
        let mut accounts = Vec::new();
        let mut entries = Vec::new();
        for (quota, before, units, back) in changes {
            let mut account = Account::default();
            account.apply(&plain(quota, 1, 1, 0), now);
            let held = account.apply(&plain(quota, 1, 2, before), now).parcel;
            let mut entry = plain(quota, 1, 3, units);
            entry.settled = held
                .map(|parcel| Settled { bucket: parcel.bucket, spent: 0, ago: 0, unspent: back.min(before) })
                .into_iter()
                .collect();
            accounts.push(account);
            entries.push(entry);
        }
        // What each would say alone, and how it looks when it only settles.
        let alone: Vec<_> = accounts.iter().zip(&entries)
            .map(|(account, entry)| account.clone().apply(entry, now).granted)
            .collect();
        let settled: Vec<_> = accounts.iter().zip(&entries)
            .map(|(account, entry)| {
                let mut account = account.clone();
                let entry = Entry { take: None, ..entry.clone() };
                let balance = account.apply(&entry, now);
                (account, balance.remaining)
            })
            .collect();
        let postings: Vec<_> = entries.iter().cloned()
            .map(|entry| Posting { account: "a".into(), entry })
            .collect();
        let found = accounts.into_iter().map(Ok::<_, Infallible>);
        let changed: Vec<_> = Account::apply_all(found, &postings, now).into_iter().flatten().collect();
        prop_assert_eq!(changed.len(), postings.len());
        let all = alone.iter().all(|granted| *granted);
        for (place, (changed, balance)) in changed.iter().enumerate() {
            let (account, remaining) = &settled[place];
            if all {
                let units = entries[place].take.as_ref().unwrap().units;
                prop_assert_eq!(balance.parcel.map(|parcel| parcel.units), Some(units));
                prop_assert_eq!(balance.remaining, remaining - units);
            } else {
                prop_assert_eq!(changed, account);
                prop_assert_eq!(balance.remaining, *remaining);
                prop_assert_eq!(balance.granted, alone[place]);
                prop_assert!(balance.parcel.is_none());
            }
        }
    }

    #[test]
    fn who_comes_first_is_served_first(
        limit in 1..4u64,
        room in 0..6u32,
        moves in prop::collection::vec(prop_oneof![
            4 => (0..12u32).prop_map(Move::Ask),
            1 => Just(Move::Pass),
            2 => (0..12u32).prop_map(Move::Leave),
            2 => any::<usize>().prop_map(Move::Free),
            2 => (0..2_000u64).prop_map(Move::Wait),
            1 => Just(Move::Wait(3_000)),
        ], 1..120),
    ) {
        let mut line = Line::new(limit, room);
        for step in moves {
            line.play(step);
        }
    }

    #[test]
    fn damaged_bytes_are_no_account(
        entries in prop::collection::vec((entry(MINUTE), 0..120_000u64), 1..20),
        place in any::<prop::sample::Index>(),
        flip in 1..=255u8,
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut account = Account::default();
        for (entry, now) in entries {
            account.apply(&entry, Timestamp(now));
        }
        let whole = account.to_bytes();
        let mut damaged = whole.clone();
        damaged[place.index(whole.len())] ^= flip;
        prop_assert!(Account::from_bytes(&damaged).is_err());
        prop_assert!(Account::from_bytes(&whole[..place.index(whole.len())]).is_err());
        let _ = Account::from_bytes(&noise);
        // Even what was damaged before it was stored does no harm.
        let mut body = whole[5..].to_vec();
        let from = place.index(body.len());
        for (byte, noise) in body[from..].iter_mut().zip(&noise) {
            *byte = *noise;
        }
        let mut stored = whole[..1].to_vec();
        stored.extend(crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&body).to_le_bytes());
        stored.extend(body);
        if let Ok(mut account) = Account::from_bytes(&stored) {
            for (number, now) in [0, 1_000_000, u64::MAX].into_iter().enumerate() {
                account.apply(&plain(MINUTE, 1, number as u32, 1), Timestamp(now));
                prop_assert_eq!(Account::from_bytes(&account.to_bytes()), Ok(account.clone()));
            }
        }
    }
}

const MINUTE: Quota = Quota {
    limit: NonZeroU64::MAX,
    per: 60_000,
};

#[test]
fn an_account_is_small_whoever_uses_it() {
    // Every list is as long as it gets, and every number as large: the windows whose buckets lie in odd places, too.
    for per in [
        0,
        17,
        1_000,
        1_001,
        30_030,
        59_999,
        60_000,
        3_600_000,
        2_592_000_000,
    ] {
        for begin in [0, 1_800_000_000_000, u64::MAX - 400_000] {
            let quota = Quota {
                limit: NonZeroU64::MAX,
                per,
            };
            let mut account = Account::default();
            let mut largest = 0;
            for step in 0..1_000_u32 {
                let now = Timestamp(begin + u64::from(step) * 240);
                let from = u32::MAX - step % 99;
                let mut entry = plain(quota, from, u32::MAX - 5_000 + step, 1 << 56);
                if let Some(take) = &mut entry.take {
                    take.hold = u64::from(step % 61) * 1_000;
                    take.demand = Some(Demand {
                        rate: u64::MAX,
                        longest: u64::MAX,
                        promised: 0,
                    });
                }
                account.apply(&entry, now);
                entry = plain(quota, from, u32::MAX - 5_000 + step, u64::MAX);
                entry.number = entry.number.wrapping_add(1_000_000);
                if let Some(take) = &mut entry.take {
                    take.place = Some(Place {
                        ticket: u32::MAX - step % 200,
                        room: u32::MAX,
                    });
                }
                account.apply(&entry, now);
                if step % 9 == 0 {
                    largest = largest.max(account.to_bytes().len());
                }
            }
            println!("{per} from {begin}: {largest} bytes");
            assert!(largest <= 4096, "{per} from {begin}: {largest} bytes");
        }
    }
}

/// Isolates that draw their numbers at random hold a place each, while others come and go; then all give back.
#[test]
fn what_two_hundred_isolates_hold_comes_back() {
    let now = Timestamp(1_800_000_000_000);
    for (holders, passers, quota) in [
        (200, 0, 0),
        (200, 5_000, 0),
        (150, 5_000, 60_000),
        (250, 0, 0),
    ] {
        let limit = NonZeroU64::new(1_000_000).unwrap();
        let quota = Quota { limit, per: quota };
        let mut account = Account::default();
        let mut dice = Dice::new([7; 16]);
        let mut take = |account: &mut Account| {
            let from = dice.roll() as u32;
            let mut entry = plain(quota, from, 1, 3_000);
            entry.take.as_mut().unwrap().hold = 45_000;
            let parcel = account.apply(&entry, now).parcel.unwrap();
            entry.take = None;
            entry.number = 2;
            entry.settled.push(Settled {
                bucket: parcel.bucket,
                spent: 0,
                ago: 0,
                unspent: parcel.units,
            });
            entry
        };
        let held: Vec<_> = (0..holders).map(|_| take(&mut account)).collect();
        for _ in 0..passers {
            let back = take(&mut account);
            account.apply(&back, now);
        }
        let size = account.to_bytes().len();
        println!("{holders} isolates: {size} bytes");
        let mut left = 0;
        for back in held {
            left = account.apply(&back, now).remaining;
        }
        assert_eq!(left, limit.get(), "{holders} {passers} {quota:?}");
    }
}

#[test]
fn a_million_holders_leave_no_more_than_any() {
    let mut account = Account::default();
    let mut largest = 0;
    for from in 0..1_000_000_u32 {
        let now = Timestamp(1_800_000_000_000 + u64::from(from) / 10);
        account.apply(&plain(MINUTE, from.wrapping_mul(0x9E37_79B9), 1, 1), now);
        if from % 5_000 == 0 {
            largest = largest.max(account.to_bytes().len());
        }
    }
    assert!((1_000..=4096).contains(&largest), "{largest} bytes");
}
