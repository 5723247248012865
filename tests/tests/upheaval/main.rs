//! Upstreams that fail in every way, at random, under callers who come and leave as they like: whole requests, simulated.
//!
//! Whatever happens, no request hangs past its bound, nothing is called whole that is not, no more is asked than may be, what was
//! held is settled once, and no task is left. `TIDEGATE_SEEDS=17` plays one seed, `TIDEGATE_SEEDS=0..5000` more than usual.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod upstream;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    future::poll_fn,
    ops::Range,
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use http::Request;
use http_body::Body as _;
use serde_json::{Value, json};
use tidegate_core::{
    Body, Config, Gateway,
    config::Runtime,
    dice::Dice,
    platform::{Clock, Journal, Task},
    record::Record,
    time::millis,
};
use tidegate_tests::memory::Isolate;

use upstream::{Faulty, answers};

/// How many requests there are of each seed, and within which time they come.
const REQUESTS: usize = 20;
const WITHIN: Duration = Duration::from_secs(20);

/// How long a request may take in all, as the configuration says; and a moment.
const TOTAL: Duration = Duration::from_millis(12_100);

/// How many may be asked for one, as the configuration says; and each a second time, where it takes no prefill.
const ATTEMPTS: usize = 3;

const CONFIG: &str = r#"
    [gateway]
    admin_key = "$ADMIN"
    limits = [{ tokens = 1_000_000, per = "1h" }, { concurrent = 100 }]
    [providers.alpha]
    dialect = "openai"
    base_url = "http://alpha.test/v1"
    keys = ["$ONE", "$TWO"]
    [providers.beta]
    dialect = "openai"
    base_url = "http://beta.test/v1"
    [providers.gamma]
    dialect = "openai"
    base_url = "http://gamma.test/v1"
    prefill = true
    [models.smart]
    targets = ["alpha/a", "beta/b", "gamma/c"]
    retry = { attempts = 3 }
    timeouts = { first_token = "2s", idle = "1500ms", total = "12s" }
    [models.assembled]
    targets = ["alpha/a", "beta/b", "gamma/c"]
    retry = { attempts = 3 }
    timeouts = { first_token = "2s", idle = "1500ms", total = "12s" }
    stream_upstream = true
    hedge = { percent = 50, after = "300ms" }
    [models.patient]
    targets = ["alpha/a", "beta/b", "gamma/c"]
    retry = { attempts = 3 }
    timeouts = { first_token = "20s", idle = "1500ms", total = "48s" }
    [[routes]]
    name = "llm"
    path = "/v1"
    serve = "models"
    access = "public"
"#;

/// What a caller got.
#[derive(Clone, Debug, Default)]
struct Heard {
    status: u16,
    body: String,
    left: bool,
    took: Duration,
}

#[derive(Default)]
struct Records(RefCell<HashMap<String, Vec<Value>>>);

impl Journal for Records {
    fn write(&self, record: &Record) {
        let mut records = self.0.borrow_mut();
        let record_of = records.entry(record.id.clone()).or_default();
        record_of.push(serde_json::to_value(record).unwrap());
    }
}

/// How often each ending came.
type Tally = BTreeMap<String, usize>;

#[test]
fn whatever_upstreams_do_the_caller_knows_what_he_has() {
    let mut tally = Tally::new();
    for seed in seeds() {
        if let Err(wrong) = play(seed, &mut tally) {
            panic!("TIDEGATE_SEEDS={seed}: {wrong}");
        }
    }
    println!("{tally:?}");
    for ending in ["whole", "rescued", "truncated", "abandoned", "refused"] {
        assert!(
            tally.contains_key(ending),
            "no request ended {ending}: {tally:?}"
        );
    }
}

fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var("TIDEGATE_SEEDS") else {
        return 0..150;
    };
    let (first, end) = asked.split_once("..").unwrap_or((&asked, ""));
    let first = first.parse().unwrap();
    first..end.parse().unwrap_or(first + 1)
}

fn play(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let dice = Rc::new(RefCell::new(Dice::new(bytes)));
    let isolate = Isolate::default();
    let upstream = Rc::new(Faulty::new(dice.clone()));
    let records = Rc::new(Records::default());
    let platform = isolate.platform(upstream.clone(), records.clone());
    upstream.clock.replace(Some(platform.clock.clone()));
    let document = toml::from_str(CONFIG).unwrap();
    let secrets = ["ADMIN", "ONE", "TWO"].map(|name| (name.to_owned(), name.to_lowercase()));
    let config = Config::build(&document, Some(&secrets), Runtime::Native);
    let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
    let gateway = Gateway::new(Rc::new(config), platform.clone());

    let heard: Rc<RefCell<Vec<Option<Heard>>>> = Rc::new(RefCell::new(vec![None; REQUESTS]));
    let calls = (0..REQUESTS).map(|number| {
        let (gateway, clock, heard, dice) = (
            gateway.clone(),
            platform.clock.clone(),
            heard.clone(),
            dice.clone(),
        );
        Box::pin(async move {
            let (after, stream, patience) = {
                let dice = &mut dice.borrow_mut();
                let after = dice.between(0, millis(WITHIN));
                let leaves = dice.chance(0.1).then(|| dice.between(0, 4_000));
                (after, dice.chance(0.75), leaves)
            };
            clock.sleep(Duration::from_millis(after)).await;
            let got = call(&gateway, number, stream, patience, &*clock).await;
            heard.borrow_mut()[number] = Some(got);
        }) as Task
    });
    if !isolate.run_out(calls.collect()) {
        return Err("somebody waits for nothing, or a task is left".into());
    }
    for (number, heard) in heard.borrow().iter().enumerate() {
        let heard = heard.as_ref().ok_or("a caller got nothing")?;
        check(number, heard).map_err(|wrong| format!("request {number}: {wrong}: {heard:?}"))?;
    }
    let records = records.0.borrow();
    if records.len() != REQUESTS {
        return Err(format!("{} records of {REQUESTS} requests", records.len()));
    }
    for written in records.values() {
        let [record] = &written[..] else {
            return Err(format!("recorded twice: {written:?}"));
        };
        let attempts = record["attempts"].as_array().unwrap().iter();
        let attempts = attempts.filter(|attempt| attempt["outcome"] != "outpaced");
        if attempts.count() > ATTEMPTS + 2 {
            return Err(format!("too many were asked: {record}"));
        }
        let ended = record["ended"].as_str().unwrap();
        if ended == "abandoned" && record["attempts"][0].is_null() {
            return Err(format!("nobody was asked for it: {record}"));
        }
        *tally.entry(ended.into()).or_default() += 1;
    }
    drop(records);
    settled(&isolate, &gateway, platform.clock.clone())
}

async fn call(
    gateway: &Gateway,
    number: usize,
    stream: bool,
    patience: Option<u64>,
    clock: &dyn Clock,
) -> Heard {
    let body = json!({
        "model": model(number),
        "stream": stream,
        "messages": [{ "role": "user", "content": format!("question {number}") }],
    });
    let request = Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let began = clock.now();
    let mut heard = Heard::default();
    {
        let listening = async {
            let answer = gateway.serve(request, None).await;
            heard.status = answer.status().as_u16();
            let mut body = answer.into_body();
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let data = frame.unwrap().into_data().unwrap_or_default();
                heard.body += std::str::from_utf8(&data).unwrap();
            }
        };
        let leaving = Duration::from_millis(patience.unwrap_or(1_000_000));
        heard.left = !either(listening, clock.sleep(leaving)).await;
    }
    heard.took = clock.now().since(began);
    heard
}

fn model(number: usize) -> &'static str {
    ["smart", "assembled", "patient"][number % 3]
}

/// Whether the first is over before the second.
async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) -> bool {
    let (mut one, mut other) = (Box::pin(one), Box::pin(other));
    poll_fn(|cx| {
        if one.as_mut().poll(cx).is_ready() {
            return std::task::Poll::Ready(true);
        }
        other.as_mut().poll(cx).map(|()| false)
    })
    .await
}

/// What a caller got is whole, or says that it is not, in time.
fn check(number: usize, heard: &Heard) -> Result<(), String> {
    let total = if model(number) == "patient" {
        4 * TOTAL
    } else {
        TOTAL
    };
    if heard.took > total {
        return Err("it took too long".into());
    }
    if heard.left {
        return Ok(());
    }
    if !heard.body.contains("data: ") {
        let answer: Value = serde_json::from_str(&heard.body).map_err(|error| error.to_string())?;
        let text = answer["choices"][0]["message"]["content"].as_str();
        return match text {
            Some(text) if heard.status == 200 && is_answer(number, text) => Ok(()),
            None if heard.status >= 400 && answer["error"].is_object() => Ok(()),
            _ => Err("neither an answer nor an error".into()),
        };
    }
    let mut text = String::new();
    let mut ids = Vec::new();
    let (mut finished, mut done, mut failed) = (0, 0, 0);
    for event in heard.body.split_terminator("\n\n") {
        let Some(data) = event.strip_prefix("data: ") else {
            if event.starts_with(':') {
                continue;
            }
            return Err(format!("no event: {event}"));
        };
        if done > 0 || failed > 0 {
            return Err("something comes after the end".into());
        }
        if data == "[DONE]" {
            done += 1;
            continue;
        }
        let event: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        if event["error"].is_object() {
            failed += 1;
            continue;
        }
        ids.push(event["id"].clone());
        let choice = &event["choices"][0];
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        finished += usize::from(choice["finish_reason"].is_string());
    }
    ids.dedup();
    if ids.len() > 1 {
        return Err("its parts have several names".into());
    }
    match (finished, done, failed) {
        // A stream that has finished may lack its last word, or say that something has failed since.
        (1, 0, 0 | 1) | (1, 1, 0) if is_answer(number, &text) => Ok(()),
        (1, ..) => Err(format!("called whole: {text}")),
        (0, 0, 1) => Ok(()),
        _ => Err("it has no end".into()),
    }
}

fn is_answer(number: usize, text: &str) -> bool {
    answers(&format!("question {number}"))
        .iter()
        .any(|answer| answer == text)
}

/// Once all is over, nobody holds a place any more; nor tokens, once the ledger knows that what was not given back is spent.
fn settled(isolate: &Isolate, gateway: &Gateway, clock: Rc<dyn Clock>) -> Result<(), String> {
    let page = Rc::new(RefCell::new(String::new()));
    let (gateway, seen) = (gateway.clone(), page.clone());
    let ask = Box::pin(async move {
        clock.sleep(Duration::from_secs(120)).await;
        let request = Request::get("/_tidegate/limits")
            .header("authorization", "Bearer admin")
            .body(Body::empty())
            .unwrap();
        let body = gateway.serve(request, None).await.into_body();
        let body = body.read(u64::MAX).await.unwrap();
        *seen.borrow_mut() = String::from_utf8(body.to_vec()).unwrap();
    });
    isolate.run_out(vec![ask]);
    let page: Value = serde_json::from_str(&page.borrow()).map_err(|error| error.to_string())?;
    let limits = page["limits"].as_array().ok_or("there is no page")?;
    let places = limits.iter().find(|limit| limit["unit"] == "concurrent");
    let tokens = limits.iter().find(|limit| limit["unit"] == "tokens");
    let (Some(places), Some(tokens)) = (places, tokens) else {
        return Err(format!("there are no limits: {page}"));
    };
    if places["left"] != 100 || tokens["held"] != 0 {
        return Err(format!("something is still held: {page}"));
    }
    Ok(())
}
