//! The head of a message as one text, which is how it crosses between JavaScript and Rust: a crossing costs more than
//! all that is done with the text on either side.
//!
//! Each header is a line `name:value`. Neither can contain a line break.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The parts of a text, each a view of the same bytes.
pub(crate) struct Lines(Bytes);

impl Lines {
    pub(crate) fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The headers that stand in the lines that are left, or nothing if one of them is no header.
    pub(crate) fn headers(self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        for line in self {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
            headers.append(
                name,
                HeaderValue::from_maybe_shared(line.slice(colon + 1..)).ok()?,
            );
        }
        Some(headers)
    }
}

impl Iterator for Lines {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.0.is_empty() {
            return None;
        }
        let end = self
            .0
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(self.0.len());
        let line = self.0.split_to(end);
        let _ = self.0.split_to(self.0.len().min(1));
        Some(line)
    }
}

/// Appends `headers` to `text`, a line each.
pub(crate) fn write(headers: &HeaderMap, text: &mut String) {
    for (name, value) in headers {
        text.push('\n');
        text.push_str(name.as_str());
        text.push(':');
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut text = "GET".to_owned();
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=b; Path=/"));
        headers.append("set-cookie", HeaderValue::from_static("c:d"));
        headers.append("x-empty", HeaderValue::from_static(""));
        headers.append("x-name", HeaderValue::from_bytes("é".as_bytes()).unwrap());
        write(&headers, &mut text);
        let mut lines = Lines::new(text);
        assert_eq!(lines.next().unwrap(), "GET");
        assert_eq!(lines.headers().unwrap(), headers);
    }

    #[test]
    fn a_line_that_is_no_header_is_refused() {
        for text in ["no colon", "sp ace:x", ":x", "a:b\n\nc:d", "a:\u{7}"] {
            assert_eq!(Lines::new(text.to_owned()).headers(), None, "{text:?}");
        }
    }
}
