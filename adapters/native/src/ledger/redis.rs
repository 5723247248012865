//! Redis, as a thread reaches it: over one connection, which is made when it is needed and again when it has broken.

use std::{
    cell::RefCell,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis::{
    Cmd, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, Value,
    aio::MultiplexedConnection, cmd,
};
use tidegate_core::platform::Fault;
use tidegate_redis::Reply;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::{say::say, tls, upstream::describe};

/// How long an answer may take, with all that has to be done for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A Redis: where it is, and what it is to be told first.
pub(crate) struct Server {
    host: String,
    port: u16,
    tls: bool,
    login: RedisConnectionInfo,
    /// Whether the operator has been told that it does not answer.
    is_down: AtomicBool,
}

impl Server {
    /// The one that `url` names.
    pub(super) fn at(url: &str) -> Result<Self, String> {
        let (tls, plain) = match url.strip_prefix("rediss://") {
            Some(rest) => (true, format!("redis://{rest}")),
            None => (false, url.to_owned()),
        };
        // What is wrong with it may be in its password: it is not repeated.
        let wrong = "the URL of the Redis store cannot be read: expected `redis://[user:password@]host[:port][/number]`";
        let info = plain.into_connection_info().map_err(|_| wrong)?;
        let ConnectionAddr::Tcp(host, port) = info.addr else {
            return Err(wrong.into());
        };
        Ok(Self {
            host,
            port,
            tls,
            login: info.redis,
            is_down: AtomicBool::new(false),
        })
    }

    /// Tells the operator if it does not answer, or may forget accounts.
    pub(super) async fn look(&self) {
        let found = timeout(PATIENCE, async {
            let mut connection = self.connect().await?;
            ask(cmd("INFO").arg("memory"), &mut connection).await
        });
        let found = found.await.unwrap_or_else(|_| Err(Trouble::late()));
        self.note(&found);
        if let Ok(Value::BulkString(text)) = found
            && forgets(&String::from_utf8_lossy(&text))
        {
            say(format_args!(
                "tidegate: redis at {}:{} throws values away when its memory is full: limits hold only with `maxmemory-policy noeviction`",
                self.host, self.port
            ));
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        if !self.tls {
            return self.greet(stream).await;
        }
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(tls::client().map_err(io::Error::other)?);
        self.greet(connector.connect(name, stream).await?).await
    }

    async fn greet(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<MultiplexedConnection, Trouble> {
        let (connection, driver) = MultiplexedConnection::new(&self.login, stream).await?;
        // It ends with the last handle on the connection.
        drop(tokio::spawn(driver));
        Ok(connection)
    }

    /// Says when it stops to answer, and when it begins to: once, whichever thread sees it first.
    fn note<T>(&self, answer: &Result<T, Trouble>) {
        let was_down = self.is_down.swap(answer.is_err(), Ordering::Relaxed);
        match answer {
            Err(trouble) if !was_down => say(format_args!(
                "tidegate: redis at {}:{}, which has the accounts: {}",
                self.host, self.port, trouble.detail
            )),
            Ok(_) if was_down => say(format_args!(
                "tidegate: redis at {}:{} answers again",
                self.host, self.port
            )),
            _ => {}
        }
    }
}

/// Whether a Redis of which `INFO memory` says this may drop values that have not expired.
fn forgets(info: &str) -> bool {
    let find = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    find("maxmemory").is_some_and(|bytes| bytes != "0")
        && find("maxmemory_policy").is_some_and(|policy| policy != "noeviction")
}

/// What one thread asks it over.
pub(crate) struct Wire {
    server: Arc<Server>,
    /// Nothing while it is in use: the ledger asks one thing at a time.
    connection: RefCell<Option<MultiplexedConnection>>,
}

#[async_trait(?Send)]
impl tidegate_redis::Wire for Wire {
    async fn eval(&self, arguments: Vec<Vec<u8>>) -> Result<Vec<Reply>, Fault> {
        let mut command = cmd("EVAL");
        for argument in arguments {
            command.arg(argument);
        }
        // Given up, it leaves no connection behind on which a late answer could come.
        let answer = timeout(PATIENCE, self.run(&command)).await;
        let answer = answer.unwrap_or_else(|_| Err(Trouble::late()));
        self.server.note(&answer);
        match answer {
            Ok(Value::Array(values)) => Ok(values.into_iter().map(reply).collect()),
            Ok(_) => Err(Fault("what the script returns is not a list".into())),
            Err(trouble) => Err(Fault(trouble.detail)),
        }
    }
}

impl Wire {
    pub(super) fn to(server: Arc<Server>) -> Self {
        Self {
            server,
            connection: RefCell::default(),
        }
    }

    /// Runs `command`; once more on a new connection if the one that was there has broken.
    async fn run(&self, command: &Cmd) -> Result<Value, Trouble> {
        let kept = self.connection.take();
        if let Some(connection) = kept {
            match self.run_on(connection, command).await {
                Err(trouble) if trouble.is_broken => {}
                answer => return answer,
            }
        }
        let connection = self.server.connect().await?;
        self.run_on(connection, command).await
    }

    /// Runs `command` on `connection`, which is kept unless it breaks.
    async fn run_on(
        &self,
        mut connection: MultiplexedConnection,
        command: &Cmd,
    ) -> Result<Value, Trouble> {
        let answer = ask(command, &mut connection).await;
        if !matches!(&answer, Err(trouble) if trouble.is_broken) {
            self.connection.replace(Some(connection));
        }
        answer
    }
}

async fn ask(command: &Cmd, connection: &mut MultiplexedConnection) -> Result<Value, Trouble> {
    Ok(command.query_async(connection).await?)
}

fn reply(value: Value) -> Reply {
    match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Integer(number),
        Value::BulkString(bytes) => Reply::Bytes(bytes),
        _ => Reply::Other,
    }
}

/// Why there is no answer.
struct Trouble {
    /// Whether the connection is of no more use.
    is_broken: bool,
    detail: String,
}

impl Trouble {
    fn late() -> Self {
        Self {
            is_broken: true,
            detail: format!("no answer within {} s", PATIENCE.as_secs()),
        }
    }
}

impl From<redis::RedisError> for Trouble {
    fn from(error: redis::RedisError) -> Self {
        Self {
            is_broken: error.is_io_error() || error.is_unrecoverable_error(),
            detail: describe(&error),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self {
            is_broken: true,
            detail: describe(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_never_repeated() {
        let server = Server::at("rediss://user:open%2Dsesame@redis.example.com:6380/2")
            .unwrap_or_else(|_| panic!());
        assert_eq!(
            (&*server.host, server.port, server.tls),
            ("redis.example.com", 6380, true)
        );
        assert_eq!(server.login.password.as_deref(), Some("open-sesame"));
        assert_eq!(server.login.db, 2);
        let server = Server::at("redis://[::1]").unwrap_or_else(|_| panic!());
        assert_eq!(
            (&*server.host, server.port, server.tls),
            ("::1", 6379, false)
        );
        for wrong in [
            "redis://:sesame@h:port",
            "redis://:sesame@h/one",
            "redis://",
            "rediss://:sesame",
        ] {
            let problem = Server::at(wrong).err().unwrap();
            assert!(!problem.contains("sesame"), "{problem}");
        }
    }

    #[test]
    fn a_redis_that_throws_values_away_is_known() {
        for (info, expected) in [
            ("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", false),
            ("maxmemory:1000\r\nmaxmemory_policy:noeviction\r\n", false),
            ("maxmemory:1000\r\nmaxmemory_policy:volatile-ttl\r\n", true),
            ("", false),
        ] {
            assert_eq!(forgets(info), expected, "{info}");
        }
    }
}
