//! Reads values out of a document and notes every problem on the way, instead of stopping at the first.

use std::{
    cell::RefCell,
    num::{NonZeroU32, NonZeroU64},
};

use super::{Key, Kind, Position, Problem, Value};

/// Every problem that was noted, in the order of the document where it has one.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

/// A value, the path to it, and where to complain.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
    problems: &'a Problems,
}

/// A table with names that are known; those that nobody asked for are problems.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    at: Option<Position>,
    entries: &'a [(Key, Value)],
    known: Vec<&'static str>,
    problems: &'a Problems,
}

impl Problems {
    pub(super) fn note(&self, path: &str, at: Option<Position>, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem {
            path: path.into(),
            at,
            message: message.into(),
        });
    }

    pub(super) fn into_sorted(self) -> Vec<Problem> {
        let mut sorted: Vec<Problem> = Vec::new();
        for problem in self.0.into_inner() {
            let place = sorted.partition_point(|other| other.at <= problem.at);
            sorted.insert(place, problem);
        }
        sorted
    }
}

impl<'a> Field<'a> {
    pub(super) fn root(value: &'a Value, problems: &'a Problems) -> Self {
        Self {
            path: String::new(),
            value,
            problems,
        }
    }

    /// Notes a problem with this value.
    pub(super) fn complain(&self, message: impl Into<String>) {
        self.problems.note(&self.path, self.value.at, message);
    }

    fn mistyped<T>(&self, expected: &str) -> Option<T> {
        self.complain(format!(
            "expected {expected}, found {}",
            self.value.kind.name()
        ));
        None
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.value.kind {
            Kind::Text(text) => Some(text),
            _ => self.mistyped("a text"),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value.kind {
            Kind::Bool(value) => Some(value),
            _ => self.mistyped("true or false"),
        }
    }

    /// A whole number of one or more.
    pub(super) fn count(&self) -> Option<NonZeroU64> {
        let Kind::Integer(number) = self.value.kind else {
            return self.mistyped("a whole number");
        };
        let count = u64::try_from(number).ok().and_then(NonZeroU64::new);
        if count.is_none() {
            self.complain(format!(
                "expected a whole number of one or more, found {number}"
            ));
        }
        count
    }

    /// A whole number of one or more that is small.
    pub(super) fn small_count(&self, most: u32) -> Option<NonZeroU32> {
        let count = self.count()?;
        let small = u32::try_from(count.get())
            .ok()
            .filter(|small| *small <= most)
            .and_then(NonZeroU32::new);
        if small.is_none() {
            self.complain(format!("expected at most {most}, found {count}"));
        }
        small
    }

    /// One of these words.
    pub(super) fn choice(&self, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text()?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let all = words
                .iter()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(", ");
            self.complain(format!(
                "expected one of {all}, found `{text}`{}",
                nearest(text, words.iter().copied())
            ));
        }
        found
    }

    /// A duration such as `500ms`, `30s`, `5m`, `1h` or `30d`, in milliseconds.
    pub(super) fn duration(&self) -> Option<NonZeroU64> {
        let text = self.text()?;
        let found = duration(text);
        if found.is_none() {
            self.complain(format!(
                "expected a duration such as \"30s\" (ms, s, m, h or d), found \"{text}\""
            ));
        }
        found
    }

    /// A size such as `100KB`, `10MB` or `1GiB`, or a number, in bytes.
    pub(super) fn size(&self) -> Option<NonZeroU64> {
        if let Kind::Integer(_) = self.value.kind {
            return self.count();
        }
        let text = self.text()?;
        let units = [
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("B", 1),
        ];
        let found = measure(text, &units);
        if found.is_none() {
            self.complain(format!("expected a size such as \"10MB\" (B, KB, MB, GB, KiB, MiB or GiB), found \"{text}\""));
        }
        found
    }

    /// Whether it is a list with nothing in it.
    pub(super) fn is_empty_list(&self) -> bool {
        matches!(&self.value.kind, Kind::List(values) if values.is_empty())
    }

    pub(super) fn list(&self) -> Vec<Self> {
        let Kind::List(values) = &self.value.kind else {
            let _: Option<()> = self.mistyped("a list");
            return Vec::new();
        };
        let field = |(index, value)| Self {
            path: format!("{}[{index}]", self.path),
            value,
            problems: self.problems,
        };
        values.iter().enumerate().map(field).collect()
    }

    /// The values of a table whose names the operator chooses.
    pub(super) fn named(&self) -> Vec<(&'a Key, Self)> {
        let Kind::Table(entries) = &self.value.kind else {
            let _: Option<()> = self.mistyped("a table");
            return Vec::new();
        };
        let field = |(key, value): &'a (Key, Value)| {
            (
                key,
                Field {
                    path: join(&self.path, &key.name),
                    value,
                    problems: self.problems,
                },
            )
        };
        entries.iter().map(field).collect()
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        let Kind::Table(entries) = &self.value.kind else {
            return self.mistyped("a table");
        };
        Some(Section {
            path: self.path.clone(),
            at: self.value.at,
            entries,
            known: Vec::new(),
            problems: self.problems,
        })
    }
}

impl<'a> Section<'a> {
    /// The value with this name, if it is there.
    pub(super) fn field(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        let (_, value) = self.entries.iter().find(|(key, _)| key.name == name)?;
        Some(Field {
            path: join(&self.path, name),
            value,
            problems: self.problems,
        })
    }

    /// Whether there is a value with this name; asking does not make the name known.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// The value with this name, which must be there.
    pub(super) fn required(&mut self, name: &'static str) -> Option<Field<'a>> {
        let field = self.field(name);
        if field.is_none() {
            self.complain(format!("`{name}` is missing"));
        }
        field
    }

    /// A name that is part of the contract, but of which nothing is built yet.
    pub(super) fn unavailable(&mut self, name: &'static str) {
        if let Some(field) = self.field(name) {
            field.complain(unavailable(name, field.value));
        }
    }

    /// Notes a problem with the table as a whole.
    pub(super) fn complain(&self, message: impl Into<String>) {
        self.problems.note(&self.path, self.at, message);
    }

    /// Notes every name that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.entries {
            if !self.known.contains(&key.name.as_str()) {
                let hint = nearest(&key.name, self.known.iter().copied());
                self.problems.note(
                    &join(&self.path, &key.name),
                    key.at,
                    format!("unknown key{hint}"),
                );
            }
        }
    }
}

/// A duration in milliseconds, and at least one.
pub(crate) fn duration(text: &str) -> Option<NonZeroU64> {
    let units = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    measure(text, &units)
}

/// The nearest of `names` as the end of a message, if one could be meant.
pub(super) fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let near = names
        .into_iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance * 3 <= name.chars().count().max(candidate.chars().count())
        })
        .min();
    near.map_or_else(String::new, |(_, candidate)| {
        format!("; did you mean `{candidate}`?")
    })
}

/// What to say of a name or value that is part of the contract, but of which nothing is built yet.
pub(super) fn unavailable(name: &str, value: &Value) -> String {
    match &value.kind {
        Kind::Text(text) => format!("`{name} = \"{text}\"` is not available yet"),
        Kind::Bool(value) => format!("`{name} = {value}` is not available yet"),
        _ => format!("`{name}` is not available yet"),
    }
}

fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-'));
    let name = if plain {
        name.to_owned()
    } else {
        serde_json::Value::from(name).to_string()
    };
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

/// A whole number and a unit.
fn measure(text: &str, units: &[(&str, u64)]) -> Option<NonZeroU64> {
    let digits = text.find(|char: char| !char.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    NonZeroU64::new(number.parse::<u64>().ok()?.checked_mul(*factor)?)
}
