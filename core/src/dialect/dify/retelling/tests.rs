use http::Uri;

use super::*;
use crate::upstream::Form;

fn telling(app: Form, at_once: bool) -> Retelling {
    let origin = Origin {
        name: "support".into(),
        base: Uri::from_static("http://dify/v1"),
        keys: Vec::new(),
        prefill: None,
        app: Some(app),
        on_abort: None,
    };
    Retelling::new(Rc::new(origin), "helper".into(), 7).at_once(at_once)
}

fn workflow() -> Form {
    Form::Workflow {
        input: "text".into(),
        output: "result".into(),
    }
}

fn stream(events: &[&str]) -> Vec<u8> {
    let event = |event: &&str| ["data: ", event, "\n\n"].concat();
    let events: String = events.iter().map(event).collect();
    events.into()
}

/// What a stream is told as, where its bytes come in pieces of this length.
fn told(mut telling: Retelling, stream: &[u8], length: usize) -> (Retelling, String) {
    let mut out = Vec::new();
    for piece in stream.chunks(length) {
        let piece = telling.push(Bytes::copy_from_slice(piece));
        out.extend_from_slice(&piece);
    }
    out.extend_from_slice(&telling.finish());
    (telling, String::from_utf8(out).unwrap())
}

/// What each event of it says: the words of its first choice, how that has finished, what it has cost, or what is wrong.
fn words(told: &str) -> Vec<String> {
    let said = told.split_terminator("\n\n").map(|event| {
        let data = event.strip_prefix("data: ").unwrap();
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            return data.into();
        };
        let text = |path| Some(event.pointer(path)?.as_str()?.to_owned());
        let cost = || {
            let tokens = |name| event["usage"][name].as_u64();
            let (prompt, completion) = (tokens("prompt_tokens")?, tokens("completion_tokens")?);
            let total = tokens("total_tokens")?;
            Some(format!("{prompt}+{completion}={total}"))
        };
        let thought = || Some(format!("({})", text("/choices/0/delta/reasoning_content")?));
        text("/error/code")
            .or_else(|| text("/choices/0/delta/content"))
            .or_else(thought)
            .or_else(|| text("/choices/0/text").filter(|text| !text.is_empty()))
            .or_else(|| text("/choices/0/finish_reason"))
            .or_else(cost)
            .unwrap_or_default()
    });
    said.collect()
}

/// What of an answer at once corresponds to that.
fn at_once(telling: Retelling) -> Vec<String> {
    match telling.retold() {
        Retold::Open => vec!["open".into()],
        Retold::Failed(status, error) => {
            let error: Value = serde_json::from_str(&error).unwrap();
            let code = error["error"]["code"].as_str().unwrap();
            vec![code.into(), status.as_u16().to_string()]
        }
        Retold::Whole(answer) => {
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let choice = &answer["choices"][0];
            let text = choice["message"]["content"].as_str();
            let text = text.or_else(|| choice["text"].as_str()).unwrap();
            let total = answer["usage"]["total_tokens"].as_u64();
            vec![
                text.into(),
                total.map_or_else(|| "?".into(), |total| total.to_string()),
            ]
        }
    }
}

const SAID: &str = r#"{"event":"message","task_id":"t","message_id":"m","conversation_id":"c","created_at":5,"answer":"Hé"}"#;
const MORE: &str = r#"{"event": "message", "message_id": "m", "answer": " \ud83d\ude00"}"#;
const END: &str = r#"{"event":"message_end","message_id":"m","metadata":{"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}}"#;
const BARE_END: &str = r#"{"event":"message_end","message_id":"m","metadata":{}}"#;
const ZEROS: &str = r#"{"event":"message_end","message_id":"m","metadata":{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}}"#;
const SMALL_RUN: &str =
    r#"{"event":"workflow_finished","data":{"status":"succeeded","total_tokens":7}}"#;
const BY_AGENT: &str = r#"{"event":"agent_message","message_id":"m","answer":"Hi"}"#;
const THOUGHT: &str =
    r#"{"event":"agent_thought","message_id":"m","thought":"I look it up","tool":"x"}"#;
const REASON: &str =
    r#"{"event":"reasoning_chunk","message_id":"m","data":{"reasoning":"hm","is_final":false}}"#;
const STARTED: &str =
    r#"{"event":"workflow_started","task_id":"t","workflow_run_id":"r","data":{"id":"r"}}"#;
const NODE: &str = r#"{"event":"node_finished","data":{"process_data":{"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}}}"#;
const CHUNK: &str =
    r#"{"event":"text_chunk","data":{"text":"Bon","from_variable_selector":["1712","result"]}}"#;
const OTHER: &str =
    r#"{"event":"text_chunk","data":{"text":"<debug>","from_variable_selector":["1713","text"]}}"#;
const NAMESAKE: &str =
    r#"{"event":"text_chunk","data":{"text":"<x>","from_variable_selector":["1713","result"]}}"#;
const UNKNOWN: &str = r#"{"event":"text_chunk","data":{"text":"?"}}"#;
const RUN: &str = r#"{"event":"workflow_finished","data":{"status":"succeeded","outputs":{"result":"Bonjour","other":1},"total_tokens":20}}"#;
const FAILED: &str =
    r#"{"event":"workflow_finished","data":{"status":"failed","error":"no","total_tokens":20}}"#;
const PAUSED: &str = r#"{"event":"workflow_paused","data":{"status":"paused"}}"#;
const ERROR: &str =
    r#"{"event":"error","code":"completion_request_error","message":"no","status":400}"#;

#[test]
fn each_kind_of_app_is_told_as_a_model() {
    let replaced = r#"{"event":"message_replace","message_id":"m","answer":"No."}"#;
    let same = r#"{"event":"message_replace","message_id":"m","answer":"Hé"}"#;
    let longer = r#"{"event":"message_replace","message_id":"m","answer":"Héllo"}"#;
    let fuller = r#"{"event":"message","message_id":"m","answer":"Hi there"}"#;
    let silent = r#"{"event":"message","message_id":"m","answer":""}"#;
    let again = r#"{"event":"message","message_id":"m","answer":"Hi"}"#;
    let stopped =
        r#"{"event":"workflow_finished","data":{"status":"stopped","outputs":{"result":"B"}}}"#;
    let partly = r#"{"event":"workflow_finished","data":{"status":"partial-succeeded","outputs":{"result":{"a":1}}}}"#;
    let lacking = r#"{"event":"workflow_finished","data":{"status":"succeeded","outputs":{}}}"#;
    for (app, events, streamed, whole) in [
        (
            Form::Chat,
            &[SAID, MORE, END][..],
            &["Hé", " 😀", "stop", "5+2=7", "[DONE]"][..],
            ["Hé 😀", "7"],
        ),
        (
            Form::Completion("query".into()),
            &[SAID, END],
            &["Hé", "stop", "5+2=7", "[DONE]"],
            ["Hé", "7"],
        ),
        // An agent thinks, and may say all of it again in the end.
        (
            Form::Chat,
            &[THOUGHT, BY_AGENT, again, END],
            &["Hi", "stop", "5+2=7", "[DONE]"],
            ["Hi", "7"],
        ),
        (
            Form::Chat,
            &[THOUGHT, again, END],
            &["Hi", "stop", "5+2=7", "[DONE]"],
            ["Hi", "7"],
        ),
        (
            Form::Chat,
            &[REASON, SAID, END],
            &["(hm)", "Hé", "stop", "5+2=7", "[DONE]"],
            ["Hé", "7"],
        ),
        // A chatflow ends with both, in either order.
        // It has cost the larger of what they say, and without a message that ends it is not whole.
        (
            Form::Chat,
            &[STARTED, SAID, NODE, END, RUN],
            &["Hé", "stop", "16+4=20", "[DONE]"],
            ["Hé", "20"],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, NODE, RUN, END],
            &["Hé", "stop", "16+4=20", "[DONE]"],
            ["Hé", "20"],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, RUN, BARE_END],
            &["Hé", "stop", "20+0=20", "[DONE]"],
            ["Hé", "20"],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, ZEROS, RUN],
            &["Hé", "stop", "20+0=20", "[DONE]"],
            ["Hé", "20"],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, END],
            &["Hé", "stop", "5+2=7", "[DONE]"],
            ["Hé", "7"],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, END, MORE, SMALL_RUN, MORE],
            &["Hé", "stop", "5+2=7", "[DONE]"],
            ["Hé", "7"],
        ),
        (
            Form::Chat,
            &[SAID, ZEROS],
            &["Hé", "stop", "[DONE]"],
            ["Hé", "?"],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, NODE, RUN],
            &["Hé", "16+4=20"],
            ["open", ""],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, END, FAILED],
            &["Hé", "stop", "20+0=20", "workflow_failed"],
            ["workflow_failed", "500"],
        ),
        (
            Form::Chat,
            &[STARTED, FAILED, ERROR],
            &["20+0=20", "completion_request_error"],
            ["completion_request_error", "500"],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, FAILED],
            &["Hé", "20+0=20", "workflow_failed"],
            ["workflow_failed", "500"],
        ),
        (
            Form::Chat,
            &[SAID, ERROR, END],
            &["Hé", "completion_request_error"],
            ["completion_request_error", "500"],
        ),
        (
            Form::Chat,
            &[SAID, PAUSED],
            &["Hé", "workflow_paused"],
            ["workflow_paused", "400"],
        ),
        (
            Form::Chat,
            &[STARTED, SAID, FAILED, END],
            &["Hé", "20+0=20", "workflow_failed"],
            ["workflow_failed", "500"],
        ),
        (
            Form::Chat,
            &[replaced, SAID, replaced, END],
            &["No.", "Hé", "content_filter", "5+2=7", "[DONE]"],
            ["No.", "7"],
        ),
        (
            workflow(),
            &[r#"{"event":"text_replace","data":{"text":"No."}}"#, RUN],
            &["No.", "stop", "20+0=20", "[DONE]"],
            ["No.", "20"],
        ),
        // What is taken back before it was heard was never said.
        (
            Form::Chat,
            &[replaced, MORE, END],
            &["No.", " 😀", "stop", "5+2=7", "[DONE]"],
            ["No. 😀", "7"],
        ),
        (
            Form::Chat,
            &[REASON, replaced, END],
            &["(hm)", "No.", "stop", "5+2=7", "[DONE]"],
            ["No.", "7"],
        ),
        (
            Form::Chat,
            &[SAID, replaced, MORE, END],
            &["Hé", "content_filter", "5+2=7", "[DONE]"],
            ["No. 😀", "7"],
        ),
        // What says the same again, or goes on with it, takes nothing back.
        (
            Form::Chat,
            &[SAID, same, MORE, END],
            &["Hé", " 😀", "stop", "5+2=7", "[DONE]"],
            ["Hé 😀", "7"],
        ),
        (
            Form::Chat,
            &[SAID, longer, END],
            &["Hé", "llo", "stop", "5+2=7", "[DONE]"],
            ["Héllo", "7"],
        ),
        // What an agent says once more is all of it.
        (
            Form::Chat,
            &[BY_AGENT, fuller, END],
            &["Hi", " there", "stop", "5+2=7", "[DONE]"],
            ["Hi there", "7"],
        ),
        (
            Form::Chat,
            &[BY_AGENT, MORE, SAID, END],
            &["Hi", "content_filter", "5+2=7", "[DONE]"],
            [" 😀Hé", "7"],
        ),
        (
            Form::Chat,
            &[BY_AGENT, silent, again, MORE, BY_AGENT, END],
            &["Hi", " 😀", "Hi", "stop", "5+2=7", "[DONE]"],
            ["Hi 😀Hi", "7"],
        ),
        (Form::Chat, &[SAID], &["Hé"], ["open", ""]),
        (Form::Chat, &[STARTED, NODE], &[], ["open", ""]),
        (
            workflow(),
            &[STARTED, CHUNK, NODE, RUN],
            &["Bon", "jour", "stop", "16+4=20", "[DONE]"],
            ["Bonjour", "20"],
        ),
        // What may be of another output is held back; what was not of it after all is taken back.
        (
            workflow(),
            &[STARTED, OTHER, CHUNK, UNKNOWN, RUN],
            &["Bon", "jour", "stop", "20+0=20", "[DONE]"],
            ["Bonjour", "20"],
        ),
        (
            workflow(),
            &[STARTED, NAMESAKE, CHUNK, RUN],
            &["<x>", "content_filter", "20+0=20", "[DONE]"],
            ["Bonjour", "20"],
        ),
        (
            workflow(),
            &[STARTED, OTHER, UNKNOWN, lacking],
            &["<debug>?", "stop", "[DONE]"],
            ["<debug>?", "?"],
        ),
        (
            workflow(),
            &[STARTED, NODE, RUN],
            &["Bonjour", "stop", "16+4=20", "[DONE]"],
            ["Bonjour", "20"],
        ),
        (
            workflow(),
            &[STARTED, REASON, RUN],
            &["(hm)", "Bonjour", "stop", "20+0=20", "[DONE]"],
            ["Bonjour", "20"],
        ),
        (
            workflow(),
            &[STARTED, partly],
            &[r#"{"a":1}"#, "stop", "[DONE]"],
            [r#"{"a":1}"#, "?"],
        ),
        (
            workflow(),
            &[STARTED, CHUNK, lacking],
            &["Bon", "stop", "[DONE]"],
            ["Bon", "?"],
        ),
        (
            workflow(),
            &[STARTED, lacking],
            &["workflow_failed"],
            ["workflow_failed", "500"],
        ),
        (
            workflow(),
            &[STARTED, CHUNK, FAILED],
            &["Bon", "20+0=20", "workflow_failed"],
            ["workflow_failed", "500"],
        ),
        (
            workflow(),
            &[STARTED, stopped],
            &["workflow_stopped"],
            ["workflow_stopped", "400"],
        ),
        (
            workflow(),
            &[STARTED, PAUSED],
            &["workflow_paused"],
            ["workflow_paused", "400"],
        ),
        (workflow(), &[STARTED, CHUNK], &["Bon"], ["open", ""]),
    ] {
        let bytes = stream(events);
        let (_, once) = told(telling(app.clone(), false), &bytes, bytes.len());
        assert_eq!(words(&once), streamed, "{events:?}");
        for length in [1, 2, 3, 7] {
            assert_eq!(told(telling(app.clone(), false), &bytes, length).1, once);
        }
        let (heard, nothing) = told(telling(app.clone(), true), &bytes, bytes.len());
        assert_eq!(nothing, "");
        let whole: Vec<_> = whole.into_iter().filter(|word| !word.is_empty()).collect();
        assert_eq!(at_once(heard), whole, "{events:?}");
    }
}

#[test]
fn what_nobody_reads_may_be_what_it_likes_and_a_character_may_come_in_halves() {
    let deep = ["[".repeat(200), "]".repeat(200)].concat();
    let unread = [
        r#"{"event":"node_finished","data":{"outputs":{"score":NaN,"x":-Infinity}}}"#.into(),
        r#"{"event":"node_finished","data":{"outputs":{"text":"\ud83d"}}}"#.into(),
        format!(r#"{{"event":"node_finished","data":{{"outputs":{deep}}}}}"#),
        format!(r#"{{"event":"node_started","x":{deep}}}"#),
        r#"{"event":"iteration_next","data":nan}"#.into(),
        "null".into(),
    ];
    let [one, two] = [r#" \ud83d"#, r#"\ude00"#].map(|half| MORE.replace(r#" \ud83d\ude00"#, half));
    let lost = MORE.replace(r#" \ud83d\ude00"#, r#"\ud83d"#);
    let end = END.replace("\"usage\"", "\"score\":NaN,\"usage\"");
    let mut events: Vec<&str> = vec![SAID];
    events.extend(unread.iter().map(String::as_str));
    events.extend([&*one, unread[0].as_str(), &*two, &*lost, &*end]);
    let bytes = stream(&events);
    let (heard, said) = told(telling(Form::Chat, false), &bytes, 7);
    assert_eq!(heard.wrong(), None);
    let expected = ["Hé", " ", "😀", "\u{fffd}", "stop", "5+2=7", "[DONE]"];
    assert_eq!(words(&said), expected);
    let (heard, _) = told(telling(Form::Chat, true), &bytes, 99);
    assert_eq!(at_once(heard), ["Hé 😀\u{fffd}", "7"]);
    let run = RUN.replace("\"other\":1", "\"other\":NaN");
    let (heard, _) = told(telling(workflow(), true), &stream(&[STARTED, &run]), 99);
    assert_eq!(at_once(heard), ["Bonjour", "20"]);
}

#[test]
fn every_event_says_whose_it_is() {
    let bytes = stream(&[SAID, END]);
    let (_, told) = told(telling(Form::Chat, false).keeping(true), &bytes, 1 << 10);
    let head = r#"data: {"conversation":{"id":"c"},"created":5,"id":"m","model":"helper","object":"chat.completion.chunk","choices":"#;
    let said = [
        r#"[{"index":0,"delta":{"role":"assistant","content":"Hé"},"finish_reason":null}]}"#,
        r#"[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        r#"[],"usage":{"completion_tokens":2,"prompt_tokens":5,"total_tokens":7}}"#,
    ];
    let expected = said.map(|said| [head, said, "\n\n"].concat()).concat();
    assert_eq!(told, expected + "data: [DONE]\n\n");
}

#[test]
fn no_event_is_much_longer_than_what_it_says() {
    let long = "m".repeat(129);
    let said = SAID
        .replace(r#""m""#, &format!("\"{long}\""))
        .replace(r#""c""#, &format!("\"{long}\""));
    let (heard, told) = told(
        telling(Form::Chat, false).keeping(true),
        &stream(&[&said, END]),
        99,
    );
    assert!(
        told.contains(r#""id":"t""#) && !told.contains(&long),
        "{told}"
    );
    assert_eq!(heard.conversation(), None);
}

#[test]
fn it_is_there_since_dify_says_so() {
    for (event, created) in [
        (r#"{"created_at":5,"data":{"created_at":6}}"#, 5),
        (r#"{"data":{"created_at":6}}"#, 6),
        (r#"{"created_at":"5"}"#, 7),
    ] {
        let (_, told) = told(telling(Form::Chat, false), &stream(&[event, SAID]), 99);
        assert!(told.contains(&format!("\"created\":{created},")), "{told}");
    }
}

#[test]
fn a_text_is_told_as_one() {
    let bytes = stream(&[REASON, SAID, END]);
    let (_, streamed) = told(telling(Form::Chat, false).as_text(true), &bytes, 9);
    let head =
        r#"data: {"created":7,"id":"m","model":"helper","object":"text_completion","choices":"#;
    let first = r#"[{"index":0,"text":"Hé","finish_reason":null}]}"#;
    assert!(
        streamed.starts_with(&[head, first, "\n\n"].concat()),
        "{streamed}"
    );
    let (heard, _) = told(telling(Form::Chat, true).as_text(true), &bytes, 9);
    assert_eq!(
        heard.retold(),
        Retold::Whole(
            r#"{"created":7,"id":"m","model":"helper","object":"text_completion","choices":[{"index":0,"text":"Hé","logprobs":null,"finish_reason":"stop"}],"usage":{"completion_tokens":2,"prompt_tokens":5,"total_tokens":7}}"#.into()
        )
    );
}

#[test]
fn what_is_no_event_of_difys_is_no_answer() {
    for wrong in [
        "<html>",
        "5",
        "[]",
        "{}x",
        "\"x\"",
        "{\"event\":\"message\"",
    ] {
        // What came before it was said nevertheless, wherever the bytes are cut.
        for length in [1, 1_000] {
            let bytes = stream(&[SAID, wrong, END]);
            let (heard, said) = told(telling(Form::Chat, false), &bytes, length);
            assert_eq!(heard.wrong(), Some("an event is not JSON"), "{wrong}");
            assert_eq!(words(&said), ["Hé"]);
        }
    }
    // These say nothing, and are no error.
    for event in [
        "event: ping\n\n",
        ": x\n\n",
        "data:\n\n",
        "data: {}\n\n",
        "data: null\n\n",
        "data: {\"event\":\"node_finished\",\"data\":nan}\n\n",
        "data: {\"event\":7,\"answer\":[]}\n\n",
        "data: {\"event\":\"message\",\"answer\":null}\n\n",
        "data: {\"event\":\"tts_message\",\"audio\":\"aGk=\"}\n\n",
    ] {
        let (heard, said) = told(telling(Form::Chat, false), event.as_bytes(), 99);
        assert_eq!((heard.wrong(), &*said), (None, ""), "{event}");
    }
    let mut endless = telling(Form::Chat, false);
    endless.push(vec![b'x'; sse::LONGEST_EVENT + 1].into());
    assert!(endless.wrong().is_some());
}
