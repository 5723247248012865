//! What comes of asking the ledger: in, out, or once more.

use super::Denial;
use crate::{
    claim::Claim,
    limit::{Balance, Held, Standing},
    platform::Fault,
    time::Timestamp,
};

/// What came of a try.
pub(super) enum Try {
    In(Vec<(Claim, Held)>, Option<Fault>),
    Out(Denial),
    /// It has a place in the queue, and is to ask again then.
    Queued(Timestamp, Standing),
    /// A limit has no room, perhaps only because of somebody who is refused by another one: that has granted its part, and has
    /// not much more.
    Mixed(Denial),
    /// What was granted came too late to be used.
    Late,
}

/// What the ledger has said to one try.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) held: Vec<(Claim, Held)>,
    /// Whether a limit that has not much more has granted its part now, or had when it was asked at once with the others.
    pub(super) is_near: bool,
    /// The limit that has no room for longest.
    pub(super) refused: Option<Standing>,
    /// When to ask again, where somebody who is refused has a place in a queue.
    pub(super) queued: Option<Timestamp>,
    /// Whether anybody is refused without such a place; whether there is a queue that is full; and whether a limit has no room
    /// whatever others give back.
    pub(super) is_out: bool,
    pub(super) is_shed: bool,
    pub(super) is_certain: bool,
    pub(super) late: bool,
    pub(super) fault: Option<Fault>,
}

impl Tally {
    pub(super) fn refuse(
        &mut self,
        standing: Standing,
        balance: &Balance,
        claim: &Claim,
        heard: Timestamp,
    ) {
        if balance.queued.is_some() {
            let again = heard.after(balance.again.since(balance.at));
            self.queued = self.queued.max(Some(again));
        } else {
            self.is_out = true;
            self.is_shed |= claim.limit.queue.is_some();
            self.is_certain |= balance.is_certain();
        }
        let longer = |other: &Standing| other.reset >= standing.reset;
        if !self.refused.as_ref().is_some_and(longer) {
            self.refused = Some(standing);
        }
    }

    /// What comes of it: it is in, perhaps though the ledger failed; or it is not.
    pub(super) fn verdict(&mut self, forgiving: bool) -> Result<Option<Fault>, Try> {
        if let Some(standing) = self.refused.take() {
            return Err(match self.queued {
                Some(again) if !self.is_out => Try::Queued(again, standing),
                _ if self.is_shed => Try::Out(Denial::Shed(standing)),
                _ if self.is_near && !self.is_certain => Try::Mixed(Denial::Limited(standing)),
                _ => Try::Out(Denial::Limited(standing)),
            });
        }
        match self.fault.take() {
            Some(fault) if !forgiving => Err(Try::Out(Denial::Unknown(fault))),
            _ if self.late => Err(Try::Late),
            fault => Ok(fault),
        }
    }
}
