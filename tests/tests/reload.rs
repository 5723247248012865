//! A configuration takes the place of another one while requests are in progress.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{cell::RefCell, rc::Rc, time::Duration};

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use tidegate_core::{
    Body, Config, Gateway, Holdings, Platform,
    config::Runtime,
    dice::Dice,
    platform::{Clock, Journal, Task, Upstream},
    record::Record,
    upstream::Failure,
};
use tidegate_tests::memory::Isolate;

/// Takes a second for every answer.
struct Slow {
    clock: RefCell<Option<Rc<dyn Clock>>>,
    /// How many it was answering when it was asked, one more each.
    asked: RefCell<Vec<usize>>,
    answering: RefCell<usize>,
}

#[async_trait(?Send)]
impl Upstream for Slow {
    async fn send(&self, _: Request<Body>, _: Duration) -> Result<Response<Body>, Failure> {
        *self.answering.borrow_mut() += 1;
        self.asked.borrow_mut().push(*self.answering.borrow());
        let clock = self.clock.borrow().clone().unwrap();
        clock.sleep(Duration::from_secs(1)).await;
        *self.answering.borrow_mut() -= 1;
        Ok(Response::new(Body::from(r#"{"choices":[{}]}"#.to_owned())))
    }
}

struct Nobody;

impl Journal for Nobody {
    fn write(&self, _: &Record) {}
}

fn config(limit: &str) -> Rc<Config> {
    let text = format!(
        r#"
        [gateway]
        limits = [{limit}]
        [providers.alpha]
        dialect = "openai"
        base_url = "http://upstream.test/v1"
        [models.smart]
        targets = ["alpha/a"]
        [[routes]]
        name = "llm"
        path = "/v1"
        serve = "models"
        access = "public"
        "#
    );
    let document = toml::from_str(&text).unwrap();
    let config = Config::build(&document, Some(&[]), Runtime::Native);
    Rc::new(config.unwrap_or_else(|problems| panic!("{problems:?}")))
}

/// What the upstream saw of five callers at once, where `after` took the place of `before` half a second later.
fn seen(before: &str, after: &str) -> (Vec<usize>, Vec<StatusCode>) {
    let upstream = Rc::new(Slow {
        clock: RefCell::default(),
        asked: RefCell::default(),
        answering: RefCell::default(),
    });
    let isolate = Isolate::default();
    let platform: Platform = isolate.platform(upstream.clone(), Rc::new(Nobody));
    upstream.clock.replace(Some(platform.clock.clone()));
    let holdings = Holdings::new(&mut Dice::new([3; 16]));
    let gateway = Gateway::with(config(before), platform.clone(), holdings.clone());
    let statuses = Rc::new(RefCell::new(Vec::new()));
    let call = || {
        let (gateway, statuses) = (gateway.clone(), statuses.clone());
        Box::pin(async move {
            let request = Request::post("/v1/chat/completions")
                .body(Body::from(r#"{"model":"smart","messages":[]}"#.to_owned()))
                .unwrap();
            let answer = gateway.serve(request, None).await;
            statuses.borrow_mut().push(answer.status());
        }) as Task
    };
    let mut tasks: Vec<Task> = (0..5).map(|_| call()).collect();
    let after = config(after);
    tasks.push(Box::pin(async move {
        platform.clock.sleep(Duration::from_millis(500)).await;
        drop(Gateway::with(after, platform, holdings));
    }));
    assert!(isolate.run(tasks));
    (upstream.asked.take(), statuses.take())
}

#[test]
fn whoever_waits_keeps_to_the_limit_that_is_in_force() {
    let queue = r#"{ concurrent = 2, queue = 10, wait = "30s" }"#;
    let (asked, statuses) = seen(queue, queue);
    assert_eq!(
        asked.iter().skip(2).max(),
        Some(&2),
        "{asked:?} {statuses:?}"
    );
    let (asked, statuses) = seen(queue, r#"{ concurrent = 1, queue = 10, wait = "30s" }"#);
    assert_eq!(asked, [1, 2, 1, 1, 1]);
    assert_eq!(statuses, [StatusCode::OK; 5]);
}
