//! Connections that become WebSockets, as the core sees them: two bodies, and one request that lasts as long as both do.

// A test tells what went wrong by failing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use serde_json::Value;
use tidegate_core::{
    Body, Config, Gateway, Platform,
    body::BoxError,
    config::Runtime,
    platform::{Clock, Journal, Task, Upstream},
    record::Record,
    upstream::Failure,
};
use tidegate_tests::memory::Isolate;

/// One end: what it sends, each after so many seconds, and then its end, or its breaking.
#[derive(Clone, Debug, Default)]
struct End {
    says: Vec<(u64, &'static str)>,
    breaks: bool,
}

/// It says so, and stays.
fn stays(says: &[(u64, &'static str)]) -> End {
    let mut says = says.to_vec();
    // Longer than anybody waits.
    says.push((864_000, ""));
    End {
        says,
        breaks: false,
    }
}

/// It says so, and leaves.
fn leaves(says: &[(u64, &'static str)]) -> End {
    End {
        says: says.to_vec(),
        breaks: false,
    }
}

#[test]
fn it_lasts_as_long_as_either_end_says_something() {
    // For more than an hour the caller alone, and then the upstream alone.
    let callers: Vec<_> = (0..40).map(|_| (100, "ping")).collect();
    let mut upstreams = vec![(4_050, "here")];
    upstreams.extend([(110, "pong"); 3]);
    let told = play(&stays(&callers), &leaves(&upstreams), "");
    assert_eq!(told.status, 101);
    assert_eq!(told.to_caller, "herepongpongpong");
    assert_eq!(told.to_upstream, "ping".repeat(40));
    let record = &told.record;
    assert_eq!(
        (&record["ended"], &record["status"]),
        (&"whole".into(), &101.into())
    );
    assert_eq!(record["total_ms"], 4_380_000, "{record}");
    assert_eq!(record["first_byte_ms"], 0, "{record}");
}

#[test]
fn whoever_leaves_ends_it() {
    let told = play(&leaves(&[(1, "bye")]), &stays(&[(3, "never heard")]), "");
    assert_eq!((&*told.to_upstream, &*told.to_caller), ("bye", ""));
    assert_eq!(told.record["ended"], "abandoned");
    assert_eq!(told.record["total_ms"], 1_000);

    let broken = End {
        breaks: true,
        ..leaves(&[(2, "half")])
    };
    let told = play(&stays(&[]), &broken, "");
    assert_eq!(told.to_caller, "half");
    assert_eq!(told.record["ended"], "truncated");
    assert_eq!(told.record["fault"], "it broke");
    let told = play(&broken, &stays(&[]), "");
    assert_eq!(told.record["ended"], "abandoned");
}

#[test]
fn two_ends_that_are_silent_are_parted() {
    let told = play(&stays(&[(50, "a")]), &stays(&[(60, "b")]), "");
    assert_eq!((&*told.to_upstream, &*told.to_caller), ("a", "b"));
    assert_eq!(told.record["ended"], "truncated");
    assert_eq!(told.record["fault"], "nothing came for too long");
    assert_eq!(told.record["total_ms"], 180_000);
}

#[test]
fn a_place_is_kept_for_hours() {
    let beats: Vec<_> = (0..200).map(|_| (25, "2")).collect();
    let limits = "limits = [{ concurrent = 1 }]";
    let told = play(&stays(&beats), &leaves(&[(4_900, "x")]), limits);
    assert_eq!(told.record["ended"], "whole", "{}", told.record);
    assert_eq!(told.others, [StatusCode::TOO_MANY_REQUESTS; 3]);
}

#[test]
fn an_upstream_that_does_not_answer_is_not_waited_for() {
    let stage = Stage::new(Runtime::Native, "", None);
    let (status, body) = stage.answer(ask("/socket.io/", Body::empty()));
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(body.contains("\"code\":\"upstream_timeout\""), "{body}");
    let record = stage.record();
    assert_eq!(record["total_ms"], 60_000);
    assert_eq!(record["attempts"][0]["outcome"], "timeout");
}

#[test]
fn a_runtime_that_cannot_switch_says_so_as_dify_would() {
    let stage = Stage::new(Runtime::Spin, "", None);
    let (status, body) = stage.answer(ask("/socket.io/", Body::empty()));
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["code"], &body["status"]),
        (&"upgrade_unsupported".into(), &501.into())
    );
    assert_eq!(stage.record()["refusal"], "upgrade_unsupported");
    assert!(stage.upstream.asked.borrow().is_empty());
    // One request after another is another way to the same.
    let polling = Request::get("/socket.io/?transport=polling").header("host", "a");
    let (status, _) = stage.answer(polling.body(Body::empty()).unwrap());
    assert_eq!(status, StatusCode::OK);
    // Elsewhere it is an offer that is left alone.
    let (status, _) = stage.answer(ask("/apps", Body::empty()));
    assert_eq!(status, StatusCode::OK);
}

#[test]
fn what_comes_after_the_switch_is_no_body_of_an_ordinary_request() {
    for path in ["/apps", "/v1/info", "/_tidegate/health", "/models/files"] {
        let stage = Stage::new(Runtime::Native, "", None);
        let afterwards = Body::arriving(Sending::new(&stays(&[(1, "x")]), &stage.clock));
        let (status, _) = stage.answer(ask(path, afterwards));
        assert_eq!(status, StatusCode::OK, "{path}");
        let asked = stage.upstream.asked.borrow();
        assert_eq!(asked.is_empty(), path == "/_tidegate/health");
        for (headers, size) in asked.iter() {
            assert_eq!(*size, Some(0), "{path}");
            for name in ["upgrade", "connection"] {
                assert!(!headers.contains_key(name), "{path}: {headers:?}");
            }
        }
    }
}

/// What came of it.
struct Told {
    status: u16,
    to_caller: String,
    to_upstream: String,
    record: Value,
    /// What others heard meanwhile who asked for the same.
    others: Vec<StatusCode>,
}

/// Has a caller and an upstream talk to each other.
fn play(caller: &End, upstream: &End, limits: &str) -> Told {
    let stage = Stage::new(Runtime::Native, limits, Some(upstream));
    let sending = Sending::new(caller, &stage.clock);
    let request = ask("/socket.io/?transport=websocket", Body::arriving(sending));
    let heard: Rc<RefCell<(u16, Vec<u8>)>> = Rc::default();
    let (taken, gateway) = (heard.clone(), stage.gateway.clone());
    let mut tasks: Vec<Task> = vec![Box::pin(async move {
        let (head, body) = gateway.serve(request, None).await.into_parts();
        taken.borrow_mut().0 = head.status.as_u16();
        hear(body, |piece| taken.borrow_mut().1.extend_from_slice(piece)).await;
    })];
    let others: Rc<RefCell<Vec<StatusCode>>> = Rc::default();
    for wait in [10, 1_000, 4_000]
        .into_iter()
        .filter(|_| !limits.is_empty())
    {
        let (others, gateway) = (others.clone(), stage.gateway.clone());
        let clock = stage.clock.clone();
        tasks.push(Box::pin(async move {
            clock.sleep(Duration::from_secs(wait)).await;
            let answer = gateway.serve(ask("/socket.io/", Body::empty()), None).await;
            others.borrow_mut().push(answer.status());
        }));
    }
    assert!(stage.isolate.run(tasks), "everybody waits for nothing");
    let (status, to_caller) = heard.take();
    Told {
        status,
        to_caller: String::from_utf8(to_caller).unwrap(),
        to_upstream: String::from_utf8(stage.upstream.heard.take()).unwrap(),
        record: stage.record(),
        others: others.take(),
    }
}

struct Stage {
    isolate: Isolate,
    clock: Rc<dyn Clock>,
    gateway: Gateway,
    upstream: Rc<Switching>,
    records: Rc<Records>,
}

impl Stage {
    /// A gateway before a Dify whose end of a WebSocket says so; it does not answer who asks for one if it says nothing at all.
    fn new(runtime: Runtime, limits: &str, says: Option<&End>) -> Self {
        let text = format!(
            r#"
            [providers.alpha]
            dialect = "openai"
            base_url = "http://alpha.test/v1"
            [dify.main]
            api = "http://api.test"
            web = "http://web.test"
            [[routes]]
            name = "models"
            path = "/models"
            serve = "models"
            access = "public"
            [[routes]]
            name = "dify"
            path = "/"
            serve = "dify.main"
            access = "public"
            {limits}
            "#
        );
        let document = toml::from_str(&text).unwrap();
        let config = Config::build(&document, Some(&[]), runtime);
        let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
        let isolate = Isolate::default();
        let records = Rc::new(Records::default());
        let upstream = Rc::new(Switching {
            says: says.cloned(),
            ..Switching::default()
        });
        let platform = isolate.platform(upstream.clone(), records.clone());
        let clock = platform.clock.clone();
        *upstream.platform.borrow_mut() = Some(platform.clone());
        Self {
            gateway: Gateway::new(Rc::new(config), platform),
            isolate,
            clock,
            upstream,
            records,
        }
    }

    /// What is answered to `request` alone.
    fn answer(&self, request: Request<Body>) -> (StatusCode, String) {
        let answered = Rc::new(RefCell::new(None));
        let (taken, gateway) = (answered.clone(), self.gateway.clone());
        let task: Task = Box::pin(async move {
            let (head, body) = gateway.serve(request, None).await.into_parts();
            let mut heard = Vec::new();
            hear(body, |piece| heard.extend_from_slice(piece)).await;
            let heard = String::from_utf8(heard).unwrap();
            taken.replace(Some((head.status, heard)));
        });
        assert!(self.isolate.run(vec![task]), "it waits for nothing");
        answered.take().unwrap()
    }

    /// The last record.
    fn record(&self) -> Value {
        self.records.0.borrow().last().unwrap().clone()
    }
}

/// What a browser asks that has a connection become a WebSocket.
fn ask(path: &str, afterwards: Body) -> Request<Body> {
    Request::get(path)
        .header("host", "dify.test")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(afterwards)
        .unwrap()
}

async fn hear(mut body: Body, mut each: impl FnMut(&[u8])) {
    let next =
        |body: &mut Body, cx: &mut Context<'_>| http_body::Body::poll_frame(Pin::new(body), cx);
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| next(&mut body, cx)).await {
        each(frame.data_ref().unwrap());
    }
}

/// What one end sends.
struct Sending {
    left: VecDeque<(u64, &'static str)>,
    breaks: bool,
    clock: Rc<dyn Clock>,
    pause: Option<Task>,
}

impl Sending {
    fn new(end: &End, clock: &Rc<dyn Clock>) -> Self {
        Self {
            left: end.says.iter().copied().collect(),
            breaks: end.breaks,
            clock: clock.clone(),
            pause: None,
        }
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some((after, says)) = self.left.front().copied() else {
            return Poll::Ready(self.breaks.then(|| Err("it broke".into())));
        };
        let clock = self.clock.clone();
        let pause = self.pause.get_or_insert_with(|| {
            Box::pin(async move { clock.sleep(Duration::from_secs(after)).await })
        });
        std::task::ready!(pause.as_mut().poll(cx));
        self.pause = None;
        self.left.pop_front();
        Poll::Ready(Some(Ok(Frame::data(says.into()))))
    }
}

/// A Dify that switches when it is asked to.
#[derive(Default)]
struct Switching {
    says: Option<End>,
    /// What came once it had switched.
    heard: Rc<RefCell<Vec<u8>>>,
    /// The headers of what it was asked, and how long the body was.
    asked: RefCell<Vec<(HeaderMap, Option<u64>)>>,
    platform: RefCell<Option<Platform>>,
}

#[async_trait(?Send)]
impl Upstream for Switching {
    async fn send(&self, request: Request<Body>, _: Duration) -> Result<Response<Body>, Failure> {
        let (head, body) = request.into_parts();
        let switches = head.headers.contains_key("upgrade");
        self.asked.borrow_mut().push((head.headers, body.size()));
        if !switches {
            return Ok(Response::new(Body::from("{}".to_owned())));
        }
        let Some(says) = &self.says else {
            return std::future::pending().await;
        };
        let platform = self.platform.borrow().clone().unwrap();
        let heard = self.heard.clone();
        platform.tasks.spawn(Box::pin(hear(body, move |piece| {
            heard.borrow_mut().extend_from_slice(piece);
        })));
        let mut response = Response::new(Body::arriving(Sending::new(says, &platform.clock)));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        Ok(response)
    }
}

#[derive(Default)]
struct Records(RefCell<Vec<Value>>);

impl Journal for Records {
    fn write(&self, record: &Record) {
        let record = serde_json::to_value(record).unwrap();
        self.0.borrow_mut().push(record);
    }
}
