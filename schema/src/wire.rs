//! What travels: topics and envelopes coming in, outbox events and cloud batches going out.

pub mod batch;
pub mod envelope;
pub mod event;
pub mod payload;
pub mod reject;
pub mod session;
pub mod time;
pub mod topic;
