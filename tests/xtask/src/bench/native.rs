//! The native binary beside nginx: both in front of the same upstreams, under the same load.

use std::net::SocketAddr;

use super::{
    Plan, Scratch,
    case::{ALONE, Case, LARGE, SMALL, STREAM},
    load, nginx,
    process::Server,
    stream,
    table::Table,
};
use crate::command::{cargo, run as program, target};

const KEY: &str = "bench-key";
const CASES: [Case; 4] = [SMALL, ALONE, LARGE, STREAM];

/// Measures, prints, and names what is below the baseline.
pub(super) fn run(plan: Plan) -> Result<Vec<String>, String> {
    cargo("build --locked --profile native -p tidegate").go()?;
    let scratch = Scratch::new("native")?;
    let small = nginx::upstream(&scratch)?;
    let stream = stream::start()?;
    let (proxy, proxy_to_stream) = nginx::proxy(&scratch, small.address, stream)?;
    let gateway = gateway(&scratch, small.address, stream)?;
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
        let script = load::script(&scratch, &case, KEY)?;
        let mut table = Table::new(case);
        for contestant in &contestants {
            load::try_once(contestant.address(&case), &case, KEY)?;
        }
        for round in 0..plan.rounds {
            // Who begins changes, so that nobody always comes after the same neighbour.
            for turn in 0..contestants.len() {
                let Some(contestant) = contestants.get((round + turn) % contestants.len()) else {
                    continue;
                };
                let before = contestant.server.map(Server::used);
                let sample =
                    load::measure(contestant.address(&case), &script, &case, plan.seconds)?;
                let after = contestant.server.map(Server::used);
                table.add(contestant.name, sample, before.zip(after));
            }
        }
        table.print("nginx", "direct");
        tables.push(table);
    }
    Ok(judge(&tables))
}

struct Contestant<'a> {
    name: &'static str,
    small: SocketAddr,
    stream: SocketAddr,
    server: Option<&'a Server>,
}

impl Contestant<'_> {
    const fn address(&self, case: &Case) -> SocketAddr {
        if case.stream { self.stream } else { self.small }
    }
}

/// Starts Tidegate with what a real one has to do: keys, a limit on the caller and one on everybody, and records.
fn gateway(scratch: &Scratch, small: SocketAddr, stream: SocketAddr) -> Result<Server, String> {
    let config = scratch.write(
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
    )?;
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
