//! The ledger: one Durable Object an account, found by the account's name.

use async_trait::async_trait;
use js_sys::Promise;
use tidegate_core::{
    limit::{Balance, Entry},
    platform::{Fault, Ledger},
};
use wasm_bindgen::prelude::*;

use crate::{promised::promised, text};

/// The accounts behind the binding `LEDGER` of the environment within. Each is changed by one call of its object.
pub(crate) struct Accounts(pub(crate) JsValue);

#[async_trait(?Send)]
impl Ledger for Accounts {
    async fn apply(&self, account: &str, entry: Entry) -> Result<Balance, Fault> {
        let entry = serde_json::to_string(&entry).map_err(|error| Fault(error.to_string()))?;
        let promise = apply(&self.0, account, &entry).map_err(|error| Fault(text(&error)))?;
        let balance = promised(&promise)
            .await
            .map_err(|error| Fault(text(&error)))?;
        let balance = balance
            .as_string()
            .ok_or_else(|| Fault("the ledger gave no balance".to_owned()))?;
        serde_json::from_str(&balance).map_err(|error| Fault(error.to_string()))
    }
}

#[wasm_bindgen(module = "/src/ledger.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    fn apply(env: &JsValue, account: &str, entry: &str) -> Result<Promise, JsValue>;
}
