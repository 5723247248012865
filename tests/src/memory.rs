//! The core alone, on a platform in memory: scripted upstreams, and a clock that stands still until somebody sleeps.

mod clock;
mod isolate;
mod ledger;
mod pieces;
mod upstream;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use serde_json::Value;
use tidegate_core::{
    Body, Config, Gateway, config,
    platform::{Clock, Journal, Task},
    record::Record,
    time::Timestamp,
};

use self::{clock::StillClock, pieces::Garbled, upstream::ScriptedUpstream};
pub use self::{isolate::Isolate, pieces::Pieces};
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
    isolate: Isolate,
    records: Rc<Records>,
    secrets: BTreeMap<String, String>,
}

impl Memory {
    /// A gateway of `config`, which nobody has called.
    pub fn start(config: &str, secrets: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = address(
            config,
            "http://upstream.test",
            "http://refused.test",
            "http://silent.test",
        );
        let document: config::Value = toml::from_str(&text).map_err(|error| error.to_string())?;
        let named: Vec<_> = secrets.clone().into_iter().collect();
        let config = Config::build(&document, Some(&named), config::Runtime::Native).map_err(
            |problems| {
                problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            },
        )?;
        let script = Rc::new(Script::default());
        let isolate = Isolate::default();
        let records = Rc::new(Records::default());
        let upstream = ScriptedUpstream {
            script: Rc::clone(&script),
            clock: isolate.clock.clone(),
        };
        let platform = isolate.platform(Rc::new(upstream), Rc::<Records>::clone(&records));
        let gateway = Gateway::new(Rc::new(config), platform);
        Ok(Self {
            gateway,
            script,
            isolate,
            records,
            secrets: secrets.clone(),
        })
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
                self.isolate.clock.clone(),
                Rc::clone(&replies),
            );
            let (request, call) = (request(call, &self.secrets), call.clone());
            Box::pin(async move {
                let start = clock.now();
                let reply = match request {
                    Ok(request) => {
                        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
                        let answered = async {
                            let answer = gateway.serve(request, Some(peer)).await;
                            listen(answer, &call, &clock, start).await
                        };
                        match call.leave_after_ms {
                            None => answered.await,
                            Some(after) => {
                                let after = Duration::from_millis(after);
                                or_leaves(answered, clock.sleep(after)).await
                            }
                        }
                    }
                    Err(trouble) => Reply {
                        trouble,
                        ..Reply::default()
                    },
                };
                replies.borrow_mut().push(reply);
            }) as Task
        });
        if !self.isolate.run(futures.collect()) {
            let stuck = Reply {
                trouble: "everybody waits for nothing".into(),
                ..Reply::default()
            };
            replies.borrow_mut().push(stuck);
        }
        replies.take()
    }

    fn wait(&self, duration: Duration) {
        let until = self.isolate.clock.now().after(duration);
        while self.isolate.clock.next().is_some_and(|next| next <= until) {
            self.isolate.clock.skip_ahead();
            self.isolate.run(Vec::new());
        }
        self.isolate.clock.set(until);
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
            self.isolate.run_out(Vec::new());
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
        Some(bytes) if call.chunked || call.garbled => {
            builder = builder.header("transfer-encoding", "chunked");
            let pieces = Pieces(bytes.chunks(16_000).map(Bytes::copy_from_slice).collect());
            if call.garbled {
                Body::arriving(Garbled(pieces))
            } else {
                Body::arriving(pieces)
            }
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

/// What is `answered`, unless its caller `leaves` before.
async fn or_leaves(answered: impl Future<Output = Reply>, leaves: impl Future) -> Reply {
    let (mut answered, mut leaves) = (pin!(answered), pin!(leaves));
    poll_fn(|cx| match answered.as_mut().poll(cx) {
        Poll::Pending => leaves.as_mut().poll(cx).map(|_| Reply::default()),
        answered => answered,
    })
    .await
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
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
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

#[derive(Default)]
struct Records(RefCell<Vec<Value>>);

impl Journal for Records {
    fn write(&self, record: &Record) {
        self.0
            .borrow_mut()
            .push(serde_json::to_value(record).expect("a record is JSON"));
    }
}
