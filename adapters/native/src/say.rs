//! What the process says to whoever runs it. One who has stopped listening is no reason to stop working.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Says `text` on standard error.
pub(crate) fn say(text: impl Display) {
    line(io::stderr(), &text);
}

/// Gives `text` as what a command was asked for, on standard output.
pub(crate) fn give(text: impl Display) {
    line(io::stdout(), &text);
}

/// Written as one piece: other threads speak, too.
fn line(mut out: impl Write, text: &dyn Display) {
    // Nobody is left who could be told.
    let _ = out
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| out.flush());
}
