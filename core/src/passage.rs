//! A call's way through the gate before its upstream.

use std::{rc::Rc, sync::Arc, time::Duration};

use crate::{
    holdings::Holdings,
    overload::{Controller, Gate, Priority, Standing, Way},
    patience::within,
    platform::{Clock, Platform},
    sharing::Sharing,
    time::Timestamp,
};

/// How often those ask who wait, in milliseconds: together about once in each of them, as long as few wait.
const SOONEST: usize = 10;
const LATEST: usize = 100;

/// Whoever may not wait any longer asks once more so soon.
const SHORTEST: Duration = Duration::from_millis(1);

/// How much longer than it may somebody waits whose clock is set back meanwhile.
const GRACE: Duration = Duration::from_secs(1);

/// Who has passed a gate. When this is dropped, however the call ends, the place is free.
pub(crate) struct Passage {
    holdings: Holdings,
    clock: Rc<dyn Clock>,
    way: Way,
    who: Arc<str>,
    stage: Stage,
    /// What others are told who ask the same upstream.
    sharing: Option<Sharing>,
}

/// How far a call has come.
#[derive(Clone, Copy)]
enum Stage {
    /// It waits, and asks by this number.
    Waits(u64),
    /// It is in.
    In,
    /// It was sent, and something is to come of it soon.
    Sent(Timestamp),
    /// It was sent away.
    Out,
}

/// What has come of a call, as far as it says something of the crowd.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sign {
    /// The first event of its answer is there.
    Begun,
    /// The upstream has too much to do: it says so, or nothing.
    Overloaded,
    /// What was asked has as much to do as it may, whatever else the upstream has: Dify counts the runs of each app.
    Busy,
    /// Anything else.
    Other,
}

impl Passage {
    /// A call of `who` goes this `way`, and waits there no longer than `limit`: for how long it has waited, if it had to; and if there was
    /// no room soon, after how long it may come again.
    pub(crate) async fn through(
        platform: &Platform,
        holdings: &Holdings,
        way: Way,
        who: Arc<str>,
        priority: Priority,
        limit: Duration,
    ) -> (Option<Duration>, Result<Self, Duration>) {
        let (clock, wait) = (&platform.clock, way.wait());
        let arrive = |gate: &mut Gate| gate.arrive(&way, &who, priority, clock.now());
        let (ticket, mut standing) = arrive(holdings.gates().of(&way.gate));
        let mut passage = Self {
            sharing: Sharing::of(platform, holdings, &way.gate),
            holdings: holdings.clone(),
            clock: clock.clone(),
            way,
            who,
            stage: Stage::Waits(ticket),
        };
        if standing == Standing::In {
            passage.stage = Stage::In;
            return (None, Ok(passage));
        }
        let came = clock.now();
        let until = came.after(wait);
        // Whoever is only asking how much room others have left waits for nobody.
        let mut waits = !passage.with(|gate, now| gate.is_asking(now));
        let stands = async {
            // It may be known very soon what others have left.
            let mut most = passage.sharing.as_ref().map_or(LATEST, |_| 1);
            while standing == Standing::Waits {
                let pause = passage.with(|gate, _| gate.waiting().clamp(SOONEST, LATEST));
                let pause = Duration::from_millis(pause.min(most) as u64);
                most = most.saturating_mul(2);
                let left = until.since(clock.now()).max(SHORTEST);
                clock.sleep(pause.min(left)).await;
                standing = passage.with(|gate, now| gate.ask(ticket, now));
                waits |=
                    standing == Standing::Waits && !passage.with(|gate, now| gate.is_asking(now));
            }
            standing
        };
        let stands = within(&**clock, limit.min(wait + GRACE), stands).await;
        let waited = waits.then(|| clock.now().since(came));
        let passed = match stands {
            Some(Standing::In) => {
                passage.stage = Stage::In;
                Ok(passage)
            }
            Some(Standing::Out(again)) => {
                passage.stage = Stage::Out;
                Err(again)
            }
            Some(Standing::Waits) | None => Err(GRACE),
        };
        (waited, passed)
    }

    /// Whether it is what has to be passed on this `way`.
    pub(crate) fn is_through(&self, way: &Way) -> bool {
        Arc::ptr_eq(&self.way.valves, &way.valves)
    }

    /// It is sent now; `is_soon`: its answer begins as soon as the upstream gets to it.
    pub(crate) fn sent(&mut self, is_soon: bool) {
        if is_soon {
            let now = self.clock.now();
            self.stage = Stage::Sent(now);
            self.tell(|controller, _, now| controller.began(now));
        }
    }

    /// This has come of it.
    pub(crate) fn answered(&mut self, sign: Sign) {
        let (sent, began) = match self.stage {
            Stage::Sent(sent) => (Some(sent), sent),
            Stage::In => (None, self.clock.now()),
            Stage::Waits(_) | Stage::Out => return,
        };
        self.tell(|controller, is_own, now| match (sign, sent) {
            (Sign::Overloaded, _) => controller.overloaded(began, now),
            (Sign::Busy, _) if is_own => controller.overloaded(began, now),
            (Sign::Begun, Some(sent)) => controller.first_event(sent, now),
            (Sign::Busy | Sign::Other, Some(sent)) => controller.given_up(sent, now),
            (Sign::Begun | Sign::Busy | Sign::Other, None) => {}
        });
        self.stage = Stage::In;
    }

    /// Tells each controller, and whether it is that of what was asked alone: the others are its installation's, after which the gate is
    /// named.
    fn tell(&self, word: impl Fn(&mut Controller, bool, Timestamp)) {
        self.with(|gate, now| {
            gate.tell_all(&self.way.valves, now, |valve, controller| {
                word(controller, *valve.name != *self.way.gate, now);
            });
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Gate, Timestamp) -> T) -> T {
        let now = self.clock.now();
        work(self.holdings.gates().of(&self.way.gate), now)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        // Whoever leaves before there is an answer says something by that, if he has waited for long.
        self.answered(Sign::Other);
        match self.stage {
            Stage::Waits(ticket) => self.with(|gate, now| gate.leave(ticket, now)),
            Stage::In | Stage::Sent(_) => {
                self.with(|gate, now| gate.ended(&self.who, &self.way.valves, now));
            }
            Stage::Out => {}
        }
    }
}
