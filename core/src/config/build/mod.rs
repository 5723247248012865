//! What the names of the document mean.

mod consumers;
mod limits;
mod models;
mod origins;
mod overload;
mod routes;

use std::{cell::RefCell, num::NonZeroU64, rc::Rc};

use http::HeaderValue;

use self::{
    limits::limits,
    models::{Known, model, resolved},
    origins::{Installations, Origins, nowhere},
};
use super::{
    Config, OnLedgerFailure, Problem, Runtime, Store, Tls, Value,
    read::{Field, Problems, Section},
};
use crate::{
    auth::Keyring,
    flat_map::FlatMap,
    proxies::{Network, Proxies},
};

const MAX_BODY: NonZeroU64 = NonZeroU64::new(100_000_000).unwrap();
/// The name in `"$NAME"`.
pub(super) fn reference(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    fits.then_some(name)
}

pub(super) fn config(
    document: &Value,
    secrets: Option<&[(String, String)]>,
    runtime: Runtime,
) -> Result<Config, Vec<Problem>> {
    let problems = Problems::default();
    let config = Builder {
        secrets,
        runtime,
        names: RefCell::default(),
    }
    .config(&Field::root(document, &problems));
    let problems = problems.into_sorted();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

struct Builder<'s> {
    secrets: Option<&'s [(String, String)]>,
    runtime: Runtime,
    /// Names that must not stand twice, of routes and consumers: each after what it is the name of.
    names: RefCell<FlatMap<()>>,
}

impl Builder<'_> {
    fn config(&self, root: &Field<'_>) -> Option<Config> {
        let mut root = root.section()?;
        let mut config = Config {
            listen: None,
            tls: None,
            store: Store::Embedded,
            data_dir: ".tidegate".into(),
            max_body: MAX_BODY,
            proxies: Proxies::default(),
            admin_key: None,
            on_ledger_failure: OnLedgerFailure::Refuse,
            limits: Vec::new(),
            keyring: Keyring::default(),
            models: FlatMap::default(),
            default_provider: None,
            routes: Vec::new(),
        };
        if let Some(mut section) = root.field("gateway").and_then(|field| field.section()) {
            self.gateway(&mut section, &mut config);
            section.finish();
        }
        for field in root
            .field("consumers")
            .map(|field| field.list())
            .unwrap_or_default()
        {
            self.consumer(&field, &mut config.keyring);
        }
        let mut providers = Origins::new();
        for (key, field) in root
            .field("providers")
            .map(|field| field.named())
            .unwrap_or_default()
        {
            // A provider with a problem stays known by its name, so that one mistake is not reported as two.
            let origin = Rc::new(
                self.provider(&key.name, &field)
                    .unwrap_or_else(|| nowhere(&key.name)),
            );
            if origin.app.is_none() {
                config
                    .default_provider
                    .get_or_insert_with(|| origin.clone());
            }
            providers.push((key.name.clone(), origin));
        }
        let mut installations = Installations::new();
        for (key, field) in root
            .field("dify")
            .map(|field| field.named())
            .unwrap_or_default()
        {
            if let Some(installation) = self.installation(&key.name, &field) {
                installations.push((key.name.clone(), installation));
            }
        }
        let models = root.field("models");
        let models = models
            .as_ref()
            .map(|field| field.named())
            .unwrap_or_default();
        let names: Vec<&str> = models.iter().map(|(key, _)| key.name.as_str()).collect();
        let known = Known {
            providers: &providers,
            installations: &installations,
            models: &names,
        };
        let listed = models.iter().filter_map(|(key, field)| {
            let name = key.name.as_str();
            Some((name, field, model(name, field, self.runtime, &known)?))
        });
        config.models = resolved(&listed.collect::<Vec<_>>(), &installations);
        for field in root
            .field("routes")
            .map(|field| field.list())
            .unwrap_or_default()
        {
            config.routes.extend(self.route(&field, &installations));
        }
        if !root.has("routes") {
            root.complain("`routes` is missing: nothing would be served");
        }
        for name in ["issuers", "guards", "telemetry"] {
            root.unavailable(name);
        }
        root.finish();
        Some(config)
    }

    fn gateway(&self, section: &mut Section<'_>, config: &mut Config) {
        config.listen = section.field("listen").and_then(|field| listen(&field));
        config.tls = section.field("tls").and_then(|field| self.tls(&field));
        if let Some(field) = section.field("admin_key") {
            config.admin_key = self.digest(&field);
        }
        if let Some(size) = section.field("max_body").and_then(|field| field.size()) {
            config.max_body = size;
        }
        if let Some(field) = section.field("proxies") {
            let networks = field.list();
            config.proxies.0 = networks.iter().filter_map(network).collect();
        }
        if let Some(store) = section.field("store").and_then(|field| self.store(&field)) {
            config.store = store;
        }
        if let Some(folder) = section.field("data_dir").and_then(|field| field.text()) {
            config.data_dir = folder.into();
        }
        if let Some(word) = section
            .field("on_ledger_failure")
            .and_then(|field| field.choice(&["refuse", "allow"]))
        {
            config.on_ledger_failure = if word == "allow" {
                OnLedgerFailure::Allow
            } else {
                OnLedgerFailure::Refuse
            };
        }
        config.limits = limits(section, "gateway");
    }

    fn tls(&self, field: &Field<'_>) -> Option<Tls> {
        if self.runtime != Runtime::Native {
            field.complain("`tls` is not available on the edge, where the platform ends TLS before the gateway is called");
            return None;
        }
        let mut section = field.section()?;
        let mut path = |name| section.required(name)?.text().map(str::to_owned);
        let (certificate, key) = (path("certificate"), path("key"));
        section.finish();
        Some(Tls {
            certificate: certificate?,
            key: key?,
        })
    }

    fn store(&self, field: &Field<'_>) -> Option<Store> {
        let text = field.text()?;
        if text == "embedded" {
            return Some(Store::Embedded);
        }
        let is_secret = reference(text).is_some();
        let url = if is_secret {
            self.secret(field)?
        } else {
            text.into()
        };
        let is_redis = url.starts_with("redis://") || url.starts_with("rediss://");
        if self.runtime == Runtime::Cloudflare && (is_redis || is_secret) {
            field.complain("Workers keep accounts in Durable Objects and cannot use a Redis store");
            return None;
        }
        // Where the document is only checked, nobody knows what a reference stands for.
        let is_unknown = is_secret && self.secrets.is_none();
        let is_good = is_unknown || is_redis && leads_somewhere(&url);
        if !is_good {
            // What stands there may hold a password: it is not repeated.
            field.complain("expected `embedded` or a URL such as `redis://127.0.0.1:6379`");
            return None;
        }
        Some(Store::Redis(url))
    }

    /// A name that nobody else of its kind has.
    fn unique<'a>(&self, kind: &'static str, field: &Field<'a>) -> Option<&'a str> {
        let name = field.text()?;
        if name.is_empty() {
            field.complain("a name must not be empty");
        } else if !self
            .names
            .borrow_mut()
            .insert(format!("{kind} {name}").into(), ())
        {
            field.complain(format!("another {kind} is named `{name}` already"));
        }
        Some(name)
    }

    fn bearer(&self, field: &Field<'_>) -> Option<HeaderValue> {
        let secret = self.secret(field)?;
        let value = HeaderValue::from_str(&format!("Bearer {secret}")).ok();
        match value {
            Some(mut value) => {
                value.set_sensitive(true);
                Some(value)
            }
            None => {
                field.complain("the secret has characters that no header can carry");
                None
            }
        }
    }

    /// What a reference to a secret stands for; a placeholder, where the document is only checked.
    fn secret(&self, field: &Field<'_>) -> Option<String> {
        let Some(name) = reference(field.text()?) else {
            // What stands there may be a secret: it is not repeated.
            field.complain("expected a reference to a secret such as \"$OPENAI_KEY\"");
            return None;
        };
        let Some(secrets) = self.secrets else {
            return Some(format!("unresolved-{name}"));
        };
        let mut named = secrets.iter().filter(|(other, _)| other == name);
        let value = named
            .next()
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty());
        if value.is_none() {
            field.complain(format!("the secret `{name}` is not set"));
        }
        value.map(str::to_owned)
    }
}

/// Whether there are a host behind the scheme of `url`, a port, if there is one, and the number of a database, if that is said.
fn leads_somewhere(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let rest = rest.split('?').next().unwrap_or_default();
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let address = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (address, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_database = database.is_empty() || database.parse::<u32>().is_ok();
    !host.is_empty() && port.is_none_or(is_port) && is_database
}

/// Addresses of proxies.
fn network(field: &Field<'_>) -> Option<Network> {
    let text = field.text()?;
    let network = Network::read(text);
    if network.is_none() {
        field.complain(format!(
            "expected an address or a network such as `10.0.0.0/8`, found `{text}`"
        ));
    }
    network
}

/// A host and a port, which may be zero: any that is free.
fn listen(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let fits = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !fits {
        field.complain(format!(
            "expected a host and a port such as `127.0.0.1:8080`, found `{text}`"
        ));
    }
    fits.then(|| text.to_owned())
}
