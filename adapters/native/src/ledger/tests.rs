use std::{
    env,
    io::{BufRead, BufReader},
    num::NonZeroU64,
    process::{Command, Stdio},
};

use rusqlite::Connection;
use tempfile::tempdir;
use tidegate_core::{limit::Quota, platform::Ledger as _};

use super::*;

const KILLED: &str = "TIDEGATE_TEST_KILLED_IN";

#[tokio::test(flavor = "current_thread")]
async fn a_restart_forgets_nothing() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for left in (0..5).rev() {
        assert_eq!(ledger.apply("a", hold(5, 1)).await.unwrap().remaining, left);
    }
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert!(!ledger.apply("a", hold(5, 1)).await.unwrap().granted);
    assert!(ledger.apply("b", hold(5, 1)).await.unwrap().granted);
}

#[tokio::test(flavor = "current_thread")]
async fn a_kill_forgets_nothing_that_was_answered() {
    let dir = tempdir().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "ledger::tests::spends_until_killed",
            "--nocapture",
            "--include-ignored",
        ])
        .env(KILLED, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let answered = lines
        .map_while(Result::ok)
        .filter(|line| line == "spent")
        .take(1000)
        .count() as u64;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answered, 1000);

    let ledger = Ledger::open(dir.path()).unwrap();
    let left = ledger
        .apply("killed", hold(1_000_000, 1))
        .await
        .unwrap()
        .remaining;
    assert!(
        1_000_000 - left > answered,
        "{answered} answered, {left} left"
    );
}

/// What the test above runs in a process of its own.
#[tokio::test(flavor = "current_thread")]
#[ignore = "runs until it is killed"]
async fn spends_until_killed() {
    let Some(dir) = env::var_os(KILLED) else {
        return;
    };
    let ledger = Ledger::open(dir.as_ref()).unwrap();
    while ledger
        .apply("killed", hold(1_000_000, 1))
        .await
        .unwrap()
        .granted
    {
        println!("\nspent");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_corrupt_account_is_a_fault_with_its_place_and_the_others_go_on() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.apply("a", hold(5, 1)).await.unwrap();
    drop(ledger);
    let path = dir.path().join("ledger.sqlite");
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE accounts SET state = '{\"buckets\":7}'", [])
        .unwrap();

    let ledger = Ledger::open(dir.path()).unwrap();
    for _ in 0..2 {
        let fault = ledger.apply("a", hold(5, 1)).await.unwrap_err().0;
        assert!(
            fault.contains("`a`") && fault.contains("ledger.sqlite"),
            "{fault}"
        );
    }
    assert!(ledger.apply("b", hold(5, 1)).await.unwrap().granted);
}

#[test]
fn a_corrupt_file_is_refused_with_its_place() {
    let dir = tempdir().unwrap();
    std::fs::write(
        dir.path().join("ledger.sqlite"),
        b"this is not a database, whatever its name says".repeat(100),
    )
    .unwrap();
    let problem = Ledger::open(dir.path()).err().unwrap();
    assert!(problem.contains("ledger.sqlite"), "{problem}");
}

#[test]
fn another_version_is_refused() {
    let dir = tempdir().unwrap();
    drop(Ledger::open(dir.path()).unwrap());
    let path = dir.path().join("ledger.sqlite");
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 7)
        .unwrap();
    let problem = Ledger::open(dir.path()).err().unwrap();
    assert!(problem.contains("format is 7"), "{problem}");
}

#[test]
fn two_on_one_directory_are_refused() {
    let dir = tempdir().unwrap();
    let first = Ledger::open(dir.path()).unwrap();
    let problem = Ledger::open(dir.path()).err().unwrap();
    assert!(problem.contains("in use by another"), "{problem}");
    drop(first);
    Ledger::open(dir.path()).unwrap();
}

#[test]
fn many_at_once_from_many_threads_never_exceed_the_limit() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let granted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let ledger = ledger.clone();
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap();
                    tokio::task::LocalSet::new().block_on(&runtime, async move {
                        let calls: Vec<_> = (0..100)
                            .map(|_| {
                                let ledger = ledger.clone();
                                tokio::task::spawn_local(async move {
                                    ledger.apply("a", hold(37, 1)).await
                                })
                            })
                            .collect();
                        let mut granted = 0;
                        for call in calls {
                            granted += usize::from(call.await.unwrap().unwrap().granted);
                        }
                        granted
                    })
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(granted, 37);
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert!(
        !ledger
            .book()
            .apply("a", hold(37, 1), clock::now())
            .unwrap()
            .0
            .granted
    );
}

#[tokio::test(flavor = "current_thread")]
async fn many_accounts_stay_bounded_in_memory_and_are_not_forgotten() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for number in 0..20_000 {
        ledger
            .book()
            .apply(&format!("account {number}"), hold(1, 1), clock::now())
            .unwrap();
    }
    assert!(ledger.book().len() <= 16_384);
    assert!(!ledger.apply("account 0", hold(1, 1)).await.unwrap().granted);
    assert!(
        !ledger
            .apply("account 19999", hold(1, 1))
            .await
            .unwrap()
            .granted
    );
}

#[tokio::test(flavor = "current_thread")]
async fn what_no_longer_counts_is_removed_from_disk() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let brief = Quota {
        limit: NonZeroU64::new(5).unwrap(),
        per: NonZeroU64::new(1).unwrap(),
    };
    for number in 0..1200 {
        let entry = Entry::Hold {
            quota: brief,
            units: 1,
        };
        ledger
            .book()
            .apply(&format!("brief {number}"), entry, clock::now())
            .unwrap();
    }
    ledger.apply("long", hold(5, 1)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let connection = ledger.book().store().side_door().unwrap();
    keeper::sweep(&ledger, &connection).unwrap();
    let left: Vec<String> = store::names_after(&connection, "", clock::now(), 10)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(left, ["long"]);
    assert_eq!(ledger.book().len(), 1);
}

/// `cargo test --release -p tidegate -- --ignored --nocapture what_a_change_costs`
#[tokio::test(flavor = "current_thread")]
#[ignore = "prints what it measures"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
async fn what_a_change_costs() {
    let dir = env::var_os("TIDEGATE_TEST_DIR").map_or_else(
        || tempdir().unwrap(),
        |dir| tempfile::tempdir_in(dir).unwrap(),
    );
    let ledger = Ledger::open(dir.path()).unwrap();
    let keeper = Keeper::start(&ledger).unwrap();
    // A window of an hour has one bucket here, a brief one has all of its buckets.
    for (width, accounts, per) in [
        (1, 1, 3_600_000),
        (1, 1, 600),
        (1, 1000, 3_600_000),
        (32, 1, 3_600_000),
        (32, 1000, 3_600_000),
    ] {
        let rounds = 32_000 / width;
        let per = NonZeroU64::new(per).unwrap();
        let quota = Quota {
            limit: NonZeroU64::MAX,
            per,
        };
        let start = std::time::Instant::now();
        let spent = processor_time();
        let local = tokio::task::LocalSet::new();
        for worker in 0..width {
            let ledger = ledger.clone();
            local.spawn_local(async move {
                for round in 0..rounds {
                    let account = format!("{per} {}", (worker * 31 + round) % accounts);
                    ledger
                        .apply(&account, Entry::Hold { quota, units: 1 })
                        .await
                        .unwrap();
                }
            });
        }
        local.await;
        let count = (rounds * width) as u64;
        println!(
            "{width} at once on {accounts} accounts of {per} ms: a change takes {} ns, and {} ns of processor",
            start.elapsed().as_nanos() as u64 / count,
            (processor_time() - spent) / count,
        );
    }
    keeper.finish();
}

/// What this thread has spent of the processor, in nanoseconds.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .unwrap_or(0)
}

fn hold(limit: u64, units: u64) -> Entry {
    let quota = Quota {
        limit: NonZeroU64::new(limit).unwrap(),
        per: NonZeroU64::new(3_600_000).unwrap(),
    };
    Entry::Hold { quota, units }
}
