//! What an operator does with a configuration without running it.

use std::{fs, path::Path};

use tidegate_core::{
    Config,
    config::{Runtime, Value},
};

use crate::{arguments, failed::Failed, say::give, source};

/// Says that a configuration is fine and which secrets it needs, or everything that is wrong with it.
pub(crate) fn check(arguments: &arguments::Check) -> Result<(), Failed> {
    let (document, config) = checked(&arguments.file, arguments.runtime.into())?;
    if let Some(named) = &config.tls {
        source::shown(&arguments.file, named)?;
    }
    give(format_args!("{}: fine", arguments.file.display()));
    let secrets = Config::secrets(&document);
    if !secrets.is_empty() {
        let names: Vec<_> = secrets.into_iter().collect();
        give(format_args!("secrets: {}", names.join(", ")));
    }
    Ok(())
}

/// Writes a configuration that is fine as JSON.
pub(crate) fn compile(arguments: &arguments::Compile) -> Result<(), Failed> {
    let (document, _) = checked(&arguments.file, arguments.runtime.into())?;
    let unwritten =
        |problem: String| Failed::Machine(format!("{}: {problem}", arguments.out.display()));
    let mut json =
        serde_json::to_string(&document).map_err(|error| unwritten(error.to_string()))?;
    json.push('\n');
    fs::write(&arguments.out, json).map_err(|error| unwritten(error.to_string()))
}

fn checked(file: &Path, runtime: Runtime) -> Result<(Value, Config), Failed> {
    let document = source::document(file)?;
    match document.build(None, runtime) {
        Ok(config) => Ok((document.value, config)),
        Err(problems) => Err(Failed::configuration(file, &problems)),
    }
}
