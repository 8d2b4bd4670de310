//! One test binary, a module per subject.

mod crash;
mod outbox;
mod replay;
mod store;
