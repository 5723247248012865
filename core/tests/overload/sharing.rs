//! Gates that share what an upstream bears, whatever happens to them and to what they say.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use tidegate_core::{
    overload::{Allotment, Bounds, Gate, Priority, Report, Roster, Settings, Standing, Valve, Way},
    time::Timestamp,
};

/// Longer than a place is lent, and than what is in progress counts of somebody who says nothing.
const LENT: Duration = Duration::from_secs(5);
const LOST: Duration = Duration::from_secs(60);

/// For how long nobody says nothing.
const SILENT: Duration = Duration::from_secs(2);

const WAITS: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
enum Step {
    /// Somebody comes to this gate.
    Comes(usize),
    /// One is over at this gate.
    Ends(usize),
    /// This gate says how it does, if that is due; the answer takes so many milliseconds, or does not come.
    Tells(usize, Option<u64>),
    /// So many milliseconds pass.
    Passes(u64),
}

fn step(gates: usize) -> impl Strategy<Value = Step> {
    let answer = prop_oneof![9 => (0..300_u64).prop_map(Some), 1 => Just(None)];
    prop_oneof![
        3 => (0..gates).prop_map(Step::Comes),
        2 => (0..gates).prop_map(Step::Ends),
        4 => (0..gates, answer).prop_map(|(gate, answer)| Step::Tells(gate, answer)),
        2 => (1..700_u64).prop_map(Step::Passes),
    ]
}

/// Gates, those who come to them, and what is on its way from the roster.
struct World {
    /// Of the app, and of the installation.
    rosters: [Roster; 2],
    gates: Vec<Member>,
    way: Way,
    now: Timestamp,
}

struct Member {
    gate: Gate,
    waiting: Vec<u64>,
    inside: u32,
    /// How many were let in so far.
    entered: u32,
    coming: Vec<Coming>,
    told: Timestamp,
}

struct Coming {
    at: Timestamp,
    sent: Timestamp,
    answers: Vec<(Box<str>, Result<Allotment, &'static str>)>,
}

impl World {
    fn of(gates: usize, limit: u32) -> Self {
        // An app's, and its installation's, that are as narrow.
        let valve = |name: &str| Valve {
            name: name.into(),
            settings: Settings {
                bounds: Bounds::fixed(limit),
                wait: WAITS,
                ..Settings::AUTO
            },
        };
        let member = || Member {
            gate: Gate::shared(),
            waiting: Vec::new(),
            inside: 0,
            entered: 0,
            coming: Vec::new(),
            told: Timestamp(0),
        };
        Self {
            rosters: Default::default(),
            gates: (0..gates).map(|_| member()).collect(),
            way: Way {
                gate: "dify.main".into(),
                valves: [valve("dify.main/app"), valve("dify.main")].into(),
            },
            now: Timestamp(1_800_000_000_000),
        }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Comes(place) => {
                let (way, now) = (self.way.clone(), self.now);
                let member = &mut self.gates[place];
                let who = Arc::from("somebody");
                let (ticket, standing) = member.gate.arrive(&way, &who, Priority::Normal, now);
                member.waiting.push(ticket);
                member.stands(ticket, standing);
            }
            Step::Ends(place) => {
                let member = &mut self.gates[place];
                if member.inside > 0 {
                    member.inside -= 1;
                    member.gate.ended("somebody", &self.way.valves, self.now);
                }
            }
            Step::Tells(place, answer) => self.tell(place, answer),
            Step::Passes(time) => {
                self.now = self.now.after(Duration::from_millis(time));
                self.hear();
                for place in 0..self.gates.len() {
                    if self.now.since(self.gates[place].told) > SILENT {
                        self.tell(place, Some(time));
                    }
                }
            }
        }
        self.hear();
        for member in &mut self.gates {
            member.ask(self.now);
        }
    }

    fn tell(&mut self, place: usize, answer: Option<u64>) {
        let member = &mut self.gates[place];
        let reports = member.gate.report(self.now);
        member.told = self.now;
        if reports.is_empty() {
            return;
        }
        let hear = |(name, report): (Box<str>, Report)| {
            let roster = &mut self.rosters[usize::from(!name.contains('/'))];
            let allotment = roster.hear(place as u32, &report, self.now);
            (name, Ok(allotment))
        };
        let answers = reports.into_iter().map(hear).collect();
        if let Some(after) = answer {
            member.coming.push(Coming {
                at: self.now.after(Duration::from_millis(after)),
                sent: self.now,
                answers,
            });
        }
    }

    /// What has come by now is heard.
    fn hear(&mut self) {
        for member in &mut self.gates {
            let (come, coming): (Vec<_>, Vec<_>) =
                member.coming.drain(..).partition(|one| one.at <= self.now);
            member.coming = coming;
            for one in come {
                let answers = one.answers.iter().map(|(name, answer)| (&**name, *answer));
                member.gate.hear(answers, one.sent, self.now);
            }
        }
    }

    fn inside(&self) -> u32 {
        self.gates.iter().map(|member| member.inside).sum()
    }
}

impl Member {
    fn ask(&mut self, now: Timestamp) {
        for ticket in self.waiting.clone() {
            let standing = self.gate.ask(ticket, now);
            self.stands(ticket, standing);
        }
    }

    fn stands(&mut self, ticket: u64, standing: Standing) {
        if standing != Standing::Waits {
            self.waiting.retain(|other| *other != ticket);
            self.inside += u32::from(standing == Standing::In);
            self.entered += u32::from(standing == Standing::In);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn together_they_let_in_what_one_would_and_nobody_waits_for_nothing(
        gates in 1..6_usize,
        limit in 1..12_u32,
        steps in proptest::collection::vec(step(5), 1..120),
    ) {
        let mut world = World::of(gates, limit);
        for step in &steps {
            let step = match step.clone() {
                Step::Comes(place) => Step::Comes(place % gates),
                Step::Ends(place) => Step::Ends(place % gates),
                // An answer that does not come sends a gate its own way, and is another test's.
                Step::Tells(place, answer) => Step::Tells(place % gates, answer.or(Some(0))),
                passes @ Step::Passes(_) => passes,
            };
            world.play(&step);
            prop_assert!(world.inside() <= limit, "{} inside of {limit}", world.inside());
        }
        // From now on everybody tells in time.
        for _ in 0..60 {
            for place in 0..gates {
                world.play(&Step::Tells(place, Some(5)));
            }
            world.play(&Step::Passes(100));
        }
        let waiting: usize = world.gates.iter().map(|member| member.waiting.len()).sum();
        prop_assert!(waiting == 0 || world.inside() == limit, "{waiting} wait, {} of {limit} inside", world.inside());
        prop_assert!(world.inside() <= limit);
    }
}

/// One takes all, and says nothing any more.
#[test]
fn what_somebody_had_who_is_gone_is_had_by_others_after_a_while() {
    let mut world = World::of(2, 4);
    (0..3).for_each(|_| world.play(&Step::Comes(0)));
    world.play(&Step::Tells(0, Some(0)));
    assert_eq!(world.inside(), 3);
    let dies = world.now;
    (0..4).for_each(|_| world.play(&Step::Comes(1)));
    let mut second = Vec::new();
    while world.now < dies.after(LOST + LENT) {
        world.gates[0].told = world.now;
        world.play(&Step::Tells(1, Some(0)));
        world.play(&Step::Passes(250));
        if world.gates[1].inside as usize > second.len() {
            second.push(world.now.since(dies));
        }
        if world.now.since(dies) > WAITS / 2 && world.gates[1].waiting.is_empty() {
            (0..4).for_each(|_| world.play(&Step::Comes(1)));
        }
    }
    assert_eq!(world.gates[1].inside, 4, "{second:?}");
    assert!(second[0] < 2 * LENT, "one place was only lent: {second:?}");
    assert!(
        second[1] >= LOST,
        "what it had in progress counts: {second:?}"
    );
}

/// The ledger does not answer.
#[test]
fn whoever_cannot_hear_the_others_goes_by_what_it_knows() {
    let mut world = World::of(1, 4);
    (0..6).for_each(|_| world.play(&Step::Comes(0)));
    assert_eq!(world.inside(), 0, "it does not know yet");
    world.play(&Step::Tells(0, None));
    world.play(&Step::Passes(999));
    assert_eq!(world.inside(), 0);
    world.play(&Step::Passes(1));
    assert_eq!(world.inside(), 4, "as many as it would let in alone");
    // It asks again, and hears that there is nobody else.
    world.now = world.now.after(LENT);
    world.play(&Step::Ends(0));
    assert_eq!(world.inside(), 3, "they may be there again");
    world.play(&Step::Tells(0, Some(0)));
    assert_eq!(world.inside(), 4);
}

/// A crowd of one does not keep the places of others.
#[test]
fn places_go_where_they_are_wanted() {
    let mut world = World::of(3, 12);
    (0..20).for_each(|_| world.play(&Step::Comes(0)));
    world.play(&Step::Tells(0, Some(0)));
    assert_eq!(world.gates[0].inside, 12);
    for place in [1, 2] {
        (0..20).for_each(|_| world.play(&Step::Comes(place)));
    }
    for round in 0..60 {
        world.play(&Step::Passes(100));
        (0..3).for_each(|place| world.play(&Step::Tells(place, Some(0))));
        if round % 5 == 0 {
            // One is over at whoever has most.
            let most = (0..3)
                .max_by_key(|place| world.gates[*place].inside)
                .unwrap();
            world.play(&Step::Ends(most));
            world.play(&Step::Comes(most));
        }
    }
    let inside: Vec<u32> = world.gates.iter().map(|member| member.inside).collect();
    assert!(
        inside.iter().all(|inside| (3..=5).contains(inside)),
        "{inside:?}"
    );
}

/// There are fewer places than gates, each of which has callers all the time.
#[test]
fn where_there_are_fewer_places_than_gates_they_take_turns() {
    for (gates, limit, most) in [(2, 1, 3), (3, 2, 3), (5, 4, 3), (12, 4, 6), (12, 1, 24)] {
        let mut world = World::of(gates, limit);
        let mut ends: Vec<(Timestamp, usize)> = Vec::new();
        let mut served = vec![0; gates];
        let mut last = vec![world.now; gates];
        let mut longest = Duration::ZERO;
        let mut used = 0;
        let seconds = 60;
        for _ in 0..seconds * 50 {
            for place in 0..gates {
                while world.gates[place].waiting.len() < 2 {
                    world.play(&Step::Comes(place));
                }
                world.play(&Step::Tells(place, Some(20)));
            }
            world.play(&Step::Passes(20));
            for place in 0..gates {
                let lasts = Duration::from_millis(200 + 7 * (place as u64));
                for _ in served[place]..world.gates[place].entered {
                    ends.push((world.now.after(lasts), place));
                    served[place] += 1;
                    longest = longest.max(world.now.since(last[place]));
                    last[place] = world.now;
                }
            }
            assert!(world.inside() <= limit);
            used += world.inside();
            let now = world.now;
            let over: Vec<_> = ends.extract_if(.., |(at, _)| *at <= now).collect();
            over.into_iter()
                .for_each(|(_, place)| world.play(&Step::Ends(place)));
        }
        let since = last.iter().map(|last| world.now.since(*last));
        let longest = since.fold(longest, Duration::max);
        let used = f64::from(used) / f64::from(seconds * 50 * limit);
        println!(
            "{gates} gates, {limit} places: {used:.2} in use, {longest:?} without one, {served:?}"
        );
        assert!(
            longest <= Duration::from_secs(most),
            "{gates} gates, {limit} places: {longest:?}"
        );
        assert!(used > 0.7, "{used}");
    }
}

/// They have heard of each other, and hear no more.
#[test]
fn whoever_cannot_hear_those_it_knows_of_keeps_to_its_part() {
    let mut world = World::of(3, 6);
    for place in [0, 1, 2, 0, 1, 2] {
        world.play(&Step::Comes(place));
        world.play(&Step::Tells(place, Some(0)));
        world.play(&Step::Passes(100));
    }
    assert_eq!(world.inside(), 6);
    for place in 0..3 {
        (0..9).for_each(|_| world.play(&Step::Comes(place)));
        world.play(&Step::Tells(place, None));
    }
    for _ in 0..20 {
        world.play(&Step::Passes(200));
        (0..3).for_each(|place| world.gates[place].told = world.now);
    }
    let inside: Vec<u32> = world.gates.iter().map(|member| member.inside).collect();
    assert_eq!(inside, [2, 2, 2]);
    let alone = world
        .gates
        .iter()
        .filter(|member| member.gate.fault().is_some());
    assert_eq!(alone.count(), 3);
}
