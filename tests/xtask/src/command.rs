//! Running other programs: seen as they go, counted, and with an error that says what was run.

use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use crate::counts::Counts;

/// A program to be run, from the root of the workspace unless [`Run::within`] says otherwise.
pub(crate) struct Run {
    command: Command,
}

/// The program `program`, found as a shell would find it, with the pinned tools first.
pub(crate) fn run(program: impl AsRef<OsStr>) -> Run {
    let mut command = Command::new(program);
    command
        .current_dir(root())
        .stdin(Stdio::null())
        .env("PATH", search_path());
    // What `cargo run` tells this program about itself would make builds below it differ from those beside it.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || name == "LD_LIBRARY_PATH"
        {
            command.env_remove(&*name);
        }
    }
    Run { command }
}

/// `cargo`, with `arguments`.
pub(crate) fn cargo(arguments: &str) -> Run {
    run("cargo").words(arguments)
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Where the pinned tools are kept.
pub(crate) fn tools() -> PathBuf {
    match std::env::var_os("TIDEGATE_TOOLS") {
        Some(directory) => root().join(directory),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
            .join(".cache/tidegate/tools"),
    }
}

/// The Node.js that the tests use; it comes from npm, so that every machine has the same one.
pub(crate) fn node() -> PathBuf {
    root().join("tests/workerd/node_modules/node/bin")
}

fn search_path() -> String {
    let inherited = std::env::var("PATH").unwrap_or_default();
    format!(
        "{}:{}:{inherited}",
        node().display(),
        tools().join("bin").display()
    )
}

impl Run {
    /// One more argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// More arguments, parted by spaces.
    pub(crate) fn words(mut self, arguments: &str) -> Self {
        self.command.args(arguments.split_whitespace());
        self
    }

    /// One variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Where it runs, relative to the root.
    pub(crate) fn within(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(root().join(directory));
        self
    }

    /// The command that this stands for, to be started and held by the caller.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end; what it prints is seen.
    pub(crate) fn go(mut self) -> Result<(), String> {
        let status = self
            .command
            .status()
            .map_err(|error| self.not_started(&error))?;
        self.judge(status)
    }

    /// Runs it to its end and gives what it printed on standard output.
    pub(crate) fn output(mut self) -> Result<String, String> {
        let output = self
            .command
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| self.not_started(&error))?;
        self.judge(output.status)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it to its end; what it prints is seen only if it fails.
    pub(crate) fn quietly(mut self) -> Result<(), String> {
        let output = self
            .command
            .output()
            .map_err(|error| self.not_started(&error))?;
        if !output.status.success() {
            print!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        self.judge(output.status)
    }

    /// Whether it ends well; what it prints is not seen.
    pub(crate) fn works(mut self) -> bool {
        self.command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Runs it to its end, shows what it prints, and counts the tests that it reports.
    pub(crate) fn count(mut self, counts: &mut Counts) -> Result<(), String> {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.not_started(&error))?;
        if let Some(stdout) = child.stdout.take() {
            let mut lines = BufReader::new(stdout);
            let mut line = Vec::new();
            while lines
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line);
                print!("{text}");
                counts.read(&text);
                line.clear();
            }
        }
        let status = child.wait().map_err(|error| self.not_started(&error))?;
        self.judge(status)
    }

    fn judge(&self, status: ExitStatus) -> Result<(), String> {
        if status.success() {
            Ok(())
        } else {
            Err(format!("{self}: {status}"))
        }
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        format!("{self}: {error}")
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.command.get_program().to_string_lossy())?;
        for argument in self.command.get_args() {
            write!(f, " {}", argument.to_string_lossy())?;
        }
        Ok(())
    }
}
