//! The native binary in front of all upstreams.

use super::{Scratch, case::Upstream, contest::KEY, process::Server, upstream::Upstreams};
use crate::command::{run, target};

/// A limit on requests that is far from used up.
pub(super) const REQUESTS: &str = "[{ requests = 1_000_000_000, per = \"1m\" }]";

/// What is limited: lists as they stand in a configuration, or nothing.
#[derive(Clone, Copy, Default)]
pub(super) struct Limits {
    /// For everybody together.
    pub(super) everybody: &'static str,
    /// For the caller.
    pub(super) caller: &'static str,
}

/// Starts the one named `name`, with what a real one has to do: keys, limits, and records.
pub(super) fn start(
    scratch: &Scratch,
    upstreams: &Upstreams,
    name: &str,
    limits: Limits,
) -> Result<Server, String> {
    let list = |limits: &str| match limits {
        "" => String::new(),
        limits => format!("limits = {limits}"),
    };
    let config = format!(
        r#"[gateway]
data_dir = "{name}"
{everybody}

[[consumers]]
name = "bench"
keys = ["$BENCH_KEY"]
{caller}

[providers]
quick = {{ dialect = "openai", base_url = "http://{quick}/v1", keys = ["$UPSTREAM_KEY"] }}
reader = {{ dialect = "openai", base_url = "http://{reader}/v1", keys = ["$UPSTREAM_KEY"] }}
streamer = {{ dialect = "openai", base_url = "http://{streamer}/v1", keys = ["$UPSTREAM_KEY"] }}

[models]
Quick = {{ targets = ["quick/Quick"] }}
Reader = {{ targets = ["reader/Reader"] }}
Streamer = {{ targets = ["streamer/Streamer"] }}

[[routes]]
name = "llm"
path = "/v1"
serve = "models"
"#,
        everybody = list(limits.everybody),
        caller = list(limits.caller),
        quick = upstreams.address(Upstream::Quick),
        reader = upstreams.address(Upstream::Reader),
        streamer = upstreams.address(Upstream::Streamer),
    );
    let config = scratch.write(&format!("{name}.toml"), &config)?;
    let command = run(target().join("native/tidegate"))
        .words("serve --listen 127.0.0.1:0 --config")
        .arg(config)
        .env("BENCH_KEY", KEY)
        .env("UPSTREAM_KEY", "upstream-key")
        .env("TIDEGATE_LOG", "json");
    Server::announced(command.into_command())
}
