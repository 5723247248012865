//! What the names of the document mean.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU32, NonZeroU64},
    rc::Rc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, Uri};

use super::{
    Config, OnLedgerFailure, Problem, Runtime, Store, Value,
    read::{Field, Problems, Section, nearest, unavailable},
};
use crate::{
    auth::{Consumer, Digest, Keyring},
    dialect::dify::{App, Installation},
    dispatch::{Model, Retry, Target},
    limit::Limit,
    route::{Access, Host, Matches, Route, Service},
    upstream::Origin,
};

/// How long an upstream may take to begin its answer: as long as the providers' own clients wait.
const PATIENCE: Duration = Duration::from_secs(600);

const MAX_BODY: NonZeroU64 = NonZeroU64::new(100_000_000).unwrap();
const MOST_ATTEMPTS: u32 = 10;
const LONGEST_WINDOW: u64 = 30 * 86_400_000;
const SHORTEST_WINDOW: u64 = 1_000;
const LARGEST_LIMIT: u64 = 1 << 53;

const DIALECTS: [&str; 7] = [
    "openai",
    "anthropic",
    "gemini",
    "azure",
    "bedrock",
    "cohere",
    "dify",
];

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
    secrets: Option<&BTreeMap<String, String>>,
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
    secrets: Option<&'s BTreeMap<String, String>>,
    runtime: Runtime,
    /// Names that must not stand twice: routes, consumers.
    names: RefCell<BTreeSet<(&'static str, String)>>,
}

type Origins = BTreeMap<String, Rc<Origin>>;
type Apps = BTreeMap<String, Rc<App>>;
type Installations = BTreeMap<String, (Rc<Installation>, Apps)>;

impl Builder<'_> {
    fn config(&self, root: &Field<'_>) -> Option<Config> {
        let mut root = root.section()?;
        let mut config = Config {
            listen: None,
            store: Store::Embedded,
            data_dir: ".tidegate".into(),
            max_body: MAX_BODY,
            on_ledger_failure: OnLedgerFailure::Refuse,
            patience: PATIENCE,
            limits: Vec::new(),
            keyring: Keyring::default(),
            models: BTreeMap::new(),
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
            config
                .default_provider
                .get_or_insert_with(|| origin.clone());
            providers.insert(key.name.clone(), origin);
        }
        for (key, field) in root
            .field("models")
            .map(|field| field.named())
            .unwrap_or_default()
        {
            if let Some(model) = model(&key.name, &field, &providers) {
                config.models.insert(key.name.clone(), Rc::new(model));
            }
        }
        let mut installations = Installations::new();
        for (key, field) in root
            .field("dify")
            .map(|field| field.named())
            .unwrap_or_default()
        {
            if let Some(installation) = self.installation(&key.name, &field) {
                installations.insert(key.name.clone(), installation);
            }
        }
        for field in root
            .field("routes")
            .map(|field| field.list())
            .unwrap_or_default()
        {
            config.routes.extend(self.route(&field, &installations));
        }
        for name in ["issuers", "guards", "telemetry"] {
            root.unavailable(name);
        }
        root.finish();
        Some(config)
    }

    fn gateway(&self, section: &mut Section<'_>, config: &mut Config) {
        config.listen = section
            .field("listen")
            .and_then(|field| field.text())
            .map(str::to_owned);
        if let Some(field) = section.field("admin_key") {
            // What stands there may be a secret: it is not repeated.
            field.complain("`admin_key` is not available yet");
        }
        if let Some(size) = section.field("max_body").and_then(|field| field.size()) {
            config.max_body = size;
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

    fn store(&self, field: &Field<'_>) -> Option<Store> {
        let text = field.text()?;
        if text == "embedded" {
            return Some(Store::Embedded);
        }
        if !text.starts_with("redis://") && !text.starts_with("rediss://") {
            field.complain(format!(
                "expected `embedded` or a URL such as `redis://127.0.0.1:6379`, found `{text}`"
            ));
            return None;
        }
        match self.runtime {
            Runtime::Spin => return Some(Store::Redis(text.into())),
            Runtime::Native => field.complain("a Redis store is not available yet on native"),
            Runtime::Cloudflare => field
                .complain("Workers keep accounts in Durable Objects and cannot use a Redis store"),
        }
        None
    }

    fn consumer(&self, field: &Field<'_>, keyring: &mut Keyring) -> Option<()> {
        let mut section = field.section()?;
        let name = section
            .required("name")
            .and_then(|field| self.unique("consumer", &field));
        let keys = section
            .required("keys")
            .map(|field| field.list())
            .unwrap_or_default();
        let limits = limits(
            &mut section,
            &format!("consumer {}", name.unwrap_or_default()),
        );
        section.finish();
        let consumer = Rc::new(Consumer {
            name: name?.into(),
            limits,
        });
        for key in keys {
            let Some(digest) = self.digest(&key) else {
                continue;
            };
            // A key that is only checked has no value yet to compare.
            if self.secrets.is_some() && keyring.has(&digest) {
                key.complain("this key is another consumer's already, or stands twice");
            }
            keyring.add(digest, consumer.clone());
        }
        Some(())
    }

    fn digest(&self, field: &Field<'_>) -> Option<Digest> {
        match field.text()?.strip_prefix("sha256:") {
            Some(hex) => {
                let digest = Digest::parse(hex);
                if digest.is_none() {
                    field.complain("expected 64 hexadecimal digits after `sha256:`");
                }
                digest
            }
            None => self.secret(field).map(|secret| Digest::of(&secret)),
        }
    }

    fn provider(&self, name: &str, field: &Field<'_>) -> Option<Origin> {
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
        if let Some(prefill) = section.field("prefill")
            && prefill.boolean() == Some(true)
        {
            prefill.complain(unavailable("prefill", prefill.value));
        }
        let keys = section.field("keys");
        let listed = keys.as_ref().map(Field::list).unwrap_or_default();
        if let (Some(keys), true) = (&keys, listed.len() > 1) {
            keys.complain("more than one key is not available yet");
        }
        if base.is_none() && !section.has("replicas") {
            section.complain("`base_url` is missing");
        }
        section.finish();
        let authorization = match listed.first() {
            Some(key) => Some(self.bearer(key)?),
            None => None,
        };
        Some(Origin {
            name: name.into(),
            base: address(&base?)?,
            authorization,
        })
    }

    fn installation(&self, name: &str, field: &Field<'_>) -> Option<(Rc<Installation>, Apps)> {
        let mut section = field.section()?;
        let scope = format!("dify.{name}");
        let service = |section: &mut Section<'_>, key: &'static str| {
            let base = address(&section.field(key)?)?;
            Some(Rc::new(Origin {
                name: format!("{scope}:{key}").into(),
                base,
                authorization: None,
            }))
        };
        if !section.has("api") {
            section.complain("`api` is missing");
        }
        // With a problem it stays known by its name, so that one mistake is not reported as two.
        let api = service(&mut section, "api").unwrap_or_else(|| Rc::new(nowhere(&scope)));
        let web = service(&mut section, "web");
        let plugin_daemon = service(&mut section, "plugin_daemon");
        section.unavailable("websocket");
        let mut apps = Apps::new();
        for (key, field) in section
            .field("apps")
            .map(|field| field.named())
            .unwrap_or_default()
        {
            let app = self.app(&format!("{scope}/{}", key.name), &field);
            apps.insert(key.name.clone(), Rc::new(app));
        }
        section.finish();
        let installation = Installation {
            name: scope.as_str().into(),
            api,
            web,
            plugin_daemon,
        };
        Some((Rc::new(installation), apps))
    }

    fn app(&self, name: &str, field: &Field<'_>) -> App {
        let mut app = App {
            name: name.into(),
            authorization: HeaderValue::from_static(""),
            limits: Vec::new(),
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
        section.unavailable("on_abort");
        app.limits = limits(&mut section, name);
        section.finish();
        app
    }

    fn route(&self, field: &Field<'_>, installations: &Installations) -> Option<Route> {
        let mut section = field.section()?;
        let name = section
            .required("name")
            .and_then(|field| self.unique("route", &field));
        let matches = Matches {
            host: section.field("host").and_then(|field| host(&field)),
            path: section
                .field("path")
                .and_then(|field| path(&field))
                .unwrap_or_default(),
            headers: section
                .field("headers")
                .map(|field| headers(&field))
                .unwrap_or_default(),
            methods: section
                .field("method")
                .map(|field| methods(&field))
                .unwrap_or_default(),
        };
        let service = section
            .required("serve")
            .and_then(|field| service(&field, installations));
        let access = section
            .field("access")
            .and_then(|field| field.choice(&["consumers", "public"]));
        for name in ["cache", "guards"] {
            section.unavailable(name);
        }
        let limits = limits(&mut section, &format!("route {}", name.unwrap_or_default()));
        section.finish();
        let access = if access == Some("public") {
            Access::Public
        } else {
            Access::Consumers
        };
        Some(Route {
            name: name?.into(),
            matches,
            service: service?,
            access,
            limits,
        })
    }

    /// A name that nobody else of its kind has.
    fn unique<'a>(&self, kind: &'static str, field: &Field<'a>) -> Option<&'a str> {
        let name = field.text()?;
        if name.is_empty() {
            field.complain("a name must not be empty");
        } else if !self.names.borrow_mut().insert((kind, name.into())) {
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
        let value = secrets
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty());
        if value.is_none() {
            field.complain(format!("the secret `{name}` is not set"));
        }
        value.map(str::to_owned)
    }
}

fn nowhere(name: &str) -> Origin {
    Origin {
        name: name.into(),
        base: Uri::from_static("http://invalid"),
        authorization: None,
    }
}

fn model(name: &str, field: &Field<'_>, providers: &Origins) -> Option<Model> {
    let mut section = field.section()?;
    let listed = section.required("targets");
    let targets: Vec<_> = listed
        .iter()
        .flat_map(Field::list)
        .filter_map(|field| target(&field, providers))
        .collect();
    if let Some(listed) = listed.filter(|field| targets.is_empty() && field.list().is_empty()) {
        listed.complain("a model needs at least one target");
    }
    if let Some(strategy) = section.field("strategy")
        && strategy
            .choice(&["fallback", "weighted", "latency"])
            .is_some_and(|word| word != "fallback")
    {
        strategy.complain(unavailable("strategy", strategy.value));
    }
    section.unavailable("timeouts");
    if let Some(rescue) = section.field("rescue")
        && rescue.choice(&["auto", "off"]) == Some("auto")
    {
        rescue.complain(unavailable("rescue", rescue.value));
    }
    let all = NonZeroU32::new(u32::try_from(targets.len()).unwrap_or(u32::MAX))
        .unwrap_or(NonZeroU32::MIN);
    let mut retry = Retry {
        attempts: all.min(NonZeroU32::new(MOST_ATTEMPTS).unwrap_or(all)),
        connect: true,
        limited: true,
        failing: true,
    };
    if let Some(mut section) = section.field("retry").and_then(|field| field.section()) {
        if let Some(attempts) = section
            .field("attempts")
            .and_then(|field| field.small_count(MOST_ATTEMPTS))
        {
            retry.attempts = attempts;
        }
        if let Some(on) = section.field("on") {
            let words: Vec<_> = on
                .list()
                .iter()
                .filter_map(|field| field.choice(&["connect", "429", "5xx"]))
                .collect();
            let has = |word| words.contains(&word);
            retry = Retry {
                connect: has("connect"),
                limited: has("429"),
                failing: has("5xx"),
                ..retry
            };
        }
        section.finish();
    }
    section.finish();
    Some(Model {
        name: name.into(),
        targets,
        retry,
    })
}

fn target(field: &Field<'_>, providers: &Origins) -> Option<Target> {
    if let super::Kind::Table(_) = field.value.kind {
        let mut section = field.section()?;
        section.unavailable("weight");
        let target = section
            .required("target")
            .and_then(|field| target(&field, providers));
        section.finish();
        return target;
    }
    let name = field.text()?;
    let Some((provider, model)) = name.split_once('/').filter(|(_, model)| !model.is_empty())
    else {
        field.complain(format!(
            "expected a provider and its model such as `openai/gpt-4.1`, found `{name}`"
        ));
        return None;
    };
    let Some(origin) = providers.get(provider) else {
        let hint = nearest(provider, providers.keys().map(String::as_str));
        field.complain(format!("no provider is named `{provider}`{hint}"));
        return None;
    };
    Some(Target {
        name: name.into(),
        origin: origin.clone(),
        model: model.into(),
    })
}

fn limits(section: &mut Section<'_>, scope: &str) -> Vec<Limit> {
    let fields = section
        .field("limits")
        .map(|field| field.list())
        .unwrap_or_default();
    let mut limits: Vec<Limit> = Vec::new();
    for field in fields {
        let Some(limit) = limit(&field, scope) else {
            continue;
        };
        if limits.iter().any(|other| other.account == limit.account) {
            field.complain("another limit here has the same window");
        }
        limits.push(limit);
    }
    limits
}

fn limit(field: &Field<'_>, scope: &str) -> Option<Limit> {
    let mut section = field.section()?;
    for name in ["tokens", "concurrent", "queue", "wait", "by"] {
        section.unavailable(name);
    }
    let counted = ["tokens", "concurrent"]
        .into_iter()
        .any(|name| section.has(name));
    let requests = if counted {
        section.field("requests")
    } else {
        section.required("requests")
    };
    let requests = requests.and_then(|field| {
        field.count().filter(|count| {
            let fits = count.get() <= LARGEST_LIMIT;
            if !fits {
                field.complain(format!("expected at most {LARGEST_LIMIT}"));
            }
            fits
        })
    });
    let per = if counted {
        section.field("per")
    } else {
        section.required("per")
    };
    let per = per.and_then(|field| {
        field.duration().filter(|per| {
            let fits = (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&per.get());
            if !fits {
                field.complain("expected a window between 1s and 30d");
            }
            fits
        })
    });
    section.finish();
    Some(Limit::requests(scope, requests?, per?))
}

fn service(field: &Field<'_>, installations: &Installations) -> Option<Service> {
    let text = field.text()?;
    if text == "models" {
        return Some(Service::Models);
    }
    let Some(name) = text.strip_prefix("dify.") else {
        field.complain(format!(
            "expected `models`, `dify.NAME` or `dify.NAME/APP`, found `{text}`{}",
            nearest(text, ["models"])
        ));
        return None;
    };
    let (name, app) = name
        .split_once('/')
        .map_or((name, None), |(name, app)| (name, Some(app)));
    let Some((installation, apps)) = installations.get(name) else {
        field.complain(format!(
            "no dify is named `{name}`{}",
            nearest(name, installations.keys().map(String::as_str))
        ));
        return None;
    };
    let Some(app) = app else {
        return Some(Service::Dify(installation.clone()));
    };
    let Some(found) = apps.get(app) else {
        field.complain(format!(
            "`dify.{name}` has no app named `{app}`{}",
            nearest(app, apps.keys().map(String::as_str))
        ));
        return None;
    };
    Some(Service::App(installation.clone(), found.clone()))
}

fn address(field: &Field<'_>) -> Option<Uri> {
    let text = field.text()?;
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().is_some_and(|authority| {
            !authority.as_str().contains('@') && !authority.host().is_empty()
        });
        scheme && authority && uri.query().is_none()
    });
    if uri.is_none() {
        // It may hold a password: it is not repeated.
        field.complain("expected an address such as `https://api.example.com/v1`, without user, query or fragment");
    }
    uri
}

fn host(field: &Field<'_>) -> Option<Host> {
    let text = field.text()?.to_ascii_lowercase();
    let name = text.strip_prefix("*.").unwrap_or(&text);
    let fits = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'[' | b']' | b':')
    };
    let is_port = name
        .rsplit_once(':')
        .is_some_and(|(host, _)| !host.contains(':'));
    if name.is_empty() || !name.bytes().all(fits) || is_port {
        field.complain(format!("expected a host such as `ai.example.com` or `*.example.com`, without a port, found `{text}`"));
        return None;
    }
    Some(if name.len() < text.len() {
        Host::Below(format!(".{name}"))
    } else {
        Host::Exact(text)
    })
}

/// Without the slash at its end: the empty path is any.
fn path(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let fits = text.starts_with('/')
        && crate::call::safe(text).is_ok()
        && !text.contains(['?', '#', ' ', '*']);
    if !fits {
        field.complain(format!("expected a path such as `/v1`, found `{text}`"));
    } else if text == "/_tidegate" || text.starts_with("/_tidegate/") {
        field.complain("`/_tidegate` is the gateway's own");
    }
    fits.then(|| text.trim_end_matches('/').to_owned())
}

fn headers(field: &Field<'_>) -> Vec<(HeaderName, String)> {
    let mut headers = Vec::new();
    for (key, field) in field.named() {
        match (key.name.parse::<HeaderName>(), field.text()) {
            (Ok(name), Some(value)) => headers.push((name, value.to_owned())),
            (Err(_), _) => field.complain(format!("`{}` cannot be the name of a header", key.name)),
            (Ok(_), None) => {}
        }
    }
    headers
}

/// One method, or a list of them.
fn methods(field: &Field<'_>) -> Vec<Method> {
    let fields = if let super::Kind::List(_) = field.value.kind {
        field.list()
    } else {
        vec![field.clone()]
    };
    let mut methods = Vec::new();
    for field in fields {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        methods.extend(
            field
                .choice(&known)
                .and_then(|word| word.parse::<Method>().ok()),
        );
    }
    methods
}
