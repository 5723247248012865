//! A stream that is heard to its end, and answered at once.

use bytes::Bytes;

use crate::{body::Body, dialect::openai::Whole, sse::Framer};

/// The longest answer that is put together, in bytes of its stream.
const LONGEST: usize = 64 << 20;

/// What the events of `body` come to; nothing, if that is too long, or cannot be told.
pub(crate) async fn assemble(mut body: Body) -> Option<Bytes> {
    let mut framer = Framer::default();
    let mut whole = Whole::default();
    let mut taken = 0;
    while let Some(piece) = body.piece().await {
        let piece = piece.ok()?;
        taken += piece.len();
        if taken > LONGEST {
            return None;
        }
        framer.push(piece, |event| whole.add(&event)).ok()?;
    }
    whole.add(&framer.finish());
    whole.answer()
}
