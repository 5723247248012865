//! Isolates that ask the same upstream tell each other how they do, by the ledger that they share.

use std::{num::NonZeroU64, sync::Arc};

use futures_channel::oneshot;

use crate::{
    holdings::Holdings,
    limit::{Entry, Posting, Quota},
    overload::{Gate, Report},
    patience::within,
    platform::{Fault, Platform},
};

/// How the accounts begin where it is kept who shares what falls under a valve, before its name. No limit's account does.
const ACCOUNT: &str = "overload ";

/// One call's care for its gate. When this is dropped, the others hear of it.
pub(crate) struct Sharing {
    /// Its end is that of the call.
    _call: oneshot::Sender<()>,
}

/// A gate, and where it is.
struct At {
    platform: Platform,
    holdings: Holdings,
    gate: Arc<str>,
    me: u32,
}

impl Sharing {
    /// For as long as a call waits before `gate`, or has passed it: each sees to it, since none knows how long another one will. Nothing, where
    /// nobody else asks what is behind it.
    pub(crate) fn of(platform: &Platform, holdings: &Holdings, gate: &Arc<str>) -> Option<Self> {
        let at = At {
            platform: platform.clone(),
            holdings: holdings.clone(),
            gate: gate.clone(),
            me: holdings.gates().known_as()?,
        };
        let (call, mut is_over) = oneshot::channel();
        platform.tasks.spawn(Box::pin(async move {
            loop {
                at.tell().await;
                let beat = at.with(|gate| gate.beat());
                if within(&*at.platform.clock, beat, &mut is_over)
                    .await
                    .is_some()
                {
                    return at.tell().await;
                }
            }
        }));
        Some(Self { _call: call })
    }
}

impl At {
    async fn tell(&self) {
        loop {
            let sent = self.platform.clock.now();
            let reports = self.with(|gate| gate.report(sent));
            if reports.is_empty() {
                return;
            }
            let reports = reports.into_iter();
            let postings: Vec<Posting> = reports.map(|report| self.posting(report)).collect();
            let answers = self.platform.ledger.post(&postings).await;
            let answers = postings
                .iter()
                .zip(answers)
                .filter_map(|(posting, answer)| {
                    let valve = posting.account.strip_prefix(ACCOUNT)?;
                    let allotted = answer.and_then(|balance| {
                        let is_silent = || Fault("it says nothing".into());
                        balance.allotment.ok_or_else(is_silent)
                    });
                    Some((valve, allotted))
                });
            let now = self.platform.clock.now();
            self.with(|gate| gate.hear(answers, sent, now));
        }
    }

    fn posting(&self, (valve, report): (Box<str>, Report)) -> Posting {
        let limit = NonZeroU64::MIN.saturating_add(report.bounds.most.into());
        Posting {
            account: [ACCOUNT, &valve].concat().into(),
            entry: Entry {
                quota: Quota { limit, per: 0 },
                from: self.me,
                number: 0,
                settled: Vec::new(),
                owed: 0,
                adjust: None,
                left: None,
                take: None,
                report: Some(report),
            },
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Gate) -> T) -> T {
        work(self.holdings.gates().of(&self.gate))
    }
}
