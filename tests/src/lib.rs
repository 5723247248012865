//! The harness: behaviours are data in `scenarios/*.toml`, and one runner plays them on four platforms.
//!
//! * [`scenario`] is what a file may say, [`expect`] what it may expect, [`check`] how that is held against what came.
//! * [`stage`] is a gateway to play on. [`memory`] is the core alone, on a platform whose time stands still until
//!   somebody sleeps; [`process`] is a real runtime, started and read as a user would.
//! * [`upstream`] answers what a script says, byte by byte; [`client`] sends what must not be sent. Both speak by
//!   [`wire`], because no well-behaved HTTP library would.
//! * [`play`] takes a scenario through a stage, and streams through every cut.
//! * [`flood`] are callers in real time who do not wait for each other.
//! * [`limited`] is a process for tests that are not scenarios: those that kill something, or start several.
//!
//! ```text
//! cargo test -p tidegate-tests --test scenarios                       # all four platforms
//! TIDEGATE_RUNTIMES=memory cargo test -p tidegate-tests --test scenarios -- limits::
//! ```

// A harness tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
// It waits in real time for real processes.
#![allow(clippy::disallowed_methods)]

pub mod check;
pub mod client;
pub mod expect;
pub mod flood;
pub mod limited;
pub mod memory;
pub mod play;
pub mod process;
pub mod scenario;
pub mod stage;
pub mod upstream;
pub mod wire;
