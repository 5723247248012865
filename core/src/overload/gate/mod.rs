//! Where calls are let in, wait, and are sent away.

mod pace;
mod peers;

use std::{sync::Arc, time::Duration};

use self::{pace::Pace, peers::Peers};
use super::{Controller, Priority, Queue, Shares, Valve, Waiting, Way};
use crate::time::Timestamp;

/// A gate: controllers, and one queue before all of them.
///
/// Whoever comes gets a number, and asks with it what has become of it until that is known. Nobody is told by the gate: on a
/// platform where each call lives for itself, none can be woken by another one.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    valves: Vec<(Box<str>, Controller)>,
    queue: Queue,
    /// What has become of those who waited, until they ask.
    settled: Vec<(Waiting, Standing)>,
    shares: Shares,
    tickets: u64,
    pace: Pace,
    peers: Peers,
}

/// What has become of somebody who came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It waits.
    Waits,
    /// It is in progress.
    In,
    /// It is sent away, and will find room after so long if all goes on as it does.
    Out(Duration),
}

impl Gate {
    /// A call of `who` comes on this `way`. Its number, and what has become of it already.
    pub fn arrive(
        &mut self,
        way: &Way,
        who: &Arc<str>,
        priority: Priority,
        now: Timestamp,
    ) -> (u64, Standing) {
        let ticket = self.tickets;
        self.tickets += 1;
        for valve in way.valves.iter() {
            let controller = controller(&mut self.valves, valve, self.peers.are_there);
            controller.keep_to(valve.settings.bounds, valve.settings.room);
        }
        self.shares.change(who, |share| share.waiting += 1);
        self.queue.join(Waiting {
            ticket,
            who: who.clone(),
            priority,
            valves: way.valves.clone(),
            until: now.after(way.wait()),
        });
        self.go_on(now);
        self.has_come();
        if !self.is_asking(now) {
            self.keep_to_room(&way.valves, now);
        }
        (ticket, self.standing(ticket))
    }

    /// What has become of the call with this number. Once it does not wait any more, this is said once.
    pub fn ask(&mut self, ticket: u64, now: Timestamp) -> Standing {
        self.go_alone(now);
        self.dismiss(now);
        self.standing(ticket)
    }

    /// The caller has left who came with this number, and waits for nothing any more.
    pub fn leave(&mut self, ticket: u64, now: Timestamp) {
        if self.unqueue(ticket).is_some() {
            return;
        }
        let place = self.place(ticket);
        if let Some((waiting, Standing::In)) = place.map(|place| self.settled.swap_remove(place)) {
            self.ended(&waiting.who, &waiting.valves, now);
        }
    }

    /// A call that is in has come to its end.
    pub fn ended(&mut self, who: &str, valves: &[Valve], now: Timestamp) {
        for valve in valves {
            self.tell(valve, |controller| controller.ended(now));
        }
        self.shares
            .change(who, |share| share.held = share.held.saturating_sub(1));
        self.pace.ended += 1;
        self.go_on(now);
    }

    /// Tells the controllers of `valves` how a call does that is in.
    pub fn tell_all(
        &mut self,
        valves: &[Valve],
        now: Timestamp,
        word: impl Fn(&Valve, &mut Controller),
    ) {
        for valve in valves {
            self.tell(valve, |controller| word(valve, controller));
        }
        self.go_on(now);
    }

    /// How many are in progress under the valve with this name, and how many may be.
    pub fn load(&self, name: &str) -> Option<(u32, u32)> {
        let found = self.valves.iter().find(|(other, _)| **other == *name);
        found.map(|(_, controller)| (controller.in_progress(), controller.limit()))
    }

    /// Whether whoever comes on this `way` now would be let in at once, as far as that is known.
    pub fn has_room(&self, way: &Way, now: Timestamp) -> bool {
        let has_room = |valve: &Valve| {
            let load = self.load(&valve.name);
            let seems = || load.is_none_or(|(in_progress, limit)| in_progress < limit);
            self.room(&valve.name, now).unwrap_or_else(seems)
        };
        self.queue.is_empty() && way.valves.iter().all(has_room)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether nobody is in, or waits.
    pub fn is_idle(&self) -> bool {
        self.shares.is_empty()
    }

    fn tell(&mut self, valve: &Valve, word: impl FnOnce(&mut Controller)) {
        let mut valves = self.valves.iter_mut();
        if let Some((_, controller)) = valves.find(|(name, _)| *name == valve.name) {
            word(controller);
        }
    }

    /// Lets in who has room, and sends those away who have waited for long enough.
    fn go_on(&mut self, now: Timestamp) {
        self.pace.roll(now);
        self.dismiss(now);
        self.let_in(now);
    }

    /// Lets in who has room.
    fn let_in(&mut self, now: Timestamp) {
        while let Some(next) = self.next(now) {
            let Some(waiting) = self.unqueue(next) else {
                return;
            };
            for valve in waiting.valves.iter() {
                self.tell(valve, Controller::enter);
            }
            self.shares.change(&waiting.who, |share| share.held += 1);
            self.settled.push((waiting, Standing::In));
        }
    }

    /// Sends those away who have waited for long enough, unless it may be known at once that there is room for them.
    fn dismiss(&mut self, now: Timestamp) {
        if self.peers.are_asked {
            return;
        }
        while let Some(overdue) = self.queue.overdue(now) {
            self.send_away(overdue, now);
        }
    }

    /// Sends those away for whom there is no room to wait either.
    fn keep_to_room(&mut self, valves: &[Valve], now: Timestamp) {
        for valve in valves {
            let found = self.valves.iter().find(|(name, _)| *name == valve.name);
            let room = found.map_or(0, |(_, controller)| controller.room());
            while let Some(last) = self.queue.last(&valve.name, room, &self.shares) {
                self.send_away(last, now);
            }
        }
    }

    fn next(&self, now: Timestamp) -> Option<u64> {
        let is_free = |valve: &Valve| self.room(&valve.name, now).unwrap_or(false);
        let may = |one: &Waiting| one.valves.iter().all(is_free);
        self.queue.next(&self.shares, may)
    }

    /// Whether there is room under the valve with this name, as far as that is known.
    fn room(&self, name: &str, now: Timestamp) -> Option<bool> {
        self.free(name, now).map(|free| free > 0)
    }

    /// How many more may be in progress under the valve with this name, as far as that is known.
    fn free(&self, name: &str, now: Timestamp) -> Option<u32> {
        let found = self.valves.iter().find(|(other, _)| **other == *name);
        found.map_or(Some(u32::MAX), |(_, controller)| controller.free(now))
    }

    fn send_away(&mut self, ticket: u64, now: Timestamp) {
        if let Some(waiting) = self.unqueue(ticket) {
            let out = Standing::Out(self.pace.next_place(now));
            self.settled.push((waiting, out));
        }
    }

    fn unqueue(&mut self, ticket: u64) -> Option<Waiting> {
        let waiting = self.queue.leave(ticket)?;
        self.shares.change(&waiting.who, |share| {
            share.waiting = share.waiting.saturating_sub(1);
        });
        Some(waiting)
    }

    fn standing(&mut self, ticket: u64) -> Standing {
        self.place(ticket)
            .map_or(Standing::Waits, |place| self.settled.swap_remove(place).1)
    }

    fn place(&self, ticket: u64) -> Option<usize> {
        let mut settled = self.settled.iter();
        settled.position(|(waiting, _)| waiting.ticket == ticket)
    }
}

/// The controller of `valve`, which knows nothing if nobody came to it before.
fn controller<'v>(
    valves: &'v mut Vec<(Box<str>, Controller)>,
    valve: &Valve,
    is_shared: bool,
) -> &'v mut Controller {
    let place = valves.iter().position(|(name, _)| *name == valve.name);
    let place = place.unwrap_or_else(|| {
        let bounds = valve.settings.bounds;
        let fresh = if is_shared {
            Controller::shared(bounds)
        } else {
            Controller::new(bounds)
        };
        valves.push((valve.name.clone(), fresh));
        valves.len() - 1
    });
    // It was found there, or put there.
    #[allow(clippy::indexing_slicing)]
    &mut valves[place].1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{pace::LONGEST, *};
    use crate::overload::{Bounds, Settings};

    fn valve(name: &str, limit: u32, room: u32) -> Valve {
        Valve {
            name: name.into(),
            settings: Settings {
                bounds: Bounds::fixed(limit),
                room,
                ..Settings::AUTO
            },
        }
    }

    fn way(valves: Vec<Valve>) -> Way {
        Way {
            gate: "gate".into(),
            valves: valves.into(),
        }
    }

    fn who(name: &str) -> Arc<str> {
        name.into()
    }

    fn is_out(standing: Standing) -> bool {
        matches!(standing, Standing::Out(_))
    }

    #[test]
    fn who_finds_no_room_waits_until_somebody_leaves_or_for_long_enough() {
        let (mut gate, way) = (Gate::default(), way(vec![valve("v", 1, 2)]));
        let a = who("a");
        let come = |gate: &mut Gate, now| gate.arrive(&way, &a, Priority::Normal, now);
        let (_, first) = come(&mut gate, Timestamp(0));
        assert_eq!(first, Standing::In);
        let (second, standing) = come(&mut gate, Timestamp(10));
        assert_eq!(standing, Standing::Waits);
        let (third, standing) = come(&mut gate, Timestamp(20));
        assert_eq!(standing, Standing::Waits);
        let (_, standing) = come(&mut gate, Timestamp(30));
        assert_eq!(standing, Standing::Waits, "whoever came first is sent away");
        assert!(is_out(gate.ask(second, Timestamp(31))));
        gate.ended("a", &way.valves, Timestamp(500));
        assert_eq!(gate.load("v"), Some((1, 1)));
        assert_eq!(gate.ask(third, Timestamp(501)), Standing::In);
        assert_eq!(gate.waiting(), 1);
        assert_eq!(gate.ask(99, Timestamp(1_529)), Standing::Waits);
        gate.ask(99, Timestamp(1_530));
        assert_eq!(gate.waiting(), 0, "1.5 seconds are over");
    }

    #[test]
    fn a_narrow_valve_does_not_hold_up_those_who_fall_under_another() {
        let mut gate = Gate::default();
        let installation = valve("main", 3, 9);
        let narrow = way(vec![valve("main/a", 1, 9), installation.clone()]);
        let wide = way(vec![installation]);
        let now = Timestamp(0);
        let (caller, normal) = (who("x"), Priority::Normal);
        assert_eq!(gate.arrive(&narrow, &caller, normal, now).1, Standing::In);
        let (waits, standing) = gate.arrive(&narrow, &caller, normal, now);
        assert_eq!(standing, Standing::Waits);
        assert_eq!(gate.arrive(&wide, &caller, normal, now).1, Standing::In);
        assert_eq!(gate.load("main"), Some((2, 3)), "who waits holds nothing");
        gate.ended("x", &wide.valves, now);
        assert_eq!(gate.ask(waits, now), Standing::Waits);
        gate.ended("x", &narrow.valves, now);
        assert_eq!(gate.ask(waits, now), Standing::In);
    }

    #[test]
    fn a_caller_who_leaves_leaves_no_trace() {
        let (mut gate, way) = (Gate::default(), way(vec![valve("v", 1, 9)]));
        let (caller, normal, now) = (who("x"), Priority::Normal, Timestamp(0));
        gate.arrive(&way, &caller, normal, now);
        let (leaves, _) = gate.arrive(&way, &caller, normal, now);
        let (granted, _) = gate.arrive(&way, &caller, normal, now);
        gate.leave(leaves, now);
        gate.ended("x", &way.valves, now);
        assert_eq!(gate.load("v"), Some((1, 1)));
        gate.leave(granted, now);
        assert_eq!(gate.load("v"), Some((0, 1)), "it was in, and did not know");
        assert!(gate.is_idle());
    }

    #[test]
    fn those_who_are_sent_away_are_not_all_told_to_come_back_at_once() {
        let (mut gate, way) = (Gate::default(), way(vec![valve("v", 4, 1)]));
        let (caller, normal) = (who("x"), Priority::Normal);
        // Two end in a second.
        for second in 0..20 {
            for half in 0..2 {
                let now = Timestamp(second * 1_000 + half * 500);
                gate.arrive(&way, &caller, normal, now);
                gate.ended("x", &way.valves, now);
            }
        }
        let now = Timestamp(20_000);
        let told: Vec<_> = (0..100)
            .map(|_| gate.arrive(&way, &caller, normal, now).0)
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|ticket| match gate.ask(ticket, now) {
                Standing::Out(wait) => Some(wait.as_millis()),
                _ => None,
            })
            .collect();
        assert_eq!(told.len(), 95);
        assert!((450..=550).contains(&told[0]), "{}", told[0]);
        assert!((1_800..=2_200).contains(&told[3]), "{}", told[3]);
        assert_eq!(told[94], 30_000, "nobody knows what will be then");
    }

    proptest! {
        /// Whatever happens: no more are in progress than may be, no more wait than have room, nobody waits who could be in or has
        /// waited for long enough, everybody learns what has become of him once, and nothing is left when all have gone.
        #[test]
        fn everybody_is_in_or_waits_or_is_out(
            steps in prop::collection::vec((0..5_u8, 0..4_usize, 0..3_usize, 0..900_u64), 1..200),
            limits in (1..5_u32, 1..8_u32),
            room in 1..6_u32,
        ) {
            let mut gate = Gate::default();
            let installation = valve("main", limits.1, room);
            let ways = [
                way(vec![valve("main/a", limits.0, room), installation.clone()]),
                way(vec![installation]),
            ];
            let names = ["x", "y", "z", "w"].map(who);
            let priorities = [Priority::Low, Priority::Normal, Priority::High];
            let mut now = Timestamp(0);
            let mut inside: Vec<(usize, usize)> = Vec::new();
            let mut asking: Vec<(u64, usize, usize, Timestamp)> = Vec::new();
            for (step, name, priority, passes) in steps {
                match step {
                    0..=2 => {
                        let road = usize::from(step == 2);
                        let (ticket, standing) =
                            gate.arrive(&ways[road], &names[name], priorities[priority], now);
                        match standing {
                            Standing::In => inside.push((name, road)),
                            Standing::Waits => asking.push((ticket, name, road, now)),
                            Standing::Out(_) => {}
                        }
                    }
                    3 if !inside.is_empty() => {
                        let (name, road) = inside.swap_remove(name % inside.len());
                        gate.ended(&names[name], &ways[road].valves, now);
                    }
                    4 if !asking.is_empty() => {
                        let (ticket, ..) = asking.swap_remove(name % asking.len());
                        gate.leave(ticket, now);
                    }
                    _ => now = now.after(Duration::from_millis(passes)),
                }
                asking.retain(|(ticket, name, road, came)| match gate.ask(*ticket, now) {
                    Standing::Waits => {
                        assert!(now.since(*came) < Settings::AUTO.wait);
                        true
                    }
                    Standing::In => {
                        inside.push((*name, *road));
                        false
                    }
                    Standing::Out(wait) => {
                        assert!(!wait.is_zero() && wait <= LONGEST);
                        false
                    }
                });
                let narrow = inside.iter().filter(|(_, road)| *road == 0).count();
                prop_assert!(narrow <= limits.0 as usize && inside.len() <= limits.1 as usize);
                prop_assert_eq!(gate.waiting(), asking.len());
                prop_assert!(asking.len() <= room as usize);
                let has_room = |road: usize| {
                    inside.len() < limits.1 as usize && (road == 1 || narrow < limits.0 as usize)
                };
                prop_assert!(!asking.iter().any(|(_, _, road, _)| has_room(*road)));
                prop_assert!(gate.settled.is_empty());
            }
            asking.drain(..).for_each(|(ticket, ..)| gate.leave(ticket, now));
            for (name, road) in inside {
                gate.ended(&names[name], &ways[road].valves, now);
            }
            prop_assert!(gate.is_idle() && gate.settled.is_empty());
            prop_assert_eq!(gate.load("main").map_or(0, |(held, _)| held), 0);
        }
    }
}
