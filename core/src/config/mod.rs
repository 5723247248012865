//! What the operator wants: a document read into values that can run.

use std::{collections::{BTreeMap, BTreeSet}, fmt, num::NonZeroU64};

mod value;

pub use value::{Key, Kind, Position, Value};

/// A configuration that can run: every name in it is known, every number in its range.
#[derive(Debug)]
pub struct Config {
    /// Where to listen; native only.
    pub listen: Option<String>,
    /// Where accounts are kept.
    pub store: Store,
    /// Where the embedded store lies, relative to the configuration file; native only.
    pub data_dir: String,
    /// The longest body that is accepted, in bytes.
    pub max_body: NonZeroU64,
}

/// Where accounts are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Store {
    /// In what the platform brings: a Durable Object an account, Spin's SQLite, a file beside the native binary.
    Embedded,
    /// In Redis, at this URL.
    Redis(String),
}

/// Where a configuration is going to run. What one runtime cannot give is refused when it is checked for that runtime.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Runtime {
    /// The `tidegate` binary.
    Native,
    /// Cloudflare Workers.
    Cloudflare,
    /// Fermyon Spin.
    Spin,
}

/// Something that the operator must change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The path of the value: `routes[2].serve`.
    pub path: String,
    /// Where it stands, if the document was text.
    pub at: Option<Position>,
    /// What is wrong, and the nearest name if it could be a slip.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{at}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl Config {
    /// Reads `document` for `runtime`; gives every problem at once.
    ///
    /// `secrets` are the values of the names that [`Config::secrets`] lists, or nothing where the document is only checked.
    pub fn build(
        document: &Value,
        secrets: Option<&BTreeMap<String, String>>,
        runtime: Runtime,
    ) -> Result<Self, Vec<Problem>> {
        let _ = (document, secrets, runtime);
        Err(Vec::new())
    }

    /// The names of the secrets that `document` refers to by `"$NAME"`.
    pub fn secrets(document: &Value) -> BTreeSet<String> {
        let _ = document;
        BTreeSet::new()
    }
}
