//! The Durable Object behind one account: it loads, applies and saves, and the core counts.

use std::{cell::RefCell, time::Duration};

use js_sys::Promise;
use tidegate_core::{
    limit::{self, Entry, Quota},
    time::Timestamp,
};
use wasm_bindgen::prelude::*;

use crate::{clock::now, promised::promised};

/// How long an account is left lying at least, so that one in use does not wake for nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// One account, in the object's SQLite. What is kept in memory is only there to save reading it again.
#[wasm_bindgen]
pub struct Account {
    storage: JsValue,
    row: RefCell<Option<Row>>,
}

/// What is stored.
#[derive(Default)]
struct Row {
    account: limit::Account,
    /// What was allowed when it was last changed; it says when the account is empty.
    quota: Option<Quota>,
}

#[wasm_bindgen]
impl Account {
    /// The account in `storage`.
    #[wasm_bindgen(constructor)]
    pub fn new(storage: JsValue) -> Self {
        Self {
            storage,
            row: RefCell::default(),
        }
    }

    /// Changes the account by `entry` and returns its balance, both as JSON.
    ///
    /// It never waits, so no other entry comes in between; and the runtime lets the answer out only when what was
    /// saved is on disk.
    pub fn apply(&self, entry: &str) -> Result<String, JsValue> {
        let entry: Entry = serde_json::from_str(entry).map_err(|error| complaint(&error))?;
        let mut row = self.row.take().map_or_else(|| self.load(), Ok)?;
        let balance = row.account.apply(&entry, now());
        // Whoever is refused may come often, and most refusals change nothing that counts.
        if entry.is_kept(&balance) {
            row.quota = Some(entry.quota);
            let quota = serde_json::to_string(&entry.quota).map_err(|error| complaint(&error))?;
            save(&self.storage, row.account.to_bytes(), &quota)?;
        }
        self.row.replace(Some(row));
        serde_json::to_string(&balance).map_err(|error| complaint(&error))
    }

    /// Deletes the account if nothing in it counts any more, or looks again when that will be so.
    pub async fn alarm(&self) -> Result<(), JsValue> {
        let row = self.row.take().map_or_else(|| self.load(), Ok)?;
        let now = now();
        let empty_at = row
            .quota
            .map_or(now, |quota| row.account.empty_at(&quota, now));
        if empty_at > now {
            self.row.replace(Some(row));
            return wake(&self.storage, next_look(empty_at, now));
        }
        promised(&forget(&self.storage)?).await.map(drop)
    }
}

impl Account {
    fn load(&self) -> Result<Row, JsValue> {
        let row =
            load(&self.storage)?.map_or_else(|| Ok(Row::default()), |stored| read(&stored))?;
        // Once in the object's life is enough: the alarm sets itself anew until the account is empty.
        let now = now();
        wake(&self.storage, next_look(now, now))?;
        Ok(row)
    }
}

fn next_look(empty_at: Timestamp, now: Timestamp) -> f64 {
    empty_at.max(now.after(PATIENCE)).0 as f64
}

fn read(stored: &Stored) -> Result<Row, JsValue> {
    let account = limit::Account::from_bytes(&stored.state()).map_err(|error| complaint(&error))?;
    let quota = serde_json::from_str(&stored.quota()).map_err(|error| complaint(&error))?;
    Ok(Row {
        account,
        quota: Some(quota),
    })
}

fn complaint(error: &dyn std::error::Error) -> JsValue {
    js_sys::Error::new(&error.to_string()).into()
}

#[wasm_bindgen(module = "/src/ledger.js")]
extern "C" {
    type Stored;

    #[wasm_bindgen(method, getter)]
    fn state(this: &Stored) -> Vec<u8>;

    #[wasm_bindgen(method, getter)]
    fn quota(this: &Stored) -> String;

    #[wasm_bindgen(catch)]
    fn load(storage: &JsValue) -> Result<Option<Stored>, JsValue>;

    #[wasm_bindgen(catch)]
    fn save(storage: &JsValue, state: Vec<u8>, quota: &str) -> Result<(), JsValue>;

    #[wasm_bindgen(catch)]
    fn wake(storage: &JsValue, time: f64) -> Result<(), JsValue>;

    #[wasm_bindgen(catch)]
    fn forget(storage: &JsValue) -> Result<Promise, JsValue>;
}
