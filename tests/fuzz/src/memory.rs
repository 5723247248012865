//! The core on a platform that is nothing but memory: one caller, one upstream, and time that passes when all wait for it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    pin::{Pin, pin},
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
use tidegate_core::{
    Body, Config, Gateway, Platform,
    body::BoxError,
    config::{Runtime, Value},
    dice::Dice,
    limit::{Account, Balance, Posting},
    platform::{Clock, Fault, Journal, Ledger, Task, Tasks, Upstream},
    record::Record,
    time::Timestamp,
    upstream::Failure,
};

const CONFIG: &str = r#"
[gateway]
max_body = "1MB"

[[consumers]]
name = "web"
keys = ["$WEB_KEY"]
limits = [{ requests = 1000, per = "1m" }]

[providers.a]
dialect = "openai"
base_url = "http://upstream.test/v1"

[models.smart]
targets = ["a/served"]

[[routes]]
name = "llm"
path = "/v1"
serve = "models"
"#;

/// The key of the one caller.
pub(crate) const KEY: &str = "tg-fuzz-key";

/// What the upstream was asked, and what the caller got.
pub(crate) struct Played {
    /// The bodies that reached the upstream.
    pub(crate) asked: Vec<Bytes>,
    /// The head of the answer.
    pub(crate) head: http::response::Parts,
    /// The bytes of the answer.
    pub(crate) body: Vec<u8>,
    /// Whether the answer broke off.
    pub(crate) broken: bool,
}

/// Plays `request`; the upstream answers 200 with `pieces`.
pub(crate) fn play(
    request: http::Request<Body>,
    content_type: &'static str,
    pieces: &[Bytes],
) -> Played {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let clock = Still::default();
    let tasks = Rc::new(List::default());
    let platform = Platform {
        upstream: Rc::new(Scripted {
            asked: Rc::clone(&asked),
            content_type,
            pieces: pieces.to_vec(),
        }),
        ledger: Rc::new(Accounts {
            accounts: RefCell::default(),
            clock: clock.clone(),
        }),
        clock: Rc::new(clock.clone()),
        tasks: Rc::<List>::clone(&tasks),
        journal: Rc::new(Silence),
        dice: Rc::new(RefCell::new(Dice::new([7; 16]))),
    };
    let document: Value = toml::from_str(CONFIG).unwrap();
    let secrets = BTreeMap::from([("WEB_KEY".to_owned(), KEY.to_owned())]);
    let config = Config::build(&document, Some(&secrets), Runtime::Native)
        .expect("the configuration is right");
    let gateway = Gateway::new(Rc::new(config), platform);
    let (head, body, broken) = run(&clock, &tasks, async move {
        let (head, mut body) = gateway.serve(request, None).await.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            match frame {
                Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
                Err(_) => return (head, bytes, true),
            }
        }
        (head, bytes, false)
    });
    Played {
        asked: asked.take(),
        head,
        body,
        broken,
    }
}

/// Runs `future` and all tasks to their end.
fn run<T>(clock: &Still, tasks: &List, future: impl Future<Output = T>) -> T {
    let alarm = Arc::new(Alarm(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&alarm));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    let mut output = None;
    loop {
        while alarm.0.swap(false, Ordering::Relaxed) || !tasks.new.borrow().is_empty() {
            if output.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(&mut cx)
            {
                output = Some(value);
            }
            tasks.poll(&mut cx);
        }
        if tasks.running.borrow().is_empty()
            && let Some(output) = output.take()
        {
            return output;
        }
        let next = clock.0.next.replace(u64::MAX);
        assert!(next < u64::MAX, "everybody waits for nothing");
        clock.0.now.set(next);
        alarm.0.store(true, Ordering::Relaxed);
    }
}

struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Scripted {
    asked: Rc<RefCell<Vec<Bytes>>>,
    content_type: &'static str,
    pieces: Vec<Bytes>,
}

#[async_trait(?Send)]
impl Upstream for Scripted {
    async fn send(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Failure> {
        if let Ok(bytes) = request.into_body().read(u64::MAX).await {
            self.asked.borrow_mut().push(bytes);
        }
        let body = Body::arriving(Pieces(self.pieces.clone().into()));
        let mut answer = http::Response::new(body);
        answer.headers_mut().insert(
            "content-type",
            http::HeaderValue::from_static(self.content_type),
        );
        Ok(answer)
    }
}

/// A body in given pieces.
pub(crate) struct Pieces(pub(crate) VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

struct Accounts {
    accounts: RefCell<BTreeMap<Rc<str>, Account>>,
    clock: Still,
}

#[async_trait(?Send)]
impl Ledger for Accounts {
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

/// A clock whose hands are moved when nobody can go on.
#[derive(Clone)]
struct Still(Rc<Face>);

struct Face {
    now: Cell<u64>,
    next: Cell<u64>,
}

impl Default for Still {
    fn default() -> Self {
        Self(Rc::new(Face {
            now: Cell::new(1_800_000_000_000),
            next: Cell::new(u64::MAX),
        }))
    }
}

#[async_trait(?Send)]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.now.get())
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now().after(duration).0;
        poll_fn(|_| {
            if self.0.now.get() >= until {
                return Poll::Ready(());
            }
            self.0.next.set(self.0.next.get().min(until));
            Poll::Pending
        })
        .await;
    }
}

#[derive(Default)]
struct List {
    new: RefCell<Vec<Task>>,
    running: RefCell<Vec<Task>>,
}

impl List {
    fn poll(&self, cx: &mut Context<'_>) {
        let mut running = self.running.take();
        running.append(&mut self.new.borrow_mut());
        running.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        self.running.replace(running);
    }
}

impl Tasks for List {
    fn spawn(&self, task: Task) {
        self.new.borrow_mut().push(task);
    }
}

struct Silence;

impl Journal for Silence {
    fn write(&self, record: &Record) {
        let line = serde_json::to_string(record).expect("a record is JSON");
        assert!(!line.contains(KEY), "a key is on the record");
    }
}
