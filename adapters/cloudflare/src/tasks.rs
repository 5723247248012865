//! Work that may finish after the answer has left.

use js_sys::{Promise, futures::future_to_promise};
use tidegate_core::platform::{Task, Tasks};
use wasm_bindgen::prelude::*;

/// The `ExecutionContext` of a call. It gives work 30 seconds after the answer has ended or the caller has left.
pub(crate) struct WaitUntil(pub(crate) JsValue);

impl Tasks for WaitUntil {
    fn spawn(&self, task: Task) {
        let done = future_to_promise(async move {
            task.await;
            Ok(JsValue::UNDEFINED)
        });
        self.0.unchecked_ref::<Context>().wait_until(&done);
    }
}

#[wasm_bindgen]
extern "C" {
    type Context;

    #[wasm_bindgen(method, js_name = waitUntil)]
    fn wait_until(this: &Context, done: &Promise);
}
