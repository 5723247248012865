//! What a request may cost, before anybody has counted it.
//!
//! There is no table of tokens here. What is certain is that no tokenizer of the kind that providers use (byte-level BPE, or
//! SentencePiece with bytes to fall back on) makes more tokens of a text than it has bytes; what is likely is three bytes
//! to a token. Pictures and sounds are counted by rules of their own.

use memchr::memchr2_iter;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dialect::fields::Fields;

/// What a provider's template puts around a conversation at most, in tokens.
const TEMPLATE: u64 = 64;

/// Bytes that are likely to be one token, over text of many languages and code.
const BYTES_PER_TOKEN: u64 = 3;

/// A picture, in tokens: what the largest costs at OpenAI (85 + 8 × 170) and at Anthropic (1,600).
const PICTURE: u64 = 1_600;

/// Bytes of encoded sound that make a token: ten tokens a second, and eight kilobits at least.
const SOUND_BYTES_PER_TOKEN: u64 = 100;

/// How many tokens a prompt comes to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Estimate {
    /// At most.
    pub bound: u64,
    /// Probably.
    pub likely: u64,
}

impl Estimate {
    /// Of `bytes` of text or of JSON.
    pub fn of_bytes(bytes: u64) -> Self {
        Self {
            bound: bytes.saturating_add(TEMPLATE),
            likely: (bytes / BYTES_PER_TOKEN).saturating_add(TEMPLATE / 8),
        }
    }

    fn add(&mut self, tokens: u64) {
        self.bound = self.bound.saturating_add(tokens);
        self.likely = self.likely.saturating_add(tokens);
    }
}

/// Of a request of `bytes` in all, of which `conversation` is the part that may hold pictures and sounds.
pub(super) fn prompt(bytes: usize, conversation: &[u8]) -> Estimate {
    let mut encoded = 0;
    let mut tokens: u64 = 0;
    // What is not laid out as a conversation is text.
    let conversation = may_have_media(conversation).then(|| std::str::from_utf8(conversation));
    let turns: Vec<&RawValue> = match conversation {
        Some(Ok(conversation)) => list(conversation),
        _ => Vec::new(),
    };
    for part in turns.into_iter().flat_map(parts) {
        let length = part.get().len() as u64;
        let Some(cost) = medium(part) else { continue };
        encoded += length;
        tokens = tokens.saturating_add(cost);
    }
    let mut estimate = Estimate::of_bytes((bytes as u64).saturating_sub(encoded));
    estimate.add(tokens);
    estimate
}

/// Whether any part of it can be more than text: its kind stands there (see [`medium`]), or may be written with escapes. To read all
/// of a long conversation for that is dear.
fn may_have_media(conversation: &[u8]) -> bool {
    memchr2_iter(b'_', b'\\', conversation).any(|at| {
        let (before, here) = conversation.split_at_checked(at).unwrap_or_default();
        before.ends_with(b"image") || before.ends_with(b"input") || here.starts_with(br"\u")
    })
}

/// The parts of what is said in one turn.
fn parts(turn: &RawValue) -> Vec<&RawValue> {
    let turn = Fields::read(turn.get().as_bytes());
    let content = turn.and_then(|turn| turn.get("content"));
    content.map(list).unwrap_or_default()
}

/// The list that `text` is, or an empty one. Most are texts, and to hear from the parser that they are not lists is dear: it
/// repeats them.
fn list<'a, T: Deserialize<'a>>(text: &'a str) -> Vec<T> {
    let is_list = text.trim_ascii_start().starts_with('[');
    let read = is_list.then(|| serde_json::from_str(text).ok()).flatten();
    read.unwrap_or_default()
}

/// What sort of thing an object is.
pub(super) fn kind(raw: &RawValue) -> Option<String> {
    Fields::read(raw.get().as_bytes())?.text("type")
}

/// What a part costs that is not text.
fn medium(part: &RawValue) -> Option<u64> {
    match kind(part)?.as_str() {
        "image_url" | "input_image" => Some(PICTURE),
        "input_audio" => Some((part.get().len() as u64).div_ceil(SOUND_BYTES_PER_TOKEN)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_its_bytes_and_pictures_are_what_they_cost() {
        let picture = format!(
            r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}"#,
            "A".repeat(90_000)
        );
        let sound = format!(
            r#"{{"type":"input_audio","input_audio":{{"data":"{}"}}}}"#,
            "A".repeat(9_955)
        );
        let table = [
            (r#"[{"content":"hello"}]"#.to_owned(), 0, 0),
            (
                format!(r#"[{{"content":[{picture}]}}]"#),
                picture.len(),
                PICTURE,
            ),
            (format!(r#"[{{"content":[{sound}]}}]"#), sound.len(), 101),
            (
                format!(
                    r#"[{{"content":[{}]}}]"#,
                    picture.replace("image", r"\u0069mage")
                ),
                picture.len() + 15,
                PICTURE,
            ),
            (
                format!(r#"[{{"content":[{}]}}]"#, picture.replace('_', r"\u005f")),
                picture.len() + 10,
                PICTURE,
            ),
            (
                format!(r#"[{{"content":"an_image\n\\of"}},{{"content":[{picture}]}}]"#),
                picture.len(),
                PICTURE,
            ),
            // What only looks like a picture is text.
            (r#"[{"content":"my_input_image\n"}]"#.into(), 0, 0),
            (r#"[{"content":"data:image/png;base64,AAAA"}]"#.into(), 0, 0),
            (r#""data:image/png;base64,AAAA""#.into(), 0, 0),
            ("null".into(), 0, 0),
        ];
        for (conversation, encoded, tokens) in table {
            let estimate = prompt(conversation.len(), conversation.as_bytes());
            let bytes = (conversation.len() - encoded) as u64;
            assert_eq!(
                estimate.bound,
                bytes + TEMPLATE + tokens,
                "{conversation:.80}"
            );
            assert_eq!(estimate.likely, bytes / 3 + 8 + tokens);
        }
    }
}
