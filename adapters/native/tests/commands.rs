//! The command line: what it prints, and the codes that it exits with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on is over"
)]

use std::{fs, net::TcpListener, path::Path, process::Command};

use serde_json::Value;
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

const SECRETS: [(&str, &str); 2] = [("WEB_KEY", "tg-web"), ("OPENAI_KEY", "sk-openai")];

#[test]
fn a_fine_file_is_said_to_be_fine_with_the_secrets_that_it_needs() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), FINE);
    let expected = (
        0,
        format!("{file}: fine\nsecrets: OPENAI_KEY, WEB_KEY\n"),
        String::new(),
    );
    assert_eq!(tidegate(&["check", &file]), expected);
    // The secrets themselves change nothing, and are not told.
    assert_eq!(tidegate_with(&SECRETS, &["check", &file]), expected);
}

#[test]
fn every_mistake_is_told_at_once_where_it_stands_with_what_was_meant() {
    let dir = tempdir().unwrap();
    let elsewhere = FINE
        .replace("[\"openai/gpt-4.1\"]", "[\"opena/gpt-4.1\"]")
        .replace("path  = \"/v1\"", "pth   = \"/v1\"\npath  = \"/v1\"")
        .replace("\"models\"", "7");
    let rest = [
        ("12:12: models.smart.targets[0]: ", "`openai`"),
        ("16:1: routes[0].pth: ", "`path`"),
        ("18:9: routes[0].serve: ", "a text"),
    ];
    let value = ("dialect  = \"openai\"", "dialect  = \"opnai\"");
    let key = ("dialect  = \"openai\"", "dialekt  = \"openai\"");
    let table = [
        (
            value,
            &[("7:12: providers.openai.dialect: ", "`openai`")][..],
        ),
        (
            key,
            &[
                ("6:1: providers.openai: ", "`dialect` is missing"),
                ("7:1: providers.openai.dialekt: ", "`dialect`"),
            ],
        ),
    ];
    for ((right, wrong), first) in table {
        let file = write(dir.path(), &elsewhere.replace(right, wrong));
        let (code, out, err) = tidegate(&["check", &file]);
        assert_eq!((code, out.as_str()), (1, ""));
        let expected = || first.iter().chain(&rest);
        assert_eq!(err.lines().count(), expected().count(), "{err}");
        for (line, (place, meant)) in err.lines().zip(expected()) {
            let message = line.strip_prefix(&format!("{file}:{place}"));
            assert!(
                message.unwrap_or_default().contains(meant),
                "{place}\n{err}"
            );
        }
    }
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
fn compile_writes_the_same_document_as_json_and_keeps_secrets_references() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), FINE);
    let out = dir.path().join("out.json").display().to_string();
    let done = tidegate_with(&SECRETS, &["compile", &file, "--out", &out]);
    assert_eq!(done.0, 0, "{}", done.2);
    let compiled: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    let written: Value = toml::from_str(FINE).unwrap();
    assert_eq!(compiled, written);
    assert_eq!(compiled["consumers"][0]["keys"][0], "$WEB_KEY");

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
        &["embark"],
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
fn an_address_that_is_taken_is_a_fault_of_the_machine() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), FINE);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["serve", "--config", &file, "--listen", &address];
    let (code, _, err) = tidegate_with(&SECRETS, &serve);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains(&address), "{err}");
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
    tidegate_with(&[], arguments)
}

fn tidegate_with(secrets: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .env_remove("WEB_KEY")
        .env_remove("OPENAI_KEY")
        .envs(secrets.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}
