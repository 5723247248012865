//! The core alone, with one caller and one upstream.

use std::{cell::RefCell, future::poll_fn, pin::Pin, rc::Rc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::Body as _;
use tidegate_core::{
    Body, Config, Gateway,
    config::{Runtime, Value},
    platform::{Journal, Upstream},
    record::Record,
    upstream::Failure,
};
use tidegate_tests::memory::{Isolate, Pieces};

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
    let isolate = Isolate::default();
    let upstream = Scripted {
        asked: Rc::clone(&asked),
        content_type,
        pieces: pieces.to_vec(),
    };
    let platform = isolate.platform(Rc::new(upstream), Rc::new(Silence));
    let document: Value = toml::from_str(CONFIG).unwrap();
    let secrets = [("WEB_KEY".to_owned(), KEY.to_owned())];
    let config = Config::build(&document, Some(&secrets), Runtime::Native)
        .expect("the configuration is right");
    let gateway = Gateway::new(Rc::new(config), platform);
    let heard = Rc::new(RefCell::new(None));
    let hear = Rc::clone(&heard);
    let over = isolate.run_out(vec![Box::pin(async move {
        let answer = gateway.serve(request, None).await;
        hear.replace(Some(listen(answer).await));
    })]);
    assert!(over, "everybody waits for nothing");
    let (head, body, broken) = heard.take().expect("all is over");
    Played {
        asked: asked.take(),
        head,
        body,
        broken,
    }
}

/// The answer's head, its bytes, and whether it broke off.
async fn listen(answer: http::Response<Body>) -> (http::response::Parts, Vec<u8>, bool) {
    let (head, mut body) = answer.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame {
            Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
            Err(_) => return (head, bytes, true),
        }
    }
    (head, bytes, false)
}

struct Scripted {
    asked: Rc<RefCell<Vec<Bytes>>>,
    content_type: &'static str,
    pieces: Vec<Bytes>,
}

#[async_trait(?Send)]
impl Upstream for Scripted {
    async fn send(
        &self,
        request: http::Request<Body>,
        _: Duration,
    ) -> Result<http::Response<Body>, Failure> {
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

struct Silence;

impl Journal for Silence {
    fn write(&self, record: &Record) {
        let line = serde_json::to_string(record).expect("a record is JSON");
        assert!(!line.contains(KEY), "a key is on the record");
    }
}
