//! Where a request comes in: the first route that matches takes it.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, Method};

use crate::{
    call::{Call, below},
    dialect::{
        Dialect,
        dify::{self, Installation, Places},
    },
    limit::Limit,
    overload::Priority,
};

/// The header by which callers choose among apps behind one path.
const APP_ID: &str = "app-id";

/// A way in.
#[derive(Debug)]
pub struct Route {
    /// The name in the configuration.
    pub name: Rc<str>,
    /// Which requests it takes.
    pub matches: Matches,
    /// What serves them.
    pub service: Service,
    /// Who may come in.
    pub access: Access,
    /// What holds for all of them together.
    pub limits: Vec<Rc<Limit>>,
    /// Before whom they go where not all can, if it is said.
    pub priority: Option<Priority>,
}

/// Which requests a route takes: all of these must hold.
#[derive(Debug, Default)]
pub struct Matches {
    /// The host that was asked; any, if absent.
    pub host: Option<Host>,
    /// The path up to a border between segments, without a slash at its end; the empty path is any.
    pub path: String,
    /// Headers that are there with these values.
    pub headers: Vec<(HeaderName, String)>,
    /// The method is one of these; any, if empty.
    pub methods: Vec<Method>,
    /// Who calls is one of these consumers; anybody who may come in, if empty.
    pub consumers: Vec<Rc<str>>,
}

/// A host name, in lower case.
#[derive(Debug, Eq, PartialEq)]
pub enum Host {
    /// This one.
    Exact(String),
    /// Every one below this, which begins with a dot: `*.example.com` is `.example.com`.
    Below(String),
}

/// What serves a route.
#[derive(Clone, Debug)]
pub enum Service {
    /// The OpenAI-compatible API over the models.
    Models,
    /// The whole of a Dify installation.
    Dify(Rc<Installation>),
    /// The service API of an app of a Dify installation, or of several that do the same.
    App(Rc<Places>),
}

/// Who may come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Those who have a key.
    Consumers,
    /// Everybody.
    Public,
}

impl Route {
    /// The limits of what it serves, and its own.
    pub(crate) fn all_limits(&self) -> impl Iterator<Item = &Rc<Limit>> {
        let of_app = match &self.service {
            Service::App(places) => &places.first.app.limits[..],
            Service::Models | Service::Dify(_) => &[],
        };
        of_app.iter().chain(&self.limits)
    }

    /// The first of `routes` that takes `call` of `consumer`. What is for others alone is passed over for what comes after it, but not
    /// for what is open to everybody: then it is for him to be refused.
    pub fn find<'a>(routes: &'a [Self], call: &Call, consumer: Option<&str>) -> Option<&'a Self> {
        let mut taking = routes.iter().filter(|route| route.matches.take(call));
        let first = taking.next()?;
        if first.is_for(consumer) {
            return Some(first);
        }
        let other = taking.find(|route| route.access == Access::Public || route.is_for(consumer));
        Some(match other {
            Some(other) if other.access == Access::Consumers => other,
            _ => first,
        })
    }

    /// Whether it is for this consumer, or not for certain ones alone.
    pub(crate) fn is_for(&self, consumer: Option<&str>) -> bool {
        let consumers = &self.matches.consumers;
        consumers.is_empty() || consumers.iter().any(|name| consumer == Some(&**name))
    }

    /// Takes out of the `headers` of what is asked by what its app was chosen here: no app knows it.
    pub(crate) fn forget_choice(&self, headers: &mut HeaderMap) {
        let mut names = self.matches.headers.iter().map(|(name, _)| name);
        if let (Service::App(_), Some(name)) = (&self.service, names.find(|name| *name == APP_ID)) {
            headers.remove(name);
        }
    }

    /// What is left of `path` when the route's own is taken off: it begins with a slash. Where that is one of Dify's, such as `/files`,
    /// or below one, it stays: the route is for that part of an installation.
    pub fn rest<'a>(&self, path: &'a str) -> &'a str {
        if matches!(self.service, Service::Dify(_)) && dify::is_own(&self.matches.path) {
            return path;
        }
        match path.strip_prefix(self.matches.path.as_str()) {
            Some("") => "/",
            Some(rest) => rest,
            None => path,
        }
    }
}

impl Service {
    /// What its callers speak.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Models => Dialect::OpenAi,
            Self::Dify(_) | Self::App(_) => Dialect::Dify,
        }
    }
}

impl Matches {
    fn take(&self, call: &Call) -> bool {
        self.host.as_ref().is_none_or(|host| host.is(&call.host))
            && below(&self.path, &call.path)
            && (self.methods.is_empty() || self.methods.contains(&call.method))
            && self
                .headers
                .iter()
                .all(|(name, value)| carries(&call.headers, name, value))
    }
}

impl Host {
    /// Whether `host`, in lower case, is meant.
    fn is(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(suffix) => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|label| !label.is_empty()),
        }
    }
}

fn carries(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|carried| carried.as_bytes() == value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_exact_or_below() {
        let exact = Host::Exact("a.example".into());
        let star = Host::Below(".example".into());
        for (host, is_exact, is_below) in [
            ("a.example", true, true),
            ("b.a.example", false, true),
            ("example", false, false),
            (".example", false, false),
            ("aexample", false, false),
        ] {
            assert_eq!(
                (exact.is(host), star.is(host)),
                (is_exact, is_below),
                "{host}"
            );
        }
    }
}
