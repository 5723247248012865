//! Time, by the machine's own clock and tokio's timers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tidegate_core::{
    platform::Clock,
    time::{Timestamp, millis},
};

/// The machine's clock.
pub(crate) struct SystemClock;

#[async_trait(?Send)]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// This instant; the beginning of 1970 on a machine that believes to be before it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the Clock port and the ledger get their now from"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, millis),
    )
}
