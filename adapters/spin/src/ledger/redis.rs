//! Accounts in Redis, each a value of bytes: eight for its version, and the account.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use async_trait::async_trait;
use spin_sdk::redis::{Connection, Error, RedisParameter, RedisResult};
use tidegate_core::{
    limit::Account,
    platform::{Clock, Fault},
    time::Timestamp,
};

use super::{Change, Found, Kept, Store};
use crate::ambient;

/// One Redis, connected to once an instance.
pub(crate) struct Redis {
    url: String,
    connection: RefCell<Option<Rc<Connection>>>,
    /// Counts the connections made, so that of several who see one break only the first replaces it.
    made: Cell<u64>,
}

#[async_trait(?Send)]
impl Store for Redis {
    async fn read(&self, ids: &[Rc<str>]) -> Result<Vec<Found>, Fault> {
        let keys: Vec<_> = ids.iter().map(|id| binary(key(id))).collect();
        let values = self.execute("MGET", &keys).await?;
        if values.len() != ids.len() {
            return Err(Fault("redis: MGET has not answered for every key".into()));
        }
        let found = values.iter().zip(ids);
        Ok(found.map(|(value, id)| parse(id, value)).collect())
    }

    async fn write(&self, changes: &[Change<'_>], version: i64) -> Result<bool, Fault> {
        let now = ambient::Clock.now();
        let mut arguments = vec![binary(COMPARE_AND_SET), binary(changes.len().to_string())];
        arguments.extend(changes.iter().map(|change| binary(key(change.id))));
        arguments.push(binary(version.to_be_bytes()));
        for change in changes {
            let expected = change.expected.map(i64::to_be_bytes);
            arguments.push(binary(expected.as_ref().map_or(&[][..], |bytes| bytes)));
            arguments.push(binary(change.account.to_bytes()));
            // Redis counts down from when it hears this: a little longer is safe, shorter is not.
            let lives = change.expires.0.saturating_sub(now.0).clamp(1, LONGEST) + MARGIN;
            arguments.push(binary(lives.to_string()));
        }
        Ok(self.execute("EVAL", &arguments).await?.first() == Some(&RedisResult::Int64(1)))
    }

    async fn sweep(&self, _now: Timestamp) -> Result<(), Fault> {
        Ok(())
    }
}

impl Redis {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connection: RefCell::default(),
            made: Cell::new(0),
        }
    }

    /// Runs a command; once more on a new connection if the one that was there has broken.
    async fn execute(
        &self,
        command: &str,
        arguments: &[RedisParameter],
    ) -> Result<Vec<RedisResult>, Fault> {
        let (connection, made, fresh) = self.connection().await.map_err(fault)?;
        match connection.execute(command, arguments.to_vec()).await {
            // A write may have happened before the connection broke. Then the second one finds its own version there, and has
            // won; unless another came in between: then it loses, and its units are held until their holding ends.
            Err(Error::Other(_)) if !fresh => {
                if self.made.get() == made {
                    self.connection.borrow_mut().take();
                }
                let (connection, ..) = self.connection().await.map_err(fault)?;
                connection
                    .execute(command, arguments.to_vec())
                    .await
                    .map_err(fault)
            }
            other => other.map_err(fault),
        }
    }

    /// The connection, its number, and whether it was made for this call.
    async fn connection(&self) -> Result<(Rc<Connection>, u64, bool), Error> {
        if let Some(connection) = self.connection.borrow().clone() {
            return Ok((connection, self.made.get(), false));
        }
        let connection = Rc::new(Connection::open(&self.url).await?);
        self.made.set(self.made.get() + 1);
        *self.connection.borrow_mut() = Some(connection.clone());
        Ok((connection, self.made.get(), true))
    }
}

fn parse(id: &str, value: &RedisResult) -> Found {
    let unreadable = |problem: &str| {
        Fault(format!(
            "redis: the value of `{}`, which is the account `{id}`, cannot be read: {problem}",
            key(id)
        ))
    };
    let bytes = match value {
        RedisResult::Nil => return Ok(None),
        RedisResult::Binary(bytes) => bytes,
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

fn binary(bytes: impl Into<Vec<u8>>) -> RedisParameter {
    RedisParameter::Binary(bytes.into())
}

fn fault(error: Error) -> Fault {
    Fault(match error {
        Error::InvalidAddress => {
            "redis: the address is wrong, or not among this component's allowed_outbound_hosts"
                .into()
        }
        Error::TooManyConnections => "redis: too many connections".into(),
        Error::TypeError => "redis: a value has the wrong type".into(),
        Error::Other(text) => format!("redis: {text}"),
    })
}

/// Compares all versions and sets all values; decides nothing.
const COMPARE_AND_SET: &str = "\
if redis.call('GETRANGE', KEYS[1], 0, 7) == ARGV[1] then return 1 end
for i, key in ipairs(KEYS) do
  if redis.call('GETRANGE', key, 0, 7) ~= ARGV[3 * i - 1] then return 0 end
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[1] .. ARGV[3 * i], 'PX', ARGV[3 * i + 1])
end
return 1";

/// Milliseconds that an account outlives its last unit, for clocks that differ.
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
        let kept = parse("a", &RedisResult::Binary(value)).unwrap().unwrap();
        assert_eq!((kept.version, kept.account), (41, account));
        assert!(parse("a", &RedisResult::Nil).unwrap().is_none());
    }

    #[test]
    fn another_value_is_a_fault_that_says_where() {
        for text in ["", "41", r#"41 {"buckets":[[7,2]],"latest":12}"#] {
            let fault = parse("a", &RedisResult::Binary(text.into())).unwrap_err();
            assert!(fault.0.contains("`tidegate:account:a`"), "{fault}");
        }
    }
}
