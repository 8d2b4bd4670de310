//! One test binary, a module per subject.

mod crash;
mod http;
mod outbox;
mod replay;
mod store;
mod sync;
