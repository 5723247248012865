//! Where requests come in.

use std::rc::Rc;

use http::{HeaderName, Method};

use super::{
    Builder,
    limits::limits,
    origins::{Installations, find},
    overload::priority,
};
use crate::{
    call,
    config::{
        Kind,
        read::{Field, nearest},
    },
    dialect::dify::{Place, Places},
    route::{Access, Host, Matches, Route, Service},
};

impl Builder<'_> {
    /// Reads a route.
    pub(super) fn route(&self, field: &Field<'_>, installations: &Installations) -> Option<Route> {
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
            consumers: section
                .field("consumers")
                .map(|field| self.some_consumers(&field))
                .unwrap_or_default(),
        };
        let service = section
            .required("serve")
            .and_then(|field| service(&field, installations));
        let balance = section.field("balance");
        let spread = balance
            .as_ref()
            .and_then(|field| field.choice(&["order", "spread"]));
        let service = match (service, balance) {
            (Some(Service::App(places)), Some(_)) if !places.others.is_empty() => {
                Some(Service::App(Rc::new(Places {
                    first: places.first.clone(),
                    others: places.others.clone(),
                    spread: spread == Some("spread"),
                })))
            }
            (service, Some(field)) => {
                field.complain("`balance` wants several apps in `serve`");
                service
            }
            (service, None) => service,
        };
        let access = section.field("access");
        let public = access
            .as_ref()
            .filter(|field| field.choice(&["consumers", "public"]) == Some("public"));
        if let Some(field) = public
            && !matches.consumers.is_empty()
        {
            field.complain("a route that is for some `consumers` cannot be `public`");
        }
        for name in ["cache", "guards"] {
            section.unavailable(name);
        }
        let limits = limits(&mut section, &format!("route {}", name.unwrap_or_default()));
        let priority = priority(&mut section);
        section.finish();
        let access = match public {
            Some(_) => Access::Public,
            None => Access::Consumers,
        };
        Some(Route {
            name: name?.into(),
            matches,
            service: service?,
            access,
            limits,
            priority,
        })
    }

    /// The names of those for whom alone a route is.
    fn some_consumers(&self, field: &Field<'_>) -> Vec<Rc<str>> {
        if field.is_empty_list() {
            field.complain("a route for certain `consumers` needs at least one");
        }
        let names = self.names.borrow();
        let known = || {
            names
                .iter()
                .filter_map(|(name, ())| name.strip_prefix("consumer "))
        };
        let mut consumers = Vec::new();
        for field in field.list() {
            let Some(text) = field.text() else { continue };
            if !known().any(|name| name == text) {
                let hint = nearest(text, known());
                field.complain(format!("no consumer is named `{text}`{hint}"));
            }
            consumers.push(text.into());
        }
        consumers
    }
}

fn service(field: &Field<'_>, installations: &Installations) -> Option<Service> {
    match field.value.kind {
        Kind::List(_) => apps(field, installations),
        _ => one(field, installations),
    }
}

fn one(field: &Field<'_>, installations: &Installations) -> Option<Service> {
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
    let found = find(installations, name);
    let (installation, apps) = found
        .map_err(|hint| field.complain(format!("no dify is named `{name}`{hint}")))
        .ok()?;
    let Some(app) = app else {
        return Some(Service::Dify(installation.clone()));
    };
    let found = find(apps, app);
    let place = found
        .map_err(|hint| {
            field.complain(format!("`dify.{name}` has no app named `{app}`{hint}"));
        })
        .ok()?;
    Some(Service::App(Rc::new(Places {
        first: place.clone(),
        others: Vec::new(),
        spread: false,
    })))
}

/// Several apps that do the same, the best first.
fn apps(field: &Field<'_>, installations: &Installations) -> Option<Service> {
    if field.is_empty_list() {
        field.complain("a route needs at least one app");
    }
    let mut places: Vec<Place> = Vec::new();
    for field in field.list() {
        match one(&field, installations) {
            Some(Service::App(app)) => {
                let place = app.first.clone();
                let is_there = |other: &Place| other.app.name == place.app.name;
                if places.iter().any(is_there) {
                    field.complain("this app stands here twice");
                }
                if !places.is_empty() && !place.app.limits.is_empty() {
                    field.complain("an app that steps in for another one cannot have `limits`: those of the first one hold for both, and the route can have some");
                }
                places.push(place);
            }
            Some(_) => {
                field.complain("only apps (`dify.NAME/APP`) can step in for each other");
            }
            None => {}
        }
    }
    let mut places = places.into_iter();
    Some(Service::App(Rc::new(Places {
        first: places.next()?,
        others: places.collect(),
        spread: false,
    })))
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
    let text = &*call::plain(field.text()?);
    let fits =
        text.starts_with('/') && call::safe(text).is_ok() && !text.contains(['?', '#', ' ', '*']);
    if !fits {
        field.complain(format!("expected a path such as `/v1`, found `{text}`"));
    } else if !text.is_ascii() {
        field.complain("expected a path as it is sent, with `%C3%A9` for `é`");
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
    let fields = if let Kind::List(_) = field.value.kind {
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
