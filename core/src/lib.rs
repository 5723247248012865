//! Tidegate: an AI gateway that runs at the edge.

mod answer;
pub mod auth;
pub mod body;
pub mod call;
pub mod config;
pub mod dialect;
pub mod dice;
pub mod dispatch;
mod exchange;
pub mod gateway;
mod headers;
mod intake;
pub mod limit;
mod patience;
pub mod platform;
pub mod record;
pub mod refusal;
mod relay;
pub mod route;
pub mod sse;
pub mod time;
pub mod upstream;
pub mod usage;

pub use body::Body;
pub use config::Config;
pub use gateway::Gateway;
pub use platform::Platform;
