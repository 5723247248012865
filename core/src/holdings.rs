//! What an isolate keeps from one gateway to the next, where gateways come and go: with every call, or with a configuration.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{dice::Dice, limit::Purses};

/// What an isolate holds of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Holdings(Rc<Inside>);

struct Inside {
    purses: RefCell<Purses>,
    me: u32,
    trip: Cell<u64>,
}

impl Holdings {
    /// Nothing yet, held by an isolate whose number is drawn.
    pub fn new(dice: &mut Dice) -> Self {
        Self(Rc::new(Inside {
            purses: RefCell::default(),
            me: dice.roll() as u32,
            trip: Cell::new(25),
        }))
    }

    pub(crate) fn purses(&self) -> &RefCell<Purses> {
        &self.0.purses
    }

    /// How the ledger knows this isolate.
    pub(crate) fn me(&self) -> u32 {
        self.0.me
    }

    /// How long the ledger takes to answer, in milliseconds.
    pub(crate) fn trip(&self) -> &Cell<u64> {
        &self.0.trip
    }
}
