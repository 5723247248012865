//! The native binary beside nginx: both in front of the same upstreams, under the same load.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Plan, Scratch,
    case::{ALONE, Case, LARGE, SMALL, STREAM},
    contest::{Contestant, KEY, play},
    nginx,
    process::Server,
    stream,
    table::Table,
};
use crate::command::{cargo, run as program, target};

const CASES: [Case; 4] = [SMALL, ALONE, LARGE, STREAM];

/// Measures, prints, and names what is below the baseline.
pub(super) fn run(plan: Plan) -> Result<Vec<String>, String> {
    cargo("build --locked --profile native -p tidegate").go()?;
    let scratch = Scratch::new("native")?;
    let small = nginx::upstream(&scratch)?;
    let stream = stream::start()?;
    let (proxy, proxy_to_stream) = nginx::proxy(&scratch, small.address, stream)?;
    let gateway = gateway(&config(&scratch, small.address, stream)?)?;
    let contestants = [
        Contestant {
            name: "direct",
            small: small.address,
            stream,
            server: None,
        },
        Contestant {
            name: "nginx",
            small: proxy.address,
            stream: proxy_to_stream,
            server: Some(&proxy),
        },
        Contestant {
            name: "tidegate",
            small: gateway.address,
            stream: gateway.address,
            server: Some(&gateway),
        },
    ];

    println!(
        "native: {} rounds of {} s; direct is the upstream itself, ratios are to nginx",
        plan.rounds, plan.seconds
    );
    let mut tables = Vec::new();
    for case in CASES {
        let table = play(plan, &scratch, case, &contestants)?;
        table.print("nginx", "direct");
        tables.push(table);
    }
    Ok(judge(&tables))
}

/// A configuration with what a real one has: keys, a limit on the caller and one on everybody, and records.
pub(super) fn config(
    scratch: &Scratch,
    small: SocketAddr,
    stream: SocketAddr,
) -> Result<PathBuf, String> {
    scratch.write(
        "tidegate.toml",
        &format!(
            r#"[gateway]
limits = [{{ requests = 1_000_000_000, per = "1m" }}]

[[consumers]]
name = "bench"
keys = ["$BENCH_KEY"]
limits = [{{ requests = 1_000_000_000, per = "1m" }}]

[providers.small]
dialect = "openai"
base_url = "http://{small}/v1"
keys = ["$UPSTREAM_KEY"]

[providers.stream]
dialect = "openai"
base_url = "http://{stream}/v1"
keys = ["$UPSTREAM_KEY"]

[models.small]
targets = ["small/small"]

[models.stream]
targets = ["stream/stream"]

[[routes]]
name = "llm"
path = "/v1"
serve = "models"
"#
        ),
    )
}

fn gateway(config: &Path) -> Result<Server, String> {
    let command = program(target().join("native/tidegate"))
        .words("serve --listen 127.0.0.1:0 --config")
        .arg(config)
        .env("BENCH_KEY", KEY)
        .env("UPSTREAM_KEY", "upstream-key")
        .env("TIDEGATE_LOG", "json");
    Server::announced(command.into_command())
}

fn judge(tables: &[Table]) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(table) = tables.first() {
        let ratio = table.ratio("tidegate", "nginx");
        if ratio < 0.5 {
            failures.push(format!("{ratio:.2} of nginx's requests/s, not 0.5"));
        }
    }
    let peak = tables
        .iter()
        .map(|table| table.peak("tidegate"))
        .fold(0.0, f64::max);
    if peak > 64.0 {
        failures.push(format!("{peak:.0} MiB resident, not 64"));
    }
    failures
}
