//! JSON texts: read as the type that is wanted of them, and told how deep they are nested.

use std::mem;

use memchr::{memchr2, memchr2_iter};
use serde::{Deserialize, de::Error as _};
use serde_json::{Map, Value};

/// The deepest nesting that is handed on: most parsers stop at about as much, and some overflow their stack beyond.
const DEEPEST: usize = 127;

/// What a JSON text says. All of them are read as text, never as bytes: one reader in the artefact is enough.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    let text = str::from_utf8(text).map_err(serde_json::Error::custom)?;
    serde_json::from_str(text)
}

/// What stands at `path` in `value`: `/data/outputs`. Of names that have no slash, and without the weight of those that have.
pub(crate) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let mut names = path.split('/').skip(1);
    names.try_fold(value, |value, name| value.get(name))
}

/// Takes the field `name` out of `object`. To take one out of a tree weighs kilobytes on the edge, and objects are small.
pub(super) fn take(object: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let mut taken = None;
    for (other, value) in mem::take(object) {
        if other == name {
            taken = Some(value);
        } else {
            object.insert(other, value);
        }
    }
    taken
}

/// Whether a JSON text is nested deeper than an upstream can be trusted to read.
pub(super) fn is_too_deep(text: &str) -> bool {
    let mut rest = text.as_bytes();
    // Most texts have fewer brackets in all than may be open at once.
    if memchr2_iter(b'[', b'{', rest).nth(DEEPEST).is_none() {
        return false;
    }
    let mut depth = 0_usize;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'"' => rest = behind_string(rest),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return true;
        }
    }
    false
}

/// The same text with plain numbers in place of those that Python writes and JSON does not know, each as long as it was; nothing,
/// where it has none. Most of what is no JSON has none, and anybody may send as much of it as he likes.
pub(super) fn masked(text: &[u8]) -> Option<Vec<u8>> {
    let can_have_some = matches!(text.trim_ascii_start(), [b'{' | b'[', ..]);
    memchr2(b'N', b'I', text).filter(|_| can_have_some)?;
    let mut masked = None;
    let mut rest = text;
    while let Some(at) = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'N' | b'I'))
    {
        let found = rest.get(at..)?;
        let mut names = [&b"NaN"[..], b"Infinity"].into_iter();
        rest = match (names.find_map(|name| found.strip_prefix(name)), found) {
            (Some(behind), _) => {
                let masked = masked.get_or_insert_with(|| text.to_vec());
                let place = text.len() - found.len()..text.len() - behind.len();
                masked.get_mut(place)?.fill(b'1');
                behind
            }
            (None, [b'"', behind @ ..]) => behind_string(behind),
            (None, found) => found.get(1..)?,
        };
    }
    masked
}

/// What follows the end of a string that has begun.
fn behind_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        match rest.split_at(at).1 {
            [b'\\', _, after @ ..] => rest = after,
            [b'"', after @ ..] => return after,
            _ => return &[],
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_takes_for_a_number_is_masked_and_nothing_is_copied_for_anything_else() {
        for (text, expected) in [
            ("{\"a\":NaN}", Some("{\"a\":111}")),
            (" [-Infinity, \"N\", NaN]", Some(" [-11111111, \"N\", 111]")),
            (
                "{\"a\":\"NaN \\\"NaN\",\"b\":NaN",
                Some("{\"a\":\"NaN \\\"NaN\",\"b\":111"),
            ),
            ("{\"NaN\":\"Infinity\"}", None),
            ("{\"a\":\"NaN", None),
            ("[NNaN, InfinityI]", Some("[N111, 11111111I]")),
            ("{N", None),
            ("{\"a\": nan}", None),
            ("NaN", None),
            ("", None),
        ] {
            let masked = masked(text.as_bytes());
            assert_eq!(masked.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn only_brackets_outside_of_strings_nest() {
        for (text, expected) in [
            (String::new(), false),
            ("[".repeat(127), false),
            ("[".repeat(128), true),
            ("{\"a\":".repeat(128), true),
            ("[]".repeat(1000), false),
            (format!("[\"{}\"]", "[".repeat(1000)), false),
            (format!("[\"\\\"{}\"]", "[".repeat(1000)), false),
            (format!("[\"\\\\\",{}", "[".repeat(127)), true),
            ("\"\\".into(), false),
        ] {
            assert_eq!(is_too_deep(&text), expected, "{text:.40}");
        }
    }
}
