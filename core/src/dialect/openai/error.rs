//! An error, as OpenAI's clients read it.

use bytes::Bytes;
use serde_json::{Value, json};

use super::halves::object;
use crate::dialect::json;

/// How much of what somebody else says of an error is told, in bytes.
const LONGEST: usize = 2_000;

/// An error with these words.
pub(crate) fn error(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
}

/// What `said` of a fault of the caller's own says, where its reader looks for it; nothing, if it stands there. Whatever has one of the
/// `keys` in it is not told.
pub(crate) fn refitted<'k>(said: &[u8], mut keys: impl Iterator<Item = &'k str>) -> Option<Bytes> {
    let plain = Value::Object(object(said).unwrap_or_default());
    let text = |path| json::at(&plain, path).and_then(Value::as_str);
    let all = String::from_utf8_lossy(said);
    let mut message = ["/error/message", "/error", "/message", "/detail"]
        .into_iter()
        .find_map(text)
        .unwrap_or(&all);
    if keys.any(|key| all.contains(key) || message.contains(key)) {
        message = "";
    } else if plain.get("error").is_some_and(Value::is_object) {
        return None;
    }
    let message = message
        .get(..message.floor_char_boundary(LONGEST))
        .unwrap_or_default();
    Some(
        error(message, "invalid_request_error", None, None)
            .to_string()
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &str) -> Option<String> {
        let told: Value =
            serde_json::from_slice(&refitted(said.as_bytes(), ["sk-1"].into_iter())?).unwrap();
        let error = &told["error"];
        assert_eq!(
            (&error["type"], &error["code"], &error["param"]),
            (&json!("invalid_request_error"), &Value::Null, &Value::Null)
        );
        Some(error["message"].as_str().unwrap().into())
    }

    #[test]
    fn what_is_said_otherwise_is_the_message_of_an_error() {
        for (said, expected) in [
            (r#"{"error":{"message":"m"}}"#, None),
            (r#"{"error":{}}"#, None),
            (r#"{"error":"m"}"#, Some("m")),
            (
                r#"{"object":"error","message":"m\ud83d","code":400}"#,
                Some("m\u{fffd}"),
            ),
            (r#"{"detail":"m"}"#, Some("m")),
            (
                r#"{"detail":[{"msg":"m"}]}"#,
                Some(r#"{"detail":[{"msg":"m"}]}"#),
            ),
            (
                r#"[{"error":{"message":"m"}}]"#,
                Some(r#"[{"error":{"message":"m"}}]"#),
            ),
            ("bad \"things\"", Some("bad \"things\"")),
            ("", Some("")),
            (r#"{"detail":"is sk-1 a key?"}"#, Some("")),
            (r#"{"detail":"is sk\u002d1 a key?"}"#, Some("")),
            (
                r#"{"error":{"message":"is sk-1 a key?","code":"x"}}"#,
                Some(""),
            ),
            (r#"{"error":{"message":"is sk\u002d1 a key?"}}"#, Some("")),
        ] {
            assert_eq!(told(said).as_deref(), expected, "{said}");
        }
        let long = told(&"é".repeat(LONGEST)).unwrap();
        assert_eq!(long, "é".repeat(LONGEST / 2));
        let odd = told(&["x", &"é".repeat(LONGEST)].concat()).unwrap();
        assert_eq!(odd.len(), LONGEST - 1);
    }
}
