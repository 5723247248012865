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
    match open.deed {
        Deed::Repeatable | Deed::Stop => on.extend(Reason::USUAL),
        // A proxy says that nobody was there, or an app that it could not begin: a whole answer says that of its end, too.
        Deed::Run { streamed: true } => on.extend([
            status(StatusCode::INTERNAL_SERVER_ERROR),
            status(StatusCode::BAD_GATEWAY),
        ]),
        Deed::Run { streamed: false } | Deed::Upload | Deed::Other => {}
    }
    if !matches!(open.deed, Deed::Run { streamed: false } | Deed::Other) {
        on.push(Reason::Complaint(Complaint::Plugins));
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
        .or(roomy.filter(|_| open.is_free()))
        .or_else(|| places.clone().find(is_well))
        .unwrap_or(0);
    exchange.way = open.ways.get(first).cloned().flatten();
    // Who is ill is tried out again by whom the health of all says so.
    let passed_over = places.clone().filter(is_well).any(|well| well < first);
    exchange.lead = home.or(passed_over.then_some(first));
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
