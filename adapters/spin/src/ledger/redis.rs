//! Accounts in Redis, each a text: its version, a space, and its state as JSON.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use async_trait::async_trait;
use spin_sdk::redis::{Connection, Error, RedisParameter, RedisResult};
use tidegate_core::{
    platform::{Clock, Fault},
    time::Timestamp,
};

use super::{Kept, Store};
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
    async fn read(&self, id: &str) -> Result<Option<Kept>, Fault> {
        match self.execute("GET", &[key(id)]).await?.into_iter().next() {
            None | Some(RedisResult::Nil) => Ok(None),
            Some(RedisResult::Binary(text)) => parse(&text).map(Some).ok_or_else(|| not_ours(id)),
            Some(_) => Err(not_ours(id)),
        }
    }

    async fn write(
        &self,
        id: &str,
        expected: Option<i64>,
        next: &Kept,
        expires: Timestamp,
    ) -> Result<bool, Fault> {
        let state =
            serde_json::to_string(&next.account).map_err(|error| Fault(error.to_string()))?;
        // Redis counts down from when it hears this: a little longer is safe, shorter is not.
        let lives = expires
            .0
            .saturating_sub(ambient::Clock.now().0)
            .clamp(1, LONGEST)
            + MARGIN;
        let arguments = [
            binary(COMPARE_AND_SET),
            binary("1"),
            key(id),
            binary(
                &expected
                    .map(|version| version.to_string())
                    .unwrap_or_default(),
            ),
            binary(&format!("{} {state}", next.version)),
            binary(&lives.to_string()),
        ];
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
            // A write may have happened before the connection broke. Then the second one finds another version and loses,
            // and what was held is held twice: too much is counted, never too little.
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

fn parse(text: &[u8]) -> Option<Kept> {
    let (version, state) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some(Kept {
        version: version.parse().ok()?,
        account: serde_json::from_str(state).ok()?,
    })
}

fn key(id: &str) -> RedisParameter {
    binary(&format!("tidegate:account:{id}"))
}

fn binary(text: &str) -> RedisParameter {
    RedisParameter::Binary(text.as_bytes().to_vec())
}

fn not_ours(id: &str) -> Fault {
    Fault(format!(
        "redis: the value of account {id} is not one of this gateway's"
    ))
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

/// Compares and sets; decides nothing.
const COMPARE_AND_SET: &str = "\
local kept = redis.call('GET', KEYS[1]) or ''
if string.match(kept, '^%d*') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
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
        let kept = parse(br#"41 {"buckets":[[7,2]],"latest":12}"#);
        assert_eq!(kept.as_ref().map(|kept| kept.version), Some(41));
        assert_eq!(
            kept.and_then(|kept| serde_json::to_string(&kept.account).ok())
                .as_deref(),
            Some(r#"{"buckets":[[7,2]],"latest":12}"#)
        );
        assert!(parse(b"41").is_none());
        assert!(parse(b"x {}").is_none());
    }
}
