//! A configuration file as a [`Value`] that knows where each of its parts stood.

use std::{fs::File, io::Read, ops::Range, path::Path};

use tidegate_core::{
    Config,
    config::{Key, Kind, Position, Problem, Runtime, Value},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// No configuration that a person wrote is longer than this, in bytes.
const LONGEST: u64 = 4 << 20;

/// Why there is no document.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The file could not be opened or read.
    Unopened(String),
    /// It was read, and this is wrong with it.
    Wrong(Vec<Problem>),
}

/// What a file says, as far as it can be read.
#[derive(Debug)]
pub(crate) struct Document {
    /// All of it; `false` stands where a value cannot be used.
    pub(crate) value: Value,
    problems: Vec<Problem>,
    /// The lines of sections that were not understood, about whose meaning nothing can be said.
    unread: Vec<Range<u32>>,
}

impl Document {
    /// The configuration, or everything that is wrong with the text and with what it means.
    pub(crate) fn build(
        &self,
        secrets: Option<&[(String, String)]>,
        runtime: Runtime,
    ) -> Result<Config, Vec<Problem>> {
        let built = Config::build(&self.value, secrets, runtime);
        if self.problems.is_empty() {
            return built;
        }
        let mut problems = self.problems.clone();
        let meant = built.err().unwrap_or_default();
        problems.extend(meant.into_iter().filter(|problem| !self.explains(problem)));
        problems.sort_by_key(|problem| problem.at);
        Err(problems)
    }

    /// Whether `problem` is there only because something could not be read.
    fn explains(&self, problem: &Problem) -> bool {
        let told = |known: &Problem| !known.path.is_empty() && known.path == problem.path;
        let unread = match problem.at {
            Some(at) if Some(at) != self.value.at => {
                self.unread.iter().any(|lines| lines.contains(&at.line))
            }
            // What is missing in the whole may stand in what was not understood.
            _ => !self.unread.is_empty(),
        };
        unread || self.problems.iter().any(told)
    }
}

/// Reads the TOML file at `path`.
pub(crate) fn read(path: &Path) -> Result<Document, Unread> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| Unread::Unopened(error.to_string()))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Unread::Wrong(vec![Problem {
            path: String::new(),
            at: None,
            message: format!(
                "the file is longer than {} MB, which no configuration is",
                LONGEST >> 20
            ),
        }]));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before =
            String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default()).into_owned();
        Unread::Wrong(vec![Problem {
            path: String::new(),
            at: Some(Lines::of(&before).position(valid)),
            message: "this is not UTF-8".into(),
        }])
    })?;
    Ok(parse(&text))
}

/// Reads TOML, past whatever is wrong with it.
pub(crate) fn parse(text: &str) -> Document {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        lines: Lines::of(text),
        path: Vec::new(),
        problems: Vec::new(),
    };
    let mut unread = Vec::new();
    for error in errors {
        let span = error.span();
        // The first of two equal keys holds, and nothing else is unclear.
        if error.message() != "duplicate key" {
            unread.push(
                reader
                    .lines
                    .section(span.as_ref().map_or(0, |span| span.start)),
            );
        }
        reader.problem(span, error.message().replace('\n', "; "));
    }
    let value = reader.table(table.get_ref(), table.span());
    let mut problems = reader.problems;
    problems.sort_by_key(|problem| problem.at);
    // One slip can be reported from two places in the grammar.
    problems.dedup();
    Document {
        value,
        problems,
        unread,
    }
}

struct Reader<'t> {
    lines: Lines<'t>,
    path: Vec<String>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Value {
        let mut entries: Vec<(Range<usize>, Key, Value)> = Vec::with_capacity(table.len());
        // What the parser puts in the place of a value that it did not find stands nowhere.
        for (key, value) in table.iter().filter(|(_, value)| !value.span().is_empty()) {
            let name = key.get_ref().to_string();
            self.path.push(if self.path.is_empty() {
                name.clone()
            } else {
                format!(".{name}")
            });
            let value = self.value(value);
            self.path.pop();
            entries.push((
                key.span(),
                Key {
                    name,
                    at: Some(self.lines.position(key.span().start)),
                },
                value,
            ));
        }
        // Dotted keys and headers come in the order in which their first part was seen; the text's order is meant.
        entries.sort_by_key(|(span, _, _)| span.start);
        let entries = entries
            .into_iter()
            .map(|(_, key, value)| (key, value))
            .collect();
        Value {
            kind: Kind::Table(entries),
            at: Some(self.lines.position(span.start)),
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) -> Value {
        let span = value.span();
        let kind = match value.get_ref() {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Boolean(value) => Kind::Bool(*value),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Kind::Integer(number),
                    Err(_) => self.instead(&span, "this number is too large"),
                }
            }
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Kind::Float(number),
                _ => self.instead(&span, "this is not a finite number"),
            },
            DeValue::Datetime(_) => {
                self.instead(&span, "no setting is a date; a text stands in quotes")
            }
            DeValue::Array(values) => {
                let mut list = Vec::with_capacity(values.len());
                for (index, value) in values.iter().enumerate() {
                    self.path.push(format!("[{index}]"));
                    list.push(self.value(value));
                    self.path.pop();
                }
                Kind::List(list)
            }
            DeValue::Table(table) => return self.table(table, span),
        };
        Value {
            kind,
            at: Some(self.lines.position(span.start)),
        }
    }

    /// Notes what is wrong with a value; what stands in its place is never used.
    fn instead(&mut self, span: &Range<usize>, message: &str) -> Kind {
        self.problem(Some(span.clone()), message.into());
        Kind::Bool(false)
    }

    fn problem(&mut self, span: Option<Range<usize>>, message: String) {
        let at = span.map(|span| self.lines.position(span.start));
        self.problems.push(Problem {
            path: self.path.concat(),
            at,
            message,
        });
    }
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
    }

    /// The lines from the header before `offset` to the one after it.
    fn section(&self, offset: usize) -> Range<u32> {
        let here = self.position(offset).line;
        let mut section = 1..u32::MAX;
        for (line, text) in (1..).zip(self.text.lines()) {
            if text.trim_start().starts_with('[') {
                if line > here {
                    section.end = line;
                    break;
                }
                section.start = line;
            }
        }
        section
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line
            .checked_sub(1)
            .and_then(|index| self.starts.get(index))
            .copied()
            .unwrap_or(0);
        let before = self.text.as_bytes().get(start..offset).unwrap_or_default();
        // A character is counted at its first byte.
        let column = before.iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        Position {
            line: count(line),
            column: count(column),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn keys_and_values_know_where_they_stand() {
        let value =
            fine("[gateway]\nlisten = \"x\"\n\n[[routes]]\nname = \"é\" # ü\n  path = \"/v1\"\n");
        assert_eq!(at(&value, "gateway"), ((1, 2), (1, 1)));
        assert_eq!(at(table(&value, "gateway"), "listen"), ((2, 1), (2, 10)));
        let Kind::List(routes) = &table(&value, "routes").kind else {
            panic!("not a list")
        };
        assert_eq!(at(&routes[0], "name"), ((5, 1), (5, 8)));
        assert_eq!(at(&routes[0], "path"), ((6, 3), (6, 10)));
    }

    #[test]
    fn columns_count_characters() {
        let value = fine("a = { \"é\" = \"ü€𝄞\", b = 1 }");
        assert_eq!(at(table(&value, "a"), "b").0, (1, 20));
    }

    #[test]
    fn the_order_is_that_of_the_text() {
        let value = fine("zeta = 1\nalpha = 2\nmid.b = 1\nmid.a = 2");
        let Kind::Table(entries) = value.kind else {
            panic!("not a table")
        };
        assert_eq!(
            entries
                .iter()
                .map(|(key, _)| key.name.as_str())
                .collect::<Vec<_>>(),
            ["zeta", "alpha", "mid"]
        );
    }

    #[test]
    fn every_syntax_error_is_told_at_once() {
        let problems = parse("a = \nb = 1\nc = [1,\nd == 2\n").problems;
        assert!(problems.len() >= 2, "{problems:?}");
        assert_eq!(
            problems[0].at,
            Some(Position { line: 1, column: 5 }),
            "{problems:?}"
        );
    }

    #[test]
    fn what_json_cannot_say_is_refused_with_its_path() {
        let problems = parse("a = [1, nan]\nb.c = 2026-01-01\nd = 99999999999999999999").problems;
        let paths: Vec<_> = problems
            .iter()
            .map(|problem| problem.path.as_str())
            .collect();
        assert_eq!(paths, ["a[1]", "b.c", "d"]);
        assert_eq!(problems[0].at, Some(Position { line: 1, column: 9 }));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        let problems = parse("a = 1\na = 2").problems;
        assert_eq!(problems[0].at.map(|at| at.line), Some(2));
    }

    #[test]
    fn what_it_means_is_judged_although_something_cannot_be_read() {
        let text = "[gateway]\nlisten = 2026-01-01\nlisten = \"a:1\"\nunknown = 1\n\n\
            [models.smart]\ntargets = \"p/m\nalso_unknown = 1\n\n[providers.p]\ndialect = \"opnai\"\n\
            base_url = \"http://a\"\nkeys = [inf]\n";
        let problems = parse(text).build(None, Runtime::Native).err().unwrap();
        let places: Vec<_> = problems
            .iter()
            .map(|problem| (problem.at.unwrap().line, problem.path.as_str()))
            .collect();
        assert_eq!(
            places,
            [
                (2, "gateway.listen"),
                (3, ""),
                (4, "gateway.unknown"),
                (7, ""),
                (11, "providers.p.dialect"),
                (13, "providers.p.keys[0]"),
            ],
            "{problems:?}"
        );
    }

    #[test]
    fn deep_nesting_is_refused() {
        for text in [
            "[".repeat(100_000),
            format!("a{} = 1", ".a".repeat(100_000)),
            format!("a = {}", "{a=".repeat(100_000)),
        ] {
            assert!(!parse(&text).problems.is_empty());
        }
        assert!(
            !parse(&format!("a = {}", "[".repeat(100_000)))
                .problems
                .is_empty()
        );
        assert!(
            !parse(&format!("[a{}]", ".a".repeat(100_000)))
                .problems
                .is_empty()
        );
    }

    #[test]
    fn numbers_of_every_spelling_are_read() {
        let value = fine("a = 1_000\nb = 0xff\nc = -5\nd = 1e3\ne = true");
        assert_eq!(table(&value, "a").kind, Kind::Integer(1000));
        assert_eq!(table(&value, "b").kind, Kind::Integer(255));
        assert_eq!(table(&value, "c").kind, Kind::Integer(-5));
        assert_eq!(table(&value, "d").kind, Kind::Float(1000.0));
        assert_eq!(table(&value, "e").kind, Kind::Bool(true));
    }

    #[test]
    fn files_that_are_no_text_are_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a = 1\nb = \"\xC3\xA9 \xFF\"").unwrap();
        let Err(Unread::Wrong(problems)) = read(file.path()) else {
            panic!("read")
        };
        assert_eq!(problems[0].at, Some(Position { line: 2, column: 8 }));

        file.write_all(&vec![b'#'; 10 << 20]).unwrap();
        let Err(Unread::Wrong(problems)) = read(file.path()) else {
            panic!("read")
        };
        assert!(problems[0].message.contains("longer"), "{problems:?}");

        assert!(matches!(
            read(Path::new("/nowhere/at/all.toml")),
            Err(Unread::Unopened(_))
        ));
        assert!(matches!(read(Path::new("/")), Err(Unread::Unopened(_))));
    }

    fn fine(text: &str) -> Value {
        let document = parse(text);
        assert!(document.problems.is_empty(), "{:?}", document.problems);
        document.value
    }

    fn table<'v>(value: &'v Value, name: &str) -> &'v Value {
        let Kind::Table(entries) = &value.kind else {
            panic!("not a table")
        };
        &entries.iter().find(|(key, _)| key.name == name).unwrap().1
    }

    fn at(value: &Value, name: &str) -> ((u32, u32), (u32, u32)) {
        let Kind::Table(entries) = &value.kind else {
            panic!("not a table")
        };
        let (key, value) = entries.iter().find(|(key, _)| key.name == name).unwrap();
        let pair = |at: Option<Position>| at.map(|at| (at.line, at.column)).unwrap();
        (pair(key.at), pair(value.at))
    }
}
