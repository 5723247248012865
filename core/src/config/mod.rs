//! What the operator wants: a document read into values that can run.
//!
//! The document is TOML natively and the same as JSON on the edge; both become a [`Value`] first, so that there is one
//! reading of it, which gives every problem at once.

mod build;
mod read;
#[cfg(test)]
mod tests;
mod value;

use std::{fmt, num::NonZeroU64, rc::Rc};

pub(crate) use read::duration;
pub use value::{Key, Kind, Position, Value};

use crate::{
    auth::{Digest, Keyring},
    dialect::dify::Installation,
    dispatch::Model,
    flat_map::FlatMap,
    limit::Limit,
    proxies::Proxies,
    route::{Route, Service},
    upstream::Origin,
};

/// A configuration that can run: every name in it is known, every number in its range.
#[derive(Debug)]
pub struct Config {
    /// Where to listen; native only.
    pub listen: Option<String>,
    /// What callers are shown who come by TLS; native only. Without it they come by plain HTTP.
    pub tls: Option<Tls>,
    /// Where accounts are kept.
    pub store: Store,
    /// Where the embedded store lies, relative to the configuration file; native only.
    pub data_dir: String,
    /// The longest body that is accepted, in bytes.
    pub max_body: NonZeroU64,
    /// Who is believed about where a call came from.
    pub proxies: Proxies,
    /// What opens the gateway's own pages, if anything does.
    pub admin_key: Option<Digest>,
    /// What becomes of a request whose limits cannot be checked.
    pub on_ledger_failure: OnLedgerFailure,
    /// What holds for everybody together.
    pub limits: Vec<Rc<Limit>>,
    /// Who may call.
    pub keyring: Keyring,
    /// The models by the names that callers use.
    pub models: FlatMap<Rc<Model>>,
    /// Who serves what is asked of no model: the first provider of the document.
    pub default_provider: Option<Rc<Origin>>,
    /// Where requests come in, in order.
    pub routes: Vec<Route>,
}

/// The files of a certificate, relative to the configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// The certificate and those that vouch for it, as PEM.
    pub certificate: String,
    /// Its private key, as PEM.
    pub key: String,
}

/// Where accounts are kept.
#[derive(Clone, Eq, PartialEq)]
pub enum Store {
    /// In what the platform brings: a Durable Object an account, Spin's SQLite, a file beside the native binary.
    Embedded,
    /// In Redis, at this URL, which may hold a password.
    Redis(String),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "Embedded",
            Self::Redis(_) => "Redis",
        })
    }
}

/// What becomes of a request whose limits cannot be checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnLedgerFailure {
    /// It is refused with 503.
    Refuse,
    /// It is let in, and the answer says so.
    Allow,
}

/// Where a configuration is going to run. What one runtime cannot give is refused when it is checked for that runtime.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Runtime {
    /// The `tidegate` binary.
    Native,
    /// Cloudflare Workers.
    Cloudflare,
    /// Fermyon Spin.
    Spin,
}

/// Something that the operator must change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The path of the value: `routes[2].serve`.
    pub path: String,
    /// Where it stands, if the document was text.
    pub at: Option<Position>,
    /// What is wrong, and the nearest name if it could be a slip.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{at}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl Config {
    /// Reads `document` for `runtime`; gives every problem at once, in the order of the document.
    ///
    /// `secrets` are the values of the names that [`Config::secrets`] lists, or nothing where the document is only checked.
    pub fn build(
        document: &Value,
        secrets: Option<&[(String, String)]>,
        runtime: Runtime,
    ) -> Result<Self, Vec<Problem>> {
        build::config(document, secrets, runtime)
    }

    /// Every limit that is configured.
    pub(crate) fn every_limit(&self) -> impl Iterator<Item = &Rc<Limit>> {
        let of_consumers = self.keyring.consumers().flat_map(|one| &one.limits);
        let of_routes = self.routes.iter().flat_map(Route::all_limits);
        let of_models = self.models.iter().flat_map(|(_, model)| &model.limits);
        let mut seen = FlatMap::default();
        let all = of_consumers.chain(of_routes).chain(of_models);
        let all = all.chain(&self.limits);
        all.filter(move |limit| seen.insert(limit.account.clone(), ()))
    }

    /// The names of all who can be asked: targets, and their origins.
    pub(crate) fn all_targets(&self) -> (Vec<Rc<str>>, Vec<Rc<str>>) {
        let mut names = (Vec::new(), Vec::new());
        let mut add = |target: &Rc<str>, origin: &Rc<str>| {
            names.0.push(target.clone());
            names.1.push(origin.clone());
        };
        for target in self.models.iter().flat_map(|(_, model)| &model.targets) {
            add(&target.name, &target.origin.name);
            if let Some(ground) = &target.ground {
                add(&ground.api.name, &ground.api.name);
            }
        }
        for route in &self.routes {
            if let Service::App(places) = &route.service {
                for place in places.all() {
                    let api = &place.installation.api.name;
                    add(&place.app.name, &place.app.name);
                    add(api, api);
                }
            }
        }
        names
    }

    /// The Dify installations that are served, some of them more than once.
    pub(crate) fn installations(&self) -> impl Iterator<Item = &Rc<Installation>> {
        let targets = self.models.iter().flat_map(|(_, model)| &model.targets);
        let of_models = targets.filter_map(|target| target.ground.as_ref());
        let of_routes = self.routes.iter().flat_map(|route| {
            let (whole, places) = match &route.service {
                Service::Models => (None, None),
                Service::Dify(installation) => (Some(installation), None),
                Service::App(places) => (None, Some(places.all())),
            };
            let of_apps = places.into_iter().flatten();
            whole
                .into_iter()
                .chain(of_apps.map(|place| &place.installation))
        });
        of_models.chain(of_routes)
    }

    /// The names of the secrets that `document` refers to by `"$NAME"`, each once and in order.
    pub fn secrets(document: &Value) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut open = vec![document];
        while let Some(value) = open.pop() {
            match &value.kind {
                Kind::Text(text) => {
                    if let Some(name) = build::reference(text)
                        && let Err(place) = names.binary_search_by(|other| (**other).cmp(name))
                    {
                        names.insert(place, name.to_owned());
                    }
                }
                Kind::List(values) => open.extend(values),
                Kind::Table(entries) => open.extend(entries.iter().map(|(_, value)| value)),
                Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) => {}
            }
        }
        names
    }
}
