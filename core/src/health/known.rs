//! Those of whom something is known, by name.

use std::{collections::HashMap, mem, rc::Rc};

/// How many are kept in each of two generations. Those of whom nobody spoke for that long are forgotten.
const NAMES: usize = 4096;

/// What is known of whom.
#[derive(Debug)]
pub(super) struct Known<T> {
    recent: HashMap<Rc<str>, T>,
    older: HashMap<Rc<str>, T>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self {
            recent: HashMap::new(),
            older: HashMap::new(),
        }
    }
}

impl<T: Default> Known<T> {
    /// What is known of `name`, which is nothing if it was never spoken of.
    pub(super) fn of(&mut self, name: &Rc<str>) -> &mut T {
        if self.recent.len() >= NAMES && !self.recent.contains_key(name) {
            let kept = self.older.remove(name);
            self.older = mem::take(&mut self.recent);
            self.recent.extend(kept.map(|known| (name.clone(), known)));
        }
        self.recent
            .entry(name.clone())
            .or_insert_with(|| self.older.remove(name).unwrap_or_default())
    }

    /// What is known of `name`, if it was ever spoken of.
    pub(super) fn find(&mut self, name: &Rc<str>) -> Option<&mut T> {
        self.get(name).is_some().then(|| self.of(name))
    }

    /// The same, to look at.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.recent.get(name).or_else(|| self.older.get(name))
    }

    /// Forgets everybody whose name does not please.
    pub(super) fn retain(&mut self, pleases: impl Fn(&Rc<str>) -> bool) {
        self.recent.retain(|name, _| pleases(name));
        self.older.retain(|name, _| pleases(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Rc<str> {
        number.to_string().into()
    }

    #[test]
    fn who_is_spoken_of_is_kept_and_the_others_are_bounded() {
        let mut known: Known<u32> = Known::default();
        *known.of(&name(0)) = 7;
        for number in 1..=5 * NAMES {
            *known.of(&name(number)) = 1;
            assert_eq!(known.find(&name(0)), Some(&mut 7));
            assert!(known.recent.len() + known.older.len() <= 2 * NAMES);
        }
        assert_eq!(known.find(&name(1)), None);
        assert_eq!(known.find(&name(5 * NAMES)), Some(&mut 1));
        known.retain(|name| **name == *"0");
        assert_eq!(known.recent.len() + known.older.len(), 1);
        assert_eq!(known.get("0"), Some(&7));
    }
}
