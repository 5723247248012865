//! Fuzzes [`tidegate_fuzz::request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tidegate_fuzz::request(bytes);
});
