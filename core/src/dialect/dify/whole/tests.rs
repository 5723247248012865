use super::*;

fn whole(events: &[&str]) -> Option<(u16, String)> {
    let mut whole = Whole::default();
    for event in events {
        assert!(!whole.is_over(), "{event} is too much");
        whole.add(format!("data: {event}\n\n").as_bytes());
    }
    let (status, body) = whole.answer()?;
    Some((status.as_u16(), String::from_utf8(body.to_vec()).unwrap()))
}

/// An event of a chat, named `name`.
fn chat(name: &str, more: &str) -> String {
    format!(
        r#"{{"event": "{name}", "conversation_id": "c", "message_id": "m", "created_at": 7, "task_id": "t", {more}}}"#
    )
}

fn flow(name: &str, more: &str) -> String {
    chat(name, &format!(r#""workflow_run_id": "r", {more}"#))
}

fn run(name: &str, data: &str) -> String {
    format!(r#"{{"event":"{name}","task_id":"t","workflow_run_id":"r","data":{data}}}"#)
}

#[test]
fn events_come_to_what_dify_would_have_answered_at_once() {
    let message = |text: &str| chat("message", &format!(r#""id": "m", "answer": {text}"#));
    let spoken = |text: &str| chat("agent_message", &format!(r#""id": "m", "answer": {text}"#));
    let end = chat(
        "message_end",
        r#""id": "m", "metadata": {"usage": {"total_tokens": 7, "latency": 1.50}, "retriever_resources": [{"score": 1e-2}]}, "files": []"#,
    );
    let metadata = r#"{"usage": {"total_tokens": 7, "latency": 1.50}, "retriever_resources": [{"score": 1e-2}]}"#;
    let chats = |mode: &str, answer: &str| {
        format!(
            r#"{{"event":"message","task_id":"t","id":"m","message_id":"m","conversation_id":"c","mode":"{mode}","answer":{answer},"metadata":{metadata},"created_at":7}}"#
        )
    };
    let started = flow(
        "workflow_started",
        r#""data": {"id": "r", "workflow_id": "w"}"#,
    );
    let finished = flow(
        "workflow_finished",
        r#""data": {"id": "r", "status": "succeeded", "total_tokens": 7}"#,
    );
    let reasons = r#"[{"TYPE": "human_input_required", "form_token": "f"}]"#;
    let paused = format!(
        r#"{{"workflow_run_id": "r", "paused_nodes": ["n"], "outputs": null, "reasons": {reasons}, "status": "paused", "created_at": 8, "elapsed_time": 0.50, "total_tokens": 3, "total_steps": 1}}"#
    );
    let table: Vec<(&str, Vec<String>, String)> = vec![
        (
            "a chat",
            vec![message(r#""H\u00e9""#), message(r#"" 😀\n""#), message("null"), end.clone()],
            chats("chat", r#""Hé 😀\n""#),
        ),
        ("a chat that says nothing", vec![end.clone()], chats("chat", r#""""#)),
        (
            "a chat whose text is replaced, and goes on",
            vec![
                message(r#""secret""#),
                chat("message_replace", r#""answer": "preset", "reason": "output_moderation""#),
                message(r#"".""#),
                end.clone(),
            ],
            chats("chat", r#""preset.""#),
        ),
        (
            "a chat whose characters come in halves",
            vec![
                message(r#""a\ud83d""#),
                message(r#""\ude00b\ud83d""#),
                message(r#""c\ud83d""#),
                end.clone(),
            ],
            chats("chat", "\"a😀b\u{fffd}c\u{fffd}\""),
        ),
        (
            "a chat with events that nobody reads, and nobody could",
            vec![
                "null".into(),
                r#"{"event": "message_file", "url": nan}"#.into(),
                r#"{"event": "node_finished", "data": {"outputs": NaN}}"#.into(),
                r#"{"event": "agent_log", "data": "\ud83d""#.into(),
                message(r#""x""#),
                end.clone(),
            ],
            chats("chat", r#""x""#),
        ),
        (
            "a chat with numbers that are Python's",
            vec![
                chat("message", r#""x": NaN, "answer": "NaN""#),
                chat("message_end", r#""metadata": {"scores": [NaN, -Infinity, Infinity]}"#),
            ],
            r#"{"event":"message","task_id":"t","id":"m","message_id":"m","conversation_id":"c","mode":"chat","answer":"NaN","metadata":{"scores": [NaN, -Infinity, Infinity]},"created_at":7}"#.into(),
        ),
        (
            "a completion",
            vec![
                r#"{"event":"message","message_id":"m","created_at":7,"task_id":"t","answer":"x"}"#.into(),
                r#"{"event":"message_end","message_id":"m","created_at":7,"task_id":"t"}"#.into(),
            ],
            r#"{"event":"message","task_id":"t","id":"m","message_id":"m","mode":"completion","answer":"x","metadata":{},"created_at":7}"#.into(),
        ),
        (
            "an agent",
            vec![
                chat("agent_thought", r#""id": "a", "thought": """#),
                chat("message_file", r#""id": "f", "url": "u""#),
                spoken(r#""one ""#),
                spoken(r#""two""#),
                end.clone(),
            ],
            chats("agent-chat", r#""one two""#),
        ),
        (
            "an agent that says once more what it has said",
            vec![spoken(r#""one ""#), spoken(r#""tw""#), message(r#""one ""#), message(r#""two""#), end.clone()],
            chats("agent-chat", r#""one two""#),
        ),
        (
            "an agent that says something else than it has thought",
            vec![chat("agent_thought", r#""id": "a""#), message(r#""one ""#), message(r#""two""#), end.clone()],
            chats("agent-chat", r#""one two""#),
        ),
        (
            "a chatflow, which is not over with its workflow",
            vec![started.clone(), message(r#""x""#), finished, end.clone()],
            chats("advanced-chat", r#""x""#),
        ),
        (
            "a chatflow whose message is there first",
            vec![started.clone(), message(r#""x""#), end],
            chats("advanced-chat", r#""x""#),
        ),
        (
            "a chatflow that waits for somebody",
            vec![started, message(r#""x""#), flow("workflow_paused", &format!("\"data\": {paused}"))],
            format!(
                r#"{{"event":"workflow_paused","task_id":"t","id":"m","message_id":"m","conversation_id":"c","mode":"advanced-chat","answer":"x","metadata":{{}},"created_at":7,"workflow_run_id":"r","data":{{"id":"m","message_id":"m","conversation_id":"c","mode":"advanced-chat","workflow_run_id":"r","answer":"x","metadata":{{}},"created_at":7,"paused_nodes":["n"],"reasons":{reasons},"status":"paused","elapsed_time":0.50,"total_tokens":3,"total_steps":1}}}}"#
            ),
        ),
        (
            "a workflow",
            vec![
                run("workflow_started", r#"{"id":"r","workflow_id":"w"}"#),
                run("text_chunk", r#"{"text":"x"}"#),
                run(
                    "workflow_finished",
                    r#"{"id":"r","workflow_id":"w","status":"partial-succeeded","outputs":{"z": [1.10], "a": "é"},"error":null,"elapsed_time":1.230,"total_tokens":150,"total_steps":3,"created_by":{"id":"u"},"created_at":8,"finished_at":9,"exceptions_count":1,"files":[]}"#,
                ),
            ],
            r#"{"task_id":"t","workflow_run_id":"r","data":{"id":"r","workflow_id":"w","status":"partial-succeeded","outputs":{"z": [1.10], "a": "é"},"error":null,"elapsed_time":1.230,"total_tokens":150,"total_steps":3,"created_at":8,"finished_at":9}}"#.into(),
        ),
        (
            "a workflow with a number that is Python's",
            vec![run("workflow_finished", r#"{"id":"r","status":"succeeded","outputs":{"a":NaN}}"#)],
            r#"{"task_id":"t","workflow_run_id":"r","data":{"id":"r","workflow_id":null,"status":"succeeded","outputs":{"a":NaN},"error":null,"elapsed_time":null,"total_tokens":null,"total_steps":null,"created_at":null,"finished_at":null}}"#.into(),
        ),
        (
            "a workflow that has failed, and says how its tokens are split",
            vec![run(
                "workflow_finished",
                r#"{"prompt_tokens":1,"completion_tokens":2,"id":"r","workflow_id":"w","status":"failed","outputs":{},"error":"no","elapsed_time":1,"total_tokens":3,"total_steps":3,"created_at":8,"finished_at":9}"#,
            )],
            r#"{"task_id":"t","workflow_run_id":"r","data":{"id":"r","workflow_id":"w","status":"failed","outputs":{},"error":"no","elapsed_time":1,"total_tokens":3,"prompt_tokens":1,"completion_tokens":2,"total_steps":3,"created_at":8,"finished_at":9}}"#.into(),
        ),
        (
            "a workflow that waits for somebody",
            vec![
                run("workflow_started", r#"{"id":"r","workflow_id":"w"}"#),
                run("human_input_required", r#"{"form_token":"f"}"#),
                run("workflow_paused", &paused),
            ],
            format!(
                r#"{{"task_id":"t","workflow_run_id":"r","data":{{"id":"r","workflow_id":"w","status":"paused","outputs":{{}},"error":null,"elapsed_time":0.50,"total_tokens":3,"total_steps":1,"created_at":8,"finished_at":null,"paused_nodes":["n"],"reasons":{reasons}}}}}"#
            ),
        ),
    ];
    for (name, events, expected) in table {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        assert_eq!(whole(&events), Some((200, expected)), "{name}");
    }
}

#[test]
fn an_error_has_the_status_and_the_words_of_an_answer() {
    let internal = OTHER_WORDS[0].1;
    for (error, expected, words) in [
        (
            r#"{"event":"error","message_id":"m","code":"completion_request_error","message":"[x] n\u00f6","status":400}"#,
            400,
            r#"{"code":"completion_request_error","message":"[x] n\u00f6","status":400}"#
                .to_owned(),
        ),
        (
            r#"{"event":"error","code":"rate_limit_error","message":"x","status":429}"#,
            429,
            r#"{"code":"rate_limit_error","message":"x","status":429}"#.to_owned(),
        ),
        (
            r#"{"event":"error","code":"internal_server_error","message":"Internal Server Error, please contact support.","status":500}"#,
            500,
            format!(r#"{{"code":"internal_server_error","message":"{internal}","status":500}}"#),
        ),
        (
            r#"{"event":"error","code":"x","message":{"a":"b"},"status":9999}"#,
            500,
            r#"{"code":"x","message":"{\"a\":\"b\"}","status":500}"#.to_owned(),
        ),
        (
            r#"{"event":"error","code":7,"status":200}"#,
            500,
            r#"{"code":"","message":"","status":500}"#.to_owned(),
        ),
    ] {
        let begun = chat("message", r#""answer": "x""#);
        assert_eq!(whole(&[&begun, error]), Some((expected, words)), "{error}");
    }
}

#[test]
fn a_message_whose_run_has_failed_is_an_error_whichever_is_told_first() {
    let message = &chat("message", r#""answer": "x""#);
    let end = &chat("message_end", r#""metadata": {}"#);
    let run = |status: &str| {
        let data = format!(r#""data": {{"status": "{status}", "error": "no \"x\""}}"#);
        flow("workflow_finished", &data)
    };
    let (failed, started) = (&run("failed"), &flow("workflow_started", r#""data": {}"#));
    let why = r#"{"code":"invalid_param","message":"Run failed: no \"x\"","status":400}"#;
    let said = r#"{"event":"error","code":"bad","message":"y","status":403}"#;
    let heard = r#"{"code":"bad","message":"y","status":403}"#;
    for (events, expected) in [
        (&[started, message, failed, end][..], (400, why)),
        (&[started, message, end, failed], (400, why)),
        (&[message, failed, &said.to_owned()], (403, heard)),
        (&[started, message, end, &said.to_owned()], (403, heard)),
    ] {
        let events: Vec<&str> = events.iter().map(|event| event.as_str()).collect();
        let expected = Some((expected.0, expected.1.to_owned()));
        assert_eq!(whole(&events), expected, "{events:?}");
    }
    for status in ["succeeded", "partial-succeeded", "stopped"] {
        let run = &run(status);
        for events in [[started, message, run, end], [started, message, end, run]] {
            let events = events.map(String::as_str);
            assert_eq!(whole(&events).unwrap().0, 200, "{events:?}");
        }
    }
}

#[test]
fn what_is_not_known_to_be_whole_is_no_answer() {
    let end = chat("message_end", r#""metadata": {}"#);
    for events in [
        &[][..],
        &["event: ping"],
        &[&chat("message", r#""answer": "x""#)],
        &[&chat("message", r#""answer": {}"#), &end],
        &["{\"event\":", &end],
        &["[]", &end],
        &[r#"{"event":"message","answer":"#, &end],
        &[r#"{"event":"message","answer":"x","x":nan}"#, &end],
        &[&flow(
            "workflow_finished",
            r#""data": {"status": "failed"}"#,
        )],
        &[&run("workflow_finished", "null")],
    ] {
        assert_eq!(whole(events), None, "{events:?}");
    }
}
