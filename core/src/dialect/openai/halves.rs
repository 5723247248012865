//! Characters of which JSON may escape a half, which is JSON for whoever passes it on, and no text.

use serde_json::{Map, Value};

use crate::dialect::{dify::seam::unit, json};

/// What stands for half a character until the other half is there: the last characters that are nobody's.
const HALVES: u32 = 0x10_0000;

/// The object that `text` is. A half of a character that stays alone is none.
pub(in crate::dialect) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    json::read(text).ok().or_else(|| {
        let text = str::from_utf8(text).ok()?;
        serde_json::from_str(&joined(&held(text))).ok()
    })
}

/// A JSON text with something that is one in place of each character of which only a half is there.
pub(super) fn held(text: &str) -> String {
    let mut held = String::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        let (first, behind) = unit(escaped);
        let (second, further) = unit(behind);
        held += plain;
        rest = match (first, second) {
            (0xd800..0xdc00, 0xdc00..0xe000) => further,
            _ => behind,
        };
        match char::from_u32(HALVES + u32::from(first)) {
            Some(half) if (0xd800..0xe000).contains(&first) && rest.len() == behind.len() => {
                held.push(half);
            }
            _ => held += escaped.strip_suffix(rest).unwrap_or_default(),
        }
    }
    held + rest
}

/// The same text with the halves of each character put together. One that stays alone is none.
pub(super) fn joined(text: &str) -> String {
    let mut units = Vec::with_capacity(text.len());
    for character in text.chars() {
        let half = u32::from(character).checked_sub(HALVES);
        let half = half.and_then(|half| u16::try_from(half).ok());
        match half.filter(|half| (0xd800..0xe000).contains(half)) {
            Some(half) => units.push(half),
            None => units.extend_from_slice(character.encode_utf16(&mut [0; 2])),
        }
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_none_and_makes_no_other_text_unreadable() {
        for (text, expected) in [
            (r#"{"a":"\ud83d\ude00"}"#, Some(r#"{"a":"😀"}"#)),
            (
                r#"{"a":"x\ud83d","b":["\ude00\n"]}"#,
                Some("{\"a\":\"x\u{fffd}\",\"b\":[\"\u{fffd}\\n\"]}"),
            ),
            (r#"{"a":"\ud83d"#, None),
            (r#"["\ud83d"]"#, None),
        ] {
            let object = object(text.as_bytes()).map(Value::Object);
            assert_eq!(
                object.map(|object| object.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
