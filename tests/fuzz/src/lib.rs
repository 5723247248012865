//! What must hold for any bytes. Each function takes some, plays them on the core, and fails if a promise is broken.
//!
//! They are run as property tests by `cargo test`, and as fuzz targets by `cargo fuzz run --fuzz-dir tests/fuzz NAME`.

// A property tells that it does not hold by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod config;
mod memory;
mod request;
mod sse;

pub use config::config;
pub use request::request;
pub use sse::sse;
