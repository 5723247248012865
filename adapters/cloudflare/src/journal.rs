//! Records of requests.

use tidegate_core::{platform::Journal, record::Record};
use wasm_bindgen::prelude::*;

/// The Worker's log: one line of JSON a record.
pub(crate) struct Console;

impl Journal for Console {
    fn write(&self, record: &Record) {
        if let Ok(line) = serde_json::to_string(record) {
            log(&line);
        }
    }
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn log(line: &str);

    /// Tells the operator of `line`.
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    pub(crate) fn complain(line: &str);
}
