//! Waiting before a limit that has a queue.

use std::cell::Cell;

use super::Desk;
use crate::{
    claim::Claim,
    limit::{Entry, Place, Posting},
    time::Timestamp,
};

/// A request's place in the queues before its limits; given up when this is dropped.
pub(super) struct Line {
    desk: Desk,
    claims: Vec<Claim>,
    ticket: u32,
    pub(super) until: Timestamp,
    /// Whether it has a place now.
    pub(super) waits: Cell<bool>,
}

impl Line {
    pub(super) fn before(desk: &Desk, claims: &[Claim]) -> Self {
        let claims: Vec<_> = claims
            .iter()
            .filter(|claim| claim.limit.queue.is_some())
            .cloned()
            .collect();
        let waits = claims.iter().filter_map(|claim| claim.limit.queue);
        let wait = waits.map(|queue| queue.wait).min().unwrap_or_default();
        let ticket = if claims.is_empty() {
            0
        } else {
            desk.0.platform.dice.borrow_mut().roll() as u32
        };
        Self {
            desk: desk.clone(),
            claims,
            ticket,
            until: desk.now().after(wait),
            waits: Cell::new(false),
        }
    }

    pub(super) fn place(&self, claim: &Claim) -> Option<Place> {
        let queue = claim.limit.queue?;
        Some(Place {
            ticket: self.ticket,
            room: queue.room,
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.waits.get() {
            return;
        }
        let desk = self.desk.clone();
        let now = desk.now();
        let postings: Vec<Posting> = self
            .claims
            .iter()
            .map(|claim| {
                let entry = desk.with(claim, now, |purse| Entry {
                    left: Some(self.ticket),
                    ..purse.settle(desk.0.holdings.me(), now)
                });
                Posting {
                    account: claim.account.clone(),
                    entry,
                }
            })
            .collect();
        let tasks = desk.0.platform.tasks.clone();
        tasks.spawn(Box::pin(async move {
            desk.post(&postings).await;
        }));
    }
}
