//! What is held is held for longer, settled, or given back.

use std::time::Duration;

use super::{Bill, Desk};
use crate::{
    claim::Claim,
    limit::{Held, Posting, Unit, Want},
};

/// How often it is seen to that a lease that nobody uses is given back.
const GLANCE: Duration = Duration::from_secs(1);

impl Desk {
    /// Gives back what was held for a request that is not let in: to the purse, if it has a lease, else to the ledger, at once.
    pub(super) async fn put_back(&self, held: Vec<(Claim, Held)>) {
        self.tell(self.settle(held, Bill::Exactly(0))).await;
    }

    /// Settles what a request has held for as long as it was in progress, and says of which claims the ledger must hear at once. What
    /// it does not hear of is charged in full.
    pub(crate) fn settle(&self, held: Vec<(Claim, Held)>, bill: Bill) -> Vec<Claim> {
        let now = self.now();
        let settle = |(claim, mut held): (Claim, Held)| {
            let (owes, is_due) = self.with(&claim, now, |purse| {
                if matches!(claim.limit.unit, Unit::Tokens(_)) {
                    let spent = bill.of(held.units());
                    purse.overspend(spent.saturating_sub(held.units()));
                    purse.spend(held.split(spent), now);
                }
                purse.put_back(held, now);
                (purse.owes(), purse.mind(now))
            });
            if is_due {
                self.mind(&claim);
            }
            owes.then_some(claim)
        };
        held.into_iter().filter_map(settle).collect()
    }

    /// Tells the ledger what has become of units of `claims`; of those that lie in one purse once, since that owes nothing afterwards:
    /// no account may stand twice in one posting. What a purse says is numbered, so it is said as soon as it is put in words.
    pub(crate) async fn tell(&self, claims: Vec<Claim>) {
        let now = self.now();
        let tell = |claim: Claim| {
            let entry = self.with(&claim, now, |purse| {
                purse
                    .owes()
                    .then(|| purse.settle(self.0.holdings.me(), now))
            });
            entry.map(|entry| Posting {
                account: claim.account,
                entry,
            })
        };
        let postings: Vec<Posting> = claims.into_iter().filter_map(tell).collect();
        if !postings.is_empty() {
            self.post(&postings).await;
        }
    }

    /// Asks the ledger again for what is held already, so that it is held for longer; says whether all of it is. What it refuses to
    /// hold for longer stays held as it is; where it does not answer, what is held is not known any more.
    pub(crate) async fn renew(&self, held: &mut [(Claim, Held)]) -> bool {
        let now = self.now();
        let renewals = held.iter_mut().map(|(claim, held)| {
            let lost = held.units() == 0 && claim.limit.unit == Unit::Concurrent;
            let want = Want {
                units: if lost { claim.units } else { held.units() },
                more: 0,
                ..claim.want(0, None)
            };
            let entry = self.with(claim, now, |purse| {
                purse.renew(self.0.holdings.me(), held, want, now)
            });
            let account = claim.account.clone();
            (std::mem::take(held), Posting { account, entry })
        });
        let (before, postings): (Vec<Held>, Vec<Posting>) = renewals.unzip();
        let answers = self.post(&postings).await;
        let heard = self.now();
        let mut all = true;
        for (((claim, held), before), answer) in held.iter_mut().zip(before).zip(answers) {
            let Ok(balance) = answer else {
                all = false;
                continue;
            };
            let renewed = self.with(claim, heard, |purse| {
                purse.hear(&balance, u64::MAX, now, heard)
            });
            *held = match balance.parcel {
                Some(_) => renewed.unwrap_or_default(),
                None => before,
            };
            all &= balance.parcel.is_some();
        }
        all
    }

    /// Gives a lease back once nobody has asked for a while.
    pub(super) fn mind(&self, claim: &Claim) {
        let (desk, claim) = (self.clone(), claim.clone());
        self.0.platform.tasks.spawn(Box::pin(async move {
            loop {
                desk.0.platform.clock.sleep(GLANCE).await;
                let now = desk.now();
                if let Some(entry) = desk.with(&claim, now, |purse| {
                    purse.give_back(desk.0.holdings.me(), now)
                }) {
                    let account = claim.account.clone();
                    desk.post(&[Posting { account, entry }]).await;
                }
                if !desk.with(&claim, now, |purse| purse.mind_on(now)) {
                    return;
                }
            }
        }));
    }
}
