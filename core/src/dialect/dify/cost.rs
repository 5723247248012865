//! What an answer of Dify's has cost, as OpenAI tells it.

use serde_json::{Value, json};

use crate::{dialect::json, usage::Usage};

/// What is told at this place; nothing, where that is nothing.
pub(super) fn read(event: &Value, path: &str) -> Usage {
    let number = |name: &str| json::at(event, path)?.get(name)?.as_u64();
    let told = Usage {
        tokens_in: number("prompt_tokens"),
        tokens_out: number("completion_tokens"),
        tokens: number("total_tokens"),
    };
    if told.total() == Some(0) {
        return Usage::default();
    }
    told
}

/// What a node of a workflow has cost.
pub(super) fn of_node(event: &Value) -> Usage {
    let told = ["process_data/usage", "outputs/usage", "execution_metadata"];
    let told = told.map(|path| read(event, &["/data/", path].concat()));
    let [process, outputs, metadata] = told;
    process.or_more(outputs).or_more(metadata)
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
