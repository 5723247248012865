//! What the ledger has not confirmed is said again.

use std::time::Duration;

use super::Desk;
use crate::limit::{Entry, Posting};

/// After how long it is said again, and how often at most, each time after twice as long.
const FIRST: Duration = Duration::from_secs(1);
const TIMES: u32 = 6;

impl Desk {
    /// Says `unheard` again until it is confirmed, or it has been said often enough.
    ///
    /// What is owed would otherwise be forgotten, and what was given back would be charged in full.
    pub(super) async fn remind(self, mut unheard: Vec<Posting>) {
        let mut pause = FIRST;
        for _ in 0..TIMES {
            self.0.platform.clock.sleep(pause).await;
            pause *= 2;
            let answers = self.post_once(&unheard).await;
            let failed = unheard.into_iter().zip(answers);
            let failed = failed.filter(|(_, answer)| answer.is_err());
            unheard = failed.map(|(posting, _)| posting).collect();
            if unheard.is_empty() {
                return;
            }
        }
    }
}

/// What is to be said again of `posting`, if anything: the same message, by its number, so that it counts once if it was heard after
/// all. Nothing is asked for again.
pub(super) fn reminder(posting: &Posting) -> Option<Posting> {
    let Posting { account, entry } = posting;
    let says = !entry.settled.is_empty() || entry.owed > 0 || entry.left.is_some();
    says.then(|| Posting {
        account: account.clone(),
        entry: Entry {
            adjust: None,
            take: None,
            ..entry.clone()
        },
    })
}
