//! Rounds in which every contestant is asked the same.

use std::net::SocketAddr;

use super::{Plan, Scratch, case::Case, load, process::Server, table::Table};

/// The key of the caller.
pub(super) const KEY: &str = "bench-key";

/// Somebody who is measured.
pub(super) struct Contestant<'a> {
    /// What it is called in the table.
    pub(super) name: &'static str,
    /// Where it is asked.
    pub(super) address: SocketAddr,
    /// Whose processor time and memory are counted.
    pub(super) server: Option<&'a Server>,
}

impl Contestant<'_> {
    fn blame(&self, problem: &str) -> String {
        format!("{}: {problem}", self.name)
    }
}

/// Measures all of them, in rounds.
pub(super) fn play(
    plan: Plan,
    scratch: &Scratch,
    case: Case,
    contestants: &[Contestant<'_>],
) -> Result<Table, String> {
    let script = load::script(scratch, &case, KEY)?;
    let mut table = Table::new(case);
    for contestant in contestants {
        load::try_once(contestant.address, &case, KEY)
            .map_err(|problem| contestant.blame(&problem))?;
    }
    for round in 0..plan.rounds {
        // Who begins changes, so that nobody always comes after the same neighbour.
        for turn in 0..contestants.len() {
            let Some(contestant) = contestants.get((round + turn) % contestants.len()) else {
                continue;
            };
            let before = contestant.server.map(Server::used);
            let sample = load::measure(contestant.address, &script, &case, plan.seconds)
                .map_err(|problem| contestant.blame(&problem))?;
            let after = contestant.server.map(Server::used);
            table.add(contestant.name, sample, before.zip(after));
        }
    }
    Ok(table)
}
