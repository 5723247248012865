//! How a call is let in to whoever is asked, where not everybody is.

use std::{sync::Arc, time::Duration};

use crate::{
    answer::{Content, Miss, Reply},
    holdings::Holdings,
    overload::{Priority, Way},
    passage::{Passage, Sign},
    platform::Platform,
    refusal::Refusal,
    trail::Trail,
    upstream::{FailureReason, Outcome},
};

/// Somebody who wants to be let in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Entrant {
    pub(crate) platform: Platform,
    pub(crate) holdings: Holdings,
    /// By what name gates know him, and before whom he goes.
    pub(crate) who: Arc<str>,
    pub(crate) priority: Priority,
    /// Where it is taken down for how long he has waited.
    pub(crate) trail: Trail,
}

impl Entrant {
    /// Whether there is room on this `way` at once.
    pub(crate) fn has_room(&self, way: &Way) -> bool {
        let now = self.platform.clock.now();
        self.holdings.gates().of(&way.gate).has_room(way, now)
    }

    /// Waits until there is room on this `way`, for so long as it says and no longer than `limit`, or says that there is none.
    pub(crate) async fn pass(&self, way: &Way, limit: Duration) -> Result<Passage, Refusal> {
        let (way, who) = (way.clone(), self.who.clone());
        let (gate, valves) = (way.gate.clone(), way.valves.clone());
        let (waited, passed) = Passage::through(
            &self.platform,
            &self.holdings,
            way,
            who,
            self.priority,
            limit,
        )
        .await;
        self.trail.has_waited(waited);
        if let Some(fault) = self.holdings.gates().of(&gate).fault() {
            self.trail.is_alone(fault);
        }
        passed.map_err(|retry_after| match valves.first() {
            Some(valve) => Refusal::Crowded {
                scope: valve.name.clone(),
                over: valve.settings.over,
                retry_after,
            },
            None => Refusal::NoRoom,
        })
    }
}

/// What an answer, or none, says of how much whoever was asked has to do.
pub(crate) fn crowd(taken: &Result<Reply, Miss>) -> Sign {
    let outcome = match taken {
        Ok(reply) if matches!(reply.content, Content::Stream(..)) => return Sign::Begun,
        Ok(reply) => reply.outcome(),
        Err(miss) => miss.outcome,
    };
    let is_dify = taken.as_ref().is_err_and(|miss| miss.said.is_some());
    let status = outcome.status().map(|status| status.as_u16());
    match (outcome, status.filter(|_| !is_dify)) {
        (Outcome::Failed(FailureReason::Timeout | FailureReason::Broken), _) => Sign::Overloaded,
        (_, Some(502..=504)) => Sign::Overloaded,
        (_, Some(429)) => Sign::Busy,
        _ => Sign::Other,
    }
}
