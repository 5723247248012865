//! The worker beside a bare pass-through, both on workerd itself with nothing before it.

use std::{net::SocketAddr, path::Path};

use super::{
    Plan, Scratch,
    case::{ALONE, Case, LARGE, SMALL, STREAM},
    contest::{Contestant, play},
    nginx,
    process::Server,
    stream,
};
use crate::{
    command::{Run, run as program},
    parts::build_worker,
    tools,
};

const CASES: [Case; 4] = [SMALL, ALONE, LARGE, STREAM];

/// Measures, prints, and names what is below the baseline.
pub(super) fn run(plan: Plan) -> Result<Vec<String>, String> {
    tools::install_for_workerd()?;
    let artefact = build_worker()?;
    let scratch = Scratch::new("workerd")?;
    let small = nginx::upstream(&scratch)?;
    let stream = stream::start()?;
    // A worker knows one upstream here, so there is one of each for each.
    let bare = |upstream| serve("bare", upstream, &artefact);
    let tidegate = |upstream| serve("tidegate", upstream, &artefact);
    let (bare_small, bare_stream) = (bare(small.address)?, bare(stream)?);
    let (our_small, our_stream) = (tidegate(small.address)?, tidegate(stream)?);

    println!(
        "\nworkerd: {} rounds of {} s; bodies are handed through untouched, ratios are to bare",
        plan.rounds, plan.seconds
    );
    let mut failures = Vec::new();
    for case in CASES {
        let (bare, ours) = if case.stream {
            (&bare_stream, &our_stream)
        } else {
            (&bare_small, &our_small)
        };
        let contestants = [
            Contestant {
                name: "direct",
                small: small.address,
                stream,
                server: None,
            },
            Contestant {
                name: "bare",
                small: bare.address,
                stream: bare.address,
                server: Some(bare),
            },
            Contestant {
                name: "tidegate",
                small: ours.address,
                stream: ours.address,
                server: Some(ours),
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
    let node: Run = program("node")
        .words("tests/workerd/bench/serve.mjs --worker")
        .arg(worker)
        .arg("--upstream")
        .arg(format!("http://{upstream}"))
        .arg("--artefact")
        .arg(artefact);
    Server::announced(node.into_command())
}
