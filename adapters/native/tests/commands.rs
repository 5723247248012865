//! The command line: what it prints, and the codes that it exits with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on is over"
)]

use std::{fs, path::Path, process::Command};

use tempfile::tempdir;

const FINE: &str = r#"
[[consumers]]
name = "web"
keys = ["$WEB_KEY"]

[providers.openai]
dialect  = "openai"
base_url = "https://api.openai.com/v1"
keys     = ["$OPENAI_KEY"]

[models.smart]
targets = ["openai/gpt-4.1"]

[[routes]]
name  = "llm"
path  = "/v1"
serve = "models"
"#;

#[test]
fn a_fine_file_is_said_to_be_fine_with_the_secrets_that_it_needs() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), FINE);
    let done = tidegate(&["check", &file]);
    assert_eq!(
        done,
        (
            0,
            format!("{file}: fine\nsecrets: OPENAI_KEY, WEB_KEY\n"),
            String::new()
        )
    );
}

#[test]
fn three_mistakes_are_told_at_once_where_they_stand() {
    let dir = tempdir().unwrap();
    let wrong = FINE
        .replace("dialect  = \"openai\"", "dialect  = \"opnai\"")
        .replace("[\"openai/gpt-4.1\"]", "[\"opena/gpt-4.1\"]")
        .replace("path  = \"/v1\"", "pth   = \"/v1\"\npath  = \"/v1\"");
    let file = write(dir.path(), &wrong);
    let (code, out, err) = tidegate(&["check", &file]);
    assert_eq!((code, out.as_str()), (1, ""));
    let places: Vec<String> = err
        .lines()
        .map(|line| {
            line.strip_prefix(&file)
                .unwrap()
                .splitn(4, ':')
                .skip(1)
                .take(2)
                .collect::<Vec<_>>()
                .join(":")
        })
        .collect();
    assert_eq!(places, ["7:12", "12:12", "16:1"], "{err}");
    assert!(
        err.contains("providers.openai.dialect: ") && err.contains("`openai`"),
        "{err}"
    );
}

#[test]
fn syntax_errors_have_their_place() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), "[gateway\nlisten = \"a\"\n[b\n");
    let (code, _, err) = tidegate(&["check", &file]);
    assert_eq!(code, 1);
    assert!(
        err.lines()
            .any(|line| line.starts_with(&format!("{file}:1:9: "))),
        "{err}"
    );
    assert!(
        err.lines()
            .any(|line| line.starts_with(&format!("{file}:3:"))),
        "{err}"
    );
}

#[test]
fn what_is_wrong_with_the_text_hides_nothing_that_is_wrong_with_its_meaning() {
    let dir = tempdir().unwrap();
    let wrong = FINE
        .replace("name = \"web\"", "name = 2026-01-01\nname = \"web\"")
        .replace("dialect  = \"openai\"", "dialect  = \"opnai\"");
    let file = write(dir.path(), &wrong);
    let (code, _, err) = tidegate(&["check", &file]);
    assert_eq!(code, 1);
    let expected = [
        "3:8: consumers[0].name: ",
        "4:1: ",
        "8:12: providers.openai.dialect: ",
    ];
    assert_eq!(err.lines().count(), expected.len(), "{err}");
    for (line, expected) in err.lines().zip(expected) {
        assert!(line.starts_with(&format!("{file}:{expected}")), "{err}");
    }
}

#[test]
fn nobody_has_to_listen() {
    let dir = tempdir().unwrap();
    for (text, expected) in [(FINE, 0), ("[[routes]]\n", 1)] {
        let file = write(dir.path(), text);
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["check", &file])
            .stdout(closed())
            .stderr(closed())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(expected));
    }
}

/// The writing end of a pipe whose reader has gone.
fn closed() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn what_a_runtime_cannot_give_is_refused_for_that_runtime() {
    let dir = tempdir().unwrap();
    let file = write(
        dir.path(),
        &format!("[gateway]\nstore = \"redis://127.0.0.1\"\n{FINE}"),
    );
    assert_eq!(tidegate(&["check", &file]).0, 0);
    let (code, _, err) = tidegate(&["check", &file, "--runtime", "cloudflare"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with(&format!("{file}:2:9: gateway.store: ")),
        "{err}"
    );
}

#[test]
fn compile_writes_the_document_as_json_and_keeps_secrets_references() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), FINE);
    let out = dir.path().join("out.json").display().to_string();
    assert_eq!(tidegate(&["compile", &file, "--out", &out]).0, 0);
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(json["consumers"][0]["keys"][0], "$WEB_KEY");
    assert_eq!(json["routes"][0]["serve"], "models");

    let wrong = write(dir.path(), "[[routes]]\n");
    fs::remove_file(&out).unwrap();
    assert_eq!(tidegate(&["compile", &wrong, "--out", &out]).0, 1);
    assert!(!Path::new(&out).exists());
}

#[test]
fn codes_tell_what_kind_of_thing_went_wrong() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), FINE);
    assert_eq!(tidegate(&["--help"]).0, 0);
    assert_eq!(tidegate(&["--version"]).0, 0);
    for usage in [
        &[][..],
        &["explain"],
        &["serve"],
        &["check"],
        &["check", &file, "--runtime", "moon"],
        &["compile", &file],
    ] {
        assert_eq!(tidegate(usage).0, 2, "{usage:?}");
    }
    assert_eq!(tidegate(&["check", "/nowhere/at/all.toml"]).0, 3);
    assert_eq!(
        tidegate(&["serve", "--config", "/nowhere/at/all.toml"]).0,
        3
    );
    assert_eq!(
        tidegate(&["compile", &file, "--out", "/nowhere/at/all.json"]).0,
        3
    );
}

#[test]
fn serving_without_a_secret_names_it() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), FINE);
    let (code, _, err) = tidegate(&["serve", "--config", &file, "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("WEB_KEY") && err.contains("OPENAI_KEY"),
        "{err}"
    );
}

fn write(dir: &Path, text: &str) -> String {
    let file = dir.join("tidegate.toml");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn tidegate(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .env_remove("WEB_KEY")
        .env_remove("OPENAI_KEY")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}
