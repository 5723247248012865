//! Holds a request on every limit that it falls under: all of them, or none.
//!
//! First out of the isolate's own purses, which costs nothing; then, for what is not in hand, of the ledger, in one call.

mod attempt;
mod line;
mod office;
mod reminder;
mod tally;
mod upkeep;

use std::{fmt, rc::Rc, time::Duration};

use self::{
    attempt::Attempt,
    line::Line,
    reminder::reminder,
    tally::{Tally, Try},
};
use crate::{
    claim::{AHEAD, Claim},
    holdings::Holdings,
    limit::{Balance, Draw, Held, Place, Posting, Purse, Standing, Unit, Want},
    patience::within,
    platform::{Fault, Platform},
    time::{Timestamp, millis},
};

/// How long the ledger may take: for one call, and for all that it takes to let a request in. What waits in a queue begins anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long a place is held without word from its isolate: if that dies, the place is free after this.
const PERMIT: Duration = Duration::from_secs(45);

/// How often it is tried again where the ledger's answer came too late to be used.
const TRIES: u32 = 3;

/// How often accounts that lie apart are asked one after another, where who holds them may be refused elsewhere.
const ROUNDS: u32 = 4;

/// Where there is room for so many more, nobody has been refused lately, and has given back.
const PLENTY: u64 = 64;

/// Where a gateway holds its requests on limits. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk(Rc<Inside>);

struct Inside {
    platform: Platform,
    holdings: Holdings,
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
                standing.unit().name(),
                standing.scope()
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
    /// So many were heard of, and no more than are held ahead can have been spent besides.
    Heard(u64),
}

impl Bill {
    /// What is spent by a request that holds `held`.
    fn of(self, held: u64) -> u64 {
        match self {
            Self::Exactly(tokens) => tokens,
            Self::AtLeast(tokens) => tokens.max(held),
            Self::Heard(tokens) => tokens.max(held.min(tokens.saturating_add(AHEAD))),
        }
    }
}

impl Desk {
    pub(crate) fn new(platform: Platform, holdings: Holdings) -> Self {
        Self(Rc::new(Inside { platform, holdings }))
    }

    /// The limit of `claims` that is known to have no room, without asking anybody.
    pub(crate) fn denied(&self, claims: &[Claim]) -> Option<Standing> {
        let now = self.now();
        let mut purses = self.0.holdings.purses().borrow_mut();
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
        let clock = &*self.0.platform.clock;
        let line = Rc::new(Line::before(self, claims));
        let mut tries = TRIES;
        let mut rounds = 0;
        let mut refused = None;
        let mut until = self.now().after(PATIENCE);
        loop {
            let left = until.since(self.now());
            let attempt = async {
                if rounds > 1 {
                    self.step_aside().await;
                }
                let apart = rounds > 0 || tries < TRIES;
                self.attempt(claims, &line, forgiving, apart).await
            };
            // What is given up goes on by itself, and gives back what it gets.
            let tried = match (within(clock, left, attempt).await, refused.take()) {
                (Some(tried), _) => tried,
                (None, Some(denial)) => Try::Out(denial),
                (None, None) if forgiving => Try::In(Vec::new(), Some(silent())),
                (None, None) => Try::Out(Denial::Unknown(silent())),
            };
            match tried {
                Try::In(held, fault) => return Ok(self.let_in(held, fault)),
                Try::Out(denial) => return Err(denial),
                Try::Mixed(denial) if rounds < ROUNDS => {
                    refused = Some(denial);
                    rounds += 1;
                }
                Try::Mixed(denial) => return Err(denial),
                Try::Late if tries > 0 => tries -= 1,
                Try::Late => return Err(Denial::Unknown(Fault("answers come too late".into()))),
                Try::Queued(again, standing) => {
                    let now = self.now();
                    if now >= line.until {
                        return Err(Denial::Shed(standing));
                    }
                    let pause = again.min(line.until).since(now);
                    clock.sleep(pause).await;
                    until = self.now().after(PATIENCE);
                }
            }
        }
    }

    /// Lets others give back what they hold: for about as long as that takes, and each for another while.
    async fn step_aside(&self) {
        let trip = self.0.holdings.trip().get();
        let pause = self.0.platform.dice.borrow_mut().between(trip, 2 * trip);
        let pause = Duration::from_millis(pause);
        self.0.platform.clock.sleep(pause).await;
    }

    /// Holds what is in hand, and asks for the rest.
    async fn attempt(
        &self,
        claims: &[Claim],
        line: &Rc<Line>,
        forgiving: bool,
        apart: bool,
    ) -> Try {
        let now = self.now();
        let mut held = Vec::with_capacity(claims.len());
        let mut missing = Vec::new();
        for claim in claims {
            let draw = self.with(claim, now, |purse| {
                purse.draw(claim.most(), claim.lives(), now)
            });
            match draw {
                Draw::Held(units) => held.push((claim.clone(), units)),
                Draw::Ask => missing.push(claim.clone()),
                Draw::Denied if claim.limit.queue.is_some() || apart => missing.push(claim.clone()),
                // There may be room for less than all that it could use.
                Draw::Denied
                    if !self.with(claim, now, |purse| purse.is_denied(claim.units, now)) =>
                {
                    missing.push(claim.clone());
                }
                Draw::Denied => {
                    let standing = self.with(claim, now, |purse| standing(claim, purse, now));
                    let out = Try::Out(Denial::Limited(standing));
                    if held.is_empty() {
                        return out;
                    }
                    let desk = self.clone();
                    let given_back = async move {
                        desk.put_back(held).await;
                        out
                    };
                    return Attempt::new(self, given_back).await;
                }
            }
        }
        if missing.is_empty() {
            return Try::In(held, None);
        }
        let (desk, line) = (self.clone(), line.clone());
        let asked = async move { desk.ask_all(held, &missing, &line, forgiving, apart).await };
        Attempt::new(self, asked).await
    }

    /// Asks for what is `missing` besides what is `held`: all at once, or where accounts lie `apart`, one after another, so that
    /// nobody is refused for what somebody else holds who is refused as well.
    async fn ask_all(
        &self,
        held: Vec<(Claim, Held)>,
        missing: &[Claim],
        line: &Line,
        forgiving: bool,
        apart: bool,
    ) -> Try {
        let mut tally = Tally {
            held,
            is_near: apart,
            ..Tally::default()
        };
        let at_once = if apart { 1 } else { missing.len().max(1) };
        for some in missing.chunks(at_once) {
            self.ask(some, line, &mut tally).await;
            if tally.refused.is_some() {
                break;
            }
        }
        // What was in hand may have ended while the ledger was asked for the rest.
        let now = self.now();
        let ended = |held: &Held| held.until().is_some_and(|until| until < now);
        tally.late |= tally.held.iter().any(|(_, held)| ended(held));
        line.waits.set(tally.queued.is_some());
        match tally.verdict(forgiving) {
            Ok(fault) => Try::In(tally.held, fault),
            Err(tried) => {
                self.put_back(tally.held).await;
                tried
            }
        }
    }

    /// Asks the ledger for what `claims` need, in one call.
    async fn ask(&self, claims: &[Claim], line: &Line, tally: &mut Tally) {
        let sent = self.now();
        let trip = self.0.holdings.trip();
        let hold = (4 * trip.get()).clamp(20, millis(PATIENCE));
        let postings: Vec<Posting> = claims
            .iter()
            .map(|claim| self.asking(claim, hold, line.place(claim), sent))
            .collect();
        let answers = self.post(&postings).await;
        let heard = self.now();
        trip.set((3 * trip.get() + millis(heard.since(sent))) / 4);
        for (claim, answer) in claims.iter().zip(answers) {
            let balance = match answer {
                Ok(balance) => balance,
                Err(failed) => {
                    tally.fault = Some(failed);
                    continue;
                }
            };
            let room = balance.remaining / claim.most().max(1);
            tally.is_near |= balance.parcel.is_some() && room < PLENTY;
            let units = if balance.granted {
                claim.most()
            } else {
                claim.units
            };
            let taken = self.with(claim, heard, |purse| {
                let taken = purse.hear(&balance, units, sent, heard);
                taken.ok_or_else(|| standing(claim, purse, heard))
            });
            match taken {
                Ok(units) => tally.held.push((claim.clone(), units)),
                Err(_) if balance.granted => tally.late = true,
                Err(standing) => tally.refuse(standing, &balance, claim, heard),
            }
        }
    }

    fn let_in(&self, held: Vec<(Claim, Held)>, fault: Option<Fault>) -> Admission {
        let now = self.now();
        let mut tightest: Option<Standing> = None;
        let mut lasting = Vec::new();
        for (claim, held) in held {
            let (standing, held, is_due) = self.with(&claim, now, |purse| {
                let standing = standing(&claim, purse, now);
                let held = match claim.limit.unit {
                    Unit::Requests => {
                        purse.spend(held, now);
                        None
                    }
                    Unit::Concurrent | Unit::Tokens(_) => Some(held),
                };
                (standing, held, purse.mind(now))
            });
            tightest = Some(match tightest {
                Some(other) => other.tighter(standing),
                None => standing,
            });
            if is_due {
                self.mind(&claim);
            }
            lasting.extend(held.map(|held| (claim, held)));
        }
        Admission {
            standing: tightest,
            fault,
            held: lasting,
        }
    }

    fn asking(&self, claim: &Claim, hold: u64, place: Option<Place>, now: Timestamp) -> Posting {
        let longest = millis(self.0.platform.ledger.longest_lease());
        let entry = self.with(claim, now, |purse| {
            purse.ask(self.0.holdings.me(), claim.want(hold, place), longest, now)
        });
        Posting {
            account: claim.account.clone(),
            entry,
        }
    }

    /// Says `postings` to the ledger. What has become of units is said again, where that fails.
    async fn post(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let answers = self.post_once(postings).await;
        let failed = answers.iter().zip(postings);
        let failed = failed.filter(|(answer, _)| answer.is_err());
        let unheard: Vec<Posting> = failed
            .filter_map(|(_, posting)| reminder(posting))
            .collect();
        if !unheard.is_empty() {
            self.0
                .platform
                .tasks
                .spawn(Box::pin(self.clone().remind(unheard)));
        }
        answers
    }

    async fn post_once(&self, postings: &[Posting]) -> Vec<Result<Balance, Fault>> {
        let platform = &self.0.platform;
        let posted = platform.ledger.post(postings);
        within(&*platform.clock, PATIENCE, posted)
            .await
            .unwrap_or_else(|| postings.iter().map(|_| Err(silent())).collect())
    }

    fn with<T>(&self, claim: &Claim, now: Timestamp, work: impl FnOnce(&mut Purse) -> T) -> T {
        let holdings = &self.0.holdings;
        holdings.with(&claim.limit, &claim.account, now, work)
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

fn silent() -> Fault {
    Fault("no answer in time".into())
}

/// What a caller is told of a limit.
fn standing(claim: &Claim, purse: &Purse, now: Timestamp) -> Standing {
    Standing {
        limit: claim.limit.clone(),
        remaining: purse.remaining(),
        // Tokens are held for more than they turn out to be: most come back long before they leave the window.
        reset: if claim.is_on_tokens() {
            purse.hope().since(now)
        } else {
            purse.reset().since(now)
        },
    }
}
