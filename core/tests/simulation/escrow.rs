//! Accounts and purses, played as an isolate plays them.

use std::{collections::BTreeMap, num::NonZeroU64};

use tidegate_core::{
    dice::Dice,
    limit::{Account, Balance, Draw, Entry, Purse, Quota, Want},
    time::Timestamp,
};

use crate::{
    load::{Load, Scenario, between},
    result::Outcome,
};

/// How often it is tried again where an answer came too late.
const TRIES: u32 = 3;

/// How often a purse that nobody uses is looked at, in milliseconds.
const GLANCE: u64 = 1_000;

struct Node {
    purse: Purse,
    /// Who it is; another after each death.
    me: u32,
    trip: u64,
}

#[derive(Clone, Copy)]
struct Request {
    arrived: u64,
    sent: u64,
    tries: u32,
}

enum Event {
    Request(usize),
    Death(usize),
    Message(usize, u32, Box<Entry>, Option<Request>),
    Answer(usize, u32, Box<Balance>, Request),
    Glance(usize, u32),
}

struct World<'a> {
    quota: Quota,
    lease: u64,
    load: &'a Load,
    dice: Dice,
    account: Account,
    nodes: Vec<Node>,
    /// What will happen: when, and in which order at the same instant.
    events: BTreeMap<(u64, u64), Event>,
    number: u64,
    outcome: Outcome,
}

/// Plays `load`. `lease`: how many milliseconds a node counts on living; zero is a call a request.
pub(crate) fn play(scenario: &Scenario, load: &Load, lease: u64, seed: u64) -> Outcome {
    let quota = Quota {
        limit: NonZeroU64::new(scenario.limit).unwrap(),
        per: scenario.per * 1_000,
    };
    let mut dice = Dice::new((u128::from(seed) << 64).to_le_bytes());
    let nodes = (0..scenario.nodes)
        .map(|_| Node {
            purse: Purse::new(quota, Timestamp(0)),
            me: dice.roll() as u32,
            trip: 50,
        })
        .collect();
    let mut world = World {
        quota,
        lease,
        load,
        dice,
        account: Account::default(),
        nodes,
        events: BTreeMap::new(),
        number: 0,
        outcome: Outcome::default(),
    };
    for (at, node) in &load.requests {
        world.at(*at, Event::Request(*node));
    }
    for (at, node) in &load.deaths {
        world.at(*at, Event::Death(*node));
    }
    while let Some(((now, _), event)) = world.events.pop_first() {
        world.happen(event, now);
    }
    world.outcome
}

impl World<'_> {
    fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    fn happen(&mut self, event: Event, now: u64) {
        match event {
            Event::Request(node) => self.attempt(
                node,
                Request {
                    arrived: now,
                    sent: now,
                    tries: TRIES,
                },
                now,
            ),
            Event::Death(node) => {
                self.nodes[node] = Node {
                    purse: Purse::new(self.quota, Timestamp(now)),
                    me: self.dice.roll() as u32,
                    trip: 50,
                };
            }
            Event::Message(node, me, entry, request) => {
                self.outcome.calls += 1;
                let balance = self.account.apply(&entry, Timestamp(now));
                if let Some(request) = request {
                    let at = now + self.delay(node);
                    self.at(at, Event::Answer(node, me, Box::new(balance), request));
                }
            }
            Event::Answer(node, me, balance, request) => {
                if self.nodes[node].me == me {
                    self.hear(node, &balance, request, now);
                }
            }
            Event::Glance(node, me) => {
                let this = &mut self.nodes[node];
                if this.me != me {
                    return;
                }
                let entry = this.purse.give_back(me, Timestamp(now));
                let more = this.purse.mind_on(Timestamp(now));
                if let Some(entry) = entry {
                    self.send(node, entry, None, now);
                }
                if more {
                    self.at(now + GLANCE, Event::Glance(node, me));
                }
            }
        }
    }

    fn attempt(&mut self, node: usize, request: Request, now: u64) {
        let lease = self.lease;
        let this = &mut self.nodes[node];
        match this.purse.draw(1, 0, Timestamp(now)) {
            Draw::Held(held) => {
                this.purse.spend(held, Timestamp(now));
                self.admit(node, request, now);
            }
            Draw::Denied => self.outcome.waits.push(now - request.arrived),
            Draw::Ask => {
                let hold = (4 * this.trip).clamp(20, 3_000);
                let want = Want {
                    units: 1,
                    hold,
                    ..Want::default()
                };
                let entry = this.purse.ask(this.me, want, lease, Timestamp(now));
                let request = Request {
                    sent: now,
                    ..request
                };
                self.send(node, entry, Some(request), now);
            }
        }
    }

    fn hear(&mut self, node: usize, balance: &Balance, request: Request, now: u64) {
        let this = &mut self.nodes[node];
        this.trip = (3 * this.trip + now - request.sent) / 4;
        let sent = Timestamp(request.sent);
        match this.purse.hear(balance, 1, sent, Timestamp(now)) {
            Some(held) => {
                this.purse.spend(held, Timestamp(now));
                self.admit(node, request, now);
            }
            None if balance.granted && request.tries > 0 => {
                let tries = request.tries - 1;
                self.attempt(node, Request { tries, ..request }, now);
            }
            None => self.outcome.waits.push(now - request.arrived),
        }
    }

    fn admit(&mut self, node: usize, request: Request, now: u64) {
        self.outcome.admitted.push(now);
        self.outcome.waits.push(now - request.arrived);
        let this = &mut self.nodes[node];
        if this.purse.mind(Timestamp(now)) {
            let me = this.me;
            self.at(now + GLANCE, Event::Glance(node, me));
        }
    }

    fn send(&mut self, node: usize, entry: Entry, request: Option<Request>, now: u64) {
        let me = self.nodes[node].me;
        let at = now + self.delay(node);
        self.at(at, Event::Message(node, me, Box::new(entry), request));
    }

    /// One way takes up to a fifth longer than it must, so that messages overtake each other.
    fn delay(&mut self, node: usize) -> u64 {
        let delay = self.load.delays[node];
        between(&mut self.dice, (delay, delay + delay / 5))
    }
}
