//! Time.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use tidegate_core::{
    platform::Clock,
    time::{Timestamp, millis},
};
use wasm_bindgen::prelude::*;

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
        let timer = Timer::start(millis(duration).min(0x7FFF_FFFF) as i32);
        timer.rings().await;
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
    id: JsValue,
    state: Rc<State>,
    _callback: Closure<dyn FnMut()>,
}

#[derive(Default)]
struct State {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Timer {
    fn start(millis: i32) -> Self {
        let state = Rc::new(State::default());
        let ringing = Rc::clone(&state);
        let callback = Closure::<dyn FnMut()>::new(move || {
            ringing.rung.set(true);
            let waker = ringing.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Self {
            id: set_timeout(&callback, millis),
            state,
            _callback: callback,
        }
    }

    async fn rings(&self) {
        poll_fn(|cx| {
            if self.state.rung.get() {
                return Poll::Ready(());
            }
            self.state.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if !self.state.rung.get() {
            clear_timeout(&self.id);
        }
    }
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Closure<dyn FnMut()>, millis: i32) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(id: &JsValue);
}
