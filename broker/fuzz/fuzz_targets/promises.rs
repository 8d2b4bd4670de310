//! Scripts of clients that keep to the protocol, of kills and of faults of the store: every promise is kept.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| broker::fuzzing::promises(bytes));
