use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rusqlite::Connection;
use tempfile::tempdir;
use tidegate_core::{limit::Settled, platform::Ledger as _};

use super::*;

const KILLED: &str = "TIDEGATE_TEST_KILLED_IN";

#[tokio::test(flavor = "current_thread")]
async fn a_restart_forgets_nothing() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for left in (0..5).rev() {
        assert_eq!(one(&ledger, "a", 5).await.unwrap().remaining, left);
    }
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert!(!one(&ledger, "a", 5).await.unwrap().granted);
    assert!(one(&ledger, "b", 5).await.unwrap().granted);
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
    let left = one(&ledger, "killed", 1_000_000).await.unwrap().remaining;
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
    while one(&ledger, "killed", 1_000_000).await.unwrap().granted {
        println!("\nspent");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_corrupt_account_is_a_fault_with_its_place_and_the_others_go_on() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    one(&ledger, "a", 5).await.unwrap();
    drop(ledger);
    let database = Connection::open(dir.path().join("ledger.sqlite")).unwrap();
    let whole: Vec<u8> = database
        .query_row("SELECT state FROM accounts", [], |row| row.get(0))
        .unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut elsewhere = whole.clone();
    elsewhere[0] = 9;
    let broken = [
        (&flipped[..], "not what was stored"),
        (&whole[..whole.len() - 1], "not what was stored"),
        (&elsewhere, "its layout is 9"),
        (&[], "it is empty"),
    ];
    for (bytes, problem) in broken {
        database
            .execute("UPDATE accounts SET state = ?1 WHERE id = 'a'", [bytes])
            .unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        for _ in 0..2 {
            let postings = [take("a", HOUR, 5), take(problem, HOUR, 1)];
            let mut answers = ledger.post(&postings).await;
            assert!(answers.pop().unwrap().is_ok());
            let fault = answers.remove(0).unwrap_err().0;
            for named in ["`a`", "ledger.sqlite", problem] {
                assert!(fault.contains(named), "{fault}");
            }
        }
        // What an operator is told to do, beside the running gateway: nothing is counted then.
        let delete = "DELETE FROM accounts WHERE id = 'a'";
        assert_eq!(database.execute(delete, []).unwrap(), 1);
        assert_eq!(one(&ledger, "a", 5).await.unwrap().remaining, 4);
        drop(ledger);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn of_several_accounts_all_are_changed_or_none() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    one(&ledger, "narrow", 1).await.unwrap();
    let both = [take("wide", HOUR, 5), take("narrow", HOUR, 1)];
    let changes = ledger.book().changes();
    let answers = ledger.post(&both).await;
    assert!(!answers[1].as_ref().unwrap().granted);
    assert_eq!(answers[0].as_ref().unwrap().parcel, None);
    assert_eq!(ledger.book().changes(), changes, "nothing was to be kept");

    let others = [take("wide", HOUR, 5), take("other", HOUR, 1)];
    for answer in ledger.post(&others).await {
        assert!(answer.unwrap().granted);
    }
    assert_eq!(ledger.book().changes(), changes + 1);
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(one(&ledger, "wide", 5).await.unwrap().remaining, 3);
    assert!(!one(&ledger, "other", 1).await.unwrap().granted);
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_settled_beside_a_refusal_is_kept() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let answers = ledger.post(&[take("wide", HOUR, 5)]).await;
    let parcel = answers[0].as_ref().unwrap().parcel.unwrap();
    one(&ledger, "narrow", 1).await.unwrap();
    let mut posting = take("wide", HOUR, 5);
    posting.entry.settled.push(Settled {
        bucket: parcel.bucket,
        spent: 0,
        ago: 0,
        unspent: 1,
    });
    ledger.post(&[posting, take("narrow", HOUR, 1)]).await;
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(one(&ledger, "wide", 5).await.unwrap().remaining, 4);
}

#[tokio::test(flavor = "current_thread")]
async fn an_account_that_is_named_twice_is_changed_once() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let answers = ledger.post(&[take("a", HOUR, 1), take("a", HOUR, 1)]).await;
    assert!(answers[0].as_ref().unwrap().granted);
    assert!(answers[1].is_err());
    assert!(!one(&ledger, "a", 1).await.unwrap().granted);
}

#[test]
fn a_corrupt_file_is_refused_with_its_place() {
    let dir = tempdir().unwrap();
    fs::write(
        dir.path().join("ledger.sqlite"),
        b"this is not a database, whatever its name says".repeat(100),
    )
    .unwrap();
    let problem = Ledger::open(dir.path()).err().unwrap();
    assert!(problem.contains("ledger.sqlite"), "{problem}");
}

/// Damages the files of a ledger that was killed after ten writes, and says what it says when it is opened again.
fn opened_again(damage: impl FnOnce(&Path)) -> Result<Ledger, String> {
    let (dir, killed) = (tempdir().unwrap(), tempdir().unwrap());
    let ledger = Ledger::open(dir.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for _ in 0..10 {
        runtime.block_on(one(&ledger, "a", 100)).unwrap();
    }
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "mark"] {
        fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
    }
    damage(killed.path());
    Ledger::open(killed.path())
}

#[test]
fn writes_that_are_gone_are_missed() {
    let untouched = opened_again(|_| ());
    assert!(untouched.is_ok());
    let damaged = opened_again(|dir| {
        let log = dir.join("ledger.sqlite-wal");
        let mut bytes = fs::read(&log).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(log, bytes).unwrap();
    });
    let problem = damaged.err().unwrap();
    assert!(problem.contains("of 10 writes are gone"), "{problem}");
    let emptied = opened_again(|dir| {
        fs::write(dir.join("ledger.sqlite"), "").unwrap();
        fs::remove_file(dir.join("ledger.sqlite-wal")).unwrap();
    });
    let problem = emptied.err().unwrap();
    assert!(
        problem.contains("last 10 of 10 writes are gone"),
        "{problem}"
    );
    let cut = opened_again(|dir| fs::write(dir.join("mark"), "0000").unwrap());
    assert!(cut.err().unwrap().contains("mark is damaged"));
}

#[test]
fn writes_that_went_with_the_machine_are_not_missed() {
    let emptied = |dir: &Path| {
        fs::write(dir.join("ledger.sqlite"), "").unwrap();
        fs::remove_file(dir.join("ledger.sqlite-wal")).unwrap();
    };
    let restarted = opened_again(|dir| {
        emptied(dir);
        fs::write(dir.join("mark"), "00000000000000000010 an-earlier-boot\n").unwrap();
    });
    assert!(restarted.is_ok());
    let begun_anew = opened_again(|dir| {
        emptied(dir);
        fs::remove_file(dir.join("mark")).unwrap();
    });
    assert!(begun_anew.is_ok());
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
                                tokio::task::spawn_local(async move { one(&ledger, "a", 37).await })
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
    let posted = ledger.book().post(&[take("a", HOUR, 37)], clock::now());
    assert!(!posted.balances[0].as_ref().unwrap().granted);
}

#[tokio::test(flavor = "current_thread")]
async fn many_accounts_stay_bounded_in_memory_and_are_not_forgotten() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for number in 0..20_000 {
        ledger
            .book()
            .post(&[take(&format!("account {number}"), HOUR, 1)], clock::now());
    }
    assert!(ledger.book().len() <= 16_384);
    assert!(!one(&ledger, "account 0", 1).await.unwrap().granted);
    assert!(!one(&ledger, "account 19999", 1).await.unwrap().granted);
}

#[tokio::test(flavor = "current_thread")]
async fn what_no_longer_counts_is_removed_from_disk() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for number in 0..1200 {
        ledger
            .book()
            .post(&[take(&format!("brief {number}"), 1, 5)], clock::now());
    }
    one(&ledger, "long", 5).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
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

#[tokio::test(flavor = "current_thread")]
async fn what_a_burst_leaves_of_the_log_is_cut_off() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let connection = ledger.book().store().side_door().unwrap();
    for number in 0..4_000 {
        one(&ledger, &number.to_string(), 5).await.unwrap();
    }
    let burst = log(dir.path());
    assert!(burst > 20 << 20, "{burst} bytes");
    keeper::checkpoint(&ledger, &connection).unwrap();
    one(&ledger, "afterwards", 5).await.unwrap();
    let rest = log(dir.path());
    assert!(rest <= 16 << 20, "{rest} bytes");
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_written_ahead_is_not_thought_less_than_it_is() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for number in 0..100 {
        let posting = |place: u32| take(&format!("{number} {place}"), HOUR, 5);
        let postings: Vec<_> = (0..3).map(posting).collect();
        assert!(ledger.post(&postings).await.iter().all(Result::is_ok));
    }
    // Three accounts, two pages each, and how often it was written.
    assert_eq!(ledger.book().store().take_pages(), 700);
    let pages = log(dir.path()) / 4_096;
    assert!(pages <= 700 + 100, "{pages}");
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
        let start = std::time::Instant::now();
        let spent = processor_time();
        let local = tokio::task::LocalSet::new();
        for worker in 0..width {
            let ledger = ledger.clone();
            local.spawn_local(async move {
                for round in 0..rounds {
                    let account = format!("{per} {}", (worker * 31 + round) % accounts);
                    let answers = ledger.post(&[take(&account, per, u64::MAX)]).await;
                    assert!(answers[0].as_ref().unwrap().granted);
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

/// `cargo test --release -p tidegate -- --ignored --nocapture how_far_the_log_grows`
#[tokio::test(flavor = "current_thread")]
#[ignore = "prints what it measures"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
async fn how_far_the_log_grows() {
    let dir = env::var_os("TIDEGATE_TEST_DIR").map_or_else(
        || tempdir().unwrap(),
        |dir| tempfile::tempdir_in(dir).unwrap(),
    );
    let ledger = Ledger::open(dir.path()).unwrap();
    let keeper = Keeper::start(&ledger).unwrap();
    for accounts in [1, 1_000, 100_000] {
        let (mut largest, mut count, mut slowest) = (0, 0_usize, Duration::ZERO);
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_secs(8) {
            let before = std::time::Instant::now();
            let local = tokio::task::LocalSet::new();
            for worker in 0..32 {
                let ledger = ledger.clone();
                local.spawn_local(async move {
                    for round in 0..8 {
                        let number = (count + worker * 8 + round).wrapping_mul(7_919) % accounts;
                        let posting = take(&number.to_string(), HOUR, u64::MAX);
                        let answers = ledger.post(&[posting]).await;
                        assert!(answers[0].as_ref().unwrap().granted);
                    }
                });
            }
            local.await;
            count += 256;
            slowest = slowest.max(before.elapsed());
            largest = largest.max(log(dir.path()));
        }
        let each = start.elapsed().as_nanos() as usize / count;
        tokio::time::sleep(Duration::from_secs(3)).await;
        one(&ledger, "afterwards", 9).await.unwrap();
        println!(
            "{accounts} accounts: a change takes {each} ns, 256 at most {slowest:?}; the log has {} KB at most, {} KB after",
            largest >> 10,
            log(dir.path()) >> 10,
        );
    }
    keeper.finish();
}

/// How many bytes the log has that is written ahead.
fn log(dir: &Path) -> u64 {
    fs::metadata(dir.join("ledger.sqlite-wal")).unwrap().len()
}

/// `REDIS_URL=redis://127.0.0.1 cargo test --release -p tidegate -- --ignored --nocapture what_a_post_costs`
#[tokio::test(flavor = "current_thread")]
#[ignore = "prints what it measures, and needs a Redis"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
async fn what_a_post_costs_over_redis_and_here() {
    let dir = tempdir().unwrap();
    let url = env::var("REDIS_URL").unwrap();
    for store in [config::Store::Redis(url), config::Store::Embedded] {
        let place = Place::open(&store, dir.path()).unwrap();
        for (width, accounts) in [(1, 1), (1, 1000), (64, 1), (64, 1000)] {
            let local = tokio::task::LocalSet::new();
            let seed = rand_seed();
            let start = std::time::Instant::now();
            let rounds = 6_400 / width;
            local
                .run_until(async {
                    let ledger = place.ledger(
                        Rc::new(clock::SystemClock),
                        Rc::new(crate::tasks::LocalTasks(Default::default())),
                        Rc::new(RefCell::new(Dice::new(seed))),
                    );
                    let workers: Vec<_> = (0..width)
                        .map(|worker| {
                            let ledger = Rc::clone(&ledger);
                            tokio::task::spawn_local(async move {
                                for round in 0..rounds {
                                    let account = format!("{}", (worker * 31 + round) % accounts);
                                    let posting = [take(&account, HOUR, u64::MAX)];
                                    let answers = ledger.post(&posting).await;
                                    assert!(answers[0].as_ref().unwrap().granted);
                                }
                            })
                        })
                        .collect();
                    for worker in workers {
                        worker.await.unwrap();
                    }
                })
                .await;
            let took = start.elapsed();
            println!(
                "{store:?}, {width} at once on {accounts} accounts: {} posts/s, {} µs each",
                ((rounds * width) as f64 / took.as_secs_f64()) as u64,
                took.as_micros() as usize / rounds,
            );
        }
    }
}

fn rand_seed() -> [u8; 16] {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).unwrap();
    seed
}

/// What this thread has spent of the processor, in nanoseconds.
fn processor_time() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .unwrap_or(0)
}

/// An hour in milliseconds.
const HOUR: u64 = 3_600_000;

/// Asks `account` for a unit, of `limit` an hour.
async fn one(ledger: &Ledger, account: &str, limit: u64) -> Result<Balance, Fault> {
    let mut answers = ledger.post(&[take(account, HOUR, limit)]).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

fn take(account: &str, per: u64, limit: u64) -> Posting {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let entry = serde_json::json!({
        "quota": { "limit": limit, "per": per },
        "from": process::id(),
        "number": NUMBER.fetch_add(1, Ordering::Relaxed),
        "take": { "units": 1, "hold": per.min(20) },
    });
    Posting {
        account: account.into(),
        entry: serde_json::from_value(entry).unwrap(),
    }
}
