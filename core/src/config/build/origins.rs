//! Who can answer: model providers, and the services of Dify installations.

use std::rc::Rc;

use http::{HeaderValue, Uri};

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
    dialect::dify::{App, Installation, OnAbort},
    overload::Settings,
    upstream::{Origin, OriginKey, Prefill},
};

/// Things of a kind, with their names: few, and looked up while the document is read.
pub(super) type ByName<T> = Vec<(String, T)>;

/// Providers by their names.
pub(super) type Origins = ByName<Rc<Origin>>;

/// Dify installations by their names.
pub(super) type Installations = ByName<(Rc<Installation>, Apps)>;

type Apps = ByName<Rc<App>>;

/// The one of `listed` that is named `name`; or how to end the message that none is.
pub(super) fn find<'l, T>(listed: &'l ByName<T>, name: &str) -> Result<&'l T, String> {
    let found = listed.iter().find(|(other, _)| other == name);
    let names = listed.iter().map(|(name, _)| name.as_str());
    found
        .map(|(_, found)| found)
        .ok_or_else(|| nearest(name, names))
}

const DIALECTS: [&str; 7] = [
    "openai",
    "anthropic",
    "gemini",
    "azure",
    "bedrock",
    "cohere",
    "dify",
];

impl Builder<'_> {
    /// Reads a provider.
    pub(super) fn provider(&self, name: &str, field: &Field<'_>) -> Option<Origin> {
        let mut section = field.section()?;
        if let Some(dialect) = section.required("dialect")
            && let Some(word) = dialect.choice(&DIALECTS)
            && word != "openai"
        {
            dialect.complain(unavailable("dialect", dialect.value));
        }
        let base = section.field("base_url");
        for name in ["replicas", "balance"] {
            section.unavailable(name);
        }
        let prefill = section.field("prefill").and_then(|field| prefill(&field));
        let keys = section.field("keys");
        let listed = keys.as_ref().map(Field::list).unwrap_or_default();
        if base.is_none() && !section.has("replicas") {
            section.complain("`base_url` is missing");
        }
        section.finish();
        let read: Option<Vec<OriginKey>> = listed.iter().map(|key| self.origin_key(key)).collect();
        let numbers: Vec<u64> = read.iter().flatten().map(|key| key.number).collect();
        for (place, field) in listed.iter().enumerate() {
            let (before, after) = numbers.split_at(place.min(numbers.len()));
            // Where the document is only checked, nobody knows what a reference stands for.
            if self.secrets.is_some() && after.first().is_some_and(|key| before.contains(key)) {
                field.complain("this key stands here twice");
            }
        }
        Some(Origin {
            name: name.into(),
            base: address(&base?)?,
            keys: read?,
            prefill: prefill.flatten(),
        })
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
        let mut apps = Apps::new();
        for (key, field) in section
            .field("apps")
            .map(|field| field.named())
            .unwrap_or_default()
        {
            let app = self.app(&scope, &key.name, runs, &field);
            apps.push((key.name.clone(), Rc::new(app)));
        }
        section.finish();
        let installation = Installation {
            websocket: websocket.unwrap_or_else(|| api.clone()),
            api,
            web,
            plugin_daemon,
            switches,
            runs: way(&scope, &[(&scope, runs)]),
            parts,
        };
        Some((Rc::new(installation), apps))
    }

    /// Reads an app of the installation `scope`, under which all `runs` fall.
    fn app(&self, scope: &str, name: &str, runs: Option<Settings>, field: &Field<'_>) -> App {
        let name = format!("{scope}/{name}");
        let mut app = App {
            name: name.as_str().into(),
            authorization: HeaderValue::from_static(""),
            limits: Vec::new(),
            on_abort: None,
            runs: None,
        };
        let Some(mut section) = field.section() else {
            return app;
        };
        if let Some(authorization) = section
            .required("key")
            .and_then(|field| self.bearer(&field))
        {
            app.authorization = authorization;
        }
        if let Some(field) = section.field("on_abort") {
            app.on_abort = field.choice(&["stop", "drain"]).map(|word| match word {
                "stop" => OnAbort::Stop,
                _ => OnAbort::Drain,
            });
        }
        app.limits = limits(&mut section, &name);
        let own = overload(&mut section);
        app.runs = way(scope, &[(&name, own), (scope, runs)]);
        section.finish();
        app
    }
}

/// Stands for an origin that could not be read, so that its name stays known.
pub(super) fn nowhere(name: &str) -> Origin {
    Origin {
        name: name.into(),
        base: Uri::from_static("http://invalid"),
        keys: Vec::new(),
        prefill: None,
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
