//! How much of what callers send may be kept at once.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What bodies that are read whole may take together, in bytes, in the whole process.
const MOST: usize = 256 << 20;

/// So many bytes of each count for nothing, as its connection has as many for its head: usual prompts find room, whatever others send.
const FREE: usize = 64 << 10;

/// A room that bodies share.
pub(crate) struct Room {
    most: usize,
    taken: AtomicUsize,
}

/// The one of this process.
pub(crate) static ROOM: Room = Room::of(MOST);

impl Room {
    pub(crate) const fn of(most: usize) -> Self {
        Self {
            most,
            taken: AtomicUsize::new(0),
        }
    }
}

/// What one body takes of it, until this is dropped.
pub(crate) struct Share {
    room: &'static Room,
    /// As much of it as has come.
    size: AtomicUsize,
}

impl Share {
    pub(crate) fn of(room: &'static Room) -> Self {
        Self {
            room,
            size: AtomicUsize::new(0),
        }
    }

    /// Takes room for `more` bytes, and says whether there was as much.
    pub(crate) fn grow(&self, more: usize) -> bool {
        let before = self.taken();
        self.size.fetch_add(more, Relaxed);
        let after = self.taken();
        let more = after - before;
        let all = self.room.taken.fetch_add(more, Relaxed) + more;
        // Whoever is alone there may have as much as one body can.
        more == 0 || all <= self.room.most || all == after
    }

    /// What it takes of the room.
    pub(crate) fn taken(&self) -> usize {
        self.size.load(Relaxed).saturating_sub(FREE)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.taken(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_share_what_one_could_have() {
        static SHARED: Room = Room::of(1000);
        let (first, second) = (Share::of(&SHARED), Share::of(&SHARED));
        assert!(first.grow(FREE) && first.grow(400));
        assert!(second.grow(FREE + 600));
        assert!(!second.grow(1));
        // What is short is let in, and takes nothing from anybody.
        assert!(Share::of(&SHARED).grow(FREE));
        drop(second);
        assert!(first.grow(100));
        // Nobody else is there.
        assert!(first.grow(5000));
        let third = Share::of(&SHARED);
        assert!(third.grow(FREE) && !third.grow(1));
        drop((first, third));
        assert_eq!(SHARED.taken.load(Relaxed), 0);
    }
}
