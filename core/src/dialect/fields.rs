//! The fields of an object that somebody here acts on, each as it stands there.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::dialect::json;

/// All of them, of requests, of events, and of what events bring.
const NAMES: [&str; 37] = [
    "answer",
    "choices",
    "code",
    "completion_tokens",
    "content",
    "conversation_id",
    "created_at",
    "data",
    "elapsed_time",
    "error",
    "event",
    "execution_metadata",
    "finished_at",
    "from_variable_selector",
    "id",
    "input_tokens",
    "message",
    "message_id",
    "metadata",
    "output_tokens",
    "outputs",
    "paused_nodes",
    "process_data",
    "prompt_tokens",
    "reasoning",
    "reasons",
    "response_mode",
    "status",
    "task_id",
    "text",
    "total_steps",
    "total_tokens",
    "type",
    "usage",
    "user",
    "workflow_id",
    "workflow_run_id",
];

/// What an object says, whose numbers and texts stay as they were written. Of what it says twice, the last word counts, as for Python.
pub(super) struct Fields<'a>([Option<&'a str>; NAMES.len()]);

impl Default for Fields<'_> {
    fn default() -> Self {
        Self([None; NAMES.len()])
    }
}

impl<'a> Fields<'a> {
    /// What `json` says; nothing, if it is no object. What Python takes for a number is one here, too.
    pub(super) fn read(json: &'a [u8]) -> Option<Self> {
        if let Ok(fields) = json::read(json) {
            return Some(fields);
        }
        let masked = json::masked(json)?;
        let fields: Fields<'_> = json::read(&masked).ok()?;
        // Each of them stands where it stands there.
        let own = |field: &str| {
            let start = field.as_ptr().addr().checked_sub(masked.as_ptr().addr())?;
            let (field, _) = json.get(start..)?.split_at_checked(field.len())?;
            str::from_utf8(field).ok()
        };
        Some(Fields(fields.0.map(|field| field.and_then(own))))
    }

    /// A field, if it is there: be it `null`.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let place = NAMES.iter().position(|known| *known == name)?;
        self.0.get(place).copied().flatten()
    }

    /// A field that is a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// A field that is a number of something.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// A field that is an object.
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.get(name)?.as_bytes())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = [Option<&'de str>; NAMES.len()];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = [None; NAMES.len()];
                while let Some(Place(place)) = map.next_key()? {
                    match place.and_then(|place| fields.get_mut(place)) {
                        Some(field) => *field = Some(map.next_value::<&RawValue>()?.get()),
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

/// Which of the fields a name means, if one.
struct Place(Option<usize>);

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Place, E> {
                Ok(Place(NAMES.iter().position(|known| *known == name)))
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_takes_for_a_number_is_one() {
        let event = br#"{"x": -Infinity, "data": {"outputs": {"a": NaN, "b": "NaN \"NaN"}}, "id": NaN, "answer": "NaN", "status": 5}"#;
        let fields = Fields::read(event).unwrap();
        assert_eq!(
            fields.object("data").unwrap().get("outputs"),
            Some(r#"{"a": NaN, "b": "NaN \"NaN"}"#)
        );
        assert_eq!(fields.get("id"), Some("NaN"));
        assert_eq!(fields.text("answer").as_deref(), Some("NaN"));
        assert_eq!(fields.number("status"), Some(5));
        for nothing in [
            &b"NaN"[..],
            b"{\"id\": NaNs}",
            b"{\"id\": nan}",
            b"{\"id\": NaN",
            b"\xff",
        ] {
            assert!(Fields::read(nothing).is_none());
        }
    }

    #[test]
    fn what_is_not_read_may_be_what_it_likes() {
        let deep = ["[".repeat(200), "]".repeat(200)].concat();
        let event =
            format!(r#"{{"outputs": {deep}, "x": {deep}, "y": "\ud83d", "id": 1, "id": 2}}"#);
        let fields = Fields::read(event.as_bytes()).unwrap();
        assert_eq!(fields.get("outputs"), Some(&*deep));
        assert_eq!(fields.get("id"), Some("2"));
    }
}
