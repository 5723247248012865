//! Accounts on disk: one table of SQLite, written ahead.
//!
//! A write is in the file, in the hands of the operating system, when it returns: a killed process forgets nothing. It is not
//! forced to the platter, so a machine that loses power may forget the last moments, and nothing worse.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Row, params};
use tidegate_core::{limit::Account, platform::Fault, time::Timestamp};

use super::mark::Mark;

/// What this program writes into the file, and the only thing that it reads.
const VERSION: i64 = 4;

/// How many bytes of the log stay on disk to be written over.
const LOG: i64 = 16 << 20;

/// The accounts in one directory, which nobody else has open.
pub(super) struct Store {
    path: PathBuf,
    connection: Connection,
    mark: Mark,
    /// How many pages have been written ahead since this was last set back, or more.
    pages: u64,
    _lock: File,
}

impl Store {
    /// Opens the ledger in `directory`, or says why it will not.
    pub(super) fn open(directory: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(directory).map_err(|error| {
            format!(
                "the data directory {} cannot be made: {error}",
                directory.display()
            )
        })?;
        let lock = lock(directory)?;
        let path = directory.join("ledger.sqlite");
        let unusable = |problem| format!("the ledger {} cannot be used: {problem}", path.display());
        let (connection, written) = prepare(&path).map_err(unusable)?;
        let mark = Mark::open(directory, written).map_err(unusable)?;
        Ok(Self {
            path,
            connection,
            mark,
            pages: 0,
            _lock: lock,
        })
    }

    /// The account named `name`, if it is known. One that cannot be read is a fault: nothing is guessed.
    pub(super) fn load(&self, name: &str) -> Result<Option<Account>, Fault> {
        let state = self
            .connection
            .prepare_cached("SELECT state FROM accounts WHERE id = ?1")
            .and_then(|mut select| {
                let bytes = |row: &Row<'_>| Ok(Account::from_bytes(row.get_ref(0)?.as_blob()?));
                select.query_row([name], bytes).optional()
            });
        match state {
            Ok(None) => Ok(None),
            Ok(Some(state)) => state.map(Some).map_err(|error| self.fault(name, &error)),
            Err(error) => Err(self.fault(name, &error)),
        }
    }

    /// Keeps `accounts`, all of them or none.
    pub(super) fn save<'a>(
        &mut self,
        accounts: impl Iterator<Item = (&'a str, &'a Account, Timestamp)>,
    ) -> Result<(), Fault> {
        let unwritable = |error: &dyn std::error::Error| {
            Fault(format!(
                "the ledger {} cannot be written: {error}",
                self.path.display()
            ))
        };
        // Each account may lie on a page of its own, and beside it on one that it runs over to; and the number of writes does.
        let pages = &mut self.pages;
        *pages += 1;
        let accounts = accounts.inspect(|_| *pages += 2);
        let written = write(&mut self.connection, accounts).map_err(|error| unwritable(&error))?;
        self.mark.set(written).map_err(|error| unwritable(&error))
    }

    /// Removes those of `names` in which nothing counts at `now`.
    pub(super) fn remove(&mut self, names: &[String], now: Timestamp) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut delete = transaction
                .prepare_cached("DELETE FROM accounts WHERE id = ?1 AND expires <= ?2")?;
            for name in names {
                delete.execute(params![name, number(now)])?;
            }
        }
        transaction.commit()
    }

    /// How many pages have been written ahead since this was last asked, or more.
    pub(super) fn take_pages(&mut self) -> u64 {
        std::mem::take(&mut self.pages)
    }

    /// Another connection to the same file, for work that takes a while.
    pub(super) fn side_door(&self) -> rusqlite::Result<Connection> {
        connect(&self.path)
    }

    fn fault(&self, name: &str, error: &dyn std::error::Error) -> Fault {
        Fault(format!(
            "the account `{name}` in {} cannot be read: {error}",
            self.path.display()
        ))
    }
}

/// The names after `last`, in order, and whether nothing counts in them at `now`.
pub(super) fn names_after(
    connection: &Connection,
    last: &str,
    now: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<(String, bool)>> {
    connection
        .prepare_cached(
            "SELECT id, expires <= ?2 FROM accounts WHERE id > ?1 ORDER BY id LIMIT ?3",
        )?
        .query_map(params![last, number(now), limit], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect()
}

fn lock(directory: &Path) -> Result<File, String> {
    let path = directory.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "the data directory {} is in use by another tidegate; give each its own `gateway.data_dir`",
            directory.display()
        )),
        Err(TryLockError::Error(error)) => {
            Err(format!("{} cannot be locked: {error}", path.display()))
        }
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // The keeper does it, beside the requests.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // What a burst leaves behind of the log is cut off when it begins anew.
    connection.pragma_update(None, "journal_size_limit", LOG)?;
    connection.pragma_update(None, "cache_size", -1024)?;
    Ok(connection)
}

/// The ledger at `path`, and how often it has been written.
fn prepare(path: &Path) -> Result<(Connection, u64), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let connection = connect(path).map_err(text)?;
    let check: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(text)?;
    if check != "ok" {
        return Err(check);
    }
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(text)?;
    if mode != "wal" {
        return Err(format!(
            "its file system has no shared memory to write ahead with (journal mode {mode})"
        ));
    }
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(text)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(text)?;
    if (version, tables) == (0, 0) {
        connection
            .execute_batch(&format!(
                "BEGIN;
                 CREATE TABLE accounts (
                     id TEXT NOT NULL PRIMARY KEY, state BLOB NOT NULL, expires INTEGER NOT NULL
                 ) STRICT, WITHOUT ROWID;
                 CREATE TABLE writes (number INTEGER NOT NULL) STRICT;
                 INSERT INTO writes VALUES (0);
                 PRAGMA user_version = {VERSION};
                 COMMIT;"
            ))
            .map_err(text)?;
    } else if version != VERSION {
        return Err(format!(
            "its format is {version}, and this tidegate knows {VERSION}; to begin anew, with nothing spent, remove it"
        ));
    }
    let written: i64 = connection
        .query_row("SELECT number FROM writes", [], |row| row.get(0))
        .map_err(text)?;
    Ok((connection, written.unsigned_abs()))
}

/// Writes `accounts`, and says how often the ledger has been written now.
fn write<'a>(
    connection: &mut Connection,
    accounts: impl Iterator<Item = (&'a str, &'a Account, Timestamp)>,
) -> rusqlite::Result<u64> {
    let transaction = connection.transaction()?;
    {
        let mut upsert = transaction.prepare_cached(
            "INSERT INTO accounts (id, state, expires) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, expires = excluded.expires",
        )?;
        for (name, account, expires) in accounts {
            upsert.execute(params![name, account.to_bytes(), number(expires)])?;
        }
    }
    let written: i64 = transaction
        .prepare_cached("UPDATE writes SET number = number + 1 RETURNING number")?
        .query_row([], |row| row.get(0))?;
    transaction.commit()?;
    Ok(written.unsigned_abs())
}

fn number(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}
