//! A configuration before it is built: what threads can share of it, since what is built stays on its thread.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tidegate_core::{
    Config,
    config::{Problem, Runtime, Tls},
};
use tokio_rustls::rustls::ServerConfig;

use crate::{
    document::{self, Document, Unread},
    failed::Failed,
    tls,
};

/// A document, the secrets that it refers to, and what callers by TLS are shown.
#[derive(Debug)]
pub(crate) struct Source {
    document: Document,
    secrets: Vec<(String, String)>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// All that it was read from.
    files: Vec<PathBuf>,
    /// How that looked before it was read.
    pub(crate) appearance: Option<Appearance>,
}

/// What changed files do not share with those before: when each was written, and its length.
pub(crate) type Appearance = Vec<(Option<SystemTime>, u64)>;

impl Source {
    /// What `document` says, with these secrets.
    pub(crate) fn new(document: Document, secrets: Vec<(String, String)>) -> Self {
        Self {
            document,
            secrets,
            tls: None,
            files: Vec::new(),
            appearance: None,
        }
    }

    /// What `file` says, with secrets from the environment.
    pub(crate) fn read(file: &Path) -> Result<Self, Failed> {
        let before = appearance(&[file.to_owned()]);
        let document = document(file)?;
        let secrets = Config::secrets(&document.value)
            .into_iter()
            .filter_map(|name| env::var(&name).ok().map(|value| (name, value)))
            .collect();
        let mut source = Self::new(document, secrets);
        source.files = vec![file.to_owned()];
        source.appearance = before;
        let config = source
            .config()
            .map_err(|problems| Failed::configuration(file, &problems))?;
        if let Some(named) = config.tls {
            let files = files_of(file, &named);
            if let (Some(all), Some(more)) = (&mut source.appearance, appearance(&files)) {
                all.extend(more);
            }
            source.tls = Some(shown(file, &named)?);
            source.files.extend(files);
        }
        Ok(source)
    }

    /// A configuration for the thread that asks.
    pub(crate) fn config(&self) -> Result<Config, Vec<Problem>> {
        self.document.build(Some(&self.secrets), Runtime::Native)
    }

    /// How what it was read from looks now; nothing, if one of the files is not there.
    pub(crate) fn look(&self) -> Option<Appearance> {
        appearance(&self.files)
    }
}

/// What callers by TLS are shown, where the configuration in `file` names it so.
pub(crate) fn shown(file: &Path, named: &Tls) -> Result<Arc<ServerConfig>, Failed> {
    let [certificate, key] = &files_of(file, named);
    tls::server(certificate, key).map_err(Failed::Machine)
}

/// The certificate and the key, which lie beside the configuration.
fn files_of(file: &Path, named: &Tls) -> [PathBuf; 2] {
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    [folder.join(&named.certificate), folder.join(&named.key)]
}

fn appearance(files: &[PathBuf]) -> Option<Appearance> {
    let each = files.iter().map(|file| {
        let metadata = file.metadata().ok()?;
        Some((metadata.modified().ok(), metadata.len()))
    });
    each.collect()
}

/// The document that stands in `file`.
pub(crate) fn document(file: &Path) -> Result<Document, Failed> {
    document::read(file).map_err(|unread| match unread {
        Unread::Unopened(problem) => Failed::Machine(format!("{}: {problem}", file.display())),
        Unread::Wrong(problems) => Failed::configuration(file, &problems),
    })
}
