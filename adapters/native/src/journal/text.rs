//! A record as one line for people: what came, who was asked, what it cost, how it ended.

use std::fmt::Write;

use tidegate_core::record::{Ending, Record};

/// `12:30:01 POST /v1/chat/completions 200 · route llm · web · asked for smart · a/m 503 in 2 ms, b/m 200 in 9 ms · …`
pub(crate) fn line(record: &Record) -> String {
    let mut line = String::with_capacity(256);
    // Writing to a text does not fail.
    let _ = write(&mut line, record);
    line
}

fn write(line: &mut String, record: &Record) -> std::fmt::Result {
    let seconds = record.time.0 / 1000;
    write!(
        line,
        "{:02}:{:02}:{:02} ",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )?;
    write!(
        line,
        "{} {} {}",
        record.method,
        printable(&record.path),
        record.status
    )?;
    if let Some(code) = record.refusal {
        write!(line, " ({code})")?;
    }
    if let Some(route) = &record.route {
        write!(line, " · route {route}")?;
    }
    if let Some(consumer) = &record.consumer {
        write!(line, " · {}", printable(consumer))?;
    }
    if let Some(model) = &record.model {
        write!(line, " · asked for {}", printable(model))?;
    }
    for (index, attempt) in record.attempts.iter().enumerate() {
        let before = if index == 0 { " · " } else { ", then " };
        write!(
            line,
            "{before}{} {} in {} ms",
            printable(&attempt.target),
            attempt.outcome,
            attempt.ms
        )?;
        if let Some(detail) = &attempt.detail {
            write!(line, " ({})", printable(detail))?;
        }
    }
    let usage = &record.usage;
    match (usage.tokens_in, usage.tokens_out, usage.tokens) {
        (None, None, None) => {}
        (None, None, Some(tokens)) => write!(line, " · {tokens} tokens")?,
        (tokens_in, tokens_out, _) => {
            write!(
                line,
                " · {} tokens in, {} out",
                tokens_in.unwrap_or(0),
                tokens_out.unwrap_or(0)
            )?;
        }
    }
    let kind = if record.stream { "stream " } else { "" };
    let ended = match record.ended {
        Ending::Whole => "whole",
        Ending::Rescued => "rescued",
        Ending::Truncated => "cut short by the upstream",
        Ending::Abandoned => "abandoned by the caller",
        Ending::PassedOn => "handed through unread",
        Ending::Limited => "cut short by a limit on tokens",
        Ending::Refused => "refused",
    };
    write!(
        line,
        " · {kind}{ended}, first byte {} ms, end {} ms",
        record.first_byte_ms, record.total_ms
    )?;
    if let Some(fault) = &record.fault {
        write!(line, " · fault: {}", printable(fault))?;
    }
    Ok(())
}

/// What a caller or an upstream said, with nothing in it that moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{FFFD}'
            } else {
                letter
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tidegate_core::{record::Attempt, time::Timestamp, usage::Usage};

    use super::*;

    #[test]
    fn a_fallback_can_be_read() {
        let attempt = |target: &str, outcome: &str, ms| Attempt {
            target: target.into(),
            outcome: outcome.into(),
            ms,
            detail: None,
        };
        let record = Record {
            id: "7".into(),
            time: Timestamp(45_296_000),
            method: "POST".into(),
            path: "/v1/\u{1b}[2J".into(),
            route: Some("llm".into()),
            consumer: Some("web".into()),
            model: Some("smart".into()),
            served_by: Some("b/m".into()),
            attempts: vec![attempt("a/m", "503", 2), attempt("b/m", "200", 9)],
            status: 200,
            refusal: None,
            waited_ms: None,
            stream: true,
            first_byte_ms: 12,
            total_ms: 40,
            usage: Usage {
                tokens_in: Some(3),
                tokens_out: Some(4),
                tokens: None,
            },
            counted: None,
            admin: None,
            ended: Ending::Whole,
            fault: None,
        };
        assert_eq!(
            line(&record),
            "12:34:56 POST /v1/\u{FFFD}[2J 200 · route llm · web · asked for smart · a/m 503 in 2 ms, then b/m 200 in 9 ms \
             · 3 tokens in, 4 out · stream whole, first byte 12 ms, end 40 ms"
        );
    }
}
