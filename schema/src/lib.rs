//! What things are called: topics, envelopes, events, ids, errors, metrics and tables, and all SQL of the engine.
//!
//! This is the bottom layer. It knows PostgreSQL and nothing else of the outside world.

pub mod clock;
pub mod id;
pub mod metrics;
pub mod store;
pub mod wire;
