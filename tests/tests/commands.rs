//! The command line, as a shell sees it.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::tempdir;
use tidegate_tests::process::binary;

const FINE: &str = r#"[[consumers]]
name = "web"
keys = ["$WEB_KEY"]

[providers.openai]
dialect = "openai"
base_url = "https://api.openai.com/v1"
keys = ["$OPENAI_KEY"]

[models.smart]
targets = ["openai/gpt-4.1"]

[[routes]]
name = "llm"
path = "/v1"
serve = "models"
"#;

#[test]
fn check_names_every_mistake_where_it_stands() {
    let text = FINE
        .replace("dialect =", "dialekt =")
        .replace("openai/gpt-4.1", "opnai/gpt-4.1")
        .replace("\"models\"", "7");
    let run = tidegate("check", &text, &[]);
    assert_eq!(run.status.code(), Some(1));
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    for part in [
        "6:",
        "dialekt",
        "`dialect`",
        "11:",
        "opnai",
        "`openai`",
        "16:",
        "serve",
    ] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
}

#[test]
fn check_is_silent_about_secrets_and_content_with_what_is_right() {
    let run = tidegate("check", FINE, &[]);
    assert_eq!(
        run.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn compile_writes_the_same_document_without_any_secret() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("tidegate.json");
    let run = tidegate("compile", FINE, &["--out", out.to_str().unwrap()]);
    assert_eq!(
        run.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let compiled: Value = serde_json::from_str(&fs::read_to_string(out).unwrap()).unwrap();
    let written: Value = toml::from_str(FINE).unwrap();
    assert_eq!(compiled, written);
    assert_eq!(compiled["consumers"][0]["keys"][0], "$WEB_KEY");
}

#[test]
fn the_exit_code_says_whose_fault_it_is() {
    let code = |arguments: &[&str]| {
        Command::new(binary().unwrap())
            .args(arguments)
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(code(&["check", "/nowhere.toml"]), Some(3));
    assert_eq!(code(&["check"]), Some(2));
    assert_eq!(code(&["embark"]), Some(2));
    assert_eq!(
        tidegate("compile", "routes = 1", &["--out", "/dev/null"])
            .status
            .code(),
        Some(1)
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(serve(&["--listen", &address]).status.code(), Some(3));
}

fn tidegate(command: &str, config: &str, more: &[&str]) -> Output {
    let folder = tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    fs::write(&file, config).unwrap();
    run(
        Command::new(binary().unwrap())
            .arg(command)
            .arg(file)
            .args(more),
        folder.path(),
    )
}

fn serve(more: &[&str]) -> Output {
    let folder = tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    fs::write(&file, FINE).unwrap();
    run(
        Command::new(binary().unwrap())
            .args(["serve", "--config"])
            .arg(file)
            .args(more),
        folder.path(),
    )
}

fn run(command: &mut Command, folder: &Path) -> Output {
    command
        .current_dir(folder)
        .env("WEB_KEY", "sk-web")
        .env("OPENAI_KEY", "sk-openai")
        .output()
        .unwrap()
}
