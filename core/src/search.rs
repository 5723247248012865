//! The search for somebody who answers, for a caller who is told meanwhile that it goes on.

use std::{future::Future, pin::Pin};

use crate::{
    answer::Reply,
    budget::Budget,
    dispatch::Target,
    pursuit::{Loss, Pursuit},
};

/// A search under way.
pub(crate) type Search = Pin<Box<dyn Future<Output = Searched>>>;

/// What came of it.
pub(crate) struct Searched {
    pub(crate) pursuit: Box<Pursuit>,
    pub(crate) budget: Budget,
    /// Who has something for the caller, and what.
    pub(crate) found: Result<(Reply, Target), Loss>,
}

/// Begins the search of `pursuit`.
pub(crate) fn search(mut pursuit: Box<Pursuit>, mut budget: Budget) -> Search {
    Box::pin(async move {
        let found = pursuit.answer(&mut budget).await;
        Searched {
            pursuit,
            budget,
            found,
        }
    })
}
