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
//! It is what one isolate knows, or the threads of one process together. Several of them before one Dify each learn from its
//! answers: where it is slow they all give way, and what they let in together stays about what it bears. Who wants a number that
//! holds over all of them sets a limit on what is `concurrent`, which the ledger keeps.

mod controller;
mod gate;
mod queue;
mod share;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use controller::{Bounds, Controller};
pub use gate::{Gate, Standing};
pub use queue::{Queue, Waiting};
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
pub struct Gates(Vec<(Arc<str>, Gate)>);

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
        let place = self.0.iter().position(|(other, _)| other == name);
        let place = place.unwrap_or_else(|| {
            self.0.push((name.clone(), Gate::default()));
            self.0.len() - 1
        });
        // It was found there, or put there.
        #[allow(clippy::indexing_slicing)]
        &mut self.0[place].1
    }

    /// Forgets all that nobody is in or before, as after the configuration was replaced: those that are still configured learn
    /// anew.
    pub fn forget_idle(&mut self) {
        self.0.retain(|(_, gate)| !gate.is_idle());
    }
}
