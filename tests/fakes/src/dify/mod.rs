//! A Dify installation.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};

use self::machine::Machine;
use crate::{
    counts::Visit,
    mode::{Fault, Mode},
    play::{Reply, Stop},
    server::{Asked, page},
};

pub(crate) mod errors;
mod events;
mod machine;
mod service;

/// What a Dify installation remembers.
#[derive(Default)]
pub(crate) struct Installation {
    memory: Mutex<Memory>,
    machine: Arc<Machine>,
}

#[derive(Default)]
struct Memory {
    ids: u64,
    conversations: BTreeMap<String, Conversation>,
    tasks: BTreeMap<String, Task>,
    runs: BTreeMap<String, Value>,
    files: BTreeMap<String, Upload>,
}

#[derive(Clone)]
struct Conversation {
    kind: Kind,
    user: String,
    turns: Vec<Turn>,
}

#[derive(Clone)]
struct Turn {
    message: String,
    query: String,
    answer: String,
}

struct Task {
    user: String,
    stop: Arc<Stop>,
}

/// A file that was uploaded.
struct Upload {
    user: String,
    name: String,
    kind: String,
    size: usize,
}

/// What an app is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Chat,
    Agent,
    NewAgent,
    Completion,
    Chatflow,
    Workflow,
    /// A workflow that waits for a person.
    Pause,
    /// A chatflow that waits for a person.
    ChatPause,
}

/// Answers `asked`.
pub(crate) fn answer(
    asked: &Asked,
    mode: &Mode,
    visit: &Visit,
    installation: &Installation,
) -> Reply {
    if let Some(reply) = mode.fault.and_then(page) {
        return reply;
    }
    let path = asked.path.as_str();
    let under = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if under("/v1")
        || [
            "/console/api",
            "/api",
            "/files",
            "/mcp",
            "/triggers",
            "/health",
            "/openapi",
        ]
        .into_iter()
        .any(under)
    {
        let mut reply = match mode.fault {
            Some(Fault::Dify(failure)) => failure.reply(),
            Some(Fault::Status(status)) => errors::by_status(status),
            _ if under("/v1") => service::answer(asked, mode, visit, installation),
            _ if path == "/health" => {
                Reply::json(200, &json!({"pid": 7, "status": "ok", "version": "1.14.0"}))
            }
            _ => echo("api", asked),
        };
        if let (Some((cores, _)), None) = (mode.cores, &reply.opens) {
            reply.opens = Some(installation.machine.aside(cores));
        }
        return reply
            .with("server", "gunicorn")
            .with("x-version", "1.14.0")
            .with("x-env", "PRODUCTION");
    }
    if under("/e") {
        return echo("plugin_daemon", asked);
    }
    Reply::whole(200, "text/html; charset=utf-8", format!("<!DOCTYPE html><html><head><title>Dify</title></head><body data-path=\"{path}\"></body></html>"))
        .with("x-powered-by", "Next.js")
}

/// What one of Dify's services was asked.
fn echo(service: &str, asked: &Asked) -> Reply {
    let header = |name: &str| {
        asked
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    Reply::json(
        200,
        &json!({
            "service": service, "method": asked.method.as_str(), "path": asked.path, "query": asked.query,
            "host": header("host"), "dify_hook_url": header("dify-hook-url"), "body_bytes": asked.body.len(),
        }),
    )
}

impl Installation {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// A new id, in the shape of a UUID; `what` shows what it is of.
    fn id(&mut self, what: u8) -> String {
        self.ids += 1;
        format!("{what:02x}000000-0000-4000-8000-{:012x}", self.ids)
    }
}

impl Kind {
    /// The kind of the app whose key this is.
    fn of_key(key: &str) -> Option<Self> {
        let name = key.strip_prefix("app-")?;
        // A kind ends at the end or at a dash; the longer of two comes first.
        KINDS
            .iter()
            .find(|(prefix, _)| {
                name.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            })
            .map(|(_, kind)| *kind)
    }

    /// What `GET /v1/info` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Agent | Self::NewAgent => "agent-chat",
            Self::Completion => "completion",
            Self::Chatflow | Self::ChatPause => "advanced-chat",
            Self::Workflow | Self::Pause => "workflow",
        }
    }

    fn app(self) -> String {
        format!("a9900000-0000-4000-8000-{:012x}", self as u8)
    }
}

const KINDS: [(&str, Kind); 8] = [
    ("chat", Kind::Chat),
    ("agent", Kind::Agent),
    ("new-agent", Kind::NewAgent),
    ("completion", Kind::Completion),
    ("chatflow-pause", Kind::ChatPause),
    ("chatflow", Kind::Chatflow),
    ("workflow", Kind::Workflow),
    ("pause", Kind::Pause),
];

const CREATED: u64 = 1_700_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_an_app() {
        let table = [
            ("app-chat", Some(Kind::Chat)),
            ("app-chat-2", Some(Kind::Chat)),
            ("app-chatflow-x", Some(Kind::Chatflow)),
            ("app-chatflow-pause", Some(Kind::ChatPause)),
            ("app-new-agent", Some(Kind::NewAgent)),
            ("app-chats", None),
            ("app-", None),
            ("dataset-chat", None),
        ];
        for (key, kind) in table {
            assert_eq!(Kind::of_key(key), kind, "{key}");
        }
    }
}
