//! Arbitrary bytes for everything that reads MQTT.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| broker::fuzzing::codec(bytes));
