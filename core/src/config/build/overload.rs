//! What a Dify is spared.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    config::{
        Kind,
        read::{Field, Section},
    },
    dialect::dify::Part,
    overload::{Bounds, Over, Priority, Settings, Valve, Way},
};

/// The most that may be in progress, or wait, whatever is configured: each who comes looks at all who wait.
const MOST: u32 = 10_000;
const LONGEST_QUEUE: u32 = 1_000;

/// Longer than this nobody waits for the first word of an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How many requests to one part of an installation may be in progress, where the configuration does not say.
const PERMITS: u32 = 128;

/// Reads how many runs are let in: `"auto"`, or what is different from that.
pub(super) fn overload(section: &mut Section<'_>) -> Option<Settings> {
    let field = section.field("overload")?;
    if let Kind::Text(_) = field.value.kind {
        return field.choice(&["auto"]).map(|_| Settings::AUTO);
    }
    let mut table = field.section()?;
    let mut count = |name: &'static str, most: u32| {
        let count = table.field(name)?.small_count(most);
        count.map(NonZeroU32::get)
    };
    let (start, least, most) = (
        count("start", MOST),
        count("least", MOST),
        count("most", MOST),
    );
    let room = count("queue", LONGEST_QUEUE);
    let wait = table.field("wait").and_then(|field| wait(&field));
    let over = table
        .field("over")
        .and_then(|field| field.choice(&["429", "503"]));
    table.finish();
    let bounds = bounds(start, least, most);
    if bounds.least > bounds.start || bounds.start > bounds.most {
        field.complain("expected `least` to be at most `start`, and `start` at most `most`");
    }
    Some(Settings {
        bounds,
        room: room.unwrap_or(Settings::AUTO.room),
        wait: wait.unwrap_or(Settings::AUTO.wait),
        over: if over == Some("503") {
            Over::Unavailable
        } else {
            Over::TooMany
        },
    })
}

/// What is not said keeps to what is.
fn bounds(start: Option<u32>, least: Option<u32>, most: Option<u32>) -> Bounds {
    let auto = Bounds::AUTO;
    let most = most.unwrap_or_else(|| auto.most.max(start.or(least).unwrap_or(0)));
    let least = least.unwrap_or_else(|| auto.least.min(start.unwrap_or(most)));
    Bounds {
        start: start.unwrap_or_else(|| auto.start.max(least).min(most)),
        least,
        most,
    }
}

fn wait(field: &Field<'_>) -> Option<Duration> {
    let wait = Duration::from_millis(field.duration()?.get());
    if wait > LONGEST_WAIT {
        field.complain("expected to wait for at most 60s");
    }
    Some(wait)
}

/// Reads how many requests each part of the installation `name` may have in progress: all parts are held apart if any is, or if
/// runs are.
pub(super) fn permits(
    section: &mut Section<'_>,
    name: &str,
    runs: Option<Settings>,
) -> Vec<(Part, Way)> {
    let table = section.field("permits");
    if table.is_none() && runs.is_none() {
        return Vec::new();
    }
    let mut table = table.and_then(|field| field.section());
    let mut parts = Vec::new();
    for (word, part) in Part::ALL {
        let count = table
            .as_mut()
            .and_then(|table| table.field(word))
            .and_then(|field| field.small_count(MOST));
        let settings = Settings {
            bounds: Bounds::fixed(count.map_or(PERMITS, NonZeroU32::get)),
            ..runs.unwrap_or(Settings::AUTO)
        };
        let name = format!("{name}:{word}");
        parts.extend(way(&name, &[(&name, Some(settings))]).map(|way| (part, way)));
    }
    if let Some(table) = table {
        table.finish();
    }
    parts
}

/// The way through the gate of this name, for what falls under all of these; no way, if it falls under nothing.
pub(super) fn way(gate: &str, named: &[(&str, Option<Settings>)]) -> Option<Way> {
    let mut valves = Vec::new();
    for (name, settings) in named {
        valves.extend(settings.map(|settings| Valve {
            name: (*name).into(),
            settings,
        }));
    }
    (!valves.is_empty()).then(|| Way {
        gate: gate.into(),
        valves: valves.into(),
    })
}

/// Reads before whom somebody goes.
pub(super) fn priority(section: &mut Section<'_>) -> Option<Priority> {
    let word = section
        .field("priority")?
        .choice(&["high", "normal", "low"])?;
    Some(match word {
        "high" => Priority::High,
        "low" => Priority::Low,
        _ => Priority::Normal,
    })
}
