//! A configuration is built, or refused with reasons.

use tidegate_core::config::{Config, Runtime, Value};

/// Reads `bytes` as a configuration, in TOML or in JSON.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(document) = toml::from_str::<Value>(text) {
        build(&document);
    }
    if let Ok(document) = serde_json::from_str::<Value>(text) {
        build(&document);
    }
}

fn build(document: &Value) {
    for runtime in [Runtime::Native, Runtime::Cloudflare, Runtime::Spin] {
        match Config::build(document, None, runtime) {
            Ok(_) => compile(document, runtime),
            Err(problems) => {
                assert!(!problems.is_empty(), "refused without a reason");
                assert!(
                    problems.iter().all(|problem| !problem.message.is_empty()),
                    "a problem without words"
                );
            }
        }
    }
}

/// What can run can be compiled, and is then the same.
fn compile(document: &Value, runtime: Runtime) {
    let text = serde_json::to_string(document).expect("a configuration is JSON");
    let compiled: Value = serde_json::from_str(&text).expect("what was compiled can be read");
    assert_eq!(
        Config::secrets(document),
        Config::secrets(&compiled),
        "compiling loses no secret"
    );
    if let Err(problems) = Config::build(&compiled, None, runtime) {
        panic!("compiling makes problems: {problems:?}");
    }
}
