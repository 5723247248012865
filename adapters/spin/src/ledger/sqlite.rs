//! Accounts in Spin's default SQLite database.

use std::{cell::RefCell, rc::Rc};

use async_trait::async_trait;
use spin_sdk::sqlite::{Connection, Error, RowResult, Value};
use tidegate_core::{platform::Fault, time::Timestamp};

use super::{Kept, Store};

/// The default database, opened once an instance.
#[derive(Default)]
pub(crate) struct Sqlite(RefCell<Option<Rc<Connection>>>);

#[async_trait(?Send)]
impl Store for Sqlite {
    async fn read(&self, id: &str) -> Result<Option<Kept>, Fault> {
        let rows = self
            .execute(
                "SELECT version, state FROM accounts WHERE id = ?",
                [id.into()],
            )
            .await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let state = row
            .get::<&str>(1)
            .and_then(|state| serde_json::from_str(state).ok());
        match (row.get(0), state) {
            (Some(version), Some(account)) => Ok(Some(Kept { version, account })),
            _ => Err(Fault(format!(
                "the row of account {id} is not one of this gateway's"
            ))),
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
        let (state, expires) = (
            Value::Text(state),
            Value::Integer(expires.0.min(i64::MAX.cast_unsigned()).cast_signed()),
        );
        let won = match expected {
            Some(expected) => {
                self.execute(
                    UPDATE,
                    [
                        next.version.into(),
                        state,
                        expires,
                        id.into(),
                        expected.into(),
                    ],
                )
                .await?
            }
            None => {
                self.execute(INSERT, [id.into(), next.version.into(), state, expires])
                    .await?
            }
        };
        Ok(!won.is_empty())
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), Fault> {
        // The margin is for clocks that differ from one machine to the next.
        let before = Value::Integer(
            now.0
                .saturating_sub(60_000)
                .min(i64::MAX.cast_unsigned())
                .cast_signed(),
        );
        self.execute(SWEEP, [before]).await.map(drop)
    }
}

impl Sqlite {
    async fn execute<const N: usize>(
        &self,
        statement: &str,
        parameters: [Value; N],
    ) -> Result<Vec<RowResult>, Fault> {
        let connection = self.connection().await.map_err(fault)?;
        run(&connection, statement, parameters).await.map_err(fault)
    }

    async fn connection(&self) -> Result<Rc<Connection>, Error> {
        if let Some(connection) = self.0.borrow().clone() {
            return Ok(connection);
        }
        let connection = Connection::open_default().await?;
        for pragma in PRAGMAS {
            // A database that is not a local file has its own ways, and may refuse.
            let _ = run(&connection, pragma, []).await;
        }
        for statement in SCHEMA {
            run(&connection, statement, []).await?;
        }
        Ok(self
            .0
            .borrow_mut()
            .get_or_insert_with(|| Rc::new(connection))
            .clone())
    }
}

async fn run<const N: usize>(
    connection: &Connection,
    statement: &str,
    parameters: [Value; N],
) -> Result<Vec<RowResult>, Error> {
    connection
        .execute(statement, parameters)
        .await?
        .collect()
        .await
}

fn fault(error: Error) -> Fault {
    Fault(match error {
        Error::Io(text) => format!("sqlite: {text}"),
        Error::NoSuchDatabase => "sqlite: Spin knows no database named default".into(),
        Error::AccessDenied => {
            "sqlite: the manifest does not give this component the default database".into()
        }
        other => format!("sqlite: {other:?}"),
    })
}

/// A write costs one append, and readers never wait. A power cut may take the last writes; the end of a process does not.
const PRAGMAS: [&str; 2] = ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"];

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, version INTEGER, state TEXT, expires INTEGER)",
    "CREATE INDEX IF NOT EXISTS accounts_expires ON accounts (expires)",
];

const UPDATE: &str = "UPDATE accounts SET version = ?, state = ?, expires = ? WHERE id = ? AND version = ? RETURNING version";

const INSERT: &str = "INSERT INTO accounts (id, version, state, expires) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING version";

const SWEEP: &str = "DELETE FROM accounts WHERE id IN (SELECT id FROM accounts WHERE expires < ? ORDER BY expires LIMIT 1000)";
