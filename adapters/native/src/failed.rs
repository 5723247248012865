//! Why a command did not do what it should, and the exit code that says so.

use std::{fmt, path::Path, process::ExitCode};

use tidegate_core::config::Problem;

/// A command that failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The configuration is wrong: every problem, one a line.
    Configuration(String),
    /// The command was not understood.
    Usage(String),
    /// Something could not be opened, bound or written.
    Machine(String),
}

impl Failed {
    /// What is wrong with `file`.
    pub(crate) fn configuration(file: &Path, problems: &[Problem]) -> Self {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| {
                let space = if problem.at.is_some() { "" } else { " " };
                format!("{}:{space}{problem}", file.display())
            })
            .collect();
        Self::Configuration(lines.join("\n"))
    }

    /// What the process exits with.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Machine(_) => ExitCode::from(3),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(problems) => f.write_str(problems),
            Self::Usage(message) | Self::Machine(message) => write!(f, "tidegate: {message}"),
        }
    }
}
