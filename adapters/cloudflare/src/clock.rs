//! Time.

use std::{rc::Rc, time::Duration};

use async_trait::async_trait;
use tidegate_core::{
    platform::Clock,
    time::{Timestamp, millis},
};
use wasm_bindgen::prelude::*;

use crate::{
    caller::Caller,
    promised::{Promised, Settled},
};

/// How long a call waits before its caller is watched.
const UNWATCHED: Duration = Duration::from_millis(20);

/// JavaScript's clock and timers, for one caller.
///
/// At Cloudflare's edge the clock only moves while a call waits for something outside.
pub(crate) struct Date(pub(crate) Rc<Caller>);

#[async_trait(?Send)]
impl Clock for Date {
    fn now(&self) -> Timestamp {
        now()
    }

    async fn sleep(&self, duration: Duration) {
        let mut left = duration;
        if duration > UNWATCHED && !self.0.is_watched() {
            Timer::start(UNWATCHED).rings().await;
            self.0.watch();
            left = duration.saturating_sub(UNWATCHED);
        }
        Timer::start(left).rings().await;
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
    fn start(duration: Duration) -> Self {
        // The longest that `setTimeout` knows, 24 days; no call lasts that long.
        let millis = millis(duration).min(0x7FFF_FFFF) as i32;
        let (rings, timeout) =
            Promised::begin(|id, settled| set_timeout(settled, millis, id, true));
        Self { rings, timeout }
    }

    async fn rings(mut self) {
        // Kept in any case: nothing breaks a timer.
        let _ = (&mut self.rings).await;
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
