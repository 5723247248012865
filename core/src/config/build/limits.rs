//! What is allowed.

use std::{num::NonZeroU64, rc::Rc};

use http::HeaderName;

use crate::{
    config::read::{Field, Section},
    limit::{By, LONGEST_QUEUE, Limit, Overrun, Queueing, Quota, Unit},
};

const LONGEST_WINDOW: u64 = 30 * 86_400_000;
const SHORTEST_WINDOW: u64 = 1_000;
const LARGEST_LIMIT: u64 = 1 << 53;

/// How many requests may wait, and for how long, where a limit has a queue and does not say.
const QUEUE: u32 = 50;
const WAIT: u64 = 20_000;
const LONGEST_WAIT: u64 = 600_000;

/// The limits of a section, counted for `scope`.
pub(super) fn limits(section: &mut Section<'_>, scope: &str) -> Vec<Rc<Limit>> {
    let fields = section
        .field("limits")
        .map(|field| field.list())
        .unwrap_or_default();
    let mut limits: Vec<Rc<Limit>> = Vec::new();
    for field in fields {
        let Some(limit) = limit(&field, scope) else {
            continue;
        };
        if limits.iter().any(|other| other.account == limit.account) {
            field.complain("another limit here counts the same in the same window");
        }
        limits.push(Rc::new(limit));
    }
    limits
}

fn limit(field: &Field<'_>, scope: &str) -> Option<Limit> {
    let mut section = field.section()?;
    let kinds = ["requests", "tokens", "concurrent"];
    if kinds.into_iter().filter(|kind| section.has(kind)).count() > 1 {
        field.complain("a limit is on `requests`, `tokens` or `concurrent`: write one for each");
    }
    let by = section
        .field("by")
        .map_or(Some(By::Everybody), |field| by(&field));
    let limit = if section.has("concurrent") {
        concurrent(&mut section, scope, by)
    } else if section.has("tokens") {
        tokens(&mut section, scope, by)
    } else {
        requests(&mut section, scope, by)
    };
    section.finish();
    limit
}

fn requests(section: &mut Section<'_>, scope: &str, by: Option<By>) -> Option<Limit> {
    let quota = windowed(section, "requests");
    Some(Limit::new(scope, Unit::Requests, quota?, by?, None))
}

fn tokens(section: &mut Section<'_>, scope: &str, by: Option<By>) -> Option<Limit> {
    let quota = windowed(section, "tokens");
    let strict = section.field("strict").map(|field| field.boolean());
    let overrun = if strict.unwrap_or(Some(true))? {
        Overrun::Cut
    } else {
        Overrun::Owe
    };
    Some(Limit::new(scope, Unit::Tokens(overrun), quota?, by?, None))
}

/// So many of `unit` in a window.
fn windowed(section: &mut Section<'_>, unit: &'static str) -> Option<Quota> {
    let limit = section.required(unit).and_then(|field| count(&field));
    let per = section.required("per").and_then(|field| {
        field.duration().filter(|per| {
            let fits = (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&per.get());
            if !fits {
                field.complain("expected a window between 1s and 30d");
            }
            fits
        })
    });
    Some(Quota {
        limit: limit?,
        per: per?.get(),
    })
}

fn concurrent(section: &mut Section<'_>, scope: &str, by: Option<By>) -> Option<Limit> {
    let limit = section.field("concurrent").and_then(|field| count(&field));
    let room = section.field("queue").map(|field| {
        field.count().and_then(|room| {
            let fits = u32::try_from(room.get())
                .ok()
                .filter(|room| *room <= LONGEST_QUEUE);
            if fits.is_none() {
                field.complain(format!("expected a queue for at most {LONGEST_QUEUE}"));
            }
            fits
        })
    });
    let wait = section.field("wait").map(|field| {
        field.duration().filter(|wait| {
            let fits = wait.get() <= LONGEST_WAIT;
            if !fits {
                field.complain("expected to wait for at most 10m");
            }
            fits
        })
    });
    let queue = (room.is_some() || wait.is_some()).then(|| Queueing {
        room: room.flatten().unwrap_or(QUEUE),
        wait: std::time::Duration::from_millis(wait.flatten().map_or(WAIT, NonZeroU64::get)),
    });
    let quota = Quota {
        limit: limit?,
        per: 0,
    };
    Some(Limit::new(scope, Unit::Concurrent, quota, by?, queue))
}

fn count(field: &Field<'_>) -> Option<NonZeroU64> {
    field.count().filter(|count| {
        let fits = count.get() <= LARGEST_LIMIT;
        if !fits {
            field.complain(format!("expected at most {LARGEST_LIMIT}"));
        }
        fits
    })
}

fn by(field: &Field<'_>) -> Option<By> {
    let text = field.text()?;
    if let Some(name) = text.strip_prefix("header:") {
        let name = name.parse::<HeaderName>();
        if name.is_err() {
            field.complain("expected the name of a header, as in `header:x-user`");
        }
        return name.ok().map(By::Header);
    }
    match text {
        "consumer" => Some(By::Consumer),
        "ip" => Some(By::Address),
        "user" => Some(By::User),
        _ => {
            field.complain(format!(
                "expected `consumer`, `ip`, `user` or `header:<name>`, found `{text}`"
            ));
            None
        }
    }
}
