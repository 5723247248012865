//! Several apps that can answer one call: who is asked first, and after what somebody else is.
//!
//! Whatever was begun belongs to the app that began it. Where an isolate does not know which that was, it asks one after another:
//! whoever does not know what a call is about has begun nothing.

use std::{cell::RefCell, cmp::Reverse, mem, num::NonZeroU32, rc::Rc};

use bytes::Bytes;
use http::{StatusCode, header};

use crate::{
    call::Call,
    dialect::dify::{self, Deed, Open, Places},
    dispatch::{Reason, Retry, Target},
    exchange::{Exchange, Payload},
    headers::is_type,
    health::Health,
    holdings::Holdings,
    time::Timestamp,
    upstream::Complaint,
};

/// Makes an exchange with one app one with all of `places`.
pub(crate) fn widen(places: &Places, call: &Call, is_streamed: bool, exchange: &mut Exchange) {
    let path = exchange.path.split('?').next().unwrap_or_default();
    let is_read = is_type(&call.headers, "application/json");
    let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    let is_bare = !framed.iter().any(|name| call.headers.contains_key(name));
    let deed = Deed::of(&call.method, path, is_streamed);
    let kept = match &mut exchange.payload {
        Payload::Once(body) if is_read => mem::take(body).into_whole().map_err(|rest| *body = rest),
        Payload::Once(_) if is_bare && deed == Deed::Repeatable => Ok(Bytes::new()),
        _ => Err(()),
    };
    let mut all: Vec<_> = places.all().collect();
    let scope = &places.first.app.name;
    let user = exchange.user.as_deref();
    let user = user.map(|user| dify::user(scope, user));
    if let Some(user) = user.filter(|_| places.spread) {
        all.sort_by_key(|place| Reverse(dify::affinity(user, &place.app.name)));
    }
    let is_run = matches!(deed, Deed::Run { .. });
    let ways = all.iter().map(|place| {
        let runs = place.app.runs.as_ref().filter(|_| is_run);
        runs.or_else(|| place.installation.part(path)).cloned()
    });
    let open = Open {
        deed,
        names: dify::named(
            path,
            call.query.as_deref(),
            kept.as_deref().unwrap_or_default(),
        ),
        user,
        grounds: all
            .iter()
            .map(|place| place.installation.api.name.clone())
            .collect(),
        ways: ways.collect(),
        made: RefCell::default(),
    };
    exchange.targets = all
        .iter()
        .map(|place| Target::alone(place.app.name.clone(), place.app.origin.clone()))
        .collect();
    if let Ok(body) = kept {
        exchange.payload = Payload::Kept(body);
        exchange.retry = Retry {
            attempts: u32::try_from(all.len())
                .ok()
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MIN),
            on: reasons(&open),
        };
    }
    exchange.open = Some(Rc::new(open));
}

/// After what somebody else is asked: where nothing can have been begun, or nothing comes of beginning it twice.
fn reasons(open: &Open) -> Rc<[Reason]> {
    let status = Reason::Status;
    let mut on = vec![
        Reason::Unsent,
        status(StatusCode::TOO_MANY_REQUESTS),
        status(StatusCode::SERVICE_UNAVAILABLE),
    ];
    let plugins = Reason::Complaint(Complaint::Plugins);
    if open.is_repeatable() {
        on.extend(Reason::USUAL);
        on.push(plugins);
    } else if open.deed == (Deed::Run { streamed: true }) {
        // Whoever answers so has not begun: of a whole answer that may be said at its end.
        let internal = status(StatusCode::INTERNAL_SERVER_ERROR);
        on.extend([internal, status(StatusCode::BAD_GATEWAY), plugins]);
    }
    if !open.names.is_empty() {
        on.push(Reason::Complaint(Complaint::Unknown));
    }
    on.into()
}

/// Says who is asked first, and what is passed before him, where several can answer: whoever has what the request is about, if that
/// is known; else the first who is well and has room.
pub(crate) fn choose(holdings: &Holdings, exchange: &mut Exchange, now: Timestamp) {
    let Some(open) = exchange.open.clone() else {
        return;
    };
    let home = home(&holdings.health(), &exchange.targets, &open);
    if home.is_none() && open.deed == Deed::Stop && exchange.is_repeatable() {
        // Everybody says that it is stopped, whoever has it.
        let anyway = [Reason::Status(StatusCode::OK)];
        let on = exchange.retry.on.iter().copied().chain(anyway);
        exchange.retry.on = on.collect();
    }
    let is_well = |place: &usize| {
        let target = exchange.targets.get(*place);
        let names = target.zip(open.grounds.get(*place));
        names.is_some_and(|(target, ground)| holdings.health().is_well(&target.name, ground, now))
    };
    let has_room = |place: &usize| {
        let way = open.ways.get(*place).and_then(Option::as_ref);
        way.is_none_or(|way| holdings.gates().of(&way.gate).has_room(way))
    };
    let places = 0..exchange.targets.len();
    let roomy = places.clone().filter(is_well).find(has_room);
    let first = home
        .or_else(|| roomy.filter(|_| open.is_free()))
        .or_else(|| places.clone().find(is_well))
        .unwrap_or(0);
    exchange.way = open.ways.get(first).cloned().flatten();
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

    fn goes_on(deed: Deed, names: &[u64], outcome: Outcome) -> bool {
        let open = Open {
            deed,
            names: names.into(),
            user: None,
            grounds: Vec::new(),
            ways: Vec::new(),
            made: RefCell::default(),
        };
        let retry = Retry {
            attempts: NonZeroU32::MIN.saturating_add(1),
            on: reasons(&open),
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
            (status(401), true, true, true),
            (status(403), true, true, true),
            (status(400), false, false, false),
            (status(404), false, false, false),
            (status(413), false, false, false),
            (status(200), false, false, false),
            (Outcome::Complained(Complaint::Plugins), true, false, true),
            (Outcome::Complained(Complaint::Unknown), false, false, false),
            (Outcome::Complained(Complaint::Denied), false, false, false),
        ] {
            for (deed, expected) in [
                (Deed::Run { streamed: true }, streamed),
                (Deed::Run { streamed: false }, blocking),
                (Deed::Other, blocking),
                (Deed::Repeatable, repeatable),
                (Deed::Stop, repeatable),
            ] {
                assert_eq!(goes_on(deed, &[], outcome), expected, "{deed:?} {outcome}");
            }
        }
    }

    #[test]
    fn whoever_does_not_know_a_thing_has_begun_nothing() {
        let unknown = Outcome::Complained(Complaint::Unknown);
        for deed in [
            Deed::Run { streamed: true },
            Deed::Run { streamed: false },
            Deed::Repeatable,
            Deed::Stop,
            Deed::Other,
        ] {
            assert!(goes_on(deed, &[1], unknown), "{deed:?}");
        }
    }
}
