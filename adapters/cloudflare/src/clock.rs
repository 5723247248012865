//! Time.

use std::time::Duration;

use async_trait::async_trait;
use tidegate_core::{
    platform::Clock,
    time::{Timestamp, millis},
};
use wasm_bindgen::prelude::*;

use crate::promised::{Promised, Settled};

/// JavaScript's clock and timers.
///
/// At Cloudflare's edge the clock only moves while a call waits for something outside.
pub(crate) struct Date;

#[async_trait(?Send)]
impl Clock for Date {
    fn now(&self) -> Timestamp {
        now()
    }

    async fn sleep(&self, duration: Duration) {
        // The longest that `setTimeout` knows, 24 days; no call lasts that long.
        let mut timer = Timer::start(millis(duration).min(0x7FFF_FFFF) as i32);
        // A timer is never broken as a promise may be.
        let _ = (&mut timer.rings).await;
    }
}

/// This instant.
pub(crate) fn now() -> Timestamp {
    Timestamp(js_sys::Date::now() as u64)
}

/// A timeout that is cleared when it is dropped.
///
/// Unlike `worker::Delay` it wakes whoever polled it last: a deadline that is set while the head of an answer is awaited
/// is often still running while its body is, in another task.
struct Timer {
    rings: Promised,
    timeout: JsValue,
}

impl Timer {
    fn start(millis: i32) -> Self {
        let (rings, timeout) =
            Promised::begin(|id, settled| set_timeout(settled, millis, id, true));
        Self { rings, timeout }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.rings.is_pending() {
            clear_timeout(&self.timeout);
        }
    }
}

#[wasm_bindgen]
extern "C" {
    /// Calls `callback` with `id` and `kept` once `millis` have passed.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Settled, millis: i32, id: u32, kept: bool) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(id: &JsValue);
}
