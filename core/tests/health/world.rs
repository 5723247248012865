//! A model with some targets under steady load, in simulated time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt,
    rc::Rc,
    time::Duration,
};

use tidegate_core::{
    dice::Dice,
    health::{Health, Sign},
    time::Timestamp,
};

/// How many may be asked for a request.
const ATTEMPTS: usize = 3;

/// A share of callers leave before they have an answer, in per cent: what was asked for them is never known.
const LEAVE: f64 = 0.02;

/// What the first target does, and how many ask; the second target is well, if there is one, and of another origin.
#[derive(Clone, Copy)]
pub(crate) struct World {
    /// Requests a second.
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
    /// From when to when the first target fails, in seconds, and how many of those who ask it then.
    pub(crate) fails: (u64, u64),
    pub(crate) share: f64,
    /// How many targets there are.
    pub(crate) targets: usize,
    /// How many milliseconds a failure takes.
    pub(crate) failure: u64,
}

/// What came of it.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub(crate) requests: u64,
    /// Served at the first, the second and the third attempt.
    pub(crate) served: [u64; ATTEMPTS],
    pub(crate) unserved: u64,
    pub(crate) left: u64,
    /// How many came by second, how often the first target was asked first, and how often at all.
    pub(crate) first: BTreeMap<u64, u64>,
    pub(crate) asked: BTreeMap<u64, u64>,
    pub(crate) arrived: BTreeMap<u64, u64>,
    /// When the first target first answered after its trouble.
    pub(crate) back: Option<u64>,
}

struct Request {
    order: Vec<usize>,
    asked: usize,
    began: u64,
    leaves: bool,
}

/// At what time something happens, and to which request.
type Event = (u64, u64);

impl World {
    /// Plays it.
    pub(crate) fn play(self, seed: u64) -> Figures {
        let mut dice = Dice::new(u128::from(seed).to_le_bytes());
        let mut health = Health::default();
        let names: [Rc<str>; 2] = [Rc::from("first/model"), Rc::from("second/model")];
        let origins: [Rc<str>; 2] = [Rc::from("first"), Rc::from("second")];
        let mut figures = Figures::default();
        let mut requests: BTreeMap<u64, Request> = BTreeMap::new();
        let mut events: BinaryHeap<Reverse<Event>> = BinaryHeap::new();
        let mut at = 0;
        for number in 0..self.rate * self.seconds {
            // Callers come when they like: as often as not sooner than the mean.
            at += dice.between(0, 2_000_000 / self.rate);
            events.push(Reverse((at / 1_000, number)));
        }
        while let Some(Reverse((clock, number))) = events.pop() {
            let now = Timestamp(clock);
            let arrived = clock / 1_000;
            let request = match requests.get_mut(&number) {
                None => {
                    let order = health.order(&names[..self.targets], now, &mut dice);
                    health.asked(&origins[order[0]], now);
                    figures.requests += 1;
                    *figures.arrived.entry(arrived).or_default() += 1;
                    *figures.first.entry(arrived).or_default() += u64::from(order[0] == 0);
                    requests.entry(number).or_insert_with(|| Request {
                        order,
                        asked: 0,
                        began: clock,
                        leaves: dice.chance(LEAVE),
                    })
                }
                Some(request) => {
                    let target = request.order[(request.asked - 1) % self.targets];
                    let began = Timestamp(request.began);
                    if request.leaves {
                        health.unheard(&names[target], began, now);
                        figures.left += 1;
                        continue;
                    }
                    let well = !self.fails(target, request.began, &mut dice);
                    let sign = if well { Sign::Well } else { Sign::Ill };
                    health.note(&names[target], sign, None, began, now, &mut dice);
                    if well {
                        figures.served[request.asked - 1] += 1;
                        if target == 0 && request.began >= self.fails.1 * 1_000 {
                            figures.back.get_or_insert(clock);
                        }
                        continue;
                    }
                    let next = request.order[request.asked % self.targets];
                    let again = request.asked >= self.targets;
                    if request.asked == ATTEMPTS
                        || (again && !health.may_retry(&origins[next], now))
                    {
                        figures.unserved += 1;
                        continue;
                    }
                    if !again {
                        health.asked(&origins[next], now);
                    }
                    request
                }
            };
            let target = request.order[request.asked % self.targets];
            request.asked += 1;
            request.began = clock;
            *figures.asked.entry(arrived).or_default() += u64::from(target == 0);
            let down = target == 0 && self.is_in_trouble(clock) && self.share >= 1.0;
            let takes = match () {
                () if request.leaves => dice.between(10, 2_000),
                () if down => self.failure,
                () => dice.between(200, 1_500),
            };
            events.push(Reverse((clock + takes, number)));
        }
        figures
    }

    fn is_in_trouble(self, clock: u64) -> bool {
        (self.fails.0 * 1_000..self.fails.1 * 1_000).contains(&clock)
    }

    /// Whether `target` fails, asked at `clock`.
    fn fails(self, target: usize, clock: u64, dice: &mut Dice) -> bool {
        target == 0 && self.is_in_trouble(clock) && dice.chance(self.share)
    }

    /// How long after its recovery the first target first answered.
    pub(crate) fn recovery(self, figures: &Figures) -> Option<Duration> {
        let recovered = self.fails.1 * 1_000;
        let back = figures.back?;
        Some(Duration::from_millis(back.saturating_sub(recovered)))
    }
}

impl Figures {
    /// The sum of what was counted from one second up to another.
    pub(crate) fn within(counts: &BTreeMap<u64, u64>, from: u64, to: u64) -> u64 {
        counts.range(from..to).map(|(_, count)| count).sum()
    }

    /// How many of those who stayed were served at the first or second attempt.
    pub(crate) fn served_soon(&self) -> f64 {
        (self.served[0] + self.served[1]) as f64 / (self.requests - self.left) as f64
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third] = self.served;
        write!(
            f,
            "{} requests, {} left; served at 1st {first}, 2nd {second}, 3rd {third}, not {}",
            self.requests, self.left, self.unserved
        )
    }
}
