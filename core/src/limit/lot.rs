//! Units in hand, until when they can be spent, and how far clocks can be trusted with that.

use super::entry::Parcel;
use crate::time::Timestamp;

/// What is left unused at the end of a holding at least, in milliseconds: a clock may stand still while its isolate works.
const MARGIN: u64 = 50;

/// Clocks that do not run alike differ over a span by less than one part in so many.
const DRIFT: u64 = 64;

/// Units in hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lot {
    pub(super) bucket: u64,
    pub(super) units: u64,
    pub(super) until: Timestamp,
}

/// Units taken out of a purse for one request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Held(pub(super) Vec<Lot>);

impl Held {
    /// How many.
    pub fn units(&self) -> u64 {
        sum(&self.0)
    }

    /// Until when all of them can be spent.
    pub fn until(&self) -> Option<Timestamp> {
        self.0.iter().map(|lot| lot.until).min()
    }

    /// Adds what was taken later.
    pub fn join(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Takes `units` out of it, or all there are.
    pub fn split(&mut self, units: u64) -> Self {
        Self(withdraw(&mut self.0, units, |_| true))
    }
}

impl Lot {
    pub(super) fn of(parcel: Parcel, sent: Timestamp) -> Self {
        let margin = MARGIN.min(parcel.lasts / 4).max(drift(parcel.lasts));
        Self {
            bucket: parcel.bucket,
            units: parcel.units,
            until: Timestamp(sent.0.saturating_add(parcel.lasts.saturating_sub(margin))),
        }
    }
}

/// How many units there are in all.
pub(super) fn sum(lots: &[Lot]) -> u64 {
    lots.iter()
        .fold(0, |sum, lot| sum.saturating_add(lot.units))
}

/// By how much another clock may differ over `span`.
pub(super) fn drift(span: u64) -> u64 {
    span / DRIFT + 1
}

/// `span`, or less, by another clock.
pub(super) fn shorter(span: u64) -> u64 {
    span.saturating_sub(drift(span))
}

/// Takes `units` out of the lots that fit, or all there are, from the first on.
pub(super) fn withdraw(lots: &mut Vec<Lot>, units: u64, fits: impl Fn(&Lot) -> bool) -> Vec<Lot> {
    let mut missing = units;
    let mut taken = Vec::new();
    for lot in lots.iter_mut().filter(|lot| fits(lot)) {
        let part = missing.min(lot.units);
        if part > 0 {
            taken.push(Lot {
                units: part,
                ..*lot
            });
            lot.units -= part;
            missing -= part;
        }
    }
    lots.retain(|lot| lot.units > 0);
    taken
}
