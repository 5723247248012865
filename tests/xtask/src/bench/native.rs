//! The native binary beside nginx: both in front of the same upstreams, under the same load.

use super::{
    Plan, Scratch,
    case::{CASES, Upstream},
    contest::{Contestant, play},
    first,
    gateway::{self, Limits, REQUESTS},
    nginx::Proxy,
    table::Table,
    upstream::Upstreams,
};
use crate::command::cargo;

/// Measures, prints, and names what is below the baseline.
pub(super) fn run(plan: Plan) -> Result<Vec<String>, String> {
    cargo("build --locked --profile native -p tidegate").go()?;
    let scratch = Scratch::new("native")?;
    let upstreams = Upstreams::start(&scratch)?;
    let proxy = Proxy::start(&scratch, &upstreams)?;
    let limits = Limits {
        everybody: REQUESTS,
        caller: REQUESTS,
    };
    let gateway = gateway::start(&scratch, &upstreams, "tidegate", limits)?;

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
    let streamer = upstreams.address(Upstream::Streamer);
    let mut failures = judge(&tables);
    failures.extend(first::run(plan, streamer, gateway.address)?);
    Ok(failures)
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
