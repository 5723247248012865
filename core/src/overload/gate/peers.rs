//! What a gate tells those who share its upstreams, and hears of them.

use std::{fmt, time::Duration};

use super::Gate;
use crate::{
    overload::{Allotment, Report, Waiting},
    time::{Timestamp, millis},
};

/// How often those who share an upstream hear of somebody who waits here, at most, in milliseconds.
const OFTEN: u64 = 100;

/// For how long their answer is awaited, in milliseconds.
const ANSWERED: u64 = 1_000;

/// How it stands with the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    /// Whether there are any, whom nobody here sees.
    pub(super) are_there: bool,
    /// When they were told how it does here, last.
    told: Timestamp,
    /// Whether they have not answered yet.
    pub(super) are_asked: bool,
    /// After how many milliseconds they are told again.
    pause: u64,
    /// How long they took to answer, in milliseconds: nobody is asked faster than he answers.
    took: u64,
    /// Why they do not, if they do not.
    fault: Option<Box<str>>,
    /// Whether somebody has come since who waits, where they had said that they have enough.
    has_news: bool,
}

impl Gate {
    /// A gate whose upstreams are shared with other gates.
    pub fn shared() -> Self {
        let peers = Peers {
            are_there: true,
            ..Peers::default()
        };
        Self {
            peers,
            ..Self::default()
        }
    }

    /// After how long to see again whether there is anything to tell those who share its upstreams.
    pub fn beat(&self) -> Duration {
        Duration::from_millis(if self.queue.is_empty() {
            ANSWERED
        } else {
            OFTEN
        })
    }

    /// What those are to be told now who share its upstreams, by the names of valves; nothing, if that has time.
    pub fn report(&mut self, now: Timestamp) -> Vec<(Box<str>, Report)> {
        self.go_alone(now);
        if !self.is_due(now) {
            return Vec::new();
        }
        let waiting: Vec<u32> = self
            .valves
            .iter()
            .map(|(name, _)| self.would(name, now))
            .collect();
        let mut reports = Vec::new();
        for ((name, controller), waiting) in self.valves.iter_mut().zip(waiting) {
            if waiting + controller.in_progress() > 0 || controller.has_places(now) {
                reports.push((name.clone(), controller.report(waiting, now)));
            }
        }
        self.peers = Peers {
            told: now,
            are_asked: true,
            pause: ANSWERED,
            has_news: false,
            ..std::mem::take(&mut self.peers)
        };
        reports
    }

    /// They have answered what was said at `sent`, by the names of valves: what is allotted, or why nobody knows.
    pub fn hear<'n, F: fmt::Display>(
        &mut self,
        answers: impl Iterator<Item = (&'n str, Result<Allotment, F>)>,
        sent: Timestamp,
        now: Timestamp,
    ) {
        self.peers.took = millis(now.since(sent)).min(ANSWERED);
        self.peers.fault = None;
        for (name, allotment) in answers {
            let mut valves = self.valves.iter_mut();
            let Some((_, controller)) = valves.find(|(other, _)| **other == *name) else {
                continue;
            };
            match allotment {
                Ok(allotment) => {
                    controller.hear(&allotment, sent);
                    if allotment.pause > 0 {
                        self.peers.pause = self.peers.pause.min(allotment.pause.into());
                    }
                }
                Err(fault) => {
                    self.peers.fault = Some(fault.to_string().into());
                    controller.goes_alone(now);
                }
            }
        }
        if self.peers.told == sent {
            self.peers.are_asked = false;
        }
        // It has taken time to know whether there is room: that is not held against anybody.
        self.let_in(now);
        self.go_on(now);
        if self.is_asking(now) {
            return;
        }
        let waiting = self.queue.iter().map(|one| one.valves.clone());
        for valves in waiting.collect::<Vec<_>>() {
            self.keep_to_room(&valves, now);
        }
    }

    /// Whether those who share its upstreams are being asked how much room there is, or are to be.
    pub fn is_asking(&self, now: Timestamp) -> bool {
        self.peers.are_asked || self.is_due(now)
    }

    /// Why it is not known what those do who share its upstreams, if it is not.
    pub fn fault(&self) -> Option<&str> {
        self.peers.fault.as_deref()
    }

    /// Goes on alone if those who share its upstreams do not answer.
    pub(super) fn go_alone(&mut self, now: Timestamp) {
        if !self.peers.are_asked || self.since_told(now) < ANSWERED {
            return;
        }
        self.peers.are_asked = false;
        self.peers.fault = Some("no answer in time".into());
        for (_, controller) in &mut self.valves {
            if controller.free(now).is_none() {
                controller.goes_alone(now);
            }
        }
        self.let_in(now);
    }

    /// How many of those who wait would be in progress if there were room under the valve with this name: as many as a narrower one lets
    /// in.
    fn would(&self, name: &str, now: Timestamp) -> u32 {
        let mut left: Vec<(&str, u32)> = Vec::new();
        let mut would = 0;
        for one in self.queue.iter() {
            let mut names = one.valves.iter().map(|valve| &*valve.name);
            let Some(place) = names.position(|other| other == name) else {
                continue;
            };
            let narrower = place.checked_sub(1).and_then(|place| one.valves.get(place));
            let Some(narrower) = narrower.map(|valve| &*valve.name) else {
                would += 1;
                continue;
            };
            let place = left.iter().position(|(other, _)| *other == narrower);
            let place = place.unwrap_or_else(|| {
                let found = self.valves.iter().find(|(other, _)| **other == *narrower);
                let free = found.map_or(u32::MAX, |(_, controller)| controller.may_let_in(now));
                left.push((narrower, free));
                left.len() - 1
            });
            if let Some((_, left)) = left.get_mut(place).filter(|(_, left)| *left > 0) {
                *left -= 1;
                would += 1;
            }
        }
        would
    }

    /// Takes note of somebody who has come, and waits.
    pub(super) fn has_come(&mut self) {
        self.peers.has_news |= self.peers.pause > OFTEN;
    }

    /// Whether those who share its upstreams are to be told how it does: soon where somebody waits, and at once where it is not known
    /// what it may, or where it has what others could use.
    fn is_due(&self, now: Timestamp) -> bool {
        if !self.peers.are_there || self.peers.are_asked {
            return false;
        }
        if self.is_idle() {
            let mut valves = self.valves.iter();
            return valves.any(|(_, controller)| controller.has_places(now));
        }
        let is_unknown = |one: &Waiting| {
            let mut valves = one.valves.iter();
            valves.any(|valve| self.room(&valve.name, now).is_none())
        };
        let pause = match self.queue.is_empty() {
            true => self.peers.pause,
            false if self.peers.has_news || self.queue.iter().any(is_unknown) => 0,
            false => self.peers.pause.min(OFTEN).max(self.peers.took),
        };
        self.since_told(now) >= pause
    }

    /// For how many milliseconds nobody was told; for long, if the clock was set back.
    fn since_told(&self, now: Timestamp) -> u64 {
        now.0.checked_sub(self.peers.told.0).unwrap_or(u64::MAX)
    }
}
