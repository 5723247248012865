//! Goes on, from somebody else, with a stream that has broken off after its caller had heard of it.

use std::{future::Future, pin::Pin};

use crate::{
    budget::Budget,
    dialect::openai::{Splice, Transcript},
    pursuit::{Pursuit, Resumed},
    usage::Usage,
};

/// A rescue under way.
pub(crate) type Rescue = Pin<Box<dyn Future<Output = Rescued>>>;

/// What came of it.
pub(crate) struct Rescued {
    pub(crate) pursuit: Box<Pursuit>,
    pub(crate) budget: Budget,
    /// Whose stream it was.
    pub(crate) broke_off: String,
    /// Who goes on, if somebody does.
    pub(crate) resumed: Option<(Resumed, Splice)>,
}

/// Begins the rescue of a stream of `broke_off`, whose caller has heard `heard`, which has cost `lost`.
pub(crate) fn rescue(
    mut pursuit: Box<Pursuit>,
    mut budget: Budget,
    broke_off: String,
    heard: Transcript,
    lost: Usage,
) -> Rescue {
    Box::pin(async move {
        // What cannot be held for it is not asked for.
        let resumed = pursuit.go_on(&heard, &mut budget).await.unwrap_or_default();
        Rescued {
            pursuit,
            budget,
            broke_off,
            resumed: resumed.map(|resumed| (resumed, Splice::new(heard, lost))),
        }
    })
}
