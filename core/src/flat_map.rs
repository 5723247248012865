//! A few things by their names, in order, in one piece of memory.
//!
//! A tree has its own code for each kind of thing that is kept in it, several times as much as stands here; and in a module that
//! callers' machines load, code costs more than the moving of a few names.

use std::rc::Rc;

/// Things by their names.
#[derive(Clone, Debug)]
pub struct FlatMap<T>(Vec<(Rc<str>, T)>);

impl<T> FlatMap<T> {
    /// What is named `name`.
    pub fn get(&self, name: &str) -> Option<&T> {
        let place = self.place(name).ok()?;
        self.0.get(place).map(|(_, thing)| thing)
    }

    /// What is named `name`, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        let place = self.place(name).ok()?;
        self.0.get_mut(place).map(|(_, thing)| thing)
    }

    /// From now on `thing` is what is named `name`. Whether nothing was before.
    pub fn insert(&mut self, name: Rc<str>, thing: T) -> bool {
        match self.place(&name) {
            Ok(place) => {
                if let Some(there) = self.0.get_mut(place) {
                    there.1 = thing;
                }
                false
            }
            Err(place) => {
                self.0.insert(place, (name, thing));
                true
            }
        }
    }

    /// All of it, by the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Rc<str>, &T)> {
        self.0.iter().map(|(name, thing)| (name, thing))
    }

    /// How much there is.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl<T> Default for FlatMap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_and_stands_in_order() {
        let mut map = FlatMap::default();
        for (name, number, is_new) in [
            ("b", 1, true),
            ("a", 2, true),
            ("c", 3, true),
            ("b", 4, false),
        ] {
            assert_eq!(map.insert(name.into(), number), is_new, "{name}");
        }
        let all: Vec<_> = map
            .iter()
            .map(|(name, number)| (&**name, *number))
            .collect();
        assert_eq!(all, [("a", 2), ("b", 4), ("c", 3)]);
        *map.get_mut("c").unwrap() += 2;
        assert_eq!((map.get("c"), map.get("d"), map.len()), (Some(&5), None, 3));
        map.clear();
        assert!(map.is_empty());
    }
}
