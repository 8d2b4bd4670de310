//! Entries for arbitrary bytes: what the fuzz targets of `broker/fuzz` call, and a short run of them as a test.

mod codec;
mod connection;
mod peer;
mod promises;
mod rows;
mod switchboard;

pub use codec::codec;
pub use connection::connection;
pub use promises::promises;

#[cfg(test)]
#[path = "fuzzing_tests.rs"]
mod tests;
