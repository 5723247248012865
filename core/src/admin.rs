//! What an operator may see and do of limits, at `/_tidegate/limits`, with the admin key.
//!
//! `GET` shows what is used, held, leased and left of every limit that the query singles out: `consumer=web`, `ip=…`, `user=…` and
//! `header:x-user=…` name whom a limit is counted for. `POST` takes `{"account": …, "reset": true}` or
//! `{"account": …, "raise": 100, "for": "10m"}`. Whoever hears the order feels it at once; another isolate, which natively is a
//! thread, may remember a refusal for up to ten seconds, and refuses by itself until then.

use std::num::NonZeroU64;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};

use crate::{
    admission::Desk,
    body::Body,
    call::Call,
    config::{Config, duration},
    dialect::json::read,
    limit::{Adjustment, Asker, Balance, By, Limit},
    record::Record,
    refusal::Refusal,
};

/// The longest order, in bytes.
const LONGEST_ORDER: u64 = 64 << 10;

/// The longest that a limit can be raised for: whoever wants it for longer changes the configuration.
const LONGEST_RAISE: u64 = 30 * 86_400_000;

/// The most that a limit can be raised by: as much as one can be.
const LARGEST_RAISE: u64 = 1 << 53;

/// What the query singles out.
#[derive(Default)]
struct Whom {
    consumer: Option<String>,
    address: Option<std::net::IpAddr>,
    user: Option<String>,
    headers: HeaderMap,
}

/// What is to be done to an account.
#[derive(Default)]
struct Order {
    account: String,
    reset: bool,
    raise: Option<NonZeroU64>,
    lasts: Option<String>,
}

/// Answers what an operator asks with `call`. What is done, and what the ledger failed to say, is noted in `record`.
pub(crate) async fn limits(
    config: &Config,
    desk: &Desk,
    call: &Call,
    body: Body,
    record: &mut Record,
) -> Result<Value, Refusal> {
    match call.method {
        Method::GET => {
            let whom = Whom::read(call.query.as_deref().unwrap_or_default())?;
            show(config, desk, &whom, record).await
        }
        Method::POST => {
            let body = body.read(LONGEST_ORDER).await;
            let body = body.map_err(|_| Refusal::TooLarge(LONGEST_ORDER))?;
            adjust(config, desk, &body, record).await
        }
        _ => Err(Refusal::Method("GET, POST")),
    }
}

async fn show(
    config: &Config,
    desk: &Desk,
    whom: &Whom,
    record: &mut Record,
) -> Result<Value, Refusal> {
    let mut accounts = Vec::new();
    for limit in config.every_limit() {
        let of_another = limit.scope.strip_prefix("consumer ").is_some_and(|name| {
            whom.consumer
                .as_deref()
                .is_some_and(|consumer| consumer != name)
        });
        if !of_another && whom.tells(&limit.by) {
            accounts.push((&**limit, limit.account_of(whom.asker())));
        }
    }
    let mut shown = Vec::new();
    for ((limit, account), stands) in accounts.iter().zip(desk.look(&accounts).await) {
        let stands = match stands {
            Ok(balance) => standing(limit, &balance),
            Err(fault) => {
                record.fault = Some(format!("ledger: {fault}"));
                json!({ "fault": fault.to_string() })
            }
        };
        let named = json!({ "scope": &*limit.scope, "unit": limit.unit.name(), "by": limit.by.to_string(), "account": &**account });
        shown.push(merged(named, stands));
    }
    record.admin = Some("shown".into());
    Ok(json!({ "limits": shown }))
}

/// Does what `body` orders, and says where the account stands then.
async fn adjust(
    config: &Config,
    desk: &Desk,
    body: &Bytes,
    record: &mut Record,
) -> Result<Value, Refusal> {
    let order = Order::read(body)?;
    let limit = config
        .every_limit()
        .find(|limit| limit.counts(&order.account))
        .ok_or_else(|| wrong("no limit has such an account", Some("account")))?;
    let lasts = order.lasts.as_deref().map(|text| {
        duration(text)
            .map(NonZeroU64::get)
            .filter(|lasts| *lasts <= LONGEST_RAISE)
            .ok_or_else(|| wrong("`for` is a duration of at most 30d", Some("for")))
    });
    if order.raise.is_some_and(|units| units.get() > LARGEST_RAISE) {
        return Err(wrong("`raise` is too large", Some("raise")));
    }
    let (adjustment, deed) = match (order.reset, order.raise, lasts.transpose()?) {
        (true, None, None) => (Adjustment::Reset, "reset".to_owned()),
        (false, Some(units), Some(lasts)) => (
            Adjustment::Raise {
                units: units.get(),
                lasts,
            },
            format!("raised by {units} for {lasts} ms"),
        ),
        _ => {
            return Err(wrong(
                "either `reset` is true, or there are `raise` and `for`",
                None,
            ));
        }
    };
    let account = order.account.as_str().into();
    let balance = desk.adjust(limit, &account, adjustment);
    let balance = balance.await.map_err(|fault| {
        record.fault = Some(format!("ledger: {fault}"));
        Refusal::NoLedger
    })?;
    record.admin = Some(format!("{deed}: {}", order.account));
    let account = json!({ "account": order.account });
    Ok(merged(account, standing(limit, &balance)))
}

impl Order {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let fields: Map<String, Value> =
            read(body).map_err(|error| wrong(error.to_string(), None))?;
        let mut order = Self::default();
        for (name, value) in fields {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("account", Value::String(account)) => order.account = account,
                ("reset", Value::Bool(reset)) => order.reset = reset,
                ("for", Value::String(lasts)) => order.lasts = Some(lasts),
                ("raise", value) if value.as_u64() > Some(0) => {
                    order.raise = value.as_u64().and_then(NonZeroU64::new);
                }
                _ => return Err(wrong(format!("`{name}` cannot be read"), None)),
            }
        }
        Ok(order)
    }
}

impl Whom {
    fn read(query: &str) -> Result<Self, Refusal> {
        let mut whom = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let unknown = || wrong(format!("`{name}` cannot be read"), None);
            match name.as_ref() {
                "consumer" => whom.consumer = Some(value.into_owned()),
                "user" => whom.user = Some(value.into_owned()),
                "ip" => whom.address = Some(value.parse().map_err(|_| unknown())?),
                other => {
                    let header = other.strip_prefix("header:").ok_or_else(unknown)?;
                    let name: HeaderName = header.parse().map_err(|_| unknown())?;
                    let value = HeaderValue::from_str(&value).map_err(|_| unknown())?;
                    whom.headers.insert(name, value);
                }
            }
        }
        Ok(whom)
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            consumer: self.consumer.as_deref(),
            address: self.address,
            headers: &self.headers,
            user: self.user.as_deref(),
        }
    }

    /// Whether it is known which account of a limit is meant.
    fn tells(&self, by: &By) -> bool {
        match by {
            By::Everybody => true,
            By::Consumer => self.consumer.is_some(),
            By::Address => self.address.is_some(),
            By::Header(name) => self.headers.contains_key(name),
            By::User => self.user.is_some(),
        }
    }
}

fn standing(limit: &Limit, balance: &Balance) -> Value {
    let allowed = limit.quota.limit.get();
    json!({
        "limit": allowed,
        "per_ms": limit.quota.per,
        "used": balance.used,
        "held": balance.held,
        "leased": balance.leased,
        "left": balance.remaining,
        "raised": balance.raised,
        "free_in_ms": balance.until.since(balance.at).as_millis() as u64,
    })
}

fn merged(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

fn wrong(message: impl Into<String>, param: Option<&'static str>) -> Refusal {
    Refusal::Malformed(crate::dialect::openai::Malformed {
        message: message.into(),
        param,
    })
}
