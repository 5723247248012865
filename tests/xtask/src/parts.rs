//! The parts of `cargo xtask test`, in the order in which they are played.

use std::{fs, path::PathBuf};

use crate::{
    command::{Run, cargo, root, run, target},
    component,
    counts::Counts,
    size, tools,
};

/// Something that can fail.
pub(crate) struct Part {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What holds if it does not fail.
    pub(crate) about: &'static str,
    /// Parts without which it cannot be played.
    pub(crate) needs: &'static [&'static str],
    /// Whether it runs tests; then it fails if it finds none.
    pub(crate) tests: bool,
    /// Plays it, adding to the counts.
    pub(crate) play: Play,
}

type Play = fn(&mut Counts) -> Result<(), String>;

/// All parts.
pub(crate) const PARTS: &[Part] = &[
    check("setup", "the pinned tools and packages are there", setup),
    check("fmt", "every file is formatted", fmt),
    check("clippy", "no lint, natively and at both edges", clippy),
    check("doc", "the documentation builds without a warning", doc),
    check("deny", "licences, sources and bans", deny).after(&["setup"]),
    check("build", "everything native builds", build),
    check("component", "the Spin component builds", build_component).after(&["setup"]),
    check("worker", "the worker builds", worker).after(&["setup", "build"]),
    check("size", "both edge artefacts are in their budget", sizes).after(&["component", "worker"]),
    test("unit", "unit and property tests, the house, commands", unit).after(&["build"]),
    test("memory", "scenarios on the core alone", memory),
    test("native", "scenarios on the native binary", native).after(&["build"]),
    test("workerd", "scenarios on workerd", workerd).after(&["worker"]),
    test("spin", "scenarios on the Spin host", spin).after(&["build", "component"]),
    test("wrangler", "the worker in wrangler's own harness", wrangler).after(&["worker"]),
    test("clients", "real clients call the native binary", clients).after(&["build"]),
    test("clients-edge", "real clients call workerd", clients_edge).after(&["worker"]),
    test("fuzz", "what must hold for any bytes", fuzz).after(&["setup"]),
];

const fn check(name: &'static str, about: &'static str, play: Play) -> Part {
    Part {
        name,
        about,
        needs: &[],
        tests: false,
        play,
    }
}

const fn test(name: &'static str, about: &'static str, play: Play) -> Part {
    Part {
        name,
        about,
        needs: &[],
        tests: true,
        play,
    }
}

impl Part {
    const fn after(self, needs: &'static [&'static str]) -> Self {
        Self { needs, ..self }
    }
}

/// A command of cargo for everything that is built for this machine: always the same set, so that nothing is built twice.
fn natively(arguments: &str) -> Run {
    cargo(arguments)
        .words("--locked --workspace --exclude tidegate-cloudflare --exclude tidegate-spin")
}

fn setup(_: &mut Counts) -> Result<(), String> {
    tools::install_all()
}

fn fmt(_: &mut Counts) -> Result<(), String> {
    cargo("fmt --all --check").go()
}

fn clippy(_: &mut Counts) -> Result<(), String> {
    natively("clippy --all-targets")
        .words("-- -D warnings")
        .go()?;
    let edges = [
        "-p tidegate-core -p tidegate-cloudflare --target wasm32-unknown-unknown",
        "-p tidegate-core -p tidegate-redis -p tidegate-spin --target wasm32-wasip2",
    ];
    edges.iter().try_for_each(|edge| {
        cargo("clippy --locked")
            .words(edge)
            .words("-- -D warnings")
            .go()
    })
}

fn doc(_: &mut Counts) -> Result<(), String> {
    natively("doc --no-deps --document-private-items")
        .env("RUSTDOCFLAGS", "-D warnings")
        .go()
}

fn deny(_: &mut Counts) -> Result<(), String> {
    // Advisories are left out: their database is not on every machine.
    cargo("deny --locked --offline check --hide-inclusion-graph bans licenses sources").go()
}

/// All that `cargo test` finds, but for the scenarios and the properties of `fuzz`, which are parts of their own.
fn unit(counts: &mut Counts) -> Result<(), String> {
    tools::debian(&tools::REDIS)?;
    let mut tests = natively("test --no-fail-fast --lib --bins");
    for package in [
        "core",
        "adapters/native",
        "tests",
        "tests/fakes",
        "tests/spin-host",
    ] {
        for file in fs::read_dir(root().join(package).join("tests"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = file.file_name().to_string_lossy().into_owned();
            let is_folder = file.path().join("main.rs").is_file();
            let name = name
                .strip_suffix(".rs")
                .or_else(|| is_folder.then_some(&*name));
            if let Some(name) = name.filter(|name| *name != "scenarios") {
                tests = tests.arg("--test").arg(name);
            }
        }
    }
    tests.with_artefacts().count(counts)?;
    // What of the edge adapters can be tested without their runtimes.
    cargo("test --locked -p tidegate-spin -p tidegate-cloudflare --lib").count(counts)
}

fn build(_: &mut Counts) -> Result<(), String> {
    natively("build --bins").go()
}

fn build_component(_: &mut Counts) -> Result<(), String> {
    component::build()
}

fn worker(_: &mut Counts) -> Result<(), String> {
    build_worker().map(drop)
}

/// Builds the worker, with the configuration of the example in it, and gives the directory that it is in.
pub(crate) fn build_worker() -> Result<PathBuf, String> {
    let (directory, compiled) = (target().join("worker"), target().join("worker.json"));
    natively("build --bin tidegate").go()?;
    run(target().join("debug/tidegate"))
        .words("compile examples/workers/tidegate.toml --out")
        .arg(&compiled)
        .go()?;
    run("sh")
        .arg("tests/workerd/build.sh")
        .arg(&directory)
        .env("TIDEGATE_COMPILED", compiled)
        .go()?;
    Ok(directory)
}

fn sizes(_: &mut Counts) -> Result<(), String> {
    size::weigh("worker", &target().join("worker/build/index_bg.wasm"))?;
    size::weigh("component", &component::path())
}

fn memory(counts: &mut Counts) -> Result<(), String> {
    scenarios("memory", counts)
}

fn native(counts: &mut Counts) -> Result<(), String> {
    scenarios("native", counts)
}

fn workerd(counts: &mut Counts) -> Result<(), String> {
    scenarios("workerd", counts)
}

fn spin(counts: &mut Counts) -> Result<(), String> {
    scenarios("spin", counts)
}

fn scenarios(runtime: &str, counts: &mut Counts) -> Result<(), String> {
    natively("test --test scenarios")
        .env("TIDEGATE_RUNTIMES", runtime)
        .with_artefacts()
        .count(counts)
}

fn wrangler(counts: &mut Counts) -> Result<(), String> {
    run("node")
        .words("--test --test-reporter=spec harness.test.mjs isolates.test.mjs socket.test.mjs")
        .within("tests/workerd")
        .with_artefacts()
        .count(counts)
}

fn clients(counts: &mut Counts) -> Result<(), String> {
    play_clients("native", counts)
}

fn clients_edge(counts: &mut Counts) -> Result<(), String> {
    play_clients("workerd", counts)
}

fn play_clients(runtime: &str, counts: &mut Counts) -> Result<(), String> {
    run("bash")
        .arg("tests/clients/play.sh")
        .arg(runtime)
        .with_artefacts()
        .count(counts)
}

/// The properties on random input; where a nightly toolchain is, also on input that is led by what the code does with it.
fn fuzz(counts: &mut Counts) -> Result<(), String> {
    natively("test --test properties").count(counts)?;
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
            .words("-- -max_total_time=20 -max_len=4096 -timeout=10")
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

impl Run {
    /// Tells it where the parts before have put what they built.
    fn with_artefacts(self) -> Self {
        let built = |path: &str| target().join(path);
        self.env("TIDEGATE_BIN", built("debug/tidegate"))
            .env("TIDEGATE_FAKES_BIN", built("debug/tidegate-fakes"))
            .env("TIDEGATE_SPIN_HOST", built("debug/tidegate-spin-host"))
            .env("TIDEGATE_SPIN_WASM", component::path())
            .env("TIDEGATE_WORKERD", built("worker"))
    }
}
