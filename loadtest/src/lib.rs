//! A stranger with many devices: simulate a barn, pretend to be the cloud, replay traffic, judge and measure.
//!
//! This crate speaks MQTT and HTTP as the outside does and shares nothing with the engine but the words of `schema`.

pub mod barn;
pub mod bench;
pub mod chaos;
pub mod climate;
pub mod cloud;
pub mod connection;
pub mod device;
pub mod door;
pub mod drain;
pub mod flock;
pub mod http;
pub mod ids;
pub mod ledger;
pub mod lines;
pub mod listener;
pub mod mqtt;
pub mod page;
pub mod publisher;
pub mod record;
pub mod recording;
pub mod redact;
pub mod render;
pub mod replay;
pub mod report;
pub mod rest;
pub mod retention;
pub mod run;
pub mod station;
pub mod stream;
pub mod threshold;
pub mod timeline;
pub mod traffic;
pub mod verify;
pub mod watched;
pub mod weigh;
