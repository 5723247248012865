//! An exchange with an upstream, which is broken off when nobody wants its answer any more.

use wasm_bindgen::prelude::*;
use web_sys::AbortController;

/// Aborted when it is dropped before it is over: dropping a future does not end a `fetch`.
pub(crate) struct Exchange {
    controller: AbortController,
    is_over: bool,
}

impl Exchange {
    pub(crate) fn begin() -> Result<Self, JsValue> {
        Ok(Self {
            controller: AbortController::new()?,
            is_over: false,
        })
    }

    /// What aborts it.
    pub(crate) fn controller(&self) -> &AbortController {
        &self.controller
    }

    /// It is over, or the runtime takes care of it.
    pub(crate) fn over(mut self) {
        self.is_over = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.is_over {
            self.controller.abort();
        }
    }
}
