//! Tidegate as a Cloudflare Worker.
//!
//! `entry.mjs` hands each call to [`answer`] as the runtime gave it. What crosses between JavaScript and Rust is one text
//! for the head of a message, and its body only where somebody has to see the bytes: a body that nobody opens goes
//! from one JavaScript object into another (`body.rs`). The ports of the core are one file each.
//!
//! One isolate serves many calls, on one thread. A panic would end all of them, so nothing here panics; should the
//! module trap nevertheless, `entry.mjs` has it instantiated afresh.
//!
//! What has been learnt of upstreams (who fails, which key rests) is each isolate's own, and goes with it.
//!
//! How many calls a Dify bears (`overload`, `permits`) all isolates learn together: a Durable Object for each app and installation lends them
//! places for some seconds. An isolate that has none asks before it lets anybody in, which takes as long as the way to that object.
//!
//! # What this runtime does otherwise than the others
//!
//! * It does not say how far a failed request came: see `upstream.rs`.
//! * A URL arrives resolved: `.` and `..` are gone from it, and quotation marks are escaped; a URL that goes out is too.
//! * The names of headers arrive in lower case, repeated headers of a request as one, joined by `, `, and a value that is not
//!   UTF-8 with a replacement for what is not.
//! * A caller who leaves without a reset is noticed at the next write to him. Streams end by the core's timeouts
//!   whatever the caller does.
//! * How slowly a caller may send its body, or take its answer, is Cloudflare's to say, which closes what is idle for 400 seconds and
//!   names no other bound. Here the core's timeouts alone bound how long such a request lasts, and `concurrent` with `by = "ip"` how many
//!   of them an address has.
//! * What bodies take together that are read whole is bounded by the isolate's 128 MB, beyond which the runtime ends it.
//! * A WebSocket is carried by the runtime once it is open. Its record is written and its place within limits given back then,
//!   and nothing bounds how long it may be silent but its two ends.
//! * An upstream is told the host of its own URL, and what the caller has called only as `x-forwarded-host`.
//! * Cloudflare writes `accept-encoding` itself, and decodes for a caller who cannot. Bodies pass through here as they are:
//!   nothing is decoded or encoded between an upstream and the core.

mod account;
mod body;
mod caller;
mod clock;
mod door;
mod exchange;
mod head;
mod journal;
mod ledger;
mod promised;
mod settings;
mod socket;
mod stream;
mod tasks;
mod upstream;

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
};

use tidegate_core::{Gateway, Holdings, Platform, dice::Dice};
use wasm_bindgen::prelude::*;
use web_sys::{Request, Response};
// Linked for what it exports: worker-build's wrapping begins with it and starts the module again after a trap.
use worker as _;

use crate::{
    caller::Caller, clock::Date, door::Door, journal::Console, ledger::Accounts,
    settings::Settings, tasks::WaitUntil, upstream::Fetch,
};

/// Answers `request`. `bundled` is the configuration that was deployed with the Worker.
#[wasm_bindgen]
pub async fn answer(
    request: Request,
    env: JsValue,
    context: JsValue,
    bundled: JsValue,
) -> Result<Response, JsValue> {
    let tasks = Rc::new(WaitUntil(context.clone()));
    let config = match Settings::current(&env, &bundled, &tasks).await {
        Ok(config) => config,
        Err(problems) => return door::misconfigured(&problems),
    };
    let caller = Caller::new(JsValue::clone(&request), context);
    let Some(Door { request, peer }) = Door::open(request) else {
        return door::malformed();
    };
    let platform = Platform {
        upstream: Rc::new(Fetch),
        ledger: Rc::new(Accounts(env)),
        clock: Rc::new(Date(Rc::clone(&caller))),
        tasks,
        journal: Rc::new(Console),
        dice: dice(),
    };
    match caller
        .stays_for(Gateway::with(config, platform, holdings()).serve(request, peer))
        .await
    {
        Some(response) => door::close(response, &caller),
        None => door::abandoned(),
    }
}

/// What JavaScript says of an error.
fn text(error: &JsValue) -> String {
    error.dyn_ref::<js_sys::Error>().map_or_else(
        || {
            error
                .as_string()
                .unwrap_or_else(|| "an error without a text".to_owned())
        },
        |error| String::from(error.message()),
    )
}

/// What the isolate holds of accounts, from one call to the next.
fn holdings() -> Holdings {
    thread_local! {
        static HOLDINGS: OnceCell<Holdings> = const { OnceCell::new() };
    }
    let drawn = || Holdings::new(&mut dice().borrow_mut());
    HOLDINGS.with(|holdings| holdings.get_or_init(drawn).clone())
}

/// The isolate's dice. They are seeded by the first call, since the runtime gives no entropy before it.
fn dice() -> Rc<RefCell<Dice>> {
    thread_local! {
        static DICE: RefCell<Option<Rc<RefCell<Dice>>>> = const { RefCell::new(None) };
    }
    DICE.with_borrow_mut(|dice| {
        Rc::clone(dice.get_or_insert_with(|| {
            let mut seed = [0; 16];
            if getrandom::fill(&mut seed).is_err() {
                let now = js_sys::Date::now().to_bits().to_le_bytes();
                seed.iter_mut().zip(now).for_each(|(to, from)| *to = from);
            }
            Rc::new(RefCell::new(Dice::new(seed)))
        }))
    })
}
