//! What is allowed.

use crate::{
    config::read::{Field, Section},
    limit::Limit,
};

const LONGEST_WINDOW: u64 = 30 * 86_400_000;
const SHORTEST_WINDOW: u64 = 1_000;
const LARGEST_LIMIT: u64 = 1 << 53;

/// The limits of a section, counted for `scope`.
pub(super) fn limits(section: &mut Section<'_>, scope: &str) -> Vec<Limit> {
    let fields = section
        .field("limits")
        .map(|field| field.list())
        .unwrap_or_default();
    let mut limits: Vec<Limit> = Vec::new();
    for field in fields {
        let Some(limit) = limit(&field, scope) else {
            continue;
        };
        if limits.iter().any(|other| other.account == limit.account) {
            field.complain("another limit here has the same window");
        }
        limits.push(limit);
    }
    limits
}

fn limit(field: &Field<'_>, scope: &str) -> Option<Limit> {
    let mut section = field.section()?;
    for name in ["tokens", "concurrent", "queue", "wait", "by"] {
        section.unavailable(name);
    }
    let counted = ["tokens", "concurrent"]
        .into_iter()
        .any(|name| section.has(name));
    let requests = if counted {
        section.field("requests")
    } else {
        section.required("requests")
    };
    let requests = requests.and_then(|field| {
        field.count().filter(|count| {
            let fits = count.get() <= LARGEST_LIMIT;
            if !fits {
                field.complain(format!("expected at most {LARGEST_LIMIT}"));
            }
            fits
        })
    });
    let per = if counted {
        section.field("per")
    } else {
        section.required("per")
    };
    let per = per.and_then(|field| {
        field.duration().filter(|per| {
            let fits = (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&per.get());
            if !fits {
                field.complain("expected a window between 1s and 30d");
            }
            fits
        })
    });
    section.finish();
    Some(Limit::requests(scope, requests?, per?))
}
