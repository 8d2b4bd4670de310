//! Arbitrary bytes for whole connections, from the first packet to the last delivery.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| broker::fuzzing::connection(bytes));
