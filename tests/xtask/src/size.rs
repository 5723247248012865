//! What the edge artefacts weigh.

use std::path::Path;

use crate::command::run;

/// The most that an artefact may weigh, compressed.
pub(crate) const BUDGET: u64 = 350 * 1024;

/// Prints the size of the artefact at `path`, raw and compressed, and fails above the budget.
pub(crate) fn weigh(name: &str, path: &Path) -> Result<(), String> {
    let raw = std::fs::metadata(path)
        .map_err(|error| format!("{}: {error}", path.display()))?
        .len();
    let compressed: u64 = run("sh")
        .arg("-c")
        .arg("gzip -9 -c \"$0\" | wc -c")
        .arg(path)
        .output()?
        .trim()
        .parse()
        .map_err(|error| format!("gzip of {}: {error}", path.display()))?;
    println!(
        "{name:<12} {:>7.1} KiB raw {:>7.1} KiB gzip",
        kib(raw),
        kib(compressed)
    );
    if compressed > BUDGET {
        return Err(format!("{name} is above {:.0} KiB gzip", kib(BUDGET)));
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
