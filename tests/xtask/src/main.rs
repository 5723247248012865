//! `cargo xtask test` runs every test of the project, `cargo xtask bench` measures it.
#![allow(
    clippy::disallowed_methods,
    reason = "a stopwatch needs the real clock"
)]

use std::process::ExitCode;

mod bench;
mod command;
mod component;
mod counts;
mod parts;
mod runner;
mod size;
mod tools;
mod wasm;

const USAGE: &str = "\
usage: cargo xtask test [PART…]                        run all parts, or these
       cargo xtask parts                               list the parts
       cargo xtask bench [--quick] [--assert] [PART…]  measure; PART is native, limits, overload or workerd
       cargo xtask component                           build the Spin component, as small as it gets
       cargo xtask strip FILE                          take the names out of a WebAssembly file
       cargo xtask setup                               install what the tests need, and nothing else";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["test", names @ ..] => runner::run(names),
        ["parts"] => {
            runner::list();
            Ok(())
        }
        ["bench", options @ ..] => bench::run(options),
        ["component"] => component::build(),
        ["strip", file] => component::strip(file),
        ["setup"] => tools::install_all(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // What `test` has to say ends with the counts, on standard output; it leaves nothing to say here.
            if !problem.is_empty() {
                eprintln!("{problem}");
            }
            ExitCode::FAILURE
        }
    }
}
