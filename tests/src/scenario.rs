//! What a scenario file says.
//!
//! ```toml
//! [secrets]                       # what "$WEB_KEY" stands for, in configurations and in calls
//! WEB_KEY = "sk-web"
//!
//! [config]                        # configurations by name; {a} is the address of upstream a, {refused} of nobody,
//!                                 # {silent} of a machine that answers no attempt to connect
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

mod message;

use std::{collections::BTreeMap, fmt, fs, path::Path};

pub use self::message::{Answer, Call, Fill, Framing, OneOrMany, block};

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
        let Ok(names) = std::env::var("TIDEGATE_RUNTIMES") else {
            return Ok(Self::ALL.to_vec());
        };
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
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
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
            None if text.upstream.is_empty()
                && text.concurrent.is_none()
                && text.expect.is_empty() =>
            {
                None
            }
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
        table
            .try_into()
            .map_err(|error: toml::de::Error| error.to_string())
    }

    fn problem(&self, scenario: &Scenario) -> Option<String> {
        let real = Runtime::ALL
            .iter()
            .any(|runtime| *runtime != Runtime::Memory && !scenario.skip.contains_key(runtime));
        if real && self.wait_ms > 2500 {
            return Some("waits too long in real time: skip the real runtimes".into());
        }
        if self.call.raw.is_some() && !scenario.skip.contains_key(&Runtime::Memory) {
            return Some("sends raw bytes, which are nothing without a wire: skip memory".into());
        }
        self.call.payload().err().or_else(|| {
            self.upstream
                .values()
                .flatten()
                .find_map(|answer| answer.payload().err())
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str =
        "[config]\nc = ''\n[[scenario]]\nname = 'n'\nconfig = 'c'\ncall.path = '/'\n";

    #[test]
    fn a_scenario_must_expect_something() {
        assert!(
            Book::parse("f", START)
                .unwrap_err()
                .contains("expects nothing")
        );
        assert!(Book::parse("f", &format!("{START}expect.status = 200")).is_ok());
    }

    #[test]
    fn unknown_keys_are_refused_at_every_depth() {
        for line in [
            "expect.statuss = 1",
            "call.pth = ''",
            "upstream.a = [{ boddy = '' }]",
            "skipp.spin = 'a long reason'",
        ] {
            let text = format!("{START}expect.json = '1'\n{line}");
            assert!(
                Book::parse("f", &text)
                    .unwrap_err()
                    .contains("unknown field"),
                "{line}"
            );
        }
    }

    #[test]
    fn nothing_is_skipped_without_a_reason() {
        let text = format!("{START}expect.status = 200\nskip.spin = ''");
        assert!(
            Book::parse("f", &text)
                .unwrap_err()
                .contains("without a reason")
        );
    }

    #[test]
    fn a_runtime_may_differ_with_a_reason() {
        let text = format!(
            "{START}expect.status = 200\ndiffers.spin = {{ reason = 'a good reason', expect.status = 500 }}"
        );
        let book = Book::parse("f", &text).unwrap();
        let step = &book.scenarios[0].step[0];
        assert!(step.expect(Runtime::Spin).unwrap().status.unwrap().all() == [500]);
        assert!(step.expect(Runtime::Native).unwrap().status.unwrap().all() == [200]);
    }
}
