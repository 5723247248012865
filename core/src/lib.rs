//! Tidegate: an AI gateway that runs at the edge.

pub mod body;
pub mod config;
pub mod dice;
pub mod gateway;
pub mod limit;
pub mod platform;
pub mod record;
pub mod time;
pub mod upstream;
pub mod usage;

pub use body::Body;
pub use config::Config;
pub use gateway::Gateway;
pub use platform::Platform;
