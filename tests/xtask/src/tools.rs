//! What the tests need that cargo does not bring: pinned, and installed where it is missing.

use std::{fs, path::Path};

use crate::command::{cargo, node, root, run, tools};

/// wasm-bindgen's version is that of the crate in Cargo.lock; worker-build's is that of `worker`.
const CRATES: [(&str, &str); 4] = [
    ("wasm-bindgen-cli", "0.2.129"),
    ("worker-build", "0.8.7"),
    ("cargo-deny", "0.20.2"),
    ("cargo-fuzz", "0.13.2"),
];

/// Where npm packages are needed.
const PACKAGES: [&str; 2] = ["tests/workerd", "tests/clients/node"];

/// The folder of the environments that the Python clients run in.
const PYTHON: &str = "tests/clients/python";

const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// What the benchmark measures with and against, each with its package of Debian.
pub(crate) const BENCH: [(&str, &str); 2] = [("nginx", "nginx-light"), ("wrk", "wrk")];

/// What keeps accounts for several gateways.
pub(crate) const REDIS: [(&str, &str); 1] = [("redis-server", "redis-server")];

/// Installs everything that `cargo xtask test` uses.
pub(crate) fn install_all() -> Result<(), String> {
    debian(&REDIS)?;
    targets()?;
    for (name, version) in CRATES {
        // Without a nightly toolchain there is nothing for it to do.
        if name != "cargo-fuzz" || nightly() {
            install(name, version)?;
        }
    }
    for directory in PACKAGES {
        packages(directory)?;
    }
    python()
}

/// Installs what building and running the worker needs.
pub(crate) fn install_for_workerd() -> Result<(), String> {
    targets()?;
    for (name, version) in CRATES.iter().take(2) {
        install(name, version)?;
    }
    packages("tests/workerd")
}

/// Whether a nightly toolchain is there; fuzzing needs one.
pub(crate) fn nightly() -> bool {
    run("rustup").words("run nightly rustc --version").works()
}

/// Installs the packages of Debian whose `programs` are missing.
pub(crate) fn debian(programs: &[(&str, &'static str)]) -> Result<(), String> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(", "));
    let sudo = |arguments: &str| {
        if on_path("sudo") {
            run("sudo").words(arguments)
        } else {
            run("env").words(arguments)
        }
    };
    sudo("apt-get update --quiet").go()?;
    sudo("apt-get install --quiet --yes --no-install-recommends")
        .words(&missing.join(" "))
        .go()
}

fn targets() -> Result<(), String> {
    let there = run("rustup").words("target list --installed").output()?;
    let missing: Vec<&str> = TARGETS
        .into_iter()
        .filter(|target| !there.lines().any(|line| line == *target))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        run("rustup")
            .words("target add")
            .words(&missing.join(" "))
            .go()
    }
}

fn install(name: &str, version: &str) -> Result<(), String> {
    let installed = fs::read_to_string(tools().join(".crates.toml")).unwrap_or_default();
    if installed.contains(&format!("\"{name} {version} ")) {
        return Ok(());
    }
    println!("installing {name} {version}");
    cargo("install --locked --quiet --version")
        .arg(format!("={version}"))
        .arg("--root")
        .arg(tools())
        .arg(name)
        .go()
}

fn packages(directory: &str) -> Result<(), String> {
    let directory = root().join(directory);
    if !directory.join("package.json").exists() {
        return Err(format!(
            "{} is missing",
            directory.join("package.json").display()
        ));
    }
    once(
        &directory.join("package-lock.json"),
        &directory.join("node_modules/.installed"),
        || {
            println!("installing the npm packages of {}", directory.display());
            run("npm")
                .words("ci --no-audit --no-fund")
                .within(&directory)
                .go()?;
            // npm may hold back install scripts, and the one of `node` is what brings the program itself.
            if directory.join("node_modules/node").exists() && !node().join("node").exists() {
                run("node")
                    .arg("installArchSpecificPackage.js")
                    .within(directory.join("node_modules/node"))
                    .go()?;
            }
            Ok(())
        },
    )
}

/// What Dify's package wants is older than what the others use: it has an environment of its own.
fn python() -> Result<(), String> {
    let directory = root().join(PYTHON);
    ["", "-dify"].iter().try_for_each(|name| {
        let (list, folder) = (format!("requirements{name}.txt"), format!(".venv{name}"));
        let stamp = directory.join(&folder).join(".installed");
        once(&directory.join(&list), &stamp, || {
            println!("installing {list} of {}", directory.display());
            run("python3")
                .words("-m venv")
                .arg(&folder)
                .within(&directory)
                .go()?;
            run(directory.join(&folder).join("bin/pip"))
                .words("install --quiet --disable-pip-version-check -r")
                .arg(&list)
                .within(&directory)
                .go()
        })
    })
}

/// Installs what `wanted` lists, unless `stamp` says that the very same list was installed.
fn once(
    wanted: &Path,
    stamp: &Path,
    install: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let list = fs::read(wanted).map_err(|error| format!("{}: {error}", wanted.display()))?;
    if fs::read(stamp).is_ok_and(|installed| installed == list) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, list).map_err(|error| format!("{}: {error}", stamp.display()))
}

fn on_path(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}
