//! Redis, as the host reaches it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use async_trait::async_trait;
use spin_sdk::redis::{Connection, Error, RedisParameter, RedisResult};
use tidegate_core::platform::Fault;
use tidegate_redis::{Reply, Wire};

/// A Redis, connected to once an instance.
pub(crate) struct Connected {
    url: String,
    connection: RefCell<Option<Rc<Connection>>>,
    /// Counts the connections made, so that of several who see one break only the first replaces it.
    made: Cell<u64>,
}

#[async_trait(?Send)]
impl Wire for Connected {
    async fn eval(&self, arguments: Vec<Vec<u8>>) -> Result<Vec<Reply>, Fault> {
        let arguments: Vec<_> = arguments.into_iter().map(RedisParameter::Binary).collect();
        let results = self.execute("EVAL", &arguments).await.map_err(fault)?;
        Ok(results.into_iter().map(reply).collect())
    }
}

impl Connected {
    pub(crate) fn to(url: &str) -> Self {
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
    ) -> Result<Vec<RedisResult>, Error> {
        let (connection, made, fresh) = self.connection().await?;
        match connection.execute(command, arguments.to_vec()).await {
            // A write may have happened before the connection broke. Then the second one finds its own version there, and has
            // won; unless another came in between: then it loses, and its units are held until their holding ends.
            Err(Error::Other(_)) if !fresh => {
                if self.made.get() == made {
                    self.connection.borrow_mut().take();
                }
                let (connection, ..) = self.connection().await?;
                connection.execute(command, arguments.to_vec()).await
            }
            other => other,
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

fn reply(result: RedisResult) -> Reply {
    match result {
        RedisResult::Nil => Reply::Nil,
        RedisResult::Int64(number) => Reply::Integer(number),
        RedisResult::Binary(bytes) => Reply::Bytes(bytes),
        _ => Reply::Other,
    }
}

fn fault(error: Error) -> Fault {
    Fault(match error {
        Error::InvalidAddress => {
            "the address is wrong, or not among this component's allowed_outbound_hosts".into()
        }
        Error::TooManyConnections => "too many connections".into(),
        Error::TypeError => "a value has the wrong type".into(),
        Error::Other(text) => text,
    })
}
