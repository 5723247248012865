//! Dify's own API.

mod abort;
mod answer;
mod part;

use std::rc::Rc;

pub use abort::{OnAbort, Parting, Run};
pub use answer::{Meter, usage};
use http::HeaderValue;
pub use part::Part;

use crate::{call::below, dialect::json, limit::Limit, overload::Way, upstream::Origin};

/// A Dify installation: several services behind one address.
#[derive(Debug)]
pub struct Installation {
    /// The API server.
    pub api: Rc<Origin>,
    /// The web application, if it is served.
    pub web: Option<Rc<Origin>>,
    /// The plugin daemon, if it is served.
    pub plugin_daemon: Option<Rc<Origin>>,
    /// What a call passes first that runs an app; nothing, if all are let in.
    pub runs: Option<Way>,
    /// What any other call passes first, where parts are held apart.
    pub parts: Vec<(Part, Way)>,
}

/// An app of an installation.
#[derive(Debug)]
pub struct App {
    /// The name in the configuration.
    pub name: Rc<str>,
    /// The whole `authorization` header that opens it.
    pub authorization: HeaderValue,
    /// What holds for everything that is asked of it.
    pub limits: Vec<Limit>,
    /// What becomes of a run whose caller has left; nothing, if Dify is to go on with it unheard.
    pub on_abort: Option<OnAbort>,
    /// What a call passes first that runs it; nothing, if all are let in.
    pub runs: Option<Way>,
}

/// What the API server answers; the rest is the web application's, and `/e` the plugin daemon's.
const API: [&str; 8] = [
    "/console/api",
    "/api",
    "/v1",
    "/openapi",
    "/files",
    "/mcp",
    "/triggers",
    "/socket.io",
];

/// Where endpoints of plugins are.
const PLUGINS: &str = "/e";

impl Installation {
    /// Who serves `path`, as Dify's own proxy has it.
    pub fn serves(&self, path: &str) -> Option<&Rc<Origin>> {
        if API.into_iter().any(|prefix| below(prefix, path)) {
            Some(&self.api)
        } else if below(PLUGINS, path) {
            self.plugin_daemon.as_ref()
        } else {
            self.web.as_ref()
        }
    }

    /// What a call to `path` passes first that runs no app.
    pub fn part(&self, path: &str) -> Option<&Way> {
        let part = Part::of(path)?;
        let mut parts = self.parts.iter();
        parts.find(|(other, _)| *other == part).map(|(_, way)| way)
    }
}

/// Whether the path is an endpoint of a plugin, which must be told by which address it was called.
pub fn is_plugin(path: &str) -> bool {
    below(PLUGINS, path)
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

/// The user whom a query names.
pub(crate) fn user_of_query(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, user) = pairs.find(|(name, _)| name == "user")?;
    Some(user.into_owned())
}

/// The user whom a body of JSON names, and whether it asks for a stream.
pub(crate) fn told_by_body(body: &[u8]) -> (Option<String>, bool) {
    #[derive(serde::Deserialize)]
    struct Told {
        user: Option<String>,
        response_mode: Option<String>,
    }
    json::read::<Told>(body).map_or((None, false), |told| {
        let mode = told.response_mode.as_deref();
        (told.user, mode == Some("streaming"))
    })
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
