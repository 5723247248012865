//! Waiting for JavaScript.
//!
//! What `js_sys` has for this makes two closures a promise, which the runtime's garbage collector has to watch; here one
//! closure serves the isolate, and what nobody waits for any more is forgotten at once.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use js_sys::Promise;
use wasm_bindgen::prelude::*;

/// What JavaScript has promised.
pub(crate) struct Promised(u32);

/// What JavaScript calls when it has kept a promise, or broken it: with the promise's number, whether, and what came of it.
pub(crate) type Settled = Closure<dyn Fn(u32, bool, JsValue)>;

/// Awaits `promise`.
pub(crate) fn promised(promise: &Promise) -> Promised {
    Promised::begin(|id, settled| settle(promise, id, settled)).0
}

impl Promised {
    /// Awaits what `begin` sets going, which is to be told under the number it is given; and gives what `begin` returns.
    pub(crate) fn begin<T>(begin: impl FnOnce(u32, &Settled) -> T) -> (Self, T) {
        let id = NEXT.with(|next| next.replace(next.get().wrapping_add(1)));
        PENDING.with_borrow_mut(|pending| pending.insert(id, State::Untouched));
        (Self(id), SETTLED.with(|settled| begin(id, settled)))
    }

    /// Whether it is still waited for.
    pub(crate) fn is_pending(&self) -> bool {
        PENDING.with_borrow(|pending| {
            matches!(
                pending.get(&self.0),
                Some(State::Untouched | State::Awaited(_))
            )
        })
    }
}

impl Future for Promised {
    type Output = Result<JsValue, JsValue>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        PENDING.with_borrow_mut(|pending| match pending.get_mut(&self.0) {
            Some(State::Settled(outcome)) => {
                let outcome = std::mem::replace(outcome, Ok(JsValue::UNDEFINED));
                pending.remove(&self.0);
                Poll::Ready(outcome)
            }
            Some(state) => {
                *state = State::Awaited(cx.waker().clone());
                Poll::Pending
            }
            // It was polled after its end, and has nothing more to say.
            None => Poll::Pending,
        })
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        // Dropped when the map is free again: a waker may own the last of somebody else who waits.
        let state = PENDING.with_borrow_mut(|pending| pending.remove(&self.0));
        drop(state);
    }
}

enum State {
    Untouched,
    Awaited(Waker),
    Settled(Result<JsValue, JsValue>),
}

thread_local! {
    static NEXT: Cell<u32> = const { Cell::new(0) };
    static PENDING: RefCell<BTreeMap<u32, State>> = const { RefCell::new(BTreeMap::new()) };
    static SETTLED: Settled = Closure::new(|id, kept, value| {
        let outcome = if kept { Ok(value) } else { Err(value) };
        let before = PENDING.with_borrow_mut(|pending| {
            pending.get_mut(&id).map(|state| std::mem::replace(state, State::Settled(outcome)))
        });
        if let Some(State::Awaited(waker)) = before {
            waker.wake();
        }
    });
}

#[wasm_bindgen(module = "/src/promised.js")]
extern "C" {
    fn settle(promise: &Promise, id: u32, settled: &Settled);
}
