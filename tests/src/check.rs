//! What came, held against what was expected.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    expect::{Dialect, Expect, Seen},
    scenario::{Call, block},
    stage::{Reply, Stage},
    upstream::Request,
    wire,
};

/// All that is wrong with the answer to `call`.
pub fn answer(expect: &Expect, call: &Call, reply: &Reply) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(head) = &reply.head else {
        if !expect.unseen || expect.status.is_some() {
            wrong.push(format!("there is no answer: {}", reply.trouble));
        }
        return wrong;
    };
    let body = &reply.content.bytes;
    let text = String::from_utf8_lossy(body);
    if let Some(status) = &expect.status
        && !status.all().contains(&head.status)
    {
        wrong.push(format!(
            "status {} instead of {:?}",
            head.status,
            status.all()
        ));
    }
    if let Some(code) = &expect.error {
        wrong.extend(refusal(
            expect.says.as_ref().unwrap_or(code),
            expect.dialect,
            reply,
        ));
    }
    if matches!(head.status, 429 | 503) && !expect.unseen {
        let seconds = head
            .header("retry-after")
            .and_then(|seconds| seconds.parse::<u64>().ok());
        if seconds.is_none_or(|seconds| seconds == 0) {
            wrong.push(format!(
                "a {} without a Retry-After in seconds",
                head.status
            ));
        }
    }
    wrong.extend(headers(&expect.headers, &expect.no_headers, &head.headers));
    wrong.extend(content(
        expect.json.as_deref(),
        &expect.contains,
        &expect.lacks,
        &text,
    ));
    if let Some(expected) = &expect.body
        && *expected != text
    {
        wrong.push(format!(
            "the body is\n{}\n  instead of\n{}",
            short(&text),
            short(expected)
        ));
    }
    if let Some(expected) = &expect.bytes
        && expected.chars().map(|c| c as u8).collect::<Vec<_>>() != *body
    {
        wrong.push(format!("the body's bytes are {}", body.escape_ascii()));
    }
    if let Some(size) = expect.size
        && size != body.len()
    {
        wrong.push(format!(
            "the body has {} bytes instead of {size}",
            body.len()
        ));
    }
    if let Some(expected) = &expect.events {
        wrong.extend(events(expected, &text));
    }
    // What an upstream says behind its answer is its own affair.
    if !reply.content.trailers.is_empty() {
        wrong.push(format!("trailers: {:?}", reply.content.trailers));
    }
    if expect.broken != reply.content.broken && !call.leave {
        wrong.push(if expect.broken {
            "it ends as if it were whole".into()
        } else {
            "it breaks off".into()
        });
    }
    wrong
}

/// What is wrong with how long the answer took.
pub fn pace(expect: &Expect, reply: &Reply) -> Vec<String> {
    let mut wrong = Vec::new();
    let first = reply.content.first.unwrap_or(reply.content.end).as_millis();
    if expect
        .first_within_ms
        .is_some_and(|most| first > u128::from(most))
    {
        wrong.push(format!("the first byte came after {first} ms"));
    }
    let end = reply.content.end.as_millis();
    if expect.within_ms.is_some_and(|most| end > u128::from(most)) {
        wrong.push(format!("the answer took {end} ms"));
    }
    wrong
}

/// What is wrong with what the upstreams saw.
pub fn upstreams(expect: &Expect, call: &Call, stage: &dyn Stage) -> Vec<String> {
    let (seen, mut wrong) = stage.script().outcome();
    let key = call.key.as_ref().and_then(|name| stage.secrets().get(name));
    for (name, requests) in &seen {
        for request in requests {
            if let Some((header, _)) = request
                .headers
                .iter()
                .find(|(_, value)| key.is_some_and(|key| value.contains(key.as_str())))
            {
                wrong.push(format!(
                    "upstream {name} was told the caller's key by {header}"
                ));
            }
        }
    }
    for (name, expected) in &expect.upstream {
        let requests = seen.get(name).map(Vec::as_slice).unwrap_or_default();
        if requests.len() != expected.len() {
            wrong.push(format!(
                "upstream {name} was asked {} times instead of {}",
                requests.len(),
                expected.len()
            ));
        }
        for (number, (expected, request)) in expected.iter().zip(requests).enumerate() {
            let problems = request_problems(expected, request);
            wrong.extend(
                problems
                    .into_iter()
                    .map(|problem| format!("request {number} to upstream {name}: {problem}")),
            );
        }
    }
    wrong
}

/// What is wrong with the record of the answer.
pub fn record(expect: &Expect, reply: &Reply, stage: &dyn Stage) -> Vec<String> {
    if expect.unseen {
        return Vec::new();
    }
    let Some(id) = reply.header("x-tidegate-request") else {
        return vec!["the answer has no x-tidegate-request".into()];
    };
    let Some(record) = stage.record(id) else {
        return vec![format!("there is no record of {id}")];
    };
    let mut wrong = Vec::new();
    if record["status"] != reply.status() {
        wrong.push(format!("the record says status {}", record["status"]));
    }
    if let Some(code) = &expect.error
        && record["refusal"] != code.as_str()
    {
        wrong.push(format!("the record says refusal {}", record["refusal"]));
    }
    for key in [
        "time",
        "method",
        "path",
        "attempts",
        "stream",
        "first_byte_ms",
        "total_ms",
        "ended",
    ] {
        if record[key].is_null() {
            wrong.push(format!("the record has no {key}"));
        }
    }
    if let Some(expected) = &expect.record {
        wrong.extend(
            json(expected, &record).map(|problem| format!("the record: {problem}: {record}")),
        );
    }
    wrong
}

/// Secrets and prompts that were said where nobody may hear them. Prompts have the word `canary` in them.
pub fn leaks(reply: &Reply, stage: &dyn Stage) -> Vec<String> {
    let said = stage.overheard();
    let answer = String::from_utf8_lossy(&reply.content.bytes);
    let mut wrong = Vec::new();
    for (name, secret) in stage.secrets() {
        if said.contains(secret.as_str()) {
            wrong.push(format!("the secret {name} is in the log"));
        }
        if answer.contains(secret.as_str())
            || reply
                .head
                .iter()
                .any(|head| format!("{:?}", head.headers).contains(secret))
        {
            wrong.push(format!("the secret {name} is in the answer"));
        }
    }
    if said.contains("canary") {
        wrong.push("a prompt is in the log".into());
    }
    if said.contains("panicked") {
        wrong.push(format!("it panicked: {}", short(&said)));
    }
    wrong
}

fn refusal(code: &str, dialect: Dialect, reply: &Reply) -> Vec<String> {
    let mut wrong = Vec::new();
    if !reply
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/json"))
    {
        wrong.push(format!(
            "a refusal of type {:?}",
            reply.header("content-type")
        ));
    }
    let body: Value = serde_json::from_slice(&reply.content.bytes).unwrap_or_default();
    let (error, keys) = match dialect {
        Dialect::OpenAi => (
            &body["error"],
            ["code", "message", "param", "type"].as_slice(),
        ),
        Dialect::Dify => (&body, ["code", "message", "status"].as_slice()),
    };
    if error["code"] != code {
        wrong.push(format!("the refusal is {body} instead of {code}"));
    }
    if error["message"]
        .as_str()
        .is_none_or(|message| message.len() < 8)
    {
        wrong.push("the refusal explains nothing".into());
    }
    let mut named: Vec<_> = error
        .as_object()
        .into_iter()
        .flat_map(|error| error.keys().map(String::as_str))
        .collect();
    named.sort_unstable();
    if named != keys {
        wrong.push(format!("the refusal has {named:?} instead of {keys:?}"));
    }
    if dialect == Dialect::Dify && error["status"] != reply.status() {
        wrong.push(format!("the refusal says status {}", error["status"]));
    }
    if dialect == Dialect::OpenAi && !error["type"].is_string() {
        wrong.push("the refusal has no type".into());
    }
    wrong
}

fn request_problems(expect: &Seen, request: &Request) -> Vec<String> {
    let text = String::from_utf8_lossy(&request.body);
    let mut wrong = headers(&expect.headers, &expect.no_headers, &request.headers);
    wrong.extend(content(
        expect.json.as_deref(),
        &expect.contains,
        &expect.lacks,
        &text,
    ));
    for (what, expected, is) in [
        ("method", &expect.method, &request.method),
        ("path", &expect.path, &request.path),
    ] {
        if expected.as_ref().is_some_and(|expected| expected != is) {
            wrong.push(format!("the {what} is {is}"));
        }
    }
    if let Some(expected) = &expect.body
        && *expected != text
    {
        wrong.push(format!(
            "the body is\n{}\n  instead of\n{}",
            short(&text),
            short(expected)
        ));
    }
    if let Some(size) = expect.size
        && size != request.body.len()
    {
        wrong.push(format!(
            "the body has {} bytes instead of {size}",
            request.body.len()
        ));
    }
    wrong
}

fn headers(
    expected: &BTreeMap<String, String>,
    absent: &[String],
    all: &[(String, String)],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, expected) in expected {
        let is = wire::header(all, name);
        let right = match (is, expected.strip_prefix('~')) {
            _ if expected.starts_with('!') => !is.is_some_and(|is| is.contains(&expected[1..])),
            (None, _) => false,
            (Some(_), _) if expected == "*" => true,
            (Some(is), Some(part)) => is.contains(part),
            (Some(is), None) => is == expected,
        };
        if !right {
            wrong.push(format!("{name} is {is:?} instead of {expected}"));
        }
    }
    for name in absent {
        if let Some(is) = wire::header(all, name) {
            wrong.push(format!("{name} is {is:?} and should not be there"));
        }
    }
    wrong
}

fn content(part: Option<&str>, contains: &[String], lacks: &[String], text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(part) = part {
        match serde_json::from_str(text) {
            Ok(body) => {
                wrong.extend(json(part, &body).map(|problem| format!("{problem}: {}", short(text))))
            }
            Err(error) => wrong.push(format!("the body is no JSON: {error}: {}", short(text))),
        }
    }
    wrong.extend(
        contains
            .iter()
            .filter(|part| !text.contains(*part))
            .map(|part| format!("`{part}` is missing: {}", short(text))),
    );
    wrong.extend(
        lacks
            .iter()
            .filter(|part| text.contains(*part))
            .map(|part| format!("`{part}` is there: {}", short(text))),
    );
    wrong
}

fn events(expected: &[String], text: &str) -> Vec<String> {
    let Some(stream) = text.strip_suffix("\n\n") else {
        return vec![format!(
            "the stream does not end with an event's end: {}",
            short(text)
        )];
    };
    let blocks: Vec<_> = stream.split("\n\n").collect();
    let mut wrong = Vec::new();
    if blocks.len() != expected.len() {
        wrong.push(format!(
            "{} events instead of {}: {}",
            blocks.len(),
            expected.len(),
            short(text)
        ));
    }
    for (number, (expected, is)) in expected.iter().zip(blocks).enumerate() {
        match expected.strip_prefix('~') {
            None if block(expected) == is => {}
            None => wrong.push(format!(
                "event {number} is `{is}` instead of `{}`",
                block(expected)
            )),
            Some(part) => match is.strip_prefix("data: ").map(serde_json::from_str) {
                Some(Ok(data)) => wrong
                    .extend(json(part, &data).map(|problem| format!("event {number}: {problem}"))),
                _ => wrong.push(format!("event {number} is `{is}`, not data in JSON")),
            },
        }
    }
    wrong
}

/// Where `is` differs from the part of it that is given as text.
fn json(part: &str, is: &Value) -> Option<String> {
    match serde_json::from_str(part) {
        Ok(part) => differs(&part, is).map(|(path, problem)| format!("at `{path}`: {problem}")),
        Err(error) => Some(format!("the scenario expects no JSON: {error}: {part}")),
    }
}

fn differs(part: &Value, is: &Value) -> Option<(String, String)> {
    match (part, is) {
        (Value::String(any), _) if any == "*" && !is.is_null() => None,
        (Value::Object(parts), Value::Object(all)) => {
            parts
                .iter()
                .find_map(|(name, part)| match (part, all.get(name)) {
                    (Value::String(absent), None) if absent == "!absent" => None,
                    (_, None) => Some((name.clone(), "missing".into())),
                    (_, Some(is)) => {
                        differs(part, is).map(|(path, problem)| (format!("{name}.{path}"), problem))
                    }
                })
        }
        (Value::Array(parts), Value::Array(all)) if parts.len() == all.len() => parts
            .iter()
            .zip(all)
            .enumerate()
            .find_map(|(number, (part, is))| {
                differs(part, is).map(|(path, problem)| (format!("{number}.{path}"), problem))
            }),
        _ if part == is => None,
        _ => Some((String::new(), format!("{is} instead of {part}"))),
    }
}

fn short(text: &str) -> String {
    if text.len() < 3000 {
        return text.into();
    }
    let part: String = text.chars().take(1500).collect();
    format!("{part}… ({} bytes)", text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_held_as_a_part() {
        let is = serde_json::json!({ "a": [1, { "b": null, "c": "d" }], "e": 5 });
        assert_eq!(json(r#"{"a":[1,{"b":null}]}"#, &is), None);
        assert_eq!(json(r#"{"a":"*","f":"!absent"}"#, &is), None);
        for part in [
            r#"{"a":[1]}"#,
            r#"{"a":[1,{"b":1}]}"#,
            r#"{"e":"!absent"}"#,
            r#"{"f":null}"#,
            r#"{"e":6}"#,
            "{",
        ] {
            assert!(json(part, &is).is_some(), "{part}");
        }
        assert!(json(r#"{"a":"*"}"#, &serde_json::json!({ "a": null })).is_some());
    }

    #[test]
    fn events_are_held_exactly_and_in_order() {
        let all = |expected: &[&str], text| {
            events(
                &expected.iter().map(|e| (*e).into()).collect::<Vec<_>>(),
                text,
            )
        };
        assert!(
            all(
                &["1", "event: ping", r#"~{"a":1}"#],
                "data: 1\n\nevent: ping\n\ndata: {\"a\":1,\"b\":2}\n\n"
            )
            .is_empty()
        );
        assert!(!all(&["1"], "data: 1\n\ndata: 2\n\n").is_empty());
        assert!(!all(&["1", "2"], "data: 2\n\ndata: 1\n\n").is_empty());
        assert!(!all(&["1"], "data: 1\n").is_empty());
    }
}
