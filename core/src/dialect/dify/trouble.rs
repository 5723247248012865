//! What is wrong when an app says no: with the call, or with the app.

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;

use crate::{dialect::json, sse, upstream::Complaint};

/// By what a dead plugin daemon is known. Dify says 400 `invalid_param` then, as if it were the caller's fault.
const PLUGINS: [&str; 5] = [
    "plugin daemon",
    "plugin_daemon",
    "plugindaemoninternal",
    "connection refused",
    "remote end closed",
];

/// An error, as Dify puts it.
#[derive(Deserialize)]
struct Error<'a> {
    #[serde(borrow, default)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(default)]
    status: Option<u16>,
}

/// What an answer of this `status`, which is a failure, says of whom to ask instead; nothing, if its status says all.
pub(crate) fn trouble(status: StatusCode, body: &[u8]) -> Option<Complaint> {
    let error = json::read::<Error<'_>>(body).ok()?;
    complaint(status, &error)
}

/// The same of the event that a stream begins with.
pub(crate) fn begins_with_trouble(event: &[u8]) -> Option<Complaint> {
    let data = sse::data(event)?;
    let error = json::read::<Error<'_>>(&data).ok()?;
    let status = StatusCode::from_u16(error.status?).ok()?;
    let is_error = error.event.as_deref() == Some("error");
    // What has begun is not begun elsewhere, unless it has come to nothing.
    let of_plugins = |complaint: &Complaint| *complaint == Complaint::Plugins;
    complaint(status, &error).filter(|complaint| is_error && of_plugins(complaint))
}

/// Whether a text has words in it by which a dead plugin daemon is known, or might have: they can be written in many ways.
pub(crate) fn is_suspect(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let escaped = ["\\u004", "\\u005", "\\u006", "\\u007", "\\u0020"];
    escaped.iter().any(|letter| text.contains(letter)) || is_of_plugins(&text)
}

fn complaint(status: StatusCode, error: &Error<'_>) -> Option<Complaint> {
    match (status, &*error.code) {
        (StatusCode::BAD_REQUEST, "invalid_param") if is_of_plugins(&error.message) => {
            Some(Complaint::Plugins)
        }
        // A file that was brought elsewhere.
        (StatusCode::BAD_REQUEST, "invalid_param")
            if error.message.starts_with("Invalid upload file") =>
        {
            Some(Complaint::Unknown)
        }
        (StatusCode::NOT_FOUND, _) => Some(Complaint::Unknown),
        // An app may be closed, which is not its caller's doing; anything else that is forbidden is.
        (StatusCode::FORBIDDEN, code) if code != "forbidden" => Some(Complaint::Denied),
        _ => None,
    }
}

fn is_of_plugins(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    PLUGINS.iter().any(|phrase| text.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_plugin_daemon_is_told_from_a_fault_of_the_callers() {
        let plugins = Some(Complaint::Plugins);
        let unknown = Some(Complaint::Unknown);
        for (status, code, message, expected) in [
            (
                400,
                "invalid_param",
                "Failed to request plugin daemon, url: plugin/4a4c/dispatch/llm/invoke",
                plugins,
            ),
            (
                400,
                "invalid_param",
                "Request to Plugin Daemon Service failed",
                plugins,
            ),
            (
                400,
                "invalid_param",
                "req_id: 1f0a PluginDaemonInternalServerError: no nodes",
                plugins,
            ),
            (
                400,
                "invalid_param",
                "[Errno 111] Connection refused",
                plugins,
            ),
            (
                400,
                "invalid_param",
                "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))",
                plugins,
            ),
            (400, "invalid_param", "PluginDaemonBadRequestError: x", None),
            (400, "invalid_param", "query is required", None),
            (400, "invalid_param", "Arg user must be provided.", None),
            (400, "invalid_param", "Invalid upload file", unknown),
            (400, "completion_request_error", "connection refused", None),
            (404, "not_found", "Conversation Not Exists.", unknown),
            (404, "file_not_found", "", unknown),
            (
                403,
                "forbidden",
                "The app's API service has been disabled.",
                None,
            ),
            (403, "file_access_denied", "", Some(Complaint::Denied)),
            (429, "too_many_requests", "plugin daemon", None),
            (500, "internal_server_error", "", None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let body =
                serde_json::json!({ "code": code, "message": message, "status": status.as_u16() });
            let body = body.to_string();
            assert_eq!(trouble(status, body.as_bytes()), expected, "{body}");
            let event = body.replacen('{', "data: {\"event\":\"error\",", 1) + "\n\n";
            let begins = begins_with_trouble(event.as_bytes());
            assert_eq!(
                begins,
                expected.filter(|is| *is == Complaint::Plugins),
                "{event}"
            );
        }
        for nothing in ["", "<html>", "[]", "{\"code\":5}"] {
            assert_eq!(trouble(StatusCode::BAD_REQUEST, nothing.as_bytes()), None);
        }
        let message = b"data: {\"event\":\"message\",\"code\":\"invalid_param\",\"message\":\"plugin daemon\",\"status\":400}\n\n";
        assert_eq!(begins_with_trouble(message), None);
    }

    #[test]
    fn nobody_puts_such_words_into_dify_s_mouth() {
        for text in [
            r#"{"conversation_id":"Plugin Daemon"}"#,
            r#"{"conversation_id":"\u0070lugin daemon"}"#,
            "CONNECTION REFUSED",
        ] {
            assert!(is_suspect(text.as_bytes()), "{text}");
        }
        assert!(!is_suspect(
            "{\"query\":\"Gr\\u00fc\\u00df dich\"}".as_bytes()
        ));
    }
}
