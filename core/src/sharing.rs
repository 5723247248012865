//! Isolates that ask the same upstream tell each other how they do, by the ledger that they share.

use std::{num::NonZeroU64, rc::Rc, sync::Arc};

use futures_channel::oneshot;

use crate::{
    holdings::Holdings,
    limit::{Entry, Posting, Quota},
    overload::{Allotment, Gate, Report},
    patience::within,
    platform::Platform,
};

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
            let (names, postings): (Vec<_>, Vec<_>) = reports
                .into_iter()
                .map(|(name, report)| {
                    let posting = self.posting(&name, report);
                    (name, posting)
                })
                .unzip();
            let answers = self.platform.ledger.post(&postings).await;
            let allotted = answers.into_iter();
            let allotted = allotted.map(|answer| answer.ok().and_then(|balance| balance.allotment));
            let answers: Vec<(Box<str>, Option<Allotment>)> =
                names.into_iter().zip(allotted).collect();
            let now = self.platform.clock.now();
            self.with(|gate| gate.hear(answers, sent, now));
        }
    }

    fn posting(&self, valve: &str, report: Report) -> Posting {
        let limit = NonZeroU64::MIN.saturating_add(report.bounds.most.into());
        Posting {
            account: account(valve),
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

/// Where it is kept who shares what falls under a valve. No limit's account begins like that.
fn account(valve: &str) -> Rc<str> {
    format!("overload {valve}").into()
}
