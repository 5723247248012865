//! What Dify says of a failure, as OpenAI would say it.

use http::StatusCode;
use serde_json::Value;

use super::trouble::is_of_plugins;
use crate::{dialect::openai, upstream::Complaint};

/// By what Dify means that the app itself is not in order, whoever asks.
const NOT_IN_ORDER: [&str; 7] = [
    "app_unavailable",
    "provider_not_initialize",
    "model_currently_not_support",
    "agent_not_published",
    "not_chat_app",
    "not_completion_app",
    "not_workflow_app",
];

/// By what it means that whoever it has asked itself has failed.
const FAILED: [&str; 3] = [
    "completion_request_error",
    "pipeline_run_error",
    "internal_server_error",
];

/// By what is meant that a run goes on by the word of a person, or not at all: it is not begun again.
const STOPPED: [&str; 2] = ["workflow_paused", "workflow_stopped"];

/// The error that `said` is in OpenAI's words, and the status that it has there. Dify gives most of its errors as 400, be they the
/// caller's fault or not; `status` is what came with it. `is_suspect`: the caller may have put words into its mouth.
pub(super) fn fault(said: &Value, status: StatusCode, is_suspect: bool) -> (StatusCode, String) {
    let text = |name: &str| said.get(name).and_then(Value::as_str);
    let code = text("code").unwrap_or("upstream_failed");
    let message = text("message").unwrap_or_default();
    let of_daemon = code == "invalid_param" && !is_suspect && is_of_plugins(message.as_bytes());
    let kind = match status.as_u16() {
        _ if STOPPED.contains(&code) => "invalid_request_error",
        _ if NOT_IN_ORDER.contains(&code) => "service_unavailable_error",
        _ if code == "provider_quota_exceeded" => "rate_limit_error",
        _ if of_daemon || FAILED.contains(&code) => "server_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "service_unavailable_error",
        _ => "server_error",
    };
    let tell = |kind: &str, code: &str| openai::error(message, kind, None, Some(code)).to_string();
    let mut error = tell(kind, code);
    if openai::complaint(error.as_bytes()) == Some(Complaint::ContextLength) {
        error = tell("invalid_request_error", "context_length_exceeded");
    }
    let means = openai::told(error.as_bytes()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Of what is the caller's own fault Dify knows more than that.
    let is_plain = means == StatusCode::BAD_REQUEST && status.is_client_error();
    (if is_plain { status } else { means }, error)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_error_has_the_class_that_it_is_of() {
        for (code, message, status, expected) in [
            ("unauthorized", "Access token is invalid", 401, 401),
            (
                "forbidden",
                "The app's API service has been disabled.",
                403,
                403,
            ),
            ("not_found", "Conversation Not Exists.", 404, 404),
            ("invalid_param", "Arg user must be provided.", 400, 400),
            ("bad_request", "Invalid workflow_id format: x", 400, 400),
            (
                "conversation_completed",
                "The conversation has ended.",
                400,
                400,
            ),
            ("unsupported_file_type", "", 415, 415),
            ("file_too_large", "", 413, 413),
            (
                "app_unavailable",
                "App unavailable, please check.",
                400,
                503,
            ),
            (
                "provider_not_initialize",
                "No valid model provider credentials found.",
                400,
                503,
            ),
            (
                "model_currently_not_support",
                "Dify Hosted OpenAI trial",
                400,
                503,
            ),
            (
                "agent_not_published",
                "Agent has not been published.",
                400,
                503,
            ),
            (
                "not_chat_app",
                "Please check if your app mode matches",
                400,
                503,
            ),
            ("not_completion_app", "", 400, 503),
            ("not_workflow_app", "", 400, 503),
            (
                "provider_quota_exceeded",
                "Your quota has been exhausted.",
                400,
                429,
            ),
            (
                "completion_request_error",
                "Completion request failed.",
                400,
                500,
            ),
            (
                "completion_request_error",
                "maximum context length is 4096",
                400,
                400,
            ),
            (
                "invalid_param",
                "PluginDaemonInternalServerError: x",
                400,
                500,
            ),
            ("invalid_param", "[Errno 111] Connection refused", 400, 500),
            ("workflow_paused", "it waits", 500, 400),
            ("workflow_stopped", "it was stopped", 500, 400),
            ("workflow_failed", "boom", 500, 500),
            ("too_many_requests", "Too many requests.", 429, 429),
            ("rate_limit_error", "Rate Limit Error", 429, 429),
            (
                "internal_server_error",
                "The server encountered an error",
                500,
                500,
            ),
            ("pipeline_run_error", "Pipeline execution failed", 500, 500),
            ("", "", 503, 503),
            ("", "", 200, 500),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let said = json!({ "code": code, "message": message, "status": status.as_u16() });
            let (means, error) = fault(&said, status, false);
            assert_eq!(means.as_u16(), expected, "{code} {message}");
            let is_long = message.contains("context length");
            let code = if is_long {
                "context_length_exceeded"
            } else {
                code
            };
            let told: Value = serde_json::from_str(&error).unwrap();
            assert_eq!(told["error"]["code"], code, "{error}");
            let kind = told["error"]["type"].as_str().unwrap();
            assert!(!is_long || kind == "invalid_request_error", "{error}");
        }
    }

    #[test]
    fn nobody_has_dify_say_that_it_is_ill() {
        let said = json!({ "code": "invalid_param", "message": "connection refused: is no uuid" });
        for (is_suspect, expected) in [(false, 500), (true, 400)] {
            let (status, _) = fault(&said, StatusCode::BAD_REQUEST, is_suspect);
            assert_eq!(status.as_u16(), expected);
        }
    }

    #[test]
    fn an_error_without_words_is_one_too() {
        let (status, error) = fault(&Value::Null, StatusCode::BAD_REQUEST, false);
        assert_eq!(status, 400);
        assert_eq!(
            error,
            r#"{"error":{"code":"upstream_failed","message":"","param":null,"type":"invalid_request_error"}}"#
        );
    }
}
