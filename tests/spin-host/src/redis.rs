//! Redis: one connection to the server for each that the component opens.

use ::redis::{FromRedisValue, RedisError, ToRedisArgs, aio::MultiplexedConnection};
use wasmtime::component::{Accessor, Resource};

use crate::{
    bindings::spin::redis::redis::{
        Error, Host, HostConnection, HostConnectionWithStore, RedisParameter, RedisResult,
    },
    store::{Data, Spin},
};

/// A connection to a server.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings name it in public")]
pub struct Connection(MultiplexedConnection);

impl Host for Data {}

impl HostConnection for Data {
    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

type Handle = Resource<Connection>;

impl HostConnectionWithStore<Data> for Spin {
    async fn open(accessor: &Accessor<Data, Self>, address: String) -> Result<Handle, Error> {
        let client = ::redis::Client::open(address).map_err(|_| Error::InvalidAddress)?;
        let connection = client
            .get_multiplexed_async_connection()
            .await
            .map_err(other)?;
        accessor
            .with(|mut access| access.get().table.push(Connection(connection)))
            .map_err(other)
    }

    async fn publish(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        ask(accessor, &connection, "PUBLISH", (channel, payload)).await
    }

    async fn get(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        key: String,
    ) -> Result<Option<Vec<u8>>, Error> {
        ask(accessor, &connection, "GET", key).await
    }

    async fn set(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        ask(accessor, &connection, "SET", (key, value)).await
    }

    async fn incr(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        key: String,
    ) -> Result<i64, Error> {
        ask(accessor, &connection, "INCR", key).await
    }

    async fn del(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        keys: Vec<String>,
    ) -> Result<u32, Error> {
        ask(accessor, &connection, "DEL", keys).await
    }

    async fn sadd(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, Error> {
        ask(accessor, &connection, "SADD", (key, values)).await
    }

    async fn smembers(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        key: String,
    ) -> Result<Vec<String>, Error> {
        ask(accessor, &connection, "SMEMBERS", key).await
    }

    async fn srem(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, Error> {
        ask(accessor, &connection, "SREM", (key, values)).await
    }

    async fn execute(
        accessor: &Accessor<Data, Self>,
        connection: Handle,
        command: String,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Error> {
        let arguments: Vec<_> = arguments
            .into_iter()
            .map(|argument| match argument {
                RedisParameter::Int64(integer) => integer.to_string().into_bytes(),
                RedisParameter::Binary(bytes) => bytes,
            })
            .collect();
        let value = ask(accessor, &connection, &command, arguments).await?;
        let mut results = Vec::new();
        flatten(value, &mut results)?;
        Ok(results)
    }
}

async fn ask<R: FromRedisValue>(
    accessor: &Accessor<Data, Spin>,
    connection: &Handle,
    command: &str,
    arguments: impl ToRedisArgs,
) -> Result<R, Error> {
    let connection = accessor.with(|mut access| access.get().table.get(connection).cloned());
    let Connection(mut connection) = connection.map_err(other)?;
    let mut call = ::redis::cmd(command);
    call.arg(arguments);
    call.query_async(&mut connection).await.map_err(fault)
}

/// Lists within lists are told one value after the other, as Spin tells them.
fn flatten(value: ::redis::Value, results: &mut Vec<RedisResult>) -> Result<(), Error> {
    match value {
        ::redis::Value::Nil => results.push(RedisResult::Nil),
        ::redis::Value::Int(integer) => results.push(RedisResult::Int64(integer)),
        ::redis::Value::BulkString(bytes) => results.push(RedisResult::Binary(bytes)),
        ::redis::Value::SimpleString(status) => results.push(RedisResult::Status(status)),
        ::redis::Value::Okay => results.push(RedisResult::Status("OK".into())),
        ::redis::Value::Array(values) => values
            .into_iter()
            .try_for_each(|value| flatten(value, results))?,
        _ => return Err(Error::TypeError),
    }
    Ok(())
}

fn fault(error: RedisError) -> Error {
    if error.kind() == ::redis::ErrorKind::TypeError {
        Error::TypeError
    } else {
        other(error)
    }
}

fn other(error: impl std::fmt::Display) -> Error {
    Error::Other(error.to_string())
}
