//! OpenAI's API.

mod answer;
mod cost;
mod counted;
mod cut;
mod edit;
mod error;
mod event;
mod failure;
mod fields;
mod halves;
mod length;
mod opening;
mod plain;
mod request;
mod splice;
mod streamed;
mod transcript;
mod whole;

pub use answer::Meter;
pub use cost::Estimate;
pub(crate) use counted::completed;
pub use counted::usage;
pub(crate) use error::{error, refitted};
pub(in crate::dialect) use halves::object;
pub use length::Most;
pub(crate) use opening::{Opening, complaint, is_filtered, opening, refused, told};
pub use request::{Asked, Malformed};
pub use splice::{Splice, Spliced};
pub(crate) use streamed::streamed;
pub use transcript::Transcript;
pub use whole::Whole;

/// Whether `data` of an event is the last word of a stream.
pub(crate) fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

/// The path below the version: `/chat/completions` of `/v1/chat/completions`, or of itself.
pub fn endpoint(path: &str) -> &str {
    match path.strip_prefix("/v1") {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

/// Whether a request to this endpoint must name a model.
pub fn needs_model(endpoint: &str) -> bool {
    matches!(
        endpoint,
        "/chat/completions" | "/completions" | "/embeddings" | "/responses"
    )
}

/// Whether some provider may take this for another endpoint, which must name a model: with a slash at its end. What is counted there
/// would not be counted here.
pub fn is_disguised(endpoint: &str) -> bool {
    endpoint.ends_with('/') && needs_model(endpoint.trim_end_matches('/'))
}

/// Whether a stream of this endpoint tells its usage only if it is asked to.
pub(in crate::dialect) fn hides_usage(endpoint: &str) -> bool {
    matches!(endpoint, "/chat/completions" | "/completions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_one_name() {
        for (endpoint, expected) in [
            ("/chat/completions", false),
            ("/chat/completions/", true),
            ("/embeddings/", true),
            ("/chat/completions/chat-1", false),
            ("/", false),
        ] {
            assert_eq!(is_disguised(endpoint), expected, "{endpoint}");
        }
    }
}
