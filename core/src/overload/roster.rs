//! Those who ask one upstream from several places, and how they share what it bears.
//!
//! Each says from time to time what it has in progress, how many more would like to be, and how soon answers have begun; and is
//! told how many it may have in progress for the next few seconds. So all of them learn from every answer, and let in together no
//! more than one would. Places are lent: who says nothing any more has them no longer, and what it had in progress counts for a
//! while. The shares are max-min fair, by what each could use; where there are fewer places than members, they take turns.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Bounds, Learner};
use crate::time::Timestamp;

/// For how long places are lent; and for how long whoever has them uses them, counted from when it asked: two clocks may go
/// differently over it.
const LENT_FOR: Duration = Duration::from_secs(5);
pub(super) const USED_FOR: Duration = Duration::from_secs(4);

/// How long what somebody had in progress counts who says nothing any more: an upstream goes on though nobody listens.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// For how long it is remembered what an upstream bears that nobody asks.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How many can share an upstream. Who comes then must wait until another one leaves.
const MEMBERS: usize = 128;

/// For how long somebody keeps a place that others would like to have as well, who have none.
const TURN: Duration = Duration::from_secs(1);

/// How often each says how it does, in milliseconds; and where some have less than they could use, so often each, and so much
/// less often the more there are.
const USUALLY: u32 = 1_000;
const SHORT: u32 = 100;
const SHORT_EACH: u32 = 10;

/// What part of those places that nobody wants somebody has beyond what it wants, and no more than that once more.
const SPARE: u32 = 8;

/// What somebody says who lets calls in.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Between what the limit is learnt.
    pub bounds: Bounds,
    /// How many calls are in progress.
    pub in_progress: u32,
    /// The most that were since it was last said.
    pub peak: u32,
    /// How many would be besides, if there were room.
    pub waiting: u32,
    /// How many may wait in all.
    pub room: u32,
    /// How soon answers have begun since it was last said, and for how long late ones are awaited, in milliseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delays: Vec<u32>,
}

/// What it is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Allotment {
    /// How many calls it may have in progress; if more are, it lets nobody in until fewer are.
    pub places: u32,
    /// How many may wait for more.
    pub room: u32,
    /// How many calls all of them may have in progress together.
    pub limit: u32,
    /// How many they are.
    pub sharers: u32,
    /// After how many milliseconds to say again how it does; zero: when it wants something again.
    pub pause: u32,
}

/// What is known of one upstream by all who ask it; nothing, at first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    learner: Learner,
    members: Vec<Member>,
    /// When somebody said something last; zero, if nobody has.
    heard: Timestamp,
}

/// One who asks it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    from: u32,
    heard: Timestamp,
    in_progress: u32,
    wants: u32,
    places: u32,
    /// When its turn began to have places where there are fewer than members; zero, if it has had none.
    turn: Timestamp,
}

impl Roster {
    /// Hears what the isolate with the number `from` says, and says what it may have.
    pub fn hear(&mut self, from: u32, report: &Report, now: Timestamp) -> Allotment {
        let before = self.members.iter().find(|member| member.from == from);
        let turn = before.map_or(Timestamp(0), |member| member.turn);
        self.members
            .retain(|member| member.from != from && now < member.counts_until());
        let mut me = Member {
            from,
            heard: now,
            in_progress: report.in_progress,
            wants: report.in_progress.saturating_add(report.waiting),
            places: 0,
            turn,
        };
        let limit = self.learn(report, now);
        self.heard = now;
        let others = &self.members;
        let wants = others.iter().map(|member| member.wants(now));
        let wants: Vec<u32> = wants.chain([me.wants]).collect();
        let held = sum(others.iter().map(|member| member.holds(now)));
        let waiting = sum(others.iter().map(|member| member.waits(now)));
        let free = limit.saturating_sub(held);
        let is_over = turn != Timestamp(0) && now >= turn.after(TURN);
        let is_first = |other: &Member| other.turn < turn && other.has_none(now);
        let are_many = wants.iter().filter(|wanted| **wanted > 0).count() > limit as usize;
        let yields = are_many && is_over && others.iter().any(is_first);
        if others.len() < MEMBERS && !yields {
            let spare = me.wants.min(free.saturating_sub(me.wants) / SPARE);
            let share = share(&wants, me.wants, limit).saturating_add(spare);
            me.places = share.min(free);
        }
        if me.places > 0 && (is_over || turn == Timestamp(0)) {
            me.turn = now;
        }
        // Whoever waits for them is let in, be it the last that is heard of it; and whoever may not wait does not.
        let room = report.room.saturating_sub(waiting);
        me.in_progress = me.in_progress.max(me.places.min(me.wants));
        let pause = if me.wants == 0 {
            0
        } else if sum(wants.iter().copied()) > limit || me.places < me.wants {
            SHORT.max(SHORT_EACH.saturating_mul(wants.len() as u32))
        } else {
            USUALLY
        };
        me.wants = me.wants.min(me.in_progress.saturating_add(room));
        if me.wants > 0 && others.len() < MEMBERS {
            self.members.push(me);
        }
        Allotment {
            places: me.places,
            room,
            limit,
            sharers: wants.len() as u32,
            pause,
        }
    }

    /// When it says nothing any more.
    pub(crate) fn empty_at(&self) -> Timestamp {
        if self.heard == Timestamp(0) {
            return self.heard;
        }
        self.heard.after(REMEMBERED)
    }

    fn learn(&mut self, report: &Report, now: Timestamp) -> u32 {
        let bounds = report.bounds;
        if self.heard == Timestamp(0) {
            self.learner = Learner::new(bounds);
        }
        let learner = &mut self.learner;
        for delay in &report.delays {
            learner.learn(*delay);
        }
        let others = sum(self.members.iter().map(|member| member.in_progress));
        learner.saw(others.saturating_add(report.peak));
        let in_progress = others.saturating_add(report.in_progress);
        learner.think(bounds, in_progress, &[], now);
        learner.limit(bounds)
    }
}

impl Member {
    /// Whether it is heard of.
    fn is_there(&self, now: Timestamp) -> bool {
        now < self.heard.after(LENT_FOR)
    }

    /// How many places are its.
    fn holds(&self, now: Timestamp) -> u32 {
        if self.is_there(now) {
            self.places.max(self.in_progress)
        } else {
            self.in_progress
        }
    }

    /// How many it could use.
    fn wants(&self, now: Timestamp) -> u32 {
        if self.is_there(now) {
            self.wants
        } else {
            self.in_progress
        }
    }

    /// How many wait for it.
    fn waits(&self, now: Timestamp) -> u32 {
        self.wants(now).saturating_sub(self.in_progress)
    }

    /// Whether it waits for the first one.
    fn has_none(&self, now: Timestamp) -> bool {
        self.waits(now) > 0 && self.holds(now) == 0
    }

    fn counts_until(&self) -> Timestamp {
        let counts = if self.in_progress > 0 {
            LOST_AFTER
        } else {
            LENT_FOR
        };
        self.heard.after(counts)
    }
}

/// How much of `limit` somebody has who wants `mine`, which is one of `wants`: all of it, where there is enough; else as much as
/// others who have less than they want.
fn share(wants: &[u32], mine: u32, limit: u32) -> u32 {
    let taken = |level: u32| sum(wants.iter().map(|wanted| level.min(*wanted)));
    let (mut level, mut above) = (0, limit);
    while above > level + 1 {
        let middle = level.midpoint(above);
        if taken(middle) <= limit {
            level = middle;
        } else {
            above = middle;
        }
    }
    // Whoever asks first has what cannot be divided.
    mine.min(level + u32::from(taken(level) < limit))
}

fn sum(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}
