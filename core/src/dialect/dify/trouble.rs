//! What is wrong when an app says no: with the call, or with the app.

use http::StatusCode;

use super::open::text;
use crate::upstream::Complaint;

/// What an answer of this `status`, which is a failure, says of whom to ask instead; nothing, if its status says all.
pub(crate) fn trouble(status: StatusCode, body: &[u8]) -> Option<Complaint> {
    let is = |code: &[u8]| text(body, b"code") == Some(code);
    match status {
        StatusCode::BAD_REQUEST if is(b"invalid_param") => {
            // A file that was brought elsewhere.
            let is_file = text(body, b"message")?.starts_with(b"Invalid upload file");
            let of_plugins = is_of_plugins(body).then_some(Complaint::Plugins);
            of_plugins.or_else(|| is_file.then_some(Complaint::Unknown))
        }
        StatusCode::NOT_FOUND => text(body, b"code").map(|_| Complaint::Unknown),
        // An app may be closed, which is not its caller's doing; anything else that is forbidden is.
        StatusCode::FORBIDDEN if !is(b"forbidden") => Some(Complaint::Denied),
        _ => None,
    }
}

/// The same of what a stream begins with.
pub(crate) fn begins_with_trouble(piece: &[u8]) -> Option<Complaint> {
    let is_error = text(piece, b"event") == Some(b"error");
    // What has begun is not begun elsewhere, unless it has come to nothing.
    trouble(StatusCode::BAD_REQUEST, piece)
        .filter(|complaint| is_error && *complaint == Complaint::Plugins)
}

/// Whether a text has words in it by which a dead plugin daemon is known, or might have: they can be written in many ways.
pub(crate) fn is_suspect(text: &[u8]) -> bool {
    has_words(text, &["u004", "u005", "u006", "u007", "u0020"])
}

/// Whether what Dify says means that its plugin daemon does not answer it. Dify says 400 `invalid_param` then, as if it were the
/// caller's fault.
pub(super) fn is_of_plugins(text: &[u8]) -> bool {
    has_words(text, &[])
}

/// Whether such words stand in `text`, or one of `escapes`. It is looked through once, where it is: it may be as long as a body.
fn has_words(text: &[u8], escapes: &[&str]) -> bool {
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        let words = match first {
            b'p' | b'P' => &["lugin daemon", "lugin_daemon", "lugindaemoninternal"][..],
            b'c' | b'C' => &["onnection refused"],
            b'r' | b'R' => &["emote end closed"],
            b'\\' => escapes,
            _ => continue,
        };
        let begins = |word: &&str| {
            let mut bytes = after.iter();
            // Byte by byte, since nearly all of them differ in the first.
            let mut word = word.bytes();
            word.all(|byte| bytes.next().map(u8::to_ascii_lowercase) == Some(byte))
        };
        if words.iter().any(begins) {
            return true;
        }
    }
    false
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
        for nothing in [
            "",
            "<html>",
            "[]",
            "{\"code\":5}",
            "{\"code\":\"",
            "\"code\":\"invalid_param",
        ] {
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
            "cconnection refused",
            "Remote end\\u0020closed",
            "the PluginDaemonInternalServerError",
        ] {
            assert!(is_suspect(text.as_bytes()), "{text}");
        }
        for text in [
            "{\"query\":\"Gr\\u00fc\\u00df dich\"}",
            "plugin daemo",
            "pluginXdaemon",
            "connection  refused",
            "",
        ] {
            assert!(!is_suspect(text.as_bytes()), "{text}");
        }
    }
}
