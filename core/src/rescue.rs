//! Goes on, from somebody else, with a stream that has broken off after its caller had heard of it.

use std::{future::Future, pin::Pin};

use crate::{
    budget::Budget,
    dialect::openai::{Splice, Transcript},
    pursuit::{Pursuit, Resumed},
    record::Attempt,
    usage::Usage,
};

/// A rescue under way.
pub(crate) type Rescue = Pin<Box<dyn Future<Output = Rescued>>>;

/// What came of it.
pub(crate) struct Rescued {
    pub(crate) pursuit: Pursuit,
    pub(crate) budget: Budget,
    /// Who was asked.
    pub(crate) attempts: Vec<Attempt>,
    /// Who goes on, if somebody does.
    pub(crate) resumed: Option<(Resumed, Splice)>,
}

/// Begins the rescue of a stream whose caller has heard `heard`, which has cost `lost`.
pub(crate) fn rescue(
    mut pursuit: Pursuit,
    mut budget: Budget,
    heard: Transcript,
    lost: Usage,
) -> Rescue {
    Box::pin(async move {
        let mut attempts = Vec::new();
        // What cannot be held for it is not asked for.
        let resumed = pursuit
            .go_on(&heard, &mut budget, &mut attempts)
            .await
            .unwrap_or_default();
        Rescued {
            pursuit,
            budget,
            attempts,
            resumed: resumed.map(|resumed| (resumed, Splice::new(heard, lost))),
        }
    })
}
