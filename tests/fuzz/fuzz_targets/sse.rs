//! Fuzzes [`tidegate_fuzz::sse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tidegate_fuzz::sse(bytes);
});
