//! The fields of an object that somebody here acts on, each as it stands there.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::dialect::json;

/// All of them, of requests, of events, and of what events bring.
const NAMES: [&str; 26] = [
    "answer",
    "code",
    "completion_tokens",
    "conversation_id",
    "created_at",
    "data",
    "elapsed_time",
    "error",
    "event",
    "finished_at",
    "id",
    "message",
    "message_id",
    "metadata",
    "outputs",
    "paused_nodes",
    "prompt_tokens",
    "reasons",
    "response_mode",
    "status",
    "task_id",
    "total_steps",
    "total_tokens",
    "user",
    "workflow_id",
    "workflow_run_id",
];

/// What an object says, whose numbers and texts stay as they were written. Of what it says twice, the last word counts, as for Python.
pub(super) struct Fields<'a>([Option<&'a RawValue>; NAMES.len()]);

impl<'a> Fields<'a> {
    /// What `json` says; nothing, if it is no object.
    pub(super) fn read(json: &'a [u8]) -> Option<Self> {
        json::read(json).ok()
    }

    /// A field, if it is there: be it `null`.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let place = NAMES.iter().position(|known| *known == name)?;
        self.0.get(place).copied().flatten()
    }

    /// A field that is a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = [Option<&'de RawValue>; NAMES.len()];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = [None; NAMES.len()];
                while let Some(name) = map.next_key::<String>()? {
                    let place = NAMES.iter().position(|known| *known == name);
                    match place.and_then(|place| fields.get_mut(place)) {
                        Some(field) => *field = Some(map.next_value()?),
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Reader).map(Self)
    }
}
