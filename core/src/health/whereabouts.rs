//! Where something is that belongs to one of those who are asked: who was last found to have it.

/// For how many things that is remembered; a power of two. Beyond, whatever comes takes somebody else's place.
const SLOTS: usize = 1 << 14;

/// What is known of things, each by a number that is its own: the number of whoever has it. Nothing at first, and no memory taken.
#[derive(Debug, Default)]
pub(super) struct Whereabouts(Vec<(u64, u64)>);

impl Whereabouts {
    /// `place` has `thing`.
    pub(super) fn put(&mut self, thing: u64, place: u64) {
        if self.0.is_empty() {
            self.0.resize(SLOTS, (0, 0));
        }
        if let Some(slot) = self.0.get_mut(slot(thing)) {
            *slot = (thing, place);
        }
    }

    /// Who has `thing`, if that is known.
    pub(super) fn find(&self, thing: u64) -> Option<u64> {
        let (other, place) = self.0.get(slot(thing))?;
        (*other == thing && *place != 0).then_some(*place)
    }
}

fn slot(thing: u64) -> usize {
    // The lowest bits say which; the rest says whether it is the same.
    (thing % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_last_is_remembered_and_memory_is_bounded() {
        let mut places = Whereabouts::default();
        assert_eq!(places.find(7), None);
        assert_eq!(places.0.capacity(), 0);
        places.put(7, 1);
        places.put(8, 2);
        places.put(7, 3);
        assert_eq!((places.find(7), places.find(8)), (Some(3), Some(2)));
        assert_eq!(places.find(0), None);
        for thing in 0..10 * SLOTS as u64 {
            places.put(thing * 31, 4);
        }
        assert_eq!(places.0.len(), SLOTS);
        places.put(7 + SLOTS as u64, 5);
        assert_eq!(places.find(7), None, "another one has its place");
    }
}
