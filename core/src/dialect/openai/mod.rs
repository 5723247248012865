//! OpenAI's API.

mod answer;
mod cost;
mod cut;
mod length;
mod request;

pub use answer::{Meter, usage};
pub use cost::Estimate;
pub use length::Most;
pub use request::{Asked, Malformed};

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

/// Whether a stream of this endpoint tells its usage only if it is asked to.
pub(super) fn hides_usage(endpoint: &str) -> bool {
    matches!(endpoint, "/chat/completions" | "/completions")
}
