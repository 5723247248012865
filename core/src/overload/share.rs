//! Who has how much of a gate.

/// What one consumer has of a gate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Share {
    /// So many calls in progress.
    pub held: u32,
    /// So many that wait.
    pub waiting: u32,
}

/// What each has of a gate who has anything, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Shares(Vec<(Box<str>, Share)>);

impl Shares {
    /// What `who` has.
    pub fn get(&self, who: &str) -> Share {
        let found = self.place(who).ok().and_then(|place| self.0.get(place));
        found.map(|(_, share)| *share).unwrap_or_default()
    }

    /// Changes what `who` has.
    pub fn change(&mut self, who: &str, change: impl FnOnce(&mut Share)) {
        match self.place(who) {
            Ok(place) => {
                if let Some((_, share)) = self.0.get_mut(place) {
                    change(share);
                    if *share == Share::default() {
                        self.0.remove(place);
                    }
                }
            }
            Err(place) => {
                let mut share = Share::default();
                change(&mut share);
                if share != Share::default() {
                    self.0.insert(place, (who.into(), share));
                }
            }
        }
    }

    /// Whether nobody has anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, who: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(who))
    }
}
