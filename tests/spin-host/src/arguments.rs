//! The command line.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
tidegate-spin-host --component FILE.wasm --config FILE.json [--listen 127.0.0.1:3000]
                   [--state DIR] [--cache DIR] [--until-stdin-closes]

  --component   the component to run
  --config      mounted into it as /tidegate.json
  --state       where the SQLite database lies (default: .spin)
  --cache       where compiled components are kept (default: beside the component)
  SPIN_VARIABLE_<NAME> in the environment is the variable <name>";

/// What was asked for.
pub(crate) struct Arguments {
    pub(crate) component: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) listen: String,
    pub(crate) state: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) until_stdin_closes: bool,
}

impl Arguments {
    /// Reads the arguments; nothing, if help was asked for.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Option<Self>> {
        let (mut component, mut config, mut cache) = (None, None, None);
        let (mut listen, mut state) = ("127.0.0.1:3000".to_owned(), PathBuf::from(".spin"));
        let mut until_stdin_closes = false;
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--component" => component = Some(PathBuf::from(value()?)),
                "--config" => config = Some(PathBuf::from(value()?)),
                "--cache" => cache = Some(PathBuf::from(value()?)),
                "--listen" => listen = value()?,
                "--state" => state = value()?.into(),
                "--until-stdin-closes" => until_stdin_closes = true,
                "--help" | "-h" => return Ok(None),
                other => bail!("`{other}` is not an argument\n{USAGE}"),
            }
        }
        let component = component.context("--component is needed")?;
        let config = config.context("--config is needed")?;
        let cache = match cache {
            Some(cache) => cache,
            None => component
                .parent()
                .unwrap_or(&component)
                .join("spin-host-cache"),
        };
        Ok(Some(Self {
            component,
            config,
            listen,
            state,
            cache,
            until_stdin_closes,
        }))
    }
}
