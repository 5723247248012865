//! A JSON text of which only some bytes are written anew.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Where in `text` that stands which was read from it; nothing, if it was read from another one.
pub(super) fn place(part: &str, text: &[u8]) -> Option<Range<usize>> {
    let start = part.as_ptr().addr();
    let start = start.checked_sub(text.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= text.len()).then_some(start..end)
}

/// `text` with each of these in place of what stands there.
pub(super) fn edited<T: AsRef<str>>(text: &[u8], edits: &mut [(Range<usize>, T)]) -> Bytes {
    in_order(edits);
    let more: usize = edits.iter().map(|(_, new)| new.as_ref().len()).sum();
    let mut out = BytesMut::with_capacity(text.len() + more);
    let mut from = 0;
    for (range, new) in edits {
        out.extend_from_slice(text.get(from..range.start).unwrap_or_default());
        out.extend_from_slice(new.as_ref().as_bytes());
        from = range.end;
    }
    out.extend_from_slice(text.get(from..).unwrap_or_default());
    out.freeze()
}

/// There are few at most: whatever sorts many would be most of the code.
fn in_order<T>(edits: &mut [(Range<usize>, T)]) {
    for end in 1..edits.len() {
        let mut place = end;
        while let Some([(before, _), (after, _)]) = place
            .checked_sub(1)
            .and_then(|before| edits.get(before..=place))
            && before.start > after.start
        {
            edits.swap(place - 1, place);
            place -= 1;
        }
    }
}
