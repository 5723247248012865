//! Accounts in Spin's default SQLite database.

use std::{cell::RefCell, rc::Rc};

use async_trait::async_trait;
use spin_sdk::sqlite::{Connection, Error, RowResult, Value};
use tidegate_core::{
    ledger::{Change, Kept, Reading, Store},
    limit::Account,
    platform::{Clock, Fault},
    time::Timestamp,
};

use crate::ambient;

/// The default database, opened once an instance.
#[derive(Default)]
pub(crate) struct Sqlite(RefCell<Option<Rc<Connection>>>);

#[async_trait(?Send)]
impl Store for Sqlite {
    fn now(&self) -> Option<Timestamp> {
        Some(ambient::Clock.now())
    }

    async fn read(&self, ids: &[Rc<str>]) -> Result<Reading, Fault> {
        let named: Vec<_> = ids.iter().map(|id| Value::from(&**id)).collect();
        let rows = self.execute(&select(ids.len()), named).await?;
        let row = |id: &Rc<str>| rows.iter().find(|row| row.get(0) == Some(&**id));
        let found = ids
            .iter()
            .map(|id| row(id).map(|row| parse(id, row)).transpose());
        Ok(Reading {
            now: ambient::Clock.now(),
            found: found.collect(),
        })
    }

    async fn write(
        &self,
        changes: &[Change<'_>],
        _now: Timestamp,
        version: i64,
    ) -> Result<bool, Fault> {
        let values = changes.iter().flat_map(|change| {
            [
                (&**change.id).into(),
                change.expected.into(),
                change.account.to_bytes().into(),
                number(change.expires),
            ]
        });
        let values = values.chain([version.into()]).collect();
        let kept = self
            .execute(&compare_and_set(changes.len()), values)
            .await?;
        Ok(!kept.is_empty())
    }

    async fn sweep(&self) -> Result<(), Fault> {
        let now = ambient::Clock.now();
        // The margin is for clocks that differ from one machine to the next.
        let before = number(Timestamp(now.0.saturating_sub(60_000)));
        self.execute(SWEEP, vec![before]).await.map(drop)
    }
}

impl Sqlite {
    async fn execute(
        &self,
        statement: &str,
        parameters: Vec<Value>,
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
            let _ = run(&connection, pragma, Vec::new()).await;
        }
        for statement in SCHEMA {
            run(&connection, statement, Vec::new()).await?;
        }
        Ok(self
            .0
            .borrow_mut()
            .get_or_insert_with(|| Rc::new(connection))
            .clone())
    }
}

async fn run(
    connection: &Connection,
    statement: &str,
    parameters: Vec<Value>,
) -> Result<Vec<RowResult>, Error> {
    connection
        .execute(statement, parameters)
        .await?
        .collect()
        .await
}

fn parse(id: &str, row: &RowResult) -> Result<Kept, Fault> {
    let unreadable = |problem: String| {
        Fault(format!(
            "sqlite: the row of the account `{id}` in the table `accounts` cannot be read: {problem}"
        ))
    };
    let (Some(version), Some(state)) = (row.get(1), row.get(2)) else {
        return Err(unreadable(
            "its version is no number, or its state is no bytes".into(),
        ));
    };
    let account = Account::from_bytes(state).map_err(|error| unreadable(error.to_string()))?;
    Ok(Kept { version, account })
}

fn number(time: Timestamp) -> Value {
    Value::Integer(time.0.min(i64::MAX.cast_unsigned()).cast_signed())
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
    "CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, state BLOB NOT NULL, expires INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS accounts_expires ON accounts (expires)",
];

fn select(accounts: usize) -> String {
    let ids = vec!["?"; accounts].join(",");
    format!("SELECT id, version, state FROM accounts WHERE id IN ({ids})")
}

/// Keeps all of the rows if every version is the one expected, and none otherwise.
///
/// One statement, because that is what is atomic on every database that Spin can put behind its interface. It looks at all of
/// the versions before it writes: SQLite gathers first what a statement takes from the table that it writes to.
fn compare_and_set(accounts: usize) -> String {
    let rows = vec!["(?,?,?,?)"; accounts].join(",");
    format!(
        "WITH next (id, expected, state, expires) AS (VALUES {rows}) \
         INSERT INTO accounts (id, version, state, expires) SELECT id, ?, state, expires FROM next \
         WHERE NOT EXISTS (SELECT 1 FROM next LEFT JOIN accounts USING (id) WHERE version IS NOT expected) \
         ON CONFLICT (id) DO UPDATE SET version = excluded.version, state = excluded.state, expires = excluded.expires \
         RETURNING 1"
    )
}

const SWEEP: &str = "DELETE FROM accounts WHERE id IN (SELECT id FROM accounts WHERE expires < ? ORDER BY expires LIMIT 1000)";

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, params_from_iter, types};

    use super::*;

    #[test]
    fn all_rows_are_kept_or_none() {
        let database = Connection::open_in_memory().unwrap();
        for statement in SCHEMA {
            database.execute_batch(statement).unwrap();
        }
        let keep = |rows: &[(&str, Option<i64>)], version: i64| {
            let mut values = Vec::<types::Value>::new();
            for (id, expected) in rows {
                values.extend([
                    id.to_string().into(),
                    expected.map_or(types::Value::Null, Into::into),
                    vec![7_u8].into(),
                    1000.into(),
                ]);
            }
            values.push(version.into());
            let mut statement = database.prepare(&compare_and_set(rows.len())).unwrap();
            let kept = statement.query_map(params_from_iter(values), |row| row.get::<_, i64>(0));
            kept.unwrap().count() > 0
        };
        let versions = || {
            let mut statement = database
                .prepare("SELECT id, version FROM accounts ORDER BY id")
                .unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.unwrap()
                .map(Result::unwrap)
                .collect::<Vec<(String, i64)>>()
        };
        let are = |rows: &[(&str, i64)]| {
            rows.iter()
                .map(|(id, version)| (id.to_string(), *version))
                .collect::<Vec<_>>()
        };

        assert!(keep(&[("a", None), ("b", None)], 1));
        assert!(!keep(&[("a", None), ("c", None)], 2));
        assert!(!keep(&[("a", Some(1)), ("b", Some(2)), ("c", None)], 2));
        assert!(!keep(&[("d", Some(1))], 2), "it has been swept");
        assert_eq!(versions(), are(&[("a", 1), ("b", 1)]));
        assert!(keep(&[("a", Some(1)), ("c", None)], 3));
        assert_eq!(versions(), are(&[("a", 3), ("b", 1), ("c", 3)]));

        let mut statement = database.prepare(&select(3)).unwrap();
        let rows = statement.query_map(["a", "c", "x"], |row| row.get::<_, Vec<u8>>(2));
        assert_eq!(
            rows.unwrap().map(Result::unwrap).collect::<Vec<_>>(),
            [[7], [7]]
        );
    }
}
