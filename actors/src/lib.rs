//! Who does the work: supervision, ingress, devices, the telemetry writer, sessions, images, inference,
//! sync, retention.
//!
//! Actors own state and lifetimes; messages between them are hints and rows are the truth: losing any message in
//! memory costs time, never data.

pub mod access;
pub mod address;
pub mod aggregate;
pub mod alarm;
pub mod allowlist;
pub mod board;
pub mod budget;
pub mod chart;
pub mod chore;
pub mod clock;
pub mod console;
pub mod credentials;
pub mod database;
pub mod device;
pub mod directory;
pub mod disk;
pub mod door;
pub mod door_store;
mod ending;
pub mod flock;
pub mod gatekeeper;
pub mod gauges;
pub mod inference;
pub mod ingress;
pub mod last_seen;
pub mod media;
pub mod operators;
pub mod picture;
pub mod place;
pub mod quality;
mod refusal;
pub mod retention;
pub mod session;
pub mod stations;
pub mod supervisor;
pub mod sync;
pub mod tallies;
pub mod telemetry;
pub mod wake;
