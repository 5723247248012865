//! What an answer of an app's says of the app, and of what has come into being, where somebody else could be asked in its place.

use http::header;

use crate::{
    answer::{Content, LONGEST_ANSWER, Miss, Reply},
    dialect::dify::{self, Deed, Open},
    headers::{is_encoded, is_type},
    usage::Usage,
};

/// Looks at `reply`, which is the caller's as it is unless somebody else has something better.
pub(crate) async fn diagnose(mut reply: Reply, open: &Open) -> Result<Reply, Miss> {
    let is_failure = !reply.status.is_success();
    let is_json = is_type(&reply.headers, "application/json") && !is_encoded(&reply.headers);
    let is_read = is_json && (is_failure || open.deed == Deed::Upload);
    reply.content = match reply.content {
        Content::Untouched(body) if is_read => {
            let whole = body.read(LONGEST_ANSWER).await.map_err(Miss::broken)?;
            reply.headers.remove(header::CONTENT_LENGTH);
            Content::Whole(whole, Usage::default())
        }
        Content::Stream(mut body, meter) => {
            // The piece that it begins with has its first event in it.
            if let Some(piece) = body.piece().await {
                let piece = piece.map_err(Miss::broken)?;
                reply.complaint = dify::begins_with_trouble(&piece);
                if reply.complaint.is_none() {
                    open.made.replace(dify::made(&piece));
                }
                body = body.behind(piece);
            }
            Content::Stream(body, meter)
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
    if open.names.is_empty() && reply.is_ignorant() {
        reply.complaint = None;
    }
    Ok(reply)
}
