//! What holds of an account, whatever is done to it in whatever order.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::num::NonZeroU64;

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use tidegate_core::{
    limit::{Account, Balance, Entry, Quota},
    time::Timestamp,
};

/// Buckets that a window is divided into, and two of them at its borders.
const MOST_BUCKETS: usize = 62;

#[derive(Clone, Debug)]
enum Deed {
    /// Time passes; a clock may also be set back.
    Wait(i64),
    Hold(u64),
    /// Gives back some of the hold with this number.
    Release(usize, u64),
    /// The account is stored, and read again.
    Store,
}

/// Units that were granted and have not come back.
#[derive(Clone, Copy, Debug)]
struct Held {
    at: Timestamp,
    units: u64,
}

#[derive(Debug)]
struct Ledger {
    quota: Quota,
    account: Account,
    clock: u64,
    held: Vec<Held>,
}

impl Ledger {
    fn apply(&mut self, entry: Entry) -> Balance {
        self.account.apply(entry, Timestamp(self.clock))
    }

    /// What was spent from `since` to `until`, both counted.
    fn spent(&self, since: u64, until: u64) -> u64 {
        self.held
            .iter()
            .filter(|held| (since..=until).contains(&held.at.0))
            .map(|held| held.units)
            .sum()
    }

    fn width(&self) -> u64 {
        self.quota.per.get().div_ceil(60)
    }

    fn hold(&mut self, units: u64) {
        let before = self.account.clone();
        let entry = Entry::Hold {
            quota: self.quota,
            units,
        };
        let balance = self.apply(entry);
        let (limit, per) = (self.quota.limit.get(), self.quota.per.get());
        if balance.granted {
            self.held.push(Held {
                at: balance.at,
                units,
            });
            let spent = self.spent(balance.at.0.saturating_sub(per), balance.at.0);
            assert!(spent <= limit, "{spent} of {limit} within a window");
            assert!(balance.until >= balance.at);
        } else {
            let since = balance.at.0.saturating_sub(per + self.width());
            let spent = self.spent(since, balance.at.0);
            assert!(
                spent + units > limit,
                "refused with {spent} of {limit} spent"
            );
            self.refused_until(&before, entry, balance);
        }
        self.told_right(balance);
    }

    /// A refusal says the very first instant at which the same is granted.
    fn refused_until(&self, before: &Account, entry: Entry, balance: Balance) {
        assert!(balance.until > balance.at);
        if balance.until.0 == u64::MAX {
            let Entry::Hold { units, .. } = entry else {
                return;
            };
            assert!(units > self.quota.limit.get(), "refused for ever");
            return;
        }
        for start in [before, &self.account] {
            assert!(
                start.clone().apply(entry, balance.until).granted,
                "refused at the instant it was told to come"
            );
            assert!(
                !start
                    .clone()
                    .apply(entry, Timestamp(balance.until.0 - 1))
                    .granted,
                "granted before"
            );
        }
    }

    fn release(&mut self, number: usize, units: u64) {
        if self.held.is_empty() {
            return;
        }
        let number = number % self.held.len();
        let units = units.min(self.held[number].units);
        let held = self.held[number].at;
        let balance = self.apply(Entry::Release {
            quota: self.quota,
            units,
            held,
        });
        self.held[number].units -= units;
        assert!(balance.granted);
        self.told_right(balance);
    }

    /// What is said to be left is granted, and one more is not.
    fn told_right(&self, balance: Balance) {
        let ask = |units| {
            self.account
                .clone()
                .apply(
                    Entry::Hold {
                        quota: self.quota,
                        units,
                    },
                    balance.at,
                )
                .granted
        };
        assert!(ask(balance.remaining));
        assert!(!ask(balance.remaining + 1));
    }
}

fn deeds(limit: u64, per: u64) -> impl Strategy<Value = Vec<Deed>> {
    let per = i64::try_from(per).unwrap();
    let deed = prop_oneof![
        3 => (0..=per / 3).prop_map(Deed::Wait),
        1 => (-per..=per * 3).prop_map(Deed::Wait),
        6 => (0..=limit / 2 + 1).prop_map(Deed::Hold),
        1 => (0..=limit + 1).prop_map(Deed::Hold),
        2 => (any::<usize>(), 0..=limit).prop_map(|(number, units)| Deed::Release(number, units)),
        1 => Just(Deed::Store),
    ];
    prop::collection::vec(deed, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/limits.proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_window_ever_overruns_and_no_refusal_is_wrong(
        (limit, per, begin, deeds) in (1u64..40, prop_oneof![1u64..130, 1_000u64..100_000], 0u64..10_000_000)
            .prop_flat_map(|(limit, per, begin)| (Just(limit), Just(per), Just(begin), deeds(limit, per)))
    ) {
        let quota = Quota { limit: NonZeroU64::new(limit).unwrap(), per: NonZeroU64::new(per).unwrap() };
        let mut ledger = Ledger { quota, account: Account::default(), clock: begin, held: Vec::new() };
        for deed in deeds {
            match deed {
                Deed::Wait(by) => ledger.clock = ledger.clock.saturating_add_signed(by),
                Deed::Hold(units) => ledger.hold(units),
                Deed::Release(number, units) => ledger.release(number, units),
                Deed::Store => {
                    let text = serde_json::to_string(&ledger.account).unwrap();
                    let stored: Account = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(&stored, &ledger.account);
                    ledger.account = stored;
                }
            }
            let stored = serde_json::to_value(&ledger.account).unwrap();
            prop_assert!(stored["buckets"].as_array().unwrap().len() <= MOST_BUCKETS);
        }
    }

    #[test]
    fn numbers_at_their_end_do_no_harm(
        limit in prop_oneof![1u64..5, Just(u64::MAX)],
        per in prop_oneof![1u64..5, Just(u64::MAX)],
        entries in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..20),
    ) {
        let quota = Quota { limit: NonZeroU64::new(limit).unwrap(), per: NonZeroU64::new(per).unwrap() };
        let mut account = Account::default();
        for (hold, units, held, now) in entries {
            let entry = if hold {
                Entry::Hold { quota, units }
            } else {
                Entry::Release { quota, units, held: Timestamp(held) }
            };
            let balance = account.apply(entry, Timestamp(now));
            prop_assert!(balance.remaining <= limit);
        }
    }
}
