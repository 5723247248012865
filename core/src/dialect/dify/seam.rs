//! Where one piece of a text ends and the next one begins: Python may part them within a character, between the halves that JSON
//! writes it by.

/// What stands for half a character whose other half does not come.
const LOST: &str = "\\ufffd";

/// The seams of one text.
#[derive(Debug, Default)]
pub(super) struct Seam {
    /// The first half of a character, as it was written.
    half: String,
}

impl Seam {
    /// What a piece adds to the text, which is written in JSON; nothing, if that is no text.
    pub(super) fn join(&mut self, piece: &str) -> Option<String> {
        if self.half.is_empty()
            && let Ok(text) = serde_json::from_str(piece)
        {
            return Some(text);
        }
        let piece = piece.strip_prefix('"')?.strip_suffix('"')?;
        let written = [&self.half, piece].concat();
        self.half.clear();
        let mut text = String::from('"');
        let mut rest = &*written;
        while let Some((plain, escaped)) = rest.find('\\').and_then(|at| rest.split_at_checked(at))
        {
            let (first, behind) = unit(escaped);
            let (second, further) = unit(behind);
            let (is_lost, next) = match (first, second) {
                (0xd800..0xdc00, 0xdc00..0xe000) => (false, further),
                (0xd800..0xdc00, _) if behind.is_empty() => {
                    self.half = escaped.into();
                    (false, behind)
                }
                (0xd800..0xe000, _) => (true, behind),
                _ => (false, behind),
            };
            let (same, _) = escaped.split_at(escaped.len() - next.len());
            text += plain;
            text += match (is_lost, self.half.is_empty()) {
                (true, _) => LOST,
                (_, true) => same,
                _ => "",
            };
            rest = next;
        }
        text += rest;
        text.push('"');
        serde_json::from_str(&text).ok()
    }

    /// What is left at the end of the text.
    pub(super) fn end(&mut self) -> &'static str {
        let is_lost = !std::mem::take(&mut self.half).is_empty();
        if is_lost { "\u{fffd}" } else { "" }
    }
}

/// Which half of a character an escape means, if it means one, and what comes behind it.
pub(in crate::dialect) fn unit(escaped: &str) -> (u16, &str) {
    let number = escaped.strip_prefix("\\u");
    match number.and_then(|number| number.split_at_checked(4)) {
        Some((number, behind)) => (u16::from_str_radix(number, 16).unwrap_or(0), behind),
        None => (0, escaped.get(2..).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_may_come_in_halves() {
        for (pieces, expected) in [
            (&[r#""a""#, r#""\n\u00e9""#][..], "a\né"),
            (&[r#""a\ud83d""#, r#""\ude00b""#], "a😀b"),
            (
                &[r#""\uD83D""#, r#""""#, r#""\uDE00\ud83d""#, r#""\ude01""#],
                "😀😁",
            ),
            (&[r#""a\ud83d""#, r#""b""#], "a\u{fffd}b"),
            (&[r#""a\ud83d""#, r#""\n\ud83d\ude00""#], "a\u{fffd}\n😀"),
            (&[r#""\ud83d\ud83d""#, r#""\ude00""#], "\u{fffd}😀"),
            (&[r#""\ude00a\ud83d""#], "\u{fffd}a\u{fffd}"),
            (
                &[r#""\\ud83d""#, r#""\\ude00\ud83d""#],
                "\\ud83d\\ude00\u{fffd}",
            ),
            (&[r#""é\ud83dé\ud83d😀\"""#], "é\u{fffd}é\u{fffd}😀\""),
        ] {
            let mut seam = Seam::default();
            let read = pieces.iter().map(|piece| seam.join(piece).unwrap());
            let mut text: String = read.collect();
            text += seam.end();
            assert_eq!(text, expected, "{pieces:?}");
        }
        for piece in ["5", "null", "{}", "\"", "\"\\"] {
            assert_eq!(Seam::default().join(piece), None, "{piece}");
        }
    }
}
