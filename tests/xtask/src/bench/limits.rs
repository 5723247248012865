//! What limits cost: the native binary with limits of every kind beside the same without any.

use super::{
    Plan, Scratch,
    case::{SMALL, Upstream},
    contest::{Contestant, KEY, play},
    process::Server,
    upstream::Upstreams,
};
use crate::command::{cargo, run as program, target};

/// The least that is left of the rate without limits.
const BASELINE: f64 = 0.9;

/// One of each kind, as a limit that is far from used up: requests, tokens, and what goes on at once.
const EVERY_KIND: &str = "limits = [{ requests = 1_000_000_000, per = \"1m\" }, \
    { tokens = 1_000_000_000_000, per = \"1h\" }, { concurrent = 10_000 }]";

/// Measures, prints, and names what is below the baseline.
pub(super) fn run(plan: Plan) -> Result<Vec<String>, String> {
    cargo("build --locked --profile native -p tidegate").go()?;
    let scratch = Scratch::new("limits")?;
    let upstreams = Upstreams::start(&scratch)?;
    let free = gateway(&scratch, &upstreams, "free", "")?;
    let requests = gateway(
        &scratch,
        &upstreams,
        "requests",
        "limits = [{ requests = 1_000_000_000, per = \"1m\" }]",
    )?;
    let every = gateway(&scratch, &upstreams, "every", EVERY_KIND)?;
    println!(
        "limits: {} rounds of {} s; ratios are to the same gateway without limits",
        plan.rounds, plan.seconds
    );
    let contestants = [
        contestant("no limits", &free),
        contestant("requests", &requests),
        contestant("every kind", &every),
    ];
    let table = play(plan, &scratch, SMALL, &contestants)?;
    table.print("no limits", "no limits");
    let ratio = table.ratio("every kind", "no limits");
    let failure = format!("{ratio:.2} of the rate without limits, not {BASELINE}");
    Ok((ratio < BASELINE).then_some(failure).into_iter().collect())
}

fn contestant<'a>(name: &'static str, server: &'a Server) -> Contestant<'a> {
    Contestant {
        name,
        address: server.address,
        server: Some(server),
    }
}

fn gateway(
    scratch: &Scratch,
    upstreams: &Upstreams,
    name: &str,
    limits: &str,
) -> Result<Server, String> {
    let config = format!(
        r#"[gateway]
data_dir = "{name}"

[[consumers]]
name = "bench"
keys = ["$BENCH_KEY"]
{limits}

[providers]
quick = {{ dialect = "openai", base_url = "http://{}/v1", keys = ["$UPSTREAM_KEY"] }}

[models]
Quick = {{ targets = ["quick/Quick"] }}

[[routes]]
name = "llm"
path = "/v1"
serve = "models"
"#,
        upstreams.address(Upstream::Quick),
    );
    let config = scratch.write(&format!("{name}.toml"), &config)?;
    let command = program(target().join("native/tidegate"))
        .words("serve --listen 127.0.0.1:0 --config")
        .arg(config)
        .env("BENCH_KEY", KEY)
        .env("UPSTREAM_KEY", "upstream-key")
        .env("TIDEGATE_LOG", "json");
    Server::announced(command.into_command())
}
