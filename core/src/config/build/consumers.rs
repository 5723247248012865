//! Who may call.

use std::rc::Rc;

use super::{Builder, limits::limits, overload::priority};
use crate::{
    auth::{Consumer, Digest, Keyring},
    config::read::Field,
};

impl Builder<'_> {
    /// Reads a consumer, and gives it its keys.
    pub(super) fn consumer(&self, field: &Field<'_>, keyring: &mut Keyring) -> Option<()> {
        let mut section = field.section()?;
        let name = section
            .required("name")
            .and_then(|field| self.unique("consumer", &field));
        let keys = section.required("keys");
        if let Some(keys) = keys.as_ref().filter(|keys| keys.is_empty_list()) {
            keys.complain("a consumer needs at least one key");
        }
        let limits = limits(
            &mut section,
            &format!("consumer {}", name.unwrap_or_default()),
        );
        let priority = priority(&mut section);
        section.finish();
        let consumer = Rc::new(Consumer {
            name: name?.into(),
            limits,
            priority,
        });
        for key in keys.iter().flat_map(Field::list) {
            let Some(digest) = self.digest(&key) else {
                continue;
            };
            // A key that is only checked has no value yet to compare.
            if self.secrets.is_some() && keyring.has(&digest) {
                key.complain("this key is another consumer's already, or stands twice");
            }
            keyring.add(digest, consumer.clone());
        }
        Some(())
    }

    /// The hash of a key, which is written as a reference to a secret or as `sha256:…`.
    pub(super) fn digest(&self, field: &Field<'_>) -> Option<Digest> {
        match field.text()?.strip_prefix("sha256:") {
            Some(hex) => {
                let digest = Digest::parse(hex);
                if digest.is_none() {
                    field.complain("expected 64 hexadecimal digits after `sha256:`");
                }
                digest
            }
            None => self
                .secret(field)
                .map(|secret| Digest::of(secret.as_bytes())),
        }
    }
}
