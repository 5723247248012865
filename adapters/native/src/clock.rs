//! Time, by the machine's own clocks and tokio's timers.
//!
//! The gateway looks at the clock on the wall once, when it starts, and counts from there by one that nobody can set and that goes
//! on while the machine sleeps. What is lent and held for a time ends after that time so, though the clock is set meanwhile; records
//! show the difference until the gateway is started again.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use rustix::time::{ClockId, clock_gettime};
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

/// This instant.
pub(crate) fn now() -> Timestamp {
    let (start, before) = *START;
    start.after(uptime().saturating_sub(before))
}

/// When the gateway started, by the clock on the wall and by the other.
static START: LazyLock<(Timestamp, Duration)> = LazyLock::new(|| (wall(), uptime()));

/// The beginning of 1970 on a machine that believes to be before it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the Clock port and the ledger get their now from"
)]
fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, millis))
}

/// For how long the machine has been on.
fn uptime() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::Boottime;
    // On Apple's systems and the BSDs this one goes on in sleep as far as any does.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::Monotonic;
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_the_clock_on_the_wall_and_goes_on_with_what_passes() {
        let (before, wall) = (now(), wall());
        assert!(before.0.abs_diff(wall.0) < 1_000, "{before:?} {wall:?}");
        std::thread::sleep(Duration::from_millis(30));
        let passed = now().since(before);
        assert!(passed >= Duration::from_millis(29), "{passed:?}");
    }
}
