//! Fuzzes [`tidegate_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tidegate_fuzz::config(bytes);
});
