//! Everyone who was asked for one request, in order.

use std::{cell::RefCell, rc::Rc};

use crate::record::Attempt;

/// The attempts of one request, as far as they are known: whoever asks writes to it, and the record has it in the end.
#[derive(Clone, Default)]
pub(crate) struct Trail(Rc<RefCell<Vec<Attempt>>>);

impl Trail {
    /// Adds one of which it is known what came of it.
    pub(crate) fn push(&self, attempt: Attempt) {
        self.0.borrow_mut().push(attempt);
    }

    /// Says of the last one what became of it afterwards.
    pub(crate) fn explain(&self, detail: String) {
        if let Some(last) = self.0.borrow_mut().last_mut() {
            last.detail = Some(detail);
        }
    }

    /// Who was asked last.
    pub(crate) fn last(&self) -> String {
        let attempts = self.0.borrow();
        let last = attempts.last();
        last.map(|last| last.target.clone()).unwrap_or_default()
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// All of them.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.0.borrow().clone()
    }
}
