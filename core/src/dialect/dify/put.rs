//! A question as it is put to an app: first the files that it must be given, then what is asked.

use std::vec;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{file::Inline, read};

/// Where an app is given files.
pub const UPLOAD: &str = "/files/upload";

/// A question to an app.
#[derive(Debug)]
pub struct Put {
    /// Where it is asked.
    pub path: &'static str,
    pub(super) body: Map<String, Value>,
    pub(super) user: String,
    pub(super) uploads: vec::IntoIter<Inline>,
}

impl Put {
    /// Whether it must be given files first.
    pub fn has_uploads(&self) -> bool {
        self.uploads.len() > 0
    }

    /// The next file that it must be given, as a form whose parts are held apart by `boundary`.
    pub fn upload(&mut self, boundary: &str) -> Option<Bytes> {
        let file = self.uploads.next()?;
        Some(file.form(boundary, &self.user))
    }

    /// Takes down what was said to the last upload; nothing, if that is not how a file is taken.
    pub fn uploaded(&mut self, said: &[u8]) -> Option<()> {
        let mut said = read(said);
        let id = said.get_mut("id").filter(|id| id.is_string())?.take();
        let files = self.body.get_mut("files")?.as_array_mut()?;
        let is_open = |file: &&mut Map<String, Value>| file.len() == 2;
        let mut files = files.iter_mut().filter_map(Value::as_object_mut);
        let file = files.find(is_open)?;
        file.insert("upload_file_id".into(), id);
        Some(())
    }

    /// What is asked, once it has all files.
    pub fn body(self) -> String {
        Value::Object(self.body).to_string()
    }
}
