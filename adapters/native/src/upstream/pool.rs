//! Connections that wait for their next request.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::{Rc, Weak},
    task::Context,
    time::Duration,
};

use http::{HeaderMap, Uri, uri::Authority};
use tokio::time::Instant;

use super::connection::Connection;

/// How many connections to one origin may lie idle on one thread.
const IDLE_LIMIT: usize = 256;

/// How long a connection may lie idle if its upstream does not say. One that the upstream closes at the moment of the next
/// request breaks that request, so ours must close first: gunicorn closes after 2 s, uvicorn and Node after 5 s.
const IDLE_TIME: Duration = Duration::from_millis(1500);

/// How long a connection may lie idle whatever its upstream says: what lies between forgets it.
const LONGEST_IDLE_TIME: Duration = Duration::from_secs(60);

/// How much earlier than the upstream we close a connection: its clock began to run before ours.
const MARGIN: Duration = Duration::from_secs(1);

/// How long a connection may lie idle after an answer with these headers: less than `keep-alive: timeout=5` says.
pub(super) fn idle_time(headers: &HeaderMap) -> Duration {
    headers
        .get_all("keep-alive")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("timeout") {
                return None;
            }
            value.trim().trim_matches('"').parse().ok()
        })
        .map_or(IDLE_TIME, |seconds| {
            Duration::from_secs(seconds)
                .saturating_sub(MARGIN)
                .min(LONGEST_IDLE_TIME)
        })
}

/// Where a connection leads.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Origin {
    tls: bool,
    authority: Authority,
}

impl Origin {
    /// Where `uri` leads, if it says so.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            tls,
            authority: uri.authority()?.clone(),
        })
    }

    /// What the `host` header says.
    pub(super) fn host(&self) -> &str {
        let authority = self.authority.as_str();
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
    }
}

/// The idle connections of one thread.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Origin, Vec<Idle>>>,
}

struct Idle {
    connection: Connection,
    until: Instant,
}

impl Pool {
    /// The connection that was used last, if one is open.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(origin)?;
        while let Some(mut idle) = waiting.pop() {
            if Instant::now() < idle.until && idle.connection.is_open() {
                return Some(idle.connection);
            }
        }
        None
    }

    fn put(&self, origin: Origin, connection: Connection, idle_time: Duration) {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.entry(origin).or_default();
        if waiting.len() < IDLE_LIMIT {
            waiting.push(Idle {
                connection,
                until: Instant::now() + idle_time,
            });
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn prune(&self) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|_, waiting| {
            waiting.retain_mut(|idle| now < idle.until && idle.connection.is_open());
            waiting.shrink_to_fit();
            !waiting.is_empty()
        });
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }
}

/// A connection while its answer is being read: it goes back to the pool, or is closed when dropped before that.
pub(super) struct Lease {
    pool: Weak<Pool>,
    origin: Origin,
    connection: Connection,
    idle_time: Duration,
}

impl Lease {
    /// Lends `connection` for one answer, after which it may lie idle for `idle_time`.
    pub(super) fn new(
        pool: &Rc<Pool>,
        origin: Origin,
        connection: Connection,
        idle_time: Duration,
    ) -> Self {
        Self {
            pool: Rc::downgrade(pool),
            origin,
            connection,
            idle_time,
        }
    }

    /// Moves what bytes can be moved.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        self.connection.drive(cx);
    }

    /// The answer has been read to its end.
    pub(super) fn release(mut self) {
        // Not open: the upstream closes it, or answered before it had read the whole request.
        if let Some(pool) = self.pool.upgrade()
            && !self.idle_time.is_zero()
            && self.connection.is_open()
        {
            pool.put(self.origin, self.connection, self.idle_time);
        }
    }
}
