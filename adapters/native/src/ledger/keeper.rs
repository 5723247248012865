//! The ledger's housekeeping, beside the requests: moves what was written ahead into its place, and forgets what no longer counts.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rusqlite::Connection;

use super::{Ledger, store};
use crate::{clock, say::say};

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(100);

/// After how many pages the log is moved into the file: it grows by what comes until it looks again, and while it does that.
const PAGES: u64 = 4000;

/// After how many pauses it is moved anyway, and what no longer counts is forgotten.
const PAUSES: u32 = 300;

/// How many names are looked at, or removed, at a time.
const BATCH: u32 = 500;

/// The thread that keeps house.
pub(crate) struct Keeper {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Keeper {
    /// Starts it.
    pub(crate) fn start(ledger: &Ledger) -> Result<Self, String> {
        let connection = ledger
            .book()
            .store()
            .side_door()
            .map_err(|error| error.to_string())?;
        let ledger = ledger.clone();
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("ledger".into())
            .stack_size(512 << 10)
            .spawn(move || keep(&ledger, &connection, &stopped))
            .map_err(|error| error.to_string())?;
        Ok(Self { stop, thread })
    }

    /// Ends it, with everything written.
    pub(crate) fn finish(self) {
        drop(self.stop);
        // It has reported what went wrong.
        let _ = self.thread.join();
    }
}

fn keep(ledger: &Ledger, connection: &Connection, stopped: &mpsc::Receiver<()>) {
    let mut pages = 0;
    let mut pauses = 0;
    while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        // What a caller left behind who did not wait for its answer.
        let written = ledger.book().write();
        pages += ledger.book().store().take_pages();
        pauses += 1;
        let due = pauses >= PAUSES;
        if let Err(fault) = written {
            say(format_args!("tidegate: {fault}"));
        }
        if pages >= PAGES || due && pages > 0 {
            report(checkpoint(ledger, connection));
            pages = 0;
        }
        if due {
            report(sweep(ledger, connection));
            pauses = 0;
        }
    }
    if let Err(fault) = ledger.book().write() {
        say(format_args!("tidegate: {fault}"));
    }
}

/// Moves the log into the file. Most of it beside the requests; only the rest, which came meanwhile, makes them wait.
pub(super) fn checkpoint(ledger: &Ledger, connection: &Connection) -> rusqlite::Result<()> {
    let passive = || connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    passive()?;
    let held = ledger.book();
    passive()?;
    drop(held);
    Ok(())
}

/// Forgets the accounts in which nothing counts any more.
pub(super) fn sweep(ledger: &Ledger, connection: &Connection) -> rusqlite::Result<()> {
    let now = clock::now();
    ledger.book().forget(now);
    let mut last = String::new();
    loop {
        let names = store::names_after(connection, &last, now, BATCH)?;
        let Some((end, _)) = names.last() else {
            return Ok(());
        };
        last.clone_from(end);
        let empty: Vec<String> = names
            .into_iter()
            .filter_map(|(name, empty)| empty.then_some(name))
            .collect();
        if !empty.is_empty() {
            ledger.book().store().remove(&empty, now)?;
        }
    }
}

fn report(result: rusqlite::Result<()>) {
    if let Err(error) = result {
        say(format_args!(
            "tidegate: the ledger could not be tidied up: {error}"
        ));
    }
}
