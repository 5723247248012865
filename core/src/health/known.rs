//! Those of whom something is known, by name.
//!
//! They are those whom the configuration names: few, and no more come in while it stays.

use std::rc::Rc;

/// What is known of whom, in the order of their names.
#[derive(Debug)]
pub(super) struct Known<T>(Vec<(Box<str>, T)>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> Known<T> {
    /// What is known of `name`, which is nothing if it was never spoken of.
    pub(super) fn of(&mut self, name: &str) -> &mut T {
        let place = self.place(name);
        if self.0.get(place).is_none_or(|(other, _)| **other != *name) {
            self.0.insert(place, (name.into(), T::default()));
        }
        // It was found there, or put there.
        #[allow(clippy::indexing_slicing)]
        &mut self.0[place].1
    }

    /// What is known of `name`, if it was ever spoken of.
    pub(super) fn find(&mut self, name: &str) -> Option<&mut T> {
        let place = self.place(name);
        let (other, known) = self.0.get_mut(place)?;
        (**other == *name).then_some(known)
    }

    /// The same, to look at.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        let (other, known) = self.0.get(self.place(name))?;
        (**other == *name).then_some(known)
    }

    /// Forgets everybody but `names`.
    pub(super) fn keep_only(&mut self, names: &[Rc<str>]) {
        self.0
            .retain(|(name, _)| names.iter().any(|other| **other == **name));
    }

    fn place(&self, name: &str) -> usize {
        self.0.partition_point(|(other, _)| **other < *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_spoken_of_is_known_until_nobody_names_him() {
        let mut known: Known<u32> = Known::default();
        let names: Vec<Rc<str>> = ["b", "a", "c", "aa"].map(Rc::from).into();
        for (number, name) in (0..).zip(&names) {
            *known.of(name) = number;
        }
        for (number, name) in (0..).zip(&names) {
            assert_eq!(*known.of(name), number);
            assert_eq!(known.find(name), Some(&mut number.clone()));
            assert_eq!(known.get(name), Some(&number));
        }
        assert_eq!(known.get("d"), None);
        assert_eq!(known.find(""), None);
        known.keep_only(&names[1..3]);
        assert_eq!(known.get("b"), None);
        assert_eq!(known.get("c"), Some(&2));
    }
}
