//! The search for somebody who answers, for a caller who is told meanwhile that it goes on.

use std::{future::Future, pin::Pin};

use http::StatusCode;

use crate::{
    answer::{Content, Reply},
    budget::Budget,
    dispatch::Target,
    passage::Sign,
    pursuit::{Loss, Pursuit},
    upstream::{FailureReason, Outcome},
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
        if let Some(passage) = &mut budget.passage {
            passage.answered(crowd(&found));
        }
        Searched {
            pursuit,
            budget,
            found,
        }
    })
}

/// What an answer, or none, says of how much whoever was asked has to do.
fn crowd(found: &Result<(Reply, Target), Loss>) -> Sign {
    let outcome = match found {
        Ok((reply, _)) if matches!(reply.content, Content::Stream(..)) => return Sign::Begun,
        Ok((reply, _)) => reply.outcome(),
        Err(Loss::Unanswered(Some(miss))) => miss.outcome,
        Err(_) => return Sign::Other,
    };
    let busy = StatusCode::TOO_MANY_REQUESTS.as_u16();
    let is_busy = |status: StatusCode| status == busy || (502..=504).contains(&status.as_u16());
    match outcome {
        Outcome::Failed(FailureReason::Timeout | FailureReason::Broken) => Sign::Overloaded,
        outcome if outcome.status().is_some_and(is_busy) => Sign::Overloaded,
        _ => Sign::Other,
    }
}
