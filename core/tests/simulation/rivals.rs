//! What else is done: each node its share, and counts that are told to each other from time to time.

use std::collections::VecDeque;

use crate::{
    load::{Load, Scenario},
    result::Outcome,
};

/// What came within the last window, to the millisecond.
#[derive(Default)]
struct Window(VecDeque<u64>);

impl Window {
    fn count(&mut self, now: u64, per: u64) -> u64 {
        while self.0.front().is_some_and(|at| at + per < now) {
            self.0.pop_front();
        }
        self.0.len() as u64
    }
}

/// Every node lets in its part of the limit, and asks nobody.
pub(crate) fn share(scenario: &Scenario, load: &Load) -> Outcome {
    let per = scenario.per * 1_000;
    let limit = scenario.limit / scenario.nodes as u64;
    let mut windows: Vec<Window> = (0..scenario.nodes).map(|_| Window::default()).collect();
    let mut deaths = load.deaths.iter().peekable();
    let mut outcome = Outcome::default();
    for (now, node) in &load.requests {
        while let Some((_, dead)) = deaths.next_if(|(at, _)| at <= now) {
            windows[*dead] = Window::default();
        }
        if windows[*node].count(*now, per) < limit {
            windows[*node].0.push_back(*now);
            outcome.admitted.push(*now);
        }
        outcome.waits.push(0);
    }
    outcome
}

/// Every node lets in what fits by the last sum that it heard, and tells what it let in every `every` milliseconds.
pub(crate) fn sync(scenario: &Scenario, load: &Load, every: u64) -> Outcome {
    #[derive(Clone, Default)]
    struct Node {
        /// The sum that was heard last.
        heard: u64,
        /// What was let in since what it tells of.
        since: VecDeque<u64>,
        untold: Vec<u64>,
        next: u64,
    }
    let per = scenario.per * 1_000;
    let mut nodes: Vec<Node> = (0..scenario.nodes)
        .map(|node| Node {
            next: every * node as u64 / scenario.nodes as u64,
            ..Node::default()
        })
        .collect();
    // When it arrives at the ledger, from which node, what, and when it was said.
    let mut told: Vec<(u64, usize, Vec<u64>, u64)> = Vec::new();
    let mut sums: Vec<(u64, usize, u64, u64)> = Vec::new();
    let mut ledger = Window::default();
    let mut outcome = Outcome::default();
    let mut requests = load.requests.iter().peekable();
    for now in 0..scenario.seconds * 1_000 {
        for (_, node, times, said) in told.extract_if(.., |(at, ..)| *at <= now) {
            // Not quite in order, which is all the same to a sum.
            ledger.0.extend(times);
            let sum = ledger.count(now, per);
            sums.push((now + load.delays[node], node, sum, said));
        }
        for (_, node, sum, said) in sums.extract_if(.., |(at, ..)| *at <= now) {
            let this = &mut nodes[node];
            this.heard = sum;
            this.since.retain(|at| *at >= said);
        }
        while let Some((_, node)) = requests.next_if(|(at, _)| *at <= now) {
            let this = &mut nodes[*node];
            if this.heard + (this.since.len() as u64) < scenario.limit {
                this.since.push_back(now);
                this.untold.push(now);
                outcome.admitted.push(now);
            }
            outcome.waits.push(0);
        }
        for (place, this) in nodes.iter_mut().enumerate() {
            if this.next <= now {
                this.next += every;
                outcome.calls += 1;
                let times = std::mem::take(&mut this.untold);
                told.push((now + load.delays[place], place, times, now));
            }
        }
    }
    outcome
}
