//! The core alone, on a platform in memory: scripted upstreams, and a clock that stands still until somebody sleeps.

mod clock;
mod upstream;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use serde_json::Value;
use tidegate_core::{
    Body, Config, Gateway, Platform, config,
    dice::Dice,
    limit::{Account, Balance, Posting},
    platform::{Clock, Fault, Journal, Ledger, Task, Tasks},
    record::Record,
    time::Timestamp,
};

use self::{clock::StillClock, upstream::ScriptedUpstream};
use crate::{
    scenario::{Call, Runtime},
    stage::{Reply, Stage},
    upstream::{Script, address},
    wire::{Content, Head},
};

/// The core, played in memory.
pub struct Memory {
    gateway: Gateway,
    script: Rc<Script>,
    clock: StillClock,
    tasks: Rc<TaskList>,
    records: Rc<Records>,
    secrets: BTreeMap<String, String>,
}

impl Memory {
    /// A gateway of `config`, which nobody has called.
    pub fn start(config: &str, secrets: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = address(config, "http://upstream.test", "http://refused.test");
        let document: config::Value = toml::from_str(&text).map_err(|error| error.to_string())?;
        let config = Config::build(&document, Some(secrets), config::Runtime::Native).map_err(
            |problems| {
                problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            },
        )?;
        let script = Rc::new(Script::default());
        let clock = StillClock::default();
        let tasks = Rc::new(TaskList::default());
        let records = Rc::new(Records::default());
        let platform = Platform {
            upstream: Rc::new(ScriptedUpstream {
                script: Rc::clone(&script),
                clock: clock.clone(),
            }),
            ledger: Rc::new(MapLedger {
                accounts: RefCell::default(),
                clock: clock.clone(),
            }),
            clock: Rc::new(clock.clone()),
            tasks: Rc::<TaskList>::clone(&tasks),
            journal: Rc::<Records>::clone(&records),
            dice: Rc::new(RefCell::new(Dice::new([7; 16]))),
        };
        let gateway = Gateway::new(Rc::new(config), platform);
        Ok(Self {
            gateway,
            script,
            clock,
            tasks,
            records,
            secrets: secrets.clone(),
        })
    }

    /// Runs `futures` until all of them are over, or nothing will ever move again. Time passes only when all wait for it.
    fn run(&self, mut futures: Vec<Task>, may_wait: bool) -> bool {
        let alarm = Arc::new(Alarm(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&alarm));
        let mut cx = Context::from_waker(&waker);
        loop {
            while alarm.0.swap(false, Ordering::Relaxed) || self.tasks.has_new() {
                futures.retain_mut(|future| future.as_mut().poll(&mut cx).is_pending());
                self.tasks.poll(&mut cx);
            }
            if futures.is_empty() && !may_wait {
                return true;
            }
            if (futures.is_empty() && self.tasks.running.borrow().is_empty())
                || !self.clock.skip_ahead()
            {
                return futures.is_empty();
            }
        }
    }
}

impl Stage for Memory {
    fn runtime(&self) -> Runtime {
        Runtime::Memory
    }

    fn script(&self) -> &Script {
        &self.script
    }

    fn calls(&self, call: &Call, count: usize) -> Vec<Reply> {
        let replies: Rc<RefCell<Vec<Reply>>> = Rc::default();
        let futures = (0..count).map(|_| {
            let (gateway, clock, replies) = (
                self.gateway.clone(),
                self.clock.clone(),
                Rc::clone(&replies),
            );
            let (request, call) = (request(call, &self.secrets), call.clone());
            Box::pin(async move {
                let start = clock.now();
                let reply = match request {
                    Ok(request) => {
                        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
                        listen(
                            gateway.serve(request, Some(peer)).await,
                            &call,
                            &clock,
                            start,
                        )
                        .await
                    }
                    Err(trouble) => Reply {
                        trouble,
                        ..Reply::default()
                    },
                };
                replies.borrow_mut().push(reply);
            }) as Task
        });
        if !self.run(futures.collect(), false) {
            let stuck = Reply {
                trouble: "everybody waits for nothing".into(),
                ..Reply::default()
            };
            replies.borrow_mut().push(stuck);
        }
        replies.take()
    }

    fn wait(&self, duration: Duration) {
        let until = self.clock.now().after(duration);
        while self.clock.next().is_some_and(|next| next <= until) {
            self.clock.skip_ahead();
            self.run(Vec::new(), false);
        }
        self.clock.set(until);
    }

    fn record(&self, id: &str) -> Option<Value> {
        let find = || {
            self.records
                .0
                .borrow()
                .iter()
                .find(|record| record["id"] == id)
                .cloned()
        };
        find().or_else(|| {
            self.run(Vec::new(), true);
            find()
        })
    }

    fn overheard(&self) -> String {
        self.records
            .0
            .borrow()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn secrets(&self) -> &BTreeMap<String, String> {
        &self.secrets
    }
}

fn request(call: &Call, secrets: &BTreeMap<String, String>) -> Result<http::Request<Body>, String> {
    let body = call.payload()?.map(Bytes::from);
    let mut builder = http::Request::builder()
        .method(call.method())
        .uri(&call.path)
        .header("host", call.host.as_deref().unwrap_or("tidegate.test"));
    for (name, value) in call.headers(secrets) {
        builder = builder.header(name, value);
    }
    let body = match body {
        None => Body::empty(),
        Some(bytes) if call.chunked => {
            builder = builder.header("transfer-encoding", "chunked");
            Body::arriving(Pieces(
                bytes.chunks(16_000).map(Bytes::copy_from_slice).collect(),
            ))
        }
        Some(bytes) => {
            builder = builder.header("content-length", bytes.len());
            Body::from(bytes)
        }
    };
    builder
        .body(body)
        .map_err(|error| format!("no request: {error}"))
}

async fn listen(
    answer: http::Response<Body>,
    call: &Call,
    clock: &StillClock,
    start: Timestamp,
) -> Reply {
    let (parts, mut body) = answer.into_parts();
    let headers = parts.headers.iter().map(|(name, value)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    });
    let head = Head {
        status: parts.status.as_u16(),
        headers: headers.collect(),
        ..Head::default()
    };
    let mut content = Content::default();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) if !data.is_empty() => {
                content
                    .first
                    .get_or_insert_with(|| clock.now().since(start));
                content.bytes.extend_from_slice(&data);
                if call.leave {
                    content.broken = true;
                    break;
                }
            }
            Ok(_) => {}
            Err(_) => {
                content.broken = true;
                break;
            }
        }
    }
    content.end = clock.now().since(start);
    Reply {
        head: Some(head),
        content,
        trouble: String::new(),
    }
}

struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = tidegate_core::body::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

struct MapLedger {
    accounts: RefCell<BTreeMap<Rc<str>, Account>>,
    clock: StillClock,
}

#[async_trait(?Send)]
impl Ledger for MapLedger {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let mut accounts = self.accounts.borrow_mut();
        let names = || postings.iter().map(|posting| &posting.account);
        let found = names().map(|name| Ok(accounts.remove(name).unwrap_or_default()));
        let changed = Account::apply_all(found, postings, self.clock.now());
        let changed = changed.into_iter().zip(names());
        changed
            .map(|(changed, name)| {
                let (account, balance) = changed?;
                accounts.insert(name.clone(), account);
                Ok(balance)
            })
            .collect()
    }

    fn longest_lease(&self) -> Duration {
        Duration::from_secs(10)
    }
}

#[derive(Default)]
struct TaskList {
    new: RefCell<Vec<Task>>,
    running: RefCell<Vec<Task>>,
}

impl TaskList {
    fn has_new(&self) -> bool {
        !self.new.borrow().is_empty()
    }

    fn poll(&self, cx: &mut Context<'_>) {
        let mut running = self.running.take();
        running.append(&mut self.new.borrow_mut());
        running.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        self.running.replace(running);
    }
}

impl Tasks for TaskList {
    fn spawn(&self, task: Task) {
        self.new.borrow_mut().push(task);
    }
}

#[derive(Default)]
struct Records(RefCell<Vec<Value>>);

impl Journal for Records {
    fn write(&self, record: &Record) {
        self.0
            .borrow_mut()
            .push(serde_json::to_value(record).expect("a record is JSON"));
    }
}
