//! Accounts in Redis, each a value of bytes: eight for its version, and the account.
//!
//! How it is reached is a [`Wire`], which each runtime has its own of. What is kept there is one thing, whoever keeps it: gateways
//! on different runtimes share their limits.
//!
//! All who share a Redis go by its clock. It tells the time with every answer; what is kept without reading first goes by what it
//! told a moment ago, and is kept only if that is not ahead of it.

use std::{cell::Cell, rc::Rc, time::Duration};

use async_trait::async_trait;
use tidegate_core::{
    ledger::{Change, Found, Kept, Reading, Store},
    limit::Account,
    platform::{Clock, Fault},
    time::Timestamp,
};

/// How a Redis is asked.
#[async_trait(?Send)]
pub trait Wire: 'static {
    /// Runs `EVAL` with `arguments`; gives the items of the list that it returns.
    ///
    /// What may have been run and not answered is run again on another connection, once: that changes nothing.
    async fn eval(&self, arguments: Vec<Vec<u8>>) -> Result<Vec<Reply>, Fault>;
}

/// An item that Redis returns.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Integer(i64),
    /// A value.
    Bytes(Vec<u8>),
    /// Anything else.
    Other,
}

/// One Redis.
pub struct Redis<W> {
    wire: W,
    clock: Rc<dyn Clock>,
    heard: Cell<Option<Heard>>,
}

/// What Redis has said of the time.
#[derive(Clone, Copy)]
struct Heard {
    /// When it was asked, by the clock here.
    asked: Timestamp,
    /// When it answered, by its own.
    theirs: Timestamp,
}

#[async_trait(?Send)]
impl<W: Wire> Store for Redis<W> {
    /// It is not before what Redis would say now.
    fn now(&self) -> Option<Timestamp> {
        let heard = self.heard.get()?;
        let since = self.clock.now().0.checked_sub(heard.asked.0)?;
        let is_fresh = Duration::from_millis(since) < FRESH;
        is_fresh.then(|| Timestamp(heard.theirs.0.saturating_add(since)))
    }

    async fn read(&self, ids: &[Rc<str>]) -> Result<Reading, Fault> {
        let mut arguments = vec![READ.into(), ids.len().to_string().into()];
        arguments.extend(ids.iter().map(|id| key(id).into()));
        let (now, values) = self.ask(arguments).await?;
        if values.len() != ids.len() {
            return Err(Fault("redis: it has not answered for every key".into()));
        }
        let found = values.into_iter().zip(ids);
        Ok(Reading {
            now,
            found: found.map(|(value, id)| parse(id, &value)).collect(),
        })
    }

    async fn write(
        &self,
        changes: &[Change<'_>],
        now: Timestamp,
        version: i64,
    ) -> Result<bool, Fault> {
        let mut arguments = vec![COMPARE_AND_SET.into(), changes.len().to_string().into()];
        arguments.extend(changes.iter().map(|change| key(change.id).into()));
        arguments.push(version.to_be_bytes().into());
        arguments.push(now.0.to_string().into());
        for change in changes {
            let expected = change.expected.map(i64::to_be_bytes);
            arguments.push(expected.map_or_else(Vec::new, Vec::from));
            arguments.push(change.account.to_bytes());
            let lives = change.expires.0.saturating_sub(now.0).clamp(1, LONGEST) + MARGIN;
            arguments.push(lives.to_string().into());
        }
        let (_, is_kept) = self.ask(arguments).await?;
        Ok(is_kept == [Reply::Integer(1)])
    }

    async fn sweep(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl<W: Wire> Redis<W> {
    /// The Redis at the other end of `wire`.
    pub fn new(wire: W, clock: Rc<dyn Clock>) -> Self {
        Self {
            wire,
            clock,
            heard: Cell::default(),
        }
    }

    /// Runs a script that returns the time, and more.
    async fn ask(&self, arguments: Vec<Vec<u8>>) -> Result<(Timestamp, Vec<Reply>), Fault> {
        let asked = self.clock.now();
        let answer = self.wire.eval(arguments).await;
        let mut replies = answer
            .inspect_err(|_| self.heard.set(None))
            .map_err(|Fault(text)| Fault(format!("redis: {text}")))?
            .into_iter();
        let Some(Reply::Integer(time)) = replies.next() else {
            return Err(Fault("redis: it has not said what time it is".into()));
        };
        let theirs = Timestamp(time.max(0).cast_unsigned());
        self.heard.set(Some(Heard { asked, theirs }));
        Ok((theirs, replies.collect()))
    }
}

fn parse(id: &str, value: &Reply) -> Found {
    let unreadable = |problem: &str| {
        Fault(format!(
            "redis: the value of `{}`, which is the account `{id}`, cannot be read: {problem}",
            key(id)
        ))
    };
    let bytes = match value {
        Reply::Nil => return Ok(None),
        Reply::Bytes(bytes) => bytes,
        _ => return Err(unreadable("it is not bytes")),
    };
    let (version, account) = bytes
        .split_first_chunk()
        .ok_or_else(|| unreadable("it has no version"))?;
    let version = i64::from_be_bytes(*version);
    let account = Account::from_bytes(account).map_err(|error| unreadable(&error.to_string()))?;
    Ok(Some(Kept { version, account }))
}

fn key(id: &str) -> String {
    format!("tidegate:account:{id}")
}

/// The time in milliseconds, and all values.
const READ: &str = "\
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), unpack(redis.call('MGET', unpack(KEYS)))}";

/// Compares all versions and sets all values, if the time is one that has come; decides nothing. Says the time, and whether the
/// values are there.
const COMPARE_AND_SET: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('GETRANGE', KEYS[1], 0, 7) == ARGV[1] then return {now, 1} end
if now < tonumber(ARGV[2]) then return {now, 0} end
for i, key in ipairs(KEYS) do
  if redis.call('GETRANGE', key, 0, 7) ~= ARGV[3 * i] then return {now, 0} end
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[1] .. ARGV[3 * i + 1], 'PX', ARGV[3 * i + 2])
end
return {now, 1}";

/// For how long what Redis has said of the time is good: no clock drifts by a millisecond meanwhile.
const FRESH: Duration = Duration::from_secs(1);

/// Milliseconds that an account outlives its last unit.
const MARGIN: u64 = 60_000;

/// A hundred years.
const LONGEST: u64 = 3_155_760_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_written() {
        let account = Account::default();
        let value = [&41_i64.to_be_bytes()[..], &account.to_bytes()].concat();
        let kept = parse("a", &Reply::Bytes(value)).unwrap().unwrap();
        assert_eq!((kept.version, kept.account), (41, account));
        assert!(parse("a", &Reply::Nil).unwrap().is_none());
    }

    #[test]
    fn another_value_is_a_fault_that_says_where() {
        for text in ["", "41", r#"41 {"buckets":[[7,2]],"latest":12}"#] {
            let fault = parse("a", &Reply::Bytes(text.into())).unwrap_err();
            assert!(fault.0.contains("`tidegate:account:a`"), "{fault}");
        }
    }
}
