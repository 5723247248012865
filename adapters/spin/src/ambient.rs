//! Time, work after the answer, and the journal: what an instance has around it.

use std::{
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;
use tidegate_core::{
    dice::Dice,
    platform,
    record::Record,
    time::{Timestamp, millis},
};

/// The host's clocks.
pub(crate) struct Clock;

#[async_trait(?Send)]
impl platform::Clock for Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock port")]
    fn now(&self) -> Timestamp {
        Timestamp(
            std::time::SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, millis),
        )
    }

    async fn sleep(&self, duration: Duration) {
        spin_sdk::time::sleep(duration).await;
    }
}

/// Standard output, one line a request.
pub(crate) struct Journal;

impl platform::Journal for Journal {
    fn write(&self, record: &Record) {
        if let Ok(mut line) = serde_json::to_vec(record) {
            line.push(b'\n');
            // In one piece, so that other instances do not write in between. A reader that has left is no reason to trap.
            let _ = std::io::stdout().lock().write_all(&line);
        }
    }
}

/// Dice that roll differently in every instance.
pub(crate) fn dice() -> Dice {
    let mut seed = [0; 16];
    if getrandom::fill(&mut seed).is_err() {
        seed = u128::from(platform::Clock::now(&Clock).0).to_le_bytes();
    }
    Dice::new(seed)
}
