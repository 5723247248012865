//! What an isolate knows of those whom it asks, played: any interleaving of what may happen, and outages under steady load.
//!
//! `cargo test -p tidegate-core --test health -- --nocapture` prints how many were served from where, how many probes were made
//! and how soon the first target was first again. `TIDEGATE_SEEDS=500` plays so many outages of each kind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test tells what went wrong by failing"
)]

mod interleavings;
mod outages;
mod world;
