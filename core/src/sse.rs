//! Server-sent events, cut out of a stream byte for byte.
//!
//! The framer holds at most one unfinished event. Where the network cut the bytes makes no difference to what comes
//! out, and every byte that goes in comes out once, in order: an event is a slice of the stream with its blank line.

use std::{borrow::Cow, fmt};

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

/// The longest event that is held back until it is whole, in bytes.
pub const LONGEST_EVENT: usize = 4 << 20;

/// Cuts a stream into events.
#[derive(Debug, Default)]
pub struct Framer {
    pending: BytesMut,
    scan: Scan,
}

/// An event that is longer than [`LONGEST_EVENT`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Oversized;

impl fmt::Display for Oversized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event is longer than {LONGEST_EVENT} bytes")
    }
}

impl Framer {
    /// Takes a chunk, and gives each event that it completed to `each`.
    pub fn push(&mut self, mut chunk: Bytes, mut each: impl FnMut(Bytes)) -> Result<(), Oversized> {
        if self.pending.is_empty() {
            // The common case, without a copy: events that lie whole in one chunk.
            while let Some(end) = self.scan.find(&chunk)? {
                each(chunk.split_to(end));
            }
            self.pending.extend_from_slice(&chunk);
        } else {
            self.pending.extend_from_slice(&chunk);
            while let Some(end) = self.scan.find(&self.pending)? {
                each(self.pending.split_to(end).freeze());
            }
        }
        Ok(())
    }

    /// What is left when the stream is over: an event whose blank line never came, or nothing.
    pub fn finish(&mut self) -> Bytes {
        self.scan = Scan::default();
        self.pending.split().freeze()
    }
}

/// An event of which `data` is all there is: a text whose line ends mean nothing, such as JSON.
pub fn event(data: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(data.len() + 8);
    event.extend_from_slice(b"data: ");
    event.extend(data.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        byte => *byte,
    }));
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// What is missing of the blank line behind the last event of a stream.
pub fn missing_end(event: &[u8]) -> Bytes {
    let is_end = |end: &&[u8]| event.ends_with(end);
    let lines = [&b"\n\n"[..], b"\r\r", b"\r\n\r\n"].iter().any(is_end);
    let line = [&b"\n"[..], b"\r"].iter().any(is_end);
    Bytes::from_static(match (lines, line) {
        (true, _) => b"",
        (false, true) => b"\n",
        (false, false) => b"\n\n",
    })
}

/// The data of an event that is one line of it and nothing else, which readers understand that know no more of events.
pub fn plain(event: &[u8]) -> Option<&[u8]> {
    let data = event.strip_prefix(b"data: ")?.strip_suffix(b"\n\n")?;
    memchr2(b'\n', b'\r', data).is_none().then_some(data)
}

/// The value of the `data` field of an event: its lines joined, none if it has no such line.
pub fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut lines = fields(event).filter_map(|(name, value)| (name == b"data").then_some(value));
    let first = lines.next()?;
    let Some(second) = lines.next() else {
        return Some(Cow::Borrowed(first));
    };
    let mut joined = [first, second].join(&b'\n');
    for line in lines {
        joined.push(b'\n');
        joined.extend_from_slice(line);
    }
    Some(Cow::Owned(joined))
}

/// What an event is called, if it has a name.
pub fn name(event: &[u8]) -> Option<&[u8]> {
    // Most have none, and are one line.
    let end = memchr2(b'\n', b'\r', event).unwrap_or(event.len());
    if event.starts_with(b"data:") && event.split_at(end).1.trim_ascii().is_empty() {
        return None;
    }
    fields(event).find_map(|(name, value)| (name == b"event").then_some(value))
}

/// Name and value of each line of an event; a comment has the empty name.
fn fields(event: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    // Some begin a stream with the mark of the order of its bytes, as if there were several.
    let mut rest = event.strip_prefix("\u{feff}".as_bytes()).unwrap_or(event);
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after;
            if rest.has_remaining() {
                rest.advance(1);
            }
            if line.is_empty() {
                continue;
            }
            let colon = memchr::memchr(b':', line).unwrap_or(line.len());
            let (name, value) = line.split_at(colon);
            let value = value.strip_prefix(b":").unwrap_or(value);
            return Some((name, value.strip_prefix(b" ").unwrap_or(value)));
        }
        None
    })
}

/// How far an unfinished event has been looked through.
#[derive(Debug)]
struct Scan {
    /// Bytes of it that need not be looked at again.
    seen: usize,
    /// The line that is being read has no byte yet.
    fresh: bool,
    /// The byte before was a carriage return.
    after_cr: bool,
    /// That carriage return ended a blank line: the event ends here, or behind the line feed that follows.
    over: bool,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            seen: 0,
            fresh: true,
            after_cr: false,
            over: false,
        }
    }
}

impl Scan {
    /// The length of the event that `bytes` begin with, if its end is there. `bytes` begin where the last event ended.
    fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Oversized> {
        let length = self.end(bytes);
        if length.unwrap_or(bytes.len()) > LONGEST_EVENT {
            return Err(Oversized);
        }
        if length.is_some() {
            *self = Self::default();
        } else {
            self.seen = bytes.len();
        }
        Ok(length)
    }

    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = self.seen;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.over {
                return Some(at + usize::from(rest.starts_with(b"\n")));
            }
            let Some(skipped) = memchr2(b'\n', b'\r', rest) else {
                self.fresh = false;
                self.after_cr = false;
                return None;
            };
            if skipped > 0 {
                self.fresh = false;
                self.after_cr = false;
            }
            at += skipped + 1;
            if rest.get(skipped) == Some(&b'\r') {
                self.over = self.fresh;
                self.fresh = true;
                self.after_cr = true;
            } else if !std::mem::take(&mut self.after_cr) {
                if self.fresh {
                    return Some(at);
                }
                self.fresh = true;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"event: a\ndata: one\n\r\n: comment\r\n\r\ndata:two\ndata: three\r\revent: ping\n\n\ndata: [DONE]\n\nrest";

    fn frames(chunks: &[&[u8]]) -> (Vec<Bytes>, Bytes) {
        let mut framer = Framer::default();
        let mut frames = Vec::new();
        for chunk in chunks {
            framer
                .push(Bytes::copy_from_slice(chunk), |frame| frames.push(frame))
                .unwrap();
        }
        (frames, framer.finish())
    }

    #[test]
    fn where_the_bytes_are_cut_makes_no_difference() {
        let whole = frames(&[STREAM]);
        assert_eq!(whole.0.len(), 6, "{:?}", whole.0);
        for cut in 0..STREAM.len() {
            assert_eq!(
                frames(&[&STREAM[..cut], &STREAM[cut..]]),
                whole,
                "cut at {cut}"
            );
        }
        assert_eq!(frames(&STREAM.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn every_byte_comes_out_once() {
        let (mut all, rest) = frames(&[STREAM]);
        all.push(rest);
        assert_eq!(all.concat(), STREAM);
    }

    #[test]
    fn data_lines_are_joined_and_other_fields_left_out() {
        let (all, _) = frames(&[STREAM]);
        let read: Vec<_> = all
            .iter()
            .map(|frame| data(frame).map(Cow::into_owned))
            .collect();
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(
            read,
            [
                text("one"),
                None,
                text("two\nthree"),
                None,
                None,
                text("[DONE]")
            ]
        );
    }

    #[test]
    fn an_event_without_end_is_not_held_forever() {
        let mut framer = Framer::default();
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let pushed: Vec<_> = (0..5).map(|_| framer.push(piece.clone(), |_| {})).collect();
        assert_eq!(pushed, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Oversized)]);

        // Nor does it matter that it comes in one piece.
        let mut event = vec![b'x'; LONGEST_EVENT];
        event.extend_from_slice(b"\n\n");
        assert_eq!(Framer::default().push(event.into(), |_| {}), Err(Oversized));
    }
}
