//! The native binary beside nginx: both in front of the same upstreams, under the same load.

use super::{
    Plan, Scratch,
    case::{CASES, Upstream},
    contest::{Contestant, KEY, play},
    nginx::Proxy,
    process::Server,
    table::Table,
    upstream::Upstreams,
};
use crate::command::{cargo, run as program, target};

/// Measures, prints, and names what is below the baseline.
pub(super) fn run(plan: Plan) -> Result<Vec<String>, String> {
    cargo("build --locked --profile native -p tidegate").go()?;
    let scratch = Scratch::new("native")?;
    let upstreams = Upstreams::start(&scratch)?;
    let proxy = Proxy::start(&scratch, &upstreams)?;
    let gateway = gateway(&scratch, &upstreams)?;

    println!(
        "native: {} rounds of {} s; direct is the upstream itself, ratios are to nginx",
        plan.rounds, plan.seconds
    );
    let mut tables = Vec::new();
    for case in CASES {
        let (direct, proxied) = (
            upstreams.address(case.upstream),
            proxy.address(case.upstream),
        );
        let contestants = [
            Contestant {
                name: "direct",
                address: direct,
                server: None,
            },
            Contestant {
                name: "nginx",
                address: proxied,
                server: Some(&proxy.server),
            },
            Contestant {
                name: "tidegate",
                address: gateway.address,
                server: Some(&gateway),
            },
        ];
        let table = play(plan, &scratch, case, &contestants)?;
        table.print("nginx", "direct");
        tables.push(table);
    }
    Ok(judge(&tables))
}

/// Starts Tidegate with what a real one has to do: keys, a limit on the caller and one on everybody, and records.
fn gateway(scratch: &Scratch, upstreams: &Upstreams) -> Result<Server, String> {
    let config = format!(
        r#"[gateway]
limits = [{{ requests = 1_000_000_000, per = "1m" }}]

[[consumers]]
name = "bench"
keys = ["$BENCH_KEY"]
limits = [{{ requests = 1_000_000_000, per = "1m" }}]

[providers]
quick = {{ dialect = "openai", base_url = "http://{}/v1", keys = ["$UPSTREAM_KEY"] }}
reader = {{ dialect = "openai", base_url = "http://{}/v1", keys = ["$UPSTREAM_KEY"] }}
streamer = {{ dialect = "openai", base_url = "http://{}/v1", keys = ["$UPSTREAM_KEY"] }}

[models]
Quick = {{ targets = ["quick/Quick"] }}
Reader = {{ targets = ["reader/Reader"] }}
Streamer = {{ targets = ["streamer/Streamer"] }}

[[routes]]
name = "llm"
path = "/v1"
serve = "models"
"#,
        upstreams.address(Upstream::Quick),
        upstreams.address(Upstream::Reader),
        upstreams.address(Upstream::Streamer),
    );
    let config = scratch.write("tidegate.toml", &config)?;
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
