//! Several gateways on one Redis: one set of accounts, and what becomes of requests when it is not there.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidegate_tests::{
    limited::{self, call},
    process::Process,
    scenario::Runtime,
    stage::{Reply, Stage},
};

#[test]
fn exactly_as_many_pass_as_the_limit_says_on_two_gateways() {
    for _ in 0..3 {
        let redis = Redis::start();
        let gateways = [
            start(Runtime::Native, &redis),
            start(Runtime::Native, &redis),
        ];
        assert_eq!(passed(&call_all(&gateways, 200)), 50);
    }
}

#[test]
fn a_gateway_on_spin_shares_them() {
    if !Runtime::asked_for().unwrap().contains(&Runtime::Spin) {
        eprintln!("TIDEGATE_RUNTIMES does not ask for {}", Runtime::Spin);
        return;
    }
    let redis = Redis::start();
    let gateways = [start(Runtime::Native, &redis), start(Runtime::Spin, &redis)];
    assert_eq!(passed(&call_all(&gateways, 200)), 50);
}

#[test]
fn a_gateway_that_is_killed_takes_no_more_than_it_held() {
    for after in [1, 5, 10] {
        let redis = Redis::start();
        let gateways = [
            start(Runtime::Native, &redis),
            start(Runtime::Native, &redis),
        ];
        let victim = gateways[1].id();
        let replies = thread::scope(|scope| {
            let calling = scope.spawn(|| call_all(&gateways, 200));
            let began = Instant::now();
            while asked(&gateways[1]) < after && began.elapsed() < Duration::from_secs(2) {
                thread::yield_now();
            }
            signal(victim, Signal::KILL);
            calling.join().unwrap()
        });
        let lost = replies.iter().filter(|reply| reply.status() == 0).count();
        let later = gateways[0].calls(&call(), 60);
        let passed = passed(&replies) + passed(&later);
        let asked: usize = gateways.iter().map(asked).sum();
        println!(
            "killed after {after} calls: {passed} passed, {lost} got no answer, upstreams were asked {asked} times"
        );
        assert!(asked <= 50, "{asked} were asked");
        assert!(
            passed <= 50 && passed + lost >= 50,
            "{passed} passed, {lost} got no answer"
        );
    }
}

#[test]
fn a_redis_that_stands_still_or_is_gone_is_said_in_time() {
    let mut redis = Redis::start();
    let strict = start(Runtime::Native, &redis);
    let lenient = start_with(Runtime::Native, &redis, "on_ledger_failure = \"allow\"");
    let both = [&strict, &lenient];
    for gateway in both {
        assert_eq!(ask(gateway).status(), 200);
    }
    for step in ["stands still", "goes on", "is gone"] {
        match step {
            "stands still" => signal(redis.child.id(), Signal::STOP),
            "goes on" => signal(redis.child.id(), Signal::CONT),
            _ => redis.end(),
        }
        for (gateway, expected) in both.into_iter().zip([503, 200]) {
            let began = Instant::now();
            let reply = ask(gateway);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(4), "{step}: {took:?}");
            if step == "goes on" {
                assert_eq!(reply.status(), 200, "{step}");
                assert_eq!(reply.header("x-tidegate-degraded"), None);
                continue;
            }
            assert_eq!(reply.status(), expected, "{step}");
            let name = if expected == 503 {
                "retry-after"
            } else {
                "x-tidegate-degraded"
            };
            assert!(reply.header(name).is_some(), "{step}: {:?}", reply.head);
        }
    }
    let said = strict.overheard();
    let lines = |text: &str| {
        said.lines()
            .filter(|line| line.starts_with("tidegate: redis") && line.contains(text))
            .count()
    };
    assert_eq!(
        (lines("has the accounts"), lines("answers again")),
        (2, 1),
        "{said}"
    );
    assert!(!said.contains(PASSWORD) && !lenient.overheard().contains(PASSWORD));
}

#[test]
fn a_gateway_starts_without_its_redis_and_finds_it_later() {
    let mut redis = Redis::start();
    redis.end();
    let gateway = start(Runtime::Native, &redis);
    let reply = ask(&gateway);
    assert_eq!(reply.status(), 503, "{reply:?}");
    redis.again();
    assert_eq!(ask(&gateway).status(), 200);
    let said = gateway.overheard();
    assert_eq!(said.matches("has the accounts").count(), 1, "{said}");
}

#[test]
fn a_value_that_is_not_ours_is_a_fault_that_names_the_account() {
    let redis = Redis::start();
    let gateway = start(Runtime::Native, &redis);
    assert_eq!(ask(&gateway).status(), 200);
    let keys = redis.say("KEYS tidegate:account:*");
    let keys: Vec<_> = keys
        .iter()
        .filter(|line| line.starts_with("tidegate:"))
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let answers = redis.say(&format!("SET \"{}\" something", keys[0]));
    assert!(
        answers[1..].starts_with(&["+OK".to_owned()]),
        "{keys:?} {answers:?}"
    );
    assert_eq!(ask(&gateway).status(), 503);
    let named = format!("`{}`", keys[0]);
    let began = Instant::now();
    while !gateway.overheard().contains(&named) {
        let said = gateway.overheard();
        assert!(began.elapsed() < Duration::from_secs(5), "{said}");
        thread::sleep(Duration::from_millis(10));
    }
    // What an operator is told to do: nothing is counted then.
    redis.say(&format!("DEL \"{}\"", keys[0]));
    assert_eq!(ask(&gateway).status(), 200);
}

/// Calls every gateway `each` times, all at once.
fn call_all(gateways: &[Process], each: usize) -> Vec<Reply> {
    thread::scope(|scope| {
        let calling: Vec<_> = gateways
            .iter()
            .map(|gateway| scope.spawn(|| gateway.calls(&call(), each)))
            .collect();
        calling
            .into_iter()
            .flat_map(|calls| calls.join().unwrap())
            .collect()
    })
}

/// How many of the `replies` are those of an upstream; the others are refusals, or did not come.
fn passed(replies: &[Reply]) -> usize {
    let statuses: Vec<_> = replies.iter().map(Reply::status).collect();
    assert!(
        statuses
            .iter()
            .all(|status| matches!(status, 0 | 200 | 429)),
        "{statuses:?}"
    );
    statuses.iter().filter(|status| **status == 200).count()
}

/// How often the upstream of `gateway` was asked.
fn asked(gateway: &Process) -> usize {
    gateway.script().outcome().0.values().map(Vec::len).sum()
}

fn ask(gateway: &Process) -> Reply {
    gateway.calls(&call(), 1).remove(0)
}

fn start(runtime: Runtime, redis: &Redis) -> Process {
    start_with(runtime, redis, "")
}

fn start_with(runtime: Runtime, redis: &Redis, line: &str) -> Process {
    let settings = format!("store = \"$REDIS_URL\"\n{line}");
    let url = ("REDIS_URL".to_owned(), redis.url());
    limited::start(runtime, 50, &settings, [url])
}

const PASSWORD: &str = "open-sesame";

/// A Redis on a port of its own.
struct Redis {
    port: u16,
    child: Child,
    folder: TempDir,
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = tempfile::tempdir().unwrap();
        let child = Self::run(port, &folder);
        Self {
            port,
            child,
            folder,
        }
    }

    fn run(port: u16, folder: &TempDir) -> Child {
        let child = Command::new("redis-server")
            .args([
                "--save",
                "",
                "--bind",
                "127.0.0.1",
                "--requirepass",
                PASSWORD,
            ])
            .args(["--port", &port.to_string()])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is there: `cargo xtask setup` installs it");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "redis-server does not start"
            );
            thread::sleep(Duration::from_millis(10));
        }
        child
    }

    fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn again(&mut self) {
        self.child = Self::run(self.port, &self.folder);
    }

    /// The lines that it answers to `command`.
    fn say(&self, command: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "AUTH {PASSWORD}\r\n{command}\r\nQUIT\r\n").unwrap();
        let lines = BufReader::new(stream).lines();
        lines.map_while(Result::ok).collect()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    kill_process(process.unwrap(), signal).unwrap();
}
