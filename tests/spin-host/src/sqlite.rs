//! The default SQLite database: a file, and a connection to it for each that the component opens.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::types::{FromSql, FromSqlResult, ValueRef};
use wasmtime::component::{Accessor, FutureReader, Resource, StreamReader};

use crate::{
    bindings::spin::sqlite::sqlite::{
        Error, Host, HostConnection, HostConnectionWithStore, QueryResult, RowResult, Value,
    },
    store::{Data, Spin},
};

/// A connection to the database.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings name it in public")]
pub struct Connection(Arc<Mutex<rusqlite::Connection>>);

impl Host for Data {}

impl HostConnection for Data {
    fn open(&mut self, database: String) -> Result<Resource<Connection>, Error> {
        open(self, &database)
    }

    fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<QueryResult, Error> {
        find(self, &connection)?.query(&statement, parameters)
    }

    fn last_insert_rowid(&mut self, connection: Resource<Connection>) -> i64 {
        find(self, &connection).map_or(0, |connection| {
            connection.with(|open| open.last_insert_rowid())
        })
    }

    fn changes(&mut self, connection: Resource<Connection>) -> u64 {
        find(self, &connection).map_or(0, |connection| connection.with(|open| open.changes()))
    }

    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

/// Rows, and how the reading of them ended.
type Streamed = (
    Vec<String>,
    StreamReader<RowResult>,
    FutureReader<Result<(), Error>>,
);

impl HostConnectionWithStore<Data> for Spin {
    async fn open_async(
        accessor: &Accessor<Data, Self>,
        database: String,
    ) -> Result<Resource<Connection>, Error> {
        accessor.with(|mut access| open(access.get(), &database))
    }

    async fn execute_async(
        accessor: &Accessor<Data, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<Streamed, Error> {
        let connection = accessor.with(|mut access| find(access.get(), &connection))?;
        let result =
            tokio::task::spawn_blocking(move || connection.query(&statement, parameters)).await;
        let QueryResult { columns, rows } = result.map_err(io)??;
        accessor.with(|mut access| {
            let rows = StreamReader::new(&mut access, rows).map_err(io)?;
            let end = FutureReader::new(&mut access, async { wasmtime::error::Ok(Ok(())) })
                .map_err(io)?;
            Ok((columns, rows, end))
        })
    }

    async fn last_insert_rowid_async(
        accessor: &Accessor<Data, Self>,
        connection: Resource<Connection>,
    ) -> i64 {
        accessor.with(|mut access| access.get().last_insert_rowid(connection))
    }

    async fn changes_async(
        accessor: &Accessor<Data, Self>,
        connection: Resource<Connection>,
    ) -> u64 {
        accessor.with(|mut access| access.get().changes(connection))
    }
}

impl Connection {
    fn with<R>(&self, f: impl FnOnce(&rusqlite::Connection) -> R) -> R {
        f(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn query(&self, statement: &str, parameters: Vec<Value>) -> Result<QueryResult, Error> {
        self.with(|open| {
            let mut statement = open.prepare_cached(statement)?;
            let columns: Vec<String> = statement
                .column_names()
                .into_iter()
                .map(str::to_owned)
                .collect();
            let parameters = rusqlite::params_from_iter(parameters.into_iter().map(parameter));
            let rows = statement
                .query_map(parameters, |row| {
                    let values = (0..columns.len())
                        .map(|column| row.get::<_, Cell>(column).map(|cell| cell.0));
                    Ok(RowResult {
                        values: values.collect::<Result<_, _>>()?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(QueryResult { columns, rows })
        })
        .map_err(|error: rusqlite::Error| io(error))
    }
}

fn open(data: &mut Data, database: &str) -> Result<Resource<Connection>, Error> {
    if database != "default" {
        return Err(Error::AccessDenied);
    }
    let connection = rusqlite::Connection::open(&data.services.database).map_err(io)?;
    // What a test has written need not outlive the machine, and a disk that is busy with a build can take a second to say that it would:
    // longer than whoever waits for room is told to wait for the ledger.
    connection
        .pragma_update(None, "synchronous", "OFF")
        .map_err(io)?;
    data.table
        .push(Connection(Arc::new(Mutex::new(connection))))
        .map_err(io)
}

fn find(data: &Data, connection: &Resource<Connection>) -> Result<Connection, Error> {
    data.table
        .get(connection)
        .cloned()
        .map_err(|_| Error::InvalidConnection)
}

fn io(error: impl std::fmt::Display) -> Error {
    Error::Io(error.to_string())
}

fn parameter(value: Value) -> rusqlite::types::Value {
    match value {
        Value::Integer(integer) => integer.into(),
        Value::Real(real) => real.into(),
        Value::Text(text) => text.into(),
        Value::Blob(blob) => blob.into(),
        Value::Null => rusqlite::types::Value::Null,
    }
}

/// One column of one row.
struct Cell(Value);

impl FromSql for Cell {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(integer) => Value::Integer(integer),
            ValueRef::Real(real) => Value::Real(real),
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
        }))
    }
}
