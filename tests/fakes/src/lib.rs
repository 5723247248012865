//! Faithful fakes of an OpenAI-like provider and of Dify, on one port.
//!
//! Everything they say is made of the request and of counters, never of chance or of the time of day, so that a test can
//! compare it. What is where is in [`routes`].

#![allow(
    clippy::indexing_slicing,
    reason = "only JSON values are indexed: what they do not have is null"
)]

use tokio::net::TcpListener;

mod counts;
mod dify;
mod mode;
mod openai;
mod play;
pub mod routes;
mod server;
mod wire;

/// Answers on `listener` until the future is dropped. Runs on any tokio runtime that has its timer on.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    server::serve(listener).await
}
