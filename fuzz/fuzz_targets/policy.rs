//! Fuzzes one entrance for what comes from outside; the checks are in `checks.rs`.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target calls one of them")]
mod checks;

libfuzzer_sys::fuzz_target!(|tree: &str| checks::policy(tree));
