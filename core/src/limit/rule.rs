//! What the configuration says of a limit, and which account a request is counted on.

use std::{net::IpAddr, num::NonZeroU64, rc::Rc, time::Duration};

use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use super::quota::Quota;

/// One limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Whose it is, for the caller to read: `route llm`.
    pub scope: Rc<str>,
    /// What is counted.
    pub unit: Unit,
    /// For whom it is counted apart.
    pub by: By,
    /// What is allowed.
    pub quota: Quota,
    /// Who may wait, where there is no room.
    pub queue: Option<Queueing>,
    /// The name of its account, or of its accounts but for whom: the same on every node. `route llm requests 60000`.
    pub account: Rc<str>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Requests that are let in.
    Requests,
    /// Requests that are in progress.
    Concurrent,
    /// Tokens of prompts and of answers.
    Tokens(Overrun),
}

/// What becomes of an answer that costs more tokens than there is room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overrun {
    /// It ends where the room does.
    Cut,
    /// It goes on, and what comes after waits for it.
    Owe,
}

/// For whom a limit is counted apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum By {
    /// For nobody: all together.
    Everybody,
    /// For each consumer.
    Consumer,
    /// For each address; of IPv6, for each network of 64 bits, which is what one subscriber has.
    Address,
    /// For each value of a header.
    Header(HeaderName),
    /// For each user of the caller's own, whom the request names.
    User,
}

/// Who may wait for a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Queueing {
    /// How many.
    pub room: u32,
    /// For how long.
    pub wait: Duration,
}

/// What is known of a request by the time it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Who calls.
    pub consumer: Option<&'a str>,
    /// From where, as the platform says.
    pub address: Option<IpAddr>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The user that the request names.
    pub user: Option<&'a str>,
}

impl Unit {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Concurrent => "concurrent",
            Self::Tokens(_) => "tokens",
        }
    }
}

impl Limit {
    /// A limit of `quota` on `unit`, counted for `scope`.
    pub fn new(scope: &str, unit: Unit, quota: Quota, by: By, queue: Option<Queueing>) -> Self {
        let name = format!("{scope} {}", unit.name());
        let account = match (&by, quota.per) {
            (By::Everybody, 0) => name,
            (By::Everybody, per) => format!("{name} {per}"),
            (by, per) => format!("{name} {per} by {by}"),
        };
        Self {
            scope: scope.into(),
            unit,
            by,
            quota,
            queue,
            account: account.into(),
        }
    }

    /// A limit on requests of everybody together, counted for `scope`.
    pub fn requests(scope: &str, limit: NonZeroU64, per: NonZeroU64) -> Self {
        let per = per.get();
        Self::new(
            scope,
            Unit::Requests,
            Quota { limit, per },
            By::Everybody,
            None,
        )
    }

    /// Whether it counts tokens.
    pub fn counts_tokens(&self) -> bool {
        matches!(self.unit, Unit::Tokens(_))
    }

    /// Whether an answer ends where the room for it does.
    pub fn is_strict(&self) -> bool {
        self.unit == Unit::Tokens(Overrun::Cut)
    }

    /// Whether it is counted on the account named `account`.
    pub fn counts(&self, account: &str) -> bool {
        match account.strip_prefix(&*self.account) {
            Some("") => self.by == By::Everybody,
            Some(rest) => self.by != By::Everybody && rest.starts_with('='),
            None => false,
        }
    }

    /// The account that what `asker` asks is counted on. Those of whom is not known by what they are to be told apart share
    /// one account, so that leaving it out opens nothing.
    pub fn account_of(&self, asker: Asker<'_>) -> Rc<str> {
        let whom = match &self.by {
            By::Everybody => return self.account.clone(),
            By::Consumer => asker.consumer.map(str::to_owned),
            By::Address => asker.address.map(network),
            By::User => asker.user.map(|user| digest(user.as_bytes())),
            By::Header(name) => asker
                .headers
                .get(name)
                .map(|value| digest(value.as_bytes())),
        };
        let whom = whom.as_deref().unwrap_or("-");
        format!("{}={whom}", self.account).into()
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everybody => f.write_str("everybody"),
            Self::Consumer => f.write_str("consumer"),
            Self::Address => f.write_str("ip"),
            Self::User => f.write_str("user"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// What a caller is told of the limits that it has passed: those of the tightest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Whose limit: `consumer web`.
    pub scope: Rc<str>,
    /// What it counts.
    pub unit: Unit,
    /// Units that are allowed in a window.
    pub limit: u64,
    /// Units that are left.
    pub remaining: u64,
    /// How long until the whole limit is free again; for a refusal, until there is room.
    pub reset: Duration,
}

impl Standing {
    /// The tighter of both: the one with less left, then the one that takes longer.
    pub fn tighter(self, other: Self) -> Self {
        let key = |standing: &Self| (standing.remaining, std::cmp::Reverse(standing.reset));
        if key(&other) < key(&self) {
            other
        } else {
            self
        }
    }
}

fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let bits = u128::from(address) & !u128::from(u64::MAX);
            format!("{}/64", std::net::Ipv6Addr::from(bits))
        }
    }
}

/// A header may hold a secret, or ten kilobytes: a store needs neither.
fn digest(value: &[u8]) -> String {
    let hash = Sha256::digest(value);
    hash.iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
