//! What an answer of an app's says of the app, and of what has come into being, where somebody else could be asked in its place.

use bytes::Bytes;
use http::{StatusCode, header};

use crate::{
    answer::{Content, Miss, Reply, read},
    body::Body,
    dialect::dify::{self, Deed, Open},
    headers::{is_encoded, is_type},
    sse::{self, Framer},
    upstream::Complaint,
};

/// Looks at `reply`, which is the caller's as it is unless somebody else has something better.
pub(crate) async fn diagnose(mut reply: Reply, open: &Open) -> Result<Reply, Miss> {
    let is_failure = !reply.status.is_success();
    let is_json = is_type(&reply.headers, "application/json") && !is_encoded(&reply.headers);
    let is_read = is_json && (is_failure || open.deed == Deed::Upload);
    reply.content = match reply.content {
        Content::Untouched(body) if is_read => {
            let whole = read(body).await?;
            reply.headers.remove(header::CONTENT_LENGTH);
            Content::Whole(whole, Default::default())
        }
        Content::Stream(mut body, meter) => {
            let (first, rest) = begin(&mut body).await?;
            reply.complaint = first.as_deref().and_then(dify::begins_with_trouble);
            if reply.complaint.is_none()
                && let Some(first) = first.as_deref().and_then(sse::data)
            {
                open.made.replace(dify::made(&first));
            }
            Content::Stream(body.behind(rest), meter)
        }
        content => content,
    };
    if let Content::Whole(bytes, _) = &reply.content {
        if is_failure {
            reply.complaint = dify::trouble(reply.status, bytes);
        } else {
            open.made.replace(dify::made(bytes));
        }
    }
    // Whoever asks for nothing in particular hears that there is no such path.
    let is_nothing = reply.status == StatusCode::NOT_FOUND && open.names.is_empty();
    if is_nothing && reply.complaint == Some(Complaint::Unknown) {
        reply.complaint = None;
    }
    Ok(reply)
}

/// The first event of a stream, and all that has come with it.
async fn begin(body: &mut Body) -> Result<(Option<Bytes>, Bytes), Miss> {
    let Some(piece) = body.piece().await else {
        return Ok((None, Bytes::new()));
    };
    let piece = piece.map_err(Miss::broken)?;
    let mut first = None;
    let mut framer = Framer::default();
    let pushed = framer.push(piece.clone(), |event| {
        first.get_or_insert(event);
    });
    if pushed.is_ok() && first.is_none() {
        first = Some(framer.finish());
    }
    Ok((first, piece))
}
