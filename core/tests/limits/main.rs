//! What holds of an account and its purses, whatever happens in whatever order.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod world;

use std::num::NonZeroU64;

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use tidegate_core::{
    limit::{Account, Demand, Entry, Place, Purse, Quota, Settled, Take},
    time::Timestamp,
};
use world::{Deed, World};

/// So many times as many cases as `PROPTEST_CASES` says, or 256.
fn settings(times: u32) -> ProptestConfig {
    let file = "tests/limits/main.proptest-regressions";
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases * times,
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

proptest! {
    #![proptest_config(settings(2))]

    #[test]
    fn no_window_is_ever_overrun((limit, per, lease, clocks, deeds) in setting()) {
        let mut world = World::new(limit, per, lease, &clocks);
        for deed in &deeds {
            world.happen(deed);
        }
    }
}
