//! Where the configuration comes from.
//!
//! The latest of: the document that was deployed with the Worker, the text variable `TIDEGATE_CONFIG`, and the value
//! `tidegate.json` of the KV namespace `KV`, where these are bound. The last can be changed without a deployment: an
//! isolate looks at it again every half minute, and keeps what it has if the new one is wrong.

use std::{cell::RefCell, rc::Rc, time::Duration};

use js_sys::Promise;
use tidegate_core::{
    Config,
    config::{Problem, Runtime, Value},
    platform::Tasks,
    time::Timestamp,
};
use wasm_bindgen::prelude::*;

use crate::{clock::now, journal::complain, promised::promised, tasks::WaitUntil, text};

/// How long a configuration serves before it is looked for again.
const FRESH: Duration = Duration::from_secs(30);

/// What the isolate runs on.
pub(crate) struct Settings {
    outcome: Result<Rc<Config>, Rc<[Problem]>>,
    /// The text in KV that it was looked for in last.
    stored: Option<String>,
    looked: Timestamp,
}

thread_local! {
    static SETTINGS: RefCell<Option<Settings>> = const { RefCell::new(None) };
}

impl Settings {
    /// The configuration, or what is wrong with it. Only the first calls of an isolate wait for it.
    pub(crate) async fn current(
        env: &JsValue,
        bundled: &JsValue,
        tasks: &WaitUntil,
    ) -> Result<Rc<Config>, Rc<[Problem]>> {
        let now = now();
        let known = SETTINGS.with_borrow_mut(|settings| {
            let settings = settings.as_mut()?;
            let stale = now.since(settings.looked) > FRESH;
            if stale {
                settings.looked = now;
            }
            Some((settings.outcome.clone(), stale))
        });
        match known {
            Some((outcome, false)) => outcome,
            Some((outcome, true)) => {
                tasks.spawn(Box::pin(renew(env.clone())));
                outcome
            }
            None => first(env, bundled, now).await,
        }
    }
}

/// Reads the configuration for the first time in this isolate.
async fn first(
    env: &JsValue,
    bundled: &JsValue,
    now: Timestamp,
) -> Result<Rc<Config>, Rc<[Problem]>> {
    let stored = in_kv(env).await;
    let from_kv = stored.as_ref().and_then(|stored| {
        build(env, stored)
            .map_err(|problems| report("KV", &problems))
            .ok()
    });
    let outcome = match from_kv {
        Some(config) => Ok(config),
        None => build(env, &deployed(env, bundled)).map_err(|problems| {
            report("the deployment", &problems);
            Rc::from(problems)
        }),
    };
    SETTINGS.with_borrow_mut(|settings| {
        *settings = Some(Settings {
            outcome: outcome.clone(),
            stored,
            looked: now,
        });
    });
    outcome
}

/// Looks whether KV has another configuration than before.
async fn renew(env: JsValue) {
    let Some(stored) = in_kv(&env).await else {
        return;
    };
    let seen = SETTINGS.with_borrow(|settings| {
        settings
            .as_ref()
            .and_then(|settings| settings.stored.clone())
    });
    if seen.as_deref() == Some(&stored) {
        return;
    }
    let outcome = build(&env, &stored).map_err(|problems| report("KV", &problems));
    SETTINGS.with_borrow_mut(|settings| {
        if let Some(settings) = settings {
            settings.stored = Some(stored);
            if let Ok(config) = outcome {
                settings.outcome = Ok(config);
            }
        }
    });
}

fn build(env: &JsValue, document: &str) -> Result<Rc<Config>, Vec<Problem>> {
    let document: Value = serde_json::from_str(document).map_err(|error| {
        vec![Problem {
            path: String::new(),
            at: None,
            message: format!("the configuration is no JSON: {error}"),
        }]
    })?;
    let secrets: Vec<(String, String)> = Config::secrets(&document)
        .into_iter()
        .filter_map(|name| variable(env, &name).map(|secret| (name, secret)))
        .collect();
    Config::build(&document, Some(&secrets), Runtime::Cloudflare).map(Rc::new)
}

fn deployed(env: &JsValue, bundled: &JsValue) -> String {
    variable(env, "TIDEGATE_CONFIG")
        .or_else(|| bundled.as_string())
        .unwrap_or_default()
}

async fn in_kv(env: &JsValue) -> Option<String> {
    match promised(&stored(env)).await {
        Ok(document) => document.as_string(),
        Err(error) => {
            complain(&format!(
                "the configuration in KV cannot be read: {}",
                text(&error)
            ));
            None
        }
    }
}

fn report(place: &str, problems: &[Problem]) {
    for problem in problems {
        complain(&format!("the configuration in {place} is wrong: {problem}"));
    }
}

#[wasm_bindgen(module = "/src/settings.js")]
extern "C" {
    fn variable(env: &JsValue, name: &str) -> Option<String>;

    fn stored(env: &JsValue) -> Promise;
}
