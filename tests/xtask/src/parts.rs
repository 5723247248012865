//! The parts of `cargo xtask test`, in the order in which they are played.

use std::fs;

use crate::{
    command::{Run, cargo, root, run, target},
    counts::Counts,
    size, tools,
};

/// Something that can fail.
pub(crate) struct Part {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What it does, in a line.
    pub(crate) about: &'static str,
    /// Parts without which it cannot be played.
    pub(crate) needs: &'static [&'static str],
    /// Whether it runs tests; then it fails if it finds none.
    pub(crate) tests: bool,
    /// Plays it, adding to the counts.
    pub(crate) play: fn(&mut Counts) -> Result<(), String>,
}

/// All parts.
pub(crate) const PARTS: &[Part] = &[
    check(
        "setup",
        "the pinned tools and packages are there",
        &[],
        |_| tools::install_all(),
    ),
    check("fmt", "every file is formatted", &[], |_| {
        cargo("fmt --all --check").go()
    }),
    check("clippy", "no lint, natively and at both edges", &[], clippy),
    check(
        "doc",
        "the documentation builds without a warning",
        &[],
        |_| {
            natively("doc --no-deps --document-private-items")
                .env("RUSTDOCFLAGS", "-D warnings")
                .go()
        },
    ),
    check(
        "deny",
        "licences, sources and bans of all dependencies",
        &["setup"],
        |_| {
            cargo("deny --locked --offline check --hide-inclusion-graph bans licenses sources").go()
        },
    ),
    test(
        "unit",
        "unit tests, property tests, and the test that holds the house",
        &[],
        unit,
    ),
    check(
        "build",
        "the native binary, the fakes and the Spin host build",
        &[],
        |_| natively("build --bins").go(),
    ),
    check("component", "the Spin component builds", &[], |_| {
        cargo("build --locked --release -p tidegate-spin --target wasm32-wasip2").go()
    }),
    check("worker", "the worker builds", &["setup"], |_| {
        run("sh")
            .arg("tests/workerd/build.sh")
            .arg(target().join("worker"))
            .go()
    }),
    check(
        "size",
        "both edge artefacts are within their budget",
        &["component", "worker"],
        |_| {
            size::weigh("worker", &target().join("worker/build/index_bg.wasm"))?;
            size::weigh(
                "component",
                &target().join("wasm32-wasip2/release/tidegate_spin.wasm"),
            )
        },
    ),
    test("memory", "the scenarios on the core alone", &[], |counts| {
        scenarios("memory", counts)
    }),
    test(
        "native",
        "the scenarios on the native binary",
        &["build"],
        |counts| scenarios("native", counts),
    ),
    test(
        "workerd",
        "the scenarios on workerd",
        &["build", "worker"],
        |counts| scenarios("workerd", counts),
    ),
    test(
        "spin",
        "the scenarios on the Spin host",
        &["build", "component"],
        |counts| scenarios("spin", counts),
    ),
    test(
        "harness",
        "the worker in wrangler's own test harness",
        &["worker"],
        |counts| {
            run("node")
                .words("--test --test-reporter=spec harness.test.mjs")
                .within("tests/workerd")
                .with_artefacts()
                .count(counts)
        },
    ),
    test(
        "clients",
        "real SDKs and Dify's clients, on the native binary",
        &["setup", "build"],
        |counts| clients("native", counts),
    ),
    test(
        "clients-edge",
        "the same clients, on workerd",
        &["setup", "build", "worker"],
        |counts| clients("workerd", counts),
    ),
    test("fuzz", "what must hold for any bytes", &["setup"], fuzz),
];

const fn check(
    name: &'static str,
    about: &'static str,
    needs: &'static [&'static str],
    play: fn(&mut Counts) -> Result<(), String>,
) -> Part {
    Part {
        name,
        about,
        needs,
        tests: false,
        play,
    }
}

const fn test(
    name: &'static str,
    about: &'static str,
    needs: &'static [&'static str],
    play: fn(&mut Counts) -> Result<(), String>,
) -> Part {
    Part {
        name,
        about,
        needs,
        tests: true,
        play,
    }
}

/// A command of cargo for everything that is built for this machine: always the same set, so that nothing is built twice.
fn natively(arguments: &str) -> Run {
    cargo(arguments)
        .words("--locked --workspace --exclude tidegate-cloudflare --exclude tidegate-spin")
}

fn clippy(_: &mut Counts) -> Result<(), String> {
    natively("clippy --all-targets")
        .words("-- -D warnings")
        .go()?;
    let edges = [
        "-p tidegate-core -p tidegate-cloudflare --target wasm32-unknown-unknown",
        "-p tidegate-core -p tidegate-spin --target wasm32-wasip2",
    ];
    edges.iter().try_for_each(|edge| {
        cargo("clippy --locked")
            .words(edge)
            .words("-- -D warnings")
            .go()
    })
}

/// Everything that `cargo test` finds, but for the scenarios, which are parts of their own, and the properties of `fuzz`.
fn unit(counts: &mut Counts) -> Result<(), String> {
    let mut tests = natively("test --exclude tidegate-fuzz --no-fail-fast --lib --bins");
    for directory in [
        "core/tests",
        "adapters/native/tests",
        "tests/tests",
        "tests/fakes/tests",
        "tests/spin-host/tests",
    ] {
        for file in fs::read_dir(root().join(directory))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = file.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".rs").filter(|name| *name != "scenarios") {
                tests = tests.arg("--test").arg(name);
            }
        }
    }
    tests.count(counts)
}

fn scenarios(runtime: &str, counts: &mut Counts) -> Result<(), String> {
    cargo("test --locked -p tidegate-tests --test scenarios")
        .env("TIDEGATE_RUNTIMES", runtime)
        .with_artefacts()
        .count(counts)
}

fn clients(runtime: &str, counts: &mut Counts) -> Result<(), String> {
    run("bash")
        .arg("tests/clients/play.sh")
        .arg(runtime)
        .with_artefacts()
        .count(counts)
}

impl Run {
    /// Tells it where the parts before have put what they built.
    fn with_artefacts(self) -> Self {
        let built = |path: &str| target().join(path);
        self.env("TIDEGATE_BIN", built("debug/tidegate"))
            .env("TIDEGATE_FAKES_BIN", built("debug/tidegate-fakes"))
            .env("TIDEGATE_SPIN_HOST", built("debug/tidegate-spin-host"))
            .env(
                "TIDEGATE_SPIN_WASM",
                built("wasm32-wasip2/release/tidegate_spin.wasm"),
            )
            .env("TIDEGATE_WORKERD", built("worker"))
    }
}

/// The properties on random input; where a nightly toolchain is, also guided by what the code does with it.
fn fuzz(counts: &mut Counts) -> Result<(), String> {
    cargo("test --locked -p tidegate-fuzz --no-fail-fast").count(counts)?;
    let targets = ["config", "request", "sse"];
    if !tools::nightly() {
        println!(
            "no nightly toolchain: the fuzz targets are left out, the properties above are the same"
        );
        counts.skipped += targets.len() as u64;
        return Ok(());
    }
    for target in targets {
        let corpus = format!("tests/fuzz/corpus/{target}");
        fs::create_dir_all(root().join(&corpus)).map_err(|error| format!("{corpus}: {error}"))?;
        cargo("+nightly fuzz run --fuzz-dir tests/fuzz --features targets")
            .arg(target)
            .arg(corpus)
            .arg(format!("tests/fuzz/seeds/{target}"))
            .words(
                "-- -max_total_time=20 -max_len=4096 -timeout=10 -print_final_stats=0 -verbosity=0",
            )
            // The release profile is made for small artefacts, and slow to build.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .quietly()?;
        println!("fuzz target {target}: nothing found in 20 s");
        counts.passed += 1;
    }
    Ok(())
}
