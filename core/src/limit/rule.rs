//! What the configuration says of a limit, and which account a request is counted on.

use std::{net::IpAddr, num::NonZeroU64, rc::Rc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::quota::Quota;

/// One limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Whose it is, for the caller to read: `route llm`.
    pub scope: Rc<str>,
    /// What it is called on an answer: `route llm requests`. Nothing, where its scope has letters that no header can carry.
    pub label: Option<HeaderValue>,
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

impl Asker<'_> {
    /// Who calls; or from where, if that is not known.
    pub(crate) fn whom(&self) -> String {
        let from = || format!("from {}", self.address.map(network).unwrap_or_default());
        self.consumer.map_or_else(from, str::to_owned)
    }
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
        let label = HeaderValue::from_str(&name).ok();
        let account = match (&by, quota.per) {
            (By::Everybody, 0) => name,
            (By::Everybody, per) => format!("{name} {per}"),
            (by, per) => format!("{name} {per} by {by}"),
        };
        Self {
            scope: scope.into(),
            label,
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
        // Nobody's name is empty; any other word could be a consumer's.
        format!("{}={}", self.account, whom.unwrap_or_default()).into()
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
    /// Which limit.
    pub limit: Rc<Limit>,
    /// Units that are left.
    pub remaining: u64,
    /// How long until the whole limit is free again; for a refusal, until there is room.
    pub reset: Duration,
}

impl Standing {
    /// Whose limit: `consumer web`.
    pub fn scope(&self) -> &str {
        &self.limit.scope
    }

    /// What it counts.
    pub fn unit(&self) -> Unit {
        self.limit.unit
    }

    /// Units that are allowed in a window.
    pub fn allowed(&self) -> u64 {
        self.limit.quota.limit.get()
    }

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::HeaderValue;

    use super::*;

    fn limit(by: By) -> Limit {
        let limit = NonZeroU64::MIN;
        let quota = Quota { limit, per: 60_000 };
        Limit::new("route llm", Unit::Requests, quota, by, None)
    }

    fn by_header() -> By {
        By::Header(HeaderName::from_static("x-tenant"))
    }

    /// The account of whom `value` says, which is read as `limit` tells callers apart.
    fn account(limit: &Limit, value: Option<&str>) -> Rc<str> {
        let mut headers = HeaderMap::new();
        let mut asker = Asker {
            consumer: None,
            address: None,
            headers: &HeaderMap::new(),
            user: None,
        };
        match (&limit.by, value) {
            (By::Everybody, _) | (_, None) => {}
            (By::Consumer, value) => asker.consumer = value,
            (By::User, value) => asker.user = value,
            (By::Address, Some(value)) => asker.address = Some(value.parse().unwrap()),
            (By::Header(name), Some(value)) => {
                headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
                asker.headers = &headers;
            }
        }
        limit.account_of(asker)
    }

    #[test]
    fn nobody_shares_an_account_with_anybody_else() {
        // The same but for the last byte, and longer than any name that a store would take.
        let long = ["a", "b"].map(|end| "x".repeat(10_240) + end);
        let words = [
            "", "-", "=", "web", "Web", "web ", "web=", "web=-", "wéb", "a,b", "a, b", "%2D",
        ];
        let words: Vec<&str> = words
            .into_iter()
            .chain(long.iter().map(String::as_str))
            .collect();
        let many: Vec<String> = (0..10_000).map(|number| format!("user-{number}")).collect();
        let addresses = [
            "192.0.2.1",
            "192.0.2.2",
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "2001:db8::1",
            "2001:db8:0:1::1",
            "2001:db8:1::1",
            "64:ff9b::192.0.2.1",
            "2002:c000:201::1",
        ];
        let names = || words.iter().copied().chain(many.iter().map(String::as_str));
        let table = [
            // A consumer has a name.
            (
                By::Consumer,
                names().filter(|name| !name.is_empty()).collect(),
            ),
            (By::User, names().collect()),
            (by_header(), names().collect()),
            (By::Address, addresses.to_vec()),
        ];
        for (by, values) in table {
            let limit = limit(by);
            let absent = [None];
            let values: Vec<Option<&str>> = absent
                .into_iter()
                .chain(values.into_iter().map(Some))
                .collect();
            let accounts: BTreeSet<Rc<str>> =
                values.iter().map(|value| account(&limit, *value)).collect();
            assert_eq!(accounts.len(), values.len(), "by {}", limit.by);
            for (value, account) in values.iter().map(|value| (value, account(&limit, *value))) {
                assert!(limit.counts(&account), "{value:?} by {}", limit.by);
            }
        }
    }

    #[test]
    fn what_is_the_same_shares_an_account() {
        let address = By::Address;
        let table = [
            (&address, "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"),
            (
                &address,
                "2001:db8::1",
                "2001:db8::ffff:ffff:ffff:ffff",
                "2001:db8::/64",
            ),
            (
                &address,
                "2001:db8::",
                "2001:0db8:0000:0000:0:0:c000:0201",
                "2001:db8::/64",
            ),
            (&address, "::1", "::192.0.2.1", "::/64"),
            (&By::Consumer, "web", "web", "web"),
        ];
        for (by, one, other, whom) in table {
            let limit = limit(by.clone());
            let expected = format!("route llm requests 60000 by {by}={whom}");
            assert_eq!(&*account(&limit, Some(one)), expected);
            assert_eq!(&*account(&limit, Some(other)), expected);
        }
        let everybody = limit(By::Everybody);
        for value in [None, Some(""), Some("web")] {
            assert_eq!(&*account(&everybody, value), "route llm requests 60000");
        }
    }

    #[test]
    fn what_a_header_says_is_neither_kept_nor_long() {
        for by in [by_header(), By::User] {
            let limit = limit(by);
            for value in ["", "secret", &"secret".repeat(2_000)] {
                let account = account(&limit, Some(value));
                assert!(!account.contains("secret"), "{account}");
                assert_eq!(account.len(), limit.account.len() + "=".len() + 32);
            }
        }
    }

    #[test]
    fn a_limit_counts_its_own_accounts_alone() {
        let limits: Vec<Limit> = [
            By::Everybody,
            By::Consumer,
            By::Address,
            By::User,
            by_header(),
            By::Header(HeaderName::from_static("x-tenant-id")),
        ]
        .into_iter()
        .map(limit)
        .collect();
        for (owner, limit) in limits.iter().enumerate() {
            for value in [None, Some("192.0.2.1")] {
                let account = account(limit, value);
                let counted = limits.iter().map(|limit| limit.counts(&account));
                let counting: Vec<usize> = counted
                    .enumerate()
                    .filter_map(|(number, counts)| counts.then_some(number))
                    .collect();
                assert_eq!(counting, [owner], "{account}");
            }
            let name = &limit.account;
            for stranger in [
                "",
                "route",
                &format!("{name}0"),
                &format!("{name} =x"),
                &format!("x{name}="),
            ] {
                assert!(!limit.counts(stranger), "{stranger}");
            }
        }
        let [everybody, consumer, ..] = &*limits else {
            panic!("there are more");
        };
        assert!(!everybody.counts(&format!("{}=", everybody.account)));
        assert!(!consumer.counts(&consumer.account));
    }
}
