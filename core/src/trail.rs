//! Everyone who was asked for one request, in order.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use crate::record::Attempt;

/// The attempts of one request, as far as they are known: whoever asks writes to it, and the record has it in the end.
#[derive(Clone, Default)]
pub(crate) struct Trail(Rc<Steps>);

#[derive(Default)]
struct Steps {
    attempts: RefCell<Vec<Attempt>>,
    asides: RefCell<Vec<Attempt>>,
    waited: Cell<Option<Duration>>,
    fault: RefCell<Option<String>>,
}

impl Trail {
    /// Adds one of which it is known what came of it.
    pub(crate) fn push(&self, attempt: Attempt) {
        self.0.attempts.borrow_mut().push(attempt);
    }

    /// Adds a call that was made beside them: nobody was asked by it for an answer.
    pub(crate) fn aside(&self, call: Attempt) {
        self.0.asides.borrow_mut().push(call);
    }

    /// Says of the last one what became of it afterwards.
    pub(crate) fn explain(&self, detail: String) {
        if let Some(last) = self.0.attempts.borrow_mut().last_mut() {
            last.detail = Some(detail);
        }
    }

    /// Who was asked last.
    pub(crate) fn last(&self) -> String {
        let attempts = self.0.attempts.borrow();
        let last = attempts.last();
        last.map(|last| last.target.clone()).unwrap_or_default()
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.0.attempts.borrow().len()
    }

    /// All of them, and behind them what was called beside them.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        let mut all = self.0.attempts.borrow().clone();
        all.extend_from_slice(&self.0.asides.borrow());
        all
    }

    /// Adds why it was not known what others do who ask the same upstream.
    pub(crate) fn is_alone(&self, fault: &str) {
        *self.0.fault.borrow_mut() = Some(format!("ledger: {fault}"));
    }

    /// Why that was not known, if it was not.
    pub(crate) fn fault(&self) -> Option<String> {
        self.0.fault.borrow().clone()
    }

    /// Adds for how long it was waited until somebody had room.
    pub(crate) fn has_waited(&self, more: Option<Duration>) {
        let before = self.0.waited.get();
        let sum = more.map(|more| before.unwrap_or_default().saturating_add(more));
        self.0.waited.set(sum.or(before));
    }

    /// For how long it was waited in all until somebody had room; nothing, if nobody had to wait.
    pub(crate) fn waited(&self) -> Option<Duration> {
        self.0.waited.get()
    }
}
