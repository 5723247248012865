//! How far the ledger had come, noted beside it.
//!
//! SQLite takes a damaged log for one that ends there, and an empty file for a new one: what was counted would be forgotten, and
//! nobody would know. The mark knows how many writes there were. It is not forced to the platter either, so it says nothing once
//! the machine has started anew.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Where Linux names what has run since the machine was started.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The mark of one ledger.
pub(super) struct Mark {
    file: File,
    boot: String,
}

impl Mark {
    /// Opens the mark in `directory` of a ledger that has `writes`, or says why that cannot be all.
    pub(super) fn open(directory: &Path, writes: u64) -> Result<Self, String> {
        let path = directory.join("mark");
        let boot = fs::read_to_string(BOOT)
            .unwrap_or_default()
            .trim()
            .to_owned();
        let before = read(&path)?;
        if let Some((last, then)) = before
            && then == boot
            && last > writes
        {
            return Err(format!(
                "its last {} of {last} writes are gone, by a damaged log or a file that was put in its place; to go on without \
                 them, with less counted than was spent, remove {}",
                last - writes,
                path.display()
            ));
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
        let mark = Self { file, boot };
        mark.set(writes)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        Ok(mark)
    }

    /// Notes that there have been so many writes.
    pub(super) fn set(&self, writes: u64) -> io::Result<()> {
        let line = format!("{writes:020} {}\n", self.boot);
        self.file.write_all_at(line.as_bytes(), 0)
    }
}

fn read(path: &PathBuf) -> Result<Option<(u64, String)>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
    };
    let parts = text.trim_end_matches('\n').split_once(' ');
    parts
        .and_then(|(writes, boot)| Some((writes.parse().ok()?, boot.to_owned())))
        .map(Some)
        .ok_or_else(|| format!("{} is damaged", path.display()))
}
