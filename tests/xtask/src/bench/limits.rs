//! What limits cost: the native binary with limits of every kind beside the same without any, and a decision by itself.

use super::{
    Plan, Scratch,
    case::SMALL,
    contest::{Contestant, play},
    gateway::{self, Limits, REQUESTS},
    process::Server,
    upstream::Upstreams,
};
use crate::command::cargo;

/// The least that is left of the rate without limits.
const BASELINE: f64 = 0.9;

/// One of each kind, as a limit that is far from used up: requests, tokens, and what goes on at once.
const EVERY_KIND: &str = "[{ requests = 1_000_000_000, per = \"1m\" }, \
    { tokens = 1_000_000_000_000, per = \"1h\" }, { concurrent = 10_000 }]";

/// How many short rounds are played in place of each long one: what is looked for is less than one round is off by.
const SHORT: usize = 6;

/// Measures, prints, and names what is below the baseline.
pub(super) fn run(plan: Plan) -> Result<Vec<String>, String> {
    let plan = Plan {
        rounds: plan.rounds * SHORT,
        seconds: 1,
        ..plan
    };
    cargo("build --locked --profile native -p tidegate").go()?;
    let scratch = Scratch::new("limits")?;
    let upstreams = Upstreams::start(&scratch)?;
    let gateway = |name, caller| {
        let limits = Limits {
            caller,
            ..Limits::default()
        };
        gateway::start(&scratch, &upstreams, name, limits)
    };
    let free = gateway("free", "")?;
    let requests = gateway("requests", REQUESTS)?;
    let every = gateway("every", EVERY_KIND)?;
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
    cargo("run --quiet --locked --profile native -p tidegate-core --example local_decision")
        .go()?;
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
