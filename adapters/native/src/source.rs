//! A configuration before it is built: what threads can share of it, since what is built stays on its thread.

use std::{collections::BTreeMap, env, path::Path};

use tidegate_core::{
    Config,
    config::{Problem, Runtime},
};

use crate::{
    document::{self, Document, Unread},
    failed::Failed,
};

/// A document and the secrets that it refers to.
#[derive(Debug)]
pub(crate) struct Source {
    document: Document,
    secrets: BTreeMap<String, String>,
}

impl Source {
    /// What `document` says, with these secrets.
    pub(crate) fn new(document: Document, secrets: BTreeMap<String, String>) -> Self {
        Self { document, secrets }
    }

    /// What `file` says, with secrets from the environment.
    pub(crate) fn read(file: &Path) -> Result<Self, Failed> {
        let document = document(file)?;
        let secrets = Config::secrets(&document.value)
            .into_iter()
            .filter_map(|name| env::var(&name).ok().map(|value| (name, value)))
            .collect();
        Ok(Self::new(document, secrets))
    }

    /// A configuration for the thread that asks.
    pub(crate) fn config(&self) -> Result<Config, Vec<Problem>> {
        self.document.build(Some(&self.secrets), Runtime::Native)
    }
}

/// The document that stands in `file`.
pub(crate) fn document(file: &Path) -> Result<Document, Failed> {
    document::read(file).map_err(|unread| match unread {
        Unread::Unopened(problem) => Failed::Machine(format!("{}: {problem}", file.display())),
        Unread::Wrong(problems) => Failed::configuration(file, &problems),
    })
}
