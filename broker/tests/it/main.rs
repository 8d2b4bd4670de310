//! The door and the link over real sockets, with real clients and an intake that settles deliveries when told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod abuse;
mod acl;
mod clients;
mod conformance;
mod door;
mod fan_out;
mod link;
mod mosquitto;
mod notation;
mod pressure;
mod sessions;
mod shares;
mod support;
mod websocket;
