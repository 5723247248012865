//! The house: the core knows no platform, nothing imports upwards, and what is promised can be written.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tidegate_core::config::{self, Config};
use tidegate_tests::process::{binary, workspace};

/// Platforms, runtimes, clocks and sources of randomness: none of them may stand under the core.
const OUTSIDE: [&str; 26] = [
    "async-std",
    "chrono",
    "futures",
    "getrandom",
    "hyper",
    "hyper-util",
    "js-sys",
    "libc",
    "log",
    "mio",
    "rand",
    "redis",
    "regex",
    "reqwest",
    "ring",
    "rusqlite",
    "rustls",
    "socket2",
    "spin-sdk",
    "time",
    "tokio",
    "tracing",
    "url",
    "wasm-bindgen",
    "web-sys",
    "worker",
];

#[test]
fn the_core_stands_on_no_platform() {
    let found = packages_under("tidegate-core");
    assert!(
        found.contains("http") && found.len() > 10,
        "this does not see the tree: {found:?}"
    );
    let outside: Vec<_> = found
        .iter()
        .filter(|name| OUTSIDE.contains(&name.as_str()))
        .collect();
    assert!(outside.is_empty(), "the core depends on {outside:?}");
    assert!(
        found.len() <= 45,
        "the core stands on {} packages: {found:?}",
        found.len()
    );
}

#[test]
fn the_store_that_runtimes_share_stands_on_the_core_alone() {
    let (store, core) = (
        packages_under("tidegate-redis"),
        packages_under("tidegate-core"),
    );
    let more: Vec<_> = store.difference(&core).collect();
    assert_eq!(more, ["tidegate-redis"]);
}

/// The names of all packages that are compiled into `package`, and its own.
fn packages_under(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let run = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let metadata: Value = serde_json::from_slice(&run.stdout).unwrap();
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            (
                package["id"].as_str().unwrap(),
                package["name"].as_str().unwrap(),
            )
        })
        .collect();
    let below: BTreeMap<&str, Vec<&str>> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), normal_dependencies(node)))
        .collect();
    let root = names.iter().find(|(_, name)| **name == package).unwrap().0;
    let mut open = vec![*root];
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if found.insert(names[id].to_owned()) {
            open.extend(&below[id]);
        }
    }
    found
}

/// What is compiled into the thing itself, on the platforms that it is for.
fn normal_dependencies(node: &Value) -> Vec<&str> {
    let is_normal = |dependency: &Value| {
        dependency["dep_kinds"]
            .as_array()
            .unwrap()
            .iter()
            .any(|kind| kind["kind"].is_null() && kind["target"].is_null())
    };
    let dependencies = node["deps"].as_array().unwrap();
    dependencies
        .iter()
        .filter(|is| is_normal(is))
        .map(|is| is["pkg"].as_str().unwrap())
        .collect()
}

#[test]
fn no_import_of_the_core_runs_upwards_or_in_a_circle() {
    let source = workspace().join("core/src");
    let floors = floors(&fs::read_to_string(source.join("lib.rs")).unwrap());
    let mut wrong = Vec::new();
    let mut modules = BTreeSet::new();
    let mut imports = 0;
    for path in rust_files(&source) {
        let inside = path.strip_prefix(&source).unwrap();
        let module = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        if module == "lib" {
            continue;
        }
        modules.insert(module.clone());
        let Some(floor) = floors.get(&module) else {
            wrong.push(format!("`{module}` stands on no floor of lib.rs"));
            continue;
        };
        let code = code(&fs::read_to_string(&path).unwrap());
        if inside.components().count() == 1 && code.contains("super::") {
            wrong.push(format!(
                "{}: `super::` is the crate itself",
                inside.display()
            ));
        }
        for import in imported(&code) {
            imports += 1;
            match floors.get(&import) {
                _ if import == module => {}
                Some(below) if below < floor => {}
                Some(_) => wrong.push(format!(
                    "{}: `{import}` is not below `{module}`",
                    inside.display()
                )),
                None => wrong.push(format!(
                    "{}: `crate::{import}` is on no floor",
                    inside.display()
                )),
            }
        }
    }
    let gone: Vec<_> = floors
        .keys()
        .filter(|module| !modules.contains(*module))
        .collect();
    assert!(
        gone.is_empty(),
        "lib.rs has floors for {gone:?}, which are not there"
    );
    assert!(imports > 30, "this does not see the imports");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The floor of each module, as the architecture page names them from the ground.
fn floors(page: &str) -> BTreeMap<String, usize> {
    let text: String = page
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .collect::<Vec<_>>()
        .join(" ");
    let list = text
        .split("from the ground:")
        .nth(1)
        .expect("lib.rs names the floors `from the ground:`");
    let list = list.split(". ").next().unwrap();
    let floors: BTreeMap<_, _> = list
        .split('·')
        .enumerate()
        .flat_map(|(floor, modules)| {
            modules
                .split_whitespace()
                .map(move |module| (module.trim_matches(['`', '/']).to_owned(), floor))
        })
        .filter(|(module, _)| !module.is_empty())
        .collect();
    assert!(floors.len() > 15, "{floors:?}");
    floors
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|is| is == "rs")
            && path.file_stem().is_some_and(|name| name != "tests")
        {
            files.push(path);
        }
    }
    files
}

/// A file without its comments and its tests, which may know everything.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines()
        .map(|line| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The modules that are named behind `crate::`.
fn imported(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            modules.insert(identifier(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (position, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                '}' | ',' if depth == 0 => {
                    modules.insert(identifier(group[start..position].trim_start()));
                    start = position + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    modules.remove("");
    modules
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn imports_are_read_as_rust_reads_them() {
    let code =
        "use crate::{\n a::{self, b::C},\n d,\n};\nfn f() -> crate::e::E {}\npub(crate) fn g() {}";
    assert_eq!(imported(code), ["a", "d", "e"].map(String::from).into());
}

#[test]
fn every_example_passes_check() {
    let binary = binary().unwrap();
    let examples = toml_files(&workspace().join("examples"));
    assert!(!examples.is_empty(), "there are no examples");
    for example in examples {
        // A file, or its folder, is named after where it runs, if that is not everywhere.
        let names = [
            example.file_stem(),
            example.parent().and_then(Path::file_name),
        ];
        let names = names.map(|name| name.and_then(OsStr::to_str).unwrap_or_default());
        let runtime = match names {
            ["cloudflare", _] | [_, "workers"] => "cloudflare",
            ["spin", _] | [_, "spin"] => "spin",
            _ => "native",
        };
        let run = Command::new(&binary)
            .args(["check", "--runtime", runtime])
            .arg(&example)
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{}: {}",
            example.display(),
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(toml_files(&path));
        } else if path.extension().is_some_and(|is| is == "toml") && !path.ends_with("Cargo.toml") {
            files.push(path);
        }
    }
    files
}

#[test]
fn all_that_a_configuration_may_say_is_known_by_name() {
    let document: config::Value = toml::from_str(EVERYTHING).unwrap();
    for runtime in [
        config::Runtime::Native,
        config::Runtime::Cloudflare,
        config::Runtime::Spin,
    ] {
        // What is there already gives no problem; the rest gives exactly this one.
        for problem in Config::build(&document, None, runtime)
            .err()
            .unwrap_or_default()
        {
            let problem = problem.to_string();
            assert!(problem.contains("not available"), "{runtime:?}: {problem}");
        }
    }
}

/// Every name that belongs to the configuration.
const EVERYTHING: &str = r#"
[gateway]
listen     = "127.0.0.1:8080"
admin_key  = "$TIDEGATE_ADMIN_KEY"
max_body   = "100MB"
tls        = { certificate = "tls/fullchain.pem", key = "tls/privkey.pem" }
proxies    = ["10.0.0.0/8", "::1"]
store      = "embedded"
data_dir   = ".tidegate"
on_ledger_failure = "refuse"
limits     = [{ tokens = 500, per = "1m" }]

[[consumers]]
name   = "web"
keys   = ["$WEB_KEY"]
priority = "high"
limits = [{ requests = 60, per = "1m" }, { tokens = 200_000, per = "1h" }, { concurrent = 8 }]

[[issuers]]
name = "corp"
issuer = "https://id.example.com"
jwks_url = "https://id.example.com/jwks.json"
audience = ["tidegate"]
consumer = "claim:sub"

[providers.openai]
dialect  = "openai"
base_url = "https://api.openai.com/v1"
keys     = ["$OPENAI_KEY_A", "$OPENAI_KEY_B"]
prefill  = false

[providers.vllm]
dialect  = "openai"
replicas = ["http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1"]
balance  = "prefix"

[models.smart]
targets  = ["openai/gpt-4.1", { target = "vllm/qwen3-32b", weight = 2 }]
strategy = "fallback"
timeouts = { connect = "5s", first_token = "15s", idle = "30s", total = "10m" }
retry    = { attempts = 2, on = ["connect", "429", "5xx"] }
rescue   = "auto"

[dify.main]
api           = "http://dify-api:5001"
web           = "http://dify-web:3000"
plugin_daemon = "http://dify-plugin-daemon:5002"
websocket     = "http://dify-api-websocket:5001"
overload      = "auto"
permits       = { console = 64, service = 128, webapp = 128, files = 32, plugins = 32 }

[dify.main.apps.support]
key      = "$DIFY_SUPPORT_KEY"
limits   = [{ concurrent = 10, queue = 50, wait = "20s" }]
on_abort = "stop"
stream_upstream = true
overload = { start = 16, least = 4, most = 1000, queue = 200, wait = "1500ms", over = "429" }

[[routes]]
name = "llm"
path = "/v1"
serve = "models"

[[routes]]
name = "support"
host = "ai.example.com"
path = "/agents"
method = ["GET", "POST"]
headers = { app-id = "support" }
serve = "dify.main/support"
priority = "low"
limits = [{ requests = 1, per = "1m", by = "header:x-user" }]
cache  = { ttl = "10m" }
guards = ["no-secrets"]

[[routes]]
name = "dify"
path = "/"
serve = "dify.main"
access = "public"

[guards.no-secrets]
deny = ["password is *"]
mask = ["email", "card", "phone"]

[telemetry]
otlp = "https://otel.example.com"
prompts = false
"#;
