//! Where accounts lie: the core keeps them exact, and these carry what it reads and keeps.

mod redis;
mod sqlite;

use std::time::Duration;

pub(crate) use redis::Connected;
pub(crate) use sqlite::Sqlite;

/// Spin drops an instance that has been idle for this long.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_secs(1);
