//! What Dify says when it refuses.

use serde_json::{Value, json};

use crate::play::Reply;

/// A refusal: status, code, message.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: &'static str,
}

/// The refusal with this code; the first if there are several.
pub(crate) fn by_code(code: &str) -> Option<&'static Failure> {
    FAILURES.iter().find(|failure| failure.code == code)
}

/// The refusal with this status.
pub(super) fn by_status(status: u16) -> Reply {
    match FAILURES.iter().find(|failure| failure.status == status) {
        Some(failure) => failure.reply(),
        None => say(status, "unknown", "The service refuses, as the mode says."),
    }
}

/// A refusal with a message of its own.
pub(super) fn say(status: u16, code: &str, message: &str) -> Reply {
    let reply = Reply::json(status, &body(status, code, message));
    match status {
        401 => reply.with("www-authenticate", "Bearer realm=\"api\""),
        429 | 503 => reply.with("retry-after", "7"),
        _ => reply,
    }
}

impl Failure {
    pub(super) fn reply(&self) -> Reply {
        say(self.status, self.code, self.message)
    }
}

fn body(status: u16, code: &str, message: &str) -> Value {
    json!({"code": code, "message": message, "status": status})
}

/// The agents of old refuse as this.
pub(super) const NO_BLOCKING: Failure = failure(
    400,
    "invalid_param",
    "Agent Chat App does not support blocking mode",
);

/// What has failed midway in a chatflow, as its message says it.
pub(super) const RUN_FAILED: Failure = failure(
    400,
    "invalid_param",
    "Run failed: [openai] Server Unavailable Error, Remote end closed connection without response",
);

pub(super) const MIDWAY: Failure = failure(
    400,
    "completion_request_error",
    "[openai] Server Unavailable Error, Remote end closed connection without response",
);

const fn failure(status: u16, code: &'static str, message: &'static str) -> Failure {
    Failure {
        status,
        code,
        message,
    }
}

#[rustfmt::skip]
const FAILURES: &[Failure] = &[
    failure(400, "invalid_param", "PluginDaemonInternalServerError: connection refused"),
    failure(400, "bad_request", "Agent App only supports streaming response mode."),
    failure(400, "app_unavailable", "App unavailable, please check your app configurations."),
    failure(400, "not_chat_app", "Please check if your app mode matches the right API route."),
    failure(400, "not_workflow_app", "Please check if your app mode matches the right API route."),
    failure(400, "not_completion_app", "Please check if your app mode matches the right API route."),
    failure(400, "provider_not_initialize", "No valid model provider credentials found. Please go to Settings -> Model Provider to complete your provider credentials."),
    failure(400, "provider_quota_exceeded", "Your quota for Dify Hosted Model Provider has been exhausted. Please go to Settings -> Model Provider to complete your own provider credentials."),
    failure(400, "model_currently_not_support", "Dify Hosted OpenAI trial currently not support the GPT-4 model."),
    failure(400, "completion_request_error", "Completion request failed."),
    failure(400, "conversation_completed", "The conversation has ended. Please start a new conversation."),
    failure(400, "agent_not_published", "Agent has not been published."),
    failure(400, "no_file_uploaded", "Please upload your file."),
    failure(400, "too_many_files", "Only one file is allowed."),
    failure(400, "filename_not_exists_error", "The specified filename does not exist."),
    failure(400, "speech_to_text_disabled", "Speech to text is not enabled."),
    failure(400, "provider_not_support_speech_to_text", "Provider not support speech to text."),
    failure(401, "unauthorized", "Access token is invalid"),
    failure(403, "forbidden", "The app's API service has been disabled."),
    failure(403, "file_access_denied", "Access to the requested file is denied."),
    failure(403, "workflow_version_execution_not_allowed", "Running a specific workflow version is not allowed."),
    failure(403, "archived_document_immutable", "The archived document is not editable."),
    failure(404, "not_found", "Conversation Not Exists."),
    failure(404, "file_not_found", "The requested file was not found."),
    failure(404, "end_user_not_found", "End user not found."),
    failure(409, "dataset_name_duplicate", "The dataset name already exists. Please modify your dataset name."),
    failure(412, "human_input_form_expired", "The form has expired."),
    failure(412, "human_input_form_submitted", "The form has been submitted."),
    failure(413, "file_too_large", "File size exceeded."),
    failure(413, "audio_too_large", "Audio size exceeded."),
    failure(415, "unsupported_file_type", "File type not allowed."),
    failure(415, "unsupported_audio_type", "Audio type not allowed."),
    failure(429, "too_many_requests", "Too many requests. Please try again later. The current maximum concurrent requests allowed for this app is 10."),
    failure(429, "rate_limit_error", "Rate Limit Error"),
    failure(500, "internal_server_error", "The server encountered an internal error and was unable to complete your request. Either the server is overloaded or there is an error in the application."),
    failure(500, "pipeline_run_error", "Pipeline execution failed: the node broke."),
    failure(503, "service_unavailable", "The server is temporarily unable to service your request."),
];
