//! The ledger: one Durable Object an account, found by the account's name.

use std::time::Duration;

use async_trait::async_trait;
use js_sys::Promise;
use tidegate_core::{
    limit::{Balance, Posting},
    platform::{Fault, Ledger},
};
use wasm_bindgen::prelude::*;

use crate::{
    promised::{Promised, promised},
    text,
};

/// An isolate can be gone at any time, but one that is called often lives for minutes.
const LONGEST_LEASE: Duration = Duration::from_secs(10);

/// The accounts behind the binding `LEDGER` of the environment within. Each is changed by one call of its object.
pub(crate) struct Accounts(pub(crate) JsValue);

#[async_trait(?Send)]
impl Ledger for Accounts {
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        // All are on their way before the first is awaited.
        let calls: Vec<_> = postings.iter().map(|posting| self.call(posting)).collect();
        let mut balances = Vec::with_capacity(calls.len());
        for (call, posting) in calls.into_iter().zip(postings) {
            let balance = match call {
                Ok(call) => heard(call).await,
                Err(problem) => Err(problem),
            };
            balances.push(balance.map_err(|problem| {
                let name = &posting.account;
                Fault(format!(
                    "the Durable Object of the account `{name}`: {problem}"
                ))
            }));
        }
        balances
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn longest_lease(&self) -> Duration {
        LONGEST_LEASE
    }
}

impl Accounts {
    fn call(&self, posting: &Posting) -> Result<Promised, String> {
        let entry = serde_json::to_string(&posting.entry).map_err(|error| error.to_string())?;
        let promise = apply(&self.0, &posting.account, &entry).map_err(|error| text(&error))?;
        Ok(promised(&promise))
    }
}

async fn heard(call: Promised) -> Result<Balance, String> {
    let balance = call.await.map_err(|error| text(&error))?;
    let balance = balance.as_string().ok_or("it gave no balance")?;
    serde_json::from_str(&balance).map_err(|error| error.to_string())
}

#[wasm_bindgen(module = "/src/ledger.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    fn apply(env: &JsValue, account: &str, entry: &str) -> Result<Promise, JsValue>;
}
