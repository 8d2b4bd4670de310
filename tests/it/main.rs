//! One test binary, a module per subject.

mod abuse;
mod clients;
mod cloud;
mod crash;
mod door;
mod external;
mod http;
mod inference;
mod lasting;
mod limits;
mod media;
mod outage;
mod outbox;
mod refusals;
mod replay;
mod retention;
mod schemathesis;
mod session;
mod status;
mod store;
mod storm;
mod sync;
mod thousand;
mod tidy;
mod tls;
mod weighing;
