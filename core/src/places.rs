//! Several apps that can answer one call: who is asked first, and after what somebody else is.
//!
//! Whatever was begun belongs to the app that began it. Where an isolate does not know which that was, it asks one after another:
//! whoever does not know what a call is about has begun nothing.

use std::{cell::RefCell, mem, num::NonZeroU32, rc::Rc};

use bytes::Bytes;
use http::{StatusCode, header};

use crate::{
    call::Call,
    dialect::dify::{self, Deed, Open, Place, Places},
    dispatch::{Reason, Retry, Target},
    exchange::{Exchange, Payload},
    headers::is_json,
    health::Health,
    holdings::Holdings,
    time::Timestamp,
    upstream::Complaint,
};

/// Makes an exchange with one app one with all of `places`.
pub(crate) fn widen(places: &Places, call: &Call, is_streamed: bool, exchange: &mut Exchange) {
    let path = exchange.path.split('?').next().unwrap_or_default();
    let is_read = is_json(&call.headers);
    let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    let is_bare = !framed.iter().any(|name| call.headers.contains_key(name));
    let deed = Deed::of(&call.method, path, is_streamed);
    let kept = match &mut exchange.payload {
        Payload::Once(body) if is_read => mem::take(body).into_whole().map_err(|rest| *body = rest),
        Payload::Once(_) if is_bare && deed == Deed::Repeatable => Ok(Bytes::new()),
        _ => Err(()),
    };
    let scope = &places.first.app.name;
    let user = exchange.user.as_deref();
    let user = user.map(|user| dify::user(scope, user));
    let body = kept.as_deref().unwrap_or_default();
    let open = Open {
        deed,
        names: dify::named(path, call.query.as_deref(), body),
        user,
        made: RefCell::default(),
    };
    let mut affinities: Vec<u64> = Vec::new();
    exchange.targets.clear();
    for Place { app, installation } in places.all() {
        let affinity = user.filter(|_| places.spread);
        let affinity = affinity.map_or(0, |user| dify::affinity(user, &app.name));
        let at = affinities.partition_point(|other| *other >= affinity);
        let runs = app.runs.as_ref();
        let runs = runs.filter(|_| matches!(deed, Deed::Run { .. }));
        let way = runs.or_else(|| installation.part(path)).cloned();
        let target = Target {
            way,
            ground: Some(installation.clone()),
            ..Target::alone(app.name.clone(), app.origin.clone())
        };
        affinities.insert(at, affinity);
        exchange.targets.insert(at, target);
    }
    if let Ok(body) = kept {
        exchange.payload = Payload::Kept(body);
        exchange.retry = Retry {
            attempts: NonZeroU32::MIN.saturating_add(places.others.len() as u32),
            on: reasons(deed).into(),
        };
    }
    exchange.open = Some(Rc::new(open));
}

/// After what somebody else is asked to do `deed`: where nothing can have been begun, or nothing comes of beginning it twice.
fn reasons(deed: Deed) -> &'static [Reason] {
    match deed {
        Deed::Repeatable | Deed::Stop => &TWICE,
        Deed::Run { streamed: true } => &BEFORE_IT_BEGINS,
        Deed::Run { streamed: false } | Deed::Upload | Deed::Other => &NEVER_BEGUN,
    }
}

const NEVER_BEGUN: [Reason; 5] = [
    Reason::Unsent,
    Reason::Unreached,
    Reason::Status(StatusCode::TOO_MANY_REQUESTS),
    Reason::Status(StatusCode::SERVICE_UNAVAILABLE),
    Reason::Complaint(Complaint::Unknown),
];

/// Whoever says so in place of a stream has not begun it: of a whole answer that may be said at its end.
const BEFORE_IT_BEGINS: [Reason; 8] = [
    NEVER_BEGUN[0],
    NEVER_BEGUN[1],
    NEVER_BEGUN[2],
    NEVER_BEGUN[3],
    NEVER_BEGUN[4],
    Reason::Status(StatusCode::INTERNAL_SERVER_ERROR),
    Reason::Status(StatusCode::BAD_GATEWAY),
    Reason::Complaint(Complaint::Plugins),
];

const TWICE: [Reason; 6] = [
    Reason::USUAL[0],
    Reason::USUAL[1],
    Reason::USUAL[2],
    Reason::USUAL[3],
    Reason::Complaint(Complaint::Unknown),
    Reason::Complaint(Complaint::Plugins),
];

/// Everybody says that something is stopped, whoever has it.
const STOPPED_OR_NOT: [Reason; 7] = [
    TWICE[0],
    TWICE[1],
    TWICE[2],
    TWICE[3],
    TWICE[4],
    TWICE[5],
    Reason::Status(StatusCode::OK),
];

/// Says who is asked first where several can answer: whoever has what the request is about, if that
/// is known; else the first who is well and has room.
pub(crate) fn choose(holdings: &Holdings, exchange: &mut Exchange, now: Timestamp) {
    let Some(open) = exchange.open.clone() else {
        return;
    };
    let home = home(&holdings.health(), &exchange.targets, &open);
    if home.is_none() && open.deed == Deed::Stop && exchange.is_repeatable() {
        exchange.retry.on = STOPPED_OR_NOT[..].into();
    }
    let is_well = |place: &usize| {
        let target = exchange.targets.get(*place);
        target.is_some_and(|target| {
            let health = holdings.health();
            health.is_well(&target.name, target.stands_on(), now)
        })
    };
    let has_room = |place: &usize| {
        let target = exchange.targets.get(*place);
        let way = target.and_then(|target| target.way.as_ref());
        way.is_none_or(|way| holdings.gates().of(&way.gate).has_room(way, now))
    };
    let places = 0..exchange.targets.len();
    let roomy = places.clone().filter(is_well).find(has_room);
    let first = home
        .or_else(|| roomy.filter(|_| open.is_free()))
        .or_else(|| places.clone().find(is_well))
        .unwrap_or(0);
    // Who is ill is tried out again by whom the health of all says so.
    let passed_over = places.filter(is_well).any(|well| well < first);
    exchange.lead = home.or_else(|| passed_over.then_some(first));
}

/// Who has what the request is about, as far as it is known.
fn home(health: &Health, targets: &[Target], open: &Open) -> Option<usize> {
    let user = open.user.filter(|_| !open.is_free());
    let place = health
        .whereabouts(&open.names)
        .or_else(|| health.whereabouts(user.as_slice()))?;
    let mut targets = targets.iter();
    targets.position(|target| target.number() == place)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::{
        dispatch::Attempts,
        upstream::{FailureReason, Outcome},
    };

    fn goes_on(deed: Deed, outcome: Outcome) -> bool {
        let retry = Retry {
            attempts: NonZeroU32::MIN.saturating_add(1),
            on: reasons(deed).into(),
        };
        let mut attempts = Attempts::new(vec![0, 1], retry);
        attempts.next(None);
        attempts.goes_on(outcome)
    }

    /// Of a run that is streamed, of one that is not, and of what can be repeated: whether somebody else is asked.
    #[test]
    fn nothing_is_begun_twice() {
        let status = |code| Outcome::Status(StatusCode::from_u16(code).unwrap());
        let failed = Outcome::Failed;
        for (outcome, streamed, blocking, repeatable) in [
            (failed(FailureReason::Connect), true, true, true),
            (failed(FailureReason::Broken), false, false, true),
            (failed(FailureReason::Timeout), false, false, true),
            (Outcome::Garbled, false, false, true),
            (status(429), true, true, true),
            (status(503), true, true, true),
            (status(502), true, false, true),
            (status(500), true, false, true),
            (status(504), false, false, true),
            (status(521), true, true, true),
            (status(520), false, false, true),
            (status(524), false, false, true),
            (status(401), true, true, true),
            (status(403), true, true, true),
            (status(400), false, false, false),
            (status(404), false, false, false),
            (status(413), false, false, false),
            (status(200), false, false, false),
            (Outcome::Complained(Complaint::Plugins), true, false, true),
            (Outcome::Complained(Complaint::Unknown), true, true, true),
            (Outcome::Complained(Complaint::Denied), false, false, false),
        ] {
            for (deed, expected) in [
                (Deed::Run { streamed: true }, streamed),
                (Deed::Run { streamed: false }, blocking),
                (Deed::Other, blocking),
                (Deed::Repeatable, repeatable),
                (Deed::Stop, repeatable),
            ] {
                assert_eq!(goes_on(deed, outcome), expected, "{deed:?} {outcome}");
            }
        }
    }
}
