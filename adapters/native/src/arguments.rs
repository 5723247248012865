//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_core::config::Runtime;

/// An AI gateway that runs at the edge.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    after_help = "Records go to standard output, one a line: as JSON, or for people on a terminal; TIDEGATE_LOG=json|text decides.\n\
                  Exit codes: 0 fine, 1 the configuration is wrong, 2 usage, 3 cannot bind or open."
)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway; SIGHUP or a changed file reloads the configuration
    Serve(Serve),
    /// Say everything that is wrong with a configuration
    Check(Check),
    /// Write the JSON that the edge runtimes load
    Compile(Compile),
    /// Run the gateway with simulated models and Dify: no key is needed
    Demo(Demo),
}

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Where to listen, in place of what the configuration says [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// End when standard input closes
    #[arg(long)]
    pub(crate) until_stdin_closes: bool,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The configuration
    pub(crate) file: PathBuf,
    /// Where it is going to run
    #[arg(long, value_enum, default_value_t = Target::Native)]
    pub(crate) runtime: Target,
}

/// Arguments of `compile`.
#[derive(Args, Debug)]
pub(crate) struct Compile {
    /// The configuration
    pub(crate) file: PathBuf,
    /// The JSON file to write; secrets stay references in it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Where it is going to run
    #[arg(long, value_enum, default_value_t = Target::Cloudflare)]
    pub(crate) runtime: Target,
}

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Where to listen [default: 127.0.0.1:8080, or any free port if that is taken]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
}

/// A runtime, as the command line names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Target {
    /// This binary
    Native,
    /// Cloudflare Workers
    Cloudflare,
    /// Fermyon Spin
    Spin,
}

impl From<Target> for Runtime {
    fn from(target: Target) -> Self {
        match target {
            Target::Native => Self::Native,
            Target::Cloudflare => Self::Cloudflare,
            Target::Spin => Self::Spin,
        }
    }
}
