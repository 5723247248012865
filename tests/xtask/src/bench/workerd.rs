//! The worker beside a bare pass-through, both on workerd itself with nothing before it.

use std::{net::SocketAddr, path::Path};

use super::{
    Plan, Scratch,
    case::{CASES, SMALL},
    contest::{Contestant, play},
    process::Server,
    upstream::Upstreams,
};
use crate::{command::run as program, parts::build_worker, tools};

/// Measures, prints, and names what is below the baseline.
pub(super) fn run(plan: Plan) -> Result<Vec<String>, String> {
    tools::install_for_workerd()?;
    let artefact = build_worker()?;
    let scratch = Scratch::new("workerd")?;
    let upstreams = Upstreams::start(&scratch)?;

    println!(
        "\nworkerd: {} rounds of {} s; bodies are handed through untouched, ratios are to bare",
        plan.rounds, plan.seconds
    );
    let mut failures = Vec::new();
    for case in CASES {
        // A worker has one upstream here.
        let direct = upstreams.address(case.upstream);
        let bare = serve("bare", direct, &artefact)?;
        let ours = serve("tidegate", direct, &artefact)?;
        let contestants = [
            Contestant {
                name: "direct",
                address: direct,
                server: None,
            },
            Contestant {
                name: "bare",
                address: bare.address,
                server: Some(&bare),
            },
            Contestant {
                name: "tidegate",
                address: ours.address,
                server: Some(&ours),
            },
        ];
        let table = play(plan, &scratch, case, &contestants)?;
        table.print("bare", "direct");
        let ratio = table.ratio("tidegate", "bare");
        if case == SMALL && ratio < 0.6 {
            failures.push(format!(
                "{ratio:.2} of the bare worker's requests/s, not 0.6"
            ));
        }
    }
    Ok(failures)
}

fn serve(worker: &str, upstream: SocketAddr, artefact: &Path) -> Result<Server, String> {
    let node = program("node")
        .words("tests/workerd/bench/serve.mjs --worker")
        .arg(worker)
        .arg("--upstream")
        .arg(format!("http://{upstream}"))
        .arg("--artefact")
        .arg(artefact);
    Server::announced(node.into_command())
}
