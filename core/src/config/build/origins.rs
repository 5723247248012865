//! Who can answer: model providers, and the services of Dify installations.

use std::{rc::Rc, time::Duration};

use http::{Uri, uri::PathAndQuery};

use super::{
    Builder,
    limits::limits,
    overload::{overload, permits, way},
};
use crate::{
    auth::Digest,
    config::{
        Kind, Runtime,
        read::{Field, Section, nearest, unavailable},
    },
    dialect::dify::{App, Checks, Installation, Place},
    overload::Settings,
    upstream::{Form, OnAbort, Origin, OriginKey, Prefill},
};

/// Things of a kind, with their names: few, and looked up while the document is read.
pub(super) type ByName<T> = Vec<(String, T)>;

/// Providers by their names.
pub(super) type Origins = ByName<Rc<Origin>>;

/// Dify installations by their names.
pub(super) type Installations = ByName<(Rc<Installation>, Apps)>;

/// Apps of an installation by their names.
pub(super) type Apps = ByName<Place>;

/// The one of `listed` that is named `name`; or how to end the message that none is.
pub(super) fn find<'l, T>(listed: &'l [(String, T)], name: &str) -> Result<&'l T, String> {
    let found = listed.iter().find(|(other, _)| other == name);
    let names = listed.iter().map(|(name, _)| name.as_str());
    found
        .map(|(_, found)| found)
        .ok_or_else(|| nearest(name, names))
}

/// Who is asked more often how he does has less time to do it; who is asked less often is known by what he does.
const SHORTEST_EVERY: Duration = Duration::from_secs(1);
const LONGEST_EVERY: Duration = Duration::from_secs(600);

const DIALECTS: [&str; 7] = [
    "openai",
    "anthropic",
    "gemini",
    "azure",
    "bedrock",
    "cohere",
    "dify",
];

const KEYS: &str = "Dify knows an app by its key alone";

impl Builder<'_> {
    /// Reads a provider.
    pub(super) fn provider(&self, name: &str, field: &Field<'_>) -> Option<Origin> {
        let mut section = field.section()?;
        let mut app = None;
        if let Some(dialect) = section.required("dialect") {
            match dialect.choice(&DIALECTS) {
                None | Some("openai") => {}
                Some("dify") => app = form(&mut section, true),
                Some(_) => dialect.complain(unavailable("dialect", dialect.value)),
            }
        }
        let base = section.field("base_url");
        for name in ["replicas", "balance"] {
            section.unavailable(name);
        }
        let on_abort = match app.is_some() {
            true => on_abort(&mut section),
            false => None,
        };
        let prefill = match section.field("prefill") {
            Some(field) if app.is_some() => {
                field.complain("an app of Dify cannot go on behind the beginning of an answer");
                None
            }
            field => field.and_then(|field| prefill(&field)),
        };
        let keys = section.field("keys");
        match &keys {
            None if app.is_some() => section.complain(format!("`keys` is missing: {KEYS}")),
            Some(keys) if app.is_some() && keys.is_empty_list() => keys.complain(KEYS),
            _ => {}
        }
        let listed = keys.as_ref().map(Field::list).unwrap_or_default();
        if base.is_none() && !section.has("replicas") {
            section.complain("`base_url` is missing");
        }
        section.finish();
        let keys = self.origin_keys(&listed);
        Some(Origin {
            name: name.into(),
            base: address(&base?)?,
            keys: keys?,
            prefill: prefill.flatten(),
            app,
            on_abort,
        })
    }

    /// The keys of one origin, none of which may stand there twice.
    fn origin_keys(&self, listed: &[Field<'_>]) -> Option<Vec<OriginKey>> {
        let read: Option<Vec<OriginKey>> = listed.iter().map(|key| self.origin_key(key)).collect();
        let numbers: Vec<u64> = read.iter().flatten().map(|key| key.number).collect();
        for (place, field) in listed.iter().enumerate() {
            let (before, after) = numbers.split_at(place.min(numbers.len()));
            // Where the document is only checked, nobody knows what a reference stands for.
            if self.secrets.is_some() && after.first().is_some_and(|key| before.contains(key)) {
                field.complain("this key stands here twice");
            }
        }
        read
    }

    fn origin_key(&self, field: &Field<'_>) -> Option<OriginKey> {
        let authorization = self.bearer(field)?;
        Some(OriginKey {
            number: Digest::of(authorization.as_bytes()).number(),
            authorization,
        })
    }

    /// Reads a Dify installation and its apps.
    pub(super) fn installation(
        &self,
        name: &str,
        field: &Field<'_>,
    ) -> Option<(Rc<Installation>, Apps)> {
        let mut section = field.section()?;
        let scope = format!("dify.{name}");
        let service = |section: &mut Section<'_>, key: &'static str| {
            let base = address(&section.field(key)?)?;
            Some(Rc::new(Origin {
                name: format!("{scope}:{key}").into(),
                base,
                keys: Vec::new(),
                prefill: None,
                app: None,
                on_abort: None,
            }))
        };
        if !section.has("api") {
            section.complain("`api` is missing");
        }
        // With a problem it stays known by its name, so that one mistake is not reported as two.
        let api = service(&mut section, "api").unwrap_or_else(|| Rc::new(nowhere(&scope)));
        let web = service(&mut section, "web");
        let plugin_daemon = service(&mut section, "plugin_daemon");
        let websocket = service(&mut section, "websocket");
        let switches = self.runtime != Runtime::Spin;
        if !switches && let Some(field) = section.field("websocket") {
            field.complain(
                "WebSocket is not available on Spin, whose HTTP has no way to switch a connection",
            );
        }
        let runs = overload(&mut section);
        let parts = permits(&mut section, &scope, runs);
        let streams = stream_upstream(&mut section);
        let listed = section.field("apps").map(|field| field.named());
        let mut apps = Vec::new();
        for (key, field) in listed.unwrap_or_default() {
            let app = self.app(&scope, &key.name, &api, (runs, streams), &field);
            apps.push((key.name.clone(), Rc::new(app)));
        }
        let checks = self.checks(&mut section, &apps);
        section.finish();
        let installation = Rc::new(Installation {
            websocket: websocket.unwrap_or_else(|| api.clone()),
            api,
            web,
            plugin_daemon,
            switches,
            // Whoever brings a key of its own talks to Dify itself.
            stream_upstream: streams == Some(true),
            runs: way(&scope, &[(&scope, runs)]),
            parts,
            checks,
        });
        let place = |(name, app)| {
            let installation = installation.clone();
            (name, Place { installation, app })
        };
        let apps = apps.into_iter().map(place).collect();
        Some((installation, apps))
    }

    /// Reads an app of the installation `scope`, whose API server is `api`, and of which the rest is what holds for all its apps.
    fn app(
        &self,
        scope: &str,
        name: &str,
        api: &Origin,
        (runs, streams): (Option<Settings>, Option<bool>),
        field: &Field<'_>,
    ) -> App {
        let name: Rc<str> = format!("{scope}/{name}").into();
        let mut origin = Origin {
            name: name.clone(),
            ..api.clone()
        };
        let mut app = App {
            name: name.clone(),
            origin: Rc::new(origin.clone()),
            as_model: None,
            limits: Vec::new(),
            stream_upstream: true,
            runs: None,
        };
        let Some(mut section) = field.section() else {
            return app;
        };
        let listed = match (section.field("key"), section.field("keys")) {
            (Some(key), None) => vec![key],
            (None, Some(keys)) if keys.is_empty_list() => {
                keys.complain("an app needs at least one key");
                Vec::new()
            }
            (None, Some(keys)) => keys.list(),
            (Some(_), Some(keys)) => {
                keys.complain("an app has either a `key` or `keys`");
                Vec::new()
            }
            (None, None) => {
                section.complain("`key` is missing");
                Vec::new()
            }
        };
        origin.keys = self.origin_keys(&listed).unwrap_or_default();
        origin.on_abort = on_abort(&mut section);
        app.origin = Rc::new(origin.clone());
        app.as_model = form(&mut section, false).and_then(|form| {
            let base = format!("{}/v1", origin.base.to_string().trim_end_matches('/'));
            Some(Rc::new(Origin {
                base: base.parse().ok()?,
                app: Some(form),
                ..origin
            }))
        });
        app.stream_upstream = stream_upstream(&mut section).or(streams) != Some(false);
        app.limits = limits(&mut section, &name);
        let own = overload(&mut section);
        app.runs = way(scope, &[(&name, own), (scope, runs)]);
        section.finish();
        app
    }

    /// Reads how often an installation is asked how it does, and for what.
    fn checks(&self, section: &mut Section<'_>, apps: &[(String, Rc<App>)]) -> Option<Checks> {
        let field = section.field("health")?;
        if self.runtime != Runtime::Native {
            field.complain("`health` is not available on the edge, where nothing runs between requests: there an installation is known by how it answers them");
            return None;
        }
        let mut table = field.section()?;
        let every = table.required("every").and_then(|field| {
            let every = Duration::from_millis(field.duration()?.get());
            let fits = (SHORTEST_EVERY..=LONGEST_EVERY).contains(&every);
            if !fits {
                field.complain("expected to ask every 1s to 10m");
            }
            fits.then_some(every)
        });
        let app = table.field("app").map(|field| {
            let name = field.text()?;
            let found = find(apps, name);
            let found =
                found.map_err(|hint| field.complain(format!("no app is named `{name}`{hint}")));
            found.ok().cloned()
        });
        let path = table.field("path").map(|field| {
            let path = field.text()?;
            let fits = path.starts_with('/') && path.parse::<PathAndQuery>().is_ok();
            if !fits {
                field.complain(format!("expected a path such as `/health`, found `{path}`"));
            }
            fits.then_some(path)
        });
        table.finish();
        let usual = if app.is_some() {
            "/v1/parameters"
        } else {
            "/health"
        };
        Some(Checks {
            every: every?,
            path: path.unwrap_or(Some(usual))?.into(),
            app: match app {
                Some(app) => Some(app?),
                None => None,
            },
        })
    }
}

/// Whether Dify streams what its callers want at once, if that is said.
fn stream_upstream(section: &mut Section<'_>) -> Option<bool> {
    section.field("stream_upstream")?.boolean()
}

/// What becomes of a run whose caller has left, if that is said.
fn on_abort(section: &mut Section<'_>) -> Option<OnAbort> {
    let word = section.field("on_abort")?.choice(&["stop", "drain"])?;
    Some(match word {
        "stop" => OnAbort::Stop,
        _ => OnAbort::Drain,
    })
}

/// Stands for an origin that could not be read, so that its name stays known.
pub(super) fn nowhere(name: &str) -> Origin {
    Origin {
        name: name.into(),
        base: Uri::from_static("http://invalid"),
        keys: Vec::new(),
        prefill: None,
        app: None,
        on_abort: None,
    }
}

/// What kind of app of Dify's it is, if that is said, or `must` be.
fn form(section: &mut Section<'_>, must: bool) -> Option<Form> {
    let kind = match must {
        true => section.required("app"),
        false => section.field("app"),
    };
    let kind = kind?.choice(&["chat", "agent", "completion", "workflow"])?;
    let mut variable = |name: &'static str| {
        let field = section.field(name)?;
        let text = field.text()?;
        if text.is_empty() {
            field.complain("expected the name of a variable");
        }
        Some(Box::<str>::from(text))
    };
    match kind {
        "completion" => Some(Form::Completion(
            variable("input").unwrap_or_else(|| "query".into()),
        )),
        "workflow" => {
            let (input, output) = (variable("input"), variable("output"));
            if input.is_none() || output.is_none() {
                section.complain(
                    "a workflow needs `input` and `output`: its variables that take what is asked, and give the answer",
                );
            }
            Some(Form::Workflow {
                input: input.unwrap_or_default(),
                output: output.unwrap_or_default(),
            })
        }
        _ => Some(Form::Chat),
    }
}

/// How the provider is told that the last message is the beginning of its answer; or that it cannot be.
fn prefill(field: &Field<'_>) -> Option<Option<Prefill>> {
    if let Kind::Bool(can) = field.value.kind {
        return Some(can.then_some(Prefill::Plain));
    }
    Some(Some(
        match field.choice(&["prefix", "continue_final_message"])? {
            "prefix" => Prefill::Prefix,
            _ => Prefill::ContinueFinalMessage,
        },
    ))
}

fn address(field: &Field<'_>) -> Option<Uri> {
    let text = field.text()?;
    let uri = text
        .parse::<Uri>()
        .ok()
        .filter(|_| !text.contains('#'))
        .filter(|uri| {
            let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
            let authority = uri.authority().is_some_and(|authority| {
                let port = authority.as_str().len() == authority.host().len()
                    || authority.port_u16().is_some_and(|port| port > 0);
                port && !authority.as_str().contains('@') && !authority.host().is_empty()
            });
            scheme && authority && uri.query().is_none()
        });
    if uri.is_none() {
        // It may hold a password: it is not repeated.
        field.complain("expected an address such as `https://api.example.com/v1`, without user, query or fragment, and with a port that can be");
    }
    uri
}
