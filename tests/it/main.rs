//! One test binary, a module per subject.

mod outbox;
mod store;
