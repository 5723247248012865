//! In place of a tunnel, where a platform cannot carry one: the configuration has been refused, and so is whoever asks for it.

use crate::{
    answer::Reply, body::Body, entrance::Entrant, exchange::Exchange, refusal::Refusal,
    visit::Visit,
};

/// There is none.
pub(crate) enum Tunnel {}

pub(crate) async fn open(
    _: &Entrant,
    _: &mut Visit,
    _: Exchange,
) -> Result<(Reply, Option<Tunnel>), Refusal> {
    Err(Refusal::Upgrade)
}

impl Tunnel {
    pub(crate) fn carry(self, _: Visit, _: Body) -> Body {
        match self {}
    }
}
