//! What Tidegate costs: measured in one run, in rounds that alternate, so that ratios mean something on any machine.

use std::path::PathBuf;

mod case;
mod contest;
mod first;
mod gateway;
mod limits;
mod load;
mod native;
mod nginx;
mod overload;
mod process;
mod table;
mod upstream;
mod workerd;

/// Measures the parts that `options` names, or all of them, and prints a table of each.
pub(crate) fn run(options: &[&str]) -> Result<(), String> {
    let mut plan = Plan {
        rounds: 5,
        seconds: 2,
        quick: false,
        assert: false,
    };
    let mut parts = Vec::new();
    for option in options {
        match *option {
            "--quick" => {
                plan = Plan {
                    rounds: 2,
                    seconds: 1,
                    quick: true,
                    ..plan
                }
            }
            "--assert" => plan.assert = true,
            part @ ("native" | "limits" | "overload" | "workerd") => parts.push(part),
            other => {
                return Err(format!(
                    "bench takes --quick, --assert, native, limits, overload and workerd, not {other:?}"
                ));
            }
        }
    }
    crate::tools::debian(&crate::tools::BENCH)?;
    let mut failures = Vec::new();
    if parts.is_empty() || parts.contains(&"native") {
        failures.extend(native::run(plan)?);
    }
    if parts.is_empty() || parts.contains(&"limits") {
        failures.extend(limits::run(plan)?);
    }
    if parts.is_empty() || parts.contains(&"overload") {
        failures.extend(overload::play(plan)?);
    }
    if parts.is_empty() || parts.contains(&"workerd") {
        failures.extend(workerd::run(plan)?);
    }
    if plan.assert && !failures.is_empty() {
        return Err(format!("below the baseline: {}", failures.join("; ")));
    }
    Ok(())
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    rounds: usize,
    seconds: u64,
    quick: bool,
    assert: bool,
}

/// A directory of this run, gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self, String> {
        let path =
            std::env::temp_dir().join(format!("tidegate-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// Writes a file and gives its path.
    fn write(&self, name: &str, content: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
