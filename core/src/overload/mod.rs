//! How many calls an upstream bears at the same time, which nobody has told, and who goes first when more come.
//!
//! A limit says what somebody may have; this says what Dify can do. It has few workers, each of them slower the more it has
//! to do, and beyond a point it does nothing but begin: whoever lets everybody in gets nothing out. So a call that runs an app
//! passes a [`Gate`] first:
//!
//! - `controller`: how many are let in is learnt from how soon an answer begins ([`Controller`]). How long it takes in all says
//!   nothing: that is the model's doing, and a model that thinks for a minute loads nobody.
//! - `queue`: who finds no room waits, but not for long ([`Queue`]). An answer that begins when its caller has given up is work
//!   for nobody, so whoever came last goes first as soon as more than a few wait.
//! - `gate`: both together. A call that falls under several controllers, its app's and its installation's, waits in one queue
//!   before both, so that nobody holds a place of one while waiting for the other.
//!
//! Consumers go before each other by their [`Priority`]; of those that have the same, whoever has the fewest calls in progress.
//! A flood of one so leaves the others their share.
//!
//! The other parts of an installation (its console, its files) pass gates of their own, whose controllers stand still: each
//! may have so many calls in progress and no more, and none waits behind another one.
//!
//! - `roster`: several isolates before one Dify, or several processes, share what it bears ([`Roster`]): what each may have in
//!   progress is lent to it for some seconds by the ledger that they share. Who waits, and who goes first, each decides for itself. Where
//!   the ledger does not answer, each goes by what it has learnt; where none is shared, as of one process alone, nobody is asked.

mod controller;
mod gate;
mod learner;
mod queue;
mod roster;
mod share;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use controller::Controller;
pub use gate::{Gate, Standing};
pub use learner::Learner;
pub use queue::{Queue, Waiting};
pub use roster::{Allotment, Report, Roster};
pub use share::{Share, Shares};

/// What has to be passed before an upstream is asked.
#[derive(Clone, Debug)]
pub struct Way {
    /// The name of the gate.
    pub gate: Arc<str>,
    /// What the call falls under there, the narrowest first.
    pub valves: Arc<[Valve]>,
}

impl Way {
    /// How long a call may wait on it.
    pub fn wait(&self) -> Duration {
        let waits = self.valves.iter().map(|valve| valve.settings.wait);
        waits.min().unwrap_or_default()
    }
}

/// What holds for all calls of one kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Valve {
    /// Whose they are: `dify.main/support`, say.
    pub name: Box<str>,
    /// What holds for them.
    pub settings: Settings,
}

/// How calls of one kind are let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Between what the number of those in progress is learnt.
    pub bounds: Bounds,
    /// How many may wait.
    pub room: u32,
    /// How long each of them may.
    pub wait: Duration,
    /// What they are told who find no room.
    pub over: Over,
}

impl Settings {
    /// What holds where the configuration does not say otherwise.
    pub const AUTO: Self = Self {
        bounds: Bounds::AUTO,
        room: 200,
        wait: Duration::from_millis(1_500),
        over: Over::TooMany,
    };
}

/// Between what it is learnt how many are let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// How many at first.
    pub start: u32,
    /// Never fewer.
    pub least: u32,
    /// Never more.
    pub most: u32,
}

impl Bounds {
    /// Where the configuration does not say otherwise.
    pub const AUTO: Self = Self {
        start: 16,
        least: 4,
        most: 1_000,
    };

    /// As many at any time.
    pub const fn fixed(limit: u32) -> Self {
        Self {
            start: limit,
            least: limit,
            most: limit,
        }
    }
}

/// What somebody is told who finds no room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Over {
    /// 429, as Dify itself says when an app has too much to do.
    TooMany,
    /// 503.
    Unavailable,
}

/// Who goes before whom.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// After everybody else, and sent away first.
    Low,
    /// As most do.
    #[default]
    Normal,
    /// Before everybody else.
    High,
}

/// All gates of an isolate. Nothing in it at first.
#[derive(Debug, Default)]
pub struct Gates {
    named: Vec<(Arc<str>, Gate)>,
    /// As whom those know them who share their upstreams, if anybody does.
    known_as: Option<u32>,
}

/// What those share who ask side by side: the threads of a process, or one isolate alone. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Gates>>);

impl Shared {
    /// For one question, or one word to take down: nobody waits while it is held.
    pub fn lock(&self) -> MutexGuard<'_, Gates> {
        // Whoever left it in the middle of a word has left a number that is a little wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gates {
    /// The gate with this name.
    pub fn of(&mut self, name: &Arc<str>) -> &mut Gate {
        let place = self.named.iter().position(|(other, _)| other == name);
        let place = place.unwrap_or_else(|| {
            let is_shared = self.known_as.is_some();
            let gate = if is_shared {
                Gate::shared()
            } else {
                Gate::default()
            };
            self.named.push((name.clone(), gate));
            self.named.len() - 1
        });
        // It was found there, or put there.
        #[allow(clippy::indexing_slicing)]
        &mut self.named[place].1
    }

    /// Their upstreams are shared with other gates, which know these by the number that was said first.
    pub fn share_as(&mut self, number: u32) {
        self.known_as.get_or_insert(number);
    }

    /// As whom those know them who share their upstreams, if anybody does.
    pub fn known_as(&self) -> Option<u32> {
        self.known_as
    }

    /// Forgets all that nobody is in or before, as after the configuration was replaced: those that are still configured learn
    /// anew.
    pub fn forget_idle(&mut self) {
        self.named.retain(|(_, gate)| !gate.is_idle());
    }
}
