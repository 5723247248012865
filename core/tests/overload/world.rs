//! Callers, a gate or none, and the machine behind it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    sync::Arc,
};

use tidegate_core::{
    dice::Dice,
    overload::{Bounds, Controller, Gate, Priority, Roster, Settings, Standing, Valve, Way},
    time::Timestamp,
};

use crate::machine::Machine;

/// What comes first is not counted: until then it is learnt.
const WARM: f64 = 60.0;

/// How long anybody waits, in seconds, and how many where it is first come, first served.
const WAIT: f64 = 1.5;
const ROOM: usize = 200;

/// How often those see to it who share what the machine bears, in seconds.
const BEAT: f64 = 0.2;

/// What an answer takes of a core, in seconds: until its first event, before the model, and after it.
const OPENING: f64 = 0.05;
const BEFORE: f64 = 0.10;
const AFTER: f64 = 0.25;

/// Who comes, and how long the model takes.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) rate: f64,
    /// How many come in a second in the middle third.
    pub(crate) spike: Option<f64>,
    pub(crate) model: f64,
    pub(crate) seconds: f64,
    pub(crate) crowds: [Option<Crowd>; 3],
}

/// Those who come of one consumer.
#[derive(Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) name: &'static str,
    /// How many in a second.
    pub(crate) rate: f64,
    pub(crate) priority: Priority,
}

/// What stands before the machine.
pub(crate) enum Door {
    Open,
    /// So many in progress; the others wait, first come, first served.
    Line {
        limit: usize,
        inside: usize,
        waiting: VecDeque<usize>,
    },
    /// Gates that take turns, and what they have agreed on, if they know of each other.
    Gates(Vec<Gate>, Way, Option<Roster>),
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Answers of use in a second.
    pub(crate) useful: f64,
    /// The same, of the last quarter alone.
    pub(crate) last_quarter: f64,
    /// How many came of each, and how many were of use.
    pub(crate) of: BTreeMap<&'static str, (usize, usize)>,
}

impl Load {
    pub(crate) const fn of(rate: f64, model: f64) -> Self {
        Self {
            rate,
            spike: None,
            model,
            seconds: 600.0,
            crowds: [None; 3],
        }
    }

    pub(crate) fn with(mut self, crowds: &[Crowd]) -> Self {
        for (place, crowd) in self.crowds.iter_mut().zip(crowds) {
            *place = Some(*crowd);
        }
        self
    }
}

impl Door {
    pub(crate) fn line(limit: usize) -> Self {
        Self::Line {
            limit,
            inside: 0,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn gates(count: usize, bounds: Bounds) -> Self {
        let way = Self::way(bounds);
        Self::Gates(vec![Gate::default(); count], way, None)
    }

    /// Gates that share what the machine bears.
    pub(crate) fn sharing(count: usize, bounds: Bounds) -> Self {
        let way = Self::way(bounds);
        Self::Gates(vec![Gate::shared(); count], way, Some(Roster::default()))
    }

    fn way(bounds: Bounds) -> Way {
        let settings = Settings {
            bounds,
            ..Settings::AUTO
        };
        let valve = Valve {
            name: "dify".into(),
            settings,
        };
        Way {
            gate: "dify".into(),
            valves: [valve].into(),
        }
    }
}

/// One call.
struct Call {
    who: &'static str,
    priority: Priority,
    came: f64,
    gate: usize,
    ticket: u64,
    sent: f64,
    stage: Stage,
    is_soon: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Waiting,
    Opening,
    Before,
    Model,
    After,
    Over,
}

/// Something that happens at a time that is known.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    /// Somebody of this crowd comes.
    Comes(usize),
    /// The model has answered.
    Answered(usize),
    /// A caller has waited for long enough.
    Impatient(usize),
    /// Gates that share say how they do.
    Beat,
}

pub(crate) fn play(load: Load, door: Door, seed: u64) -> Outcome {
    let crowds: Vec<Crowd> = load.crowds.into_iter().flatten().collect();
    let anybody = Crowd {
        name: "",
        rate: load.rate,
        priority: Priority::Normal,
    };
    let mut world = World {
        load,
        crowds: if crowds.is_empty() {
            vec![anybody]
        } else {
            crowds
        },
        door,
        machine: Machine::default(),
        calls: Vec::new(),
        waiting: Vec::new(),
        events: BinaryHeap::new(),
        dice: Dice::new(u128::from(seed).to_le_bytes()),
        now: 0.0,
        outcome: Outcome::default(),
    };
    for crowd in 0..world.crowds.len() {
        world.next_comes(crowd);
    }
    if matches!(world.door, Door::Gates(_, _, Some(_))) {
        world.at(BEAT, Event::Beat);
    }
    world.run();
    world.outcome
}

struct World {
    load: Load,
    crowds: Vec<Crowd>,
    door: Door,
    machine: Machine,
    calls: Vec<Call>,
    /// Those who wait before a gate.
    waiting: Vec<usize>,
    /// In microseconds.
    events: BinaryHeap<Reverse<(u64, Event)>>,
    dice: Dice,
    now: f64,
    outcome: Outcome,
}

impl World {
    fn run(&mut self) {
        loop {
            let known = self.events.peek();
            let known = known.map(|Reverse((at, _))| *at as f64 / 1e6);
            let computed = self.machine.next();
            let is_known = match (known, computed) {
                (Some(known), Some(computed)) => known <= computed,
                (known, computed) => known.is_some() || computed.is_none(),
            };
            self.now = if is_known { known } else { computed }
                .unwrap()
                .max(self.now);
            if self.now >= self.load.seconds {
                break;
            }
            self.machine.pass(self.now);
            if !is_known {
                let call = self.machine.take();
                self.computed(call);
                continue;
            }
            match self.events.pop().unwrap().0.1 {
                Event::Comes(crowd) => self.comes(crowd),
                Event::Answered(call) => {
                    self.calls[call].stage = Stage::After;
                    let after = self.about(AFTER);
                    self.machine.compute(call, after);
                }
                Event::Impatient(_) => self.ask_all(),
                Event::Beat => {
                    self.at(BEAT, Event::Beat);
                    self.share();
                    self.ask_all();
                }
            }
        }
        self.outcome.useful /= self.load.seconds - WARM;
        self.outcome.last_quarter /= self.load.seconds / 4.0;
    }

    fn at(&mut self, after: f64, event: Event) {
        let at = ((self.now + after) * 1e6).ceil() as u64;
        self.events.push(Reverse((at, event)));
    }

    fn next_comes(&mut self, crowd: usize) {
        let third = self.load.seconds / 3.0;
        let is_spike = (third..2.0 * third).contains(&self.now);
        let usual = self.crowds[crowd].rate;
        let rate = self.load.spike.filter(|_| is_spike).unwrap_or(usual);
        let part = (self.dice.between(1, 1 << 53)) as f64 / (1_u64 << 53) as f64;
        self.at(-part.ln() / rate, Event::Comes(crowd));
    }

    fn comes(&mut self, crowd: usize) {
        self.next_comes(crowd);
        let Crowd { name, priority, .. } = self.crowds[crowd];
        let number = self.calls.len();
        let mut call = Call {
            who: name,
            priority,
            came: self.now,
            gate: 0,
            ticket: 0,
            sent: 0.0,
            stage: Stage::Waiting,
            is_soon: false,
        };
        if self.now >= WARM && self.now < self.load.seconds - 30.0 {
            self.outcome.of.entry(name).or_default().0 += 1;
        }
        let now = self.time();
        match &mut self.door {
            Door::Open => {
                self.calls.push(call);
                self.send(number);
            }
            Door::Line {
                limit,
                inside,
                waiting,
            } => {
                self.calls.push(call);
                if *inside < *limit {
                    *inside += 1;
                    self.send(number);
                } else if waiting.len() < ROOM {
                    waiting.push_back(number);
                }
            }
            Door::Gates(gates, way, _) => {
                call.gate = self.dice.roll() as usize % gates.len();
                let who = Arc::from(name);
                let (ticket, standing) = gates[call.gate].arrive(way, &who, call.priority, now);
                call.ticket = ticket;
                self.calls.push(call);
                if standing == Standing::Waits {
                    self.at(WAIT + 0.001, Event::Impatient(number));
                    self.waiting.push(number);
                    self.share();
                    self.ask_all();
                } else {
                    self.stands(number, standing);
                }
            }
        }
    }

    /// Gates tell each other how they do, if it is time.
    fn share(&mut self) {
        let now = self.time();
        if let Door::Gates(gates, _, Some(roster)) = &mut self.door {
            for (from, gate) in (0..).zip(gates) {
                let reports = gate.report(now);
                let hear = |(name, report): &(Box<str>, _)| {
                    let allotment = roster.hear(from, report, now);
                    (name.clone(), Ok(allotment))
                };
                let answers: Vec<(_, Result<_, &str>)> = reports.iter().map(hear).collect();
                let answers = answers.iter().map(|(name, answer)| (&**name, *answer));
                gate.hear(answers, now, now);
            }
        }
    }

    /// Everybody asks who waits.
    fn ask_all(&mut self) {
        let now = self.time();
        for number in std::mem::take(&mut self.waiting) {
            let Door::Gates(gates, ..) = &mut self.door else {
                return;
            };
            let call = &self.calls[number];
            match gates[call.gate].ask(call.ticket, now) {
                Standing::Waits => self.waiting.push(number),
                standing => self.stands(number, standing),
            }
        }
    }

    fn stands(&mut self, number: usize, standing: Standing) {
        match standing {
            Standing::In => self.send(number),
            Standing::Out(_) => self.calls[number].stage = Stage::Over,
            Standing::Waits => unreachable!(),
        }
    }

    fn send(&mut self, number: usize) {
        let (now, opening) = (self.time(), self.about(OPENING));
        let call = &mut self.calls[number];
        call.stage = Stage::Opening;
        call.sent = self.now;
        self.machine.crowd += 1;
        self.machine.compute(number, opening);
        self.tell(number, |controller, _| controller.began(now));
    }

    fn computed(&mut self, number: usize) {
        let (now, before) = (self.time(), self.about(BEFORE));
        let call = &mut self.calls[number];
        match call.stage {
            Stage::Opening => {
                call.stage = Stage::Before;
                call.is_soon = self.now - call.came < 2.0;
                self.machine.compute(number, before);
                self.tell(number, |controller, sent| controller.first_event(sent, now));
                self.ask_all();
            }
            Stage::Before => {
                call.stage = Stage::Model;
                let model = self.about(self.load.model);
                self.at(model, Event::Answered(number));
            }
            Stage::After => self.ends(number),
            stage => panic!("it computes while it is {stage:?}"),
        }
    }

    fn ends(&mut self, number: usize) {
        let now = self.time();
        let call = &mut self.calls[number];
        call.stage = Stage::Over;
        self.machine.crowd -= 1;
        if call.is_soon && self.now - call.came < 30.0 && call.came >= WARM {
            self.outcome.useful += 1.0;
            if call.came < self.load.seconds - 30.0 {
                self.outcome.of.entry(call.who).or_default().1 += 1;
            }
            if self.now >= 0.75 * self.load.seconds {
                self.outcome.last_quarter += 1.0;
            }
        }
        let (gate, who) = (call.gate, call.who);
        match &mut self.door {
            Door::Open => {}
            Door::Gates(gates, way, _) => {
                gates[gate].ended(who, &way.valves, now);
                self.share();
                self.ask_all();
            }
            Door::Line {
                inside, waiting, ..
            } => {
                *inside -= 1;
                while let Some(next) = waiting.pop_front() {
                    if self.now - self.calls[next].came < WAIT {
                        *inside += 1;
                        self.send(next);
                        break;
                    }
                }
            }
        }
    }

    /// About so many seconds: no two calls are the same.
    fn about(&mut self, seconds: f64) -> f64 {
        let percent = self.dice.between(50, 150);
        seconds * percent as f64 / 100.0
    }

    fn tell(&mut self, number: usize, word: impl Fn(&mut Controller, Timestamp)) {
        let call = &self.calls[number];
        if let Door::Gates(gates, way, _) = &mut self.door {
            let sent = Timestamp((call.sent * 1e3) as u64);
            let now = Timestamp((self.now * 1e3) as u64);
            gates[call.gate].tell_all(&way.valves, now, |_, controller| word(controller, sent));
        }
    }

    fn time(&self) -> Timestamp {
        Timestamp((self.now * 1e3) as u64)
    }
}
