//! What an isolate keeps from one gateway to the next, where gateways come and go: with every call, or with a configuration.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    rc::Rc,
    sync::MutexGuard,
};

use crate::{
    dice::Dice,
    flat_map::FlatMap,
    health::{self, Health},
    limit::{Limit, Purse, Purses, Quota},
    overload::{self, Gates},
    time::Timestamp,
};

/// What an isolate holds of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Holdings(Rc<Inside>);

struct Inside {
    purses: RefCell<Purses>,
    me: u32,
    trip: Cell<u64>,
    /// What is known of those whom it asks.
    health: health::Shared,
    /// What is in progress where not everybody is let in.
    gates: overload::Shared,
    /// What the holdings are kept under.
    configuration: RefCell<Option<Rc<dyn Any>>>,
    /// What is allowed since a configuration took the place of another one, by the names that limits give to their accounts: a
    /// request may still be in progress that came under the one before.
    quotas: RefCell<FlatMap<Quota>>,
}

impl Holdings {
    /// Nothing yet, held by an isolate whose number is drawn.
    pub fn new(dice: &mut Dice) -> Self {
        Self::knowing(health::Shared::default(), overload::Shared::default(), dice)
    }

    /// Nothing yet, of somebody who asks beside others who know `health`, and go through the same `gates`.
    pub fn knowing(health: health::Shared, gates: overload::Shared, dice: &mut Dice) -> Self {
        Self(Rc::new(Inside {
            purses: RefCell::new(Purses::new(dice.roll())),
            me: dice.roll() as u32,
            trip: Cell::new(25),
            health,
            gates,
            configuration: RefCell::default(),
            quotas: RefCell::default(),
        }))
    }

    /// From now on everybody keeps to the `limits` of `configuration`, whoever came under another one as well. Whether there was
    /// another one.
    pub(crate) fn keep_to<'a, T: Any, L: Iterator<Item = &'a Rc<Limit>>>(
        &self,
        configuration: &Rc<T>,
        limits: impl FnOnce() -> L,
    ) -> bool {
        let mut kept = self.0.configuration.borrow_mut();
        let is_another = kept.is_some();
        if let Some(before) = &*kept {
            if Rc::as_ptr(before).addr() == Rc::as_ptr(configuration).addr() {
                return false;
            }
            let mut quotas = self.0.quotas.borrow_mut();
            quotas.clear();
            for limit in limits() {
                quotas.insert(limit.account.clone(), limit.quota);
            }
        }
        *kept = Some(configuration.clone());
        is_another
    }

    pub(crate) fn health(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock()
    }

    pub(crate) fn gates(&self) -> MutexGuard<'_, Gates> {
        self.0.gates.lock()
    }

    pub(crate) fn purses(&self) -> &RefCell<Purses> {
        &self.0.purses
    }

    /// Does something with the purse for one of the accounts that `limit` is counted on.
    pub(crate) fn with<T>(
        &self,
        limit: &Limit,
        account: &Rc<str>,
        now: Timestamp,
        work: impl FnOnce(&mut Purse) -> T,
    ) -> T {
        let quota = self.0.quotas.borrow().get(&limit.account).copied();
        let mut purses = self.0.purses.borrow_mut();
        work(purses.of(account, quota.unwrap_or(limit.quota), now))
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
