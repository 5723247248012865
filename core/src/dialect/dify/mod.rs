//! Dify's own API.

mod abort;
mod answer;
mod cost;
mod fault;
mod file;
mod open;
mod part;
mod put;
mod query;
mod request;
mod retelling;
pub(super) mod seam;
mod trouble;
mod whole;

use std::{rc::Rc, time::Duration};

pub use abort::{Parting, Run};
pub use answer::{Meter, usage};
pub(super) use answer::{fault as run_fault, is_half};
use bytes::Bytes;
use fault::fault;
pub(crate) use open::{Deed, Open, affinity, made, named, user};
pub use part::Part;
pub use put::{Put, UPLOAD};
pub use query::Query;
pub(crate) use query::check_user;
pub(crate) use request::Told;
pub use request::Wish;
pub use retelling::{Retelling, Retold, Trace};
pub(crate) use trouble::{begins_with_trouble, is_suspect, trouble};
pub use whole::Whole;

use crate::{
    call::below,
    dialect::{fields::Fields, json},
    limit::Limit,
    overload::Way,
    sse,
    upstream::Origin,
};

/// A Dify installation: several services behind one address.
#[derive(Debug)]
pub struct Installation {
    /// The API server.
    pub api: Rc<Origin>,
    /// The web application, if it is served.
    pub web: Option<Rc<Origin>>,
    /// The plugin daemon, if it is served.
    pub plugin_daemon: Option<Rc<Origin>>,
    /// Who keeps those up to date who work on the same thing.
    pub websocket: Rc<Origin>,
    /// Whether the runtime can have a connection become a WebSocket.
    pub switches: bool,
    /// Whether it streams what callers want at once who bring a key of their own.
    pub stream_upstream: bool,
    /// What a call passes first that runs an app; nothing, if all are let in.
    pub runs: Option<Way>,
    /// What any other call passes first, where parts are held apart.
    pub parts: Vec<(Part, Way)>,
    /// How it is asked how it does, if it is.
    pub checks: Option<Checks>,
}

/// How an installation is asked how it does.
#[derive(Debug)]
pub struct Checks {
    /// How often.
    pub every: Duration,
    /// What is asked of its API server.
    pub path: Box<str>,
    /// In the name of this app, if it is more than its process that must be well.
    pub app: Option<Rc<App>>,
}

/// An app of an installation.
#[derive(Debug)]
pub struct App {
    /// The name in the configuration.
    pub name: Rc<str>,
    /// The API server of its installation, by this app's name and with its keys.
    pub origin: Rc<Origin>,
    /// The same for whoever asks it as a model; nothing, if it is not known what kind of app it is.
    pub as_model: Option<Rc<Origin>>,
    /// What holds for everything that is asked of it.
    pub limits: Vec<Rc<Limit>>,
    /// Whether it streams what its caller wants at once.
    pub stream_upstream: bool,
    /// What a call passes first that runs it; nothing, if all are let in.
    pub runs: Option<Way>,
}

/// Who answers where an app is served: apps that do the same, of one installation or of several.
#[derive(Debug)]
pub struct Places {
    /// The first one; what is configured of it holds for all.
    pub first: Place,
    /// Who is asked where the ones before cannot answer.
    pub others: Vec<Place>,
    /// Whether each user begins with one of his own.
    pub spread: bool,
}

/// An app, and where it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its installation.
    pub installation: Rc<Installation>,
    /// The app.
    pub app: Rc<App>,
}

impl Places {
    /// All of them, in order.
    pub fn all(&self) -> impl Iterator<Item = &Place> {
        [&self.first].into_iter().chain(&self.others)
    }

    /// Whether a call can be made more than once: there are several who can answer, or several keys of one.
    pub(crate) fn are_several(&self) -> bool {
        !self.others.is_empty() || self.first.app.origin.keys.len() > 1
    }
}

/// What the API server answers; the rest is the web application's, and `/e` the plugin daemon's.
const API: [&str; 7] = [
    "/console/api",
    "/api",
    "/v1",
    "/openapi",
    "/files",
    "/mcp",
    "/triggers",
];

/// Where Socket.IO is: by WebSocket, or by one request after another.
const SOCKET: &str = "/socket.io";

/// What the API server says of its own inside to whoever reaches it: its proxy never leads there.
const INSIDE: [&str; 2] = ["/threads", "/db-pool-stat"];

/// Whether it is well, which the web application may say of itself.
const HEALTH: &str = "/health";

/// Where endpoints of plugins are.
const PLUGINS: &str = "/e";

impl Installation {
    /// Who serves `path`, as Dify's own proxy has it.
    pub fn serves(&self, path: &str) -> Option<&Rc<Origin>> {
        if API.into_iter().any(|prefix| below(prefix, path)) {
            Some(&self.api)
        } else if below(PLUGINS, path) {
            self.plugin_daemon.as_ref()
        } else if is_socket(path) {
            Some(&self.websocket)
        } else {
            let inside = |prefix| below(prefix, path);
            let web = self.web.as_ref()?;
            let is_api = web.base.authority() == self.api.base.authority();
            let is_inside = INSIDE.into_iter().any(inside) || is_api && inside(HEALTH);
            (!is_inside).then_some(web)
        }
    }

    /// What a call to `path` passes first that runs no app.
    pub fn part(&self, path: &str) -> Option<&Way> {
        let part = Part::of(path)?;
        let mut parts = self.parts.iter();
        parts.find(|(other, _)| *other == part).map(|(_, way)| way)
    }
}

/// Whether the path is one at which Dify's own proxy has something else than the web application, or lies below one.
pub fn is_own(path: &str) -> bool {
    let mut own = API.into_iter().chain([PLUGINS, SOCKET]);
    own.any(|own| below(own, path))
}

/// Whether the path is an endpoint of a plugin, which must be told by which address it was called.
pub fn is_plugin(path: &str) -> bool {
    below(PLUGINS, path)
}

/// Whether a connection can become a WebSocket there.
pub fn is_socket(path: &str) -> bool {
    below(SOCKET, path)
}

/// The path of the service API: below `/v1`, whether or not the caller wrote that.
pub fn service_path(path: &str) -> String {
    if below("/v1", path) {
        path.into()
    } else {
        format!("/v1{path}")
    }
}

/// Whether the path belongs to the service API.
pub fn is_service(path: &str) -> bool {
    path.starts_with("/v1/")
}

/// Whether the path runs an app, so that its answer costs tokens and says how many.
pub fn is_run(path: &str) -> bool {
    let Some(endpoint) = path.strip_prefix("/v1/") else {
        return false;
    };
    match endpoint {
        "chat-messages" | "completion-messages" | "workflows/run" => true,
        // `workflows/{id}/run`: a certain version.
        _ => endpoint
            .strip_prefix("workflows/")
            .and_then(|rest| rest.strip_suffix("/run"))
            .is_some_and(|id| !id.is_empty() && !id.contains('/')),
    }
}

/// What a text of JSON says; nothing, if it is none.
pub(crate) fn read(text: &[u8]) -> serde_json::Value {
    json::read(text).unwrap_or_default()
}

/// The user whom a query names.
pub(crate) fn user_of_query(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, user) = pairs.find(|(name, _)| name == "user")?;
    Some(user.into_owned())
}

/// Whether an event is what agents say; nothing, if it says nothing.
pub(crate) fn is_agents(event: &[u8]) -> Option<bool> {
    let data = sse::data(event)?;
    let name = Fields::read(&data).and_then(|fields| fields.text("event"));
    match name.as_deref() {
        // It may be anybody's.
        Some("message_file") => None,
        name => Some(matches!(
            name,
            Some("agent_message" | "agent_thought" | "agent_log")
        )),
    }
}

/// An error that Dify has answered with, as it says it in a stream.
pub(crate) fn event(error: &[u8]) -> Bytes {
    match error.trim_ascii_start().strip_prefix(b"{") {
        Some(fields) if !fields.trim_ascii_start().starts_with(b"}") => {
            sse::event(&[b"{\"event\":\"error\",", fields].concat())
        }
        _ => sse::event(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_an_app_costs_tokens() {
        for (path, expected) in [
            ("/v1/chat-messages", true),
            ("/v1/completion-messages", true),
            ("/v1/workflows/run", true),
            ("/v1/workflows/4a1f/run", true),
            ("/v1/workflows/run/4a1f", false),
            ("/v1/chat-messages/4a1f/stop", false),
            ("/v1/parameters", false),
            ("/chat-messages", false),
        ] {
            assert_eq!(is_run(path), expected, "{path}");
        }
    }

    #[test]
    fn each_path_goes_where_its_own_proxy_has_it() {
        let origin = |name: &str, base| {
            Rc::new(Origin {
                name: name.into(),
                base: http::Uri::from_static(base),
                keys: Vec::new(),
                prefill: None,
                app: None,
                on_abort: None,
            })
        };
        let apart = |web| Installation {
            api: origin("api", "http://api:5001"),
            web: Some(origin("web", web)),
            plugin_daemon: Some(origin("plugins", "http://plugins:5002")),
            websocket: origin("websocket", "http://socket:5001"),
            switches: true,
            stream_upstream: false,
            runs: None,
            parts: Vec::new(),
            checks: None,
        };
        let (own, shared) = (apart("http://web:3000"), apart("http://api:5001/web"));
        for (path, expected, where_shared) in [
            ("/console/api/setup", "api", "api"),
            ("/api/site", "api", "api"),
            ("/v1/info", "api", "api"),
            ("/openapi/v1", "api", "api"),
            ("/files/1/preview", "api", "api"),
            ("/mcp/server/x/mcp", "api", "api"),
            ("/triggers/webhook/x", "api", "api"),
            ("/e/hook", "plugins", "plugins"),
            ("/socket.io/", "websocket", "websocket"),
            ("/socket.iox", "web", "web"),
            ("/explore", "web", "web"),
            ("/apps", "web", "web"),
            ("/", "web", "web"),
            ("/.well-known/acme-challenge/x", "web", "web"),
            ("/health", "web", ""),
            ("/healthy", "web", "web"),
            ("/threads", "", ""),
            ("/threads/1", "", ""),
            ("/threadsafe", "web", "web"),
            ("/db-pool-stat", "", ""),
        ] {
            for (installation, expected) in [(&own, expected), (&shared, where_shared)] {
                let served = installation.serves(path).map(|origin| &*origin.name);
                assert_eq!(served.unwrap_or_default(), expected, "{path}");
            }
        }
    }

    #[test]
    fn an_agent_is_known_by_what_it_begins_with() {
        for (event, expected) in [
            (r#"{"event":"agent_message"}"#, Some(true)),
            (r#"{"event":"agent_thought"}"#, Some(true)),
            (r#"{"event":"agent_log"}"#, Some(true)),
            (r#"{"event":"workflow_started"}"#, Some(false)),
            (r#"{"event":"message"}"#, Some(false)),
            // A file may be anybody's.
            (r#"{"event":"message_file"}"#, None),
        ] {
            let event = sse::event(event.as_bytes());
            assert_eq!(is_agents(&event), expected, "{event:?}");
        }
        assert_eq!(is_agents(b"event: ping\n\n"), None);
    }

    #[test]
    fn the_service_api_is_below_its_version() {
        for (path, expected) in [
            ("/", "/v1/"),
            ("/v1", "/v1"),
            ("/v1/info", "/v1/info"),
            ("/info", "/v1/info"),
            ("/v10", "/v1/v10"),
        ] {
            assert_eq!(service_path(path), expected);
        }
    }
}
