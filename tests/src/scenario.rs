//! What a scenario file says.
//!
//! ```toml
//! [secrets]                       # what "$WEB_KEY" stands for, in configurations and in calls
//! WEB_KEY = "sk-web"
//!
//! [config]                        # configurations by name; {a} is the address of upstream a, {refused} of nobody
//! plain = '''
//! …
//! '''
//!
//! [[scenario]]
//! name = "a chat is answered"
//! config = "plain"
//! upstream.a = [{ body = '{"object":"chat.completion"}' }]
//! call = { path = "/v1/chat/completions", key = "WEB_KEY", body = '{"model":"smart"}' }
//! expect = { status = 200, json = '{"object":"chat.completion"}' }
//! ```
//!
//! A key that is not known is an error, and so is a scenario that expects nothing.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use serde::Deserialize;

use crate::expect::Expect;

/// Where scenarios are played.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The core alone.
    Memory,
    /// The `tidegate` binary.
    Native,
    /// Cloudflare's runtime.
    Workerd,
    /// Spin's component host.
    Spin,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Native, Self::Workerd, Self::Spin];

    /// Those that `TIDEGATE_RUNTIMES=memory,native` asks for; all of them if it is not set.
    pub fn asked_for() -> Result<Vec<Self>, String> {
        let Ok(names) = std::env::var("TIDEGATE_RUNTIMES") else { return Ok(Self::ALL.to_vec()) };
        names
            .split(',')
            .map(|name| {
                Self::ALL
                    .into_iter()
                    .find(|runtime| runtime.to_string() == name.trim())
                    .ok_or_else(|| format!("TIDEGATE_RUNTIMES: there is no runtime `{name}`"))
            })
            .collect()
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Native => "native",
            Self::Workerd => "workerd",
            Self::Spin => "spin",
        })
    }
}

/// One scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// What the secrets are.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Configurations by name.
    pub config: BTreeMap<String, String>,
    /// Its scenarios, in order.
    #[serde(rename = "scenario")]
    pub scenarios: Vec<Scenario>,
}

impl Book {
    /// Reads all books of a folder, in the order of their names.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, String> {
        let mut paths: Vec<_> = fs::read_dir(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Result<Self, String> {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        Self::parse(&name, &text)
    }

    /// Reads one book from its text.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut book: Self = toml::from_str(text).map_err(|error| format!("{name}: {error}"))?;
        book.name = name.into();
        let mut names = std::collections::BTreeSet::new();
        for scenario in &mut book.scenarios {
            let complain = |what: &str| Err(format!("{name}: {}: {what}", scenario.name));
            if !names.insert(scenario.name.clone()) {
                return complain("stands twice");
            }
            if !book.config.contains_key(&scenario.config) {
                return complain("its configuration is not there");
            }
            if scenario.skip.values().any(|reason| reason.trim().len() < 8) {
                return complain("a runtime is skipped without a reason");
            }
            match (scenario.only.take(), scenario.step.is_empty()) {
                (Some(step), true) => scenario.step.push(step),
                (None, false) => {}
                _ => return complain("wants either a call, or steps"),
            }
            for runtime in Runtime::ALL {
                for step in &scenario.step {
                    match step.expect(runtime) {
                        Err(problem) => return complain(&problem),
                        Ok(expect) if expect.is_empty() && step.concurrent.is_none() => {
                            return complain("expects nothing");
                        }
                        Ok(_) => {}
                    }
                }
            }
            if let Some(problem) = scenario.step.iter().find_map(|step| step.problem(scenario)) {
                return complain(&problem);
            }
        }
        Ok(book)
    }
}

/// One behaviour.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ScenarioText")]
pub struct Scenario {
    /// What is true.
    pub name: String,
    /// The name of the configuration that it is true under.
    pub config: String,
    /// Played again with the upstreams' bodies cut at every position; the caller must not be able to tell.
    pub stream: bool,
    /// Wants a gateway that nobody has called before.
    pub fresh: bool,
    /// Runtimes that cannot give it, and why.
    pub skip: BTreeMap<Runtime, String>,
    /// What happens, one after another.
    pub step: Vec<Step>,
    only: Option<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioText {
    name: String,
    config: String,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    fresh: bool,
    #[serde(default)]
    skip: BTreeMap<Runtime, String>,
    #[serde(default)]
    step: Vec<Step>,
    #[serde(default)]
    upstream: BTreeMap<String, Vec<Answer>>,
    call: Option<Call>,
    concurrent: Option<Concurrent>,
    #[serde(default)]
    expect: toml::Table,
    #[serde(default)]
    differs: BTreeMap<Runtime, Difference>,
}

impl TryFrom<ScenarioText> for Scenario {
    type Error = String;

    fn try_from(text: ScenarioText) -> Result<Self, String> {
        let only = match text.call {
            Some(call) => Some(Step {
                wait_ms: 0,
                upstream: text.upstream,
                call,
                concurrent: text.concurrent,
                expect: text.expect,
                differs: text.differs,
            }),
            None if text.upstream.is_empty() && text.concurrent.is_none() && text.expect.is_empty() => None,
            None => return Err(format!("{}: there is no call", text.name)),
        };
        Ok(Self {
            name: text.name,
            config: text.config,
            stream: text.stream,
            fresh: text.fresh,
            skip: text.skip,
            step: text.step,
            only,
        })
    }
}

/// One call, what the upstreams do meanwhile, and what must come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Time that passes before.
    #[serde(default)]
    pub wait_ms: u64,
    /// What each upstream answers, in order. Nobody asks it more often, and nobody less.
    #[serde(default)]
    pub upstream: BTreeMap<String, Vec<Answer>>,
    /// What the caller sends.
    pub call: Call,
    /// The same call many times at once.
    pub concurrent: Option<Concurrent>,
    #[serde(default)]
    expect: toml::Table,
    #[serde(default)]
    differs: BTreeMap<Runtime, Difference>,
}

impl Step {
    /// What is expected on `runtime`.
    pub fn expect(&self, runtime: Runtime) -> Result<Expect, String> {
        let mut table = self.expect.clone();
        if let Some(difference) = self.differs.get(&runtime) {
            if difference.reason.trim().len() < 8 {
                return Err(format!("differs on {runtime} without a reason"));
            }
            table.extend(difference.expect.clone());
        }
        table.try_into().map_err(|error: toml::de::Error| error.to_string())
    }

    fn problem(&self, scenario: &Scenario) -> Option<String> {
        let real = Runtime::ALL.iter().any(|runtime| *runtime != Runtime::Memory && !scenario.skip.contains_key(runtime));
        if real && self.wait_ms > 2500 {
            return Some("waits too long in real time: skip the real runtimes".into());
        }
        if self.call.raw.is_some() && !scenario.skip.contains_key(&Runtime::Memory) {
            return Some("sends raw bytes, which are nothing without a wire: skip memory".into());
        }
        self.call.payload().err().or_else(|| self.upstream.values().flatten().find_map(|answer| answer.payload().err()))
    }
}

/// What is different on one runtime.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Why.
    pub reason: String,
    /// The expectations that are replaced.
    pub expect: toml::Table,
}

/// The same call many times at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrent {
    /// How many times.
    pub calls: usize,
    /// How many of them get which status.
    pub expect: BTreeMap<String, usize>,
}

/// A text many times over.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// What.
    pub text: String,
    /// How many times.
    pub times: usize,
}

/// What a caller sends.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Call {
    /// The method; `POST` if there is a body, else `GET`.
    pub method: Option<String>,
    /// The request's target.
    pub path: String,
    /// The `host` header.
    pub host: Option<String>,
    /// The name of the secret that is sent as `authorization: Bearer …`.
    pub key: Option<String>,
    /// Further headers; `$NAME` in them is the secret's value.
    pub headers: BTreeMap<String, OneOrMany<String>>,
    /// So many headers besides, each as long as `text`.
    pub many_headers: Option<Fill>,
    /// The body, as JSON unless `headers` say otherwise.
    pub body: Option<String>,
    /// The body, one byte a character (up to `\u00ff`).
    pub bytes: Option<String>,
    /// Stands where `{fill}` stands in the body or in `raw`.
    pub fill: Option<Fill>,
    /// Sends the body in chunks, its length undeclared.
    pub chunked: bool,
    /// The whole request as it goes over the wire, one byte a character; then the caller says no more.
    pub raw: Option<String>,
    /// The caller hangs up when the first piece of the answer's body is there.
    pub leave: bool,
}

impl Call {
    /// The body's bytes, or those of the whole raw request.
    pub fn payload(&self) -> Result<Option<Vec<u8>>, String> {
        let written = [self.body.is_some(), self.bytes.is_some(), self.raw.is_some()];
        if written.iter().filter(|is| **is).count() > 1 {
            return Err("a call has one of `body`, `bytes` and `raw`".into());
        }
        let text = self.body.as_ref().or(self.bytes.as_ref()).or(self.raw.as_ref());
        text.map(|text| encode(text, self.fill.as_ref(), self.body.is_some())).transpose()
    }

    /// The method.
    pub fn method(&self) -> &str {
        match &self.method {
            Some(method) => method,
            None if self.body.is_some() || self.bytes.is_some() => "POST",
            None => "GET",
        }
    }

    /// The headers, with the secrets' values in them.
    pub fn headers(&self, secrets: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        if let Some(key) = &self.key {
            let value = secrets.get(key).unwrap_or_else(|| panic!("there is no secret `{key}`"));
            headers.push(("authorization".into(), format!("Bearer {value}")));
        }
        for (name, values) in &self.headers {
            for value in values.all() {
                let value = secrets.iter().fold(value.clone(), |text, (name, value)| text.replace(&format!("${name}"), value));
                headers.push((name.clone(), value));
            }
        }
        if let Some(fill) = &self.many_headers {
            headers.extend((0..fill.times).map(|number| (format!("x-many-{number}"), fill.text.clone())));
        }
        if self.body.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            headers.push(("content-type".into(), "application/json".into()));
        }
        headers
    }
}

/// What an upstream answers to one request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// The status; 200 if none is given.
    pub status: Option<u16>,
    /// Its headers besides `content-type` and the framing.
    pub headers: BTreeMap<String, OneOrMany<String>>,
    /// The body; JSON, unless `headers` say otherwise.
    pub body: Option<String>,
    /// The body, one byte a character.
    pub bytes: Option<String>,
    /// The body as a stream of events: `x` becomes `data: x`; what begins with a field's name or a colon stays as it is.
    pub sse: Option<Vec<String>>,
    /// The body, piece by piece as they are sent.
    pub chunks: Option<Vec<String>>,
    /// The whole answer as it goes over the wire, one byte a character; then the connection is closed.
    pub raw: Option<String>,
    /// Stands where `{fill}` stands.
    pub fill: Option<Fill>,
    /// How the end of the body is told.
    pub framing: Option<Framing>,
    /// Time until the first byte.
    pub delay_ms: u64,
    /// Time between pieces.
    pub pause_ms: u64,
    /// The connection is reset after what is given.
    pub cut: bool,
    /// Nothing more comes after what is given, and the connection stays.
    pub stall: bool,
    /// How many requests are answered so.
    pub times: Option<usize>,
    /// It does not matter whether this is asked for.
    pub spare: bool,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// By `content-length`.
    Length,
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Answer {
    /// The pieces of the body, or of the whole raw answer.
    pub fn payload(&self) -> Result<Vec<Vec<u8>>, String> {
        let written =
            [self.body.is_some(), self.bytes.is_some(), self.sse.is_some(), self.chunks.is_some(), self.raw.is_some()];
        if written.iter().filter(|is| **is).count() > 1 {
            return Err("an answer has one of `body`, `bytes`, `sse`, `chunks` and `raw`".into());
        }
        let fill = self.fill.as_ref();
        if let Some(text) = &self.body {
            return Ok(vec![encode(text, fill, true)?]);
        }
        if let Some(text) = self.bytes.as_ref().or(self.raw.as_ref()) {
            return Ok(vec![encode(text, fill, false)?]);
        }
        let pieces = match (&self.sse, &self.chunks) {
            (Some(events), _) => events.iter().map(|event| format!("{}\n\n", block(event))).collect(),
            (_, Some(chunks)) => chunks.clone(),
            _ => Vec::new(),
        };
        pieces.iter().map(|piece| encode(piece, fill, true)).collect()
    }

    /// How its end is told.
    pub fn framing(&self) -> Framing {
        self.framing.unwrap_or(if self.sse.is_some() || self.chunks.is_some() { Framing::Chunked } else { Framing::Length })
    }

    /// Its headers, without the framing.
    pub fn headers(&self) -> Vec<(String, String)> {
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .flat_map(|(name, values)| values.all().iter().map(|value| (name.clone(), value.clone())))
            .collect();
        if !self.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
            if self.sse.is_some() {
                headers.push(("content-type".into(), "text/event-stream; charset=utf-8".into()));
            } else if self.body.is_some() {
                headers.push(("content-type".into(), "application/json".into()));
            }
        }
        headers
    }
}

/// One value, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn all(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// An event as a scenario writes it, as its block of lines.
pub fn block(event: &str) -> String {
    if ["data:", "event:", "id:", "retry:", ":"].iter().any(|field| event.starts_with(field)) {
        event.into()
    } else {
        format!("data: {event}")
    }
}

fn encode(text: &str, fill: Option<&Fill>, utf8: bool) -> Result<Vec<u8>, String> {
    let text = match fill {
        Some(fill) => text.replace("{fill}", &fill.text.repeat(fill.times)),
        None => text.into(),
    };
    if utf8 {
        return Ok(text.into_bytes());
    }
    text.chars().map(|c| u8::try_from(u32::from(c)).map_err(|_| format!("`{c}` is no byte"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "[config]\nc = ''\n[[scenario]]\nname = 'n'\nconfig = 'c'\ncall.path = '/'\n";

    #[test]
    fn a_scenario_must_expect_something() {
        assert!(Book::parse("f", START).unwrap_err().contains("expects nothing"));
        assert!(Book::parse("f", &format!("{START}expect.status = 200")).is_ok());
    }

    #[test]
    fn unknown_keys_are_refused_at_every_depth() {
        for line in ["expect.statuss = 1", "call.pth = ''", "upstream.a = [{ boddy = '' }]", "skipp.spin = 'a long reason'"] {
            let text = format!("{START}expect.json = '1'\n{line}");
            assert!(Book::parse("f", &text).unwrap_err().contains("unknown field"), "{line}");
        }
    }

    #[test]
    fn nothing_is_skipped_without_a_reason() {
        let text = format!("{START}expect.status = 200\nskip.spin = ''");
        assert!(Book::parse("f", &text).unwrap_err().contains("without a reason"));
    }

    #[test]
    fn a_runtime_may_differ_with_a_reason() {
        let text = format!("{START}expect.status = 200\ndiffers.spin = {{ reason = 'a good reason', expect.status = 500 }}");
        let book = Book::parse("f", &text).unwrap();
        let step = &book.scenarios[0].step[0];
        assert!(step.expect(Runtime::Spin).unwrap().status.unwrap().all() == [500]);
        assert!(step.expect(Runtime::Native).unwrap().status.unwrap().all() == [200]);
    }
}
