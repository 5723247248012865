//! The Spin component, made small: cargo links it, wasm-opt works on the program in it, and names go last.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    command::{cargo, root, run, target},
    wasm,
};

/// What the target wasm32-wasip2 of the pinned toolchain may use; wasm-opt uses nothing else.
const FEATURES: &str = "--enable-bulk-memory --enable-bulk-memory-opt --enable-call-indirect-overlong --enable-multivalue \
    --enable-mutable-globals --enable-nontrapping-float-to-int --enable-reference-types --enable-sign-ext";

/// What is worth being inlined, rustc has inlined. Nothing lies in the first kilobyte of memory but the end of the stack, which grows down from one megabyte to nothing.
/// Sorted by their names, functions stand beside those that are like them, and compress a fortieth better. For that the
/// names have to be kept so far.
const PASSES: &str = "-Oz --converge --skip-pass=inlining-optimizing --low-memory-unused --reorder-functions-by-name --debuginfo";

/// Where [`build`] puts the component.
pub(crate) fn path() -> PathBuf {
    target().join("wasm32-wasip2/release/tidegate.wasm")
}

/// Builds the component. Without wasm-opt it is larger, and otherwise the same.
pub(crate) fn build() -> Result<(), String> {
    cargo("build --locked --release -p tidegate-spin --target wasm32-wasip2").go()?;
    let linked = path().with_file_name("tidegate_spin.wasm");
    let component = read(&linked)?;
    let small = match optimised(wasm::program(&component)?)? {
        Some(program) => program,
        None => wasm::program(&component)?.to_vec(),
    };
    let component = wasm::with_program(&component, &wasm::stripped(&small)?)?;
    write(&path(), &wasm::stripped(&component)?)
}

/// Takes names and notes out of the file at `path`.
pub(crate) fn strip(path: &str) -> Result<(), String> {
    let path = Path::new(path);
    write(path, &wasm::stripped(&read(path)?)?)
}

/// What wasm-opt makes of `program`, if it is there.
fn optimised(program: &[u8]) -> Result<Option<Vec<u8>>, String> {
    // Of the version that the worker is built with; what another one would make of it is not tested.
    let wasm_opt = root().join("tests/workerd/node_modules/.bin/wasm-opt");
    if !wasm_opt.exists() {
        println!(
            "the component is not optimised for size: `npm ci` in tests/workerd brings wasm-opt"
        );
        return Ok(None);
    }
    let (before, after) = (
        path().with_extension("linked"),
        path().with_extension("optimised"),
    );
    write(&before, program)?;
    run(wasm_opt)
        .arg(&before)
        .arg("-o")
        .arg(&after)
        .words(FEATURES)
        .words(PASSES)
        .go()?;
    read(&after).map(Some)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}
