//! Holds a request on every limit that it falls under: all of them, or none.
//!
//! First out of the isolate's own purses, which costs nothing; then, for what is not in hand, of the ledger, in one call.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::Duration,
};

use crate::{
    claim::Claim,
    limit::{Balance, Draw, Entry, Held, Place, Posting, Purse, Purses, Standing, Unit, Want},
    patience::within,
    platform::{Fault, Platform},
    time::{Timestamp, millis},
};

/// How long the ledger may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// For how long a place is held without word from its isolate: if that dies, the place is free after this.
const PERMIT: Duration = Duration::from_secs(45);

/// How often it is seen to that a lease that nobody uses is given back.
const GLANCE: Duration = Duration::from_secs(1);

/// How often it is tried again where the ledger's answer came too late to be used.
const TRIES: u32 = 3;

/// What an isolate holds of all accounts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk(Rc<Inside>);

struct Inside {
    platform: Platform,
    purses: RefCell<Purses>,
    /// How the ledger knows this isolate.
    me: u32,
    /// How long the ledger takes to answer, in milliseconds.
    trip: Cell<u64>,
}

/// A request is in.
pub(crate) struct Admission {
    /// Where the tightest of its limits stands.
    pub(crate) standing: Option<Standing>,
    /// What the ledger failed to say, where that lets a request in.
    pub(crate) fault: Option<Fault>,
    /// What it is to hold as long as it is in progress.
    pub(crate) held: Vec<(Claim, Held)>,
}

/// A request is not in.
#[derive(Debug)]
pub(crate) enum Denial {
    /// A limit has no room: the one that has none for longest.
    Limited(Standing),
    /// A limit has no room, and neither has the queue before it; or it has waited there for as long as it may.
    Shed(Standing),
    /// The ledger cannot be asked.
    Unknown(Fault),
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limited(standing) | Self::Shed(standing) => write!(
                f,
                "the limit on {} of the {} is used up",
                standing.unit.name(),
                standing.scope
            ),
            Self::Unknown(fault) => write!(f, "ledger: {fault}"),
        }
    }
}

/// What a request has spent of the tokens that it holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bill {
    /// So many: the rest is given back, and what is missing is owed.
    Exactly(u64),
    /// So many at least, and nobody knows how many: all that it holds.
    AtLeast(u64),
}

impl Bill {
    /// What is spent by a request that holds `held`.
    fn of(self, held: u64) -> u64 {
        match self {
            Self::Exactly(tokens) => tokens,
            Self::AtLeast(tokens) => tokens.max(held),
        }
    }
}

/// What came of a try.
enum Try {
    In(Vec<(Claim, Held)>, Option<Fault>),
    Out(Denial),
    /// It has a place in the queue, and is to ask again then.
    Queued(Timestamp, Standing),
    /// What was granted came too late to be used.
    Late,
}

impl Desk {
    pub(crate) fn new(platform: Platform) -> Self {
        let me = platform.dice.borrow_mut().roll() as u32;
        Self(Rc::new(Inside {
            platform,
            purses: RefCell::default(),
            me,
            trip: Cell::new(50),
        }))
    }

    /// The limit of `claims` that is known to have no room, without asking anybody.
    pub(crate) fn denied(&self, claims: &[Claim]) -> Option<Standing> {
        let now = self.now();
        let mut purses = self.0.purses.borrow_mut();
        let denied = claims.iter().filter_map(|claim| {
            let purse = purses.find(&claim.account)?;
            let denied = claim.limit.queue.is_none() && purse.is_denied(claim.units, now);
            denied.then(|| standing(claim, purse, now))
        });
        denied.max_by_key(|standing| standing.reset)
    }

    /// Holds all of `claims`, or says why not. `forgiving`: a ledger that fails lets the request in.
    pub(crate) async fn admit(
        &self,
        claims: &[Claim],
        forgiving: bool,
    ) -> Result<Admission, Denial> {
        let line = Line::before(self, claims);
        let mut tries = TRIES;
        loop {
            match self.attempt(claims, &line, forgiving).await {
                Try::In(held, fault) => return Ok(self.let_in(held, fault)),
                Try::Out(denial) => return Err(denial),
                Try::Late if tries > 0 => tries -= 1,
                Try::Late => return Err(Denial::Unknown(Fault("answers come too late".into()))),
                Try::Queued(again, standing) => {
                    let now = self.now();
                    if now >= line.until {
                        return Err(Denial::Shed(standing));
                    }
                    let pause = again.min(line.until).since(now);
                    self.0.platform.clock.sleep(pause).await;
                }
            }
        }
    }

    /// Holds what is in hand, and asks for the rest.
    async fn attempt(&self, claims: &[Claim], line: &Line<'_>, forgiving: bool) -> Try {
        let now = self.now();
        let mut held = Vec::with_capacity(claims.len());
        let mut missing = Vec::new();
        for claim in claims {
            let draw = self.with(claim, |purse| purse.draw(claim.most(), claim.lives(), now));
            match draw {
                Draw::Held(units) => held.push((claim.clone(), units)),
                Draw::Ask => missing.push(claim),
                Draw::Denied if claim.limit.queue.is_some() => missing.push(claim),
                // There may be room for less than all that it could use.
                Draw::Denied if !self.with(claim, |purse| purse.is_denied(claim.units, now)) => {
                    missing.push(claim);
                }
                Draw::Denied => {
                    self.put_back(held).await;
                    let standing = self.with(claim, |purse| standing(claim, purse, now));
                    return Try::Out(Denial::Limited(standing));
                }
            }
        }
        if missing.is_empty() {
            return Try::In(held, None);
        }
        let hold = (4 * self.0.trip.get()).clamp(20, millis(PATIENCE));
        let postings: Vec<Posting> = missing
            .iter()
            .map(|claim| self.asking(claim, hold, line.place(claim), now))
            .collect();
        let answers = self.post(&postings).await;
        let heard = self.now();
        self.0
            .trip
            .set((3 * self.0.trip.get() + millis(heard.since(now))) / 4);
        let mut refused: Option<Standing> = None;
        let mut queued: Option<Timestamp> = None;
        let mut refusals = 0;
        let mut late = false;
        let mut shed = false;
        let mut fault = None;
        for (claim, answer) in missing.into_iter().zip(answers) {
            let balance = match answer {
                Ok(balance) => balance,
                Err(failed) => {
                    fault = Some(failed);
                    continue;
                }
            };
            let taken = self.with(claim, |purse| {
                let units = if balance.granted {
                    claim.most()
                } else {
                    claim.units
                };
                let taken = purse.hear(&balance, units, now, heard);
                taken.ok_or_else(|| standing(claim, purse, heard))
            });
            match taken {
                Ok(units) => held.push((claim.clone(), units)),
                Err(_) if balance.granted => late = true,
                Err(standing) => {
                    if balance.queued.is_some() {
                        queued = queued.max(Some(heard.after(balance.again.since(balance.at))));
                    } else {
                        shed |= claim.limit.queue.is_some();
                        refusals += 1;
                    }
                    refused = Some(match refused {
                        Some(other) if other.reset >= standing.reset => other,
                        _ => standing,
                    });
                }
            }
        }
        // What was in hand may have ended while the ledger was asked for the rest.
        late |= held
            .iter()
            .any(|(_, held)| held.until().is_some_and(|until| until < heard));
        line.waits.set(queued.is_some());
        let tried = match (refused, queued, fault) {
            (Some(standing), Some(again), _) if refusals == 0 => Try::Queued(again, standing),
            (Some(standing), ..) if shed => Try::Out(Denial::Shed(standing)),
            (Some(standing), ..) => Try::Out(Denial::Limited(standing)),
            (None, _, Some(fault)) if !forgiving => Try::Out(Denial::Unknown(fault)),
            (None, ..) if late => Try::Late,
            (None, _, fault) => return Try::In(held, fault),
        };
        self.put_back(held).await;
        tried
    }

    fn let_in(&self, held: Vec<(Claim, Held)>, fault: Option<Fault>) -> Admission {
        let now = self.now();
        let mut tightest: Option<Standing> = None;
        let mut lasting = Vec::new();
        for (claim, held) in held {
            let standing = self.with(&claim, |purse| {
                let standing = standing(&claim, purse, now);
                match claim.limit.unit {
                    Unit::Requests => purse.spend(held, now),
                    Unit::Concurrent | Unit::Tokens(_) => lasting.push((claim.clone(), held)),
                }
                standing
            });
            tightest = Some(match tightest {
                Some(other) => other.tighter(standing),
                None => standing,
            });
            self.mind(&claim, now);
        }
        Admission {
            standing: tightest,
            fault,
            held: lasting,
        }
    }

    /// Gives back what was held for a request that is not let in: to the purse, if it has a lease, else to the ledger, at once.
    async fn put_back(&self, held: Vec<(Claim, Held)>) {
        self.settle(held, Bill::Exactly(0)).await;
    }

    /// Settles what a request has held for as long as it was in progress. What the ledger does not hear of is charged in full.
    pub(crate) async fn settle(&self, held: Vec<(Claim, Held)>, bill: Bill) {
        let now = self.now();
        let settle = |(claim, mut held): (Claim, Held)| {
            let entry = self.with(&claim, |purse| {
                if matches!(claim.limit.unit, Unit::Tokens(_)) {
                    let spent = bill.of(held.units());
                    purse.overspend(spent.saturating_sub(held.units()));
                    purse.spend(held.split(spent), now);
                }
                purse.put_back(held, now);
                purse.owes().then(|| purse.settle(self.0.me, now))
            });
            entry.map(|entry| Posting {
                account: claim.account,
                entry,
            })
        };
        let postings: Vec<Posting> = held.into_iter().filter_map(settle).collect();
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
            let entry = self.with(claim, |purse| purse.renew(self.0.me, held, want, now));
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
            let renewed = self.with(claim, |purse| purse.hear(&balance, u64::MAX, now, heard));
            *held = match balance.parcel {
                Some(_) => renewed.unwrap_or_default(),
                None => before,
            };
            all &= balance.parcel.is_some();
        }
        all
    }

    /// Gives a lease back once nobody has asked for a while.
    fn mind(&self, claim: &Claim, now: Timestamp) {
        if !self.with(claim, |purse| purse.mind(now)) {
            return;
        }
        let (desk, claim) = (self.clone(), claim.clone());
        self.0.platform.tasks.spawn(Box::pin(async move {
            loop {
                desk.0.platform.clock.sleep(GLANCE).await;
                let now = desk.now();
                if let Some(entry) = desk.with(&claim, |purse| purse.give_back(desk.0.me, now)) {
                    let account = claim.account.clone();
                    desk.post(&[Posting { account, entry }]).await;
                }
                if !desk.with(&claim, |purse| purse.mind_on(now)) {
                    return;
                }
            }
        }));
    }

    fn asking(&self, claim: &Claim, hold: u64, place: Option<Place>, now: Timestamp) -> Posting {
        let longest = millis(self.0.platform.ledger.longest_lease());
        let entry = self.with(claim, |purse| {
            purse.ask(self.0.me, claim.want(hold, place), longest, now)
        });
        Posting {
            account: claim.account.clone(),
            entry,
        }
    }

    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let platform = &self.0.platform;
        let posted = platform.ledger.post(postings);
        within(&*platform.clock, PATIENCE, posted)
            .await
            .unwrap_or_else(|| {
                let silent = || Err(Fault("no answer in time".into()));
                postings.iter().map(|_| silent()).collect()
            })
    }

    fn with<T>(&self, claim: &Claim, work: impl FnOnce(&mut Purse) -> T) -> T {
        let now = self.now();
        let mut purses = self.0.purses.borrow_mut();
        work(purses.of(&claim.account, claim.limit.quota, now))
    }

    pub(crate) fn platform(&self) -> &Platform {
        &self.0.platform
    }

    fn now(&self) -> Timestamp {
        self.0.platform.clock.now()
    }
}

impl Claim {
    /// What is wanted of the account; what is spent at once is held for `hold` milliseconds.
    fn want(&self, hold: u64, place: Option<Place>) -> Want {
        Want {
            units: self.units,
            more: self.more,
            hold: match self.limit.unit {
                Unit::Requests => hold,
                Unit::Concurrent | Unit::Tokens(_) => millis(PERMIT),
            },
            place,
        }
    }

    /// For how many milliseconds at least units must be good that are drawn from a lease.
    fn lives(&self) -> u64 {
        match self.limit.unit {
            Unit::Requests => 0,
            Unit::Concurrent | Unit::Tokens(_) => millis(PERMIT / 2),
        }
    }
}

/// A request's place in the queues before its limits; given up when this is dropped.
struct Line<'a> {
    desk: &'a Desk,
    claims: Vec<&'a Claim>,
    ticket: u32,
    until: Timestamp,
    /// Whether it has a place now.
    waits: Cell<bool>,
}

impl<'a> Line<'a> {
    fn before(desk: &'a Desk, claims: &'a [Claim]) -> Self {
        let claims: Vec<_> = claims
            .iter()
            .filter(|claim| claim.limit.queue.is_some())
            .collect();
        let waits = claims.iter().filter_map(|claim| claim.limit.queue);
        let wait = waits.map(|queue| queue.wait).min().unwrap_or_default();
        let ticket = if claims.is_empty() {
            0
        } else {
            desk.0.platform.dice.borrow_mut().roll() as u32
        };
        Self {
            desk,
            claims,
            ticket,
            until: desk.now().after(wait),
            waits: Cell::new(false),
        }
    }

    fn place(&self, claim: &Claim) -> Option<Place> {
        let queue = claim.limit.queue?;
        Some(Place {
            ticket: self.ticket,
            room: queue.room,
        })
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.waits.get() {
            return;
        }
        let desk = self.desk.clone();
        let postings: Vec<Posting> = self
            .claims
            .iter()
            .map(|claim| {
                let entry = desk.with(claim, |purse| Entry {
                    left: Some(self.ticket),
                    ..purse.settle(desk.0.me, desk.now())
                });
                Posting {
                    account: claim.account.clone(),
                    entry,
                }
            })
            .collect();
        let tasks = desk.0.platform.tasks.clone();
        tasks.spawn(Box::pin(async move {
            desk.post(&postings).await;
        }));
    }
}

/// What a caller is told of a limit.
fn standing(claim: &Claim, purse: &Purse, now: Timestamp) -> Standing {
    Standing {
        scope: claim.limit.scope.clone(),
        unit: claim.limit.unit,
        limit: claim.limit.quota.limit.get(),
        remaining: purse.remaining(),
        reset: purse.reset().since(now),
    }
}
