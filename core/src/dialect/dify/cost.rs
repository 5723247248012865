//! What an answer of Dify's has cost, as OpenAI tells it.

use serde_json::json;

use super::answer::counts;
use crate::{dialect::fields::Fields, usage::Usage};

/// What a node of a workflow has cost, by what it says of itself.
pub(super) fn of_node(node: &Fields<'_>) -> Usage {
    let told = |place| node.object(place)?.object("usage");
    let told = ["process_data", "outputs"].map(told);
    let told = told.into_iter().chain([node.object("execution_metadata")]);
    let told = told.flatten().map(|told| counts(&told));
    told.fold(Usage::default(), Usage::or_more)
}

/// What a `run` has cost as a whole, of which only so much is known to be of answers as its `nodes` have told.
pub(super) fn split(run: Usage, nodes: Usage) -> Usage {
    let Some(total) = run.total() else { return run };
    let answers = nodes.tokens_out.unwrap_or(0).min(total);
    Usage {
        tokens_in: Some(total - answers),
        tokens_out: Some(answers),
        tokens: Some(total),
    }
}

/// How OpenAI tells it; nothing, if it is not known.
pub(super) fn told(usage: Usage) -> Option<String> {
    let told = json!({
        "prompt_tokens": usage.tokens_in.unwrap_or(0),
        "completion_tokens": usage.tokens_out.unwrap_or(0),
        "total_tokens": usage.total()?,
    });
    Some(told.to_string())
}
